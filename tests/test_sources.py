"""Readers: what is found under a name, and the samples that come out of it."""

from __future__ import annotations

import gzip
import http.server
import json
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, jpegs, manifest, python, run, tar_bytes, verdicts, write_tar
from PIL import Image

from dedupkit.errors import DedupkitError
from dedupkit.sources import Sample, Shard, ShardError, find_shards
from dedupkit.sources.sample import Place
from dedupkit.sources.webdataset import split_name
from dedupkit.store import remote


@pytest.fixture(scope="module")
def images(photos: dict[str, Image.Image]) -> list[bytes]:
    return jpegs(photos, 6)


def named(images: list[bytes], first: int = 0) -> list[tuple[str, bytes]]:
    """WebDataset members: an image and a caption a key."""
    members = []
    for number, image in enumerate(images, first):
        members += [(f"{number:05d}.jpg", image), (f"{number:05d}.txt", f"caption {number}".encode())]
    return members


def read(sources: Any) -> list[Sample]:
    return [sample for shard in find_shards(sources) for sample in shard.read()]


def keys(sources: Any) -> list[str]:
    return [sample.key for sample in read(sources)]


def names(sources: Any) -> list[str]:
    return [Path(shard.source).name for shard in find_shards(sources)]


def assert_fetches(shards: list[Shard]) -> int:
    """``fetch_many`` gives the bytes that ``read`` gave, in whatever order it is asked, also in another process."""
    count = 0
    for shard in shards:
        again = pickle.loads(pickle.dumps(shard))
        stored = {}
        for row, sample in enumerate(shard.read()):
            if sample.image is not None:
                stored[Place(row, 0, sample.key, sample.offset, len(sample.image), None)] = sample.image
        assert dict(again.fetch_many(list(stored)[::-1])) == stored
        some = list(stored)[1::2]
        assert [place for place, _ in again.fetch_many(some[::-1])] == some  # in the order of storage
        count += len(stored)
    return count


# Finding shards -----------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path, images: list[bytes]) -> Path:
    for shard in range(3):
        write_tar(tmp_path / "data" / f"{shard:05d}.tar", named(images[shard * 2 : shard * 2 + 2], shard * 2))
    return tmp_path / "data"


@pytest.mark.parametrize(
    "pattern",
    ["{00000..00002}.tar", "{00000,00001,00002}.tar", "0000{0..2}.tar", "*.tar", "0000[0-2].tar", "0000?.tar", "", "/"],
)
def test_shards_by_braces_globs_and_folder(three: Path, pattern: str) -> None:
    source = f"{three}/{pattern}" if pattern not in ("", "/") else f"{three}{pattern}"
    assert names(source) == ["00000.tar", "00001.tar", "00002.tar"]
    assert keys(source) == [f"{number:05d}" for number in range(6)]
    assert all(not shard.source.endswith("//") for shard in find_shards(source))


def test_paths_strings_and_lists(three: Path) -> None:
    assert names(three / "00001.tar") == ["00001.tar"]
    assert names([three / "00002.tar", f"{three}/00000.tar"]) == ["00002.tar", "00000.tar"]  # in the order given
    assert names((f"{three}/{{00001..00002}}.tar", three / "00000.tar")) == ["00001.tar", "00002.tar", "00000.tar"]


def test_a_range_may_count_down_and_need_not_be_padded(three: Path) -> None:
    assert names(f"{three}/0000{{2..0}}.tar") == ["00002.tar", "00001.tar", "00000.tar"]
    assert names(f"{three}/{{0,1}}000{{0,1}}.tar")[:2] == ["00000.tar", "00001.tar"]


def test_a_shard_that_is_named_twice_is_read_once(three: Path) -> None:
    assert names([three, f"{three}/00001.tar", f"{three}/*.tar"]) == ["00000.tar", "00001.tar", "00002.tar"]


def test_another_spelling_of_a_path_is_no_other_shard(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(three)
    found = find_shards(["00001.tar", "./00001.tar", f"{three}/00001.tar", f"../{three.name}", f"file://{three}/."])
    assert [shard.source for shard in found] == [
        "00001.tar",
        f"../{three.name}/00000.tar",
        f"../{three.name}/00002.tar",
    ]


def test_a_name_with_glob_characters_is_a_name_first(tmp_path: Path, images: list[bytes]) -> None:
    write_tar(tmp_path / "set[1].tar", named(images[:1]))
    assert names(tmp_path / "set[1].tar") == ["set[1].tar"]


def test_a_missing_shard_of_a_pattern_is_kept_and_says_so(three: Path) -> None:
    (three / "00001.tar").unlink()
    shards = find_shards(f"{three}/{{00000..00002}}.tar")
    assert len(shards) == 3
    with pytest.raises(ShardError, match="gone"):
        list(shards[1].read())
    assert [sample.key for sample in shards[2].read()] == ["00004", "00005"]


def test_nothing_under_a_name_is_an_error_that_says_where_it_looked(three: Path, tmp_path: Path) -> None:
    for missing in ("none.tar", "none/{0..3}.tar", "none/*.tar", "none"):
        with pytest.raises(DedupkitError, match="no such source") as caught:
            find_shards(str(tmp_path / missing))
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(DedupkitError, match="no such source"):
        find_shards([three, tmp_path / "none.tar"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DedupkitError, match="nothing to read in .*empty"):
        find_shards(tmp_path / "empty")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DedupkitError, match=r"notes.md is no shard: expected .tar"):
        find_shards(tmp_path / "notes.md")
    with pytest.raises(DedupkitError, match="no source given"):
        find_shards([])


# WebDataset ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_plain_and_compressed_tars(tmp_path: Path, images: list[bytes], suffix: str) -> None:
    data = tar_bytes(named(images))
    path = tmp_path / f"00000{suffix}"
    path.write_bytes(data if suffix == ".tar" else gzip.compress(data))
    samples = read(path)
    assert [sample.image for sample in samples] == images
    assert [sample.caption for sample in samples] == [f"caption {number}" for number in range(6)]
    assert [sample.image_ext for sample in samples] == ["jpg"] * 6
    assert all(sample.error is None for sample in samples)
    assert assert_fetches(find_shards(path)) == 6
    for sample in samples:
        if suffix == ".tar":  # a later pass can seek there
            assert data[sample.offset :].startswith(sample.image or b"?")
        else:
            assert sample.offset is None


def test_naming_rules() -> None:
    assert split_name("a.jpg") == ("a", "jpg")
    assert split_name("a.b.jpg") == ("a", "b.jpg")  # the FIRST dot
    assert split_name("dir.x/sub/a.JPG") == ("dir.x/sub/a", "jpg")
    assert split_name("./a.jpg") == ("./a", "jpg")
    for skipped in ("__meta.x__", "dir/__meta.json__", "README", "dir/", "dir.d/", ".hidden", "a/.jpg", "a.", ""):
        assert split_name(skipped) is None
    assert split_name("__key__.jpg") == ("__key__", "jpg")


def test_names_are_split_as_webdataset_does(tmp_path: Path, images: list[bytes]) -> None:
    wds = pytest.importorskip("webdataset")
    members = []
    for name in ("a", "dir/a", "dir.x/b.c", "./d", "E e", "ü"):
        members += [(f"{name}.JPG", images[0]), (f"{name}.txt", name.encode())]
    members += [("__meta.x__", b"skip"), ("README", b"skip"), (".hidden.jpg", b"skip")]
    path = write_tar(tmp_path / "0.tar", members, tarfile.PAX_FORMAT)
    theirs = list(wds.WebDataset(str(path), shardshuffle=False))
    ours = read(path)
    assert [sample.key for sample in ours] == [sample["__key__"] for sample in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert dict(mine.members) == {name: value for name, value in other.items() if not name.startswith("__")}
    # b.c.jpg has the extension c.jpg, which is no image's
    assert [sample.error for sample in ours] == [None, None, "no image under this key", None, None, None]


def test_the_caption_comes_from_txt_then_from_json(tmp_path: Path, images: list[bytes]) -> None:
    described = {"caption": "from json", "url": "http://x/y.jpg", "uid": "u1", "similarity": 0.25}
    path = write_tar(
        tmp_path / "0.tar",
        [
            *[("0.jpg", images[0]), ("0.json", json.dumps(described).encode()), ("0.txt", b"from txt")],
            *[("1.jpg", images[1]), ("1.json", json.dumps(described).encode())],
            *[("2.jpg", images[2]), ("2.json", b"{ not json")],
            *[("3.jpg", images[3]), ("3.json", b"[1, 2]"), ("3.txt", b"")],
            *[("4.jpg", images[4]), ("4.json", b"[" * 200_000)],
            *[("5.jpg", images[5]), ("5.json", b'{"similarity": 1' + b"0" * 400 + b', "caption": 7}')],
        ],
    )
    samples = read(path)
    assert [sample.caption for sample in samples] == ["from txt", "from json", None, "", None, "7"]
    assert (samples[1].url, samples[1].uid, samples[1].clip_score) == ("http://x/y.jpg", "u1", 0.25)
    assert samples[5].clip_score is None
    assert all(sample.error is None for sample in samples)


def test_the_same_keys_in_two_shards_are_two_samples(tmp_path: Path, images: list[bytes]) -> None:
    for shard in range(2):
        write_tar(tmp_path / "data" / f"{shard}.tar", named(images[shard * 2 : shard * 2 + 2]))
    finished = run(tmp_path / "data", tmp_path / "out")
    rows = finished.manifest.to_pylist()
    assert [row["key"] for row in rows] == ["00000", "00001"] * 2
    assert len({(row["source"], row["key"]) for row in rows}) == 4
    assert {row["verdict"] for row in rows} == {"keep"}


# img2dataset's three formats, as it writes them ---------------------------------------------------------------------

FAILED = "<urlopen error [Errno -2] Name or service not known>"


COYO = {"uid": "id", "similarity": "clip_similarity_vitl14"}


def img2dataset_rows(
    images: list[bytes], *, captions: bool = True, exif: bool = True, names: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Rows in completion order: six samples of shard 3, two of them failed, one without a caption."""
    rows = []
    for number in (4, 0, 5, 2, 1, 3):
        status = {1: "failed_to_download", 5: "failed_to_resize"}.get(number, "success")
        size = 256 if status == "success" else None
        row = {
            "uid": f"{number:032x}",
            "similarity": number / 10,
            "caption": None if number == 2 else f"caption {number}",
            "url": f"http://example.org/{number}.jpg",
            "key": f"{30 + number:06d}",
            "status": status,
            "error_message": {"failed_to_download": FAILED, "failed_to_resize": "Image decoding error"}.get(status),
            "width": size,
            "height": size,
            "original_width": size,
            "original_height": size,
            "exif": "{}" if size else None,
            "sha256": f"{number:064x}" if size else None,  # of the download, not of the bytes in the shard
        }
        if not captions:
            del row["caption"]
        if not exif:
            del row["exif"]
        rows.append({(names or {}).get(name, name): value for name, value in row.items()})
    return rows


def table_of(rows: list[dict[str, Any]], images: list[bytes] | None = None) -> pa.Table:
    types = dict.fromkeys(("width", "height", "original_width", "original_height"), pa.int32())
    types |= dict.fromkeys(("similarity", COYO["similarity"]), pa.float64())
    names = [name for name in rows[0] if name != "image"]
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    table = pa.Table.from_pylist([{name: row[name] for name in names} for row in rows], schema=schema)
    if images is None:
        return table
    stored = [images[int(row["key"]) - 30] if row["status"] == "success" else None for row in rows]
    return table.append_column("jpg", pa.array(stored, pa.binary()))


def write_img2dataset(folder: Path, kind: str, images: list[bytes], **options: Any) -> Path:
    """One shard, number 3, in one of img2dataset's output formats."""
    folder.mkdir(parents=True)
    rows = img2dataset_rows(images, **options)
    pq.write_table(table_of(rows, images if kind == "parquet" else None), folder / "00003.parquet", row_group_size=1)
    stats = {"count": 6, "successes": 4, "failed_to_download": 1, "failed_to_resize": 1, "duration": 0.5}
    (folder / "00003_stats.json").write_text(json.dumps(stats, indent=4))
    members = []
    for row in rows:
        if row["status"] == "success":
            members.append((f"{row['key']}.jpg", images[int(row["key"]) - 30]))
            members.append((f"{row['key']}.json", json.dumps(row, indent=4).encode()))
            if "caption" in row:
                members.append((f"{row['key']}.txt", (row["caption"] or "").encode()))
    if kind == "webdataset":
        write_tar(folder / "00003.tar", members, tarfile.GNU_FORMAT)
    if kind == "files":
        (folder / "00003").mkdir()
        (folder / "00003" / ".DS_Store").write_bytes(b"a hidden file is no sample")
        for name, data in members:
            (folder / "00003" / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "files"])
@pytest.mark.parametrize("options", [{}, {"exif": False}, {"names": COYO}], ids=["as ever", "no exif", "COYO"])
def test_img2dataset_output(tmp_path: Path, images: list[bytes], kind: str, options: dict[str, Any]) -> None:
    folder = write_img2dataset(tmp_path / "laion", kind, images, **options)
    (shard,) = find_shards(folder)
    samples = {sample.key: sample for sample in shard.read()}
    assert sorted(samples) == [f"{30 + number:06d}" for number in range(6)]
    for key, sample in samples.items():
        number = int(key) - 30
        assert sample.url == f"http://example.org/{number}.jpg"
        assert sample.uid == f"{number:032x}"
        assert sample.clip_score == number / 10
        if number in (1, 5):
            assert sample.image is None  # no image is invented
            assert sample.members == {}
            wanted = f"failed_to_download: {FAILED}" if number == 1 else "failed_to_resize: Image decoding error"
            assert sample.error == wanted
            assert sample.caption == f"caption {number}"
        else:
            assert sample.image == images[number]
            assert sample.error is None
            # a missing caption is an empty txt, and null in Parquet
            missing = None if kind == "parquet" else ""
            assert sample.caption == (missing if number == 2 else f"caption {number}")
    assert assert_fetches([shard]) == 4


@pytest.mark.parametrize("kind", ["webdataset", "parquet", "files"])
def test_a_run_over_img2dataset_output_accounts_for_every_row(tmp_path: Path, images: list[bytes], kind: str) -> None:
    folder = write_img2dataset(tmp_path / "laion", kind, images)
    finished = run(folder, tmp_path / "out")
    rows = manifest(finished)
    assert {key: row["verdict"] for key, row in rows.items()} == {
        "000030": "keep",
        "000031": "unreadable",
        "000032": "keep",
        "000033": "keep",
        "000034": "keep",
        "000035": "unreadable",
    }
    failed = rows["000031"]
    assert failed["reason"] == f"failed_to_download: {FAILED}"
    assert failed["url"] == "http://example.org/1.jpg"
    assert [failed[name] for name in ("sha256", "pdq", "width", "height", "nbytes", "format")] == [None] * 6
    assert rows["000030"]["sha256"] != "0" * 64  # of the stored bytes, not the download's
    assert finished.summary["shard_problems"] == []


def test_img2dataset_without_captions(tmp_path: Path, images: list[bytes]) -> None:
    for kind in ("webdataset", "parquet", "files"):
        folder = write_img2dataset(tmp_path / kind, kind, images, captions=False)
        assert {sample.caption for sample in read(folder)} == {None}


def test_a_tar_takes_its_metadata_from_beside_it(tmp_path: Path, images: list[bytes]) -> None:
    folder = write_img2dataset(tmp_path / "laion", "webdataset", images)
    for source in (folder / "00003.tar", f"{folder}/{{00003..00003}}.tar", f"{folder}/*.tar"):
        assert len(read(source)) == 6


def test_rows_of_the_metadata_that_the_tar_lost(tmp_path: Path, images: list[bytes]) -> None:
    folder = write_img2dataset(tmp_path / "laion", "webdataset", images)
    write_tar(folder / "00003.tar", [("000030.jpg", images[0])])
    errors = {sample.key: sample.error for sample in read(folder)}
    assert errors["000030"] is None
    assert errors["000032"] == "listed as downloaded, but not in the tar"
    assert errors["000031"] == f"failed_to_download: {FAILED}"


def test_a_parquet_beside_a_tar_that_is_not_img2datasets(tmp_path: Path, images: list[bytes]) -> None:
    write_tar(tmp_path / "0.tar", named(images[:2]))
    pq.write_table(pa.table({"url": ["x", "y"]}), tmp_path / "0.parquet")
    assert keys(tmp_path) == ["00000", "00001"]


def test_metadata_that_cannot_be_read_is_said(tmp_path: Path, images: list[bytes]) -> None:
    write_tar(tmp_path / "data" / "0.tar", named(images[:2]))
    (tmp_path / "data" / "0.parquet").write_bytes(b"no parquet")
    finished = run(tmp_path / "data", tmp_path / "out")
    rows = manifest(finished)
    assert {key: row["verdict"] for key, row in rows.items()} == {"00000": "keep", "00001": "keep", "": "unreadable"}
    assert "0.parquet cannot be read" in rows[""]["reason"]
    assert "failed downloads, addresses and captions that it lists are missing" in rows[""]["reason"]
    assert len(finished.summary["shard_problems"]) == 1


def test_a_files_shard_whose_samples_all_failed(tmp_path: Path, images: list[bytes]) -> None:
    folder = write_img2dataset(tmp_path / "laion", "files", images)
    rows = [row | {"key": f"9{row['key']}"} for row in img2dataset_rows(images) if row["status"] != "success"]
    pq.write_table(table_of(rows), folder / "00004.parquet")
    errors = [sample.error or "" for sample in find_shards(folder)[1].read()]
    assert len(errors) == 2
    assert all(error.startswith("failed_to") for error in errors)


# Folders of images --------------------------------------------------------------------------------------------------


def test_an_image_folder_is_read_recursively_with_captions_beside(tmp_path: Path, images: list[bytes]) -> None:
    folder = tmp_path / "images"
    files = {
        "b.jpg": images[0],
        "b.txt": b"  a caption\n",
        "sub/deep/a.JPEG": images[1],
        "sub/deep/a.txt": "ein Bär".encode(),
        "a.b.jpg": images[2],  # the last suffix counts in a folder
        "z.png": images[3],
        "z.json": b'{"caption": "from json", "url": "http://z"}',
        ".hidden.jpg": b"x",
        "notes.md": b"x",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    samples = read(folder)
    assert [(sample.key, sample.caption) for sample in samples] == [
        ("a.b.jpg", None),
        ("b.jpg", "a caption"),
        ("sub/deep/a.JPEG", "ein Bär"),
        ("z.png", "from json"),
    ]
    assert samples[3].url == "http://z"
    assert [sample.image for sample in samples] == [images[2], images[0], images[1], images[3]]
    assert assert_fetches(find_shards(folder)) == 4


CAPTION_FILES = {
    "captions.csv": 'file_name,caption,url\na.jpg,"one, two\nthree",http://a\nsub/b.jpg,four,\n',
    "metadata.csv": '\ufefffile_name,text,url\r\na.jpg,"one, two\nthree",http://a\r\nsub/b.jpg,four,\r\n',
    "captions.tsv": 'filename\tcaption\turl\na.jpg\t"one, two\nthree"\thttp://a\nsub/b.jpg\tfour\n',
    "captions.jsonl": '{"file": "a.jpg", "caption": "one, two\\nthree", "url": "http://a"}\n\n'
    '{"file": "sub/b.jpg", "caption": "four"}\n',
    "metadata.jsonl": '{"file_name": "a.jpg", "text": "one, two\\nthree", "url": "http://a"}\r\n'
    '{"file_name": "sub/b.jpg", "text": "four"}',
}


@pytest.mark.parametrize("name", CAPTION_FILES)
def test_an_image_folder_with_a_captions_file(tmp_path: Path, images: list[bytes], name: str) -> None:
    (tmp_path / "sub").mkdir()
    for image, data in (("a.jpg", images[0]), ("sub/b.jpg", images[1]), ("c.jpg", images[2])):
        (tmp_path / image).write_bytes(data)
    (tmp_path / name).write_bytes(CAPTION_FILES[name].encode())
    samples = read(tmp_path)
    assert [(sample.key, sample.caption) for sample in samples] == [
        ("a.jpg", "one, two\nthree"),
        ("c.jpg", None),
        ("sub/b.jpg", "four"),
    ]
    assert samples[0].url == "http://a"


def files(folder: Path, contents: dict[str, bytes | str]) -> Path:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def captions(source: Any) -> dict[str, str | None]:
    return {sample.key: sample.caption for sample in read(source)}


def test_captions_of_a_hugging_face_imagefolder(tmp_path: Path, images: list[bytes]) -> None:
    lines = (
        '{"file_name": "0.png", "text": "train zero", "label": 3}\n{"file_name": "sub/1.png", "text": "train one"}\n'
    )
    folder = files(
        tmp_path / "data",
        {
            "train/0.png": images[0], "train/sub/1.png": images[1], "train/metadata.jsonl": lines,
            "test/0.png": images[2], "test/metadata.csv": "file_name,text\n0.png,test zero\n", "val/0.png": images[3],
        },
    )  # fmt: skip
    pq.write_table(pa.table({"file_name": ["0.png"], "text": ["val zero"]}), folder / "val" / "metadata.parquet")
    expected = {"test/0.png": "test zero", "train/0.png": "train zero", "train/sub/1.png": "train one"}
    assert captions(folder) == expected | {"val/0.png": "val zero"}
    (shard,) = find_shards(folder)
    assert next(s for s in shard.read(extra=True) if s.key == "train/0.png").extra["label"] == 3
    finished = run(folder, tmp_path / "out")
    assert finished.summary["passed_over"] == {"count": 0}
    finished.apply(tmp_path / "clean")
    with tarfile.open(tmp_path / "clean" / "00000.tar") as cleaned:
        texts = [cleaned.extractfile(member).read() for member in cleaned if member.name.endswith(".txt")]  # type: ignore[union-attr]
    assert sorted(texts) == [b"test zero", b"train one", b"train zero", b"val zero"]


def test_captions_beside_images_at_the_top_in_parquet(tmp_path: Path, images: list[bytes]) -> None:
    folder = files(tmp_path, {"a.jpg": images[0]})
    pq.write_table(pa.table({"file_name": ["a.jpg"], "caption": [["one", "two"]]}), folder / "metadata.parquet")
    assert captions(folder) == {"a.jpg": "one"}


FLICKR = {
    "8k": 'image,caption\nimage_1.jpg,A child .\nimage_1.jpg,"A girl, climbing ."\nimage_2.jpg,A dog .\n',
    "30k": "image_name| comment_number| comment\nimage_1.jpg| 0| A child .\nimage_1.jpg| 1| A girl, climbing .\n"
    "image_2.jpg| 0| A dog .\n",
    "token": "image_1.jpg#0\tA child .\nimage_1.jpg#1\tA girl, climbing .\nimage_2.jpg#0\tA dog .\n",
}


@pytest.mark.parametrize("form", FLICKR)
def test_captions_of_flickr(tmp_path: Path, images: list[bytes], form: str) -> None:
    contents = {"Images/image_1.jpg": images[0], "Images/image_2.jpg": images[1], "captions.txt": FLICKR[form]}
    (shard,) = find_shards(files(tmp_path, contents))
    first, second = shard.read(extra=True)
    assert (first.caption, second.caption) == ("A child .", "A dog .")
    assert first.extra["caption"] == ["A child .", "A girl, climbing ."]


def test_captions_of_coco(tmp_path: Path, images: list[bytes]) -> None:
    annotations = {
        "images": [{"id": 9, "file_name": "0009.jpg"}, {"id": 7, "file_name": "0007.jpg"}],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "nine"},
            {"image_id": 7, "id": 2, "caption": "seven"},
            {"image_id": 9, "id": 3, "caption": "nine again"},
            {"image_id": 8, "id": 4, "caption": "no such image"},
        ],
    }
    contents = {"val2017/0009.jpg": images[0], "val2017/0007.jpg": images[1]}
    folder = files(tmp_path, contents | {"annotations/captions_val2017.json": json.dumps(annotations)})
    assert captions(folder) == {"val2017/0007.jpg": "seven", "val2017/0009.jpg": "nine"}
    (shard,) = find_shards(folder)
    assert list(shard.read(extra=True))[1].extra["caption"] == ["nine", "nine again"]


def test_captions_in_files_of_their_own_and_what_comes_first(tmp_path: Path, images: list[bytes]) -> None:
    contents: dict[str, bytes | str] = {f"{name}.jpg": images[0] for name in ("a", "b", "c", "captions")}
    contents |= {"a.caption": " beside\n", "a.json": '{"caption": "json"}', "b.txt": "txt", "b.caption": "caption"}
    contents |= {"c.json": '{"caption": ["", "second"]}', "captions.txt": "of the image called captions"}
    contents["captions.csv"] = "file_name,caption\na.jpg,table\nb.jpg,table\nc.jpg,table\n"
    expected = {"a.jpg": "beside", "b.jpg": "txt", "captions.jpg": "of the image called captions"}
    assert captions(files(tmp_path, contents)) == expected | {"c.jpg": "table"}
    (tmp_path / "captions.csv").unlink()
    assert captions(tmp_path) == expected | {"c.jpg": "second"}


def test_two_images_of_one_name_are_not_mixed_up(tmp_path: Path, images: list[bytes]) -> None:
    contents = {"x/1.jpg": images[0], "y/1.jpg": images[1], "captions.csv": "file_name,caption\n1.jpg,whose?\n"}
    folder = files(tmp_path / "data", contents)
    assert captions(folder) == {"x/1.jpg": None, "y/1.jpg": None}
    assert run(folder, tmp_path / "out").summary["passed_over"] == {"count": 1, "example": "captions.csv"}


def test_a_row_for_a_missing_image_replaces_no_row_of_another(tmp_path: Path, images: list[bytes]) -> None:
    contents: dict[str, bytes | str] = {
        "test/1.jpg": images[0], "test/2.jpg": images[1],
        "test/metadata.csv": "file_name,caption\n1.jpg,own\n",
        "train/metadata.csv": "file_name,caption\n1.jpg,of a missing image\n2.jpg,by its name\n",
    }  # fmt: skip
    folder = files(tmp_path / "data", contents)
    assert captions(folder) == {"test/1.jpg": "own", "test/2.jpg": "by its name"}


def test_captions_files_may_hold_long_and_odd_text(tmp_path: Path, images: list[bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(images[0])
    long = "word " * 200_000
    (tmp_path / "captions.csv").write_text(f'file_name,caption\na.jpg,"{long}"\n')
    assert read(tmp_path)[0].caption == long
    odd = "line\u2028separator\x0b\x1c \x85and \ud83d\ude00"
    (tmp_path / "captions.csv").unlink()
    row = {"file_name": "a.jpg", "caption": odd}
    # raw, as most writers leave it; lines of JSON end at a newline and nowhere else
    raw = json.dumps(row, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16")
    (tmp_path / "captions.jsonl").write_text(raw + "\n", encoding="utf-8")
    assert read(tmp_path)[0].caption == "line\u2028separator\x0b\x1c \x85and 😀"


def test_a_captions_file_that_cannot_be_used_is_an_error(tmp_path: Path, images: list[bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(images[0])
    (tmp_path / "captions.csv").write_text("caption,url\nx,y\n")
    with pytest.raises(DedupkitError, match="has no column of file names; call it file_name"):
        find_shards(tmp_path)
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "captions.jsonl").write_text("{ not json\n")
    with pytest.raises(DedupkitError, match="captions.jsonl cannot be read"):
        find_shards(tmp_path)


@pytest.mark.parametrize("kind", ["captions file", "metadata of a tar", "metadata of files"])
def test_fields_of_json_are_found_beside_a_row(tmp_path: Path, images: list[bytes], kind: str) -> None:
    stated = json.dumps({"score": 1, "caption": "of the JSON", "watermark": 0.5}).encode()
    row = {"key": ["a"], "caption": ["of the row"], "score": [2]}
    if kind == "captions file":
        files(
            tmp_path,
            {"a.jpg": images[0], "a.json": stated, "metadata.csv": "file_name,caption,score\na.jpg,of the row,2\n"},
        )
    elif kind == "metadata of a tar":
        write_tar(tmp_path / "00000.tar", [("a.jpg", images[0]), ("a.json", stated)])
        pq.write_table(pa.table(row), tmp_path / "00000.parquet")
    else:
        files(tmp_path, {"00000/a.jpg": images[0], "00000/a.json": stated})
        pq.write_table(pa.table(row), tmp_path / "00000.parquet")
    (shard,) = find_shards(tmp_path)
    (sample,) = shard.read(extra=["score", "watermark"])
    assert (sample.caption, sample.extra["watermark"], str(sample.extra["score"])) == ("of the row", 0.5, "2")
    assert [dict(sample.extra) for sample in shard.read()] == [{}]


def test_a_large_folder_is_several_shards_with_one_source(tmp_path: Path, images: list[bytes]) -> None:
    for number in range(1100):
        (tmp_path / f"{number:04d}.jpg").write_bytes(images[0][:20])
    shards = find_shards(tmp_path)
    assert len(shards) == 3
    assert {shard.source for shard in shards} == {str(tmp_path)}
    assert keys(tmp_path) == [f"{number:04d}.jpg" for number in range(1100)]


def test_a_file_that_vanishes_from_a_folder_is_one_unreadable_sample(tmp_path: Path, images: list[bytes]) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(images[number])
    (shard,) = find_shards(tmp_path)
    (tmp_path / "1.jpg").unlink()
    samples = list(shard.read())
    assert [sample.key for sample in samples] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [sample.error for sample in samples] == [None, "FileNotFoundError: No such file or directory", None]


# Parquet ------------------------------------------------------------------------------------------------------------


def hugging_face(images: list[bytes | None]) -> pa.Array:
    rows = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


@pytest.mark.parametrize("layout", ["struct", "binary", "large_binary", "other name", "dictionary"])
def test_parquet_with_images(tmp_path: Path, images: list[bytes], layout: str) -> None:
    captions = pa.array([f"caption {number}" for number in range(6)])
    if layout == "struct":
        table = pa.table({"text": captions, "image": hugging_face(list(images))})
    elif layout == "other name":
        table = pa.table({"pixels": pa.array(images, pa.binary()), "text": captions})
    else:
        kind = pa.large_binary() if layout == "large_binary" else pa.binary()
        text = captions.dictionary_encode() if layout == "dictionary" else captions
        table = pa.table({"image": pa.array(images, kind), "text": text, "thumb": pa.array([b"x"] * 6)})
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    pq.write_table(table, path, row_group_size=4)
    samples = read(path)
    assert [sample.key for sample in samples] == [f"{number:08d}" for number in range(6)]
    assert [sample.image for sample in samples] == images
    assert [sample.caption for sample in samples] == [f"caption {number}" for number in range(6)]
    assert assert_fetches(find_shards(path)) == 6
    assert set(verdicts(run(path.parent, tmp_path / "out")).values()) == {"keep"}


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_may_be_called_like_a_parquet_file(tmp_path: Path, images: list[bytes], end: str) -> None:
    (tmp_path / "spark.parquet").mkdir()
    for part in range(2):
        table = pa.table({"image": pa.array(images[part : part + 1], pa.binary())})
        pq.write_table(table, tmp_path / "spark.parquet" / f"part-0000{part}-c000.snappy.parquet")
    (tmp_path / "spark.parquet" / "_SUCCESS").touch()
    assert [sample.image for sample in read(f"{tmp_path}/spark.parquet{end}")] == images[:2]
    assert [sample.image for sample in read(f"{tmp_path}/*.parquet")] == images[:2]


def test_parquet_written_by_datasets(tmp_path: Path, images: list[bytes]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    rows = {"image": [{"bytes": image, "path": None} for image in images], "caption": list("abcdef")}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "0.parquet"))
    samples = read(tmp_path)
    assert [sample.image for sample in samples] == images
    assert [sample.caption for sample in samples] == list("abcdef")


@pytest.mark.parametrize("kind", ["parquet with images", "tar beside its metadata"])
def test_of_parquet_only_the_columns_that_are_named_are_read(tmp_path: Path, images: list[bytes], kind: str) -> None:
    columns = {"key": ["00000", "00001"], "status": ["success"] * 2, "score": [1, 2], "mask": ["m", "n"]}
    if kind == "parquet with images":
        columns |= {"jpg": images[:2]}
    else:
        write_tar(tmp_path / "00000.tar", named(images[:2]))
    pq.write_table(pa.table(columns), tmp_path / "00000.parquet")
    (shard,) = find_shards(tmp_path)
    found = [dict(sample.extra) for sample in shard.read(extra=["score"])]
    assert [extra["score"] for extra in found] == [1, 2] and not any("mask" in extra for extra in found)
    assert [sample.extra["mask"] for sample in shard.read(extra=True)] == ["m", "n"]


def test_rows_without_bytes_say_so(tmp_path: Path, images: list[bytes]) -> None:
    path = tmp_path / "0.parquet"
    column = pa.array([{"bytes": images[0], "path": None}, {"bytes": None, "path": "x.jpg"}, None])
    pq.write_table(pa.table({"image": column}), path)
    errors = [sample.error for sample in read(path)]
    assert errors == [None, "the row stores no image bytes, only the path 'x.jpg'", "the row stores no image"]


def test_other_columns_of_a_parquet_do_not_matter(tmp_path: Path, images: list[bytes]) -> None:
    """Only what is needed is read: text that is no UTF-8, or a time that Python cannot hold, breaks nothing."""
    pq.write_table(
        pa.table(
            {
                "image": pa.array(images[:2], pa.binary()),
                "caption": pa.array([b"caf\xe9", b"fine"], pa.binary()).view(pa.string()),
                "note": pa.array([b"\xff", b""], pa.binary()).view(pa.string()),
                "when": pa.array([1, 2**62], pa.timestamp("ns")),
                "id": [2**60, 5],
                "similarity": [0.5, float("nan")],
            }
        ),
        tmp_path / "0.parquet",
    )
    samples = read(tmp_path)
    assert [sample.caption for sample in samples] == ["caf\ufffd", "fine"]
    assert [sample.uid for sample in samples] == [str(2**60), "5"]
    assert samples[0].image == images[0]


def test_metadata_with_invalid_text_is_still_metadata(tmp_path: Path, images: list[bytes]) -> None:
    write_tar(tmp_path / "0.tar", [("000.jpg", images[0])])
    rows = {
        "key": pa.array(["000", "001"]),
        "status": pa.array(["success", "failed_to_download"]),
        "error_message": pa.array([None, b"\xff\xfe"], pa.binary()).view(pa.string()),
    }
    pq.write_table(pa.table(rows), tmp_path / "0.parquet")
    assert [(sample.key, sample.error) for sample in read(tmp_path)] == [
        ("000", None),
        ("001", "failed_to_download: \ufffd\ufffd"),
    ]


# Remote -------------------------------------------------------------------------------------------------------------


def test_memory_file_system(three: Path, images: list[bytes]) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in three.iterdir():
        memory.pipe(f"/bucket/tars/{path.name}", path.read_bytes())
    memory.pipe("/bucket/images/sub/a.jpg", images[0])
    memory.pipe("/bucket/images/b.jpg", images[1])
    memory.pipe("/bucket/images/b.txt", b"beside")
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), buffer)
    memory.pipe("/bucket/0.parquet", buffer.getvalue().to_pybytes())
    memory.pipe("/bucket/0.tar.gz", gzip.compress((three / "00000.tar").read_bytes()))
    try:
        for pattern in ("tars/*.tar", "tars/{00000..00002}.tar", "tars", "tars/"):
            assert keys(f"memory://bucket/{pattern}") == [f"{number:05d}" for number in range(6)]
        assert [(s.key, s.caption) for s in read("memory://bucket/images")] == [
            ("b.jpg", "beside"),
            ("sub/a.jpg", None),
        ]
        assert [sample.image for sample in read("memory://bucket/0.parquet")] == images
        assert keys("memory://bucket/0.tar.gz") == ["00000", "00001"]
        for source in ("tars", "images", "0.parquet", "0.tar.gz"):
            assert assert_fetches(find_shards(f"memory://bucket/{source}")) >= 2
        with pytest.raises(DedupkitError, match="no such source"):
            find_shards("memory://bucket/none.tar")
        missing = find_shards("memory://bucket/tars/{00002..00003}.tar")[1]
        with pytest.raises(ShardError, match="gone"):
            list(missing.read())
    finally:
        memory.rm("/bucket", recursive=True)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges; every path with ``broken`` in it fails once its size is known."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if "broken" in self.path:
            self.send_error(500)
            return
        asked = self.headers.get("Range")
        if asked is None or not path.is_file():
            super().do_GET()
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        data = path.read_bytes()
        part = data[int(first) : int(last or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    (tmp_path / "www").mkdir()
    handler = partial(Handler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_http(tmp_path: Path, images: list[bytes], server: str) -> None:
    www = tmp_path / "www"
    write_tar(www / "00000.tar", named(images))
    (www / "00001.tar.gz").write_bytes(gzip.compress(tar_bytes(named(images[:2], 6))))
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), www / "0.parquet")
    assert [sample.image for sample in read(f"{server}/00000.tar")] == images
    assert keys([f"{server}/00000.tar", f"{server}/00001.tar.gz"])[-1] == "00007"
    for name in ("00000.tar", "00001.tar.gz", "0.parquet"):
        assert assert_fetches(find_shards(f"{server}/{name}")) >= 2
    finished = run(f"{server}/{{00000..00001}}.tar", tmp_path / "out")
    rows = manifest(finished)
    assert len(rows) == 7
    assert rows[""]["reason"].startswith("the shard is gone")
    assert rows["00003"]["source"] == f"{server}/00000.tar"
    with pytest.raises(DedupkitError, match="no such source"):
        find_shards(f"{server}/none.tar")


def test_http_errors_are_the_shards_not_the_runs(
    tmp_path: Path, images: list[bytes], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    for name in ("00000.tar", "broken.tar"):
        write_tar(tmp_path / "www" / name, named(images[:2]))
    pq.write_table(pa.table({"image": pa.array(images[:1], pa.binary())}), tmp_path / "www" / "broken.parquet")
    finished = run([f"{server}/{{00000,broken}}.tar", f"{server}/{{00000.tar,broken.parquet}}"], tmp_path / "out")
    rows = finished.manifest.to_pylist()
    assert [row["verdict"] for row in rows] == ["keep", "keep", "unreadable", "unreadable"]
    assert "500" in rows[2]["reason"]
    assert "500" in rows[3]["reason"]
    assert len(finished.summary["shard_problems"]) == 2


def test_without_the_package_for_a_protocol_the_error_names_it() -> None:
    script = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from dedupkit.errors import DedupkitError\n"
        "from dedupkit.sources import find_shards\n"
        "try:\n    find_shards('http://127.0.0.1:9/0.tar')\n"
        "except DedupkitError as error:\n    print(error)\n"
    )
    result = python("-c", script)
    assert result.returncode == 0, result.stderr
    assert "cannot open http://127.0.0.1:9/" in result.stdout
    assert "aiohttp" in result.stdout
    with pytest.raises(DedupkitError, match="cannot open nosuch://"):
        find_shards("nosuch://bucket/0.tar")


def test_encoded_formats_keep_their_names(tmp_path: Path, photo: Image.Image) -> None:
    small = photo.resize((200, 180))
    kinds = {"png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "jpeg": "JPEG"}
    path = write_tar(tmp_path / "0.tar", [(f"{kind}.{kind}", encode(small, name)) for kind, name in kinds.items()])
    rows = manifest(run(path, tmp_path / "out", rule="exact"))
    assert {key: row["format"] for key, row in rows.items()} == {kind: kind for kind in kinds}
    assert {row["verdict"] for row in rows.values()} == {"keep"}
