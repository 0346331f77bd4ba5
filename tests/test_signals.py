"""A signal is one object: what another package registers is known to every part of a run."""

from __future__ import annotations

import json
import pickle
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import two_signals
from helpers import encode, manifest, python, run, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st

import dedupkit as dk
from dedupkit.clustering import PRESETS, parse_rule
from dedupkit.errors import RuleError
from dedupkit.neighbors import cosine_pairs
from dedupkit.signals import SIGNALS, JoinSettings, find_signal, known_signals, register
from dedupkit.signals.vector_join import facts_before, join_vectors
from dedupkit.signals.vector_plan import search_settings

TESTS = Path(__file__).parent
SIZES = [(200, 100), (200, 150), (300, 151), (120, 60), (90, 90)]


@pytest.fixture
def _two_signals():
    before = dict(SIGNALS)
    two_signals.register_both()
    yield
    SIGNALS.clear()
    SIGNALS.update(before)


@pytest.fixture
def shards(tmp_path, photos) -> list[str]:
    """Two tars with the same five photos in five sizes, so that only size tells."""
    chosen = [photo.convert("RGB") for photo in list(photos.values())[: len(SIZES)]]
    members = [
        (f"{i}.jpg", encode(photo.resize(size), quality=90))
        for i, (photo, size) in enumerate(zip(chosen, SIZES, strict=True))
    ]
    return [str(write_tar(tmp_path / f"{n}.tar", members[n::2])) for n in range(2)]


@pytest.mark.usefixtures("_two_signals")
def test_a_signal_of_another_package_takes_part_in_everything(tmp_path, shards):
    # keys 0, 2, 4 in the first tar, 1, 3 in the second; worker processes measure the aspect
    finished = run(shards, tmp_path / "out", rule="equal_width or near_aspect<=2", workers=2, keep="sample")
    rows = manifest(finished)
    assert {key: row["verdict"] for key, row in rows.items()} == {
        "0": "keep", "1": "remove", "2": "remove", "3": "remove", "4": "keep",
    }  # fmt: skip
    assert (rows["1"]["reason"], rows["2"]["reason"]) == ("equal_width", "near_aspect")
    assert rows["2"]["score"] == 1
    assert rows["3"]["score"] == 0
    assert "hashes" in finished.config
    assert finished.config["hashes"] == ["near_aspect"]

    # deciding again, as far as the edges reach
    narrow = finished.rethreshold("near_aspect<=0")
    assert manifest(narrow)["2"]["verdict"] == "keep"
    with pytest.raises(dk.DedupkitError, match=r"near_aspect<=50.*run again"):
        finished.rethreshold("near_aspect<=50")
    wider = run(shards, tmp_path / "out", rule="near_aspect<=150", keep="sample")
    assert wider.summary["keep"] == 1

    # the report's words
    wider.report()
    page = (wider.path / "report.html").read_text()
    assert "differ by at most 150 hundredths of an octave" in page
    json.loads((wider.path / "report.json").read_text())

    # calibration
    found = run(shards, tmp_path / "calibrated", rule="near_aspect<=20", keep="sample").calibrate(sample=2, workers=1)
    (curve,) = found.facts.curves
    assert curve.signal == "near_aspect"
    assert [row.threshold for row in curve.points] == [10, 20, 30, 40]
    same_aspect = [kind for kind in found.facts.synthetic.transformations if kind.recall.share == 1]
    assert same_aspect, "no transformation keeps the aspect"


@pytest.mark.usefixtures("_two_signals")
def test_rules_take_a_registered_signal_and_its_bounds():
    known = known_signals()
    assert str(parse_rule("near_aspect<=1e1 and equal_width", known)) == "near_aspect<=10 and equal_width"
    with pytest.raises(RuleError, match="from 0 to 1000"):
        parse_rule("near_aspect<=1001", known)
    with pytest.raises(RuleError, match="takes no comparison"):
        parse_rule("equal_width<=1", known)
    with pytest.raises(ValueError, match="already"):
        register(two_signals.EqualWidth("near_aspect"))


def test_the_command_line_knows_what_a_plug_in_registers(tmp_path, shards):
    start = "import two_signals; two_signals.register_both(); from dedupkit.cli.main import main; main()"
    failed = python(
        "-c", start, "run", shards[0], "--out", str(tmp_path / "out"), "--rule", "zzz", env={"PYTHONPATH": str(TESTS)}
    )
    assert failed.returncode == 2
    assert "near_aspect" in failed.stderr
    assert "equal_width" in failed.stderr


@pytest.mark.parametrize("name", [*SIGNALS, "lite"])
def test_every_signal_survives_the_way_to_a_worker_and_says_itself_in_words(name):
    signal = find_signal(name)
    assert pickle.loads(pickle.dumps(signal)) == signal
    assert signal.words(None if signal.kind == "identity" else signal.bounds[1])
    if signal.kind != "identity":
        assert signal.score_words(0.5)
        strata = signal.strata()
        assert strata == sorted(strata, reverse=signal.kind == "similarity")
        floor = 0.5 if signal.kind == "similarity" else 12.0
        assert signal.thresholds(floor)[-1] == floor


@pytest.mark.parametrize("name", ["pdq", "crops", "phash", "lite"])
def test_the_join_the_comparison_and_the_impostors_agree(name):
    signal = find_signal(name)
    draw = np.random.default_rng(0)
    if signal.kind == "similarity":
        rows = draw.normal(size=(40, 8)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    else:
        rows = draw.integers(0, 256, (40, {"pdq": 32, "crops": 192, "phash": 8}[name]), dtype=np.uint8)
    a, b = np.triu_indices(len(rows), 1)
    compared = signal.compare(rows[a], rows[b])
    closeness = signal.scorer(rows).block(0, len(rows))[a, b]
    np.testing.assert_allclose(closeness if signal.kind == "similarity" else -closeness, compared, atol=1e-6)
    if signal.kind == "distance":
        bound = float(np.quantile(compared, 0.2))
        found = {
            (int(x), int(y)): float(score)
            for block in signal.join(rows, JoinSettings(int(bound)))
            for x, y, score in zip(*block, strict=True)
        }
        near = compared <= int(bound)
        assert {(min(pair), max(pair)): score for pair, score in found.items()} == {
            (int(x), int(y)): float(score) for x, y, score in zip(a[near], b[near], compared[near], strict=True)
        }


@pytest.mark.parametrize("device", ["mps", "cuda"])
def test_vectors_are_joined_where_torch_lacks_the_device_of_their_model(device, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as beside onnxruntime-gpu alone
    vectors = np.eye(4, 8, dtype=np.float16)
    vectors[1] = vectors[0]
    settings = JoinSettings(0.9, floor=0.5, device=device)
    found = list(join_vectors("lite", [vectors], settings, facts_before(4, settings)))
    assert [(a.tolist(), b.tolist()) for a, b, _ in found if len(a)] == [([0], [1])]
    how = search_settings(settings)  # of a join in many tasks
    assert len(cosine_pairs(vectors, how.floor, device=how.device)) == 1


numbers = st.floats(-1, 1) | st.sampled_from([1e-05, 1 / 3, 0.1234567891234, -0.25, 1e-300, 0.0, -0.0])
conditions = (
    st.sampled_from(["exact", "pixels", "verified"])
    | st.builds("pdq<={}".format, st.integers(0, 256))
    | st.builds("phash_imagededup<={}".format, st.integers(0, 64))
    | st.builds("my-model>={!r}".format, numbers)
)
rules = st.recursive(
    conditions, lambda part: st.builds("({} {} {})".format, part, st.sampled_from(["and", "or"]), part), max_leaves=8
)


@settings(max_examples=300, deadline=None)
@given(rules | st.sampled_from(sorted(PRESETS)))
def test_a_rule_printed_and_read_again_is_the_same_rule(text):
    known = known_signals(["my-model"])
    try:
        rule = parse_rule(text, known, embedder="my-model")
    except RuleError as error:
        assert "finds no pairs of its own" in str(error) or "alternatives" in str(error)
        return
    again = parse_rule(str(rule), known)
    assert again.clauses == rule.clauses
    assert str(again) == str(rule)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("pdq<=99999999999999999999", "from 0 to 256"),
        ("pdq<=1e999", "from 0 to 256"),
        ("pdq<=-1", "from 0 to 256"),
        ("phash<=65", "from 0 to 64"),
        ("lite>=1.5", "from -1 to 1"),
        ("lite>=-1e5", "from -1 to 1"),
        ("(" * 500 + "exact" + ")" * 500, "nested"),
        ("(" * 100_000, "nested"),
        ("exact or verified", "finds no pairs"),
        ("pdq<=1\x00", "unexpected character"),
        (" or ".join(f"pdq<={n}" for n in range(200)), "alternatives"),
        ("pdq<=٣", "unexpected character"),
    ],
)
def test_a_bound_out_of_reach_or_a_rule_too_deep_is_one_clear_error(text, word):
    with pytest.raises(RuleError, match=word):
        parse_rule(text, known_signals(["lite"]))


@settings(max_examples=300, deadline=None)
@given(st.text("()<>=.andorpdqlite019e+- \t\0", max_size=60) | st.text(max_size=30))
def test_any_text_is_a_rule_or_a_rule_error(text):
    with suppress(RuleError):
        parse_rule(text, known_signals(["lite"]))
