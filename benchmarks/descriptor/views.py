"""Transformed copies drawn at random, harder than those that calibration plants, for making the copy descriptor."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

__all__ = ["small_crop", "view"]

_LONGEST = 640  # pixels of the longer side, before anything is done
_BILINEAR = Image.Resampling.BILINEAR
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
_WORDS = ("photo", "sale", "www.images.example", "copyright", "the", "news", "best", "2021", "free", "NEW", "stock")
_COUNTS = (1, 1, 2, 2, 3, 4)  # of edits, each as likely

Another = Callable[[], Image.Image]
"""Draws another photo."""


def view(image: Image.Image, draw: random.Random, another: Another) -> Image.Image:
    """One to four edits of an image, mirrored in 30 % of the cases.

    Sources: the transformations of the Image Similarity Challenge (Douze et al., arXiv:2106.09672), and blends with
    another image as SSCD is trained with (Pizzi et al., arXiv:2202.10261).
    """
    edited = image.copy()
    edited.thumbnail((_LONGEST, _LONGEST))
    if draw.random() < 0.3:
        edited = ImageOps.mirror(edited)
    if draw.random() < 0.06:
        edited = ImageOps.flip(edited)
    left = dict(_EDITS)
    for _ in range(draw.choice(_COUNTS)):
        edit = draw.choices(list(left), list(left.values()))[0]
        del left[edit]
        edited = edit(edited, draw, another)
    return edited


def small_crop(image: Image.Image, draw: random.Random) -> Image.Image:
    """A tenth to nearly half of an image; mirrored, turned a little, reduced or recompressed in some of the cases."""
    area, shape = draw.uniform(0.1, 0.45), draw.uniform(0.75, 1.33)
    crop = _window(image, area, shape, draw)
    if draw.random() < 0.3:
        crop = ImageOps.mirror(crop)
    if draw.random() < 0.3:
        crop = crop.rotate(draw.uniform(-8, 8), _BILINEAR)
    if draw.random() < 0.3:
        crop = crop.resize((max(24, crop.width // 3), max(24, crop.height // 3)), Image.Resampling.BOX)
    return _recompress(crop, draw, lambda: image) if draw.random() < 0.5 else crop


def _colour(draw: random.Random) -> tuple[int, ...]:
    return tuple(draw.randrange(256) for _ in range(3))


def _crop(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    return _window(image, draw.uniform(0.35, 0.95), draw.uniform(0.75, 1.33), draw)


def _window(image: Image.Image, area: float, shape: float, draw: random.Random) -> Image.Image:
    width = min(image.width, max(16, round(image.width * (area * shape) ** 0.5)))
    height = min(image.height, max(16, round(image.height * (area / shape) ** 0.5)))
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _rotate(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    if draw.random() < 0.15:
        return image.transpose(draw.choice(_TURNS))
    most = draw.choice((8, 30))
    fill = draw.choice(((0, 0, 0), (255, 255, 255), _colour(draw)))
    return image.rotate(draw.uniform(-most, most), _BILINEAR, expand=draw.random() < 0.5, fillcolor=fill)


def _frame(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    if draw.random() < 0.6:
        sides = (int(min(image.size) * draw.uniform(0.02, 0.25)),) * 4
    else:
        sides = tuple(int(length * draw.uniform(0, 0.25)) for length in (*image.size, *image.size))
    return ImageOps.expand(image, sides, draw.choice(((255, 255, 255), (0, 0, 0), _colour(draw))))


def _recolour(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    for enhance, most in ((ImageEnhance.Brightness, 0.5), (ImageEnhance.Contrast, 0.5), (ImageEnhance.Color, 0.9)):
        if draw.random() < 0.6:
            image = enhance(image).enhance(draw.uniform(1 - most, 1 + most))
    return image


def _grey(image: Image.Image, _: random.Random, __: Another) -> Image.Image:
    return ImageOps.grayscale(image).convert("RGB")


def _write(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    marked = image.copy()
    canvas = ImageDraw.Draw(marked)
    for _number in range(draw.randint(1, 3)):
        size = max(8, int(image.height * draw.uniform(0.04, 0.16)))
        place = (image.width * draw.uniform(-0.05, 0.7), image.height * draw.uniform(0, 0.95))
        text = " ".join(draw.sample(_WORDS, draw.randint(1, 4)))
        edge = draw.choice((0, 1 + size // 14))
        font = ImageFont.load_default(size)
        canvas.text(place, text, fill=_colour(draw), font=font, stroke_width=edge, stroke_fill="black")
    return marked


def _paste(image: Image.Image, draw: random.Random, another: Another) -> Image.Image:
    """Another photo upon a part of it, or it upon a part of another photo."""
    below, above = image.copy(), another()
    share = draw.uniform(0.2, 0.55)
    if draw.random() < 0.5:
        below, above, share = above.resize(image.size), image, draw.uniform(0.55, 0.85)
    width, height = (max(8, int(side * share)) for side in image.size)
    place = (draw.randint(0, max(0, image.width - width)), draw.randint(0, max(0, image.height - height)))
    below.paste(above.resize((width, height)), place)
    return below


def _blend(image: Image.Image, draw: random.Random, another: Another) -> Image.Image:
    return Image.blend(image, another().resize(image.size), draw.uniform(0.1, 0.35))


def _blur(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) * draw.uniform(0.002, 0.015)))


def _recompress(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=draw.randint(20, 85))
    return Image.open(stream).convert("RGB")


def _shrink(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    factor = draw.uniform(0.25, 0.8)
    return image.resize((max(24, int(image.width * factor)), max(24, int(image.height * factor))), _BILINEAR)


def _stretch(image: Image.Image, draw: random.Random, _: Another) -> Image.Image:
    return image.resize((max(24, int(image.width * draw.uniform(0.6, 1.6))), image.height), _BILINEAR)


_EDITS = {
    _crop: 3.0, _rotate: 2.0, _recolour: 2.0, _frame: 2.0, _grey: 1.0, _write: 1.0, _paste: 1.0, _recompress: 1.0,
    _shrink: 1.0, _stretch: 1.0, _blend: 0.5, _blur: 0.5,
}  # fmt: skip
"""The edits, and how likely each is."""
