"""Baseline JPEGs to the low frequencies of their luminance, without turning them into pixels."""

from dedupkit.images.jpeg.coefficients import Coefficients, read_coefficients

__all__ = ["Coefficients", "read_coefficients"]
