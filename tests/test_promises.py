"""The five promises of a run, on real tars through the public interface."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, encode, manifest, run, snapshot, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import dedupkit as dk
from dedupkit.manifest.tables import GROUPS_SCHEMA, MANIFEST_SCHEMA
from dedupkit.neighbors.hamming.dihedral import dihedral_distance

EDITS = {
    "same": lambda im: encode(im, quality=85),
    "worse": lambda im: encode(im, quality=30),
    "small": lambda im: encode(im.resize((im.width // 2, im.height // 2)), quality=85),
    "mirror": lambda im: encode(ImageOps.mirror(im), quality=85),
    "turned": lambda im: encode(im.rotate(90, expand=True), quality=85),
    "grey": lambda im: encode(im.convert("L"), quality=85),
    "png": lambda im: encode(im, "PNG"),
    "broken": lambda im: encode(im, quality=85)[:500],
    "flat": lambda im: encode(Image.new("RGB", im.size, (200, 200, 200))),
}


class Pictures(dict):
    """Photo and edit to bytes; says little of itself when a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} pictures>"


@pytest.fixture(scope="module")
def pictures(photos) -> Pictures:
    """Every edit of a few photos, encoded."""
    chosen = list(photos)[:5]
    base = {name: photos[name].convert("RGB").resize((200, 160)) for name in chosen}
    return Pictures({(name, edit): make(image) for name, image in base.items() for edit, make in EDITS.items()})


def write_shards(folder: Path, choices: list[tuple[str, str]], pictures, shards: int = 3) -> list[str]:
    """The chosen pictures as samples with captions, dealt over some tars that share their keys."""
    paths = []
    for shard in range(shards):
        members = []
        for position, choice in enumerate(choices[shard::shards]):
            members.append((f"{position:04d}.jpg", pictures[choice]))
            members.append((f"{position:04d}.txt", f"a picture of {choice[0]}".encode()))
        paths.append(str(write_tar(folder / f"{shard:05d}.tar", members)))
    return paths


def satisfies(rows, distance: int):
    """The rule written out over the manifest alone: for each pair of rows, is it exact or within the distance?"""
    sha = np.array([row["sha256"] or str(i) for i, row in enumerate(rows)])
    hashes = np.frombuffer(b"".join(row["pdq"] or bytes(32) for row in rows), np.uint8).reshape(-1, 32)
    good = np.array([(row["pdq_quality"] or 0) >= 50 for row in rows], bool)
    x, y = np.triu_indices(len(rows), 1)
    close = (dihedral_distance(hashes[x], hashes[y]) <= distance) & good[x] & good[y]
    return {(int(i), int(j)) for i, j in zip(x[close], y[close], strict=True)} | {
        (int(i), int(j)) for i, j in zip(x, y, strict=True) if sha[i] == sha[j]
    }


choices = st.lists(
    st.tuples(st.sampled_from(["astronaut", "coffee", "chelsea"]), st.sampled_from(sorted(EDITS))),
    min_size=1,
    max_size=14,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=choices, distance=st.sampled_from([0, 10, 31]))
def test_promises_one_to_three_hold_for_any_input(tmp_path_factory, pictures, chosen, distance):
    folder = tmp_path_factory.mktemp("any")
    sources = write_shards(folder / "in", chosen, pictures)
    finished = run(sources, folder / "out", rule=f"exact or pdq<={distance}")
    rows = finished.manifest.to_pylist()
    # 1. Every input sample once, in source order, unreadable ones with the reason.
    expected = [(source, f"{i:04d}") for n, source in enumerate(sources) for i in range(len(chosen[n::3]))]
    assert [(row["source"], row["key"]) for row in rows] == expected
    dealt = [choice for n in range(3) for choice in chosen[n::3]]
    assert [row["verdict"] == "unreadable" for row in rows] == [edit == "broken" for _, edit in dealt]
    assert all((row["reason"] is None) == (row["verdict"] == "keep") for row in rows)
    # 2. A removed sample's witness is kept, and the pair itself satisfies the rule.
    readable = [row for row in rows if row["verdict"] != "unreadable"]
    place = {row["sample"]: i for i, row in enumerate(readable)}
    pairs = satisfies(readable, distance)
    for row in readable:
        if row["verdict"] == "remove":
            witness = rows[row["kept_sample"]]
            assert witness["verdict"] == "keep"
            assert witness["key"] == row["kept_key"]
            assert tuple(sorted((place[row["sample"]], place[witness["sample"]]))) in pairs
        else:
            assert row["kept_sample"] is row["kept_key"] is row["score"] is None
    # 3. No two kept samples satisfy the rule.
    kept = {place[row["sample"]] for row in readable if row["verdict"] == "keep"}
    assert not any(x in kept and y in kept for x, y in pairs)


def test_four_any_number_of_workers_gives_the_same_bytes(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures), pictures, shards=7)
    outputs = []
    for workers in (1, 2, 5):
        finished = dk.dedup(sources, tmp_path / f"out{workers}", workers=workers)
        outputs.append([(finished.path / name).read_bytes() for name in ("manifest.parquet", "groups.parquet")])
    assert outputs[0] == outputs[1] == outputs[2]


def test_four_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures) * 12, pictures, shards=24)
    expected = dk.dedup(sources, tmp_path / "whole", workers=2)
    command = [
        sys.executable,
        "-m",
        "dedupkit.cli",
        "run",
        *sources,
        "--out",
        str(tmp_path / "killed"),
        "--workers",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    moments = random.Random(7)
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=moments.uniform(0.3, 1.5 + attempt))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0
        break
    else:
        pytest.fail("a run that is killed again and again never ended, although each goes on from the last")
    assert kills > 0
    for name in ("manifest.parquet", "groups.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (expected.path / name).read_bytes()
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_four_shards_in_another_order_remove_as_many(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures), pictures, shards=4)
    one = run(sources, tmp_path / "one").summary
    other = run(sources[::-1], tmp_path / "other").summary
    assert one["groups"] == other["groups"]
    assert one["samples"] == other["samples"]


def test_five_the_source_is_never_written_to(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures), pictures)
    before = snapshot(tmp_path / "in")
    finished = run(sources, tmp_path / "out")
    finished.apply(tmp_path / "clean")
    finished.report()
    assert snapshot(tmp_path / "in") == before


def test_the_files_of_a_run_have_the_documented_columns(tmp_path, pictures):
    finished = run(write_shards(tmp_path / "in", sorted(pictures), pictures), tmp_path / "out")
    assert pq.read_schema(finished.path / "manifest.parquet").equals(MANIFEST_SCHEMA)
    assert pq.read_schema(finished.path / "groups.parquet").equals(GROUPS_SCHEMA)
    rows = finished.manifest.to_pylist()
    sizes = {row["group"]: row["group_size"] for row in rows}
    for group in pq.read_table(finished.path / "groups.parquet").to_pylist():
        members = [row["sample"] for row in rows if row["group"] == group["group"]]
        kept = [row["sample"] for row in rows if row["group"] == group["group"] and row["verdict"] == "keep"]
        assert group == {
            "group": min(members), "size": len(members), "kept": len(kept), "removed": len(members) - len(kept),
            "samples": members, "kept_samples": kept,
        }  # fmt: skip
        assert sizes[group["group"]] == group["size"] > 1


def test_deciding_again_equals_deciding_at_once(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures), pictures)
    finished = run(sources, tmp_path / "out")
    for rule in ("pdq<=8", "exact", "exact or pdq<=31"):
        again = finished.rethreshold(rule)
        assert again.manifest.equals(run(sources, tmp_path / rule.replace(" ", ""), rule=rule).manifest)
    with pytest.raises(dk.DedupkitError, match=r"pdq<=40.*run again"):
        finished.rethreshold("pdq<=40")
    with pytest.raises(dk.DedupkitError, match="not computed phash"):
        finished.rethreshold("phash<=4")
    wider = run(sources, tmp_path / "out", rule="pdq<=40 or phash<=4")
    assert wider.manifest.equals(run(sources, tmp_path / "fresh", rule="pdq<=40 or phash<=4").manifest)


def test_a_folder_that_is_named_like_a_partition_adds_no_column(tmp_path, pictures):
    sources = write_shards(tmp_path / "year=2026", sorted(pictures), pictures)
    finished = run(sources, tmp_path / "rule=copies")
    assert {"year", "rule"}.isdisjoint(finished.manifest.column_names)
    assert set(finished.groups[0].rows[0]) == set(finished.manifest.column_names)


def test_the_keep_policy_decides_which_copy_stays(tmp_path, pictures):
    chosen = [("coffee", "worse"), ("coffee", "same"), ("coffee", "small")]
    sources = write_shards(tmp_path / "in", chosen, pictures, shards=1)
    assert manifest(run(sources, tmp_path / "big", keep="-pixels, -nbytes"))["0001"]["verdict"] == "keep"
    assert manifest(run(sources, tmp_path / "few", keep="pixels"))["0002"]["verdict"] == "keep"
    assert manifest(run(sources, tmp_path / "one", keep="sample"))["0000"]["verdict"] == "keep"


def test_identical_copies_by_the_thousand_are_one_group(tmp_path, pictures):
    members = [(f"{i:05d}.jpg", pictures["coffee", "same"]) for i in range(3000)]
    source = write_tar(tmp_path / "in.tar", members)
    started = time.perf_counter()
    finished = run(str(source), tmp_path / "out")
    assert time.perf_counter() - started < 60
    assert (finished.summary["keep"], finished.summary["remove"], finished.summary["groups"]) == (1, 2999, 1)
    assert finished.summary["edges"] == 0
