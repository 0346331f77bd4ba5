"""What a join would take, before any fingerprint is there; see :meth:`dedupkit.signals.Signal.expected`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Expected", "Extent"]


@dataclass(frozen=True, slots=True)
class Extent:
    """What is known of the samples beforehand.

    Attributes:
        samples: Number of samples.
        words: Mean number of words of a caption.
        dims: Length of a vector.
    """

    samples: int
    words: float = 10.0
    dims: int = 512


@dataclass(frozen=True, slots=True)
class Expected:
    """What a join takes where no two fingerprints are equal.

    Attributes:
        seconds: Processor time.
        tasks: Number of its tasks where it is many; 1 for a join that is always one.
        nbytes: Bytes of the run folder that these tasks read.
        memory: Bytes that the largest of them holds.
    """

    seconds: float
    tasks: int = 1
    nbytes: int = 0
    memory: int = 0
