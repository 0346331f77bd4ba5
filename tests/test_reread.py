"""The way back to the images of a finished run: each shard once, in order, checked, and where the data lies now."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, jpegs, one_line, run, tar_bytes, write_tar
from PIL import Image

from dedupkit import store
from dedupkit.errors import DedupkitError, RereadError
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import files
from dedupkit.sources.again import find_again
from dedupkit.sources.reread import Originals, Place, Scanned, read_samples
from dedupkit.store import reading

COUNT = 8


@pytest.fixture(scope="module")
def images(photos: dict[str, Image.Image]) -> list[bytes]:
    return jpegs(photos, COUNT, 64)


def members(images: list[bytes]) -> list[tuple[str, bytes]]:
    return [(f"{number:05d}.jpg", image) for number, image in enumerate(images)]


def write(folder: Path, kind: str, images: list[bytes]) -> Path:
    """One source of the kind with all images; returns what is given to a run."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "tar":
        return write_tar(folder / "0.tar", members(images))
    if kind == "tar.gz":
        (folder / "0.tar.gz").write_bytes(gzip.compress(tar_bytes(members(images))))
        return folder / "0.tar.gz"
    if kind == "parquet":
        pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), folder / "0.parquet", row_group_size=3)
        return folder / "0.parquet"
    for name, image in members(images):
        (folder / name).write_bytes(image)
    return folder


KINDS = ["tar", "tar.gz", "parquet", "folder"]


def read(out: Path, samples: list[int], **options: Any) -> dict[int, bytes]:
    return {place.sample: data for place, data in Originals(RunFolder(out), **options).read(samples)}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each file is opened, and which row groups are asked for."""
    opened: Counter[str] = Counter()
    original, batches = store.open_binary, pq.ParquetFile.iter_batches

    def counting(path: str) -> Any:
        opened[Path(path).name] += 1
        return original(path)

    def grouped(self: Any, *arguments: Any, **options: Any) -> Any:
        opened.update(f"row group {group}" for group in options["row_groups"])
        return batches(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store, "open_binary", counting)
        patch.setattr(reading, "open_binary", counting)  # what read_ranges calls
        patch.setattr(pq.ParquetFile, "iter_batches", grouped)
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_images_come_back_with_each_file_and_row_group_read_once(
    tmp_path: Path, images: list[bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(write(tmp_path / "data", kind, images), tmp_path / "out")
    with counted(monkeypatch) as opened:
        assert read(tmp_path / "out", [7, 1, 0, 2, 1]) == {sample: images[sample] for sample in (0, 1, 2, 7)}
    assert set(opened.values()) == {1}, opened
    if kind == "parquet":
        assert set(opened) == {"0.parquet", "row group 0", "row group 2"}  # rows 0 to 2 and 6 to 7


@pytest.mark.parametrize("kind", KINDS)
def test_what_changed_is_never_handed_out(tmp_path: Path, images: list[bytes], kind: str) -> None:
    source = write(tmp_path / "data", kind, images)
    run(source, tmp_path / "out")
    shutil.rmtree(tmp_path / "data")
    write(tmp_path / "data", kind, [*images[:3], images[3][:-1] + b"?", *images[4:]])  # one byte of the fourth
    assert len(read(tmp_path / "out", [0, 5])) == 2
    with pytest.raises(RereadError, match=r"has changed since it was scanned .*run again"):
        read(tmp_path / "out", [3])
    failed: dict[int, str] = {}
    originals = Originals(RunFolder(tmp_path / "out"))
    found = dict(originals.read(range(COUNT), lambda place, error: failed.update({place.sample: str(error)})))
    assert [place.sample for place in found] == [0, 1, 2, 4, 5, 6, 7]
    assert list(failed) == [3]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_gone_says_moved_and_what_to_do(tmp_path: Path, images: list[bytes], kind: str) -> None:
    run(write(tmp_path / "data", kind, images), tmp_path / "out")
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    with pytest.raises(RereadError, match=r"is not where it was .*--source"):
        read(tmp_path / "out", [2])
    failed: list[Place] = []
    assert not dict(Originals(RunFolder(tmp_path / "out")).read([1, 2], lambda place, _: failed.append(place)))
    assert [place.sample for place in failed] == [1, 2]


def test_one_file_of_a_folder_that_is_gone_costs_no_other(tmp_path: Path, images: list[bytes]) -> None:
    run(write(tmp_path / "data", "folder", images), tmp_path / "out")
    (tmp_path / "data" / "00003.jpg").unlink()
    failed: dict[int, str] = {}
    originals = Originals(RunFolder(tmp_path / "out"))
    found = dict(originals.read(range(COUNT), lambda place, error: failed.update({place.sample: str(error)})))
    assert len(found) == COUNT - 1
    assert list(failed) == [3]


def test_a_file_more_or_less_in_a_folder_costs_no_other(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are divided into shards in name order, so that each file moves those after it to another place."""
    monkeypatch.setattr(files, "_FILES_PER_TASK", 3)
    source = write(tmp_path / "data", "folder", images)
    run(source, tmp_path / "out")
    (source / "0.jpg").write_bytes(images[0])
    assert read(tmp_path / "out", [7, 2, 5]) == {sample: images[sample] for sample in (2, 5, 7)}
    for name in ("0.jpg", "00000.jpg", "00001.jpg", "00003.jpg"):
        (source / name).unlink()  # two shards are left of three
    failed: dict[int, str] = {}
    originals = Originals(RunFolder(tmp_path / "out"))
    found = dict(originals.read(range(COUNT), lambda place, error: failed.update({place.sample: str(error)})))
    assert {place.sample: data for place, data in found.items()} == {n: images[n] for n in (2, 4, 5, 6, 7)}
    assert list(failed) == [0, 1, 3]
    assert "00003.jpg is not where it was" in failed[3]


# Data that moved ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_moved_is_read_where_it_lies_now(tmp_path: Path, images: list[bytes], kind: str) -> None:
    source = write(tmp_path / "old" / "data", kind, images)
    finished = run(source, tmp_path / "out")
    shutil.move(tmp_path / "old" / "data", tmp_path / "new")
    now = tmp_path / "new" / source.name if kind != "folder" else tmp_path / "new"
    assert read(tmp_path / "out", [1, 6], moved=now) == {1: images[1], 6: images[6]}
    assert read(tmp_path / "out", [4], moved={str(tmp_path / "old" / "data"): str(tmp_path / "new")}) == {4: images[4]}
    assert finished.apply(tmp_path / "clean", source=now)["samples"] == finished.summary["keep"]
    with pytest.raises(DedupkitError, match="lies inside the source"):
        finished.apply(tmp_path / "new" / "clean", source=tmp_path / "new")
    with pytest.raises(DedupkitError, match="no such source"):
        finished.apply(tmp_path / "clean2", source=tmp_path / "nowhere")


def test_shards_are_matched_by_their_names_below_the_root(tmp_path: Path, images: list[bytes]) -> None:
    for part in ("a", "b"):
        for number in range(2):
            place = number * 2 + (4 if part == "b" else 0)
            write_tar(tmp_path / "old" / part / f"{number}.tar", members(images[place : place + 2]))
    run([f"{tmp_path}/old/{{b,a}}/*.tar"], tmp_path / "out")
    before = read(tmp_path / "out", list(range(COUNT)))
    shutil.move(tmp_path / "old", tmp_path / "new")
    write_tar(tmp_path / "new" / "a" / "2.tar", members(images[:1]))  # one more does not matter
    assert read(tmp_path / "out", list(range(COUNT)), moved=[f"{tmp_path}/new/a", f"{tmp_path}/new/b/*.tar"]) == before
    (tmp_path / "new" / "b" / "1.tar").unlink()
    assert [shard is None for shard in Originals(RunFolder(tmp_path / "out"), f"{tmp_path}/new/{{a,b}}/*.tar").shards] \
        == [False, True, False, False]  # fmt: skip


def test_a_relative_source_is_found_from_another_folder(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here" / "data", "tar", images)
    monkeypatch.chdir(tmp_path / "here")
    run("data/0.tar", tmp_path / "out")
    write(tmp_path / "there" / "data", "tar", images[::-1])  # another set of the same name is not the one
    monkeypatch.chdir(tmp_path / "there")
    assert read(tmp_path / "out", [3]) == {3: images[3]}
    shutil.move(tmp_path / "here", tmp_path / "there" / "now")
    assert read(tmp_path / "out", [3], moved="now/data") == {3: images[3]}
    assert read(tmp_path / "out", [3], moved={"data": "now/data"}) == {3: images[3]}


def test_the_commands_that_read_images_again_take_a_source(tmp_path: Path, images: list[bytes]) -> None:
    run(write(tmp_path / "old", "tar", images), tmp_path / "out", rule="exact")
    shutil.move(tmp_path / "old", tmp_path / "new")
    refused = command("apply", tmp_path / "out", "--to", tmp_path / "clean", "--workers", "1")
    assert refused.returncode == 1
    assert "--source" in one_line(refused.stderr)
    done = command("apply", tmp_path / "out", "--to", tmp_path / "clean", "--source", tmp_path / "new", "--json")
    assert json.loads(done.stdout)["samples"] == COUNT, done.stderr
    for name in ("report", "calibrate"):
        assert "--source" in command(name, "--help", env={"COLUMNS": "200", "TERM": "dumb"}).stdout


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert find_again([str(tmp_path / "none.tar")], [str(tmp_path / "none.tar")]) == [None]


# Whole samples ------------------------------------------------------------------------------------------------------


def test_samples_before_a_break_are_read_again(tmp_path: Path, images: list[bytes]) -> None:
    """Whatever a partly broken Parquet file holds before the break is kept, and can be written."""
    source = write(tmp_path / "data", "parquet", images)
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), source, row_group_size=2, use_dictionary=False)
    damaged = bytearray(source.read_bytes())
    first = pq.read_metadata(source).row_group(2).column(0).data_page_offset
    damaged[first : first + 200] = b"\xff" * 200
    source.write_bytes(damaged)
    finished = run(source, tmp_path / "out")
    rows = finished.manifest.to_pylist()
    assert [row["key"] for row in rows] == ["00000000", "00000001", "00000002", "00000003", ""]
    assert read(tmp_path / "out", [1, 3]) == {1: images[1], 3: images[3]}
    assert finished.apply(tmp_path / "clean")["samples"] == finished.summary["keep"] == 4


def test_a_shard_that_became_shorter(tmp_path: Path, images: list[bytes]) -> None:
    source = write(tmp_path / "data", "tar", images)
    finished = run(source, tmp_path / "out")
    size = os.path.getsize(source)
    write_tar(source, members(images[:5]))
    os.truncate(source, size)  # zeros: the same size, and a sound archive
    with pytest.raises(RereadError, match="shorter than when it was scanned"):
        finished.apply(tmp_path / "clean")


def test_nothing_wanted_reads_nothing(tmp_path: Path) -> None:
    from dedupkit.sources.webdataset import TarShard

    missing = TarShard(str(tmp_path / "none.tar"))
    assert list(read_samples(missing, [None, None])) == []
    with pytest.raises(OSError, match="gone"):
        list(read_samples(missing, [Scanned("a", b"")]))
