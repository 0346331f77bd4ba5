"""The filter at work in the loaders that it is for: webdataset, Hugging Face datasets, and torch's DataLoader."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, run, write_tar

import dedupkit as dk
from dedupkit.errors import UnknownSampleError
from dedupkit.manifest.identity import places
from dedupkit.manifest.verdicts import Verdicts

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch):
    """datasets waits ten seconds when a stream's threads end."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


@pytest.fixture(scope="module")
def images(photos) -> list[bytes]:
    """Photos and a worse copy of each, the copies last."""
    chosen = [photo.convert("RGB").resize((96, 80)) for photo in list(photos.values())[:6]]
    return [encode(image, quality=quality) for quality in (90, 50) for image in chosen]


@pytest.fixture(scope="module")
def tars(tmp_path_factory, images):
    """A run over three tars with the same keys."""
    folder = tmp_path_factory.mktemp("tars")
    paths = []
    for shard in range(3):
        members = []
        for number, image in enumerate(images[shard::3]):
            members += [(f"{number:05d}.jpg", image), (f"{number:05d}.txt", f"caption {shard} {number}".encode())]
        paths.append(str(write_tar(folder / f"{shard:05d}.tar", members)))
    return run(paths, folder / "out")


@pytest.fixture(scope="module")
def parquet(tmp_path_factory, images):
    """A run over four Parquet files of images without a key, a URL or a caption."""
    return parquet_run(tmp_path_factory.mktemp("parquet"), [images[part::4] for part in range(4)])


def parquet_run(folder: Path, parts: list[list[bytes]], **columns: Callable[[int, int], str]) -> dk.Run:
    """A run over Parquet files; a further column has what is made from the numbers of file and row."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number, part in enumerate(parts):
        rows = [{"bytes": data, "path": None} for data in part]
        made = {"n": lambda number, row: f"{number}/{row}", **columns}
        texts = {name: [make(number, row) for row in range(len(part))] for name, make in made.items()}
        table = pa.table({"image": pa.array(rows, image), **texts})
        pq.write_table(table, folder / f"{number}.parquet")
    return run(str(folder / "*.parquet"), folder / "out", rule="copies")


def stored(finished, tmp_path, *, streaming=False):
    """The run's Parquet files as a data set whose images are left as they are stored."""
    files = sorted(finished.config["shards"])
    loaded = datasets.load_dataset(
        "parquet", data_files={"train": files}, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    return loaded.cast_column("image", datasets.Image(decode=False))


def kept_rows(finished) -> set[str]:
    """``n`` of the samples that the manifest keeps."""
    names = [name for file in sorted(finished.config["shards"]) for name in pq.read_table(file)["n"].to_pylist()]
    verdicts = finished.manifest["verdict"].to_pylist()
    return {name for name, verdict in zip(names, verdicts, strict=True) if verdict == "keep"}


def kept_keys(finished) -> set[tuple[str, str]]:
    return {(row["source"], row["key"]) for row in finished.manifest.to_pylist() if row["verdict"] == "keep"}


@pytest.mark.parametrize("options", [{}, {"with_indices": True}, {"batched": True}, {"batched": True, "batch_size": 5}])
def test_images_are_recognised_by_their_bytes_in_any_order(tmp_path, parquet, options):
    whole = stored(parquet, tmp_path)
    keep = parquet.keep_filter()
    expected = kept_rows(parquet)
    assert 0 < len(expected) < 12
    assert set(whole.filter(keep, **options)["n"]) == expected
    assert set(whole.shuffle(seed=3).filter(keep, **options)["n"]) == expected
    some = whole.select(range(4, 11))
    assert set(some.filter(keep, **options)["n"]) == expected & set(some["n"])
    twice = datasets.concatenate_datasets([whole, whole]).filter(keep, **options)["n"]
    assert len(twice) == 2 * len(expected)


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("options", [{}, {"with_indices": True}, {"batched": True}])
def test_streams_in_data_loader_workers_keep_what_the_manifest_keeps(tmp_path, parquet, workers, options):
    loader = pytest.importorskip("torch.utils.data").DataLoader
    stream = stored(parquet, tmp_path, streaming=True).filter(parquet.keep_filter(), **options)
    found = [row["n"] for row in loader(stream, batch_size=None, num_workers=workers)]
    assert sorted(found) == sorted(kept_rows(parquet))


@pytest.mark.parametrize("streaming", [False, True])
def test_the_nodes_of_a_job_keep_together_what_the_manifest_keeps(tmp_path, parquet, streaming):
    from datasets.distributed import split_dataset_by_node

    found = []
    for rank in range(2):
        data = stored(parquet, tmp_path, streaming=streaming)
        data = data.shuffle(seed=1, buffer_size=4) if streaming else data.shuffle(seed=1)
        mine = split_dataset_by_node(data, rank=rank, world_size=2)
        found += [row["n"] for row in mine.filter(parquet.keep_filter(), with_indices=True)]
    assert sorted(found) == sorted(kept_rows(parquet))


@pytest.mark.parametrize(
    ("files", "columns"),
    [
        (4, {"key": lambda number, row: f"{2 - row:08d}", "source": lambda number, row: f"earlier/{number}.parquet"}),
        (4, {"key": lambda number, row: f"cat-{row}", "source": lambda number, row: f"earlier/{number}.parquet"}),
        (1, {"key": lambda number, row: f"{2 - row:08d}"}),
    ],
    ids=["of another row", "of no row", "without a source"],
)
def test_keys_of_an_earlier_run_or_of_ones_own_do_not_decide(tmp_path, images, files, columns):
    """As in cleaned Parquet files, whose ``key`` and ``source`` are those of the run that they come from."""
    finished = parquet_run(tmp_path, [images[part::4] for part in range(4)][:files], **columns)
    table = stored(finished, tmp_path)
    for named in (table, table.rename_column("key", "__key__")):
        assert set(named.filter(finished.keep_filter())["n"]) == kept_rows(finished)
    stranger = {**table[0], "image": {"bytes": b"of no sample", "path": None}}
    with pytest.raises(UnknownSampleError, match="knows no sample with this key, sha256"):
        finished.keep_filter()(stranger)


def test_copies_that_nothing_tells_apart_need_a_checked_row_number(tmp_path, images):
    exact = parquet_run(tmp_path, [images[:4], images[2:6], [images[0], images[5]]])
    assert exact.summary["remove"] == 4
    whole, expected = stored(exact, tmp_path), sorted(kept_rows(exact))
    assert whole.filter(exact.keep_filter(), with_indices=True)["n"][:] == expected
    numbered = whole.add_column("sample", list(range(len(whole))))
    assert sorted(numbered.shuffle(seed=0).filter(exact.keep_filter())["n"]) == expected
    refused = [
        lambda: whole.filter(exact.keep_filter()),
        lambda: whole.shuffle(seed=0).filter(exact.keep_filter(), with_indices=True),
        lambda: whole.select(range(3, 10)).filter(exact.keep_filter(), with_indices=True),
    ]
    for attempt in refused:
        with pytest.raises(UnknownSampleError) as error:
            attempt()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [2, 3])
def test_row_numbers_of_data_loader_workers_never_decide(tmp_path, images, workers):
    """Every worker counts from 0, and here the second shard is a copy of the first."""
    loader = pytest.importorskip("torch.utils.data").DataLoader
    exact = parquet_run(tmp_path, [images[:3]] * 3)
    stream = stored(exact, tmp_path, streaming=True).filter(exact.keep_filter(), with_indices=True)
    running = iter(loader(stream, batch_size=None, num_workers=workers))
    with pytest.raises(UnknownSampleError, match="cannot be told apart"):
        list(running)
    for worker in running._workers:  # or torch waits five seconds for each of them
        worker.kill()
    with suppress(RuntimeError):
        running._shutdown_workers()


def test_a_row_number_alone_is_refused(parquet):
    bare = datasets.Dataset.from_dict({"row": list(range(12))})
    with pytest.raises(UnknownSampleError, match="row number alone cannot be checked"):
        bare.filter(parquet.keep_filter(), with_indices=True)
    decoded = datasets.load_dataset("parquet", data_files=sorted(parquet.config["shards"]), split="train")
    with pytest.raises(UnknownSampleError, match="decode=False"):
        decoded.cast_column("image", datasets.Image()).filter(parquet.keep_filter(), with_indices=True)


def test_the_cache_of_datasets_is_not_used_after_the_verdicts_changed(tmp_path, tars):
    finished = run(tars.config["sources"], tmp_path / "out")
    data = datasets.load_dataset(
        "webdataset", data_files=finished.config["shards"], split="train", cache_dir=str(tmp_path / "cache")
    ).cast_column("jpg", datasets.Image(decode=False))
    before = finished.keep_filter()
    assert len(data.filter(before)) == finished.summary["keep"] < 12
    same = finished.keep_filter()
    assert pickle.dumps(same) == pickle.dumps(before)
    travelling = pickle.dumps(before)
    again = finished.rethreshold("exact")
    assert again.summary["keep"] == 12
    assert len(data.filter(again.keep_filter())) == 12
    with pytest.raises(dk.DedupkitError, match="decided again since"):
        pickle.loads(travelling)({"__key__": "00000", "__url__": finished.config["shards"][0]})


@pytest.mark.parametrize(
    "url",
    [
        "pipe:aws s3 cp s3://bucket/laion/{} -",
        "pipe:curl -s -L https://host/laion/{}?token=a/b || true",
        "pipe:curl -s -L 'https://host/laion/{}' || true",
        "pipe:gsutil cat gs://bucket/{}",
        "pipe:cat /mnt/{}",
        "hf://datasets/me/laion@main/{}",
        "https://host/a/{}?download=true",
        "file:///data/{}",
    ],
)
def test_a_shard_is_recognised_in_what_names_it(tars, url):
    keep = tars.keep_filter()
    for row in tars.manifest.to_pylist():
        named = url.format(Path(row["source"]).name)
        assert keep({"__key__": row["key"], "__url__": named}) == (row["verdict"] == "keep"), named


def test_webdataset_reads_through_a_pipe(tars):
    wds = pytest.importorskip("webdataset")
    pipes = [f"pipe:cat {tar} || true" for tar in tars.config["shards"]]
    found = wds.WebDataset(pipes, shardshuffle=False).select(tars.keep_filter())
    assert {(sample["__url__"].split()[1], sample["__key__"]) for sample in found} == kept_keys(tars)


def test_a_download_that_was_renamed_is_recognised_by_its_bytes(tmp_path, tars):
    wds = pytest.importorskip("webdataset")
    renamed = []
    for number, tar in enumerate(tars.config["shards"]):
        renamed.append(tmp_path / f"{number * 77:064x}")
        renamed[-1].write_bytes(Path(tar).read_bytes())
    found = wds.WebDataset([str(path) for path in renamed], shardshuffle=False).select(tars.keep_filter())
    texts = {sample["txt"].decode() for sample in found}
    assert texts == {row["caption"] for row in tars.manifest.to_pylist() if row["verdict"] == "keep"}
    with pytest.raises(UnknownSampleError):
        tars.keep_filter()({"__key__": "00000", "__url__": str(renamed[0])})  # nothing but a key that three shards have


def url_table(finished) -> list[dict[str, str]]:
    return [{"URL": row["url"], "TEXT": row["caption"], "id": row["uid"]} for row in finished.manifest.to_pylist()]


@pytest.fixture(scope="module")
def urls(tmp_path_factory, images):
    """A run over a Parquet file with LAION's columns; the first URL stands for two images."""
    folder = tmp_path_factory.mktemp("urls")
    names = [f"https://photos.example/{max(number, 1)}.jpg" for number in range(12)]
    table = {"jpg": images, "URL": names, "TEXT": [f"text {n}" for n in range(12)], "id": [f"u{n}" for n in range(12)]}
    pq.write_table(pa.table(table), folder / "0.parquet")
    return run(str(folder / "0.parquet"), folder / "out")


def test_a_table_of_urls_is_filtered_by_url_and_what_else_it_has(urls):
    rows = url_table(urls)
    table = datasets.Dataset.from_list(rows)
    expected = [row["TEXT"] for row in rows if urls.keep_filter()(row)]
    assert 0 < len(expected) < 12
    verdicts = [row["caption"] for row in urls.manifest.to_pylist() if row["verdict"] == "keep"]
    assert expected == verdicts
    keep = urls.keep_filter()
    shuffled = table.shuffle(seed=5)
    by_url = table.select(range(2, 12))
    for data in (table, shuffled):
        assert set(data.filter(keep)["TEXT"]) == set(expected)
        assert set(data.filter(keep, batched=True)["TEXT"]) == set(expected)
        assert set(data.filter(keep, input_columns="id")["TEXT"]) == set(expected)
        assert set(data.filter(keep, input_columns=["id"], batched=True)["TEXT"]) == set(expected)
    for options in ({}, {"with_indices": True}, {"batched": True}, {"batched": True, "with_indices": True}):
        assert set(by_url.filter(keep, input_columns=["URL"], **options)["TEXT"]) == set(expected) - {
            "text 0",
            "text 1",
        }
    named = dk.keep_filter(urls.path, input_columns=["TEXT", "URL"])
    assert set(table.filter(named, input_columns=["TEXT", "URL"])["TEXT"]) == set(expected)


def test_keys_and_shards_can_be_passed_as_input_columns(tars):
    rows = [{"__key__": row["key"], "__url__": row["source"]} for row in tars.manifest.to_pylist()]
    table = datasets.Dataset.from_list(rows)
    for names in (["__key__", "__url__"], ["__url__", "__key__"]):
        found = table.filter(tars.keep_filter(), input_columns=names)
        assert {(row["__url__"], row["__key__"]) for row in found} == kept_keys(tars)


def test_a_repeated_key_is_told_apart_by_its_bytes(tmp_path, images):
    """The scan keeps the first and reports the second, whose name then is KEY#2 or another that must not be met."""
    wds = pytest.importorskip("webdataset")
    members = [("a.jpg", images[0]), ("b.jpg", images[1]), ("a.jpg", images[2]), ("a#2.jpg", images[3])]
    finished = run(str(write_tar(tmp_path / "in.tar", members)), tmp_path / "out", rule="exact")
    rows = finished.manifest.to_pylist()
    stream = wds.WebDataset(finished.config["shards"], shardshuffle=False).select(finished.keep_filter())
    found = [(sample["__key__"], sample["jpg"]) for sample in stream]
    assert len(found) == sum(row["verdict"] == "keep" for row in rows) == 3
    assert found == [("a", images[0]), ("b", images[1]), ("a#2", images[3])]
    with pytest.raises(UnknownSampleError, match="cannot be told apart"):
        finished.keep_filter()({"__key__": "a", "__url__": finished.config["shards"][0]})


def test_the_stream_of_the_documentation_meets_a_broken_image(tmp_path, images):
    broken = [("00000.jpg", images[0]), ("00001.jpg", b"\xff\xd8\xff no image"), ("00002.jpg", images[1])]
    finished = run(str(write_tar(tmp_path / "in.tar", broken)), tmp_path / "out")
    keep = finished.keep_filter()
    stream = datasets.load_dataset(
        "webdataset", data_files={"train": finished.config["shards"]}, split="train", streaming=True
    )
    stream = stream.cast_column("jpg", datasets.Image(decode=False)).filter(keep)
    decode = datasets.Image().decode_example
    decoded = stream.map(lambda row: {"jpg": decode(row["jpg"])})
    assert [row["jpg"].size for row in decoded] == [(96, 80)] * 2


def test_random_subsets_in_random_order_agree_with_the_manifest(tmp_path, tars, images):
    """Whatever part of its identity a sample shows, the verdict is the manifest's or it is refused."""
    rows = tars.manifest.to_pylist()
    data = {(row["source"], row["key"]): images[shard::3][number] for row in rows
            for shard, number in [(int(Path(row["source"]).stem), int(row["key"]))]}  # fmt: skip
    random.seed(0)
    keep = tars.keep_filter()
    refused = 0
    for _ in range(300):
        row = random.choice(rows)
        whole = {"__key__": row["key"], "__url__": row["source"], "jpg": data[row["source"], row["key"]],
                 "caption": row["caption"], "uid": "no such", "url": "no such"}  # fmt: skip
        shown = {name: whole[name] for name in random.sample(list(whole), random.randint(1, len(whole)))}
        try:
            assert keep(shown) == (row["verdict"] == "keep"), shown.keys()
        except UnknownSampleError as error:
            refused += 1
            assert "jpg" not in shown or "\n" in str(error)
            assert not {"__key__", "__url__"} <= set(shown)
    assert 0 < refused < 300


def test_a_path_in_a_cell_and_an_opened_file_are_read(tmp_path, tars, images):
    from PIL import Image

    for number, image in enumerate(images):
        (tmp_path / f"{number}.jpg").write_bytes(image)
        stored_as = {"bytes": None, "path": str(tmp_path / f"{number}.jpg")}
        opened = Image.open(tmp_path / f"{number}.jpg")
        expected = tars.keep_filter()({"image": {"bytes": image, "path": None}})
        assert tars.keep_filter()({"image": stored_as}) == tars.keep_filter()({"image": opened}) == expected
        assert tars.keep_filter()({"depth.png": b"beside it", "jpg": image}) == expected
    with pytest.raises(UnknownSampleError, match="stored bytes"):
        tars.keep_filter()({"image": Image.open(io.BytesIO(images[0]))})


def test_a_command_with_an_open_quote_is_split_at_spaces():
    assert places("pipe:cat 'a.tar") == ["cat", "'a.tar"]


def test_webdataset_is_filtered_by_key_and_shard(tars):
    wds = pytest.importorskip("webdataset")
    kept = list(wds.WebDataset(tars.config["shards"], shardshuffle=False).select(dk.keep_filter(tars.path)))
    assert {(sample["__url__"], sample["__key__"]) for sample in kept} == kept_keys(tars)


def test_very_many_equal_images_are_told_apart_without_a_look_at_each(tmp_path, monkeypatch):
    rows = [
        {"source": "0.parquet", "key": f"{number:08d}", "sha256": hashlib.sha256(b"placeholder").hexdigest(),
         "caption": f"text {number}"[: 99 * number], "verdict": "remove" if number else "keep"}
        for number in range(300)
    ]  # fmt: skip
    schema = pa.schema([(name, pa.string()) for name in ("uid", "url", *rows[0])])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "manifest.parquet")
    monkeypatch.setattr(Verdicts, "_cell", lambda *_: pytest.fail("a cell was read"))
    keep = dk.keep_filter(tmp_path / "manifest.parquet")
    placeholder = {"bytes": b"placeholder", "path": None}
    assert [keep({"image": placeholder, "caption": row["caption"]}) for row in rows] == [True] + [False] * 299
    with pytest.raises(UnknownSampleError, match="300 samples of the run cannot be told apart"):
        keep({"image": placeholder})


def test_other_data_than_the_run_are_refused(tars):
    keep = tars.keep_filter()
    source = tars.config["shards"][0]
    for stranger in ({"__key__": "nobody", "__url__": source}, {"__key__": "x", "__url__": "other.tar"}, {"a": 1}):
        with pytest.raises(KeyError) as error:
            keep(stranger)
        assert isinstance(error.value, dk.DedupkitError)
        assert "\n" not in str(error.value)
    with pytest.raises(dk.DedupkitError, match="does not exist"):
        dk.keep_filter("no/such/run")


def test_names_that_differ_in_invalid_bytes_are_told_apart(tmp_path, images):
    wds = pytest.importorskip("webdataset")
    members = [("caf\udce9.jpg", images[0]), ("caf\udce8.jpg", images[6]), ("caf\\xe9.jpg", images[1])]
    finished = run(str(write_tar(tmp_path / "in.tar", members)), tmp_path / "out")
    assert finished.summary["remove"] == 1
    stream = wds.WebDataset(finished.config["shards"], shardshuffle=False).select(finished.keep_filter())
    kept = [row["sha256"] for row in finished.manifest.to_pylist() if row["verdict"] == "keep"]
    assert [hashlib.sha256(sample["jpg"]).hexdigest() for sample in stream] == kept
