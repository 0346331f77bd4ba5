"""The folder that ``apply`` writes into: only its own files are trusted, replaced or removed, by one call at a time."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, run, write_tar
from PIL import Image

import dedupkit as dk
from dedupkit.manifest import export, part
from dedupkit.manifest.cut import ShardSizes
from dedupkit.manifest.target import Target
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import find_shards
from dedupkit.store import write_sealed


@pytest.fixture(scope="module")
def images(photos) -> list[bytes]:
    """Photos and a worse copy of each: 2k and 2k + 1 show the same."""
    chosen = [photo.convert("RGB").resize((160, 120)) for photo in list(photos.values())[:8]]
    return [encode(image, quality=quality) for image in chosen for quality in (90, 40)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory, images) -> list[str]:
    """Four shards of four samples, without a key in common."""
    folder = tmp_path_factory.mktemp("shards")
    members = [(f"{number:05d}.jpg", image) for number, image in enumerate(images)]
    return [str(write_tar(folder / f"{shard}.tar", members[shard::4])) for shard in range(4)]


@pytest.fixture
def finished(tmp_path, sources) -> dk.Run:
    """A run that keeps the better half."""
    return run(sources, tmp_path / "out")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, dedupkit's record of it included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


DAMAGES = {
    "cut": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "flipped": lambda path, data: path.write_bytes(bytes([data[0] ^ 1]) + data[1:]),
    "missing": lambda path, _: path.unlink(),
}


@pytest.mark.parametrize("format", ["webdataset", "parquet", "keys"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_and_missing_files_are_written_again(tmp_path, finished, format, damage):
    sizes = {} if format == "keys" else {"shards": 2}
    finished.apply(tmp_path / "clean", format=format, **sizes)
    expected = contents(tmp_path / "clean")
    files = [name for name in expected if not name.startswith(".dedupkit")]
    for names in (files[::2], files[1::2]):
        for name in names:
            damage(tmp_path / "clean" / name, expected[name])
        finished.apply(tmp_path / "clean", format=format, **sizes)
        assert contents(tmp_path / "clean") == expected


def test_files_of_others_are_neither_counted_nor_touched(tmp_path, finished):
    finished.apply(tmp_path / "clean", shards=2)
    foreign = {"00007.tar": b"mine", "notes.json": b"{}", ".hidden.tmp": b"x", "00007_stats.json": b"{}"}
    for name, data in foreign.items():
        (tmp_path / "clean" / name).write_bytes(data)
    assert finished.apply(tmp_path / "clean", shards=2)["files"] == 2
    assert finished.rethreshold("exact").apply(tmp_path / "clean", shards=4)["files"] == 4
    assert set(json.loads((tmp_path / "clean" / "sizes.json").read_text())) == {f"{n:05d}.tar" for n in range(4)}
    finished.apply(tmp_path / "clean", shards=1)
    assert [path.name for path in sorted((tmp_path / "clean").glob("*.tar"))] == ["00000.tar", "00007.tar"]
    assert {name: (tmp_path / "clean" / name).read_bytes() for name in foreign} == foreign
    before = contents(tmp_path / "clean")
    with pytest.raises(dk.DedupkitError, match=r"00007.tar was not written by dedupkit"):
        finished.apply(tmp_path / "clean", shards=8)
    assert contents(tmp_path / "clean") == before


def test_a_folder_with_files_of_others_is_refused_untouched(tmp_path, finished):
    for name in ("00000.tar", "sizes.json", "README.md"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(dk.DedupkitError, match="not empty"):
            finished.apply(folder)
        assert contents(folder) == {name: b"mine"}


def test_a_folder_of_another_run_is_refused_untouched(tmp_path, finished, sources):
    finished.apply(tmp_path / "clean")
    before = contents(tmp_path / "clean")
    with pytest.raises(dk.DedupkitError, match="not written from this run"):
        run(sources[:2], tmp_path / "other").apply(tmp_path / "clean")
    assert contents(tmp_path / "clean") == before


def test_a_file_that_was_changed_is_not_removed(tmp_path, finished):
    finished.apply(tmp_path / "clean", shards=2)
    (tmp_path / "clean" / "00001.tar").write_bytes(b"something else by now")
    with pytest.raises(dk.DedupkitError, match=r"00001.tar was changed since"):
        finished.apply(tmp_path / "clean", shards=1)
    assert (tmp_path / "clean" / "00001.tar").read_bytes() == b"something else by now"


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_the_same_bytes_for_any_number_of_workers_and_after_any_interruption(
    tmp_path, monkeypatch, sources, finished, format
):
    finished.apply(tmp_path / "one", format=format, workers=1)
    finished.apply(tmp_path / "many", format=format, workers=3)
    expected = contents(tmp_path / "one")
    assert contents(tmp_path / "many") == expected
    for operation in ("replace", "unlink"):
        real = getattr(Path, operation)
        for last in range(1, 200):
            left = last

            def interrupted(path, *arguments, real=real, **options):
                nonlocal left
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
                return real(path, *arguments, **options)

            target = tmp_path / f"{operation}-{last}"
            monkeypatch.setattr(Path, operation, interrupted)
            try:
                finished.apply(target, format=format, workers=1)
            except KeyboardInterrupt:
                monkeypatch.setattr(Path, operation, real)
                finished.apply(target, format=format, workers=1)
                assert contents(target) == expected
            else:
                break
        assert last > 5 or operation == "unlink"
        monkeypatch.setattr(Path, operation, real)


def test_an_interrupted_call_goes_on_with_the_shards_that_are_missing(tmp_path, finished):
    finished.apply(tmp_path / "clean", shards=4)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "clean").glob("*.tar")}
    (tmp_path / "clean" / "00002.tar").unlink()
    finished.apply(tmp_path / "clean", shards=4)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "clean").glob("*.tar")}
    assert [name for name in before if before[name] != after[name]] == ["00002.tar"]


def test_nobody_decides_again_or_writes_into_the_target_meanwhile(tmp_path, monkeypatch, finished):
    refused = []
    real = export.write_parts

    def meanwhile(*arguments):
        for other in (lambda: finished.rethreshold("exact"), lambda: finished.apply(tmp_path / "clean")):
            with pytest.raises(dk.DedupkitError, match="another") as error:
                other()
            refused.append(str(error.value))
        finished.apply(tmp_path / f"other{len(refused)}", format="keys")  # two may read from one run
        return real(*arguments)

    monkeypatch.setattr(export, "write_parts", meanwhile)
    finished.apply(tmp_path / "clean", workers=1)
    assert refused
    with RunFolder(finished.path).locked(), pytest.raises(dk.DedupkitError, match="another process is writing"):
        finished.apply(tmp_path / "clean")


def test_a_target_is_locked_by_itself(tmp_path):
    claim = tmp_path / "claim.json"
    one, other = (Target(tmp_path / "clean").claimed(claim, "keys") for _ in range(2))
    with one, pytest.raises(dk.DedupkitError, match="another process"), other:
        pytest.fail("two hold it")


@pytest.mark.parametrize(("options", "sizes"), [({"shards": 3}, [2, 3, 3]), ({"shard_size": 3}, [3, 3, 2])])
@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_the_size_and_the_number_of_shards_can_be_chosen(tmp_path, finished, options, sizes, format):
    finished.apply(tmp_path / "clean", format=format, **options)
    found = [shard.read() for shard in find_shards(tmp_path / "clean")]
    assert [sum(sample.image is not None for sample in samples) for samples in found] == sizes


def test_sizes_that_cannot_be_had_are_refused(tmp_path, finished):
    for options, why in (
        ({"shards": 2, "shard_size": 2}, "not both"),
        ({"shards": 0}, "at least 1"),
        ({"shards": 9}, "only 8 samples"),
        ({"shards": 2, "format": "keys"}, "one file"),
    ):
        with pytest.raises(dk.DedupkitError, match=why):
            finished.apply(tmp_path / "clean", **options)
    assert not list((tmp_path / "clean").glob("*.tar"))
    assert ShardSizes(samples=5).samples == 5


def test_what_is_kept_of_a_broken_parquet_file_is_written(tmp_path, images):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"image": images[::2] * 20, "n": range(160)}), path, row_group_size=20, compression="none")
    data = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(5).column(0).dictionary_page_offset or 0
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    finished = run(str(path), tmp_path / "out", rule="exact")
    assert finished.summary["unreadable"] >= 1
    assert finished.summary["keep"] == 8
    for kind in ("webdataset", "parquet"):
        assert finished.apply(tmp_path / kind, format=kind)["samples"] == 8


def test_an_input_is_read_at_most_twice_however_small_the_shards(tmp_path, monkeypatch, finished):
    reads = []
    real = part.read_samples
    monkeypatch.setattr(
        part, "read_samples", lambda shard, *rest, **named: reads.append(shard) or real(shard, *rest, **named)
    )
    finished.apply(tmp_path / "clean", shard_size=1, workers=1)
    assert len(list((tmp_path / "clean").glob("*.tar"))) == 8
    assert len(reads) <= 8


def test_a_record_that_someone_changed_removes_nothing(tmp_path, finished):
    """The record names what may be removed, so it is not believed when it is not as it was written."""
    finished.apply(tmp_path / "clean", shards=2)
    (tmp_path / "precious").write_text("mine")
    plan = tmp_path / "clean" / ".dedupkit" / "plan.json"
    stated = json.loads(plan.read_text())
    plan.write_text(json.dumps({**stated, "former": ["../precious", str(tmp_path / "precious")]}))
    with pytest.raises(dk.DedupkitError, match="not written from this run"):
        finished.apply(tmp_path / "clean", shards=2)
    write_sealed(plan, {name: value for name, value in stated.items() if name in ("format", "files")} | {
        "former": ["../precious", str(tmp_path / "precious")]
    })  # fmt: skip
    assert finished.apply(tmp_path / "clean", shards=2)["files"] == 2
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_link_in_place_of_the_record_is_refused(tmp_path, finished):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / ".dedupkit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(dk.DedupkitError, match="is a link"):
        finished.apply(tmp_path / "clean")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_a_table_of_captions_says_now_is_written_again(tmp_path: Path, photos: dict[str, Image.Image]) -> None:
    """The licence is in no file of the run, but cleaned shards carry it."""
    data, run_folder, clean = tmp_path / "data", tmp_path / "run", tmp_path / "clean"
    data.mkdir()
    for name, image in list(photos.items())[:3]:
        image.save(data / f"{name}.png")
    names = sorted(path.name for path in data.iterdir())
    for licence in ("cc0", "cc-by"):
        rows = "".join(f"{name},a photo,{licence}\n" for name in names)
        (data / "metadata.csv").write_text(f"file_name,text,license\n{rows}")
        run(data, run_folder)
        export.apply(run_folder, clean, workers=1)
        with tarfile.open(clean / "00000.tar") as tar:
            said = [json.load(tar.extractfile(member))["license"] for member in tar if member.name.endswith(".json")]
        assert set(said) == {licence}
