"""Files of dedupkit's own: whole or not at all, and damage is noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import jpegs, run, snapshot, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dedupkit.errors import DamagedError, DedupkitError
from dedupkit.store import (
    Bucket,
    Mirror,
    atomic_path,
    count_rows,
    expand_braces,
    file_state,
    give_back_pages,
    in_blocks,
    is_intact,
    local_path,
    on_disk,
    read_columns,
    read_sealed,
    refuse_inside,
    write_sealed,
    write_table,
    write_tables,
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = pa.table({"key": [os.urandom(8).hex() for _ in range(500)], "number": list(range(500))})
    write_table(tmp_path / "table.parquet", rows)
    return tmp_path / "table.parquet"


def test_a_byte_that_flips_in_a_page_is_noticed(table: Path) -> None:
    good = table.read_bytes()
    end = read_columns(table).num_rows and good.rindex(b"PAR1") - int.from_bytes(good[-8:-4], "little")
    noticed = 0
    for place in range(4, end, 211):
        table.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            read_columns(table)
        except DamagedError as error:
            assert str(table) in str(error)
            noticed += 1
    assert noticed > 0.9 * len(range(4, end, 211))  # what remains are words in page headers that nobody reads


@pytest.mark.parametrize("damage", ["missing", "empty", "zero", "cut", "folder"])
def test_a_table_that_is_damaged_is_named(table: Path, damage: str) -> None:
    good = table.read_bytes()
    table.unlink()
    if damage == "folder":
        table.mkdir()
    elif damage != "missing":
        table.write_bytes({"empty": b"", "zero": bytes(len(good)), "cut": good[:-20]}[damage])
    for read in (read_columns, count_rows, lambda path: read_columns(path, where=[("number", "=", 3)])):
        with pytest.raises(DamagedError, match=r"table\.parquet is (missing|damaged)"):
            read(table)


def test_a_column_that_is_not_there_is_damage(table: Path) -> None:
    with pytest.raises(DamagedError, match="no column score"):
        read_columns(table, ["key", "score"])


def test_a_sealed_record_is_read_only_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert read_sealed(path) is None
    write_sealed(path, {"rule": "pdq<=31", "names": ["é"]})
    assert read_sealed(path) == {"rule": "pdq<=31", "names": ["é"]}
    for text in (path.read_text().replace("31", "21"), "{", "[]", "{}", json.dumps({"rule": "pdq<=31"})):
        path.write_text(text)
        assert read_sealed(path) is None


def test_a_file_vouched_for_is_known_by_size_and_contents(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    path.write_bytes(b"12345")
    state = file_state(path)
    assert is_intact(path, state)
    path.write_bytes(b"12354")
    assert not is_intact(path, state)
    assert is_intact(path, state, whole_up_to=4)
    path.write_bytes(b"1234")
    assert not is_intact(path, state, whole_up_to=4)
    path.unlink()
    assert not is_intact(path, state)
    path.mkdir()
    assert not is_intact(path, state)


def test_a_file_replaces_a_folder_that_lies_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "file" / "deep").mkdir(parents=True)
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "x"


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="half"), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("ne")
        raise ValueError("half")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["../../../victim/evil", "sub/../evil", "/etc/evil", "./evil", "a//evil"])
def test_an_object_whose_name_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    home = tmp_path / "deep" / "scratch" / "copy" / "folder"
    home.mkdir(parents=True)
    before = snapshot(tmp_path)
    try:
        memory.pipe(f"/runs/one/{name}", b"x")
        mirror = Mirror(home, "memory://runs/one")
        with pytest.raises(DedupkitError, match=r"evil is no path below memory://runs/one; remove it"):
            mirror.pull()
        assert snapshot(tmp_path) == before
    finally:
        memory.rm("/runs", recursive=True)


def test_a_store_that_ignores_the_condition_of_a_put_keeps_what_was_put_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    put = type(memory).pipe_file

    def ignoring(self: Any, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        put(self, path, value)

    monkeypatch.setattr(type(memory), "pipe_file", ignoring)
    bucket = Bucket("memory://claims/run")
    try:
        assert bucket.create("0", b"rank 0")
        assert not bucket.create("0", b"rank 1")
        assert bucket.read("0") == b"rank 0"
    finally:
        memory.rm("/claims", recursive=True)


# Paths --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://{}", "local://{}", "{}/", "{}/../data", "{}/./"])
def test_nothing_is_written_into_a_source_however_it_is_spelled(
    tmp_path: Path, photos: dict[str, Image.Image], form: str
) -> None:
    data = tmp_path / "data"
    write_tar(data / "0.tar", [("a.jpg", image) for image in jpegs(photos, 1)])
    source = form.format(data)
    (tmp_path / "link").symlink_to(data)
    before = snapshot(data)
    for out in (data / "out", data, tmp_path / "link" / "out", tmp_path / "other" / ".." / "data" / "x"):
        with pytest.raises(DedupkitError, match=r"lies inside the source .*choose a folder outside"):
            run(source, out)
    assert snapshot(data) == before
    finished = run(source, tmp_path / "run")
    (named,) = finished.manifest["source"].to_pylist()
    assert os.path.samefile(named, data / "0.tar")
    assert local_path(source) == local_path(local_path(source) or "")
    with pytest.raises(DedupkitError, match="lies inside the source"):
        finished.apply(data / "clean")
    assert snapshot(data) == before


@pytest.mark.parametrize("form", ["simplecache::file://{}", "zip://*.jpg::file://{}", "dir::local://{}"])
def test_a_url_chained_to_a_local_folder_is_a_source_too(tmp_path: Path, form: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DedupkitError, match="lies inside the source"):
        refuse_inside(tmp_path / "data" / "out", [form.format(tmp_path / "data")])
    refuse_inside(tmp_path / "out", [form.format(tmp_path / "data")])


def test_folders_that_are_called_like_a_pattern_are_themselves(tmp_path: Path) -> None:
    for name in ("{x}", "{a,b}", "a", "b", "{1..2}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00.tar").touch()
    root = str(tmp_path)
    assert expand_braces(f"{root}/{{x}}") == [f"{root}/{{x}}"]
    assert expand_braces(f"{root}/{{a,b}}/{{00..01}}.tar") == [f"{root}/{{a,b}}/00.tar", f"{root}/{{a,b}}/01.tar"]
    assert expand_braces(f"{root}/{{b,a}}/00.tar") == [f"{root}/b/00.tar", f"{root}/a/00.tar"]
    assert expand_braces(f"{root}/{{y}}") == [f"{root}/{{y}}"]
    assert expand_braces("a{b") == ["a{b"]
    assert expand_braces("{08..11}{a,b}")[:3] == ["08a", "08b", "09a"]
    with pytest.raises(DedupkitError, match="more than 10,000,000 paths"):
        expand_braces("{0..99999999999}")


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50),
    dtype=st.sampled_from([np.int8, np.int32, np.float32]),
    rows=st.integers(1, 60),
    low=st.integers(0, 60),
)
def test_an_array_on_disk_is_the_array_however_often_its_pages_are_given_back(
    values: list[int], dtype: type[Any], rows: int, low: int
) -> None:
    array = np.array(values, np.int64).astype(dtype)
    there = on_disk(array)
    assert there.dtype == array.dtype
    for part, expected in ((there, array), (there[low:], array[low:])):
        for _ in range(2):
            blocks = list(in_blocks(part, rows))
            assert [first for first, _ in blocks] == list(range(0, len(expected), rows))
            np.testing.assert_array_equal(np.concatenate([expected[:0], *(block for _, block in blocks)]), expected)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux says what is resident")
def test_pages_of_an_array_on_disk_are_given_back() -> None:
    def resident() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))

    there = on_disk(np.arange(4 << 20, dtype=np.int64))  # 32 MiB
    assert int(there.sum()) == (4 << 20) * ((4 << 20) - 1) // 2
    before = resident()
    give_back_pages(there[5:])
    assert before - resident() > 24 << 20
    assert there[-1] == (4 << 20) - 1


_NUMBERS = pa.schema([("n", pa.int64())], {"about": "numbers"})


def _numbers(*values: int) -> pa.Table:
    return pa.table([list(values)], schema=pa.schema([("n", pa.int64())]))


def test_tables_are_written_in_order_with_the_metadata_of_the_file(tmp_path: Path):
    path = tmp_path / "numbers.parquet"
    tables = [_numbers(1, 2), _numbers(), _numbers(3)]
    assert [table.num_rows for table in write_tables(path, _NUMBERS, iter(tables))] == [2, 0, 1]
    written = pq.read_table(path)
    assert written["n"].to_pylist() == [1, 2, 3]
    assert written.schema.metadata[b"about"] == b"numbers"


def test_no_file_appears_where_a_table_cannot_be_made_or_written(tmp_path: Path):
    def breaks():
        yield _numbers(1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(write_tables(tmp_path / "made.parquet", _NUMBERS, breaks()))
    other = pa.table({"m": ["text"]})
    with pytest.raises(ValueError, match="schema"):
        list(write_tables(tmp_path / "written.parquet", _NUMBERS, [_numbers(1), other, _numbers(2)]))
    for _ in write_tables(tmp_path / "left.parquet", _NUMBERS, [_numbers(1), _numbers(2)]):
        break
    assert not list(tmp_path.iterdir())
