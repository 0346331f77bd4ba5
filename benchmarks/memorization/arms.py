"""The arms: what each tool's public command leaves of the planted shards."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from memorization.planted import Row, read_rows, read_truth, write_shards

__all__ = ["ARMS", "QUICK", "clean"]

QUICK = ("raw", "exact", "imagededup", "thorough", "oracle")
ARMS = (*QUICK, "random", "copies", "crops")
_RULES = {
    "exact": ["--rule", "exact"],
    "copies": ["--rule", "copies"],
    "crops": ["--rule", "crops"],
    "thorough": ["--rule", "thorough"],
}


def clean(arm: str, data: Path, work: Path) -> tuple[Path, str]:
    """Make the shards of an arm, once.

    Args:
        arm: Name in :data:`ARMS`.
        data: Folder of :func:`memorization.planted.write_planted`.
        work: Folder for what the arms leave.

    Returns:
        Folder of shards, and the command or function that left them.
    """
    shards, out = data / "train", work / arm
    if arm == "raw":
        return shards, "nothing is removed"
    finished, temporary = out / "shards", out / "shards.part"
    said = _said(arm)
    if finished.exists():
        return finished, said
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if arm in _RULES:
        _dedupkit("run", str(shards / "*.tar"), *_RULES[arm], "--out", str(out / "run"))
        _dedupkit("apply", str(out / "run"), "--to", str(temporary))
    else:
        rows = read_rows(shards)
        kept = _kept(arm, rows, data, work)
        empty = Row("", 0, 0, "", "", "")
        left = [(_with_key(empty, key), image, extension, text) for key, image, extension, text in rows if key in kept]
        write_shards(left, temporary)
    temporary.rename(finished)
    return finished, said


def _said(arm: str) -> str:
    if arm in _RULES:
        return f"dedupkit run SHARDS {' '.join(_RULES[arm])} --out RUN && dedupkit apply RUN --to CLEAN"
    return {
        "imagededup": "imagededup.methods.PHash().find_duplicates_to_remove(image_dir=FOLDER), at its defaults",
        "random": "as many rows as `thorough` leaves, drawn at random",
        "oracle": "the original of every photo, by the truth",
    }[arm]


def _dedupkit(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dedupkit", *arguments], check=True)


def _with_key(row: Row, key: str) -> Row:
    return Row(key, row.photo, row.copies, row.edit, row.captions, row.part)


def _kept(arm: str, rows: list[tuple[str, bytes, str, str]], data: Path, work: Path) -> set[str]:
    keys = [key for key, *_ in rows]
    if arm == "oracle":
        truth = read_truth(data / "truth.csv")
        return {key for key in keys if truth[key].edit == "original"}
    if arm == "random":
        count = len(read_rows(clean("thorough", data, work)[0]))
        return set(np.random.default_rng(0).choice(keys, count, replace=False).tolist())
    if arm == "imagededup":
        return set(keys) - _imagededup(rows, work / arm / "images")
    raise ValueError(f"no arm is called {arm}: name one of {', '.join(ARMS)}")


def _imagededup(rows: list[tuple[str, bytes, str, str]], folder: Path) -> set[str]:
    """Keys that imagededup's list of files to remove names; the first of each set of duplicates stays."""
    from imagededup.methods import PHash

    folder.mkdir()
    for key, image, extension, _ in rows:
        (folder / f"{key}.{extension}").write_bytes(image)
    removed = PHash(verbose=False).find_duplicates_to_remove(image_dir=str(folder))
    return {name.partition(".")[0] for name in removed}
