"""URL lists as they come: columns of other types, schemas that differ, values too large, rows that cannot be read."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupkit.errors import DedupkitError
from dedupkit.metadata import keys, outcome, pages, parquet_list
from dedupkit.workflows.metadata import clean_lists

_VIEWS = getattr(pa, "string_view", pa.string), getattr(pa, "binary_view", pa.binary)  # from pyarrow 16 on


def manifest(out):
    return pq.read_table(out / "dedupkit" / "manifest.parquet").to_pylist()


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_rows_beside_a_value_that_is_too_large_are_unreadable_and_the_others_are_cleaned(
    tmp_path, monkeypatch, compression, dictionary, version
):
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 100_000)
    urls = [f"http://a/{n % 400}" for n in range(500)]
    captions = [f"caption {n}" for n in range(500)]
    captions[250] = "long " * 25_000
    pq.write_table(
        pa.table({"url": urls, "caption": captions}), tmp_path / "a.parquet", row_group_size=100,
        compression=compression, use_dictionary=dictionary, data_page_version=version,
    )  # fmt: skip
    summary = clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="url")
    assert (summary.rows, summary.unreadable, summary.remove) == (500, 100, 100)
    (said,) = {row["reason"] for row in manifest(tmp_path / "out") if row["verdict"] == "unreadable"}
    assert said.startswith("row group 2 is not read: column caption has a page of 12")
    assert said.endswith("bytes, more than 100,000 (DEDUPKIT_MAX_PAGE_BYTES)")
    assert pq.read_table(tmp_path / "out" / "a.parquet")["url"].to_pylist() == [*urls[:200], *urls[300:400]]


def test_a_large_row_group_of_small_pages_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 100_000)
    table = pa.table({"url": [f"http://a/{n}" for n in range(9000)], "caption": [f"{n:060d}" for n in range(9000)]})
    pq.write_table(table, tmp_path / "a.parquet", data_page_size=10_000, use_dictionary=False, compression="none")
    assert clean_lists(tmp_path / "a.parquet", tmp_path / "out").keep == 9000


@given(st.integers(1, 60), st.sampled_from([50, 1000, 20_000]), st.booleans(), st.sampled_from(["none", "gzip"]))
@settings(max_examples=40, deadline=None)
def test_page_sizes_are_those_that_the_file_was_written_with(tmp_path_factory, rows, size, dictionary, compression):
    path = tmp_path_factory.mktemp("pages") / "a.parquet"
    texts = [f"{n}" * size for n in range(rows)]
    pq.write_table(
        pa.table({"t": texts, "n": list(range(rows))}), path, use_dictionary=dictionary, compression=compression,
        data_page_size=1, write_batch_size=1, write_page_index=True,
    )  # fmt: skip
    group = pq.read_metadata(path).row_group(0)
    with path.open("rb") as stream:
        for number in range(2):
            chunk = group.column(number)
            found = list(pages._page_sizes(stream, chunk))
            headers = chunk.total_uncompressed_size - sum(found)
            assert (
                0 < headers < 100 * (len(found) + 1) + 4 * max(map(len, texts))
            )  # they hold the least and the largest
    largest = max(len(text) for text in texts) + 4
    assert (pages.oversized_column(path, group, largest - 1) is not None) or dictionary
    assert pages.oversized_column(path, group, 10**9) is None


def test_damaged_page_headers_are_rows_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 1000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": [f"http://a/{n}" for n in range(500)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    data[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    summary = clean_lists(path, tmp_path / "out", rule="url")
    assert summary.unreadable == 500
    assert manifest(tmp_path / "out")[0]["reason"] == "row group 0 is not read: no page header at byte 4"


def test_long_texts_beyond_ascii_are_compared_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "LONG", 100)
    captions = ["É" * 100, "é" * 100, "É" * 100, "É" * 20, "é" * 20]
    pq.write_table(pa.table({"url": list("abcde"), "caption": captions}), tmp_path / "a.parquet")
    clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="caption")
    assert pq.read_table(tmp_path / "out" / "a.parquet")["url"].to_pylist() == ["a", "b", "d"]


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_a_line_that_is_too_long_is_one_line_of_error(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 1000)
    path = tmp_path / f"a.{suffix}"
    comma = "\t" if suffix == "tsv" else ","
    path.write_text(f"url{comma}caption\nhttp://a/1{comma}x\nhttp://a/2{comma}{'y' * 2000}\n")
    with pytest.raises(
        DedupkitError, match=r"line 3 has more than 1,000 bytes .DEDUPKIT_MAX_PAGE_BYTES.; leave it out"
    ):
        clean_lists(path, tmp_path / "out")


def test_numbers_stored_as_floats_are_the_same_hashes(tmp_path):
    for name, kind in (("a", pa.float64()), ("b", pa.int64()), ("c", pa.int32())):
        table = pa.table({"url": [f"http://{name}/{n}" for n in range(3)], "hash": pa.array([7, None, 9], kind)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    summary = clean_lists(str(tmp_path / "{a,b,c}.parquet"), tmp_path / "out", rule="hash")
    assert (summary.remove, summary.unique["hash"], summary.present["hash"]) == (4, 2, 6)
    assert pq.read_schema(tmp_path / "out" / "a.parquet").field("hash").type == pa.float64()


def test_lists_of_other_schemas_are_compared_by_what_they_share(tmp_path):
    pq.write_table(pa.table({"URL": ["http://a/1", "http://a/2"], "TEXT": ["x", None]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"sha256": ["0", "0"], "url": [b"HTTP://A/1", b"http://a/3"]}), tmp_path / "b.parquet")
    (tmp_path / "c.tsv").write_text("a caption\thttp://a/2\n")
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.tsv")]
    summary = clean_lists(paths, tmp_path / "out", rule="url or hash")
    assert [row["verdict"] for row in manifest(tmp_path / "out")] == ["keep", "keep", "remove", "keep", "remove"]
    assert summary.present == {"url": 5, "caption": 2, "hash": 2}
    for path in paths[:2]:
        assert pq.read_schema(tmp_path / "out" / path.name) == pq.read_schema(path)
    assert (tmp_path / "out" / "c.tsv").read_bytes() == b""


def test_column_names_that_come_twice_are_read_by_the_first_and_both_are_written(tmp_path):
    columns = [pa.array(["http://a/1", "http://a/1"]), pa.array(["p", "q"]), pa.array([1, 2])]
    table = pa.Table.from_arrays(columns, names=["url", "url", "extra"])
    pq.write_table(table, tmp_path / "a.parquet")
    clean_lists(tmp_path / "a.parquet", tmp_path / "out")
    found = pq.ParquetFile(tmp_path / "out" / "a.parquet").read()
    assert found.schema == table.schema and found.num_rows == 1


@pytest.mark.parametrize("rule", ["url", "caption", "hash", "url_family", "caption>=0.5", "url or caption and hash"])
@pytest.mark.parametrize(
    "column", [
        pa.array([["a"], ["a"], None]), pa.array([{"x": 1}] * 3), pa.nulls(3), pa.array([True, True, None]),
        pa.array([1.5, 1.5, None]), pa.array(["a", "a", None]).dictionary_encode(), pa.array([b"\xff", b"\xff", None]),
        pa.array([b"ab", b"ab", None], pa.binary(2)), pa.array(["a", "a", None], _VIEWS[0]()),
        pa.array([0, 0, None], pa.timestamp("s")), pa.array([b"a", b"a", None], _VIEWS[1]()),
    ], ids=lambda column: str(column.type).replace(" ", ""),
)  # fmt: skip
def test_columns_of_any_type_are_compared_or_refused_in_one_line(tmp_path, rule, column):
    path = tmp_path / "a.parquet"
    for role in ("url", "caption", "hash"):
        table = {"url": ["x", "y", "z"], "caption": ["x", "y", "z"], "hash": ["x", "y", "z"]} | {role: column}
        try:
            pq.write_table(pa.table(table), path)
        except pa.ArrowException:
            pytest.skip("this version of pyarrow does not write the type")
        try:
            summary = clean_lists(path, tmp_path / "out", rule=rule)
        except DedupkitError as error:
            assert "\n" not in str(error)
            assert role in str(error) and pa.types.is_nested(column.type)
        else:
            assert summary.keep >= 2


@pytest.mark.parametrize(
    ("policy", "kept"), [("-width, sample", [2, 3]), ("-pixels, -width", [1, 3]), ("width, -pixels", [0, 3])]
)
def test_a_keep_policy_names_pixels_and_a_side(tmp_path, policy, kept):
    columns = {"url": ["http://a/1"] * 3 + ["http://a/2"], "width": [1, 2, 3, 1], "height": [1, 4, 2, 1]}
    pq.write_table(pa.table(columns).slice(0, 0), tmp_path / "a.parquet")
    clean_lists(tmp_path / "a.parquet", tmp_path / "none", keep=policy)
    assert manifest(tmp_path / "none") == []
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    clean_lists(str(tmp_path / "{a,b}.parquet"), tmp_path / "out", keep=policy)
    assert [row["row"] for row in manifest(tmp_path / "out") if row["verdict"] == "keep"] == kept


@pytest.mark.parametrize("odd", ["", "n/a", "1,024", "-"])
@pytest.mark.parametrize("kind", ["csv", "large_string", "binary", "dictionary"])
def test_a_cell_that_is_no_number_is_the_only_one_that_a_keep_policy_misses(tmp_path, odd, kind):
    widths = ["10", " 20 ", "2.5e1", odd, "5"]
    urls = ["http://a/1"] * 3 + ["http://a/2"] * 2
    if kind == "csv":
        path = tmp_path / "a.csv"
        path.write_text("url,width\n" + "".join(f'{url},"{width}"\n' for url, width in zip(urls, widths, strict=True)))
    else:
        path = tmp_path / "a.parquet"
        column = pa.array(widths, pa.large_string())
        column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
        pq.write_table(pa.table({"url": urls, "width": column}), path)
    clean_lists(path, tmp_path / "out", rule="url", keep="-width, sample")
    verdicts = [row["verdict"] for row in manifest(tmp_path / "out")]
    assert verdicts == ["remove", "remove", "keep", "remove", "keep"]


def test_relative_and_invalid_urls_are_kept_as_they_are_and_counted(tmp_path):
    odd = ["/relative.jpg", "//host/x", "http://", "http://a b/", "javascript:1", "x" * 5000, "http://[::1", "\u0000"]
    pq.write_table(pa.table({"url": [*odd, None, "", "http://a/1"]}), tmp_path / "a.parquet")
    summary = clean_lists(tmp_path / "a.parquet", tmp_path / "out")
    assert summary.keep == 11
    assert summary.odd_urls == len(odd) - 1  # the scheme javascript is one
    shown = command("metadata", tmp_path / "a.parquet", "--to", tmp_path / "out")
    assert "not URLs by the standard" in shown.stdout


def test_an_empty_list_and_a_list_of_nothing_but_nulls(tmp_path):
    pq.write_table(pa.table({"url": pa.array([], pa.string())}), tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"url": pa.nulls(3, pa.string()), "caption": pa.nulls(3, pa.string())}), tmp_path / "b.parquet"
    )
    for rule in (None, "url or caption>=0.5"):
        summary = clean_lists(str(tmp_path / "{a,b}.parquet"), tmp_path / "out", rule=rule)
        assert (summary.rows, summary.keep) == (3, 3)


def test_a_corrupt_row_group_beside_near_conditions(tmp_path):
    draw = np.random.default_rng(0)
    captions = [" ".join(f"w{n}" for n in draw.integers(0, 9, 3)) for _ in range(400)]
    path = tmp_path / "a.parquet"
    table = pa.table({"url": [f"http://a/{n}" for n in range(400)], "caption": captions})
    pq.write_table(table, path, row_group_size=100, compression="snappy")
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    summary = clean_lists(path, tmp_path / "out", rule="caption>=0.9")
    assert summary.unreadable == 100
    rows = manifest(tmp_path / "out")
    for row in rows:
        if row["verdict"] == "remove":
            assert rows[row["kept_row"]]["verdict"] == "keep"


def test_reasons_of_many_unreadable_rows_are_held_a_block_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "_ROWS", 2_000)
    monkeypatch.setattr(outcome, "group_sizes", lambda group: np.ones(len(group), np.int32))  # compiling takes memory
    rows, broken = 30_000, [(5, 7, "a page"), (3_000, 29_990, "a row group")]
    none = np.full(rows, -1, np.int32)
    verdicts = outcome.Verdicts(none, none.astype(np.int8), np.arange(rows, dtype=np.int32), broken)
    tracemalloc.start()
    outcome.write_manifest(tmp_path / "manifest.parquet", ["a.parquet"], [rows], verdicts, ["url"])
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    reasons = pq.read_table(tmp_path / "manifest.parquet")["reason"].to_pylist()
    assert [rows - reasons.count(None), reasons.count("a page"), reasons.count("a row group")] == [26_992, 2, 26_990]
    assert [reasons[row] for row in (4, 5, 6, 7, 3_000, 29_989, 29_990)] == [
        None, "a page", "a page", None, "a row group", "a row group", None,
    ]  # fmt: skip


def test_rows_before_a_broken_page_of_a_row_group_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_list, "ROWS", 100)
    path = tmp_path / "a.parquet"
    urls = [f"http://a/{n}" for n in range(400)]
    pq.write_table(
        pa.table({"url": urls, "n": range(400)}), path, use_dictionary=False, compression="snappy", data_page_size=1,
        write_batch_size=50,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(0)
    start = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    summary = clean_lists(path, tmp_path / "out", rule="url")
    assert 100 <= summary.unreadable <= 300
    assert pq.read_table(tmp_path / "out" / "a.parquet")["url"].to_pylist() == urls[: -summary.unreadable]


def test_missing_columns_are_named_with_those_that_are_there(tmp_path):
    pq.write_table(pa.table({"link": ["x"], "alt": ["y"]}), tmp_path / "a.parquet")
    done = command("metadata", tmp_path / "a.parquet", "--to", tmp_path / "out")
    assert done.returncode == 1
    assert "has no column of URLs; its columns: link, alt" in one_line(done.stderr)
