"""Precomputed vectors in every layout, joined by identifier, and what is wrong with a set said in numbers and names."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import jpegs, run, write_tar

import dedupkit as dk
from dedupkit.embedding import embedder_key, load_embedder, load_precomputed
from dedupkit.embedding.embedder import unit_rows
from dedupkit.embedding.given import as_given
from dedupkit.embedding.precomputed import shared_precomputed
from dedupkit.errors import DedupkitError
from dedupkit.neighbors.cosine import join, overlap
from dedupkit.neighbors.cosine.recall import EXACT, Recall
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import vector_join
from dedupkit.stages.embed import embed_shard
from dedupkit.workflows.update import _embedders

DIM = 6
NONE = [None] * 4


@pytest.fixture
def vectors():
    return unit_rows(np.random.default_rng(0).normal(size=(10, DIM)).astype(np.float32))


def parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def npy(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def clip_retrieval(folder, vectors, **more):
    """Two partitions of five rows, numbers zero-padded, one between them empty."""
    for number, rows in (("00", slice(0, 5)), ("02", slice(5, 10))):
        keys = [f"{row:09d}" for row in range(10)][rows]
        npy(folder / f"img_emb/img_emb_{number}.npy", vectors[rows].astype(np.float16))
        npy(folder / f"text_emb/text_emb_{number}.npy", np.zeros((5, DIM), np.float16))
        columns = {name: values[rows] for name, values in more.items()}
        parquet(folder / f"metadata/metadata_{number}.parquet", image_path=keys, caption=keys, **columns)


def agree(found, expected):
    return bool(((found.astype(np.float32) * expected).sum(axis=1) > 0.999).all())


def test_clip_retrieval_by_key(tmp_path, vectors):
    clip_retrieval(tmp_path, vectors)
    found = load_precomputed(f"precomputed:{tmp_path}")
    assert (found.name, found.dim, len(found)) == ("clip", DIM, 10)
    got, there = found.lookup(["000000007", "000000001", "nobody", None], NONE, NONE)
    assert got.dtype == np.float16
    assert there.tolist() == [True, True, False, False]
    assert agree(got[:2], vectors[[7, 1]])
    assert not got[2:].any()
    report = found.report()
    assert (report["vectors"], report["joined"], report["missing"], report["surplus"]) == (10, 2, 2, 8)
    assert report["missing_examples"][0] == "nobody"
    assert report["surplus_examples"][:2] == ["000000000", "000000002"]


def test_a_key_that_is_not_unique_joins_by_url(tmp_path, vectors):
    keys = [str(row % 5) for row in range(10)]
    urls = [f"https://e.org/{row}.jpg" for row in range(10)]
    npy(tmp_path / "img_emb/img_emb_0.npy", vectors)
    parquet(tmp_path / "metadata/metadata_0.parquet", image_path=keys, url=urls)
    found = load_precomputed(f"precomputed:{tmp_path}")
    got, there = found.lookup(["2", "2", "2", "3"], NONE, [urls[7], urls[2], None, "https://e.org/other.jpg"])
    assert there.tolist() == [True, True, False, False]
    assert agree(got[:2], vectors[[7, 2]])
    assert found.report()["ambiguous"] == 2


def test_a_key_whose_url_is_another_is_not_the_sample(tmp_path, vectors):
    clip_retrieval(tmp_path, vectors, url=[f"https://e.org/{row}" for row in range(10)])
    found = load_precomputed(str(tmp_path))
    _, there = found.lookup(["000000001", "000000002"], [None] * 2, ["https://e.org/1", "https://e.org/99"])
    assert there.tolist() == [True, False]
    assert found.report()["contradicted"] == 1
    _, there = found.lookup(["000000001"], [None], [None], by=("uid", "url"))
    assert not there.any()


def test_datacomp_by_uid(tmp_path, vectors):
    uids = [f"{row:032x}" for row in range(10)]
    for part in (0, 1):
        rows = slice(5 * part, 5 * part + 5)
        large = np.hstack([vectors[rows], vectors[rows]])
        np.savez(
            tmp_path / f"{part:04d}.npz", b32_img=vectors[rows].astype(np.float16), b32_txt=vectors[:5], l14_img=large
        )
        beside = {"uid": uids[rows], "url": ["u"] * 5, "text": ["t"] * 5, "bbox": [[0.5] * 4] * 5}  # boxes: no vectors
        parquet(tmp_path / f"{part:04d}.parquet", **beside)
    assert load_precomputed(f"precomputed:{tmp_path}").dim == 2 * DIM
    found = load_precomputed(f"precomputed:{tmp_path}?array=b32_img&name=b32")
    assert (found.name, found.dim) == ("b32", DIM)
    got, there = found.lookup(NONE, [uids[9], uids[0], "none", None], ["u"] * 4)
    assert there.tolist() == [True, True, False, False]  # the url "u" names ten rows, so it names none
    assert agree(got[:2], vectors[[9, 0]])
    with pytest.raises(DedupkitError, match=r"no array 'h14'; it has: b32_img, b32_txt, l14_img"):
        load_precomputed(f"precomputed:{tmp_path}?array=h14")


@pytest.mark.parametrize(
    "layout", ["npy", "npz", "npz_beside", "parquet", "parquet_float16", "fixed", "nemo", "folder"]
)
def test_plain_files(tmp_path, vectors, layout):
    keys = [f"k{row}" for row in range(10)]
    path = tmp_path / f"my.{layout.split('_')[0]}"
    lists = pa.array(list(vectors), pa.list_(pa.float32()))
    if layout == "npy":
        npy(path, vectors)
        parquet(tmp_path / "my.parquet", key=keys)
    elif layout == "npz":
        np.savez(path, embeddings=vectors, keys=np.array(keys))
    elif layout == "npz_beside":
        np.savez(path, arr_0=vectors)
        parquet(tmp_path / "my.parquet", key=keys)
    elif layout == "parquet":
        parquet(path, key=keys, embedding=lists)
    else:
        path = tmp_path / "my.parquet"
        kind = {"parquet_float16": pa.list_(pa.float16()), "fixed": pa.list_(pa.float32(), DIM)}.get(layout, lists.type)
        column = pa.array([list(row) for row in vectors.astype(kind.value_type.to_pandas_dtype())], kind)
        parquet(path, **{"image_id" if layout == "nemo" else "key": keys, "embedding": column})
        path = tmp_path if layout == "folder" else path
    found = load_precomputed(f"precomputed:{path}")
    got, there = found.lookup(["k3", "k0", "k10", None], NONE, NONE)
    assert there.tolist() == [True, True, False, False]
    assert agree(got[:2], vectors[[3, 0]])


def test_vectors_are_normalised_and_meaningless_ones_counted(tmp_path, vectors):
    scaled = vectors * 7
    scaled[2], scaled[3], scaled[4, 0] = 0, np.nan, np.inf
    np.savez(tmp_path / "v.npz", embedding=scaled, key=np.array([str(row) for row in range(10)]))
    found = load_precomputed(str(tmp_path / "v.npz"))
    got, there = found.lookup([str(row) for row in range(10)], [None] * 10, [None] * 10)
    assert there.tolist() == [True, True, False, False, False] + [True] * 5
    assert agree(got[there], vectors[there])
    assert np.isfinite(got).all()
    report = found.report()
    assert (report["zero"], report["not_finite"], report["joined"], report["missing"]) == (1, 2, 7, 0)


def test_missing_vectors_in_a_list_column(tmp_path, vectors):
    rows = [None if row == 1 else list(map(float, vectors[row])) for row in range(4)]
    parquet(tmp_path / "v.parquet", key=list("abcd"), embedding=pa.array(rows, pa.list_(pa.float32())))
    got, there = load_precomputed(str(tmp_path / "v.parquet")).lookup(list("abcd"), NONE, NONE)
    assert there.tolist() == [True, False, True, True]
    assert agree(got[there], vectors[[0, 2, 3]])


def test_a_part_without_vectors_is_one_without_its_counterpart(tmp_path):
    lists = pa.list_(pa.float32())
    parquet(tmp_path / "a.parquet", key=["a", "b"], embedding=pa.array([[1, 0], [0, 1]], lists))
    parquet(tmp_path / "b.parquet", key=pa.array([], pa.string()), embedding=pa.array([], lists))
    parquet(tmp_path / "c.parquet", key=["c"], embedding=pa.array([None], lists))
    found = load_precomputed(str(tmp_path))
    assert found.lookup(["c", "b"], [None] * 2, [None] * 2)[0].tolist() == [[0, 0], [0, 1]]
    assert found.report()["unpaired_files"] == [str(tmp_path / "b.parquet"), str(tmp_path / "c.parquet")]
    with pytest.raises(DedupkitError, match=r"c\.parquet holds no vector"):
        load_precomputed(str(tmp_path / "c.parquet"))


def test_an_empty_identifier_is_none(vectors):
    given = as_given((vectors[:4], {"key": list("abcd"), "url": ["u", "", None, ""]}))
    _, there = given.source.lookup(["a", "b", "x", "y"], NONE, ["u", "v", "", None])
    assert there.tolist() == [True, True, False, False]


def test_sets_that_are_wrong(tmp_path, vectors):
    with pytest.raises(DedupkitError, match="no such file or folder: nowhere"):
        load_precomputed("precomputed:nowhere")
    with pytest.raises(DedupkitError, match=r"no vectors with identifiers.*never joined by position alone"):
        load_precomputed(f"precomputed:{tmp_path}")
    npy(tmp_path / "alone.npy", vectors)
    with pytest.raises(DedupkitError, match=r"no vectors with identifiers.*never joined by position alone"):
        load_precomputed(f"precomputed:{tmp_path / 'alone.npy'}")
    np.savez(tmp_path / "alone.npz", embedding=vectors)
    with pytest.raises(DedupkitError, match=r"alone\.npz has no column of identifiers"):
        load_precomputed(f"precomputed:{tmp_path / 'alone.npz'}")
    np.savez(tmp_path / "two.npz", a=vectors, b=vectors, key=np.arange(10))
    with pytest.raises(DedupkitError, match=r"which array holds the vectors\? name it with \?array=NAME; it has: a, b"):
        load_precomputed(f"precomputed:{tmp_path / 'two.npz'}")
    npy(tmp_path / "flat.npy", vectors[0])
    parquet(tmp_path / "flat.parquet", key=list("abcdef"))
    with pytest.raises(DedupkitError, match=r"array of shape \(6,\), expected \(rows, dimension\)"):
        load_precomputed(f"precomputed:{tmp_path / 'flat.npy'}")
    with pytest.raises(DedupkitError, match="names vectors, not a model"):
        load_embedder(f"precomputed:{tmp_path}")


def test_fewer_vectors_than_rows(tmp_path, vectors):
    clip_retrieval(tmp_path, vectors)
    npy(tmp_path / "img_emb/img_emb_02.npy", vectors[:3])
    with pytest.raises(DedupkitError, match=r"img_emb_02\.npy holds 3 vectors and .*metadata_02\.parquet 5 rows"):
        load_precomputed(f"precomputed:{tmp_path}")


def test_a_part_of_another_dimension(tmp_path, vectors):
    clip_retrieval(tmp_path, vectors)
    npy(tmp_path / "img_emb/img_emb_02.npy", np.ones((5, 3), np.float16))
    with pytest.raises(DedupkitError, match=r"img_emb_02\.npy holds vectors of dimension 3, .*img_emb_00\.npy of 6"):
        load_precomputed(f"precomputed:{tmp_path}")


def test_a_file_that_is_cut(tmp_path, vectors):
    clip_retrieval(tmp_path, vectors)
    cut = tmp_path / "img_emb/img_emb_02.npy"
    cut.write_bytes(cut.read_bytes()[:-8])
    with pytest.raises(DedupkitError, match=r"img_emb_02\.npy cannot be read"):
        load_precomputed(f"precomputed:{tmp_path}")


def test_a_partition_without_its_counterpart_is_named(tmp_path, vectors):
    clip_retrieval(tmp_path, vectors)
    (tmp_path / "metadata/metadata_02.parquet").unlink()
    found = load_precomputed(f"precomputed:{tmp_path}")
    assert len(found) == 5
    assert found.report()["unpaired_files"] == [str(tmp_path / "img_emb/img_emb_02.npy")]


def test_another_set_has_another_key(tmp_path, vectors):
    clip_retrieval(tmp_path, vectors)
    key = embedder_key(f"precomputed:{tmp_path}")
    assert key == embedder_key(f"precomputed:{tmp_path}?name=x") == load_precomputed(f"precomputed:{tmp_path}").key
    npy(tmp_path / "img_emb/img_emb_02.npy", vectors[5:].astype(np.float32))
    assert key != embedder_key(f"precomputed:{tmp_path}")


def test_files_that_were_written_anew_are_read_anew_in_the_same_process(tmp_path):
    spec = f"precomputed:{tmp_path / 'v.npz'}"
    for rows in ([0, 1, 2], [1, 0, 2]):
        np.savez(tmp_path / "v.npz", embedding=np.eye(3)[rows], key=np.array(list("abc")))
        os.utime(tmp_path / "v.npz", (0, rows[0]))
        for found in (load_precomputed(spec), shared_precomputed(spec)):
            assert found.lookup(["a"], [None], [None])[0].argmax() == rows[0]


def test_a_shard_takes_its_rows_from_the_set(tmp_path, vectors):
    np.savez(tmp_path / "v.npz", embedding=vectors, key=np.array([str(row) for row in range(10)]))
    samples = tmp_path / "samples.parquet"
    columns = {
        "key": ["3", "broken", "0", "unknown"],
        "uid": NONE,
        "url": NONE,
        "error": [None, "truncated", None, None],
    }
    pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}), samples)
    spec = f"precomputed:{tmp_path / 'v.npz'}"
    summary = embed_shard(None, str(tmp_path / "0.npy"), spec, samples_path=str(samples))
    written = np.load(tmp_path / "0.npy")
    assert written.dtype == np.float16
    assert written.any(axis=1).tolist() == [True, False, True, False]
    assert agree(written[[0, 2]], vectors[[3, 0]])
    assert (summary["samples"], summary["embedded"], summary["failed"]) == (4, 2, 1)
    assert summary["failure"].startswith("unknown: ")


@pytest.fixture
def partly(tmp_path, photos):
    """Twelve images in two tars and their vectors in four parts, one of which is gone."""
    keys = [f"{row:09d}" for row in range(12)]
    images = jpegs(photos, 12, side=64)
    for shard in range(2):
        members = [(f"{key}.jpg", image) for key, image in zip(keys[shard::2], images[shard::2], strict=True)]
        write_tar(tmp_path / "in" / f"{shard:05d}.tar", members)
    vectors = unit_rows(np.random.default_rng(0).normal(size=(12, DIM)).astype(np.float32))
    for part in (0, 1, 3):
        rows = slice(3 * part, 3 * part + 3)
        npy(tmp_path / f"clip/img_emb/img_emb_{part}.npy", vectors[rows].astype(np.float16))
        parquet(tmp_path / f"clip/metadata/metadata_{part}.parquet", image_path=keys[rows])
    out = tmp_path / "out"
    return run(str(tmp_path / "in"), out, rule="exact or clip>=0.9", embed=f"precomputed:{tmp_path / 'clip'}")


def test_images_without_a_vector_are_counted_and_named_wherever_recall_is(partly):
    missing = partly.summary["without_vector"]["clip"]
    assert (missing["count"], missing["of"]) == (3, 12)
    named = {(Path(example["source"]).name, example["key"]) for example in missing["examples"]}
    assert named == {("00000.tar", "000000006"), ("00000.tar", "000000008"), ("00001.tar", "000000007")}
    assert "no usable vector" in missing["reason"]
    assert partly.summary["recall"]["clip"]["without_vector"] == 3
    shown = dict(partly.rows())
    assert shown["recall of clip"].endswith("among images that have a vector")
    assert shown["without a vector of clip"].startswith("3 of 12, such as 000000006")
    json.dumps(partly.summary)
    partly.report()
    facts = json.loads((partly.path / "report.json").read_text())
    assert facts["without_vector"]["clip"]["count"] == 3
    page, card = ((partly.path / name).read_text() for name in ("report.html", "DATASET_CARD.md"))
    assert "3 images of 12 without a vector of clip" in page
    assert "000000007" in page
    assert "3 of 12 readable images have no vector of clip" in card


def test_shards_that_are_gone_leave_the_keys_of_the_others(partly, tmp_path):
    embed = f"precomputed:{tmp_path / 'clip'}"
    found = run(f"{tmp_path}/in/{{00000..00003}}.tar", tmp_path / "gone", rule="exact or clip>=0.9", embed=embed)
    assert len(found.summary["shard_problems"]) == 2
    assert found.summary["without_vector"]["clip"]["count"] == 3


@pytest.mark.parametrize("tasks", ["1", "1000"])
def test_a_recall_that_could_not_be_measured_is_not_known(partly, tmp_path, monkeypatch, tasks):
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", tasks)
    monkeypatch.setattr(join, "EXACT_PAIRS", 0)  # in cells, whose recall is measured on a sample
    monkeypatch.setattr(overlap, "WORTHWHILE", 1e9)
    embed = f"precomputed:{tmp_path / 'clip'}"
    found = run(str(tmp_path / "in"), partly.path, rule="exact or clip>=0.85", embed=embed)
    assert found.summary["recall"]["clip"] == {"estimate": None, "low": 0.0, "high": 1.0, "without_vector": 3}
    assert dict(found.rows())["recall of clip"].startswith("not known")
    json.dumps(found.summary, allow_nan=False)


def test_the_lower_of_two_recalls_stands_and_one_that_is_not_known_is_the_lowest():
    recall = {"estimate": 1.0, "low": 1.0, "high": 1.0}
    known, unknown = Recall(0.9, 0.8, 0.95), Recall(np.nan, 0.0, 1.0)
    for found, estimate in ((known, 0.9), (EXACT, 0.9), (unknown, None), (EXACT, None)):
        vector_join.lower(recall, found)
        assert recall["estimate"] == estimate
    assert (recall["low"], recall["high"]) == (0.0, 1.0)


def test_an_array_is_known_by_every_one_of_its_identifiers():
    keys = np.array([f"{row:09d}" for row in range(1200)])
    swapped = keys.copy()
    swapped[[600, 601]] = keys[[601, 600]]
    vectors = np.eye(1200, DIM) + 1
    one, same, other = (as_given((vectors, {"key": each})).spec for each in (keys, keys.copy(), swapped))
    assert one == same != other


@pytest.fixture
def pictures(tmp_path, photos):
    """A tar of three images, and vectors of these."""
    write_tar(tmp_path / "in" / "a.tar", [(f"{row}.jpg", image) for row, image in enumerate(jpegs(photos, 3, side=64))])
    return np.array([[1, 0], [1, 0.1], [0, 1]]), ["0", "1", "2"]


def test_vectors_that_are_gone_hold_up_no_rule_but_those_that_compare_them(tmp_path, pictures, caplog):
    vectors, keys = pictures
    file, source, out = tmp_path / "v.npz", str(tmp_path / "in"), tmp_path / "out"
    np.savez(file, vectors=vectors.astype(np.float32), key=np.array(keys))
    embed = f"precomputed:{file}?name=mine"
    assert run(source, out, rule="mine>=0.9", embed=embed).summary["remove"] == 1
    file.unlink()
    for options in ({"rule": "mine>=0.8"}, {"rule": "exact", "embed": embed}):
        with pytest.raises(DedupkitError, match="no such file"):
            run(source, out, **options)
        assert dk.Run(out).config["rule"] == "mine>=0.9"  # it still opens
    without = run(source, out, rule="exact")
    assert (without.summary["remove"], without.config["embedders"]) == (0, {})
    assert "mine is left out until it is named again: no such file" in caplog.text


def test_an_update_does_without_a_model_that_is_gone_and_that_its_rule_does_not_need(tmp_path):
    gone = {"gone": f"onnx:{tmp_path / 'gone.onnx'}", "copy": "copy"}
    config = RunConfig((), (), "exact", "exact", "sample", embedders=gone)
    assert _embedders(RunFolder(tmp_path / "old"), config) == ["copy"]
    with pytest.raises(DedupkitError, match="no such file"):
        _embedders(RunFolder(tmp_path / "old"), replace(config, rule_expanded="gone>=0.9"))


def test_all_pairs_are_found_where_a_recall_of_one_is_asked_for(tmp_path, pictures):
    vectors, keys = pictures  # names of files that are numbers are taken as text
    options = {"rule": "vectors>=0.9", "embed": (vectors, list(map(int, keys))), "target_recall": 1}
    assert run(str(tmp_path / "in"), tmp_path / "out", **options).summary["remove"] == 1


def test_vectors_joined_by_key_are_joined_anew_where_keys_no_longer_name_one_sample(tmp_path, pictures):
    run(str(tmp_path / "in"), tmp_path / "out", rule="vectors>=0.9", embed=pictures)
    (tmp_path / "in" / "b.tar").write_bytes((tmp_path / "in" / "a.tar").read_bytes())
    with pytest.raises(DedupkitError, match="gave no image a vector"):
        run(str(tmp_path / "in"), tmp_path / "out", rule="vectors>=0.9", embed=pictures)
