"""Rounds of verification where lists of nearest neighbours are full: what is found, looked at, and said of it."""

import io
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import encode, manifest, run, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import dedupkit as dk
from dedupkit.clustering import parse_rule
from dedupkit.embedding.embedder import unit_rows
from dedupkit.neighbors.cosine import neighbors, overlap
from dedupkit.runfolder import RunFolder
from dedupkit.signals import known_signals
from dedupkit.signals import vector_join as ranking
from dedupkit.sources import find_shards
from dedupkit.stages import features as features_stage
from dedupkit.stages import known_copies, neighbor_lists, rounds
from dedupkit.stages import verify_pairs as pairs_stage
from dedupkit.stages.plan import Job
from dedupkit.stages.planted import PLANTED, plant
from dedupkit.verification import features_of, verify_pair

pytest.importorskip("cv2")

RULE = "exact or (vectors>=0.3 and verified)"
EDITS = {
    "as it is": lambda image: image,
    "crop": lambda image: image.crop((20, 10, 180, 150)),
    "other crop": lambda image: image.crop((0, 15, 170, 160)),
    "mirrored": ImageOps.mirror,
    "small": lambda image: image.resize((150, 120)),
    "turned": lambda image: image.rotate(7),
}


@pytest.fixture(scope="module")
def files(photos):
    base = {name: photos[name].convert("RGB").resize((200, 160)) for name in ("astronaut", "coffee", "chelsea")}
    return {(name, edit): encode(make(image)) for name, image in base.items() for edit, make in EDITS.items()}


@pytest.fixture
def short_lists(monkeypatch):
    """Lists of one neighbour, and batches of three pairs."""

    def shorten(k=1):
        monkeypatch.setattr(ranking, "LEAST_PLACES", 0)
        monkeypatch.setattr(ranking, "_LENGTHS", ((0.0, k),))
        monkeypatch.setattr(rounds, "_LEAST_BATCH", 3)

    return shorten


def made(folder, chosen, files, angles):
    """A tar of the chosen files, and vectors at these angles of one plane."""
    keys = [f"{i:04d}" for i in range(len(chosen))]
    write_tar(folder / "in.tar", [(f"{key}.jpg", files[choice]) for key, choice in zip(keys, chosen, strict=True)])
    vectors = np.column_stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))])
    return str(folder / "in.tar"), (vectors, keys), keys


@cache
def same(one, other):
    return verify_pair(features(one), features(other)).verified


@cache
def features(data):
    return features_of(data)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), k=st.sampled_from([1, 2, 3]))
def test_kept_images_were_held_against_their_nearest_kept_ones(tmp_path_factory, short_lists, files, data, k):
    short_lists(k)
    chosen = data.draw(st.lists(st.sampled_from(sorted(files)), min_size=4, max_size=16))
    angle = {choice: data.draw(st.sampled_from([0, 3, 8, 20, 30, 45])) for choice in dict.fromkeys(chosen)}
    folder = tmp_path_factory.mktemp("rounds")
    source, embed, keys = made(folder, chosen, files, [angle[choice] for choice in chosen])
    finished = run(source, folder / "out", rule=RULE, embed=embed)
    rows = manifest(finished)
    kept = [i for i, key in enumerate(keys) if rows[key]["verdict"] == "keep"]
    for i, key in enumerate(keys):
        if rows[key]["verdict"] == "remove":
            witness = keys.index(rows[key]["kept_key"])
            assert witness in kept
            assert chosen[i] == chosen[witness] or same(files[chosen[i]], files[chosen[witness]])
    vectors = finished_vectors(finished)
    for i in kept:
        cosine = {j: float(vectors[i] @ vectors[j]) for j in kept if j != i}
        for j in sorted(cosine, key=lambda j: (-round(cosine[j], 5), j))[:k]:
            ties = sum(abs(other - cosine[j]) < 1e-4 for other in cosine.values())
            if cosine[j] >= 0.3 and ties <= k:
                assert not same(files[chosen[min(i, j)]], files[chosen[max(i, j)]])
    seen = finished.summary["verification"]
    assert seen["verified"] <= seen["looked_at"] <= seen["candidates"]
    assert 0 <= seen["by_sift"] <= seen["looked_at"]


def finished_vectors(finished):
    return np.concatenate(
        [np.load(path).astype(np.float64) for path in sorted((finished.path / "embeddings" / "vectors").glob("*.npy"))]
    )


def test_a_group_larger_than_any_list_is_removed_in_rounds(tmp_path, short_lists, files):
    short_lists(2)
    chosen = [choice for choice in files if choice[0] == "astronaut"] * 1 + [("coffee", "as it is")]
    source, embed, _ = made(tmp_path, chosen, files, [0, 1, 2, 3, 4, 5, 2.5])
    finished = run(source, tmp_path / "out", rule=RULE, embed=embed)
    assert finished.summary["keep"] == 2
    seen = finished.summary["verification"]
    assert seen["looked_at"] < len(list(itertools.combinations(chosen, 2)))
    assert seen["rounds"] >= 1
    shown = dict(finished.rows())["verification"]
    assert f"{seen['looked_at']} looked at" in shown


def test_rounds_end_where_the_score_of_a_passed_on_pair_was_rounded_otherwise(
    tmp_path, short_lists, files, monkeypatch
):
    short_lists(1)
    monkeypatch.setattr(neighbor_lists, "_LONGEST", 1)
    monkeypatch.setattr(rounds, "_LEAST_BATCH", 1)
    exact, search, searched = neighbor_lists.pair_scores, neighbor_lists.NeighborLists.search, []

    def counted(lists, kept):
        searched.append(kept)
        assert len(searched) < 20
        return search(lists, kept)

    monkeypatch.setattr(neighbor_lists, "pair_scores", lambda *asked: np.nextafter(exact(*asked), np.float32(-1)))
    monkeypatch.setattr(neighbor_lists.NeighborLists, "search", counted)
    whole = Image.open(io.BytesIO(files["astronaut", "as it is"]))
    # The right half goes for the whole, then this for the left half; the halves are each other's nearest then.
    left, right = whole.crop((0, 0, 110, 160)), whole.crop((90, 0, 200, 160))
    parts = {"left": encode(left), "whole": encode(whole), "right": encode(right)}
    source, embed, keys = made(tmp_path, list(parts), parts, [3, 1, 0])
    rows = manifest(run(source, tmp_path / "out", rule=RULE, embed=embed, keep="sample"))
    assert [rows[key]["verdict"] for key in keys] == ["keep", "remove", "keep"]
    assert searched


def test_an_image_seeks_its_neighbours_by_the_vector_of_any_of_its_files(tmp_path, short_lists, files):
    short_lists(1)
    chosen = [("astronaut", edit) for edit in ("as it is", "as it is", "small", "crop")]
    source, (vectors, keys), _ = made(tmp_path, chosen, files, [0, 0, 5, 12])
    finished = run(source, tmp_path / "out", rule=RULE, embed=(vectors[1:], keys[1:]))
    assert finished.manifest["kept_key"].to_pylist() == [None, *[keys[0]] * 3]
    assert finished.summary["verification"]["rounds"] > 1


def test_lists_that_are_not_full_leave_nothing_out(tmp_path, files):
    chosen = [choice for choice in files if choice[0] != "coffee"]
    source, embed, _ = made(tmp_path, chosen, files, np.arange(len(chosen)))
    finished = run(source, tmp_path / "out", rule=RULE, embed=embed)
    pairs = len(chosen) * (len(chosen) - 1) // 2
    seen = finished.summary["verification"]
    assert (seen["candidates"], seen["looked_at"], seen["capped"], seen["rounds"]) == (pairs, pairs, 0, 1)
    again = finished.decide("exact or (vectors>=0.9 and verified)", keep="nbytes, sample")  # whatever the policy
    assert again.summary["keep"] >= 2


def test_what_full_lists_left_out_is_said_when_deciding_again(tmp_path, short_lists, files):
    short_lists(1)
    chosen = list(files)
    source, embed, _ = made(tmp_path, chosen, files, np.arange(len(chosen)) * 2)
    finished = run(source, tmp_path / "out", rule=RULE, embed=embed)
    assert finished.decide(RULE).summary["keep"] == finished.summary["keep"]
    for rule, keep in ((RULE, "nbytes, sample"), ("exact or (vectors>=0.5 and verified)", None)):
        with pytest.raises(dk.DedupkitError, match="keep policy needs pairs that this run has not verified; run again"):
            finished.decide(rule, keep=keep)
    with pytest.raises(dk.DedupkitError, match="run again"):
        finished.decide("exact or vectors>=0.9")
    other = run(source, tmp_path / "out", rule=RULE, embed=embed, keep="nbytes, sample")
    fresh = run(source, tmp_path / "fresh", rule=RULE, embed=embed, keep="nbytes, sample")
    assert other.manifest.equals(fresh.manifest)
    every = run(source, tmp_path / "out", rule="exact or vectors>=0.9", embed=embed)
    assert every.manifest.equals(run(source, tmp_path / "all", rule="exact or vectors>=0.9", embed=embed).manifest)


def test_workers_and_a_second_call_change_nothing(tmp_path, short_lists, files):
    short_lists(1)
    source, embed, _ = made(tmp_path, list(files), files, np.arange(len(files)) * 2)
    outputs = []
    for workers in (1, 2):
        finished = dk.dedup(source, tmp_path / f"out{workers}", rule=RULE, embed=embed, workers=workers)
        outputs.append((finished.path / "manifest.parquet").read_bytes())
        assert not (finished.path / "edges" / "verified" / "parts").exists()
    before = {path: path.stat().st_mtime_ns for path in (finished.path / "edges").rglob("*")}
    again = dk.dedup(source, finished.path, rule=RULE, embed=embed)
    assert {path: path.stat().st_mtime_ns for path in (again.path / "edges").rglob("*")} == before
    assert outputs[0] == outputs[1]


def test_little_room_on_disk_changes_nothing(tmp_path, short_lists, files, monkeypatch):
    """Features that have no room are computed again; a part of a batch needs those of its own images alone."""
    short_lists(2)
    source, embed, _ = made(tmp_path, list(files), files, np.arange(len(files)) * 2)
    whole = run(source, tmp_path / "whole", rule=RULE, embed=embed)
    monkeypatch.setattr(features_stage, "MOST_BYTES", 4 * 90_000)
    monkeypatch.setattr(pairs_stage, "_PAIRS_PER_TASK", 2)
    computed = []
    write = features_stage.write_features

    def counted(path, shard, file, start, samples):
        computed.extend(samples)
        return write(path, shard, file, start, samples)

    monkeypatch.setattr(features_stage, "write_features", counted)
    narrow = run(source, tmp_path / "narrow", rule=RULE, embed=embed)
    assert narrow.manifest.equals(whole.manifest)
    assert narrow.summary["verification"] == whole.summary["verification"]
    assert len(computed) > len(set(computed))


class Thumbnails:
    """An embedder of 8x8 grey pixels."""

    name, dim, key, min_side, precision, device = "tiny", 64, "thumbnails", 8, "float32", "cpu"

    def preprocess(self, image):
        return np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))

    def encode(self, batch):
        grey = batch.astype(np.float32).mean(axis=3).reshape(len(batch), 64)
        grey -= grey.mean(axis=1, keepdims=True)
        return grey / np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)


def test_what_the_lists_would_hold_is_measured_by_planted_copies(tmp_path, short_lists, files):
    short_lists(1)
    source, _, _ = made(tmp_path, list(files), files, np.zeros(len(files)))
    rule = "exact or (tiny>=-0.9 and verified)"
    finished = run(source, tmp_path / "out", rule=rule, embed=Thumbnails())
    seen = finished.summary["verification"]
    assert seen["capped"]
    planted = seen["planted"]["tiny"]
    kept = finished.summary["keep"]
    assert planted["copies"] == len(PLANTED) * kept
    assert 0 < planted["low"] <= planted["estimate"] <= planted["high"] <= 1
    shown = dict(finished.rows())
    held, of = round(planted["estimate"] * planted["above_floor"]), planted["above_floor"]
    assert shown["  planted copies that the lists of tiny hold"].startswith(f"{held} of {of} (95 %: ")
    assert shown["  neighbour lists full for"].startswith(f"{seen['capped']} kept images")
    # Worked out from all cosines: a copy is held where its original or the copy itself comes first.
    kept_samples = np.array(finished.kept["sample"].to_pylist())
    job = Job(
        RunFolder(finished.path),
        find_shards(source),
        parse_rule(rule, known_signals(["tiny"])),
        given={"tiny": Thumbnails()},
    )
    copies = plant(job, "tiny", kept_samples)
    vectors = np.concatenate([np.load(p) for p in sorted((finished.path / "embeddings" / "tiny").glob("*.npy"))])
    kept_vectors = unit_rows(vectors[kept_samples].astype(np.float32))
    held = 0
    for vector, original in zip(copies.vectors, copies.original, strict=True):
        own = kept_vectors[kept_samples == original][0]
        others = kept_vectors[kept_samples != original]
        held += min((others @ vector > own @ vector + 1e-4).sum(), (others @ own > own @ vector + 1e-4).sum()) < 1
    assert planted["estimate"] == pytest.approx(held / planted["above_floor"])


def test_copies_of_the_images_of_a_run_choose_the_cells_of_its_search(tmp_path, short_lists, monkeypatch):
    short_lists(2)
    rng = np.random.default_rng(0)
    scenes = [
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((160, 160), Image.Resampling.BICUBIC)
        for _ in range(70)
    ]
    members = [(f"{number:04d}.jpg", encode(image)) for number, image in enumerate(scenes)]
    members += [(f"{number:04d}.jpg", encode(scenes[number - 70].resize((120, 120)))) for number in range(70, 90)]
    source = str(write_tar(tmp_path / "in.tar", members))
    rule = "exact or (tiny>=0.3 and verified)"
    exact = run(source, tmp_path / "exact", rule=rule, embed=Thumbnails())
    assert not RunFolder(exact.path).known_copies("tiny").exists()
    monkeypatch.setattr(neighbors, "EXACT_PAIRS", 0)
    monkeypatch.setattr(known_copies, "KNOWN_FROM", 0)
    monkeypatch.setattr(overlap, "WORTHWHILE", 1e9)
    finished = run(source, tmp_path / "cells", rule=rule, embed=Thumbnails())
    with np.load(RunFolder(finished.path).known_copies("tiny")) as arrays:
        assert 70 <= len(arrays["left"]) <= 90
        assert (np.bincount(arrays["of"]) == len(PLANTED)).all()
        near = np.einsum("ij,ij->i", arrays["left"].astype(np.float32)[arrays["of"]], arrays["right"])
    recall = finished.summary["recall"]["tiny"]
    assert 0.9 < recall["low"] <= recall["estimate"] <= 1
    assert near.max() > 0.9
    assert finished.summary["remove"] == exact.summary["remove"] == 20
    before = RunFolder(finished.path).known_copies("tiny").stat()
    again = run(source, tmp_path / "cells", rule="exact or (tiny>=0.35 and verified)", embed=Thumbnails())
    assert again.summary["recall"]["tiny"]["estimate"] > 0.9  # joined again, by the same copies
    assert RunFolder(finished.path).known_copies("tiny").stat() == before


def test_a_pair_above_the_bound_of_another_alternative_needs_no_list(tmp_path, short_lists, files):
    short_lists(1)
    chosen = list(files)
    source, embed, _ = made(tmp_path, chosen, files, np.arange(len(chosen)) * 2)
    both = run(source, tmp_path / "both", rule="vectors>=0.99 or (vectors>=0.3 and verified)", embed=embed)
    bare = run(source, tmp_path / "bare", rule="vectors>=0.99", embed=embed)
    bare_removed = {row["key"] for row in bare.removed.to_pylist()}
    assert bare_removed and len(both.removed) >= len(bare_removed)
    vectors = finished_vectors(both)
    kept = [row["sample"] for row in both.kept.to_pylist()]
    for i, j in itertools.combinations(kept, 2):
        assert vectors[i] @ vectors[j] < 0.9905


def test_what_an_earlier_run_removes_stands_for_nothing_in_rounds(tmp_path, short_lists, files):
    short_lists(1)
    old, freed, like = ("astronaut", "as it is"), ("astronaut", "small"), ("astronaut", "crop")
    best, other = ("astronaut", "other crop"), ("coffee", "as it is")
    assert same(files[old], files[best]) and same(files[best], files[freed]) and same(files[freed], files[like])
    (tmp_path / "old").mkdir()
    source, embed, _ = made(tmp_path / "old", [old], files, [0])
    before = run(source, tmp_path / "before", rule=RULE, embed=embed)
    # The old image reaches only the best new one, for which the next would go; its other copy stands behind a list.
    source, embed, keys = made(tmp_path, [best, freed, like, other], files, [60, 110, 165, 175])
    alone = manifest(run(source, tmp_path / "alone", rule=RULE, embed=embed))
    assert [alone[key]["verdict"] for key in keys] == ["keep", "remove", "keep", "keep"]
    after = manifest(dk.update(before.path, source, tmp_path / "after", embed=embed, workers=0))
    assert [after[key]["verdict"] for key in keys] == ["remove", "remove", "keep", "keep"]
    assert after[keys[0]]["kept_source"] == str(before.path)
    assert after[keys[1]]["kept_key"] == keys[2]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), k=st.sampled_from([1, 2, 4]), how=st.sampled_from(["update", "against"]))
def test_a_new_image_goes_for_one_of_its_nearest_old_ones(tmp_path_factory, short_lists, files, data, k, how):
    short_lists(k)
    old = data.draw(st.lists(st.sampled_from(sorted(files)), min_size=3, max_size=12, unique=True))
    new = data.draw(st.lists(st.sampled_from(sorted(set(files) - set(old))), min_size=1, max_size=5, unique=True))
    angles = data.draw(st.permutations(range(0, 5 * (len(old) + len(new)), 5)))
    folder = tmp_path_factory.mktemp("old")
    (folder / "new").mkdir()
    source, embed, _ = made(folder, old, files, angles[: len(old)])
    before = run(source, folder / "before", rule="exact", embed=embed)
    source, embed, keys = made(folder / "new", new, files, angles[len(old) :])
    options = {"rule": RULE, "embed": embed, "workers": 0}
    if how == "update":
        after = dk.update(before.path, source, folder / "after", **options)
    else:
        after = dk.dedup(source, folder / "after", against=str(before.path), **options)
    rows, seen = manifest(after), after.summary["verification"]["references"]
    gone = {key for key in keys if rows[key]["kept_source"] == str(before.path)}
    apart = np.abs(np.subtract.outer(angles[len(old) :], angles[: len(old)]))
    most = 0
    for key, choice, distance in zip(keys, new, apart, strict=True):
        near = [i for i in np.argsort(distance, kind="stable") if np.cos(np.radians(distance[i])) >= 0.3]
        ties = np.isin(distance[near[:k]], distance[near[k:]]).any()
        holds = [same(files[min(choice, old[i])], files[max(choice, old[i])]) for i in near[:k]]
        assert ties or (key in gone) == any(holds)
        most += len(holds)
    assert seen["verified"] <= seen["looked_at"] <= seen["candidates"] <= most
    if how == "update":
        assert after.decide(RULE).summary["keep"] == after.summary["keep"]


def test_an_update_looks_further_down_a_list_only_where_nothing_held(tmp_path, short_lists, files):
    short_lists(4)
    (tmp_path / "old").mkdir()
    strangers = [("coffee", "as it is"), ("chelsea", "as it is"), ("coffee", "crop"), ("chelsea", "crop")]
    dense = [("coffee", "mirrored"), ("coffee", "small"), ("chelsea", "small"), ("chelsea", "mirrored")]
    angles = [10, 22, 30, 60, 35, 80, 81, 82, 83]
    source, embed, _ = made(tmp_path / "old", [*strangers, ("astronaut", "as it is"), *dense], files, angles)
    before = run(source, tmp_path / "before", rule="exact", embed=embed)
    chosen = [("astronaut", "crop"), ("astronaut", "small"), ("chelsea", "turned"), ("astronaut", "turned")]
    source, embed, keys = made(tmp_path, chosen, files, [12, 37, 33, 81.5])
    finished = dk.update(before.path, source, tmp_path / "after", rule=RULE, embed=embed, workers=0)
    rows = manifest(finished)
    assert [rows[key]["kept_key"] for key in keys] == ["0004", "0004", "0001", None]  # the fourth, first and third
    seen = finished.summary["verification"]["references"]
    # In the first round the nearest, and the two above the score from which on all pairs are listed; then the second
    # (or third) of the three that are open, then the rest.
    assert seen == {"candidates": 16, "looked_at": 5 + 3 + 5, "verified": 3, "unseen": 0, "capped": 1, "rounds": 3}
    assert "looked at in 3 rounds" in dict(finished.rows())["verification with references"]
    with pytest.raises(dk.DedupkitError, match="pairs that were not verified"):
        finished.decide("exact or (vectors>=0.5 and verified)")


def test_an_update_over_many_images_looks_at_few_pairs(tmp_path, files):
    """Strangers that all look alike to the descriptor: with a threshold each new image would be held against each."""
    rng = np.random.default_rng(0)
    sides = []
    for name, count in (("old", 1200), ("new", 40)):
        keys = [f"{name}{i:04d}" for i in range(count)]
        noise = [encode(Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), "PNG") for _ in range(count)]
        tar = write_tar(tmp_path / f"{name}.tar", [(f"{key}.png", data) for key, data in zip(keys, noise, strict=True)])
        vectors = rng.normal(size=(count, 64)) + 2
        sides.append((str(tar), (vectors, keys)))
    before = run(sides[0][0], tmp_path / "before", rule="exact", embed=sides[0][1])
    after = dk.update(before.path, sides[1][0], tmp_path / "after", rule=RULE, embed=sides[1][1], workers=0)
    seen = after.summary["verification"]["references"]
    assert 0 < seen["looked_at"] <= 4 * 40
    assert (seen["verified"], seen["capped"]) == (0, 40)
    options = {"rule": "exact", "against": str(before.path), "against_rule": RULE, "embed": sides[1][1], "workers": 0}
    only = dk.dedup(sides[1][0], tmp_path / "only", **options)
    assert only.summary["verification"] == {"references": seen}
    assert "verification with references" in dict(only.rows())


def test_images_that_changed_since_are_looked_at_as_they_are_now(tmp_path):
    rng = np.random.default_rng(0)  # noise has as many corners as are kept, so that the features have one length
    one, other = (Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).resize((320, 320)) for _ in range(2))
    files = {"one": encode(one), "copy": encode(ImageOps.mirror(one)), "other": encode(other)}
    source, embed, _ = made(tmp_path, ["one", "copy"], files, [0, 1])
    assert run(source, tmp_path / "out", rule=RULE, embed=embed).summary["keep"] == 1
    made(tmp_path, ["one", "other"], files, [0, 1])
    assert run(source, tmp_path / "out", rule=RULE, embed=embed).summary["keep"] == 2


def test_candidates_that_a_new_background_lets_through_are_looked_at(tmp_path, files):
    chosen = [("astronaut", "as it is"), ("astronaut", "crop")]
    source, (vectors, keys), _ = made(tmp_path, chosen, files, [0, 10])
    np.savez(tmp_path / "v.npz", embedding=vectors, key=np.array(keys))
    background = tmp_path / "background.npy"
    options = {"embed": f"precomputed:{tmp_path / 'v.npz'}?name=mine&background={background}"}
    for vector, keep in ((vectors.sum(axis=0), 2), ([0, 1], 1)):  # like both, so that nothing stands out; like none
        np.save(background, np.tile(np.float32(vector), (20, 1)))
        finished = run(source, tmp_path / "out", rule="exact or (mine>=0.4 and verified)", **options)
        assert finished.summary["keep"] == keep


def test_images_of_a_shard_of_an_earlier_run_that_is_gone_are_looked_at_once_it_is_back(tmp_path, files, monkeypatch):
    (tmp_path / "old").mkdir()
    old, embed, _ = made(tmp_path / "old", [("astronaut", "as it is")], files, [0])
    before = run(old, tmp_path / "before", rule="exact", embed=embed)
    source, embed, keys = made(tmp_path, [("astronaut", "as it is"), ("astronaut", "crop")], files, [0, 5])
    Path(old).rename(tmp_path / "away.tar")

    def updated():
        return dk.update(
            before.path,
            source,
            tmp_path / "after",
            rule="exact or (vectors>=0.99 and verified)",
            embed=embed,
            workers=0,
        )

    after = updated()
    assert [manifest(after)[key]["verdict"] for key in keys] == ["remove", "keep"]
    assert after.summary["verification"]["references"]["unseen"] == 1
    assert dict(after.rows())["  not looked at"] == "1, as an image could not be read again"
    with monkeypatch.context() as patch:
        patch.setattr(pairs_stage.PairVerifier, "verify", None)
        updated()  # while it is gone, there is nothing to look at
    (tmp_path / "away.tar").rename(old)
    after = updated()
    assert [manifest(after)[key]["verdict"] for key in keys] == ["remove", "remove"]
    assert after.summary["verification"]["references"]["unseen"] == 0
    assert "  not looked at" not in dict(after.rows())
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(pairs_stage, "_FORMAT", 0)  # a version with other verdicts looks again
        patch.setattr("dedupkit.stages.verify_across.verify_across", None)
        updated()


def test_images_that_could_not_be_read_again_are_looked_at_by_the_next_call(tmp_path, files, monkeypatch):
    source, embed, _ = made(tmp_path, [("astronaut", "as it is"), ("astronaut", "crop")], files, [0, 5])
    with monkeypatch.context() as patch:
        patch.setattr(features_stage, "read_images", lambda *_, **__: iter(()))
        first = run(source, tmp_path / "out", rule=RULE, embed=embed)
    assert (first.summary["keep"], first.summary["verification"]["unseen"]) == (2, 1)
    assert dict(first.rows())["  not looked at"] == "1, as an image could not be read again"
    second = run(source, tmp_path / "out", rule=RULE, embed=embed)
    assert (second.summary["keep"], second.summary["verification"]["unseen"]) == (1, 0)
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(pairs_stage, "FEATURES_FORMAT", 0)  # a version with other features looks again
        patch.setattr(pairs_stage.PairVerifier, "verify", None)
        run(source, tmp_path / "out", rule=RULE, embed=embed)
