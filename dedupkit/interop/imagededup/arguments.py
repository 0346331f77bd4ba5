"""What the functions check of their arguments, and the progress bar that they share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args

from dedupkit.startup.cores import worker_count

__all__ = ["Method", "check_method", "existing_folder", "progress_bar", "workers"]

Method = Literal["pdq", "phash", "dhash", "ahash", "whash"]


def check_method(method: str) -> int:
    """The length of the method's hashes in bytes.

    Raises:
        ValueError: An unknown method.
    """
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; known: {', '.join(get_args(Method))}")
    return 32 if method == "pdq" else 8


def existing_folder(image_dir: str | Path | None) -> Path:
    """The folder as a path.

    Raises:
        ValueError: No such folder.
    """
    if image_dir is None or not Path(image_dir).is_dir():
        raise ValueError(f"image_dir must be an existing folder, but is {image_dir}")
    return Path(image_dir)


def workers(count: int | None) -> int:
    """Number of workers, as :func:`dedupkit.startup.cores.worker_count`, and at least one."""
    return max(1, worker_count(count))


def progress_bar(label: str, total: int, verbose: bool) -> Any:
    """A tqdm bar over images; shown where ``verbose`` is set and a terminal or a notebook can show it."""
    from tqdm import tqdm

    seen = "ipykernel" in sys.modules or sys.stderr.isatty()
    return tqdm(total=total, desc=label, unit="img", disable=not (verbose and seen))
