"""How an image is turned for display: the one place that reads the EXIF orientation, for every decoder."""

from __future__ import annotations

import io
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["UPRIGHT", "Turn", "jpeg_turn", "turn_array", "turn_of"]

Turn = tuple[bool, bool, bool]
"""What turns the stored pixels upright: whether to transpose first, then to flip the rows, to flip the columns."""

UPRIGHT: Turn = (False, False, False)

_TAG = 0x0112
_TURNS: dict[object, Turn] = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_Value = TypeVar("_Value", bound=np.generic)


def turn_of(image: Image.Image) -> Turn:
    """The turn of an opened image, as Pillow reads its EXIF block and, in its absence, its XMP block.

    Args:
        image: An image as ``Image.open`` returns it.

    Returns:
        The turn; :data:`UPRIGHT` where the file says nothing, or nothing that makes sense.

    >>> turn_of(Image.new("L", (3, 2)))
    (False, False, False)
    """
    try:
        return _TURNS.get(image.getexif().get(_TAG), UPRIGHT)
    except Exception:  # a broken EXIF block raises almost anything
        return UPRIGHT


def jpeg_turn(data: bytes, end: int | None = None) -> Turn:
    """The turn of a JPEG, wherever among its segments the EXIF block lies.

    Args:
        data: The stored bytes.
        end: The offset at which the headers are known to end.

    Returns:
        The turn, as :func:`turn_of` finds it.
    """
    if data.find(b"Exif\0\0", 0, end) < 0 and data.find(b"tiff:Orientation", 0, end) < 0:
        return UPRIGHT  # most files: nothing to parse
    try:
        return turn_of(Image.open(io.BytesIO(data), formats=("JPEG", "MPO")))
    except Exception:
        return UPRIGHT


def turn_array(pixels: NDArray[_Value], turn: Turn) -> NDArray[_Value]:
    """Turn pixels upright, as a view.

    Args:
        pixels: (height, width, ...) of any dtype.
        turn: How.

    >>> turn_array(np.array([[1, 2, 3]]), (True, False, True)).tolist()
    [[1], [2], [3]]
    """
    transpose, flip_rows, flip_columns = turn
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
