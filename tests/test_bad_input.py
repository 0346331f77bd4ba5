"""Whatever is wrong with the input, a run says so, row by row, and does the rest."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import (
    ROOT,
    command,
    encode,
    environment,
    jpegs,
    link,
    manifest,
    one_line,
    python,
    run,
    snapshot,
    tar_bytes,
    verdicts,
    write_tar,
)
from PIL import Image

import dedupkit as dk
from dedupkit import store
from dedupkit.errors import DedupkitError
from dedupkit.sources import Shard, find_shards

NOTHING_READ = ("sha256", "pdq", "pdq_quality", "width", "height", "nbytes", "format", "caption", "url")


@pytest.fixture(scope="module")
def images(photos: dict[str, Image.Image]) -> list[bytes]:
    return jpegs(photos, 6)


@pytest.fixture
def good(tmp_path: Path, images: list[bytes]) -> Path:
    """A sound shard, to be read whatever the other one is."""
    return write_tar(tmp_path / "data" / "zz_good.tar", [("good0.jpg", images[4]), ("good1.jpg", images[5])])


@pytest.fixture
def data(good: Path) -> Path:
    return good.parent


def problems(finished: dk.Run) -> dict[str, str | None]:
    """Key to reason (None for a kept sample), after the sound shard was seen to be sound."""
    rows = manifest(finished)
    assert rows["good0"]["verdict"] == rows["good1"]["verdict"] == "keep"
    for row in rows.values():
        assert (row["verdict"] == "unreadable") == (row["reason"] is not None and row["kept_sample"] is None)
        assert row["group_size"] == 1 or row["verdict"] != "unreadable"
    return {key: row["reason"] for key, row in rows.items() if not key.startswith("good")}


# Tars ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_truncated_tar(tmp_path: Path, data: Path, images: list[bytes], suffix: str) -> None:
    parts = [("a.jpg", images[0]), ("a.txt", b"A"), ("b.jpg", images[1]), ("b.txt", b"B"), ("c.jpg", images[2])]
    whole = tar_bytes(parts)
    cut = whole.index(images[2]) + len(images[2]) // 2
    if suffix == "tar":
        (data / "0.tar").write_bytes(whole[:cut])
    else:
        (data / "0.tar.gz").write_bytes(gzip.compress(whole)[: cut * 95 // 100])
    finished = run(data, tmp_path / "out")
    reasons = problems(finished)
    assert list(reasons) == ["a", "b", ""]  # the empty key stands for the rest of the shard
    assert reasons["a"] is None
    assert "the archive breaks off" in (reasons["b"] or "")  # whether it had more members nobody can tell
    assert ("truncated tar: member 'c.jpg' is cut" if suffix == "tar" else "broken gzip stream") in (reasons[""] or "")
    (problem,) = finished.summary["shard_problems"]
    assert problem == {"source": str(data / f"0.{suffix}"), "problem": reasons[""]}
    row = manifest(finished)[""]
    assert [row[name] for name in NOTHING_READ] == [None] * len(NOTHING_READ)


def test_a_sample_that_is_cut_after_its_first_member_is_unreadable(
    tmp_path: Path, data: Path, images: list[bytes]
) -> None:
    whole = tar_bytes([("a.jpg", images[0]), ("b.jpg", images[1]), ("b.txt", b"B" * 5000)])
    (data / "0.tar").write_bytes(whole[: whole.index(b"B" * 5000) + 100])
    reasons = problems(run(data, tmp_path / "out"))
    assert list(reasons) == ["a", "b", ""]
    assert "breaks off after this sample's first members" in (reasons["b"] or "")


def test_no_tar_at_all_and_an_empty_file(tmp_path: Path, data: Path) -> None:
    (data / "0.tar").write_bytes(random.Random(1).randbytes(5000))
    (data / "1.tar").write_bytes(b"")
    (data / "2.tar.gz").write_bytes(b"not gzip")
    rows = run(data, tmp_path / "out").manifest.to_pylist()
    assert [Path(row["source"]).name for row in rows[:3]] == ["0.tar", "1.tar", "2.tar.gz"]
    assert "broken tar" in rows[0]["reason"]
    assert "empty file (0 bytes)" in rows[1]["reason"]
    assert "gzip" in rows[2]["reason"]
    assert [row["verdict"] for row in rows] == ["unreadable"] * 3 + ["keep"] * 2


def test_an_empty_tar_has_no_samples(tmp_path: Path, data: Path) -> None:
    write_tar(data / "0.tar", [])
    assert problems(run(data, tmp_path / "out")) == {}
    alone = run(data / "0.tar", tmp_path / "alone")
    assert alone.manifest.num_rows == 0
    assert len(alone.groups) == 0
    assert alone.summary["samples"] == 0
    assert "0 samples" in repr(alone)


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg"])
def test_a_path_that_climbs_out(tmp_path: Path, data: Path, images: list[bytes], name: str) -> None:
    write_tar(data / "0.tar", [(name, images[0]), ("ok.jpg", images[1])])
    reasons = problems(run(data, tmp_path / "out"))
    assert "unsafe path" in (reasons[name.removesuffix(".jpg")] or "")
    assert reasons["ok"] is None


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links(tmp_path: Path, data: Path, images: list[bytes], kind: bytes) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(images[1])
    members = [
        ("a.jpg", images[0]),
        link("b.jpg", "a.jpg", kind),
        link("c.jpg", str(secret), kind),
        ("d.jpg", images[2]),
    ]
    write_tar(data / "0.tar", members)
    finished = run(data, tmp_path / "out")
    reasons = problems(finished)
    assert [reasons[key] for key in "ad"] == [None, None]
    for key in "bc":
        assert f"{key}.jpg is a link, not a file" in (reasons[key] or "")
        assert manifest(finished)[key]["sha256"] is None  # nothing outside the shard is read


def test_folders_and_devices_in_a_tar_are_no_samples(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    folder, fifo = tarfile.TarInfo("set"), tarfile.TarInfo("set/pipe.jpg")
    folder.type, fifo.type = tarfile.DIRTYPE, tarfile.FIFOTYPE
    write_tar(data / "0.tar", [folder, fifo, ("set/a.jpg", images[0])])
    assert problems(run(data, tmp_path / "out")) == {"set/a": None}


def test_duplicate_members(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    write_tar(
        data / "0.tar",
        [
            *[("a.jpg", images[0]), ("a.jpg", images[1])],  # one after the other
            *[("b.jpg", images[2]), ("c.jpg", images[3]), ("b.txt", b"later")],  # not contiguous
            ("c.jpg", images[0]),
        ],
    )
    reasons = problems(run(data, tmp_path / "out"))
    assert list(reasons) == ["a", "b", "c", "b#2", "c#2"]
    assert reasons["a"] == "two members named a.jpg"
    assert reasons["b"] is reasons["c"] is None
    assert "the key b comes again" in (reasons["b#2"] or "")
    assert "the key c comes again" in (reasons["c#2"] or "")


def test_a_key_without_an_image_and_a_key_with_two(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    write_tar(
        data / "0.tar",
        [
            *[("a.txt", b"only text"), ("a.json", b'{"url": "http://a"}')],
            *[("b.jpg", images[0]), ("b.png", encode(Image.new("L", (9, 9)), "PNG"))],
            *[("c.seg.jpg", images[1]), ("c.jpg", images[2])],
        ],
    )
    finished = run(data, tmp_path / "out")
    reasons = problems(finished)
    assert reasons["a"] == "no image under this key"
    assert reasons["b"] == "two images under one key: b.jpg, b.png"
    assert reasons["c"] is None  # the other's extension is seg.jpg, which is no image's
    row = manifest(finished)["a"]
    assert (row["caption"], row["url"]) == ("only text", "http://a")


def test_names_that_are_no_utf8(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    write_tar(data / "0.tar", [("caf\udce9.jpg", images[0])], tarfile.GNU_FORMAT)
    assert problems(run(data, tmp_path / "out")) == {"caf\\xe9": None}


# Images -------------------------------------------------------------------------------------------------------------


def test_files_that_are_no_images(tmp_path: Path, data: Path, photo: Image.Image, images: list[bytes]) -> None:
    png = encode(photo, "PNG")
    bomb = tmp_path / "bomb.png"
    Image.new("1", (14_000, 14_000)).save(bomb)
    broken = {
        "empty": b"",
        "random": random.Random(2).randbytes(3000),
        "text": b"<html>404 not found</html>",
        "truncated": images[0][: len(images[0]) // 2],
        "truncated_png": png[: len(png) // 2],
        "bomb": bomb.read_bytes(),
        "magic": b"\xff\xd8\xff\xe0",
    }
    members = [member for key, value in broken.items() for member in ((f"{key}.jpg", value), (f"{key}.txt", b"said"))]
    write_tar(data / "0.tar", [*members, ("whole.jpg", images[1])])
    finished = run(data, tmp_path / "out")
    reasons = problems(finished)
    assert reasons.pop("whole") is None
    assert list(reasons) == list(broken)
    assert all(reasons.values())
    assert reasons["empty"] == "empty file (0 bytes)"
    assert reasons["random"] == reasons["text"] == "not an image that Pillow can identify"
    assert "truncated" in (reasons["truncated"] or "")
    assert (reasons["bomb"] or "").startswith("too large")
    for key, row in manifest(finished).items():
        if key in broken:
            assert (row["nbytes"], row["caption"]) == (len(broken[key]), "said")
            assert row["sha256"] is not None
            assert row["pdq"] is row["width"] is None
    # the same bytes twice are no duplicates of one another while nobody can see what they show
    assert finished.summary["remove"] == 0


def test_broken_copies_are_not_removed_for_one_another(tmp_path: Path, data: Path) -> None:
    write_tar(data / "0.tar", [("a.jpg", b"junk"), ("b.jpg", b"junk")])
    rows = manifest(run(data, tmp_path / "out"))
    assert rows["a"]["sha256"] == rows["b"]["sha256"]
    assert rows["a"]["verdict"] == rows["b"]["verdict"] == "unreadable"
    assert rows["a"]["group"] != rows["b"]["group"]


def test_a_wrong_extension_does_not_matter(tmp_path: Path, data: Path, photo: Image.Image) -> None:
    small = photo.resize((200, 190))
    write_tar(data / "0.tar", [("a.jpg", encode(small, "PNG")), ("b.png", encode(small.rotate(20), "WEBP"))])
    finished = run(data, tmp_path / "out")
    assert problems(finished) == {"a": None, "b": None}
    rows = manifest(finished)
    assert (rows["a"]["format"], rows["b"]["format"]) == ("png", "webp")


@pytest.mark.parametrize("hashes", [(), ("pixels", "phash", "dhash", "ahash", "whash")], ids=["pdq", "all"])
def test_odd_modes_go_through_the_whole_run(
    tmp_path: Path, data: Path, photo: Image.Image, hashes: tuple[str, ...]
) -> None:
    small = photo.resize((96, 80))
    deep = small.convert("L").convert("I;16")
    files = {
        "cmyk.jpg": encode(small.convert("CMYK")),
        "palette.png": encode(small.quantize(16), "PNG", transparency=2),
        "palette.gif": encode(small.quantize(16), "GIF"),
        "bits.png": encode(small.convert("1"), "PNG"),
        "la.png": encode(small.convert("LA"), "PNG"),
        "rgba.png": encode(small.convert("RGBA"), "PNG"),
        "deep.png": encode(deep, "PNG"),
        "float.tiff": encode(small.convert("F"), "TIFF"),
        "flat.tiff": encode(Image.new("F", (50, 50), -3.0), "TIFF"),
        "int.tiff": encode(small.convert("I"), "TIFF"),
        "lab.tiff": encode(Image.new("LAB", (50, 50)), "TIFF"),
        "pixel.png": encode(small.resize((1, 1)), "PNG"),
        "line.png": encode(small.resize((1, 5000)), "PNG"),
    }
    write_tar(
        data / "0.tar", [(f"{name.replace('.', '_')}.{name.split('.')[1]}", value) for name, value in files.items()]
    )
    finished = run(data, tmp_path / "out", rule="exact", hashes=hashes)
    assert set(problems(finished).values()) == {None}
    assert manifest(finished)["line_png"]["height"] == 5000


# Captions -----------------------------------------------------------------------------------------------------------


def test_odd_captions_reach_the_manifest(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    long = "word " * 200_000
    texts = {
        "invalid": (b"caf\xe9 \xff", "caf\ufffd \ufffd"),
        "long": (long.encode(), long),
        "nul": (b"a\0b", "a\0b"),
        "empty": (b"", ""),
        "newlines": (b"a\r\nb\n", "a\r\nb\n"),
        "emoji": ("😀 ﷽".encode(), "😀 ﷽"),
    }
    members = [m for key, (text, _) in texts.items() for m in ((f"{key}.jpg", images[0]), (f"{key}.txt", text))]
    surrogates = r'{"caption": "lone \ud800 and \udc00, a pair \ud83d\ude00", "url": "http://\udfff"}'
    members += [("json.jpg", images[1]), ("json.json", surrogates.encode())]
    write_tar(data / "0.tar", members)
    finished = run(data, tmp_path / "out", keep="-caption_length, sample")
    rows = manifest(finished)
    assert {key: rows[key]["caption"] for key in texts} == {key: text for key, (_, text) in texts.items()}
    assert rows["json"]["caption"] == "lone \ufffd and \ufffd, a pair 😀"
    assert rows["json"]["url"] == "http://\ufffd"
    assert rows["long"]["verdict"] == "keep"  # the longest caption of the copies
    assert {rows[key]["kept_key"] for key in texts if key != "long"} == {"long"}


# Parquet ------------------------------------------------------------------------------------------------------------


def test_parquet_files_that_hold_no_images(tmp_path: Path, images: list[bytes]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.table({"url": ["a"], "text": ["b"]}), folder / "0.parquet")
    (folder / "1.parquet").write_bytes(b"this is no parquet")
    (folder / "2.parquet").write_bytes(b"")
    whole = pa.table({"image": pa.array(images, pa.binary())})
    pq.write_table(whole, folder / "3.parquet")
    cut = (folder / "3.parquet").read_bytes()
    (folder / "4.parquet").write_bytes(cut[: len(cut) // 2])
    rows = run(folder, tmp_path / "out").manifest.to_pylist()
    by_file = {Path(row["source"]).name: row for row in rows if row["key"] == ""}
    assert sorted(by_file) == ["0.parquet", "1.parquet", "2.parquet", "4.parquet"]
    assert by_file["0.parquet"]["reason"].startswith("no column of images in the Parquet file; its columns: url, text")
    assert "download them with img2dataset" in by_file["0.parquet"]["reason"]
    assert all(by_file[name]["reason"].startswith("broken Parquet: ") for name in list(by_file)[1:])
    assert sum(row["verdict"] == "keep" for row in rows) == 6


def test_a_parquet_that_is_damaged_inside(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    path = data / "0.parquet"
    table = pa.table({"image": pa.array(images * 2, pa.binary())})
    pq.write_table(table, path, row_group_size=2, use_dictionary=False, compression="zstd")
    damaged = bytearray(path.read_bytes())
    middle = pq.read_metadata(path).row_group(3).column(0).data_page_offset
    damaged[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(damaged)
    finished = run([path, data / "zz_good.tar"], tmp_path / "out")
    rows = finished.manifest.to_pylist()
    broken = [row for row in rows if row["verdict"] == "unreadable"]
    assert [row["key"] for row in broken] == [""]
    assert broken[0]["reason"].startswith("broken Parquet: ")
    assert len(finished.summary["shard_problems"]) == 1


# Shards that come and go --------------------------------------------------------------------------------------------


def test_a_pattern_with_a_missing_shard(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    for name in ("00000", "00002"):
        write_tar(data / f"{name}.tar", [(f"in{name}.jpg", images[int(name)])])
    source = [f"{data}/{{00000..00002}}.tar", data / "zz_good.tar"]
    finished = run(source, tmp_path / "out")
    assert problems(finished) == {"in00000": None, "": "the shard is gone: no such file", "in00002": None}
    assert finished.summary["shards"] == 4
    # it comes back, and the same command reads it and nothing else again
    before = (tmp_path / "out" / "samples" / "00000.parquet").stat().st_mtime_ns
    write_tar(data / "00001.tar", [("in00001.jpg", images[1])])
    again = run(source, tmp_path / "out")
    assert problems(again) == {"in00000": None, "in00001": None, "in00002": None}
    assert again.summary["shard_problems"] == []
    assert (tmp_path / "out" / "samples" / "00000.parquet").stat().st_mtime_ns == before


def test_a_shard_that_vanishes_between_listing_and_reading(
    tmp_path: Path, data: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = write_tar(data / "0.tar", [("a.jpg", images[0])])

    def list_and_lose(sources: Any) -> list[Shard]:
        shards = find_shards(sources)
        victim.rename(f"{victim}.moved")
        return shards

    with monkeypatch.context() as patch:
        patch.setattr("dedupkit.workflows.dedup.find_shards", list_and_lose)
        finished = run(data, tmp_path / "out")
    assert problems(finished) == {"": "the shard is gone: no such file"}
    assert finished.summary["shard_problems"] == [{"source": str(victim), "problem": "the shard is gone: no such file"}]
    Path(f"{victim}.moved").rename(victim)
    again = run(data, tmp_path / "out")
    assert problems(again) == {"a": None}
    assert again.summary["shard_problems"] == []


def test_a_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in zip(("a.jpg", "b.jpg", "c.jpg"), images, strict=False):
        (folder / name).write_bytes(image)
    os.mkfifo(folder / "pipe.jpg")
    wrong = {"a.jpg": OSError(5, "Input/output error"), "b.jpg": OSError("cannot read b.jpg: ExpiredToken")}
    opened = store.open_binary

    def failing(path: str) -> Any:
        if Path(path).name in wrong:
            raise wrong[Path(path).name]
        return opened(path)

    with monkeypatch.context() as patch:
        patch.setattr(store, "open_binary", failing)
        rows = manifest(run(folder, tmp_path / "out", rule="exact"))
    assert [rows[key]["verdict"] for key in sorted(rows)] == ["unreadable", "unreadable", "keep", "unreadable"]
    assert rows["a.jpg"]["reason"] == "OSError: Input/output error"
    assert rows["b.jpg"]["reason"] == "OSError: cannot read b.jpg: ExpiredToken"
    found = verdicts(run(folder, tmp_path / "out", rule="exact"))
    assert found == {"a.jpg": "keep", "b.jpg": "keep", "c.jpg": "keep", "pipe.jpg": "unreadable"}
    before = snapshot(tmp_path / "out" / "samples")
    run(folder, tmp_path / "out", rule="exact")
    assert snapshot(tmp_path / "out" / "samples") == before  # what stays as it is is not read for ever


def test_a_shard_that_changes_is_read_again(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    write_tar(data / "0.tar", [("a.jpg", images[0])])
    assert problems(run(data, tmp_path / "out")) == {"a": None}
    write_tar(data / "0.tar", [("a.jpg", images[0]), ("b.jpg", images[0])])
    assert verdicts(run(data, tmp_path / "out"))["b"] == "remove"


# The output folder --------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    before = snapshot(out)
    with pytest.raises(DedupkitError, match="is not empty and holds no run of dedupkit; choose another --out"):
        run(data, out)
    assert {name: state for name, state in snapshot(out).items() if name not in (".", ".lock")} == {
        "thesis.txt": before["thesis.txt"]
    }
    result = command("run", data, "--out", out)
    assert result.returncode == 1
    assert "is not empty" in one_line(result.stderr)
    assert result.stdout == ""


def test_an_empty_folder_is_taken_and_a_file_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert problems(run(data, tmp_path / "empty")) == {}
    (tmp_path / "file").write_text("x")
    with pytest.raises((DedupkitError, OSError)):
        run(data, tmp_path / "file")
    assert command("run", data, "--out", tmp_path / "file").returncode == 1


def test_a_run_over_other_sources_is_refused(tmp_path: Path, data: Path, images: list[bytes]) -> None:
    run(data, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    other = write_tar(tmp_path / "other" / "0.tar", [("a.jpg", images[0])])
    with pytest.raises(DedupkitError, match="holds a run over other sources .*choose another --out"):
        run(other, tmp_path / "out")
    after = snapshot(tmp_path / "out")
    for name in before.keys() - {".", ".lock"}:
        assert after[name] == before[name]
    assert problems(dk.Run(tmp_path / "out")) == {}


def test_a_run_over_sources_of_that_name_in_another_folder_is_refused(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("a", "b"):
        write_tar(tmp_path / place / "0.tar", [(f"{place}.jpg", images[0])])
    monkeypatch.chdir(tmp_path / "a")
    run("0.tar", tmp_path / "out")
    run("0.tar", "own")
    shutil.copytree(tmp_path / "a", tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(DedupkitError, match=r"a run over other sources \(0.tar in .*a\)"):
        run("0.tar", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "copy")
    assert manifest(run("0.tar", "own")).keys() == {"a"}  # a project that was copied as a whole goes on
    (tmp_path / "a").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert manifest(run("0.tar", tmp_path / "out")).keys() == {"a"}


HOLD = """
import sys, time
from dedupkit.runfolder.folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_into_one_folder_at_once(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, env=environment(), text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DedupkitError, match="another run is writing into .*out"):
            run(data, out)
        result = command("run", data, "--out", out)
        assert result.returncode == 1
        assert "another run is writing into" in one_line(result.stderr)
    finally:
        holder.kill()
        holder.wait()
    assert problems(run(data, out)) == {}  # the lock goes with its process
    with (out / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("kind", ["images", "tars", "parquet"])
@pytest.mark.parametrize("where", ["source/run", "source/deep/run", "other/../source/run", "link/run"])
def test_an_output_inside_the_source_is_refused(tmp_path: Path, images: list[bytes], kind: str, where: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    if kind == "images":
        (folder / "a.jpg").write_bytes(images[0])
    elif kind == "tars":
        write_tar(folder / "0.tar", [("a.jpg", images[0])])
    else:
        pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), folder / "0.parquet")
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(folder)
    before = snapshot(folder)
    with pytest.raises(DedupkitError, match="lies inside the source"):
        run(folder, tmp_path / where)
    assert snapshot(folder) == before


def test_an_output_that_is_the_source_is_refused(tmp_path: Path, data: Path) -> None:
    before = snapshot(data)
    with pytest.raises(DedupkitError):
        run(data, data)
    assert {name: state for name, state in snapshot(data).items() if name not in (".", ".lock")} == {
        name: state for name, state in before.items() if name != "."
    }


def test_nothing_is_written_into_the_source(tmp_path: Path, images: list[bytes]) -> None:
    """The listing, the times and the bytes of every kind of source, and a working folder in the midst of it."""
    sources = tmp_path / "sources"
    write_tar(sources / "tars" / "0.tar", [("a.jpg", images[0]), ("b.jpg", images[0])])
    (sources / "tars" / "1.tar").write_bytes(b"broken")
    (sources / "tars" / "0.parquet").write_bytes(b"broken")
    (sources / "tars" / "0_stats.json").write_text(json.dumps({"count": 2}))
    (sources / "images" / "sub").mkdir(parents=True)
    (sources / "images" / "sub" / "a.jpg").write_bytes(images[1])
    (sources / "parquet").mkdir()
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), sources / "parquet" / "0.parquet")
    before = snapshot(sources)
    every = [sources / name for name in ("tars", "images", "parquet")]
    finished = run(every, tmp_path / "out", hashes=("pixels", "phash"))
    finished.rethreshold("exact")
    run(every, tmp_path / "out")
    result = command("run", *every, "--out", tmp_path / "cli", "--workers", "2", cwd=sources / "tars")
    assert result.returncode == 0, result.stderr
    assert snapshot(sources) == before


# A disk that is full or read-only -----------------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["dedupkit", *sys.argv[2:]]
from dedupkit.cli.main import main
main()
"""


@pytest.fixture
def long_captions(tmp_path: Path, images: list[bytes]) -> Path:
    """Three small shards and one whose rows take a megabyte, even compressed."""
    folder = tmp_path / "data"
    for shard in range(3):
        write_tar(folder / f"{shard}.tar", [(f"s{shard}.jpg", images[shard])])
    noise = random.Random(3).randbytes(500_000).hex().encode()
    write_tar(folder / "3.tar", [("s3.jpg", images[3]), ("s3.txt", noise)])
    return folder


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_cannot_be_written_in_full(tmp_path: Path, long_captions: Path, workers: str) -> None:
    out = tmp_path / "out"
    arguments = ["run", str(long_captions), "--out", str(out), "--workers", workers]
    result = python("-c", LIMITED, "200000", *arguments)
    assert result.returncode == 1, result.stderr
    assert "File too large" in one_line(result.stderr)
    assert not list(out.rglob("*.tmp"))
    if workers == "2":
        return
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "samples").iterdir()}
    assert sorted(kept) == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert command(*arguments).returncode == 0
    assert set(verdicts(dk.Run(out)).values()) == {"keep"}
    for name, written in kept.items():  # what was done is not done again
        assert (out / "samples" / name).stat().st_mtime_ns == written


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[list[str]]:
    """A shell line's start that runs in a mount space of its own, where this account may do that."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare")
    start = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--mount", "--map-root-user"]
    (tmp_path / "disk").mkdir()
    tried = subprocess.run(
        [*start, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "disk")], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip("this account may mount nothing")
    return [*start, "sh", "-c"]


def run_mounted(mounted: list[str], options: str, disk: Path, source: Path) -> subprocess.CompletedProcess[str]:
    line = f"mount -t tmpfs -o {options} tmpfs {disk} && {sys.executable} -m dedupkit.cli run {source} --out {disk}/out"
    line += f"; code=$?; find {disk} -name '*.parquet' -o -name '*.tmp' | sort; exit $code"
    return subprocess.run([*mounted, line], capture_output=True, text=True, env=environment(), timeout=120, check=False)


def test_a_full_disk(tmp_path: Path, long_captions: Path, mounted: list[str]) -> None:
    result = run_mounted(mounted, "size=300k", tmp_path / "disk", long_captions)
    assert result.returncode == 1, result.stderr
    assert "No space left on device" in one_line(result.stderr)
    left = [Path(line) for line in result.stdout.splitlines()]
    assert not [path for path in left if path.suffix == ".tmp"]
    assert len(left) >= 1  # what fitted is kept


def test_a_read_only_disk(tmp_path: Path, data: Path, mounted: list[str]) -> None:
    result = run_mounted(mounted, "ro", tmp_path / "disk", data)
    assert result.returncode == 1
    assert "Read-only file system" in one_line(result.stderr)
    assert result.stdout == ""


def test_an_output_that_may_not_be_written(tmp_path: Path, data: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    (tmp_path / "locked").mkdir(mode=0o500)
    result = command("run", data, "--out", tmp_path / "locked" / "out")
    assert result.returncode == 1
    assert "Permission denied" in one_line(result.stderr)


# The command line ---------------------------------------------------------------------------------------------------


def test_errors_are_one_line_and_an_exit_code(tmp_path: Path, data: Path) -> None:
    result = command("run", tmp_path / "none.tar", "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "no such source" in one_line(result.stderr)
    assert not (tmp_path / "out").exists()
    wrong = command("run", data, "--out", tmp_path / "out", "--rule", "exact or nonsense<=3")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
    assert command("run", data).returncode == 2
    assert command("run", data, "--out", tmp_path / "out", "--workers", "0").returncode == 2
    with pytest.raises(dk.DedupkitError, match="the seed is at least 0"):
        dk.dedup(data, tmp_path / "out", seed=-1)
    with pytest.raises(dk.DedupkitError, match="the number of workers is at least 0, not -1"):
        dk.dedup(data, tmp_path / "out", workers=-1)


def test_a_run_with_broken_samples_is_a_success_that_counts_them(tmp_path: Path, data: Path) -> None:
    write_tar(data / "0.tar", [("a.jpg", b"junk")])
    (data / "1.tar").write_bytes(b"broken")
    result = command("run", data, "--out", tmp_path / "out", "--workers", "1", "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no terminal, no progress
    summary = json.loads(result.stdout)
    assert {name: summary[name] for name in ("samples", "keep", "remove", "unreadable")} == {
        "samples": 4,
        "keep": 2,
        "remove": 0,
        "unreadable": 2,
    }
    assert summary["shard_problems"][0]["source"] == str(data / "1.tar")
    assert ROOT.is_dir()
