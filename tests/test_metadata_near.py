"""Near conditions over URL lists, against comparing every row with every other."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, one_line
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dedupkit.captions import Folding, words
from dedupkit.clustering import components
from dedupkit.errors import DedupkitError, RuleError
from dedupkit.metadata.conditions import parse_list_rule, reason_of
from dedupkit.workflows.metadata import clean_lists

BASE = 0x0123456789ABCDEF
RULES = [
    "caption>=0.6",
    "image_phash<=4",
    "url or caption>=0.75",
    "image_phash<=4 and caption>=0.5",
    "url or (image_phash<=4 and caption>=0.5)",
    "caption and image_phash<=2 or caption>=0.9 and image_phash<=12",
    "image_phash or caption>=1",
    "(url or caption>=0.5) and (image_phash<=1 or caption)",
    "url and caption>=0.05",
    "hash<=3 or caption and caption>=0.3",
]

urls = st.sampled_from(["http://a/1", "HTTP://A:80/1", "http://a/2", "http://b/3", "no url", "", None])
texts = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "A B", "b  a", "!?", "東京タワー", "&amp;", "\u0000", "🎉"]),
    st.lists(st.sampled_from("abcdefgh"), max_size=6).map(" ".join),
)
hashes = st.one_of(
    st.none(),
    st.sampled_from(["", "zz", "0123", f"{BASE:017x}"]),
    st.lists(st.integers(0, 63), max_size=7).map(lambda bits: f"{BASE ^ sum(1 << bit for bit in set(bits)):016x}"),
    st.just(f" {BASE:016X}\n"),
)


def holds(atom, one, other) -> bool:
    """Whether a condition holds between two rows, by its definition."""
    if atom.signal == "url":
        from dedupkit.metadata import normalize_url

        normal = [row["url"] and (normalize_url(row["url"]) or row["url"]) for row in (one, other)]
        return bool(normal[0]) and normal[0] == normal[1]
    if atom.signal == "caption":
        folded = [Folding()(row["caption"] or "") for row in (one, other)]
        if not all(folded):
            return False
        if atom.bound is None:
            return folded[0] == folded[1]
        a, b = (set(words(text).split()) or {("no word", text)} for text in folded)
        return len(a & b) / len(a | b) >= atom.bound
    values = [(row["image_phash"] or "").strip().lower() for row in (one, other)]
    if atom.bound is None:
        return bool(values[0]) and values[0] == values[1]
    try:
        numbers = [int(value, 16) if len(value) == 16 else None for value in values]
    except ValueError:
        return False
    return None not in numbers and (numbers[0] ^ numbers[1]).bit_count() <= atom.bound


@given(
    st.lists(st.tuples(urls, texts, hashes), min_size=1, max_size=25),
    st.sampled_from(RULES),
    st.sampled_from(["sample", "-sample", "-width, sample"]),
    st.sampled_from([1, 2]),
    st.randoms(use_true_random=False),
)
@example([("http://a/1", "a b", f"{BASE:016x}")] * 3, RULES[4], "sample", 1, None)
@example([("http://a/1", None, None)] * 7 + [("http://a/1", None, "zz")], RULES[4], "sample", 1, None)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_verdicts_are_those_of_comparing_all_with_all(tmp_path_factory, rows, text, keep, workers, random):
    folder = tmp_path_factory.mktemp("near")
    rows = [
        {"url": url, "caption": caption, "image_phash": value, "width": random.randint(1, 3) if random else 1}
        for url, caption, value in rows
    ]
    rows.append({"url": "http://z", "caption": "z", "image_phash": "f" * 16, "width": 1})
    schema = pa.schema([*((name, pa.string()) for name in ("url", "caption", "image_phash")), ("width", pa.int64())])
    cut = len(rows) // 2
    lists = []
    for name, part in (("a", rows[:cut]), ("b", rows[cut:])):
        lists.append(folder / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist(part, schema), lists[-1], row_group_size=4)
    summary = clean_lists(lists, folder / "out", rule=text, keep=keep, workers=workers)
    found = pq.read_table(folder / "out" / "dedupkit" / "manifest.parquet").to_pylist()
    rule = parse_list_rule(text)

    def duplicates(i: int, j: int) -> list[str]:
        return [reason_of(c) for c in rule.clauses if all(holds(atom, rows[i], rows[j]) for atom in c)]

    order = list(range(len(rows)))
    order = order[::-1] if keep == "-sample" else order
    order = sorted(order, key=lambda i: (-rows[i]["width"], i)) if "width" in keep else order
    kept: list[int] = []
    for i in order:
        if not any(duplicates(i, j) for j in kept):
            kept.append(i)
    assert [row["row"] for row in found if row["verdict"] == "keep"] == sorted(kept)
    for row in found:
        if row["verdict"] == "remove":
            assert row["kept_row"] in kept
            assert row["reason"] in duplicates(row["row"], row["kept_row"])
    pairs = [(i, j) for i in range(len(rows)) for j in range(i) if duplicates(i, j)]
    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    assert [row["group"] for row in found] == components(a, b, len(rows)).tolist()
    assert (summary.keep, summary.rows) == (len(kept), len(rows))


def near_table(path, count=3000, **more):
    draw = np.random.default_rng(5)
    captions = [" ".join(f"w{n}" for n in draw.integers(0, 40, draw.integers(1, 6))) for _ in range(count)]
    bits = draw.integers(0, 60, count).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashed = [
        f"{int(value) ^ (1 << int(bit)):016x}" for value, bit in zip(bits, draw.integers(0, 64, count), strict=True)
    ]
    table = {"url": [f"http://a/{n}" for n in range(count)], "caption": captions, "image_phash": hashed, **more}
    pq.write_table(pa.table(table), path, row_group_size=700)
    return path


def test_any_number_of_threads_gives_the_same_bytes(tmp_path):
    table = near_table(tmp_path / "a.parquet")
    outputs = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        clean_lists(table, out, rule="url or (image_phash<=4 and caption>=0.6)", workers=workers)
        outputs.append([path.read_bytes() for path in sorted(out.rglob("*.*"))])
    assert outputs[0] == outputs[1]


def test_a_template_on_many_rows_is_no_list_of_their_pairs(tmp_path):
    count = 60_000
    captions = ["stock photo" if n % 2 else f"stock photo {n}" for n in range(count)]
    pq.write_table(
        pa.table({"url": [f"http://a/{n}" for n in range(count)], "caption": captions}), tmp_path / "a.parquet"
    )
    summary = clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="url or caption>=0.9", memory=100_000_000)
    assert summary.keep == count // 2 + 1
    assert summary.largest_group == count // 2


@pytest.mark.parametrize(
    ("rule", "memory", "said"),
    [
        ("caption>=0.8", 100_000, "3,000 rows need more memory"),
        ("caption>=0.8", 400_000, "different captions need more memory"),
        ("caption>=0.8", 560_000, "the words of .* different captions need more memory"),
        ("caption>=0.05", 5_000_000, "the pairs of caption>=0.05, .* and more, need more memory"),
        ("image_phash<=64", 5_000_000, "the pairs of image_phash<=64"),
        ("url or image_phash<=4", 300_000, "different hashes need more memory"),
    ],
)
def test_more_than_the_memory_is_one_line(tmp_path, rule, memory, said):
    table = near_table(tmp_path / "a.parquet")
    with pytest.raises(DedupkitError, match=said):
        clean_lists(table, tmp_path / "out", rule=rule, memory=memory)
    assert not (tmp_path / "out" / "a.parquet").exists()
    assert clean_lists(table, tmp_path / "out", rule="url").keep == 3000  # a call that failed leaves nothing in the way


def test_the_command_says_in_one_line_what_to_do_about_memory(tmp_path):
    table = near_table(tmp_path / "a.parquet")
    options = ["--to", tmp_path / "out", "--rule", "caption>=0.05", "--memory", "0.005"]
    done = command("metadata", table, *options)
    assert done.returncode == 1
    assert "raise --memory, use a stricter bound, or clean the lists in parts" in one_line(done.stderr)


def test_values_that_are_no_hashes_of_64_bits_are_counted_or_refused(tmp_path):
    values = ["0123456789abcdef", "0123456789abcdee", "zz", None, "0" * 64]
    table = pa.table({"url": [f"http://a/{n}" for n in range(5)], "phash": values, "hash": list(range(5))})
    pq.write_table(table, tmp_path / "a.parquet")
    summary = clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="phash<=1")
    assert (summary.keep, summary.odd_hashes) == (4, {"phash": 2})
    shown = command("metadata", tmp_path / "a.parquet", "--to", tmp_path / "out", "--rule", "phash<=1").stdout
    assert "no 64-bit hashes in phash" in shown
    assert json.loads((tmp_path / "out" / "dedupkit" / "summary.json").read_text())["odd_hashes"] == {"phash": 2}
    with pytest.raises(
        DedupkitError,
        match=r"written as 16 hexadecimal digits; the column hash of .*a\.parquet holds values of type int64",
    ):
        clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="hash<=1")
    pq.write_table(table.select(["url"]).append_column("phash", [["ab", "cd", "e", "f", ""]]), tmp_path / "b.parquet")
    with pytest.raises(DedupkitError, match="holds values such as 'ab'"):
        clean_lists(tmp_path / "b.parquet", tmp_path / "out", rule="phash<=1")


def test_numbers_of_16_digits_are_no_hashes(tmp_path):
    numbers = [10**15 + n for n in range(4)]
    urls = [f"http://a/{n}" for n in range(4)]
    pq.write_table(pa.table({"url": urls, "hash": numbers}), tmp_path / "a.parquet")
    with pytest.raises(DedupkitError, match="hash of .* holds values of type int64 such as '1000000000000000'"):
        clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="hash<=4")
    texts = pa.array([f"{number:016x}" for number in numbers]).dictionary_encode()
    pq.write_table(pa.table({"url": [f"http://b/{n}" for n in range(4)], "hash": texts}), tmp_path / "b.parquet")
    summary = clean_lists(str(tmp_path / "{a,b}.parquet"), tmp_path / "out", rule="hash<=4")
    assert (summary.keep, summary.odd_hashes) == (5, {"hash": 4})


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("caption<=0.8", "'caption' is a similarity: compare it with >="),
        ("caption>=0", "the bound of 'caption' must be from 0.05 to 1"),
        ("image_phash>=4", "'image_phash' is a distance: compare it with <="),
        ("image_phash<=65", "must be from 0 to 64 .bits that differ."),
        ("sha256<=4", "'sha256' holds or does not"),
        ("pdq<=31", r"unknown signal 'pdq'; known: url, .*, phash\n"),
        ("thorough", r"unknown signal 'thorough'; known: url, .*, phash\n"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_at_its_character(rule, said):
    with pytest.raises(RuleError, match=said):
        parse_list_rule(rule)


def test_a_published_hash_is_named_by_its_column(tmp_path):
    table = pa.table({"url": ["a", "b", "c"], "sha256": ["x", "y", "z"], "image_phash": ["0", "0", "1"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="hash").keep == 3
    assert clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="image_phash").keep == 2
    with pytest.raises(DedupkitError, match="no list has such a column .* there are: url, sha256, image_phash"):
        clean_lists(tmp_path / "a.parquet", tmp_path / "out", rule="phash")


def test_rules_print_as_text_that_parses_to_the_same_rule():
    for text in RULES:
        rule = parse_list_rule(text)
        assert parse_list_rule(str(rule)).clauses == rule.clauses
    assert all(one != other for one, other in pairwise(map(str, map(parse_list_rule, RULES))))
