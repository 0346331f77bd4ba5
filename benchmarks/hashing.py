"""From the bytes of JPEGs to PDQ hashes, in one process: the ways there, and how far they are from the reference.

    python benchmarks/hashing.py                         # the photos that scikit-image and scikit-learn ship
    python benchmarks/hashing.py --photos FOLDER_OR_TAR  # other photos

The photos and their edits as ``copies.py`` writes them. ``pdqhash`` is the reference implementation, on the pixels that
simplejpeg and Pillow decode in full; distances are to its hash of Pillow's, over images of quality 80 and more.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pdqhash
import simplejpeg
from copies import write_protocol
from numpy.typing import NDArray
from PIL import Image

from dedupkit.hashing.decimator import luma_buffer
from dedupkit.hashing.pdq import Decimated, decimate, one_math_thread, pdq_from_buffers
from dedupkit.images import decode_luma

TOGETHER = 32
Hashes = tuple[NDArray[np.uint8], NDArray[np.int16]]


def from_coefficients(images: list[bytes]) -> Hashes:
    return pdq_from_buffers(
        np.concatenate([found.buffers for found in decimate(images) if isinstance(found, Decimated)])
    )


def from_reduced_pixels(images: list[bytes]) -> Hashes:
    return pdq_from_buffers(np.stack([luma_buffer(decode_luma(image)) for image in images]))


def reference(decode: Callable[[bytes], NDArray[np.uint8]]) -> Callable[[list[bytes]], Hashes]:
    def hashes(images: list[bytes]) -> Hashes:
        found = [pdqhash.compute(decode(image)) for image in images]
        return np.packbits([bits for bits, _ in found], axis=1), np.array([quality for _, quality in found], np.int16)

    return hashes


def with_pillow(image: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder or tar of photos")
    parser.add_argument("--count", type=int, default=125, help="photos; six files each")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "protocol"
        write_protocol(folder, options.photos, options.count)
        images = [path.read_bytes() for path in sorted(folder.iterdir())]
    ways: dict[str, Callable[[list[bytes]], Hashes]] = {
        "dedupkit, coefficients": from_coefficients,
        "dedupkit, libjpeg's reduced scale": from_reduced_pixels,
        "simplejpeg in full, pdqhash": reference(simplejpeg.decode_jpeg),
        "Pillow in full, pdqhash": reference(with_pillow),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Hashes] = {}
    batches = [images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER)]
    with one_math_thread():
        for _ in range(options.rounds + 1):  # the first is not counted
            for name, way in ways.items():
                started = time.process_time()
                parts = [way(batch) for batch in batches]
                seconds[name].append(time.process_time() - started)
                found[name] = np.concatenate([hashes for hashes, _ in parts]), np.concatenate([q for _, q in parts])
    best = {name: min(times[1:]) for name, times in seconds.items()}
    truth, quality = found["Pillow in full, pdqhash"]
    print(f"{len(images)} files; processor time relative to the first, least of {options.rounds} rounds")
    print(f"{'':34} {'time':>6} {'mean bits off':>14} {'within 10':>10} {'most':>5}")
    for name, (hashes, _) in found.items():
        off = np.unpackbits(hashes ^ truth, axis=1).sum(axis=1)[quality >= 80]
        times = best[name] / best["dedupkit, coefficients"]
        print(f"{name:34} {times:>5.2f}x {off.mean():>14.2f} {(off <= 10).mean():>10.4f} {off.max():>5}")


if __name__ == "__main__":
    main()
