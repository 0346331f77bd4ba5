"""The two small transforms behind pHash and wHash, rounded as SciPy and PyWavelets round them.

A hash bit asks whether a coefficient lies above the median of all. In flat or symmetric images many are equal
in exact arithmetic, and what the packages answer then hangs on the last rounding. So the transforms here add
and multiply in the same order, with the same constants, as the compiled code they stand for.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["dct_corner", "haar_low", "haar_without_mean"]

Array = NDArray[np.float64]

_SIZE = 32
_LOW = 8
_HALF = math.sqrt(0.5)


def _twiddles() -> tuple[Array, Array]:
    """Cosine and sine of kπ/64 for k = 1…7, the sine with the rounding of SciPy's table.

    SciPy reads the sine as a cosine near a right angle, which its table composes from two entries, π/4 and
    the rest; that leaves it several units in the last place from the true value.
    """
    angle = math.pi / (2 * _SIZE)
    cosine = [math.cos(k * angle) for k in range(1, _LOW)]
    rests = [(_SIZE // 2 - k) * angle for k in range(1, _LOW)]
    # cos(π/4) stands as sin(π/4) and the reverse: equal numbers, but rounded to either side.
    quarter_cosine, quarter_sine = math.sin(math.pi / 4), math.cos(math.pi / 4)
    sine = [math.cos(rest) * quarter_cosine - math.sin(rest) * quarter_sine for rest in rests]
    return np.array(cosine), np.array(sine)


_COSINE, _SINE = _twiddles()


def dct_corner(pixels: NDArray[np.uint8]) -> Array:
    """Return the 8×8 low frequencies of the unnormalised two-dimensional DCT-II of a 32×32 image.

    Equal to the corner of ``scipy.fftpack.dct`` along axis 0 and then axis 1 (SciPy 1.17), to the last bit
    under NumPy 2.

    Args:
        pixels: (32, 32) uint8.

    Returns:
        (8, 8) float64.
    """
    columns = _dct_low(np.ascontiguousarray(pixels.T, dtype=np.float64))
    return _dct_low(columns.T)


def _dct_low(rows: Array) -> Array:
    """The first 8 DCT-II coefficients of each row, by one real inverse FFT of the same length.

    FFTPACK's method (``cosqb``), which pocketfft and so SciPy keep: sums and differences of neighbours are
    the spectrum of a real signal, whose two ends, turned by kπ/64, are the coefficients. A matrix product
    gives the same numbers but rounds them otherwise. The FFT is SciPy's to the last bit from NumPy 2 on.

    Args:
        rows: (n, 32) float64.

    Returns:
        (n, 8) float64.
    """
    odd, even = rows[:, 1:-1:2], rows[:, 2:-1:2]
    spectrum = np.zeros((len(rows), _SIZE // 2 + 1), dtype=np.complex128)
    spectrum.real[:, 0] = 2 * rows[:, 0]
    spectrum.real[:, 1:-1] = even + odd
    spectrum.imag[:, 1:-1] = even - odd
    spectrum.real[:, -1] = 2 * rows[:, -1]
    signal = np.fft.irfft(spectrum, _SIZE, norm="forward")

    front, back = signal[:, 1:_LOW], signal[:, :-_LOW:-1]
    low = np.empty((len(rows), _LOW))
    low[:, 0] = signal[:, 0]
    low[:, 1:] = 0.5 * ((_COSINE * back + _SINE * front) + (_COSINE * front - _SINE * back))
    return low


def haar_low(pixels: Array, size: int) -> Array:
    """Return the approximation band (LL) of the Haar transform that is ``size`` wide.

    Equal to ``pywt.wavedec2(pixels, "haar", level)[0]`` (PyWavelets 1.9), to the last bit. O(pixels).

    Args:
        pixels: (n, n) float64, n a power of two, at least ``size``.
        size: a power of two.

    Returns:
        (size, size) float64; ``pixels`` itself where n is ``size``.
    """
    while len(pixels) > size:
        scaled = _HALF * pixels
        rows = scaled[1::2] + scaled[::2]
        rows *= _HALF
        pixels = rows[:, 1::2] + rows[:, ::2]
    return pixels


def haar_without_mean(pixels: Array) -> Array:
    """Return an image less its mean: its full Haar transform and back, the last approximation set to zero.

    The detour is imagehash's (``remove_max_haar_ll``); subtracting the mean would round otherwise. Equal to
    ``pywt.waverec2`` of the altered ``pywt.wavedec2`` (PyWavelets 1.9), to the last bit. O(pixels).

    Args:
        pixels: (n, n) float64, n a power of two.

    Returns:
        (n, n) float64.
    """
    if len(pixels) == 1:
        return np.zeros_like(pixels)
    scaled = _HALF * pixels
    low = _HALF * (scaled[1::2] + scaled[::2])
    high = _HALF * (scaled[::2] - scaled[1::2])
    centred = haar_without_mean(low[:, 1::2] + low[:, ::2])
    low = _join(centred, low[:, ::2] - low[:, 1::2], axis=1)
    high = _join(high[:, 1::2] + high[:, ::2], high[:, ::2] - high[:, 1::2], axis=1)
    return _join(low, high, axis=0)


def _join(low: Array, high: Array, axis: int) -> Array:
    """One inverse Haar step: (…, n, …) sums and differences to (…, 2n, …) values."""
    shape = list(low.shape)
    shape[axis] *= 2
    joined = np.empty(shape)
    low, high = _HALF * low, _HALF * high
    even, odd = (joined[::2], joined[1::2]) if axis == 0 else (joined[:, ::2], joined[:, 1::2])
    np.add(low, high, out=even)
    np.subtract(low, high, out=odd)
    return joined
