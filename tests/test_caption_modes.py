"""What a run does with captions beside images, and what cleaned shards carry of them."""

from __future__ import annotations

import csv
import json
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, jpegs, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st

import dedupkit as dk
from dedupkit.captions.modes import CaptionMode
from dedupkit.errors import DedupkitError, RuleError
from dedupkit.signals.matches import Matches

SAMPLES = [
    ("a0", 0, "A red fox"),
    ("a1", 0, "a red  FOX"),
    ("a2", 0, "Two foxes in the snow"),
    ("a3", 0, None),
    ("b0", 1, "stock photo"),
    ("b1", 1, "b"),
    ("c0", 2, "stock photo"),
    ("d0", 3, "Stock Photo"),
    ("e0", 4, "e"),
]


def members(photos, samples=SAMPLES, with_json=()):
    images = jpegs(photos, 1 + max(image for _, image, _ in samples))
    found = []
    for key, image, caption in samples:
        found.append((f"{key}.jpg", images[image]))
        if key in with_json:
            found.append((f"{key}.json", json.dumps({"caption": caption, "url": f"http://x/{key}"}).encode()))
        if caption is not None:
            found.append((f"{key}.txt", caption.encode()))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos):
    return write_tar(tmp_path_factory.mktemp("modes") / "in.tar", members(photos, with_json=("a0", "b0")))


def run(source, out, captions, rule="exact"):
    return dk.dedup(source, out, rule=rule, keep="sample", captions=captions)


def cleaned(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {info.name: tar.extractfile(info).read() for info in tar}
    return found


@pytest.mark.parametrize("text", ["ignore", "pair>=0.8", "merge", "template>10:list", "template>3:drop"])
def test_a_mode_reads_back_as_it_is_written(text):
    assert str(CaptionMode.parse(text)) == text
    assert str(CaptionMode.parse("pair")) == "pair>=0.8"


@pytest.mark.parametrize("text", ["", "pairs", "pair>=2", "pair>=0", "merge:drop", "template>x", "template:burn"])
def test_another_text_is_refused_with_the_forms(text):
    with pytest.raises(RuleError, match="write one of: ignore, pair"):
        CaptionMode.parse(text)


def test_pair_keeps_one_image_under_each_caption(source, tmp_path):
    found = run(source, tmp_path / "run", "pair", rule="copies")
    assert found.kept["key"].to_pylist() == ["a0", "a2", "a3", "b0", "b1", "c0", "d0", "e0"]
    assert found.config["rule"] == "copies"
    assert found.config == found.decide("copies").config == found.decide(keep="sample").config
    again = found.rethreshold("exact or pdq<=20")  # the mode stays
    assert again.kept["key"].to_pylist() == found.kept["key"].to_pylist()


def test_merge_gives_a_kept_sample_the_captions_of_those_that_it_stands_for(source, tmp_path):
    found = run(source, tmp_path / "run", "merge")
    rows = {row["key"]: row["captions"] for row in found.manifest.to_pylist()}
    assert rows["a0"] == [{"caption": "A red fox", "count": 2}, {"caption": "Two foxes in the snow", "count": 1}]
    assert rows["b0"] == [{"caption": "stock photo", "count": 1}, {"caption": "b", "count": 1}]
    assert all(rows[key] is None for key in ("a1", "a2", "a3", "b1", "c0", "e0"))
    found.apply(tmp_path / "clean")
    files = cleaned(tmp_path / "clean")
    assert json.loads(files["a0.json"])["captions"] == ["A red fox", "Two foxes in the snow"]
    assert json.loads(files["a0.json"])["url"] == "http://x/a0"
    assert files["a0.txt"] == b"A red fox"
    assert "captions" not in json.loads(files["e0.json"])


def test_a_kept_sample_whose_copies_say_what_it_says_carries_no_other_caption(tmp_path, photos):
    samples = [("a0", 0, "a"), ("a1", 0, "A"), ("a2", 0, None), ("b0", 1, None), ("b1", 1, "b")]
    found = run(write_tar(tmp_path / "in.tar", members(photos, samples)), tmp_path / "run", "merge")
    rows = {row["key"]: row["captions"] for row in found.kept.to_pylist()}
    assert rows == {"a0": [{"caption": "a", "count": 2}], "b0": [{"caption": "b", "count": 1}]}
    assert found.summary["captions"]["changed"] == 1


def test_one_caption_can_be_drawn_for_each_sample_the_same_for_a_seed(tmp_path, photos):
    texts = ["one", "one", "one", "two"]
    samples = [(f"{image}{number}", image, text) for image in range(8) for number, text in enumerate(texts)]
    samples += [("w0", 8, None), ("w1", 8, "three"), ("x0", 9, None), ("x1", 9, "four")]
    source = write_tar(tmp_path / "in.tar", members(photos, samples, with_json=("x0",)))
    found = run(source, tmp_path / "run", "merge")
    drawn = []
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        found.apply(tmp_path / name, caption_seed=seed)
        drawn.append({key: text for key, text in cleaned(tmp_path / name).items() if key.endswith(".txt")})
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0].values()) | set(drawn[2].values()) == {b"one", b"two", b"three"}
    assert drawn[0]["w0.txt"] == b"three"  # which the kept sample did not have itself
    stated = {name: json.loads(data) for name, data in cleaned(tmp_path / "a").items() if name.endswith("json")}
    assert [stated[name]["caption"] for name in ("w0.json", "x0.json")] == ["three", "four"]
    found.apply(tmp_path / "parquet", format="parquet", caption_seed=1)
    table = pq.read_table(tmp_path / "parquet" / "00000.parquet")
    assert table["captions"].to_pylist() == [["one", "two"]] * 8 + [["three"], ["four"]]
    assert [text.encode() for text in table["caption"].to_pylist()] == [*drawn[0].values(), b"four"]


def test_a_drawn_caption_fills_a_column_that_is_null(tmp_path, photos):
    columns = {"jpg": jpegs(photos, 1) * 2, "caption": pa.nulls(2, pa.string()), "TEXT": [None, "a fox"]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", tmp_path / "run", "merge").apply(tmp_path / "clean", caption_seed=1)
    files = cleaned(tmp_path / "clean")
    assert files["00000000.txt"] == b"a fox"
    assert json.loads(files["00000000.json"])["caption"] == "a fox"


def test_frequent_captions_are_listed(source, tmp_path):
    found = run(source, tmp_path / "run", "template>2")
    templates = pq.read_table(tmp_path / "run" / "templates.parquet").to_pylist()
    assert templates == [{"caption": "stock photo", "count": 3}]
    assert found.summary["captions"]["templates"] == 1
    run(source, tmp_path / "run", "ignore")
    assert not (tmp_path / "run" / "templates.parquet").exists()


def test_frequent_captions_of_kept_samples_can_be_blanked(photos, tmp_path):
    samples = [*SAMPLES, ("b2", 1, "stock photo")]
    files = [*members(photos, samples, with_json=("a0", "b0")), ("f0.jpg", b"no image"), ("f0.txt", b"stock photo")]
    found = run(write_tar(tmp_path / "in.tar", files), tmp_path / "run", "template>2:blank")
    assert {row["key"] for row in found.manifest.to_pylist() if row["captions"] == []} == {"b0", "c0", "d0"}
    assert found.summary["captions"]["changed"] == 3
    found.apply(tmp_path / "clean")
    files = cleaned(tmp_path / "clean")
    assert files["c0.txt"] == b"" and files["a0.txt"] == b"A red fox"
    assert json.loads(files["b0.json"])["caption"] == ""


@pytest.fixture(scope="module")
def listed(tmp_path_factory, photos):
    """A Parquet file with captions in lists and under several names: a and b show the same, c and d are others."""
    images = jpegs(photos, 3)
    columns = {
        "key": ["a", "b", "c", "d"],
        "status": ["success"] * 4,
        "jpg": [images[0], *images],
        "caption": [["a fox", "a red fox"], ["two foxes"], ["stock photo"], ["stock photo", "more"]],
        "captions": ["from a", "from b", "from c", "from d"],
        "text": pa.array([None, None, [{"x": 1}], []], pa.list_(pa.struct([("x", pa.int64())]))),
    }
    path = tmp_path_factory.mktemp("listed") / "in.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_captions_in_lists_are_blanked_and_drawn_under_every_name(listed, tmp_path, format):
    names = ["caption", "captions", "text"]
    ours = {"webdataset": names, "parquet": ["caption_in_source", *names[1:]]}[format]
    blanked = run(listed, tmp_path / "run", "template>1:blank")
    rows = applied(blanked, tmp_path / "blank", format)
    assert [[row[name] for name in ours] for row in rows.values()] == [
        [["a fox", "a red fox"], "from a", None],
        [[], "", []],
        [[], "", []],
    ]
    merged = run(listed, tmp_path / "run", "merge")
    for seed in range(4):
        row = applied(merged, tmp_path / f"seed{seed}", format, caption_seed=seed)["a"]
        (drawn,) = row[ours[0]]
        assert drawn in ("a fox", "two foxes") and row["captions_in_source"] == drawn
        assert row["captions"] == ["a fox", "two foxes"]


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_merged_captions_stand_beside_the_column_of_that_name(listed, tmp_path, format):
    rows = applied(run(listed, tmp_path / "run", "merge"), tmp_path / "clean", format)
    assert rows["a"]["captions"] == ["a fox", "two foxes"]
    theirs = [row.get("captions_in_source", row["captions"]) for row in rows.values()]
    assert theirs == ["from a", "from c", "from d"]


def test_a_json_with_captions_of_its_own_keeps_them_beside_merged_ones(photos, tmp_path):
    image = jpegs(photos, 1)[0]
    files = []
    for key in ("a", "b"):
        row = {"caption": f"a photo of {key}", "captions": [f"{key}1", f"{key}2"]}
        files += [(f"{key}.jpg", image), (f"{key}.json", json.dumps(row).encode())]
    found = run(write_tar(tmp_path / "in.tar", files), tmp_path / "run", "merge")
    (row,) = applied(found, tmp_path / "clean", "webdataset").values()
    assert row["captions"] == ["a photo of a", "a photo of b"] and row["captions_in_source"] == ["a1", "a2"]
    (row,) = applied(found, tmp_path / "parquet", "parquet").values()
    assert row["captions"] == ["a photo of a", "a photo of b"]


def applied(found, folder, format, **options):
    """What stands in the JSON or the row of each cleaned sample, by key."""
    found.apply(folder, format=format, workers=1, **options)
    if format == "parquet":
        return {row["key"]: row for row in pq.read_table(folder / "00000.parquet").to_pylist()}
    return {name[:-5]: json.loads(data) for name, data in cleaned(folder).items() if name.endswith(".json")}


def test_samples_with_frequent_captions_can_be_dropped_and_what_they_stood_for_gets_another_witness(source, tmp_path):
    found = run(source, tmp_path / "run", "template>2:drop")
    rows = {row["key"]: row for row in found.manifest.to_pylist()}
    assert {key for key, row in rows.items() if row["verdict"] == "blocked"} == {"b0", "c0", "d0"}
    assert rows["c0"]["reason"] == "caption of more than 2 kept samples"
    assert rows["b1"]["verdict"] == "keep"  # its witness would have been b0
    assert found.summary["blocked"] == 3
    assert found.summary["keep"] + found.summary["remove"] + found.summary["blocked"] == len(SAMPLES)
    assert "b0.jpg" not in cleaned_keys(found, tmp_path)
    assert found.report().exists()


def test_captions_that_come_over_the_bound_once_others_were_dropped_are_dropped_too(tmp_path, photos):
    samples = [(f"a{image}", image, "stock photo") for image in range(3)]
    samples += [(f"b{image}", image, "sale") for image in range(3)]
    source = write_tar(tmp_path / "in.tar", members(photos, [*samples, ("c", 0, "rare")]))
    found = run(source, tmp_path / "run", "template>2:drop")
    rows = {row["key"]: row["verdict"] for row in found.manifest.to_pylist()}
    assert rows == {**dict.fromkeys(["a0", "a1", "a2", "b0", "b1", "b2"], "blocked"), "c": "keep"}
    templates = pq.read_table(found.path / "templates.parquet").to_pylist()
    assert templates == [{"caption": "stock photo", "count": 3}, {"caption": "sale", "count": 3}]


def cleaned_keys(found, tmp_path):
    found.apply(tmp_path / "clean")
    return cleaned(tmp_path / "clean")


def test_groups_say_what_their_captions_are(source, tmp_path):
    run(source, tmp_path / "run", "ignore")
    groups = pq.read_table(tmp_path / "run" / "groups.parquet").to_pylist()
    assert [(g["captions"], g["caption"], g["caption_count"]) for g in groups] == [
        (2, "A red fox", 2),
        (2, "stock photo", 1),
    ]


def test_lists_of_urls_have_the_captions_of_cleaned_shards(source, tmp_path):
    found = run(source, tmp_path / "run", "merge")
    drawn = set()
    for seed in range(6):
        found.apply(tmp_path / "urls", format="urls", caption_seed=seed)
        found.apply(tmp_path / f"shards{seed}", caption_seed=seed)
        rows = pq.read_table(tmp_path / "urls" / "urls.parquet").to_pylist()
        captions = {row["url"]: row["caption"] for row in rows}
        shards = cleaned(tmp_path / f"shards{seed}")
        assert captions == {f"http://x/{key}": shards[f"{key}.txt"].decode() for key in ("a0", "b0")}
        drawn.add(captions["http://x/a0"])
    assert len(drawn) == 2
    for name in ("keys", "datacomp"):
        with pytest.raises(DedupkitError, match=f"{name} holds no captions"):
            found.apply(tmp_path / name, format=name, caption_seed=1)


def test_the_command_line_takes_a_mode_and_a_seed(source, tmp_path):
    done = command("run", source, "--out", tmp_path / "run", "--rule", "exact", "--captions", "merge", "--json")
    assert json.loads(done.stdout)["captions"]["changed"] == 2
    assert command("apply", tmp_path / "run", "--to", tmp_path / "clean", "--caption-seed", "3").returncode == 0
    wrong = command("run", source, "--out", tmp_path / "run", "--captions", "both")
    assert wrong.returncode == 2 and "is no way to treat captions" in wrong.stderr


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_a_signal_restricted_to_some_samples_says_the_same_about_them(rows, edges):
    classes = [value for value, _ in rows]
    kept = np.array([stays for _, stays in rows], bool)
    first = np.array([classes.index(value) if value else -1 for value in classes], np.int32)
    pairs = {
        tuple(sorted((classes.index(x), classes.index(y))))
        for x, y in edges
        if x and y and x != y and {x, y} <= set(classes)
    }
    a, b = np.array(sorted(pairs), np.int32).reshape(-1, 2).T
    part = Matches(first, a, b, np.zeros(len(a), np.float32)).restricted(kept)
    joined = {frozenset((classes[x], classes[y])) for x, y in pairs}
    again = {frozenset((classes[x], classes[y])) for x, y in zip(part.a.tolist(), part.b.tolist(), strict=True)}
    left = {value for value, stays in rows if stays}
    assert again == {pair for pair in joined if pair <= left}
    for row, (value, stays) in enumerate(rows):
        assert (part.first[row] >= 0) == (stays and value > 0)
        if part.first[row] >= 0:
            assert part.first[row] == min(r for r, (v, s) in enumerate(rows) if s and v == value)


def updated(folder, photos, mode, old, *news):
    """A run over some samples with a caption mode, and updates by others, one after the other."""
    found = [
        dk.dedup(
            write_tar(folder / "0.tar", members(photos, old)),
            folder / "run0",
            rule="exact",
            keep="sample",
            captions=mode,
            workers=0,
        )
    ]
    for number, new in enumerate(news, 1):
        tar = str(write_tar(folder / f"{number}.tar", members(photos, new)))
        found.append(dk.update(found[-1].path, tar, folder / f"run{number}", workers=0))
    return found


def test_an_update_with_pair_removes_what_has_image_and_caption_of_an_old_sample(tmp_path, photos):
    old = [("a", 0, "A red fox"), ("b", 1, None), ("c", 2, "x")]
    new = [
        ("same", 0, "a RED fox"),
        ("other", 0, "two foxes"),
        ("again", 0, "Two  foxes"),
        ("none", 0, None),
        ("bare", 1, ""),
        ("said", 1, "b"),
    ]
    _, found = updated(tmp_path, photos, "pair", old, new)
    rows = {row["key"]: (row["verdict"], row["kept_key"], row["kept_source"]) for row in found.manifest.to_pylist()}
    there = str(tmp_path / "run0")
    assert rows == {
        "same": ("remove", "a", there),
        "other": ("keep", None, None),
        "again": ("remove", "other", None),
        "none": ("keep", None, None),
        "bare": ("remove", "b", there),
        "said": ("keep", None, None),
    }
    assert found.config["captions"] == "pair>=0.8"


def test_an_update_with_merge_lists_what_old_samples_gain_and_merges_among_new_ones(tmp_path, photos):
    old = [("a", 0, "A red fox"), ("b", 1, "b")]
    new = [
        ("a1", 0, "two foxes"),
        ("a2", 0, "Two Foxes"),
        ("a3", 0, "snow"),
        ("b1", 1, None),
        ("c1", 2, "c"),
        ("c2", 2, "d"),
    ]
    first, found = updated(tmp_path, photos, "merge", old, new)
    rows = {row["key"]: row["captions"] for row in found.manifest.to_pylist()}
    assert [one["caption"] for one in rows["c1"]] == ["c", "d"]
    gained = pq.read_table(found.path / "earlier_captions.parquet").to_pylist()
    captions = [{"caption": "two foxes", "count": 2}, {"caption": "snow", "count": 1}]
    assert gained == [{"source": str(first.path), "sample": 0, "key": "a", "captions": captions}]
    assert found.summary["captions"]["given"] == 1
    assert not (first.path / "earlier_captions.parquet").exists()
    found.rethreshold("exact")
    assert (found.path / "earlier_captions.parquet").exists()
    dk.update(first.path, str(tmp_path / "1.tar"), found.path, captions="ignore", workers=0)
    assert not (found.path / "earlier_captions.parquet").exists()


@pytest.mark.parametrize("action", ["list", "blank", "drop"])
def test_templates_of_an_update_count_the_kept_samples_of_earlier_runs(tmp_path, photos, action):
    old = [("a", 0, "stock photo"), ("b", 1, "rare"), ("b2", 1, "rare")]
    new = [("c", 2, "Stock  Photo"), ("a2", 0, "stock photo"), ("d", 3, "rare")]
    last = [("e", 4, "stock photo"), ("f", 5, "rare")]
    runs = updated(tmp_path, photos, f"template>1:{action}", old, new, last)
    verdicts = [{row["key"]: row["verdict"] for row in each.manifest.to_pylist()} for each in runs]
    assert pq.read_table(runs[0].path / "templates.parquet").num_rows == 0
    assert pq.read_table(runs[1].path / "templates.parquet").to_pylist() == [
        {"caption": "Stock  Photo", "count": 2, "earlier": 1}, {"caption": "rare", "count": 2, "earlier": 1},
    ]  # fmt: skip
    assert pq.read_table(runs[2].path / "templates.parquet").to_pylist() == [
        {"caption": "stock photo", "count": 3, "earlier": 2}, {"caption": "rare", "count": 3, "earlier": 2},
    ]  # fmt: skip
    assert verdicts[0] == {"a": "keep", "b": "keep", "b2": "remove"}  # stays as it was decided
    expected = "blocked" if action == "drop" else "keep"
    assert verdicts[1] == {"c": expected, "a2": expected if action == "drop" else "remove", "d": expected}
    assert verdicts[2] == {"e": expected, "f": expected}
    blanked = {row["key"] for row in runs[2].manifest.to_pylist() if row["captions"] == []}
    assert blanked == ({"e", "f"} if action == "blank" else set())


def test_a_reference_set_blocks_images_whatever_their_captions(tmp_path, photos):
    reference = write_tar(tmp_path / "set.tar", members(photos, [("r", 0, None)]))
    source = write_tar(tmp_path / "in.tar", members(photos, [("a", 0, "a fox"), ("b", 1, "b")]))
    found = dk.dedup(source, tmp_path / "run", rule="exact", captions="pair", against=str(reference), workers=0)
    assert {row["key"]: row["verdict"] for row in found.manifest.to_pylist()} == {"a": "blocked", "b": "keep"}


@pytest.mark.parametrize("captions", ["ignore", None])
def test_what_a_mode_adds_to_a_rule_is_not_handed_on_to_an_update(tmp_path, photos, captions):
    pytest.importorskip("cv2")
    parts = [[("a", 0, "a fox")], [("b", 0, "a lynx"), ("c", 1, "c")], [("r", 1, None)]]
    tars = [str(write_tar(tmp_path / f"{n}.tar", members(photos, part))) for n, part in enumerate(parts)]
    old = dk.dedup(tars[0], tmp_path / "old", rule="thorough", captions="pair", workers=0)
    new = dk.update(old.path, tars[1], tmp_path / "new", captions=captions, against=tars[2], workers=0)
    assert new.manifest["verdict"].to_pylist() == ["keep" if captions is None else "remove", "blocked"]


DATA = os.environ.get("DEDUPKIT_DATA")


@pytest.mark.skipif(not DATA, reason="DEDUPKIT_DATA does not name the labelled shards")
def test_modes_on_recaptioned_copies(tmp_path):
    shards = Path(DATA, "laion_style", "shards")
    with Path(DATA, "laion_style", "truth.csv").open() as stream:
        origin = {row["url"]: row["origin"] for row in csv.DictReader(stream)}
    ignored = run(shards, tmp_path / "run", "ignore", rule="copies").manifest.to_pylist()
    captions = {row["sample"]: row["caption"] for row in ignored}
    paired = run(shards, tmp_path / "run", "pair", rule="copies").manifest.to_pylist()
    for row in paired:
        if row["verdict"] == "remove":
            witness = paired[row["kept_sample"]]
            assert origin[row["url"]] == origin[witness["url"]]
            assert ignored[row["sample"]]["group"] == ignored[witness["sample"]]["group"]
    assert sum(row["verdict"] == "remove" for row in paired) < sum(row["verdict"] == "remove" for row in ignored)
    merged = run(shards, tmp_path / "run", "merge", rule="copies").manifest.to_pylist()
    for row in merged:
        if row["captions"] is not None:
            mine = [other for other in merged if row["sample"] in (other["sample"], other["kept_sample"])]
            counted = Counter(captions[other["sample"]] for other in mine)
            assert sum(one["count"] for one in row["captions"]) == sum(counted.values())
            assert {one["caption"] for one in row["captions"]} <= set(counted)
    assert pa.types.is_list(dk.Run(tmp_path / "run").manifest.schema.field("captions").type)
