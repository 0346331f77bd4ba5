"""The five promises of a run, on real tars through the public interface."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, children, encode, environment, manifest, run, snapshot, write_tar
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import dedupkit as dk
from dedupkit.clustering.grammar import PRESETS, needs_embedder, parse_rule
from dedupkit.clustering.rules import reason_of
from dedupkit.hashing.exact import pixel_hash
from dedupkit.hashing.pdq import CROP_VIEWS, decimate, pdq_from_buffers
from dedupkit.hashing.perceptual import perceptual_hash
from dedupkit.images import decode_luma, open_image
from dedupkit.neighbors.hamming.dihedral import dihedral_distance
from dedupkit.signals import known_signals
from dedupkit.verification.pair import local_features, verify_pair

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


ANGLES = (None, 0, 0, 10, 25, 40, 62, 90)  # of vectors, in degrees; no two differ by a preset's threshold
RULES = (
    *PRESETS,
    "pixels",
    "phash<=6",
    "exact or dhash_imagededup<=10",
    "(ahash<=4 and whash<=4) or pixels",
    "crops<=31 and vectors>=0.5",
    "exact or (vectors>=0.7 and verified)",
    "(pdq<=64 and verified) or vectors>=0.9",
)


class Oracle:
    """What the clauses of a rule say of two files, worked out from the bytes of the two alone."""

    def __init__(self, files: list[bytes], vectors: list[np.ndarray | None]) -> None:
        self.files, self.vectors = files, vectors

    @cache  # noqa: B019 - one oracle for an example
    def holds(self, atom, i: int, j: int) -> bool:
        """Does one condition hold between two files?"""
        if atom.signal in ("exact", "verified") and self.files[i] == self.files[j]:
            return True
        if atom.signal == "exact":
            return False
        if atom.signal == "verified":
            return verify_pair(features(self.files[i]), features(self.files[j])).verified
        if atom.signal == "vectors":
            pair = self.vectors[i], self.vectors[j]
            return pair[0] is not None and pair[1] is not None and float(pair[0] @ pair[1]) >= atom.bound - 1e-3
        one, other = (fingerprint_of(self.files[k], atom.signal) for k in (i, j))
        if one is None or other is None:
            return False
        if atom.bound is None:
            return one == other
        return nearest_views(one, other, whole=atom.signal != "crops") <= atom.bound


def nearest_views(one, other, *, whole: bool) -> int:
    """The least number of bits between the first hash of one file and any of the other's, either way."""
    pairs = [(one[0], other[0])] if whole else [(one[0], y) for y in other] + [(x, other[0]) for x in one]
    least = 256
    for x, y in pairs:
        if x is not None and y is not None:
            if len(x) == 8:
                least = min(least, (int.from_bytes(x) ^ int.from_bytes(y)).bit_count())
            else:
                x, y = (np.frombuffer(side, np.uint8)[None] for side in (x, y))
                least = min(least, int(dihedral_distance(x, y)[0]))
    return least


@cache
def features(data: bytes):
    luma = decode_luma(data, min_side=320)
    return local_features(luma.plane, size=(luma.width, luma.height))


@cache
def fingerprint_of(data: bytes, name: str):
    """The value of ``pixels``, or the hashes of a file, the whole first; None where there is none."""
    image = open_image(data)
    if name == "pixels":
        return pixel_hash(image)
    if name not in ("pdq", "crops"):
        return [perceptual_hash(image, name).tobytes()]
    (decimated,) = decimate([data], CROP_VIEWS if name == "crops" else ())
    hashes, qualities = pdq_from_buffers(decimated.buffers)
    if qualities[0] < 50:
        return None
    return [h.tobytes() if quality >= 50 else None for h, quality in zip(hashes, qualities, strict=True)]


@settings(max_examples=45, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=choices, text=st.sampled_from(RULES), angles=st.lists(st.sampled_from(ANGLES), min_size=8, max_size=8))
def test_promises_one_to_three_hold_for_every_preset_and_kind_of_signal(
    tmp_path_factory, pictures, chosen, text, angles
):
    pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("every")
    keys = [f"{i:04d}" for i in range(len(chosen))]
    files = [pictures[choice] for choice in chosen]
    for shard in range(2):
        members = [(f"{key}.jpg", data) for key, data in zip(keys[shard::2], files[shard::2], strict=True)]
        write_tar(folder / "in" / f"{shard}.tar", members)
    angle = [angles[zlib.crc32(data) % len(angles)] for data in files]  # equal bytes have equal vectors
    vectors = [None if t is None else np.array([np.cos(np.radians(t)), np.sin(np.radians(t))]) for t in angle]
    readable = [vector for vector, (_, edit) in zip(vectors, chosen, strict=True) if edit != "broken"]
    # a run whose embedder has no vector at all is refused
    assume(not needs_vectors(text) or any(vector is not None for vector in readable) or not readable)
    given_ones = [(vector, key) for vector, key in zip(vectors, keys, strict=True) if vector is not None]
    embed = (np.array([v for v, _ in given_ones]).reshape(-1, 2), [key for _, key in given_ones])
    finished = run(str(folder / "in"), folder / "out", rule=text, embed=embed if needs_vectors(text) else ())
    rule = parse_rule(finished.config["rule_expanded"], known_signals(["vectors"]))
    oracle = Oracle(files, vectors)

    def clauses_that_hold(i: int, j: int) -> list[str]:
        return [reason_of(clause) for clause in rule.clauses if all(oracle.holds(atom, i, j) for atom in clause)]

    rows = manifest(finished)
    assert sorted(rows) == keys  # 1: each once
    broken = [key for key, (_, edit) in zip(keys, chosen, strict=True) if edit == "broken"]
    assert [key for key in keys if rows[key]["verdict"] == "unreadable"] == broken
    kept = [i for i, key in enumerate(keys) if rows[key]["verdict"] == "keep"]
    for i, key in enumerate(keys):
        if rows[key]["verdict"] == "remove":  # 2: the witness is kept, and the pair satisfies the rule
            witness = keys.index(rows[key]["kept_key"])
            assert witness in kept
            assert rows[key]["reason"] in clauses_that_hold(i, witness)  # what another clause settles is not verified
    for i, j in itertools.combinations(kept, 2):  # 3: no two kept ones satisfy it
        assert not clauses_that_hold(i, j)


def needs_vectors(text: str) -> bool:
    return "vectors" in text or needs_embedder(text)


def test_four_any_number_of_workers_gives_the_same_bytes(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures), pictures, shards=7)
    outputs = []
    for workers in (1, 2, 5):
        finished = dk.dedup(sources, tmp_path / f"out{workers}", workers=workers)
        outputs.append([(finished.path / name).read_bytes() for name in ("manifest.parquet", "groups.parquet")])
    assert outputs[0] == outputs[1] == outputs[2]


class Command:
    """``dedupkit run`` with two workers, observed by the markers of the shards that it has scanned."""

    def __init__(self, sources: list[str], out: Path) -> None:
        self.out = out
        arguments = ["run", *sources, "--out", str(out), "--workers", "2"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dedupkit.cli", *arguments],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def reaches(self, scanned: int) -> bool:
        """Wait until so many shards are scanned; False if the command ended before."""
        while self.process.poll() is None:
            if len(list(self.out.glob(".done/scan/*.json"))) >= scanned:
                return True
            time.sleep(0.002)
        return False


def test_four_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures) * 8, pictures, shards=16)
    expected = dk.dedup(sources, tmp_path / "whole", workers=2)
    kills = 0
    for scanned in (0, 1, 4, 11, 16):
        command = Command(sources, tmp_path / "killed")
        if command.reaches(scanned):
            time.sleep(random.Random(scanned).uniform(0, 0.05))
            command.process.kill()
            kills += command.process.wait() < 0
    last = Command(sources, tmp_path / "killed")
    assert last.process.wait(timeout=60) == 0
    assert kills >= 2
    for name in ("manifest.parquet", "groups.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (expected.path / name).read_bytes()
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_four_workers_killed_in_the_middle_of_tasks_change_nothing(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures) * 8, pictures, shards=12)
    expected = dk.dedup(sources, tmp_path / "whole", workers=2)
    command = Command(sources, tmp_path / "killed")
    kills = 0
    for scanned in (0, 1, 2, 4, 6, 8):
        if not command.reaches(scanned):
            break
        time.sleep(random.Random(scanned).uniform(0, 0.02))
        for worker in list(children(command.process.pid))[:1]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                kills += 1
    assert command.process.wait(timeout=60) == 0
    assert kills >= 2
    for name in ("manifest.parquet", "groups.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (expected.path / name).read_bytes()
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_four_shards_in_another_order_keep_the_same_images_and_make_the_same_groups(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures), pictures, shards=4)
    kept, groups = [], []
    for name, order in (("one", sources), ("other", sources[::-1])):
        rows = run(order, tmp_path / name).manifest.to_pylist()
        kept.append(sorted(row["sha256"] for row in rows if row["verdict"] == "keep"))
        members: dict[int, set[tuple[str, str]]] = {}
        for row in rows:
            members.setdefault(row["group"], set()).add((row["source"], row["key"]))
        groups.append({frozenset(group) for group in members.values()})
    assert kept[0] == kept[1]
    assert groups[0] == groups[1]
    assert any(len(group) > 1 for group in groups[0])


def test_five_the_source_is_never_written_to(tmp_path, pictures):
    sources = write_shards(tmp_path / "in", sorted(pictures), pictures)
    before = snapshot(tmp_path / "in")
    finished = run(sources, tmp_path / "out")
    finished.apply(tmp_path / "clean")
    finished.report()
    assert snapshot(tmp_path / "in") == before


def documented_columns(file: str) -> dict[str, str]:
    """The table of a file's columns in docs/manifest.md: name to Arrow's name of the type."""
    text = (ROOT / "docs" / "manifest.md").read_text("utf-8").split(f"## Columns of {file}")[1].split("\n## ")[0]
    arrow = {"float32": "float", "fixed binary (32)": "fixed_size_binary[32]", "list of int64": "list<element: int64>"}
    arrow["list of caption and count"] = "list<element: struct<caption: string, count: int32>>"
    columns = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            names, kind = (cell.strip() for cell in line.split("|")[1:3])
            kind = kind.removesuffix(", null")
            columns |= dict.fromkeys(re.findall(r"`(\w+)`", names), arrow.get(kind, kind))
    return columns


def caption_facts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    counts = Counter(row["caption"] for row in rows if row["caption"])
    if not counts:
        return {"captions": 0, "caption": None, "caption_count": 0}
    caption, count = counts.most_common(1)[0]
    return {"captions": len(counts), "caption": caption, "caption_count": count}


def test_the_files_of_a_run_have_the_documented_columns(tmp_path, pictures):
    finished = run(write_shards(tmp_path / "in", sorted(pictures), pictures), tmp_path / "out")
    for name in ("manifest", "groups"):
        schema = pq.read_schema(finished.path / f"{name}.parquet")
        assert {field.name: str(field.type) for field in schema} == documented_columns(f"{name}.parquet")
    rows = finished.manifest.to_pylist()
    sizes = {row["group"]: row["group_size"] for row in rows}
    for group in pq.read_table(finished.path / "groups.parquet").to_pylist():
        mine = [row for row in rows if row["group"] == group["group"]]
        members = [row["sample"] for row in mine]
        kept = [row["sample"] for row in rows if row["group"] == group["group"] and row["verdict"] == "keep"]
        assert group == {
            "group": min(members), "size": len(members), "kept": len(kept), "removed": len(members) - len(kept),
            "samples": members, "kept_samples": kept, **caption_facts(mine),
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
