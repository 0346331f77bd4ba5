"""The uniform frame that editing puts around a picture: borders, letterboxes, the corners that a rotation leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.embedding.embedder import Pixels

__all__ = ["without_frame"]

_BORDER, _CORNER = 10, 14  # levels of a channel that a frame's pixels may lie off its colour, for JPEG and noise
_OUTLIERS = 0.01  # share of an edge line's pixels that may lie further off
_LEAST = 0.25  # share of either side that must be left, else nothing is cut
_SHORTEST = 3  # pixels of a corner triangle's legs
_ALIKE = 0.1  # how far opposite triangles may differ, beside four pixels
_LEG = 0.25  # least share of the shorter side that the longest leg takes: of a square turned by 45° it takes 0.29
_STRIP = 8  # the longer side over the shorter one, at most: turning a strip takes room for a square of its length


def without_frame(image: Image.Image) -> Image.Image:
    """Cut uniform borders off, and turn a picture upright that was rotated within a uniform frame.

    A descriptor sees a frame as content: a copy with black corners is nearer to other images with black corners than to
    its original. Photos without a frame come back as they are, at the cost of a look at their outer lines.

    Args:
        image: RGB.

    Returns:
        RGB. What a rotation cut off at the corners is filled with the mirrored picture.

    Example:
        >>> from PIL import ImageOps
        >>> noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        >>> framed = ImageOps.expand(Image.fromarray(noise), (20, 30), "white")
        >>> framed.size, without_frame(framed).size   # with the outer lines, which the frame blurs in most files
        ((120, 120), (78, 58))
    """
    pixels = np.asarray(image)
    rotated = _Rotated.find(pixels)
    if rotated is not None:
        return rotated.upright()
    rows = slice(_uniform_lines(pixels), len(pixels) - _uniform_lines(pixels[::-1]))
    lines = pixels[rows].swapaxes(0, 1)
    columns = slice(_uniform_lines(lines), len(lines) - _uniform_lines(lines[::-1]))
    cut = pixels[rows, columns]
    if cut.shape == pixels.shape or min(len(cut) / len(pixels), cut.shape[1] / pixels.shape[1]) < _LEAST:
        return image
    return Image.fromarray(np.ascontiguousarray(cut))


def _uniform_lines(lines: NDArray[np.uint8]) -> int:
    """How many lines of (n, m, 3) at its start have one colour, and one more, which the resampling of an edge blurs."""
    if not lines.size or np.ptp(lines[0, ::4], axis=0).max() > 2 * _BORDER:  # nearly all photos: no time is lost
        return 0
    uniform = _near(lines, np.median(lines[0], axis=0), _BORDER).mean(axis=1) >= 1 - _OUTLIERS
    length = _run(uniform)
    return length + 1 if 0 < length < len(lines) else length


def _near(pixels: NDArray[np.uint8], colour: NDArray[np.float64], levels: int) -> NDArray[np.bool_]:
    """Which pixels of (..., 3) have a colour, to so many levels."""
    low, high = np.clip(colour - levels, 0, 255), np.clip(colour + levels, 0, 255)
    inside = (pixels >= low.astype(np.uint8)) & (pixels <= high.astype(np.uint8))
    near: NDArray[np.bool_] = np.all(inside, axis=-1)
    return near


def _run(line: NDArray[np.bool_]) -> int:
    """How many values at the start of a line are true."""
    return len(line) if line.all() else int(np.argmin(line))


Legs = tuple[int, int]
"""Of a triangle of frame in a corner: its pixels across, along the first or last row, and down, along a column."""


@dataclass(frozen=True, slots=True)
class _Rotated:
    """A picture that was rotated within a frame, and the triangles of frame in its four corners."""

    pixels: Pixels
    top_left: Legs
    top_right: Legs
    bottom_left: Legs
    bottom_right: Legs

    @classmethod
    def find(cls, pixels: Pixels) -> _Rotated | None:
        """The picture, lines that are all frame cut off; None unless a rotation left the triangles.

        Opposite triangles are alike, so one of the four may be hidden by content of the same colour. Smaller ones than
        a rotation leaves are rounded or bevelled corners of a card.
        """
        corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
        colour = np.median(corners, axis=0)
        if not _near(corners, colour, _CORNER).all():
            return None
        frame = _near(pixels, colour, _CORNER)
        rows, columns = (np.flatnonzero(~frame.all(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return None
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        frame = frame[box]
        if max(frame.shape) > _STRIP * min(frame.shape):
            return None
        found = [_triangle(frame[:: 1 - 2 * down, :: 1 - 2 * right]) for down in (0, 1) for right in (0, 1)]
        if sum(legs is None for legs in found) > 1:
            return None
        whole = [legs or found[3 - number] or (0, 0) for number, legs in enumerate(found)]
        pairs = [(one, other) for number in (0, 1) for one, other in zip(whole[number], whole[3 - number], strict=True)]
        alike = all(abs(one - other) <= 4 + _ALIKE * one for one, other in pairs)
        large = max(map(max, whole)) >= _LEG * min(frame.shape)
        return cls(pixels[box], *whole) if alike and large else None

    def upright(self) -> Image.Image:
        """The picture turned back, without the frame."""
        height, width = self.pixels.shape[:2]
        (across, down), (other_across, other_down) = self.top_left, self.top_right
        counterclockwise = across * other_down > down * other_across  # the top edge of the picture cuts the corner
        if counterclockwise:
            angle = math.atan2(down + other_across, across + other_down)
            sides = math.hypot(across, down), math.hypot(other_across, other_down)
        else:
            angle = -math.atan2(across + other_down, down + other_across)
            sides = math.hypot(other_across, other_down), math.hypot(across, down)
        if across + other_across < 0.95 * width:  # the frame cut the picture's corners off
            sides = width, height
        room = math.ceil(math.hypot(width, height) / 2 - min(width, height) / 2)
        wide = Image.fromarray(np.pad(self._filled(), ((room, room), (room, room), (0, 0)), mode="reflect"))
        size = max(1, round(sides[0])), max(1, round(sides[1]))
        (x, y), (x_out, y_out) = ((length / 2 for length in lengths) for lengths in (wide.size, size))
        cos, sin = math.cos(angle), math.sin(angle)
        back = (cos, sin, x - cos * x_out - sin * y_out, -sin, cos, y + sin * x_out - cos * y_out)
        return wide.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)

    def _filled(self) -> Pixels:
        """The picture, its rows mirrored into the triangles."""
        height, width = self.pixels.shape[:2]
        from_corner = np.arange(height) + 0.5
        margins = np.zeros((2, height))  # pixels of frame at the left and at the right of each row
        for number, (across, down) in enumerate((self.top_left, self.top_right, self.bottom_left, self.bottom_right)):
            margin = np.where(from_corner < down + 2, np.maximum(across * (1 - from_corner / down), 0) + 2, 0)
            side = margins[number % 2]
            np.maximum(side, margin[::-1] if number >= 2 else margin, out=side)
        left, right = np.minimum(np.ceil(margins), width // 2 - 1).astype(np.intp)[..., None]
        span = width - 1 - right - left
        offset = np.abs(np.arange(width) - left) % (2 * span)  # there and back between the first and the last column
        columns = left + np.where(offset > span, 2 * span - offset, offset)
        filled: Pixels = np.take_along_axis(self.pixels, columns[..., None], axis=1)
        return filled


def _triangle(frame: NDArray[np.bool_]) -> Legs | None:
    """The triangle in the top left corner; None where the frame has another shape there."""
    across, down = _run(frame[0]), _run(frame[:, 0])
    if min(across, down) < _SHORTEST or across == frame.shape[1] or down == frame.shape[0]:
        return None
    widths = np.logical_and.accumulate(frame[:down], axis=1).sum(axis=1)
    straight = across * (1 - (np.arange(down) + 0.5) / down)
    return (across, down) if np.abs(widths - straight).mean() <= 1.5 + 0.02 * across else None
