"""Projections learned from transformed copies: the fit, the file, and runs that make, name and share one."""

import json
import logging
import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, run, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import dedupkit as dk
from dedupkit.clustering import parse_rule
from dedupkit.embedding import (
    Projected,
    Projection,
    embedder_key,
    fit_projection,
    held_out,
    load_embedder,
    load_projection,
    separation,
)
from dedupkit.embedding.spec import LEAST_IMAGES
from dedupkit.engine import ThisProcess
from dedupkit.engine.task import execute
from dedupkit.engine.travel import bring_results, pack, unpack
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunFolder
from dedupkit.signals import known_signals
from dedupkit.signals import vector_join as ranking
from dedupkit.sources import find_shards
from dedupkit.stages.plan import Job
from dedupkit.stages.project import fit_projections
from dedupkit.stages.run import scan_and_embed, scan_samples
from dedupkit.store import here
from dedupkit.workflows.search import Search


def made(images=120, copies=4, d=24, seed=0):
    """Vectors of images, and of copies that differ from them in a third of the directions."""
    rng = np.random.default_rng(seed)
    originals = rng.normal(size=(images, d)).astype(np.float32)
    original = np.repeat(np.arange(images), copies)
    edit = np.where(np.arange(d) < d // 3, 1.5, 0.05)
    return originals, (originals[original] + rng.normal(size=(len(original), d)) * edit).astype(np.float32), original


# The fit


def test_a_fit_tells_images_apart_that_it_did_not_know():
    before, after, own = held_out(*made(), dims=16)
    assert after.strangers < before.strangers / 5
    assert before.first < after.first <= 1
    assert len(own) == after.copies == before.copies == 480
    assert np.mean(own >= after.threshold) >= 0.99


@settings(max_examples=25, deadline=None)
@given(images=st.integers(2, 40), d=st.integers(2, 20), dims=st.integers(1, 30), seed=st.integers(0, 99))
def test_projected_vectors_have_unit_length_and_missing_ones_stay_missing(images, d, dims, seed):
    originals, copies, original = made(images, 2, d, seed)
    projection = fit_projection(originals, copies, original, dims=dims)
    vectors = np.concatenate([originals, np.zeros((1, d)), np.full((1, d), np.nan)]).astype(np.float32)
    projected = projection(vectors)
    assert projected.shape == (images + 2, projection.dim) and projection.dim <= min(dims, d)
    length = np.linalg.norm(projected[:-2], axis=1)
    assert np.allclose(length[length > 0], 1, atol=1e-5)
    assert not projected[-2].any() and np.isnan(projected[-1]).all()


def test_the_separation_is_what_counting_gives():
    originals, copies, original = made(30, 2)
    found = separation(originals, copies, original, recall=0.9)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (originals, copies)]
    own = (unit[1] * unit[0][original]).sum(axis=1)
    assert np.mean(own >= found.threshold - 1e-4) >= 0.9
    over = first = 0
    for copy, at, score in zip(unit[1], original, own, strict=True):
        others = np.delete(unit[0], at, axis=0)
        over += (others @ copy >= np.sort(own)[6]).sum()
        first += min((others @ copy > score).sum(), (others @ unit[0][at] > score).sum()) == 0
    assert found.strangers == pytest.approx(over / found.pairs) and found.pairs == len(copies) * 29
    assert found.first == pytest.approx(first / len(copies))


@pytest.mark.parametrize(
    ("originals", "copies", "message"),
    [
        (np.ones((5, 3)), np.ones((5, 3)), "same vector"),
        (np.eye(5), np.full((5, 5), np.nan), "0 copies"),
        (np.full((5, 3), np.nan), np.ones((5, 3)), "0 images"),
    ],
)
def test_vectors_that_cannot_be_fitted_are_said(originals, copies, message):
    with pytest.raises(DedupkitError, match=message):
        fit_projection(originals, copies, np.arange(5))


def test_rows_with_nan_are_left_out_of_a_fit():
    originals, copies, original = made()
    with_nan = copies.copy()
    with_nan[::7] = np.nan
    keep = np.isfinite(with_nan).all(axis=1)
    fitted, expected = (
        fit_projection(originals, with_nan, original),
        fit_projection(originals, copies[keep], original[keep]),
    )
    assert np.array_equal(fitted.matrix, expected.matrix)


# The file


def test_a_file_holds_the_projection_and_the_same_projection_gives_the_same_bytes(tmp_path):
    projection = fit_projection(*made(), dims=8, model="abc")
    for name in ("a.npz", "b.npz"):
        projection.save(tmp_path / name)
    again = load_projection(tmp_path / "a.npz")
    vectors = made(seed=1)[0]
    assert np.array_equal(again(vectors), projection(vectors)) and again.model == "abc"
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_is_no_projection_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", vectors=np.eye(3))
    whole = Projection(np.zeros(3, np.float32), np.eye(3, dtype=np.float32))
    whole.save(tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:200])
    for name, message in (
        ("text", "no projection"),
        ("other", "no projection"),
        ("cut", "no projection"),
        ("gone", "no such file"),
    ):
        with pytest.raises(DedupkitError, match=message):
            load_projection(tmp_path / f"{name}.npz")
    with pytest.raises(DedupkitError, match="another model"):
        whole(np.ones((2, 4)))


# Runs


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos):
    """A hundred windows of photos, and a copy of some of them."""
    rng = np.random.default_rng(0)
    members = []
    for number in range(100):
        photo = photos[("astronaut", "coffee", "chelsea", "rocket")[number % 4]].convert("RGB")
        side = int(rng.integers(90, 160))
        left, top = rng.integers(0, photo.width - side), rng.integers(0, photo.height - side)
        window = photo.crop((left, top, left + side, top + side)).resize((128, 128))
        members.append((f"{number:03d}.jpg", encode(window)))
        if number % 20 == 0:
            members.append((f"{number:03d}-copy.jpg", encode(window.crop((9, 4, 120, 118)))))
    return str(write_tar(tmp_path_factory.mktemp("windows") / "00000.tar", members))


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A small network of random weights, as an ONNX file."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    write_net(path)
    return path


def write_net(path, seed=0, width=48):
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(seed)
    weights = numpy_helper.from_array(rng.normal(size=(width, 3, 7, 7)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 64, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width, 1, 1])
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


RULE = "exact or net>=0.95"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, source, net):
    spec = f"onnx:{net}?project=copies&dims=16"
    return run(source, tmp_path_factory.mktemp("fitted") / "out", rule=RULE, embed=spec)


def vectors_of(finished, name="net"):
    return np.load(finished.path / "embeddings" / name / "00000.npy")


def test_a_run_fits_a_projection_to_its_own_images_and_says_what_it_gains(fitted, source, net, tmp_path):
    file = fitted.path / "projections" / "net.npz"
    assert file.stat().st_size < 20_000
    plain = run(source, tmp_path / "plain", rule="exact", embed=f"onnx:{net}")
    expected = load_projection(file)(vectors_of(plain).astype(np.float32))
    assert vectors_of(fitted).shape == (len(vectors_of(plain)), 16)
    assert np.allclose(vectors_of(fitted), expected, atol=0.01)
    facts = fitted.summary["projections"]["net"]
    assert facts["fitted"] and facts["dims"] == [48, 16] and LEAST_IMAGES <= facts["images"] <= 105
    assert 0 <= facts["after"]["strangers"] < facts["before"]["strangers"] < 1
    assert facts["after"]["pairs"] == facts["before"]["pairs"] > 10_000
    json.dumps(fitted.summary)
    shown = " ".join(f"{label} {text}" for label, text in fitted.rows())
    assert "projection of net" in shown and "stranger" in shown
    assert fitted.config["embedders"]["net"].endswith("project=copies&dims=16")


def test_a_second_call_computes_nothing_again_and_another_seed_is_another_fit(source, net, tmp_path):
    spec = f"onnx:{net}?project=copies&dims=16"
    first = run(source, tmp_path / "out", rule=RULE, embed=spec)
    projection = (first.path / "projections" / "net.npz").read_bytes()
    made_by = [first.path / "projections" / "net.npz", first.path / "embeddings" / "net" / "00000.npy"]
    before = [path.stat().st_mtime_ns for path in made_by]
    run(source, tmp_path / "out", rule=RULE, embed=spec)
    assert [path.stat().st_mtime_ns for path in made_by] == before
    other = dk.dedup(source, tmp_path / "workers", rule=RULE, embed=spec, workers=2)
    assert (other.path / "manifest.parquet").read_bytes() == (first.path / "manifest.parquet").read_bytes()
    assert (other.path / "projections" / "net.npz").read_bytes() == projection
    fewer = []
    for seed in (0, 1):
        run(source, tmp_path / "out", rule=RULE, embed=f"{spec}&sample=90", seed=seed)
        fewer.append((first.path / "projections" / "net.npz").read_bytes())
    assert len({projection, *fewer}) == 3


def test_a_projection_is_named_again_and_shared(fitted, source, net, tmp_path):
    shared = shutil.copy(fitted.path / "projections" / "net.npz", tmp_path / "shared.npz")
    named = run(source, tmp_path / "named", rule=RULE, embed=f"onnx:{net}?project={shared}")
    assert np.array_equal(vectors_of(named), vectors_of(fitted))
    assert named.manifest.equals(fitted.manifest)
    model = load_embedder(f"onnx:{net}?project={shared}")
    by_hand = Projected(load_embedder(f"onnx:{net}"), load_projection(shared))
    batch = np.stack([model.preprocess(Image.new("RGB", (64, 64), "red"))])
    assert np.allclose(model.encode(batch), by_hand.encode(batch))
    assert model.dim == by_hand.dim == 16 and model.key == embedder_key(f"onnx:{net}?project={shared}")


def test_a_moved_run_still_knows_its_projection(fitted, tmp_path):
    moved = shutil.copytree(fitted.path, tmp_path / "moved")
    shutil.move(fitted.path / "projections", fitted.path / "elsewhere")
    try:
        found = dk.Run(moved).calibrate(sample=2, workers=1)
        assert found.facts.synthetic.count == 50
    finally:
        shutil.move(fitted.path / "elsewhere", fitted.path / "projections")


def test_an_update_takes_the_projection_of_the_run_that_it_updates(fitted, photos, tmp_path):
    window = photos["coffee"].convert("RGB").crop((50, 50, 250, 250)).resize((128, 128))
    new = write_tar(tmp_path / "new.tar", [("a.jpg", encode(window)), ("b.jpg", encode(window, quality=60))])
    after = dk.update(fitted.path, str(new), tmp_path / "after", workers=0)
    assert vectors_of(after).shape == (2, 16)
    assert "projections" not in after.summary  # nothing is fitted again
    assert sum(row["verdict"] == "remove" for row in after.manifest.to_pylist()) >= 1
    shutil.move(fitted.path / "projections", fitted.path / "elsewhere")
    try:  # the update keeps a projection of its own
        found = Search(after.path).image(window).found
    finally:
        shutil.move(fitted.path / "elsewhere", fitted.path / "projections")
    assert found[0].key == "a"


def test_a_machine_that_shares_a_bucket_alone_embeds_with_the_projection(fitted, source, net, tmp_path, monkeypatch):
    class AnotherMachine(ThisProcess):
        def run(self, tasks, out, **_):
            parcels = [pack(task, out) for task in tasks]
            (tmp_path / "here").rename(tmp_path / "out of sight")
            with monkeypatch.context() as there:
                there.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "there"))
                results = [execute(*unpack(parcel)) for parcel in parcels]
            (tmp_path / "out of sight").rename(tmp_path / "here")
            bring_results(tasks, out)
            return results

    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "here"))
    specs, engine = {"net": f"onnx:{net}?project=copies&dims=16"}, AnotherMachine()
    folder = RunFolder(f"memory://{tmp_path.name}/run")
    job = Job(folder, find_shards(source), parse_rule("exact", known_signals(specs)), embedders=specs)
    specs, _ = fit_projections(job, scan_samples(job, engine), None)
    scan_and_embed(replace(job, embedders=specs), engine)
    (vectors,) = here([folder.embeddings("net", 0)])
    assert np.array_equal(np.load(vectors), vectors_of(fitted))


def test_vectors_that_exist_take_a_projection_that_is_named(fitted, net, source, tmp_path):
    file = fitted.path / "projections" / "net.npz"
    plain = run(source, tmp_path / "plain", rule="exact", embed=f"onnx:{net}")
    table = pa.table(
        {
            "key": plain.manifest.to_table()["key"] if hasattr(plain.manifest, "to_table") else plain.manifest["key"],
            "embedding": vectors_of(plain).astype(np.float32).tolist(),
        }
    )
    pq.write_table(table, tmp_path / "given.parquet")
    spec = f"precomputed:{tmp_path / 'given.parquet'}?name=net"
    given_ = run(source, tmp_path / "given", rule=RULE, embed=f"{spec}&project={file}")
    assert np.allclose(vectors_of(given_), vectors_of(fitted), atol=0.01)
    with pytest.raises(DedupkitError, match=r"no model here that could embed transformed copies.*project=FILE"):
        run(source, tmp_path / "not", rule=RULE, embed=f"{spec}&project=copies")


def test_a_projection_of_another_model_is_refused(fitted, source, tmp_path):
    file = fitted.path / "projections" / "net.npz"
    for name, options in (("weights", {"seed": 1}), ("width", {"width": 32})):
        write_net(tmp_path / f"{name}.onnx", **options)
        with pytest.raises(DedupkitError, match=r"net\.npz was fitted for another model"):
            run(source, tmp_path / name, rule="exact", embed=f"onnx:{tmp_path / name}.onnx?name=net&project={file}")
    pq.write_table(pa.table({"key": ["a"], "embedding": [[1.0, 2.0]]}), tmp_path / "two.parquet")
    with pytest.raises(DedupkitError, match="takes vectors of 48 values, net has 2"):
        run(
            source,
            tmp_path / "two",
            rule="exact",
            embed=f"precomputed:{tmp_path / 'two.parquet'}?name=net&project={file}",
        )


@pytest.mark.parametrize("why", ["few", "small", "alike", "no memory"])
def test_where_nothing_can_be_fitted_the_run_goes_without_and_says_why(
    why, source, net, photos, tmp_path, caplog, monkeypatch
):
    photo = photos["astronaut"].convert("RGB")
    windows = [photo.crop((4 * i, 2 * i, 4 * i + 160, 2 * i + 160)) for i in range(80)]
    if why in ("few", "no memory"):
        windows = windows[:5]
    elif why == "small":
        windows = [window.resize((20, 20)) for window in windows]
    else:
        windows = [photo.resize((128 + i, 128)) for i in range(80)]
    if why == "no memory":
        monkeypatch.setattr("dedupkit.stages.copies.decode_rgb", Mock(side_effect=MemoryError))
    tar = write_tar(tmp_path / "in.tar", [(f"{i:03d}.jpg", encode(window)) for i, window in enumerate(windows)])
    with caplog.at_level(logging.WARNING, "dedupkit"):
        finished = run(str(tar), tmp_path / "out", rule="exact or net>=0.999", embed=f"onnx:{net}?project=copies")
    facts = finished.summary["projections"]["net"]
    assert not facts["fitted"] and "floor" not in facts
    assert f"needs {LEAST_IMAGES} different images" in facts["reason"] and facts["reason"] in caplog.text
    assert any(facts["reason"] in text for _, text in finished.rows())
    assert vectors_of(finished).shape == (len(windows), 48)
    assert not (finished.path / "projections").exists()
    again = finished.rethreshold("exact or net>=0.9999")
    assert len(again.kept) >= len(finished.kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("dims=16", "is for .project=copies"),
        ("project=copies&dims=1", "whole number of at least 2"),
        ("project=copies&sample=63", "whole number of at least 64"),
        ("project=gone.npz", "no such file: gone.npz"),
    ],
)
def test_options_that_mean_nothing_are_said(options, message, source, net, tmp_path):
    with pytest.raises(DedupkitError, match=message):
        run(source, tmp_path / "out", rule="exact", embed=f"onnx:{net}?{options}")


def test_a_projection_of_an_openclip_checkpoint(source, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    (tmp_path / "tiny-clip.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.save(open_clip.create_model("tiny-clip").state_dict(), tmp_path / "weights.pt")
    spec = f"openclip:tiny-clip/{tmp_path}/weights.pt?project=copies&dims=24"
    finished = run(source, tmp_path / "out", rule="exact or clip>=0.99", embed=spec)
    facts = finished.summary["projections"]["clip"]
    assert facts["fitted"] and facts["dims"] == [32, 24] and facts["after"]["strangers"] < facts["before"]["strangers"]


CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


# The floor of candidates for verification


@pytest.fixture
def short_lists(monkeypatch):
    """One neighbour an image: what is looked at is not what these tests are about."""
    monkeypatch.setattr(ranking, "LEAST_PLACES", 0)
    monkeypatch.setattr(ranking, "_LENGTHS", ((0.0, 1),))


def test_candidates_begin_where_the_fit_says(short_lists, source, net, tmp_path):
    pytest.importorskip("cv2")
    spec = f"onnx:{net}?project=copies&dims=16"
    finished = run(source, tmp_path / "out", rule="thorough", embed=spec)
    floor = finished.summary["projections"]["net"]["floor"]
    assert f"(net>={floor:g} and verified)" in finished.config["rule_expanded"]
    assert floor - 0.001 <= finished.summary["projections"]["net"]["after"]["threshold"] < floor + 0.012
    assert finished.rethreshold("thorough").summary["keep"] == finished.summary["keep"]
    file = finished.path / "projections" / "net.npz"
    named = run(source, tmp_path / "named", rule="thorough", embed=f"onnx:{net}?project={file}")
    assert named.config["rule_expanded"] == finished.config["rule_expanded"]


def test_a_wanted_recall_gives_a_floor_without_a_projection(short_lists, source, net, tmp_path):
    pytest.importorskip("cv2")
    stated = parse_rule("thorough", known_signals({"net": f"onnx:{net}"}), embedder="net")
    assert "(net>=0.45 and verified)" in str(stated)
    wanted = run(source, tmp_path / "wanted", rule="thorough", embed=f"onnx:{net}", target_recall=0.9)
    facts = wanted.summary["projections"]["net"]
    assert not facts["fitted"] and facts["recall"] == 0.9
    assert f"(net>={facts['floor']:g} and verified)" in wanted.config["rule_expanded"]
    assert wanted.decide("thorough").summary["keep"] == wanted.summary["keep"]
