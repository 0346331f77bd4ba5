"""Whatever lies in a source: each sample gets a row, what is none is counted, and nothing hangs or ends the run."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, jpegs, manifest, one_line, run, tar_bytes, verdicts, write_tar
from hostile.changes import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import dedupkit as dk
from dedupkit.errors import DedupkitError
from dedupkit.sources import Sample, ShardError, find_shards, limits, tar_stream, webdataset
from dedupkit.sources.keys import name_of, text_of, unique_key
from dedupkit.sources.sample import PassedOver
from dedupkit.stages import run as stages


@pytest.fixture(scope="module")
def images(photos: dict[str, Image.Image]) -> list[bytes]:
    return jpegs(photos, 4, 64)


def read(source: Any, **options: Any) -> tuple[list[Sample], str | None, PassedOver]:
    """All samples, the problem of the last shard, and what was passed over."""
    samples, problem, passed = [], None, PassedOver()
    for shard in find_shards(source):
        try:
            for sample in shard.read(passed_over=passed, **options):
                samples.append(sample)  # noqa: PERF402 - what came before the error counts
        except ShardError as error:
            problem = str(error)
    return samples, problem, passed


def errors(source: Any) -> dict[str, str | None]:
    return {sample.key: sample.error for sample in read(source)[0]}


# Names --------------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=12), min_size=2, max_size=2, unique=True))
def test_names_become_text_that_is_different_for_different_names(raw: list[bytes]) -> None:
    names = [name.decode("utf-8", "surrogateescape") for name in raw]
    texts = [text_of(name) for name in names]
    assert texts[0] != texts[1]
    for name, text in zip(names, texts, strict=True):
        text.encode("utf-8")
        assert name_of(text) == name


@pytest.mark.parametrize(
    "name", [r"a\xe9", r"\x5cxe9", r"\\xe9", "\\", "caf\udce9", "\\\udce9", r"a\xE9", r"\x5" + "\udce9"]
)
def test_names_with_backslashes(name: str) -> None:
    assert name_of(text_of(name)) == name


def test_files_whose_names_differ_in_invalid_bytes_are_all_kept(tmp_path: Path, images: list[bytes]) -> None:
    folder = os.fsencode(tmp_path) + b"/d\xff"
    os.mkdir(folder)
    names = (b"caf\xe9.jpg", b"caf\xe8.jpg", b"plain.jpg")
    for name, image in zip(names, images, strict=False):
        with open(folder + b"/" + name, "wb") as file:
            file.write(image)
    with open(folder + b"/caf\xe9.txt", "wb") as file:
        file.write(b"said")
    finished = run(os.fsdecode(folder), tmp_path / "out")
    rows = manifest(finished)
    assert {key: row["verdict"] for key, row in rows.items()} == dict.fromkeys(
        (r"caf\xe8.jpg", r"caf\xe9.jpg", "plain.jpg"), "keep"
    )
    assert rows[r"caf\xe9.jpg"]["caption"] == "said"
    assert finished.apply(tmp_path / "clean")["samples"] == 3
    assert (finished.report()).exists()


def test_a_tar_under_a_path_that_is_no_utf8(tmp_path: Path, images: list[bytes]) -> None:
    path = tmp_path / os.fsdecode(b"\xfe.tar")
    write_tar(path, [("a.jpg", images[0])])
    finished = run(str(path), tmp_path / "out")
    assert manifest(finished)["a"]["source"].endswith(r"\xfe.tar")
    assert finished.apply(tmp_path / "clean")["samples"] == 1


def test_a_repeated_key_takes_no_name_that_another_sample_has(tmp_path: Path, images: list[bytes]) -> None:
    members = [("a.jpg", images[0]), ("b.jpg", images[1]), ("a.jpg", images[2]), ("a#2.jpg", images[3])]
    members += [("b.txt", b"more"), ("b#2.txt", b""), ("a.txt", b"again")]
    rows = manifest(run(write_tar(tmp_path / "0.tar", members), tmp_path / "out"))
    assert list(rows) == ["a", "b", "a#3", "a#2", "b#3", "b#2", "a#4"]
    assert [rows[key]["verdict"] for key in ("a", "b", "a#2")] == ["keep"] * 3
    assert "the key a comes again" in rows["a#3"]["reason"]


# Tars ---------------------------------------------------------------------------------------------------------------


def header(name: str, kind: bytes, size: int = 0) -> bytearray:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return bytearray(info.tobuf(tarfile.USTAR_FORMAT))


def sealed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def test_members_that_are_no_files_are_told(tmp_path: Path, images: list[bytes]) -> None:
    sparse = header("s.jpg", b"S", 512)
    sparse[482] = 1  # one more block of the map follows
    old = sealed(sparse) + bytes(512) + b"D" * 512
    unknown = sealed(header("u.jpg", b"Q", 100)) + bytes(512)
    label, fifo = sealed(header("label.x", b"V")), sealed(header("pipe.jpg", b"6"))
    pax = tarfile.TarInfo("GNUSparseFile.1/p.jpg")
    pax.size, pax.pax_headers = 3, {"GNU.sparse.major": "1", "GNU.sparse.name": "p.jpg"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(pax, io.BytesIO(b"map"))
    first = buffer.getvalue().rstrip(b"\0")
    first += bytes(-len(first) % 512)
    (tmp_path / "0.tar").write_bytes(
        first + old + unknown + label + fifo + tar_bytes([("README", b"x"), ("ok.jpg", images[0])])
    )
    samples, problem, passed = read(tmp_path / "0.tar")
    assert problem is None
    found = {sample.key: sample.error for sample in samples}
    assert found["ok"] is None
    assert "p.jpg is a sparse file, which is not read" in (found["p"] or "")
    assert "s.jpg is a sparse file, which is not read" in (found["s"] or "")
    assert "u.jpg is of a kind that is not known" in (found["u"] or "")
    assert (passed.count, passed.example) == (3, "label.x")  # the label, the pipe and README


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_what_follows_the_end_of_an_archive_is_told(tmp_path: Path, images: list[bytes], suffix: str) -> None:
    both = tar_bytes([("a.jpg", images[0])]) + tar_bytes([("b.jpg", images[1])])
    (tmp_path / f"0.{suffix}").write_bytes(both if suffix == "tar" else gzip.compress(both))
    rows = manifest(run(tmp_path / f"0.{suffix}", tmp_path / "out"))
    assert list(rows) == ["a", ""]
    assert rows["a"]["verdict"] == "keep"
    assert "data follows the end marker" in rows[""]["reason"]


@pytest.mark.parametrize("behind", ["a line", "another stream that is cut"])
def test_what_follows_a_compressed_archive_costs_no_sample(tmp_path: Path, images: list[bytes], behind: str) -> None:
    archive = gzip.compress(tar_bytes([("a.jpg", images[0]), ("b.jpg", images[1])]))
    more = b"\n" if behind == "a line" else gzip.compress(bytes(512))[:-4]
    (tmp_path / "0.tar.gz").write_bytes(archive + more)
    samples, problem, _ = read(tmp_path / "0.tar.gz")
    assert [(sample.key, sample.error) for sample in samples] == [("a", None), ("b", None)]
    assert "what follows the end marker" in (problem or "")


def test_a_size_beyond_64_bits_is_a_break_like_others(tmp_path: Path, images: list[bytes]) -> None:
    block = header("b.jpg", b"0")
    block[124:136] = b"\x80" + (1 << 70).to_bytes(11, "big")
    first = tar_bytes([("a.jpg", images[0])]).rstrip(b"\0")
    (tmp_path / "0.tar").write_bytes(first + bytes(-len(first) % 512) + sealed(block) + bytes(1024))
    samples, problem, _ = read(tmp_path / "0.tar")
    assert [(sample.key, sample.error) for sample in samples] == [("a", webdataset._BROKEN)]
    assert "broken tar: a member of 1180591620717411303424 bytes" in (problem or "")


def test_a_pax_size_of_5000_digits(tmp_path: Path, images: list[bytes]) -> None:
    record = b"5013 size=" + b"9" * 5000 + b"\n"
    assert len(record) in (5010, 5011)
    record = f"{len(record)} ".encode() + record.partition(b" ")[2]
    data = tar_bytes([("a.jpg", images[0])]).rstrip(b"\0")
    data += bytes(-len(data) % 512) + sealed(header("x", b"x", len(record))) + record + bytes(-len(record) % 512)
    data += tar_bytes([("b.jpg", images[1])])
    (tmp_path / "0.tar").write_bytes(data)
    samples, problem, _ = read(tmp_path / "0.tar")
    assert [sample.key for sample in samples][:1] == ["a"]
    assert problem is not None
    assert "digits" in problem


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_member_over_the_limit_is_a_row_and_no_memory(tmp_path: Path, images: list[bytes], suffix: str) -> None:
    size = limits.MAX_IMAGE_BYTES + 1
    path = tmp_path / f"0.{suffix}"
    with (open if suffix == "tar" else gzip.open)(path, "wb", *([] if suffix == "tar" else [1])) as file:
        file.write(sealed(header("big.jpg", b"0", size)))
        if suffix == "tar":
            file.seek(file.tell() + size + -size % 512)  # a hole
        else:
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
            file.write(bytes(512))
        file.write(tar_bytes([("ok.jpg", images[0])]))
    tracemalloc.start()
    samples, problem, _ = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem is None
    assert {sample.key: (sample.error or "").partition(",")[0] for sample in samples} == {
        "big": "big.jpg has 268", "ok": "",
    }  # fmt: skip
    assert "more than the limit of 268,435,456 (DEDUPKIT_MAX_IMAGE_BYTES)" in (samples[0].error or "")
    assert peak < 80 << 20


def test_a_large_member_that_is_cut_is_an_error(tmp_path: Path) -> None:
    size = limits.MAX_IMAGE_BYTES + 1
    (tmp_path / "0.tar").write_bytes(sealed(header("big.jpg", b"0", size)) + bytes(2000))
    assert "member 'big.jpg' is cut at byte 2512" in (read(tmp_path / "0.tar")[1] or "")


def test_many_or_large_members_under_one_key_are_bounded(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [("a.jpg", images[0]), *((f"a.x{number}", b"") for number in range(1200)), ("b.jpg", images[1])]
    found = errors(write_tar(tmp_path / "0.tar", members))
    assert "more than 1,000 files" in (found["a"] or "")
    assert found["b"] is None
    monkeypatch.setattr(webdataset, "MAX_IMAGE_BYTES", 3000)
    monkeypatch.setattr(tar_stream, "MAX_IMAGE_BYTES", 3000)
    found = errors(write_tar(tmp_path / "1.tar", [("a.x", bytes(2000)), ("a.y", bytes(2000)), ("b.y", b"")]))
    assert "under one key" in (found["a"] or "")


def test_another_limit_reads_again_what_was_too_large(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", images[0])])
    with monkeypatch.context() as patch:
        for module in (tar_stream, webdataset, stages):
            patch.setattr(module, "MAX_IMAGE_BYTES", len(images[0]) - 1)
        assert verdicts(run(tmp_path / "0.tar", tmp_path / "out", rule="exact")) == {"a": "unreadable"}
    assert verdicts(run(tmp_path / "0.tar", tmp_path / "out", rule="exact")) == {"a": "keep"}


@pytest.mark.parametrize("given", ["1GB", "-5", "0", "1e9"])
def test_a_limit_that_is_no_number_of_bytes_is_named(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEDUPKIT_MAX_IMAGE_BYTES", given)
    with pytest.raises(DedupkitError, match=f"DEDUPKIT_MAX_IMAGE_BYTES is a number of bytes.*{given}"):
        limits._max_image_bytes()


# img2dataset --------------------------------------------------------------------------------------------------------


def test_a_repeated_key_in_the_metadata_is_a_row(tmp_path: Path, images: list[bytes]) -> None:
    write_tar(tmp_path / "0.tar", [("000.jpg", images[0])])
    rows = {
        "key": ["000", "000", "001", None, "000"],
        "status": ["success", "failed_to_download", "failed_to_resize", "failed_to_download", "success"],
        "error_message": [None, "first", None, "nameless", None],
        "url": ["a", "b", "c", "d", "e"],
    }
    pq.write_table(pa.table(rows), tmp_path / "0.parquet")
    found = run(tmp_path, tmp_path.parent / f"{tmp_path.name}-out").manifest.to_pylist()
    assert sorted(row["url"] for row in found) == ["a", "b", "c", "d", "e"]
    assert [row["verdict"] for row in found] == ["keep"] + ["unreadable"] * 4
    assert "the key 000 comes again" in found[1]["reason"]


def test_unreadable_metadata_of_the_files_format(tmp_path: Path, images: list[bytes]) -> None:
    (tmp_path / "00000").mkdir()
    (tmp_path / "00000" / "0.jpg").write_bytes(images[0])
    (tmp_path / "00000.parquet").write_bytes(b"broken")
    samples, problem, _ = read(tmp_path)
    assert [sample.key for sample in samples] == ["0"]
    assert "00000.parquet cannot be read" in (problem or "")


# Folders ------------------------------------------------------------------------------------------------------------


def test_files_passed_over_are_counted_and_named(tmp_path: Path, images: list[bytes]) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for name in ("a.jpg", "a.txt", "sub/b.png", "x.heic", "y.svg", "lonely.txt", ".hidden.jpg"):
        (data / name).write_bytes(images[0])
    finished = run(data, tmp_path / "out")
    assert finished.summary["passed_over"] == {"count": 3, "example": "lonely.txt"}
    assert ("passed over: no samples", "3, such as lonely.txt") in finished.rows()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.heic").write_bytes(b"")
    with pytest.raises(DedupkitError, match="nothing to read in .*none"):
        find_shards(tmp_path / "none")


def test_what_lies_beside_tars_is_counted(tmp_path: Path, images: list[bytes]) -> None:
    data = tmp_path / "data"
    for number in range(2):
        write_tar(data / f"{number}.tar", [("a.jpg", images[number]), ("__meta__.x__", b"")])
    (data / "loose.jpg").write_bytes(images[2])
    (data / "0_stats.json").write_text("{}")
    (data / "sub").mkdir()
    assert run(data, tmp_path / "out").summary["passed_over"] == {"count": 4, "example": "loose.jpg"}


def test_a_subfolder_that_cannot_be_listed_is_a_row(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    (data / "closed").mkdir(parents=True)
    (data / "a.jpg").write_bytes(images[0])
    (tmp_path / "other").mkdir()
    (data / "linked").symlink_to(tmp_path / "other")
    scandir = os.scandir

    def refusing(path: Any = ".") -> Any:  # root may list everything
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert errors(data) == {
        "a.jpg": None,
        "closed/": "the folder cannot be read: Permission denied",
        "linked/": "the folder cannot be read: a link to a folder, not followed",
    }
    (data / "a.jpg").unlink()
    assert list(errors(data)) == ["closed/", "linked/"]


def test_only_regular_files_are_opened(tmp_path: Path, images: list[bytes]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / "fifo.jpg")
    (data / "zero.jpg").symlink_to("/dev/zero")
    (data / "ok.jpg").write_bytes(images[0])
    os.mkfifo(data / "ok.txt")
    (data / "linked.jpg").symlink_to(data / "real.png")
    (data / "real.png").write_bytes(images[1])
    with (data / "sparse.jpg").open("wb") as file:
        os.truncate(file.fileno(), 20 << 30)
    found = errors(data)
    assert found["fifo.jpg"] == found["zero.jpg"] == "OSError: not a regular file"
    assert found["linked.jpg"] is found["real.png"] is None
    assert "ok.txt: OSError: not a regular file" in (found["ok.jpg"] or "")
    assert "more than the limit" in (found["sparse.jpg"] or "")
    os.mkfifo(tmp_path / "0.tar")
    assert "not a regular file" in (read(tmp_path / "0.tar")[1] or "")


# Parquet ------------------------------------------------------------------------------------------------------------


def odd_columns() -> dict[str, pa.Array]:
    return {
        "years": pa.array([10**7, 0], pa.date32()),
        "zone": pa.array([1, 2], pa.timestamp("us", tz="Mars/Olympus")),
        "nanoseconds": pa.array([1, 1_000], pa.timestamp("ns")),
        "duration": pa.array([1, 2], pa.duration("ns")),
        "far": pa.array([2**62, 0], pa.timestamp("ms")),
        "text": pa.array([b"caf\xe9", b"fine"], pa.binary()).view(pa.string()),
        "list": pa.array([["first", "second"], []]),
        "nested": pa.array([[{"a": [1]}], None]),
    }


@pytest.mark.parametrize("name", odd_columns())
def test_captions_of_any_type(tmp_path: Path, images: list[bytes], name: str) -> None:
    table = pa.table({"image": pa.array(images[:2], pa.binary()), "caption": odd_columns()[name]})
    pq.write_table(table, tmp_path / "0.parquet")
    rows = manifest(run(tmp_path / "0.parquet", tmp_path / "out"))
    assert [row["verdict"] for row in rows.values()] == ["keep"] * 2
    captions = [row["caption"] for row in rows.values()]
    wanted = {"text": ["caf\ufffd", "fine"], "list": ["first", None], "nested": ['{"a": [1]}', None]}
    assert captions == wanted.get(name, captions)
    assert captions[0] is not None


@pytest.mark.parametrize("kind", ["string", "int64"])
def test_columns_that_only_look_like_images(tmp_path: Path, images: list[bytes], kind: str) -> None:
    values = pa.array(
        [{"bytes": None, "path": "x"}], pa.struct([("bytes", pa.type_for_alias(kind)), ("path", "string")])
    )
    pq.write_table(pa.table({"image": values, "real": pa.array(images[:1], pa.binary())}), tmp_path / "0.parquet")
    assert [sample.image for sample in read(tmp_path)[0]] == images[:1]
    pq.write_table(pa.table({"image": values}), tmp_path / "0.parquet")
    assert "no column of images" in (read(tmp_path)[1] or "")


def test_a_path_that_is_a_number(tmp_path: Path, images: list[bytes]) -> None:
    values = pa.array([{"bytes": images[0], "path": 7}, {"bytes": None, "path": 8}])
    pq.write_table(pa.table({"image": values}), tmp_path / "0.parquet")
    samples, problem, _ = read(tmp_path)
    assert problem is None
    assert [sample.error for sample in samples] == [None, "the row stores no image bytes, only the path 8"]


def test_an_empty_status_says_nothing(tmp_path: Path, images: list[bytes]) -> None:
    columns = {"key": ["a", "b"], "status": ["", None], "error_message": ["", None]}
    pq.write_table(pa.table(columns | {"jpg": pa.array(images[:2], pa.binary())}), tmp_path / "0.parquet")
    assert [(sample.error, sample.image) for sample in read(tmp_path)[0]] == [(None, images[0]), (None, images[1])]


@pytest.mark.parametrize("status", [["active", "draft"], [200, 404]])
@pytest.mark.parametrize("others", [{}, {"key": ["a", "b"]}])
def test_a_status_that_is_not_img2datasets_says_nothing(
    tmp_path: Path, images: list[bytes], status: list[Any], others: dict[str, list[str]]
) -> None:
    columns = others | {"status": status, "image": pa.array(images[:2], pa.binary())}
    pq.write_table(pa.table(columns), tmp_path / "0.parquet")
    assert [(sample.error, sample.image) for sample in read(tmp_path)[0]] == [(None, images[0]), (None, images[1])]


def test_a_key_that_comes_again_in_parquet_is_named(tmp_path: Path, images: list[bytes]) -> None:
    """As where the files of two runs of img2dataset were joined, whose keys both begin at zero."""
    columns: dict[str, Any] = {"key": ["0", "0#2", "0", "0"], "status": ["success"] * 4, "error_message": [None] * 4}
    pq.write_table(pa.table(columns | {"jpg": pa.array(images, pa.binary())}), tmp_path / "0.parquet")
    finished = run(tmp_path / "0.parquet", tmp_path / "out", rule="exact")
    assert verdicts(finished) == dict.fromkeys(["0", "0#2", "0#3", "0#4"], "keep")
    for number in range(2):  # cleaned shards are read, and written, as any others
        finished.apply(tmp_path / f"clean{number}", format="parquet", shards=1)
        stored = pq.read_table(next((tmp_path / f"clean{number}").glob("*.parquet"))).to_pylist()
        assert [row["image"]["bytes"] for row in stored] == images
        assert [row["key"] for row in stored] == ["0", "0#2", "0#3", "0#4"]
        finished = run(tmp_path / f"clean{number}", tmp_path / f"out{number}", rule="exact")
        assert verdicts(finished) == dict.fromkeys(["0", "0#2", "0#3", "0#4"], "keep")


def test_many_equal_keys_are_named_in_time() -> None:
    named: dict[str, int] = {}
    assert [unique_key("a", named) for _ in range(100_000)][-1] == "a#100000"


def test_column_names_that_are_no_utf8(tmp_path: Path, images: list[bytes]) -> None:
    good = tmp_path / "1.parquet"
    pq.write_table(pa.table({"image": pa.array(images[:1], pa.binary()), "namenamename": ["x"]}), good)
    data = good.read_bytes()
    (tmp_path / "0.parquet").write_bytes(data.replace(b"namenamename", b"name\xff\xfe\xfdename"))
    rows = run(tmp_path, tmp_path.parent / f"{tmp_path.name}-out").manifest.to_pylist()
    assert [row["verdict"] for row in rows if row["source"].endswith("1.parquet")] == ["keep"]


def test_keys_that_differ_in_invalid_bytes_stay_apart(tmp_path: Path, images: list[bytes]) -> None:
    raw = pa.array([b"caf\xe9", b"caf\xe8", b"fine"], pa.binary()).view(pa.string())
    columns = {"key": raw, "status": ["success"] * 3, "url": list("abc")}
    folder = tmp_path / "parquet"
    folder.mkdir()
    pq.write_table(pa.table({**columns, "jpg": pa.array(images[:3], pa.binary())}), folder / "0.parquet")
    finished = run(folder, tmp_path / "out")
    assert {key: row["verdict"] for key, row in manifest(finished).items()} == dict.fromkeys(
        (r"caf\xe9", r"caf\xe8", "fine"), "keep"
    )
    assert finished.apply(tmp_path / "clean")["samples"] == 3
    literal = {"key": [r"a\xe9"], "status": ["success"], "url": ["x"]}
    write_tar(tmp_path / "literal" / "0.tar", [(r"a\xe9.jpg", images[0])])
    pq.write_table(pa.table(literal), tmp_path / "literal" / "0.parquet")
    assert [(sample.key, sample.url) for sample in read(tmp_path / "literal")[0]] == [(r"a\x5cxe9", "x")]
    members = [(f"{name}.jpg", image) for name, image in zip(("caf\udce9", "caf\udce8", "fine"), images, strict=False)]
    write_tar(tmp_path / "tar" / "0.tar", members, tarfile.GNU_FORMAT)
    pq.write_table(pa.table(columns), tmp_path / "tar" / "0.parquet")
    samples, _, _ = read(tmp_path / "tar")
    assert [(sample.key, sample.url) for sample in samples] == [(r"caf\xe9", "a"), (r"caf\xe8", "b"), ("fine", "c")]


def test_any_error_of_a_reader_is_its_shards(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        write_tar(tmp_path / "data" / f"{number}.tar", [(f"{number}.jpg", images[number]), (f"{number}b.jpg", b"x")])
    sample = webdataset._sample

    def failing(group: Any, *arguments: Any, **options: Any) -> Any:
        if group.key == "0b":
            raise MemoryError("no more")
        return sample(group, *arguments, **options)

    monkeypatch.setattr(webdataset, "_sample", failing)
    rows = manifest(run(tmp_path / "data", tmp_path / "out"))
    assert list(rows) == ["0", "", "1", "1b"]
    assert rows["0"]["verdict"] == "keep"
    assert rows[""]["reason"] == "MemoryError: no more"


def test_deep_json_and_odd_json_cost_no_sample(tmp_path: Path, images: list[bytes]) -> None:
    deep = b'{"caption": ' + b"[" * 900 + b"]" * 900 + b', "url": "http://a"}'
    huge = b'{"caption": ' + b"9" * 4000 + b"}"
    members = [("a.jpg", images[0]), ("a.json", deep), ("b.jpg", images[1]), ("b.json", b"[" * 10**6)]
    members += [("c.jpg", images[2]), ("c.json", huge), ("d.jpg", images[3]), ("d.json", b'{"caption": ["", "two"]}')]
    rows = manifest(run(write_tar(tmp_path / "0.tar", members), tmp_path / "out"))
    assert [row["verdict"] for row in rows.values()] == ["keep"] * 4
    assert rows["a"]["url"] == "http://a"
    assert rows["d"]["caption"] == "two"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(images[0])
    (tmp_path / "data" / "captions.jsonl").write_bytes(b"[" * 10**6)
    with pytest.raises(DedupkitError, match="captions.jsonl cannot be read"):
        find_shards(tmp_path / "data")


def test_a_parquet_of_addresses_names_img2dataset(tmp_path: Path) -> None:
    for name in ("URL", "url", "image_url"):
        pq.write_table(pa.table({name: ["http://a"], "TEXT": ["x"]}), tmp_path / f"{name}.parquet")
        done = command("run", tmp_path / f"{name}.parquet", "--out", tmp_path / f"out-{name}")
        assert done.returncode == 1
        assert "download them with img2dataset" in one_line(done.stderr)


# All columns, and what the run depends on ---------------------------------------------------------------------------


def test_every_column_of_a_row_is_there_on_request(tmp_path: Path, images: list[bytes]) -> None:
    table = pa.table({
        "image": pa.array(images[:2], pa.binary()), "caption": [["one", "two"], ["three"]], "score": [1.5, None],
        "when": pa.array([1, 2], pa.timestamp("ns")), "tags": [["a"], []],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "0.parquet")
    first, second = read(tmp_path, extra=True)[0]
    assert sorted(first.extra) == ["caption", "score", "tags", "when"]
    assert (first.caption, first.extra["caption"], first.extra["tags"]) == ("one", ["one", "two"], ["a"])
    assert second.extra["score"] is None
    assert read(tmp_path)[0][0].extra == {}
    write_tar(tmp_path / "t" / "0.tar", [("a.jpg", images[0]), ("a.json", b'{"caption": "x", "more": [1]}')])
    assert read(tmp_path / "t", extra=True)[0][0].extra == {"caption": "x", "more": [1]}


def test_a_break_in_another_column_costs_no_image(tmp_path: Path, images: list[bytes]) -> None:
    path = tmp_path / "0.parquet"
    table = pa.table({"image": pa.array(images * 2, pa.binary()), "other": [bytes([n]) * 400 for n in range(8)]})
    pq.write_table(table, path, row_group_size=2, use_dictionary=False, compression="none")
    damaged = bytearray(path.read_bytes())
    first = pq.read_metadata(path).row_group(2).column(1).data_page_offset
    damaged[first : first + 30] = b"\xff" * 30
    path.write_bytes(damaged)
    samples, problem, _ = read(path, extra=True)
    assert problem is None
    assert [sample.image for sample in samples] == images * 2
    assert ["other" in sample.extra for sample in samples] == [True] * 4 + [False] * 4
    assert run(path, tmp_path / "out").apply(tmp_path / "clean", format="parquet")["samples"] == 4


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz", "0.parquet", "metadata of 0.tar", "metadata.jsonl"])
def test_whatever_is_damaged_ends_in_samples_and_at_most_a_problem(
    tmp_path: Path, images: list[bytes], name: str
) -> None:
    members = [m for n, image in enumerate(images) for m in ((f"{'deep/' * 30}{n}.jpg", image), (f"{n}.json", b"{}"))]
    buffer = pa.BufferOutputStream()
    columns = {
        "image": pa.array(images, pa.binary()),
        "key": list("0123"),
        "status": ["success"] * 4,
        "caption": [["a"]] * 4,
    }
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    whole = {"0.tar": tar_bytes(members, tarfile.PAX_FORMAT), "0.parquet": buffer.getvalue().to_pybytes()}
    whole |= {
        "0.tar.gz": gzip.compress(whole["0.tar"]),
        "metadata.jsonl": b'{"file_name": "a.jpg", "caption": ["x"]}\n',
    }
    random = Random(name)
    (tmp_path / "a.jpg").write_bytes(images[0]) if name == "metadata.jsonl" else None
    for _ in range(150):
        if name.startswith("metadata of"):
            (tmp_path / "0.tar").write_bytes(whole["0.tar"])
            (tmp_path / "0.parquet").write_bytes(damaged(random, whole["0.parquet"]))
        else:
            (tmp_path / name).write_bytes(damaged(random, whole[name]))
        try:
            samples, problem, _ = read(tmp_path, extra=random.random() < 0.5)
        except DedupkitError:
            assert name == "metadata.jsonl"  # captions are the user's to mend, before anything is read
            continue
        for text in (problem, *(t for s in samples for t in (s.key, s.error, s.caption, s.url, s.uid))):
            (text or "").encode("utf-8")


def test_edited_captions_are_noticed(tmp_path: Path, images: list[bytes]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for number in range(2):
        (data / f"{number}.jpg").write_bytes(images[number])
    (data / "0.txt").write_text("before")
    (data / "captions.csv").write_text("file_name,caption\n1.jpg,before\n")

    def captions() -> list[str | None]:
        return [row["caption"] for row in run(data, out).manifest.to_pylist()]

    assert captions() == ["before", "before"]
    (data / "captions.csv").write_text("file_name,caption\n1.jpg,after\n")
    assert captions() == ["before", "after"]
    (data / "0.txt").write_text("after!")
    assert captions() == ["after!", "after"]
    (data / "1.txt").write_text("beside")
    assert captions() == ["after!", "beside"]


def test_strict_gives_lost_shards_an_exit_status_of_their_own(tmp_path: Path, images: list[bytes]) -> None:
    write_tar(tmp_path / "data" / "0.tar", [("a.jpg", images[0])])
    arguments = ("run", tmp_path / "data", "--out", tmp_path / "out", "--workers", "1", "--strict", "--json")
    assert command(*arguments).returncode == 0
    (tmp_path / "data" / "1.tar").write_bytes(b"broken")
    done = command(*arguments)
    assert done.returncode == 3, done.stderr
    assert len(json.loads(done.stdout)["shard_problems"]) == 1
    assert isinstance(dk.Run(tmp_path / "out").summary["passed_over"], dict)
