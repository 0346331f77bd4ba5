"""The transformations that copies of an image undergo, by name: calibration and benchmarks measure them.

Two families. ``protocol``: the five transformations of imagededup's benchmark. ``web``: what sites do to images
that they take from each other, after the lists of transformations in the Image Similarity Challenge (Douze et al.,
arXiv 2106.09672) and of PDQ's authors (2019): stored again, scaled, cropped, turned, framed, written upon, recoloured,
stretched. A transformation draws nothing at random, so the same image and transformation give the same pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

__all__ = ["PROTOCOL", "TRANSFORMATIONS", "Transformation", "crop_area", "crop_sides", "stamp"]

_QUALITY = 92
_PLACE = (0.2, 0.7)
"""Where crops by area are cut: this share of what goes, goes on the left and at the top. Croppers rarely centre."""


@dataclass(frozen=True, slots=True)
class Transformation:
    """One way in which copies differ.

    Attributes:
        name: Short and stable name, such as ``crop-20``.
        label: Name in tables.
        family: ``protocol`` or ``web``.
        change: Function from an RGB image to an RGB image.
        quality: Quality of the JPEG file that the copy becomes.
    """

    name: str
    label: str
    family: str
    change: Callable[[Image.Image], Image.Image]
    quality: int = _QUALITY

    def file(self, image: Image.Image) -> bytes:
        """The copy as the bytes of a JPEG file."""
        stream = io.BytesIO()
        self.change(image).save(stream, "JPEG", quality=self.quality)
        return stream.getvalue()


def crop_sides(image: Image.Image, part: float) -> Image.Image:
    """Cut a share of the width and of the height off each of the four sides."""
    left, top = int(image.width * part), int(image.height * part)
    return image.crop((left, top, image.width - left, image.height - top))


def crop_area(image: Image.Image, part: float) -> Image.Image:
    """Remove a share of the area and keep the shape; the window lies off the centre."""
    side = (1 - part) ** 0.5
    width, height = (max(1, round(length * side)) for length in image.size)
    left, top = round((image.width - width) * _PLACE[0]), round((image.height - height) * _PLACE[1])
    return image.crop((left, top, left + width, top + height))


def stamp(image: Image.Image, text: str = "www.images.example", *, share: float | None = None) -> Image.Image:
    """Write an address at the lower edge, in Pillow's small letters or as high as a share of the image."""
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    if share is None:
        draw.text((image.width * 0.03, image.height * 0.95), text, fill=(255, 255, 255))
        return marked
    size = max(6, round(image.height * share))
    place = (image.width * 0.03, image.height * (0.96 - 1.2 * share))
    draw.text(
        place,
        text,
        fill="white",
        font=ImageFont.load_default(size),
        stroke_width=max(1, size // 14),
        stroke_fill="black",
    )
    return marked


def _scaled(across: float, down: float) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        size = (max(1, round(image.width * across)), max(1, round(image.height * down)))
        return image.resize(size, Image.Resampling.LANCZOS)

    return change


def _cropped(part: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: crop_area(image, part)


def _rotated(angle: int) -> Callable[[Image.Image], Image.Image]:
    """Turned within its frame, corners black; by a right angle the frame turns too."""
    return lambda image: image.rotate(angle, expand=angle == 90)


def _squared(image: Image.Image) -> Image.Image:
    return image.resize((min(image.size), min(image.size)))


def _framed(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, (max(1, image.width // 10), max(1, image.height // 10)), "white")


def _gamma(power: float) -> Callable[[Image.Image], Image.Image]:
    curve = [round(255 * (value / 255) ** power) for value in range(256)]
    return lambda image: image.point(curve * len(image.getbands()))


PROTOCOL: tuple[Transformation, ...] = tuple(
    Transformation(name, label, "protocol", change)
    for name, label, change in (
        ("sides-10", "10 % cut off each side", lambda im: crop_sides(im, 0.1)),
        ("mirrored", "mirrored", ImageOps.mirror),
        ("flipped", "upside down", ImageOps.flip),
        ("rotated-25", "rotated by 25°", _rotated(25)),
        ("squared", "resized to a square", _squared),
    )
)
"""The five transformations of imagededup's benchmark."""

TRANSFORMATIONS: tuple[Transformation, ...] = (
    *PROTOCOL,
    *(Transformation(f"jpeg-{q}", f"JPEG quality {q}", "web", lambda im: im, q) for q in (75, 50, 30)),
    Transformation("half", "half the size", "web", _scaled(0.5, 0.5)),
    Transformation("quarter", "a quarter of the size", "web", _scaled(0.25, 0.25)),
    *(Transformation(f"crop-{p}", f"{p} % of the area cropped", "web", _cropped(p / 100)) for p in (5, 10, 20, 40)),
    *(Transformation(f"rotated-{angle}", f"rotated by {angle}°", "web", _rotated(angle)) for angle in (2, 5, 90)),
    Transformation("border", "border of 10 %", "web", _framed),
    Transformation("text", "address written across", "web", lambda im: stamp(im, share=0.08)),
    Transformation("grey", "greyscale", "web", lambda im: ImageOps.grayscale(im).convert("RGB")),
    Transformation("saturated", "saturation × 1.8", "web", lambda im: ImageEnhance.Color(im).enhance(1.8)),
    Transformation("lighter", "gamma 0.6", "web", _gamma(0.6)),
    Transformation("darker", "gamma 1.6", "web", _gamma(1.6)),
    Transformation("wider", "20 % wider", "web", _scaled(1.2, 1.0)),
    Transformation("narrower", "20 % narrower", "web", _scaled(0.8, 1.0)),
)  # fmt: skip
"""Every transformation that calibration plants."""
