"""Stored bytes to the RGB square that a model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import simplejpeg
from PIL import Image

from dedupkit.embedding.embedder import Pixels
from dedupkit.embedding.frame import without_frame
from dedupkit.errors import DedupkitError
from dedupkit.images import MAX_PIXELS, ImageError, check_scans, eight_bits, jpeg_turn, open_image, turn_array

__all__ = ["Preprocess", "decode_rgb"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_LONGEST = 16  # times the pixels of the input: of a longer strip the window alone is resized


def decode_rgb(data: bytes, min_side: int) -> Image.Image:
    """Decode the first frame to RGB, EXIF orientation applied, transparency over white, 16 and 32 bits as 8.

    A JPEG whose shorter side is at least twice (four, eight times) ``min_side`` is decoded at half (a quarter, an
    eighth) of its size, which libjpeg reads straight from the coefficients; a smaller one is decoded in full.

    Args:
        data: the stored bytes.
        min_side: the shorter side stays at or above this many pixels, unless the image is smaller.

    Raises:
        ImageError: the bytes are no image that can be used.
    """
    if data[:3] == b"\xff\xd8\xff":
        image = _decode_jpeg(data, min_side)
        if image is not None:
            return image
    image = open_image(data)
    try:
        return _over_white(image)
    except (ValueError, OSError) as error:
        raise ImageError(f"mode {image.mode}: {error}") from error


def _decode_jpeg(data: bytes, min_side: int) -> Image.Image | None:
    """The fast path; None where :func:`dedupkit.images.open_image` shall decide."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        block = next((block for block in (8, 4, 2) if min(height, width) >= block * min_side), 1)
        rows, columns = -(-height // block), -(-width // block)
        if colorspace not in ("YCbCr", "Gray", "GRAY") or rows * columns > MAX_PIXELS:
            return None
        check_scans(data, width, height)
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=rows, min_width=columns)
    except ImageError:
        raise
    except ValueError:
        return None
    return Image.fromarray(np.ascontiguousarray(turn_array(pixels, jpeg_turn(data))))


def _over_white(image: Image.Image) -> Image.Image:
    image = eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return image.convert("RGB")


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a model wants its images.

    Attributes:
        height: Height of the input, in pixels.
        width: Width of the input, in pixels.
        fit: ``crop`` (shorter side to size, then the centre), ``squash`` (both sides to size), ``unframe`` (the same
            after :func:`~dedupkit.embedding.frame.without_frame`) or ``pad`` (longer side to size, then a border).
        resample: Pillow's filter.
        mean: Mean of each channel, on a scale of 0 to 1.
        std: Standard deviation of each channel, on the same scale.
        fill: colour of the border of ``pad``.
    """

    height: int
    width: int
    fit: str = "crop"
    resample: Image.Resampling = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = _CLIP[0]
    std: tuple[float, ...] = _CLIP[1]
    fill: int = 0

    NAMED: ClassVar[Mapping[str, tuple[str, Image.Resampling, tuple[tuple[float, ...], tuple[float, ...]]]]] = {
        # A squashed image keeps its borders, where crops and overlays show.
        "sscd": ("squash", Image.Resampling.BILINEAR, _IMAGENET),
        "imagenet": ("crop", Image.Resampling.BILINEAR, _IMAGENET),
        "clip": ("crop", Image.Resampling.BICUBIC, _CLIP),
        "half": ("squash", Image.Resampling.BICUBIC, _HALF),
        "copy": ("unframe", Image.Resampling.BICUBIC, _HALF),
    }

    @classmethod
    def named(cls, name: str, height: int, width: int) -> Preprocess:
        """One of the usual ways, by name.

        Raises:
            DedupkitError: there is no such name.
        """
        if name not in cls.NAMED:
            raise DedupkitError(f"unknown preprocess {name!r}; known: {', '.join(cls.NAMED)}")
        fit, resample, (mean, std) = cls.NAMED[name]
        return cls(height, width, fit, resample, mean, std)

    @property
    def min_side(self) -> int:
        """What the shorter side of an image must keep when it is decoded at a reduced scale."""
        return max(self.height, self.width)

    def __call__(self, image: Image.Image) -> Pixels:
        """An RGB image to (height, width, 3) uint8; rounding as torchvision's Resize and CenterCrop do it."""
        if self.fit == "unframe":
            # As JPEGs are decoded: noise, which a frame's pixels may have too, is averaged out.
            image = without_frame(image.reduce(max(1, min(image.size) // self.min_side)))
        width, height = image.size
        if self.fit in ("squash", "unframe"):
            return np.asarray(image.resize((self.width, self.height), self.resample))
        scales = (self.height / height, self.width / width)
        if self.fit == "pad":
            scale = min(scales)
            small = image.resize((round(width * scale), round(height * scale)), self.resample)
            canvas = Image.new("RGB", (self.width, self.height), (self.fill,) * 3)
            canvas.paste(small, ((self.width - small.width) // 2, (self.height - small.height) // 2))
            return np.asarray(canvas)
        if self.height == self.width:
            short, long = min(width, height), int(self.width * max(width, height) / min(width, height))
            size = (self.width, long) if width == short else (long, self.height)
        else:
            scale = max(scales)
            size = (max(self.width, round(width * scale)), max(self.height, round(height * scale)))
        left, top = round((size[0] - self.width) / 2), round((size[1] - self.height) / 2)
        if size[0] * size[1] > _LONGEST * self.width * self.height:
            across, down = width / size[0], height / size[1]
            box = (left * across, top * down, (left + self.width) * across, (top + self.height) * down)
            return np.asarray(image.resize((self.width, self.height), self.resample, box))
        resized = image if size == image.size else image.resize(size, self.resample)
        return np.asarray(resized.crop((left, top, left + self.width, top + self.height)))
