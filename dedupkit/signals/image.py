"""An image as the scan hands it to signals: decoded once, its costly forms made on first use and shared."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dedupkit.images import open_image

if TYPE_CHECKING:
    from dedupkit.hashing.perceptual import Views

__all__ = ["ScannedImage"]


class ScannedImage:
    """One image of a scan.

    Attributes:
        data: The stored bytes.
        width, height: In pixels, with the orientation applied.
        hashes: (1 + v, 32) uint8, PDQ of the whole and, where a signal asked for them, of the central views
            :data:`dedupkit.hashing.pdq.CROP_VIEWS`.
        qualities: (1 + v,) PDQ's quality of each.
    """

    def __init__(
        self, data: bytes, size: tuple[int, int], hashes: NDArray[np.uint8], qualities: NDArray[np.integer]
    ) -> None:
        self.data = data
        self.width, self.height = size
        self.hashes, self.qualities = hashes, qualities

    @cached_property
    def pixels(self) -> Image.Image:
        """The whole image, decoded in full.

        Raises:
            ImageError: It cannot be decoded.
        """
        return open_image(self.data)

    @cached_property
    def small_views(self) -> Views:
        """The small grey images that perceptual hashes are made from, shared among them."""
        from dedupkit.hashing.perceptual import Views

        return Views(self.pixels)
