"""The captions of the images that occur most often: what an attacker, or an audit, would prompt a model with.

Source: Carlini et al., "Extracting Training Data from Diffusion Models" (arXiv 2301.13188), section 4.1: the 350,000
most duplicated images of the training set, and their captions.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from dedupkit.errors import DedupkitError
from dedupkit.runfolder.folder import RunFolder
from dedupkit.store import atomic_path, local_path, read_columns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMATS", "most_duplicated", "write_prompts"]

FORMATS = ("txt", "jsonl", "parquet")


def most_duplicated(run: str | PathLike[str], top: int = 350_000) -> pa.Table:
    """The most frequent caption of each of the largest duplicate groups.

    Args:
        run: Folder of a finished run.
        top: Greatest number of groups.

    Returns:
        One row a group, the largest first: ``prompt`` (string), ``images`` (int64, samples of the group),
        ``with_prompt`` (int64, those that have exactly this caption), ``captions`` (int64, distinct captions),
        ``group`` (int64) and ``kept_key`` (string, of the kept sample that comes first). Groups without any caption
        are left out.

    Raises:
        DedupkitError: There is no finished run, or ``top`` is not positive.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if top < 1:
        raise DedupkitError(f"the number of prompts must be at least 1, not {top}")
    folder = RunFolder(run)
    folder.verdicts()
    columns = ["sample", "key", "caption", "verdict", "group", "group_size"]
    table = read_columns(folder.manifest, columns, [("group_size", ">", 1), ("verdict", "!=", "unreadable")])
    captions = table.filter(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(table["caption"])), 0))
    counted = captions.group_by(["group", "caption"]).aggregate([("sample", "count"), ("sample", "min")])
    counted = counted.sort_by([("group", "ascending"), ("sample_count", "descending"), ("sample_min", "ascending")])
    # The first row of each group is its most frequent caption.
    groups = counted.group_by("group", use_threads=False).aggregate([
        ("caption", "first"), ("sample_count", "first"), ("caption", "count"),
    ])  # fmt: skip
    kept = table.filter(pc.equal(table["verdict"], "keep")).sort_by("sample")
    named = kept.group_by("group", use_threads=False).aggregate([("key", "first")])
    sizes = table.group_by("group").aggregate([("group_size", "min")])
    joined = groups.join(sizes, "group").join(named, "group")
    joined = joined.sort_by([("group_size_min", "descending"), ("group", "ascending")]).slice(0, top)
    return pa.table({
        "prompt": joined["caption_first"],
        "images": joined["group_size_min"].cast(pa.int64()),
        "with_prompt": joined["sample_count_first"],
        "captions": joined["caption_count"],
        "group": joined["group"],
        "kept_key": joined["key_first"],
    })  # fmt: skip


def write_prompts(run: str | PathLike[str], to: str | Path, top: int = 350_000) -> int:
    """Write the captions of the most duplicated images to a file; its suffix names the format.

    Args:
        run: Folder of a finished run.
        to: ``.txt`` (one caption a line, white space folded), ``.jsonl`` or ``.parquet`` (all columns).
        top: Greatest number of groups.

    Returns:
        The number of captions written.

    Raises:
        DedupkitError: As for :func:`most_duplicated`, or an unknown suffix, or the URL of an object.
        OSError: The file cannot be written.
    """
    local = local_path(str(to))
    if local is None:
        raise DedupkitError(f"{to} lies on no disk of this machine; write the captions to a file here, and copy that")
    path = Path(local)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise DedupkitError(f"cannot tell the format of {path}; end its name in .{', .'.join(FORMATS)}")
    table = most_duplicated(run, top)
    with atomic_path(path) as temporary:
        if kind == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, temporary, compression="zstd")
        else:
            with temporary.open("w", encoding="utf-8") as stream:
                for row in table.to_pylist():
                    line = " ".join(row["prompt"].split()) if kind == "txt" else json.dumps(row, ensure_ascii=False)
                    stream.write(line + "\n")
    return int(table.num_rows)
