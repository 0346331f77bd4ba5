"""The perceptual hashes pHash, dHash, aHash and wHash, bit for bit as imagehash and imagededup have them.

Two Python packages give these names to different hashes, so a stored hash can only be compared with one of
the same definition. What sets them apart:

======  =====================================  =============================================
        imagehash 4.3.2                        imagededup 0.3.3
======  =====================================  =============================================
pixels  grey first, then resized               RGB (alpha dropped), resized, then grey
phash   8×8 DCT corner > its median            8×8 DCT corner >= its median without the DC term
dhash   right neighbour is brighter            the same
ahash   8×8 pixels > their mean                8×8 pixels >= their mean
whash   Haar LL band of the largest power of   Haar LL band of 256×256 pixels, >= its median
        two that fits, mean removed, > median
======  =====================================  =============================================

Both resize with Pillow's Lanczos filter, and for a grey image both see the same pixels.

Every bit is a comparison, and in flat, symmetric or synthetic images the two sides are often equal but for
rounding. So the sums are done in the order in which SciPy's DCT and PyWavelets do them, and such ties fall
the same way: on x86-64 with NumPy 2 no disagreement is known. NumPy 1.26 has an FFT that rounds otherwise
and turns a few ties in pHash (9 of 1,000 random crops, most of them two pixels wide). Builds with fused
multiply-add, as 64-bit ARM may have, are untested. And equal hashes take equal pixels: what a decoder has
scaled down, or turned by its EXIF orientation, is another image than the one the packages would have opened.

Sources: N. Krawetz, "Looks Like It" (2011) and "Kind of Like That" (2013), hackerfactor.com; D. Petrov,
"Wavelet image hash in Python" (2016); the packages ``imagehash`` 4.3.2 and ``imagededup`` 0.3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.hashing.transforms import dct_corner, haar_low, haar_without_mean
from dedupkit.images import decoded_image

__all__ = ["PERCEPTUAL_HASHES", "Views", "ahash", "dhash", "perceptual_hash", "perceptual_hashes", "phash", "whash"]

Definition = Literal["imagehash", "imagededup"]
Pixels = NDArray[np.uint8]
Bits = NDArray[np.bool_]
ImageLike = Image.Image | Pixels

_SIDE = 8  # a hash is 8×8 bits
_DCT_SIZE = 32
_WAVELET_SIZE = 256  # imagededup's fixed one; imagehash's follows the image


def perceptual_hash(image: ImageLike | Views, name: str) -> Pixels:
    """Return one perceptual hash of an image.

    Args:
        image: A Pillow image of any mode that Pillow converts to grey, (H, W), (H, W, 3) or (H, W, 4) uint8 pixels, or
            the :class:`Views` of an image that is hashed several times.
        name: One of :data:`PERCEPTUAL_HASHES`.

    Returns:
        (8,) uint8: 64 bits in row-major order, the most significant bit of each byte first, so that
        ``.tobytes().hex()`` is ``str()`` of imagehash's hash, or what imagededup's ``encode_image`` returns.

    Raises:
        ValueError: An unknown name, an image without pixels, an array of another shape or dtype, or a mode
            that Pillow cannot convert.
        TypeError: It is no decoded image.

    >>> perceptual_hash(Image.linear_gradient("L"), "dhash").tobytes().hex()
    '0000000000000000'
    """
    return perceptual_hashes(image, [name])[name]


def perceptual_hashes(image: ImageLike | Views, names: Iterable[str]) -> dict[str, Pixels]:
    """Return several perceptual hashes of an image, sharing the decoding, the conversions and the resizes.

    Args:
        image: As in :func:`perceptual_hash`.
        names: Some of :data:`PERCEPTUAL_HASHES`.

    Returns:
        Name to (8,) uint8, in the order of ``names``.

    Raises:
        ValueError: As in :func:`perceptual_hash`.
        TypeError: It is no decoded image.

    >>> hashes = perceptual_hashes(Image.linear_gradient("L"), ["phash", "ahash"])
    >>> hashes["ahash"].tobytes().hex()
    '00000000ffffffff'
    """
    wanted = tuple(names)
    for name in wanted:
        if name not in _HASHES:
            raise ValueError(f"unknown perceptual hash {name!r}; known: {', '.join(PERCEPTUAL_HASHES)}")
    views = image if isinstance(image, Views) else Views(image)
    return {name: np.packbits(_HASHES[name](views)) for name in wanted}


def phash(image: ImageLike, definition: Definition = "imagehash") -> Pixels:
    """Return the DCT hash ("perceptual hash"), which compares low frequencies with their median.

    Args:
        image: As in :func:`perceptual_hash`.
        definition: The package whose hash is computed, bit for bit.

    Returns:
        (8,) uint8.

    Raises:
        ValueError: As in :func:`perceptual_hash`, or an unknown definition.
        TypeError: It is no decoded image.

    >>> phash(Image.linear_gradient("L")).shape
    (8,)
    """
    return perceptual_hash(image, _name("phash", definition))


def dhash(image: ImageLike, definition: Definition = "imagehash") -> Pixels:
    """Return the difference hash, which compares horizontal neighbours; otherwise as :func:`phash`.

    >>> dhash(Image.linear_gradient("L").rotate(90)).tobytes().hex()
    'ffffffffffffffff'
    """
    return perceptual_hash(image, _name("dhash", definition))


def ahash(image: ImageLike, definition: Definition = "imagehash") -> Pixels:
    """Return the average hash, which compares pixels with their mean; otherwise as :func:`phash`.

    >>> ahash(Image.linear_gradient("L")).tobytes().hex()
    '00000000ffffffff'
    """
    return perceptual_hash(image, _name("ahash", definition))


def whash(image: ImageLike, definition: Definition = "imagehash") -> Pixels:
    """Return the Haar wavelet hash, which compares block means with their median; otherwise as :func:`phash`.

    In imagehash's definition the image is resized to the largest power of two that its shorter side holds, so
    time and memory grow with the image: 4 million float64, a few times over, for one of 4000×3000 pixels.

    >>> whash(Image.linear_gradient("L")).tobytes().hex()
    '00000000ffffffff'
    """
    return perceptual_hash(image, _name("whash", definition))


def _name(kind: str, definition: str) -> str:
    if definition not in ("imagehash", "imagededup"):
        raise ValueError(f"unknown definition {definition!r}; known: imagehash, imagededup")
    return kind if definition == "imagehash" else f"{kind}_imagededup"


class Views:
    """The small grey images that the hashes of one image need, each made once.

    Raises:
        ValueError: an image without pixels, or an array of another shape or dtype.
        TypeError: It is no decoded image.
    """

    def __init__(self, image: ImageLike) -> None:
        self.image = decoded_image(image)
        self._resized: dict[tuple[str, int, int], Pixels] = {}

    @cached_property
    def grey(self) -> Image.Image:
        """The image in grey, as imagehash converts it."""
        return self.image.convert("L")

    @cached_property
    def color(self) -> Image.Image:
        """The image as imagededup loads it; a grey one stays so, for its three channels would be equal."""
        if self.image.mode in ("RGB", "L"):
            return self.image
        # By way of RGBA, a palette's transparent colour keeps its colour; alpha is dropped, not blended.
        return self.image.convert("RGBA").convert("RGB")

    def grey_resized(self, width: int, height: int) -> Pixels:
        """Return imagehash's pixels: grey, then resized; (height, width) uint8."""
        return self._resize("grey", self.grey, width, height)

    def resized_grey(self, width: int, height: int) -> Pixels:
        """Return imagededup's pixels: resized in colour, then grey; (height, width) uint8."""
        if self.color.mode == "L":
            return self.grey_resized(width, height)
        return self._resize("color", self.color, width, height)

    def _resize(self, kind: str, source: Image.Image, width: int, height: int) -> Pixels:
        key = (kind, width, height)
        if key not in self._resized:
            small = source.resize((width, height), Image.Resampling.LANCZOS)
            self._resized[key] = np.asarray(small.convert("L"))
        return self._resized[key]


def _phash(views: Views) -> Bits:
    low = dct_corner(views.grey_resized(_DCT_SIZE, _DCT_SIZE))
    return low > np.median(low)


def _phash_imagededup(views: Views) -> Bits:
    low = dct_corner(views.resized_grey(_DCT_SIZE, _DCT_SIZE))
    return low >= np.median(low.ravel()[1:])


def _dhash(views: Views) -> Bits:
    pixels = views.grey_resized(_SIDE + 1, _SIDE)
    return pixels[:, 1:] > pixels[:, :-1]


def _dhash_imagededup(views: Views) -> Bits:
    pixels = views.resized_grey(_SIDE + 1, _SIDE)
    return pixels[:, 1:] > pixels[:, :-1]


def _ahash(views: Views) -> Bits:
    pixels = views.grey_resized(_SIDE, _SIDE)
    return pixels > np.mean(pixels)


def _ahash_imagededup(views: Views) -> Bits:
    pixels = views.resized_grey(_SIDE, _SIDE)
    return pixels >= np.mean(pixels)


def _whash(views: Views) -> Bits:
    size = max(1 << (min(views.image.size).bit_length() - 1), _SIDE)
    low = haar_low(haar_without_mean(views.grey_resized(size, size) / 255.0), _SIDE)
    return low > np.median(low)


def _whash_imagededup(views: Views) -> Bits:
    low = haar_low(views.resized_grey(_WAVELET_SIZE, _WAVELET_SIZE) / 255.0, _SIDE)
    return low >= np.median(low)


_HASHES: dict[str, Callable[[Views], Bits]] = {
    "phash": _phash,
    "dhash": _dhash,
    "ahash": _ahash,
    "whash": _whash,
    "phash_imagededup": _phash_imagededup,
    "dhash_imagededup": _dhash_imagededup,
    "ahash_imagededup": _ahash_imagededup,
    "whash_imagededup": _whash_imagededup,
}

PERCEPTUAL_HASHES: tuple[str, ...] = tuple(_HASHES)
"""The known hashes: a bare name is imagehash's definition, the suffix ``_imagededup`` the other."""
