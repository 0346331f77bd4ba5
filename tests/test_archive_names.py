"""Names in cleaned shards and lists: any key goes in, and the same key comes out, by whoever reads."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dedupkit.manifest import tar_shards
from dedupkit.manifest.lists import escape, read_keys, unescape
from dedupkit.manifest.names import ArchiveNames, archive_name, original_key, short_key
from dedupkit.manifest.shards import TarShardWriter
from dedupkit.sources import Sample, find_shards

HOSTILE = [
    "", ".", "..", "../../x", "/abs/y", "//", "e/", "/", "a//b", "./a", "a/./b", "a/../b", "a\0b", "a\tb\nc", "a\r",
    "\\..\\x", "a.b", "a%2Eb", "%", "%~", "%~2", "%00", "__x__", "__x__/y", "__/y", "a/__b__/c", "é/ü", "\udc80",
    "\ud800", "CON", "a.jpg", "a.JPG", "A", "a", ".jpg", "e/.jpg", "a.jpg.jpg", "a.x//b", "k" * 5000,
    "f" * 90 + "/" + "n" * 90, " a ", "-rf", "a\u2028b", "~", "C:/x", "a#2", "😀" * 60,
]  # fmt: skip
keys = st.one_of(
    st.sampled_from(HOSTILE), st.text(alphabet="./%_a\0\n\t\\~é\udc80A2jpg", max_size=12), st.text(max_size=8)
)


@given(st.lists(keys, unique=True, max_size=60))
@example(HOSTILE)
@settings(max_examples=200, deadline=None)
def test_a_name_is_safe_and_says_which_key_it_was(given_keys):
    names = [archive_name(key) for key in given_keys]
    assert len(set(names)) == len(names)
    assert [original_key(name) for name in names] == given_keys
    for name in names:
        parts = name.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert "." not in parts[-1]
        assert not any(part.startswith("__") and part.endswith("__") for part in parts[:-1])
        assert name.isprintable() or not any(ord(c) < 32 or c == "\x7f" for c in name)
    allocated = ArchiveNames()
    given_names = [allocated.give(key, "jpg") for key in given_keys * 2]
    assert len(set(given_names)) == 2 * len(given_keys)


@pytest.mark.parametrize("key", ["00017/000171234", "kurz", "a b", "日本/語", "x#2", "a.b/c", "n" * 240])
def test_a_plain_key_stays_as_it_is(key):
    assert archive_name(key) == key


def test_a_file_name_loses_the_suffix_that_its_member_has_again():
    assert [short_key(key, "jpg") for key in ("IMG_0001.JPG", "a.png", "d/.jpg")] == ["IMG_0001", "a.png", "d/.jpg"]


def write_samples(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    with TarShardWriter(path) as writer:
        for key, members in samples:
            writer.add(Sample(key, members, "jpg"), {"key": key, "caption": None, "url": None, "uid": None})


bodies = st.fixed_dictionaries(
    {"jpg": st.binary(max_size=600)},
    optional={"txt": st.binary(max_size=20), "json": st.sampled_from([b'{"a": 1}', b"[1]", b"{", b"\xff"])},
)


@given(st.lists(st.tuples(keys, bodies), max_size=30))
@example([(key, {"jpg": b"x", "txt": b"t"}) for key in HOSTILE])
@example([(key, {"jpg": b"x", "json": b"[1]"}) for key in HOSTILE + HOSTILE])
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_equal_by_three_readers(tmp_path_factory, samples):
    wds = pytest.importorskip("webdataset")
    path = tmp_path_factory.mktemp("tar") / "00000.tar"
    write_samples(path, samples)
    read = {
        "ours": [(sample.key, dict(sample.members)) for shard in find_shards(path) for sample in shard.read()],
        "webdataset": [
            (sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")})
            for sample in wds.WebDataset(str(path), shardshuffle=False, empty_check=False)
        ],
        "tarfile": grouped_by_tarfile(path),
    }
    for reader, found in read.items():
        assert len(found) == len(samples), reader
        for (name, members), (key, body) in zip(found, samples, strict=True):
            written = body if "json" in body else {"txt": b"", **body}  # ours have a caption
            assert original_key(name, members["json"]) == key
            assert {ext: data for ext, data in members.items() if ext != "json"} == {
                ext: data for ext, data in written.items() if ext != "json"
            }
            if name == key and "json" in written:
                assert members["json"] == written["json"]


def grouped_by_tarfile(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Samples as a plain script would read them; every member is safe to unpack."""
    found: list[tuple[str, dict[str, bytes]]] = []
    with tarfile.open(path) as archive:
        for member in archive:
            assert tarfile.data_filter(member, str(path.parent / "unpacked")).name == member.name
            key, _, extension = member.name.rpartition(".")
            if not found or found[-1][0] != key:
                found.append((key, {}))
            found[-1][1][extension] = archive.extractfile(member).read()
    return found


def test_hostile_keys_of_a_parquet_file_come_back_from_cleaned_tars(tmp_path, photos):
    """The whole way: img2dataset's Parquet output with keys that it would never give."""
    chosen = [key for key in HOSTILE if key.isprintable() or max(key) < "\ud800"]
    photo = next(iter(photos.values())).convert("RGB").resize((64, 64))
    images = [encode(photo.rotate(number), quality=80 + number % 10) for number in range(len(chosen))]
    table = {"key": chosen, "status": ["success"] * len(chosen), "jpg": images, "caption": chosen}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    finished = run(str(tmp_path / "in.parquet"), tmp_path / "out", rule="exact")
    finished.apply(tmp_path / "clean")
    (shard,) = find_shards(tmp_path / "clean" / "00000.tar")
    read = [(original_key(sample.key, sample.members["json"]), sample.image) for sample in shard.read()]
    assert sorted(read) == sorted(zip(chosen, images, strict=True))
    finished.apply(tmp_path / "keys", format="keys")
    lines = list(read_keys(tmp_path / "keys" / "keys.tsv"))
    assert [key for _, key in lines] == finished.manifest["key"].to_pylist()


@given(st.one_of(keys, st.text()))
@settings(max_examples=200, deadline=None)
def test_a_field_of_a_list_holds_no_separator_and_comes_back(text):
    field = escape(text)
    assert unescape(field) == text
    assert not {"\t", "\n"} & set(field)
    assert len(field.splitlines()) <= 1


def test_json_of_the_source_is_kept_when_the_key_is_renamed(tmp_path):
    write_samples(tmp_path / "a.tar", [("../x", {"jpg": b"1", "json": b'{"license": "CC0", "key": "../x"}'})])
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "a.tar").read_bytes())) as archive:
        stated = json.loads(archive.extractfile("%2E%2E/x.json").read())
    assert stated == {"license": "CC0", "key": "../x", "original_key": "../x"}


@given(st.text(min_size=1, max_size=120).filter(lambda name: "\0" not in name), st.sampled_from([0, 1, 511, 8**11 - 1]))
@settings(max_examples=100, deadline=None)
def test_headers_are_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    try:
        expected = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError:
        expected = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    assert tar_shards._header(name, size) == expected
