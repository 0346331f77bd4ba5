"""Whether two images show the same content, and under which map."""

from dedupkit.verification.pair import local_features, verify_pair

__all__ = ["local_features", "verify_pair"]
