"""Changes of bytes that know nothing of a format."""

from __future__ import annotations

from random import Random

__all__ = ["damaged"]


def damaged(draw: Random, data: bytes) -> bytes:
    """A few bytes changed, removed, doubled, or the rest cut off."""
    result = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place, length = draw.randrange(max(len(result), 1)), draw.randrange(600)
        kind = draw.random()
        if kind < 0.7:
            result[place : place + 1] = draw.randbytes(1)
        elif kind < 0.8:
            del result[place:]
        elif kind < 0.9:
            del result[place : place + length]
        else:
            result[place:place] = result[draw.randrange(max(len(result), 1)) :][:length]
    return bytes(result)
