"""Small copies of images."""

from __future__ import annotations

import io

from PIL import Image

from dedupkit.images.decode import luma_of

__all__ = ["thumbnail"]

_QUALITY = 78


def thumbnail(image: Image.Image, side: int = 160) -> bytes:
    """A JPEG that fits in a square, transparency over white, without any metadata of the original.

    Args:
        image: An image of any mode.
        side: Side of the square, in pixels.

    Raises:
        ImageError: The mode cannot be converted.

    Example:
        >>> small = Image.open(io.BytesIO(thumbnail(Image.new("RGBA", (640, 320)), side=100)))
        >>> small.size, small.mode
        ((100, 50), 'RGB')
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(luma_of(image, min_side=side).plane)
    small = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    canvas = Image.new("RGB", small.size, "white")
    canvas.paste(small, mask=small.getchannel("A") if small.mode == "RGBA" else None)
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
