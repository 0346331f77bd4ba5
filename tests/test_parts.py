"""A decision in parts is the decision in one piece, whatever the parts (promise 4)."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from helpers import encode, environment, run, snapshot, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from s3 import boto, serving
from test_decide import KINDS, ORIGINS, RULES, fingerprints, signal_of

import dedupkit as dk
from dedupkit.clustering import decide, parse_policy, parse_rule
from dedupkit.clustering.part_files import Parting, Rows, decide_part, gather_parts, write_parts
from dedupkit.clustering.parts import find_parts
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunFolder
from dedupkit.signals import equal, find_signal, labels
from dedupkit.signals.across import equal_rows
from dedupkit.signals.columns import Scanned
from dedupkit.stages import group_captions, parts
from dedupkit.stages.group_captions import captions_of_groups, in_groups
from dedupkit.store import write_table

POLICIES = ["sample", "-sample", "-pixels, nbytes, sample", "nbytes, -sample", "-pixels, nbytes, -pixels"]


def in_parts(home, rule, policy, signals, masks, columns, *, size, shards):
    """The decision in parts of about a size, from columns that come in so many shards."""
    count = len(masks[0])
    streamed = {name: matches.streamed for name, matches in signals.items()}
    parting = Parting(rule, policy, {name: matches.origin for name, matches in signals.items()}, count)
    bounds = np.linspace(0, count, shards + 1).astype(int)
    rows = [
        Rows(low, high, {name: values[low:high] for name, values in columns.items()}) for low, high in pairwise(bounds)
    ]
    found_parts = find_parts(rule, streamed, masks[0], size)
    write_parts(home, parting, found_parts, streamed, masks, rows)
    found = [decide_part(str(home), number, parting) for number in range(found_parts.count)]
    return gather_parts(home, found_parts, masks[0], found), found_parts.count


@settings(max_examples=300, deadline=None)  # the first call compiles
@given(fingerprints(), st.sampled_from(RULES), st.sampled_from(POLICIES), st.data())
def test_a_decision_in_parts_is_the_decision_in_one_piece(data, text, keep, more):
    values, usable, _ = data
    count = len(usable)
    rule, policy = parse_rule(text, KINDS), parse_policy(keep)
    signals = {
        name: signal_of(values[name], KINDS[name] == "distance", ORIGINS.get(name, "image")) for name in rule.signals
    }
    flags = st.lists(st.booleans(), min_size=count, max_size=count).map(lambda flags: np.array(flags, bool))
    taking = usable & more.draw(flags)
    protected = taking & more.draw(flags)
    numbers = st.lists(st.sampled_from([1.0, 2.0, np.nan]), min_size=count, max_size=count)
    columns = {name: np.array(more.draw(numbers)) for name in policy.needs}
    whole = decide(
        rule,
        {name: matches.restricted(taking) for name, matches in signals.items()},
        policy.order(columns, count),
        taking,
        protected if protected.any() else None,
    )
    with TemporaryDirectory() as home:
        found, number = in_parts(
            Path(home), rule, policy, signals, (taking, protected), columns,
            size=more.draw(st.sampled_from([1, 4, 1000])), shards=more.draw(st.integers(1, 3)),
        )  # fmt: skip
    assert number <= 64
    for one, other in zip(astuple(whole), astuple(found), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.none() | st.integers(0, 5), st.booleans()), max_size=8), min_size=1, max_size=3))
def test_equal_samples_are_those_with_equal_values_whatever_the_parts(shards):
    """In parts of a file each, in parts in memory, and as a whole."""
    with TemporaryDirectory() as home:
        folder = RunFolder(home)
        for number, rows in enumerate(shards):
            values = [None if value is None else bytes([value * 50]) * 32 for value, _ in rows]
            errors = [None if fine else "broken" for _, fine in rows]
            columns = [pa.array(values, pa.binary(32)), pa.array(errors, pa.string())]
            write_table(folder.samples(number), pa.table(columns, names=["sha256", "error"]))
        scanned, signal = Scanned(folder, len(shards)), find_signal("exact")
        whole = signal.distinct(scanned)
        expected, some = whole.first, np.arange(0, len(whole.first), 2)
        for one, other in zip(signal.rows(scanned, some), whole.rows_of(some), strict=True):
            np.testing.assert_array_equal(one, other)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(equal, "_TABLE_BYTES", 64)
            in_parts = signal.distinct(scanned)
            assert in_parts.first.tolist() == expected.tolist()
            np.testing.assert_array_equal(in_parts.values, whole.values)
            a, b = equal_rows(whole.values, whole.values[::-1])
            assert (a[::-1].tolist(), b.tolist()) == (list(range(len(whole.values))),) * 2
            patch.setattr(labels, "_IN_MEMORY", 0)
            patch.setattr(labels, "_ROWS_A_PART", 4)
            found = signal.labels(scanned)
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["A dog", "a  dog", "a cat", "", None])), max_size=40))
def test_captions_of_groups_are_counted_in_parts_as_in_one_piece(rows):
    """In parts of about seven samples, from shards of sixteen."""
    groups = {group: number for number, (group, _) in reversed(list(enumerate(rows)))}  # the smallest sample
    group = np.array([groups[name] for name, _ in rows], np.int32)
    taking = np.arange(len(rows)) % 11 != 10
    mine = in_groups(group, taking)
    texts: dict[int, list[str]] = {}
    for number, (name, text) in enumerate(rows):
        assert mine[number] == (taking[number] and sum(name == other for other, _ in rows) > 1)
        if mine[number] and text:
            texts.setdefault(groups[name], []).append(" ".join(text.lower().split()))
    with TemporaryDirectory() as home:
        scanned = Scanned(RunFolder(home), len(rows) // 16 + 1)
        for shard in range(scanned.shards):
            captions = pa.array([text for _, text in rows[16 * shard : 16 * shard + 16]], pa.string())
            write_table(scanned.folder.samples(shard), pa.table([captions], names=["caption"]))
        whole = captions_of_groups(scanned, group, mine)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(group_captions, "_AT_ONCE", 7)
            found = captions_of_groups(scanned, group, in_groups(group, taking))
    for one, other in zip(whole, found, strict=True):
        assert (one.dtype, one.tolist()) == (other.dtype, other.tolist())
    assert found.group.tolist() == sorted(texts)
    assert found.captions.tolist() == [len(set(texts[name])) for name in sorted(texts)]
    assert found.uses.tolist() == [max(Counter(texts[name]).values()) for name in sorted(texts)]


@contextmanager
def small_parts(size: int = 2) -> Iterator[None]:
    """Every decision is a large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEDUPKIT_PART_SIZE", str(size))
        yield


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Image.Image]) -> list[str]:
    """Four tars with copies of six photos among them, and captions that repeat."""
    folder, made = tmp_path_factory.mktemp("parts"), []
    images = [photo.convert("RGB").resize((160, 120)) for photo in list(photos.values())[:6]]
    for shard in range(4):
        members = []
        for number, image in enumerate(images):
            edited = [image, image, ImageOps.mirror(image), image.resize((80, 60))][(shard + number) % 4]
            members.append((f"{shard}{number}.jpg", encode(edited, quality=85 - 30 * (shard == 3))))
            members.append((f"{shard}{number}.txt", [b"a photo", b"photo of it", b"another"][(shard * number) % 3]))
        members.append((f"{shard}9.jpg", b"broken"))
        made.append(str(write_tar(folder / f"{shard}.tar", members)))
    return made


def verdict_files(folder: Path) -> dict[str, bytes]:
    """The files that hold verdicts, and all other names in a run folder."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    held = ("manifest", "groups", "templates", "earlier_captions", "families", "decision")
    return {name: path.read_bytes() if name.startswith(held) else b"" for name, path in files.items()}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"captions": "pair"},
        {"captions": "merge", "keep": "nbytes, -sample"},
        {"captions": "template>2:drop"},
        {"rule": "exact or (pdq<=64 and phash<=12) or caption>=0.9", "keep": "-caption_length"},
    ],
    ids=str,
)
def test_a_run_that_decides_in_parts_has_the_same_files(shards, tmp_path, asked):
    for name in ("whole", "parts"):
        with small_parts() if name == "parts" else nullcontext():
            first = run(shards[:2], tmp_path / name / "first", **asked)
            run(shards, tmp_path / name / "all", against=[first.path], **asked)
    assert verdict_files(tmp_path / "parts") == verdict_files(tmp_path / "whole")


def test_an_update_that_decides_in_parts_has_the_same_files(shards, tmp_path):
    first = run(shards[:2], tmp_path / "first")
    for name in ("whole", "parts"):
        with small_parts() if name == "parts" else nullcontext():
            dk.update(first.path, shards[2:], tmp_path / name, workers=0)
    assert verdict_files(tmp_path / "parts") == verdict_files(tmp_path / "whole")
    counts = Counter(dk.Run(tmp_path / "parts").manifest["kept_source"].to_pylist())
    assert counts[str(first.path)] > 0


def test_trying_a_rule_decides_in_parts_and_writes_nothing(shards, tmp_path):
    finished = run(shards, tmp_path / "run")
    before = snapshot(tmp_path)
    expected = finished.decide("pdq<=20").manifest
    with small_parts():
        assert finished.decide("pdq<=20").manifest.equals(expected)
    assert snapshot(tmp_path) == before


def test_workers_decide_parts_and_an_interrupted_decision_goes_on(shards, tmp_path):
    """The parts that were decided before the command was stopped are not decided again."""
    whole = run(shards, tmp_path / "whole")
    with small_parts():
        done: list[str] = []

        def stopped(*given):
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(given[1])
            return decide_part(*given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "decide_part", stopped)
            with pytest.raises(KeyboardInterrupt):
                run(shards, tmp_path / "run")
        files = [tmp_path / "run" / ".next" / "parts" / "00" / f"{number:02d}.npy" for number in done]
        for file in files:
            os.utime(file, (1, 1))
        looked = []

        def gathered(home, *given):
            looked.extend(int(file.stat().st_mtime) for file in files)
            return gather_parts(home, *given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "gather_parts", gathered)
            run(shards, tmp_path / "run", workers=2)
    assert looked == [1, 1]
    assert verdict_files(tmp_path / "run") == verdict_files(whole.path)


def by_two_ranks(sources: list[str], out: Path | str, tmp_path: Path) -> None:
    """Run with two processes in which every decision is a large one; where there is a bucket, it is all they share."""
    ranks = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "WORLD_SIZE": "2", "DEDUPKIT_JOB": "parts", "DEDUPKIT_PART_SIZE": "2"}
        place["DEDUPKIT_SCRATCH"] = str(tmp_path / f"scratch-{rank}")
        given = ["run", *sources, "--out", str(out), "--engine", "rank", "--workers", "1"]
        command = [sys.executable, "-m", "dedupkit.cli", *given]
        ranks.append(subprocess.Popen(command, env=environment(place), stderr=subprocess.PIPE, text=True))
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in ranks] == [("", 0)] * 2


def test_ranks_share_the_parts(shards, tmp_path):
    run(shards, tmp_path / "whole")
    by_two_ranks(shards, tmp_path / "ranks", tmp_path)
    stages = json.loads((tmp_path / "ranks" / "progress.json").read_text())["stages"]
    assert stages["decide"]["tasks"] > 1
    for name in ("manifest.parquet", "groups.parquet"):
        assert (tmp_path / "ranks" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ranks_that_share_a_bucket_alone_share_the_parts(shards, tmp_path):
    with serving() as server:
        server.make("bucket")
        for path in shards:
            boto().upload_file(path, "bucket", f"data/{Path(path).name}")
        run("s3://bucket/data", tmp_path / "whole")
        by_two_ranks(["s3://bucket/data"], "s3://bucket/run", tmp_path)
        names = [entry["Key"] for entry in boto().list_objects_v2(Bucket="bucket")["Contents"]]
        assert not [name for name in names if ".next" in name or ".done/decide" in name]
        for name in ("manifest.parquet", "groups.parquet"):
            found = boto().get_object(Bucket="bucket", Key=f"run/{name}")["Body"].read()
            assert found == (tmp_path / "whole" / name).read_bytes()


def test_a_part_size_that_is_no_number_is_named(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("DEDUPKIT_PART_SIZE", "many")
    with pytest.raises(DedupkitError, match="DEDUPKIT_PART_SIZE is a number"):
        run(shards, tmp_path / "run")
