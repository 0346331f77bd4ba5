"""URL lists before the download: which rows are duplicates, and that what is written is what img2dataset takes."""

from __future__ import annotations

import json
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, one_line
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dedupkit.captions import Folding
from dedupkit.clustering.classes import class_components, keep_first_of_classes
from dedupkit.errors import DedupkitError, RuleError
from dedupkit.metadata import UrlSteps, grouped, keys, normalize_url, url_family
from dedupkit.metadata.grouping import KeyParts
from dedupkit.metadata.keys import KeySettings, batch_keys
from dedupkit.workflows import metadata
from dedupkit.workflows.metadata import clean_lists


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM:80/a/./b/../c.jpg#top", "http://example.com/a/c.jpg"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com:443/?", "https://example.com/"),
        ("https://example.com/a b.jpg", "https://example.com/a%20b.jpg"),
        ("https://exämple.com/ü.png", "https://xn--exmple-cua.com/%C3%BC.png"),
        ("https://e.com/x.jpg?utm_source=a&utm_medium=b&fbclid=c&gclid=d", "https://e.com/x.jpg"),
        ("https://e.com/x?utm_id=1&id=7&gclid=2&w=100", "https://e.com/x?id=7&w=100"),
        ("https://e.com/x?id=1&uid=2&ref=3&source=4&session=5&cid=6", "https://e.com/x?id=1&uid=2&ref=3&source=4&session=5&cid=6"),
        ("https://e.com/x?xutm_a=1&notgclid=2", "https://e.com/x?xutm_a=1&notgclid=2"),
        ("//e.com/x.jpg", None),
        ("x.jpg", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_normal_form_of_a_url(url, expected):
    assert normalize_url(url) == expected


def test_each_step_can_be_switched_off():
    url = "HTTP://E.com/x?utm_source=a#b"
    assert normalize_url(url, UrlSteps(trackers=False)) == "http://e.com/x?utm_source=a"
    assert normalize_url(url, UrlSteps(fragment=False)) == "http://e.com/x#b"
    assert normalize_url(url, UrlSteps(standard=False)) == "HTTP://E.com/x"
    for steps in (UrlSteps(), UrlSteps(False, True, False)):
        assert UrlSteps.parse(str(steps)) == steps
    with pytest.raises(ValueError, match="unknown step 'sort'; known: standard, fragment, trackers"):
        UrlSteps.parse("sort")


def test_the_family_of_a_url_is_without_its_sizes():
    sizes = [
        "https://e.com/300x200/cat.jpg?id=7",
        "https://e.com/cat-150x150.jpg?w=5&id=7&q=80",
        "https://e.com/cat.jpg?id=7&height=9",
    ]
    assert {url_family(url) for url in sizes} == {"https://e.com/cat.jpg?id=7"}
    assert url_family("https://e.com/cat.jpg?id=8") != url_family(sizes[0])


def url_keys(urls, steps=None, *, slowly=False):
    """Keys with the compiled loop, or without it."""
    column = pa.array(urls, pa.large_string())
    settings_ = KeySettings(steps or UrlSteps())
    if not slowly:
        found = batch_keys({"url": column}, len(urls), [("url",)], settings_)[0]
    else:
        data, offsets, valid = keys._buffers(column)
        found = keys._nothing(len(urls))
        found.state[valid & (np.diff(offsets) > 0)] = keys.SLOW
        keys._finish(found, data, offsets, lambda text: normalize_url(text, settings_.urls) or text)
    return [
        tuple(key) if state else None for key, state in zip(found.hashes.tolist(), found.state.tolist(), strict=True)
    ]


pieces = st.sampled_from([
    *"/.?#&=%:@!$'()*+,;~-_[]{}|^`\\<>\" aZ09é", "http://", "https://", "HTTP://", "example.com", ".co.uk", "xn--",
    "/../", "/./", "%2e", "%2E/", "?utm_source=", "&gclid", "&gclid=1", "&id=3", "fbclid=", ":80", ":443", "1.2.3.4",
    "0x7f",
])  # fmt: skip
addresses = st.builds(
    lambda scheme, parts: scheme + "".join(parts),
    st.sampled_from(["http://", "https://", "http://e.com/", "https://a.b/x?"]),
    st.lists(pieces, max_size=10),
)


@given(addresses, st.booleans(), st.booleans())
@example("http://e.com?", True, True)
@example("http://e.com/?&", True, True)
@example("http://e.com/?&gclid=1&", True, True)
@example("http://e.com/?=&a=b=c&utm_=", True, True)
@settings(max_examples=1500, deadline=None)
def test_the_compiled_loop_agrees_with_the_standard_parser(url, fragment, trackers):
    steps = UrlSteps(fragment=fragment, trackers=trackers)
    assert url_keys([url], steps) == url_keys([url], steps, slowly=True)


@given(st.lists(st.text(max_size=20), max_size=8), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_captions_are_equal_exactly_if_their_folded_texts_are(texts, casefold, spaces):
    folding = Folding(casefold=casefold, spaces=spaces)
    texts = [*texts, *(text.upper() for text in texts), *(f" {text}\t" for text in texts)]
    try:
        column = pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return
    found = batch_keys({"caption": column}, len(texts), [("caption",)], KeySettings(captions=folding))[0]
    folded = [folding(text) for text in texts]
    assert found.state.tolist() == [bool(text) for text in folded]
    for one, a in enumerate(folded):
        for other, b in enumerate(folded):
            if a and b:
                assert (found.hashes[one].tolist() == found.hashes[other].tolist()) == (a == b)


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_keep_set_of_classes_is_that_of_the_graph(rows, random):
    from dedupkit.clustering import components, keep_set

    labels = np.full((3, len(rows)), -1, np.int32)
    for kind in range(3):
        first: dict[int, int] = {}
        for row, values in enumerate(rows):
            if values[kind] < 4:
                labels[kind, row] = first.setdefault(values[kind], row)
    order = list(range(len(rows)))
    random.shuffle(order)
    witness, kind = keep_first_of_classes(labels, np.array(order, np.int64))
    pairs = [
        (a, b) for a in range(len(rows)) for b in range(a) if any(labels[k, a] == labels[k, b] >= 0 for k in range(3))
    ]
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    kept, _ = keep_set(a, b, np.array(order, np.int64))
    assert (witness < 0).tolist() == kept.tolist()
    for row in np.flatnonzero(witness >= 0).tolist():
        assert labels[kind[row], row] == labels[kind[row], witness[row]] >= 0
        assert kept[witness[row]]
    assert class_components(labels).tolist() == components(a, b, len(rows)).tolist()


ROWS = [
    # url, caption, hash
    ("http://a.com/1.jpg", "A cat", 5),
    ("HTTP://A.com:80/1.jpg?utm_source=x", "a  CAT", 6),
    ("http://a.com/2.jpg", "A dog", 6),
    ("http://a.com/3.jpg", None, None),
    (None, "a cat", 7),
    ("no url", "x", None),
    ("no url", "y", 8),
]


@pytest.fixture
def table(tmp_path):
    urls, captions, hashes = (list(column) for column in zip(*ROWS, strict=True))
    content = pa.table(
        {"TEXT": captions, "extra": list(range(len(ROWS))), "URL": urls, "hash": pa.array(hashes, pa.float64())}
    )
    path = tmp_path / "in" / "part.parquet"
    path.parent.mkdir()
    pq.write_table(content.replace_schema_metadata({"made": "by us"}), path, row_group_size=3, compression="snappy")
    return path


@pytest.mark.parametrize(
    ("rule", "keep", "expected"),
    [
        (None, "sample", [0, 2, 3, 4, 5]),
        ("url", "sample", [0, 2, 3, 4, 5]),
        ("hash", "sample", [0, 1, 3, 4, 5, 6]),
        ("url or hash", "sample", [0, 2, 3, 4, 5]),
        ("url or hash", "-sample", [2, 3, 4, 6, 0]),
        ("caption", "sample", [0, 2, 3, 5, 6]),
        ("url and caption", "sample", [0, 2, 3, 4, 5, 6]),
        ("url and caption or hash", "sample", [0, 2, 3, 4, 5, 6]),
    ],
)
def test_rows_are_kept_by_a_rule(table, tmp_path, rule, keep, expected):
    summary = clean_lists(table, tmp_path / "out", rule=rule, keep=keep)
    written = pq.read_table(tmp_path / "out" / "part.parquet")
    before = pq.read_table(table)
    assert written.schema.equals(before.schema, check_metadata=True)
    assert written["extra"].to_pylist() == sorted(expected)
    manifest = pq.read_table(tmp_path / "out" / "dedupkit" / "manifest.parquet").to_pylist()
    assert [row["row"] for row in manifest] == list(range(len(ROWS)))
    for row in manifest:
        assert (row["verdict"] == "keep") == (row["row"] in expected)
        if row["verdict"] == "remove":
            assert manifest[row["kept_row"]]["verdict"] == "keep"
            assert row["kept_file"] == str(table)
            assert row["kept_file_row"] == row["kept_row"]
            assert row["reason"] in (rule or "url or hash")
    assert summary.keep + summary.remove == summary.rows == len(ROWS)
    assert json.loads((tmp_path / "out" / "dedupkit" / "summary.json").read_text())["keep"] == summary.keep


def test_the_summary_counts_what_is_unique(table, tmp_path):
    summary = clean_lists(table, tmp_path / "out")
    assert (summary.present, summary.unique) == (
        {"url": 6, "hash": 5, "caption": 6},
        {"url": 4, "hash": 4, "caption": 4},
    )
    assert summary.odd_urls == 2


@pytest.mark.parametrize("kind", ["string", "binary", "dictionary"])
def test_columns_of_any_type_of_text(tmp_path, kind):
    urls = ["http://a.com/1", "http://a.com/2", "http://a.com/1", None]
    column = pa.array(urls) if kind == "string" else pa.array([u and u.encode() for u in urls])
    column = pa.array(urls).dictionary_encode() if kind == "dictionary" else column
    pq.write_table(pa.table({"url": column}), tmp_path / "a.parquet")
    clean_lists(tmp_path / "a.parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "a.parquet").num_rows == 3


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(("suffix", "mark"), [("tsv", ""), ("csv", ""), ("tsv", "\ufeff"), ("csv", "\ufeff")])
def test_text_files_keep_their_lines_byte_for_byte(tmp_path, header, suffix, mark):
    comma = "\t" if suffix == "tsv" else ","
    quoted = '"two\nlines, ""quoted"""' if suffix == "csv" else "plain"
    lines = [
        f"a cat{comma}http://a.com/1\r\n",
        f"{quoted}{comma}http://a.com/2\n",
        f"again{comma}http://a.com/1#x\n",
        "torn\n",
    ]
    top = f"{mark}caption{comma}url\n" if header else mark
    path = tmp_path / f"list.{suffix}"
    path.write_bytes((top + "".join(lines)).encode())
    summary = clean_lists(path, tmp_path / "out")
    assert (tmp_path / "out" / path.name).read_bytes() == (top + "".join([lines[0], lines[1], lines[3]])).encode()
    assert (summary.rows, summary.keep, summary.present["caption"]) == (4, 3, 4)


def test_many_lists_are_compared_with_one_another_and_any_number_of_threads_gives_the_same_bytes(tmp_path):
    draw = np.random.default_rng(2)
    for number in range(4):
        urls = [f"https://site{n % 7}.com/{n}.jpg" for n in draw.integers(0, 3000, 2000)]
        captions = [f"caption {n}" for n in draw.integers(0, 900, 2000)]
        pq.write_table(pa.table({"url": urls, "caption": captions}), tmp_path / f"{number}.parquet", row_group_size=300)
    outputs = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        summary = clean_lists(str(tmp_path / "{0..3}.parquet"), out, rule="url or caption", workers=workers)
        files = sorted(path.relative_to(out) for path in out.rglob("*.parquet"))
        outputs.append([(out / path).read_bytes() for path in files])
        assert summary.files == 4
    assert outputs[0] == outputs[1]
    rows = [row for number in range(4) for row in pq.read_table(tmp_path / f"{number}.parquet").to_pylist()]
    kept = [row for number in range(4) for row in pq.read_table(tmp_path / "out1" / f"{number}.parquet").to_pylist()]
    urls, captions, expected = set(), set(), []
    for row in rows:
        if row["url"] not in urls and row["caption"] not in captions:
            expected.append(row)
            urls.add(row["url"])
            captions.add(row["caption"])
    assert kept == expected


def test_a_corrupt_row_group_is_rows_with_the_reason(table, tmp_path):
    data = bytearray(table.read_bytes())
    start = pq.ParquetFile(table).metadata.row_group(1).column(2).data_page_offset
    data[start : start + 40] = bytes(40)
    table.write_bytes(data)
    summary = clean_lists(table, tmp_path / "out", rule="url")
    assert summary.unreadable == 3 and summary.rows == len(ROWS)
    manifest = pq.read_table(tmp_path / "out" / "dedupkit" / "manifest.parquet").to_pylist()
    broken = [row for row in manifest if row["verdict"] == "unreadable"]
    assert [row["row"] for row in broken] == [3, 4, 5]
    assert broken[0]["reason"].startswith("row group 1 cannot be read")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"address": ["x"]}, "no column of URLs; its columns: address"),
        ({}, "no column of URLs; its columns: none"),
    ],
)
def test_a_list_without_urls_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DedupkitError, match=message):
        clean_lists(tmp_path / "a.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_one_line(table, tmp_path):
    (tmp_path / "odd.doc").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    for arguments, message in [
        (["metadata", tmp_path / "gone.parquet", "--to", tmp_path / "o"], "no such file"),
        (["metadata", tmp_path / "odd.doc", "--to", tmp_path / "o"], "cannot tell the format"),
        (["metadata", table, "--to", table.parent], "choose another --to"),
        (["metadata", table, "--to", tmp_path / "full"], "is not empty and was not written by this command"),
        (
            [
                "metadata",
                table,
                table.with_name("part.parquet"),
                tmp_path / "x" / "part.parquet",
                "--to",
                tmp_path / "o",
            ],
            "no such file",
        ),
    ]:
        done = command(*arguments)
        assert done.returncode == 1, done.stderr
        assert message in one_line(done.stderr)
    assert (tmp_path / "full" / "mine.txt").read_text() == "x"
    with pytest.raises(RuleError, match="unknown signal 'pdq'"):
        clean_lists(table, tmp_path / "o", rule="pdq")
    for column in ("nbytes", "aesthetic"):
        with pytest.raises(RuleError, match=f"'{column}' in the keep policy; known: pixels, width, height, clip"):
            clean_lists(table, tmp_path / "o", keep=f"-{column}")
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "plain.parquet")
    with pytest.raises(DedupkitError, match="the rule names hash, but no list has such a column"):
        clean_lists(tmp_path / "plain.parquet", tmp_path / "o", rule="hash")


def test_calls_at_once_share_a_folder_for_what_is_temporary(table, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    group, inner = grouped.group_rows, []

    def group_beside(*arguments):
        monkeypatch.setattr(grouped, "group_rows", group)
        inner.append(clean_lists(other, tmp_path / "b", temporary=tmp_path / "temporary"))
        return group(*arguments)

    other = tmp_path / "other.csv"
    other.write_text("url\nhttp://b.com/1\nhttp://b.com/1\n")
    monkeypatch.setattr(grouped, "group_rows", group_beside)
    assert clean_lists(table, tmp_path / "a", temporary=tmp_path / "temporary").keep == 5
    assert inner[0].keep == 1
    assert list((tmp_path / "temporary").iterdir()) == []


def test_calls_at_once_into_one_folder_are_refused(table, tmp_path, monkeypatch):
    group, refused = grouped.group_rows, []

    def group_beside(*arguments):
        with pytest.raises(DedupkitError, match="another process is writing into .*choose another --to") as error:
            clean_lists(table, tmp_path / "out", rule="caption")
        refused.append(error)
        return group(*arguments)

    monkeypatch.setattr(grouped, "group_rows", group_beside)
    assert clean_lists(table, tmp_path / "out", rule="url").rule == "url"
    assert len(refused) == 1
    assert json.loads((tmp_path / "out" / "dedupkit" / "summary.json").read_text())["rule"] == "url"


def test_many_rows_open_few_files(tmp_path):
    with KeyParts(tmp_path / "keys", 2**31) as parts:
        assert len(list((tmp_path / "keys").iterdir())) <= 128
        hashes, labels = np.arange(12, dtype=np.uint64).reshape(6, 2) % 4 << np.uint64(62), np.full(6, -1, np.int32)
        parts.add(hashes, np.ones(6, np.uint8), 0)
        assert parts.label(labels) == 2
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_summary_that_someone_changed_removes_nothing_elsewhere(table, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    clean_lists(table, tmp_path / "out", rule="url")
    summary = tmp_path / "out" / "dedupkit" / "summary.json"
    summary.write_text(json.dumps({"lists": ["../mine.txt", str(tmp_path / "mine.txt"), "part.parquet"]}))
    clean_lists(table, tmp_path / "out", rule="url")
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_the_same_call_again_replaces_its_own_files_alone(table, tmp_path):
    clean_lists(table, tmp_path / "out", rule="url")
    clean_lists(table, tmp_path / "out", rule="caption")
    assert pq.read_table(tmp_path / "out" / "part.parquet")["extra"].to_pylist() == [0, 2, 3, 5, 6]
    (tmp_path / "out" / "foreign.txt").write_text("x")
    with pytest.raises(DedupkitError, match="is not empty"):
        clean_lists(table, tmp_path / "out", rule="url")


def test_a_call_with_other_lists_goes_on_after_an_interruption(table, tmp_path, monkeypatch):
    clean_lists(table, tmp_path / "out", rule="url")
    other = table.rename(table.with_name("other.parquet"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(metadata, "_summarize", Mock(side_effect=KeyboardInterrupt))
        clean_lists(other, tmp_path / "out", rule="url")
    assert (tmp_path / "out" / "other.parquet").exists()
    clean_lists(other, tmp_path / "out", rule="caption")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dedupkit", "other.parquet"]


def test_the_command_prints_a_summary_and_json(table, tmp_path):
    done = command("metadata", table, "--to", tmp_path / "out")
    assert "unique URLs" in done.stdout and "  because of url" in done.stdout
    summary = json.loads(command("metadata", table, "--to", tmp_path / "out", "--json").stdout)
    assert summary["rows"] == len(ROWS)
    assert command("metadata", table, "--to", tmp_path / "out", "--url-steps", "sort").returncode == 2
