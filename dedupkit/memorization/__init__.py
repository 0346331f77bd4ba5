"""What a model may memorize of a data set, and whether its output copies it: search, guard, risk, audit."""

from dedupkit.memorization.guard import CopyCheck, CopyGuard
from dedupkit.memorization.neighbours import Neighbour, Neighbours

__all__ = ["CopyCheck", "CopyGuard", "Neighbour", "Neighbours"]
