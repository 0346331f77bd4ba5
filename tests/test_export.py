"""What ``apply`` writes, read back with the packages that train on it."""

from __future__ import annotations

import json
import tarfile
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, run, snapshot, write_tar

import dedupkit as dk
from dedupkit.manifest import parquet_shards
from dedupkit.manifest.extra import as_array
from dedupkit.sources import Sample


@pytest.fixture(scope="module")
def pictures(photos) -> list[bytes]:
    """Photos and a worse copy of each, encoded: 2k and 2k + 1 show the same."""
    encoded = []
    for name in list(photos)[:8]:
        image = photos[name].convert("RGB").resize((220, 180))
        encoded += [encode(image, quality=90), encode(image, quality=40)]
    return encoded


@pytest.fixture(scope="module")
def sources(tmp_path_factory, pictures) -> list[str]:
    """Four shards with the same keys; every photo's copy lies in another shard."""
    folder = tmp_path_factory.mktemp("shards")
    paths = []
    for shard in range(4):
        members = []
        for position, picture in enumerate(range(shard, len(pictures), 4)):
            key = f"{position:05d}"
            row = {
                "key": key,
                "url": f"https://photos.example/{shard}/{key}.jpg",
                "uid": f"{shard:016x}{position:016x}",
            }
            members += [
                (f"{key}.jpg", pictures[picture]),
                (f"{key}.json", json.dumps(row).encode()),
                (f"{key}.txt", f"caption {shard} {position} äöü".encode()),
            ]
        paths.append(str(write_tar(folder / f"{shard:05d}.tar", members)))
    return paths


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sources) -> dk.Run:
    """A run that keeps the better half."""
    done = run(sources, tmp_path_factory.mktemp("run") / "out")
    assert (done.summary["keep"], done.summary["remove"]) == (8, 8)
    return done


def kept_members(finished, sources) -> dict[tuple[str, str], bytes]:
    """What should be in the cleaned shards: caption (unique here) and extension to bytes, read with tarfile."""
    kept = {(row["source"], row["key"]) for row in finished.manifest.to_pylist() if row["verdict"] == "keep"}
    found = {}
    for source in sources:
        with tarfile.open(source) as archive:
            data = {member.name: archive.extractfile(member).read() for member in archive}
        for name, content in data.items():
            key, extension = name.split(".")
            if (source, key) in kept:
                found[data[f"{key}.txt"].decode(), extension] = content
    return found


def test_cleaned_tars_hold_the_kept_samples_byte_for_byte(tmp_path, finished, sources):
    wds = pytest.importorskip("webdataset")
    written = finished.apply(tmp_path / "clean")
    tars = sorted((tmp_path / "clean").glob("*.tar"))
    assert written == {"samples": 8, "files": len(tars), "format": "webdataset", "to": str(tmp_path / "clean")}
    found = {}
    for tar in tars:
        samples = list(wds.WebDataset(str(tar), shardshuffle=False))
        assert len({sample["__key__"] for sample in samples}) == len(samples)
        for sample in samples:
            assert json.loads(sample["json"])["key"] == sample["__key__"]
            for extension in ("jpg", "json", "txt"):
                found[sample["txt"].decode(), extension] = sample[extension]
    assert found == kept_members(finished, sources)
    sizes = json.loads((tmp_path / "clean" / "sizes.json").read_text())
    assert sorted(sizes) == [tar.name for tar in tars]
    assert sum(sizes.values()) == 8
    for tar in tars:
        stats = json.loads((tmp_path / "clean" / f"{tar.stem}_stats.json").read_text())
        assert stats["successes"] == stats["count"] == sizes[tar.name]


def test_cleaned_tars_open_with_hugging_face_datasets(tmp_path, finished):
    datasets = pytest.importorskip("datasets")
    finished.apply(tmp_path / "clean")
    files = sorted(str(path) for path in (tmp_path / "clean").glob("*.tar"))
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": files}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 8
    assert loaded[0]["jpg"].size == (220, 180)


def test_cleaned_parquet_opens_as_images(tmp_path, finished, sources):
    datasets = pytest.importorskip("datasets")
    finished.apply(tmp_path / "clean", format="parquet")
    files = sorted(str(path) for path in (tmp_path / "clean").glob("*.parquet"))
    table = pa.concat_tables(pq.read_table(file) for file in files)
    expected = {text: data for (text, ext), data in kept_members(finished, sources).items() if ext == "jpg"}
    assert {row["caption"]: row["image"]["bytes"] for row in table.to_pylist()} == expected
    loaded = datasets.load_dataset(
        "parquet", data_files={"train": files}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[0]["image"].size == (220, 180)


def test_the_lists_name_what_is_kept(tmp_path, finished):
    kept = [row for row in finished.manifest.to_pylist() if row["verdict"] == "keep"]
    finished.apply(tmp_path / "urls", format="urls")
    table = pq.read_table(tmp_path / "urls" / "urls.parquet")
    assert table.to_pylist() == [{name: row[name] for name in ("url", "caption", "uid")} for row in kept]
    finished.apply(tmp_path / "keys", format="keys")
    lines = (tmp_path / "keys" / "keys.tsv").read_text("utf-8").splitlines()
    assert lines == [f"{row['source']}\t{row['key']}" for row in kept]
    finished.apply(tmp_path / "datacomp", format="datacomp")
    subset = np.load(tmp_path / "datacomp" / "subset.npy")
    assert subset.dtype == np.dtype("u8,u8")
    assert [f"{high:016x}{low:016x}" for high, low in subset.tolist()] == sorted(row["uid"] for row in kept)


def test_applying_again_replaces_what_the_run_wrote_before(tmp_path, sources):
    finished = run(sources, tmp_path / "out")
    finished.apply(tmp_path / "clean")
    before = snapshot(tmp_path / "clean")
    finished.apply(tmp_path / "clean", workers=2)
    assert {name: content for name, (_, content) in snapshot(tmp_path / "clean").items()} == {
        name: content for name, (_, content) in before.items()
    }
    finished.rethreshold("exact").apply(tmp_path / "clean")
    assert sum(json.loads((tmp_path / "clean" / "sizes.json").read_text()).values()) == 16
    with pytest.raises(dk.DedupkitError, match="as webdataset"):
        finished.apply(tmp_path / "clean", format="keys")
    finished.rethreshold("copies").apply(tmp_path / "clean")
    assert {name: content for name, (_, content) in snapshot(tmp_path / "clean").items()} == {
        name: content for name, (_, content) in before.items()
    }


def test_apply_refuses_what_it_must_not_touch(tmp_path, monkeypatch, sources, pictures):
    finished = run(sources, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(dk.DedupkitError, match="not empty"):
        finished.apply(tmp_path / "mine")
    with pytest.raises(dk.DedupkitError, match="unknown format"):
        finished.apply(tmp_path / "clean", format="zip")
    images = tmp_path / "images"
    images.mkdir()
    (images / "one.jpg").write_bytes(pictures[0])
    flat = run(str(images), tmp_path / "flat")
    with pytest.raises(dk.DedupkitError, match="inside the source"):
        flat.apply(images / "clean")
    monkeypatch.chdir(tmp_path)
    near = run("images", tmp_path / "near")
    monkeypatch.chdir("/")
    with pytest.raises(dk.DedupkitError, match="inside the source"):
        near.apply(images / "clean")
    assert [path.name for path in images.iterdir()] == ["one.jpg"]
    with pytest.raises(dk.DedupkitError, match="no kept sample has a URL"):
        flat.apply(tmp_path / "urls", format="urls")
    with pytest.raises(dk.DedupkitError, match=r"1 of 1 kept samples have no uid of 32 .*, such as one\.jpg of "):
        flat.apply(tmp_path / "datacomp", format="datacomp")


def test_a_source_that_changed_after_the_run_is_not_copied(tmp_path, pictures):
    source = write_tar(tmp_path / "in.tar", [("a.jpg", pictures[0]), ("b.jpg", pictures[2])])
    finished = run(str(source), tmp_path / "out")
    write_tar(source, [("a.jpg", pictures[4]), ("b.jpg", pictures[2])])
    with pytest.raises(dk.DedupkitError, match="has changed since it was scanned"):
        finished.apply(tmp_path / "clean")
    assert not list((tmp_path / "clean").glob("*.tar"))


def test_a_folder_of_images_becomes_shards_with_captions(tmp_path, pictures):
    wds = pytest.importorskip("webdataset")
    images = tmp_path / "images"
    (images / "sub.dir").mkdir(parents=True)
    (images / "sub.dir" / "one.two.jpg").write_bytes(pictures[0])
    (images / "sub.dir" / "one.two.txt").write_text("a photo")
    (images / "same.jpg").write_bytes(pictures[2])
    (images / "same.jpeg").write_bytes(pictures[4])
    run(str(images), tmp_path / "out").apply(tmp_path / "clean")
    samples = {s["__key__"]: s for s in wds.WebDataset(str(tmp_path / "clean" / "00000.tar"), shardshuffle=False)}
    texts = {key: sample["txt"] for key, sample in samples.items()}  # each has one, or to_tuple("jpg", "txt") fails
    assert texts.pop("sub.dir/one%2Etwo") == b"a photo"
    assert list(texts.values()) == [b"", b""]


def test_shards_of_very_long_keys_stay_readable(tmp_path, pictures):
    wds = pytest.importorskip("webdataset")
    keys = ["k" * 240, "folder" * 30 + "/" + "n" * 120, "kurz"]
    source = write_tar(
        tmp_path / "in.tar", [(f"{k}.jpg", pictures[2 * i]) for i, k in enumerate(keys)], format=tarfile.PAX_FORMAT
    )
    run(str(source), tmp_path / "out").apply(tmp_path / "clean")
    read = [sample["__key__"] for sample in wds.WebDataset(str(tmp_path / "clean" / "00000.tar"), shardshuffle=False)]
    assert read == keys


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_a_cleaned_folder_loads_by_its_name_alone(tmp_path, monkeypatch, finished, format):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)  # older ones have no such setting
    finished.apply(tmp_path / "clean", format=format, shards=3)
    loaded = datasets.load_dataset(str(tmp_path / "clean"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 8
    assert loaded[0]["image" if format == "parquet" else "jpg"].size == (220, 180)
    assert "duration" not in loaded.column_names  # img2dataset's statistics are no rows
    stream = datasets.load_dataset(str(tmp_path / "clean"), split="train", streaming=True)
    assert sum(1 for _ in stream) == 8


@pytest.mark.parametrize("suffix", ["JPG", "jpg", "Jpeg"])
def test_a_file_name_loses_its_suffix_once(tmp_path, pictures, suffix):
    images = tmp_path / "images"
    images.mkdir()
    (images / f"IMG_0001.{suffix}").write_bytes(pictures[0])
    run(str(images), tmp_path / "out").apply(tmp_path / "clean")
    with tarfile.open(tmp_path / "clean" / "00000.tar") as archive:
        assert archive.getnames() == [f"IMG_0001.{suffix.lower()}", "IMG_0001.txt", "IMG_0001.json"]
        stated = json.loads(archive.extractfile("IMG_0001.json").read())
    assert stated["original_key"] == f"IMG_0001.{suffix}"
    assert stated["key"] == "IMG_0001"


EXTRA = {
    "URL": pa.array([f"https://photos.example/{number}.jpg" for number in range(4)]),
    "id": pa.array([f"{number:032x}" for number in range(4)]),
    "TEXT": pa.array(["a", None, "ç", "d"]),
    "source": pa.array(["cc12m", "laion", None, "laion"]),
    "width": pa.array([1.0, None, float("nan"), 4.0]),
    "label": pa.array([0, 1, 0, 1], pa.int64()),
    "tags": pa.array([["x"], [], None, ["y", "z"]]),
    "box": pa.array([{"x": 1, "y": 2.5}] * 4, pa.struct([("x", pa.int16()), ("y", pa.float32())])),
    "taken": pa.array([0, 1_000_000_001, None, 3], pa.timestamp("ns", tz="UTC")),
    "mask": pa.array([b"\x00\xff", b"", None, b"m"]),
    "price": pa.array(["1.25", None, "2.50", "3.00"]).cast(pa.decimal128(8, 2)),
    "kind": pa.array(["a", "b", "a", None]).dictionary_encode(),
}


@pytest.fixture
def wide(tmp_path, pictures):
    """A run over a Parquet file with more columns than the manifest has."""
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    table = pa.table({"jpg": pictures[:8:2], **EXTRA}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    return run(str(tmp_path / "in.parquet"), tmp_path / "out")


def test_parquet_keeps_every_column_of_the_source(tmp_path, wide):
    datasets = pytest.importorskip("datasets")
    wide.apply(tmp_path / "clean", format="parquet", shards=2)
    cleaned = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "clean").glob("*.parquet")))
    for name, values in EXTRA.items():
        written = cleaned[f"{name}_in_source" if name in ("source", "width") else name]
        assert written.type == values.type, name
        assert str(written.to_pylist() if name != "taken" else written.cast("int64").to_pylist()) == str(
            values.to_pylist() if name != "taken" else values.cast("int64").to_pylist()
        )
    assert cleaned["url"].to_pylist() == EXTRA["URL"].to_pylist()
    loaded = datasets.load_dataset(str(tmp_path / "clean"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["label"].names == ["cat", "dog"]
    assert loaded[0]["image"].size == (220, 180)


def test_tars_keep_every_column_of_the_source_in_their_json(tmp_path, wide):
    wds = pytest.importorskip("webdataset")
    wide.apply(tmp_path / "clean")
    samples = list(wds.WebDataset(str(tmp_path / "clean" / "00000.tar"), shardshuffle=False))
    assert [sample["txt"].decode() for sample in samples] == ["a", "", "ç", "d"]
    stated = [json.loads(sample["json"]) for sample in samples]
    assert [(row["url"], row["uid"]) for row in stated] == list(
        zip(EXTRA["URL"].to_pylist(), EXTRA["id"].to_pylist(), strict=True)
    )
    assert all({*EXTRA, "key", "original_key", "caption"} <= set(row) for row in stated)
    assert [row["tags"] for row in stated] == EXTRA["tags"].to_pylist()
    assert [row["mask"] for row in stated] == ["AP8=", "", None, "bQ=="]
    assert stated[2]["width"] is None
    assert stated[0]["price"] == "1.25"


def test_files_whose_columns_differ_are_kept_together(tmp_path, pictures):
    hashes = [[5342098710232340123], [0.5], pa.array([2], pa.int32()), [None]]  # LAION's, as pandas writes them
    seeds = [[-1], pa.array([2**64 - 1], pa.uint64()), pa.array([2], pa.int32()), [None]]
    for number, extra in enumerate([{"n": [1]}, {"n": [2.5], "more": ["x"]}, {"n": ["text"]}, {"n": [{"a": 1}]}]):
        numbers = {"hash": hashes[number], "seed": seeds[number]}
        table = pa.table({"image": [pictures[2 * number]], **numbers, **extra})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    run(str(tmp_path / "*.parquet"), tmp_path / "out").apply(tmp_path / "clean", format="parquet", shards=2)
    tables = [pq.read_table(path) for path in sorted((tmp_path / "clean").glob("*.parquet"))]
    assert tables[0].schema == tables[1].schema
    assert pa.concat_tables(tables)["more"].to_pylist() == [None, "x", None, None]
    assert pa.concat_tables(tables)["n"].to_pylist() == ["1", "2.5", "text", '{"a": 1}']
    assert pa.concat_tables(tables)["hash"].to_pylist() == [5342098710232340123.0, 0.5, 2.0, None]
    assert pa.concat_tables(tables)["seed"].to_pylist() == ["-1", str(2**64 - 1), "2", None]
    assert as_array(["text", 1, {"a": 1}, None], pa.string()).to_pylist() == ["text", "1", '{"a": 1}', None]
    mixed = [date(2024, 2, 29), Decimal("1.50"), b"\0", ["a"], "text", None]
    assert as_array(mixed, pa.string()).to_pylist() == ["2024-02-29", "1.50", "AA==", '["a"]', "text", None]


def test_few_large_images_are_held_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_shards, "_BYTES_AT_ONCE", 1000)
    images = [b"a" * 600, b"b" * 600, b"c" * 2000, b"d" * 600]
    with parquet_shards.ParquetShardWriter(tmp_path / "0.parquet", pa.schema([])) as writer:
        for number, image in enumerate(images):
            writer.add(Sample(key=f"{number}", members={"jpg": image}, image_ext="jpg"), {"key": f"{number}"})
    written = pq.ParquetFile(tmp_path / "0.parquet")
    assert [written.metadata.row_group(number).num_rows for number in range(written.num_row_groups)] == [2, 1, 1]
    assert [row["image"]["bytes"] for row in written.read().to_pylist()] == images
