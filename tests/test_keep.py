"""Which of several duplicates stays, by columns of the data's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, encode, manifest, one_line, run, snapshot, verdicts, write_tar
from PIL import Image

import dedupkit as dk
from dedupkit.clustering.policy import parse_policy
from dedupkit.embedding.fitted import made_by_model
from dedupkit.engine.marker import read_marker, write_marker
from dedupkit.errors import DedupkitError, RuleError
from dedupkit.runfolder import RunFolder
from dedupkit.workflows.metadata import clean_lists

SCORES: dict[str, Any] = {"a": 4.5, "b": "6.25", "c": None, "d": 9, "e": 2}
"""b is kept of a, b and c, which are one photo; d and e of another are told apart by the score too."""
KEPT = {"a": "remove", "b": "keep", "c": "remove", "d": "keep", "e": "remove"}


def images(photos: dict[str, Image.Image]) -> dict[str, bytes]:
    """Three sizes of one photo, the smallest with the best score, and two of another."""
    first, second = (photo.convert("RGB") for photo in list(photos.values())[:2])
    sides = {"a": (first, 300), "b": (first, 200), "c": (first, 256), "d": (second, 220), "e": (second, 256)}
    return {key: encode(photo.resize((side, side)), quality=90) for key, (photo, side) in sides.items()}


@pytest.fixture
def tar(tmp_path: Path, photos: dict[str, Image.Image]) -> Path:
    """A WebDataset shard with scores in its JSON files."""
    members = []
    for key, data in images(photos).items():
        members += [(f"{key}.jpg", data), (f"{key}.json", json.dumps({"aesthetic": SCORES[key], "note": "x"}).encode())]
    return write_tar(tmp_path / "in" / "00000.tar", members)


def test_the_best_by_a_column_in_json_files_stays(tar: Path, tmp_path: Path) -> None:
    finished = run(tar, tmp_path / "run", keep="-meta:aesthetic, -pixels")
    assert verdicts(finished) == KEPT
    assert {row["kept_key"] for row in manifest(finished).values() if row["kept_key"]} == {"b", "d"}
    smallest = run(tar, tmp_path / "other", keep="meta:aesthetic")
    assert [key for key, verdict in verdicts(smallest).items() if verdict == "keep"] == ["a", "e"]


def test_a_missing_score_comes_last_either_way(tar: Path, tmp_path: Path) -> None:
    for sign in ("", "-"):
        finished = run(tar, tmp_path / f"run{sign}", keep=f"{sign}meta:aesthetic, sample")
        assert verdicts(finished)["c"] == "remove"


@pytest.mark.parametrize("kind", ["parquet with images", "tar beside its metadata"])
def test_columns_of_parquet_files_count_too(kind: str, photos: dict[str, Image.Image], tmp_path: Path) -> None:
    data = images(photos)
    scores = [None if SCORES[key] is None else float(SCORES[key]) for key in data]
    source = tmp_path / "in"
    source.mkdir()
    columns: dict[str, Any] = {"key": list(data), "aesthetic": pa.array(scores, pa.float64())}
    if kind == "parquet with images":
        columns |= {"status": ["success"] * 5, "error_message": pa.array([None] * 5, pa.string())}
        columns["jpg"] = pa.array(list(data.values()), pa.binary())
    else:
        write_tar(source / "00000.tar", [(f"{key}.jpg", image) for key, image in data.items()])
        columns |= {"url": [f"http://x/{key}" for key in data], "status": ["success"] * 5}
    pq.write_table(pa.table(columns), source / "00000.parquet")
    finished = run(source, tmp_path / "run", keep="-meta:aesthetic")
    assert verdicts(finished) == KEPT


def test_a_column_that_nothing_has_is_refused_with_those_that_there_are(tar: Path, tmp_path: Path) -> None:
    done = command("run", tar, "--out", tmp_path / "run", "--keep", "-meta:aesthetics", "--workers", "1")
    assert done.returncode == 1
    said = one_line(done.stderr)
    assert "meta:aesthetics" in said and "there are: aesthetic" in said and "note" not in said


def test_a_name_without_the_prefix_is_refused_with_the_way_to_write_it(tar: Path, tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"unknown column 'aesthetic'.*meta:NAME"):
        run(tar, tmp_path / "run", keep="-aesthetic")


def test_a_column_that_a_run_has_not_stored_is_read_by_a_second_call_and_then_stays(tar: Path, tmp_path: Path) -> None:
    finished = run(tar, tmp_path / "run")
    with pytest.raises(DedupkitError, match=r"has not stored meta:aesthetic.*--keep '-meta:aesthetic, sample'"):
        finished.decide(keep="-meta:aesthetic")
    again = run(tar, tmp_path / "run", keep="-meta:aesthetic")
    assert verdicts(again) == KEPT
    samples = next((tmp_path / "run" / "samples").glob("*.parquet"))
    written = samples.stat().st_mtime_ns
    back = run(tar, tmp_path / "run")
    assert verdicts(back)["a"] == "keep" and samples.stat().st_mtime_ns == written  # nothing is read again
    assert verdicts(back.rethreshold("copies", keep="-meta:aesthetic")) == KEPT


def test_naming_a_column_computes_no_vectors_and_pairs_again(tar: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options: dict[str, Any] = {"rule": "copy>=0.9 or pdq<=8", "embed": "copy"}
    run(tar, tmp_path / "run", **options)
    done = tmp_path / "run" / ".done"
    later = [path for path in done.rglob("*.json") if path.parts[-2] in ("embed-copy", "match")]
    assert len(later) == 3
    written = {path: path.stat().st_mtime_ns for path in later}
    again = run(tar, tmp_path / "run", keep="-meta:aesthetic", **options)
    assert verdicts(again) == KEPT
    assert {path: path.stat().st_mtime_ns for path in later} == written
    folder = RunFolder(again.path)
    assert made_by_model(folder, folder.read_config(), "copy")


def test_a_mistyped_column_leaves_a_finished_run_as_it_is(tar: Path, tmp_path: Path) -> None:
    finished = run(tar, tmp_path / "run")
    before = snapshot(tmp_path / "run" / "samples")
    with pytest.raises(DedupkitError, match="meta:aez, .* there are: aesthetic"):
        run(tar, tmp_path / "run", keep="-meta:aez")
    assert "aez" not in (tmp_path / "run" / "run.json").read_text()
    assert snapshot(tmp_path / "run" / "samples") == before
    assert dk.Run(finished.path).apply(tmp_path / "clean", workers=0)["samples"] == 2
    with pytest.raises(DedupkitError, match="has not stored meta:aez"):
        finished.decide(keep="-meta:aez")


def test_a_column_that_was_refused_is_not_asked_for_again(tar: Path, tmp_path: Path) -> None:
    with pytest.raises(DedupkitError, match="there are: aesthetic"):
        run(tar, tmp_path / "run", keep="-meta:aez")
    again = run(tar, tmp_path / "run", keep="-meta:aesthetic")
    assert verdicts(again) == KEPT
    assert again.config["meta"] == ["aesthetic"]


def test_a_stored_column_without_numbers_is_refused_when_it_decides_again(tar: Path, tmp_path: Path) -> None:
    finished = run(tar, tmp_path / "run", keep="-meta:aesthetic")
    marker = finished.path / ".done" / "scan" / "00000.json"
    read = read_marker(marker)
    assert read is not None
    files = [finished.path / name for name in read.files]
    write_marker(marker, read.key, read.result | {"numbers": {"aesthetic": 0}}, finished.path, files)
    with pytest.raises(DedupkitError, match="no sample has a number called 'aesthetic'"):
        finished.decide("exact", keep="-meta:aesthetic")


def test_columns_are_found_where_only_later_samples_have_them(tmp_path: Path) -> None:
    members = []
    for number in range(40):
        image = encode(Image.new("RGB", (32, 32), (number, 0, 0)), "PNG")
        fields = {"status": 1, "early": 1} if number == 3 else {"late": 2} if number == 39 else {"x": float("nan")}
        members += [(f"{number:02d}.png", image), (f"{number:02d}.json", json.dumps(fields).encode())]
    tar = write_tar(tmp_path / "in.tar", members)
    run(tar, tmp_path / "run", rule="exact")
    assert run(tar, tmp_path / "run", rule="exact", keep="meta:late").summary["keep"] == 40
    with pytest.raises(DedupkitError, match="there are: early$"):
        run(tar, tmp_path / "run", rule="exact", keep="meta:x")


def test_a_column_of_nothing_but_nan_has_no_number(photos: dict[str, Image.Image], tmp_path: Path) -> None:
    data = list(images(photos).values())[:2]
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"image": pa.array(data, pa.binary()), "score": [float("nan")] * 2, "n": [1, 2]}), source)
    with pytest.raises(DedupkitError, match="meta:score, .* there are: n$"):
        run(source, tmp_path / "run", keep="-meta:score")


@pytest.mark.parametrize("content", [b"", b"broken" * 1000])
def test_an_update_by_a_column_takes_a_shard_without_samples(content: bytes, tar: Path, tmp_path: Path) -> None:
    old = run(tar, tmp_path / "run", keep="-meta:aesthetic")
    (tmp_path / "new.tar").write_bytes(content)
    new = dk.update(old.path, tmp_path / "new.tar", tmp_path / "new", workers=0)
    assert new.summary["keep"] == 0


def test_an_update_of_a_run_without_the_column_uses_it_among_new_samples(
    tar: Path, photos: dict[str, Image.Image], tmp_path: Path
) -> None:
    old = run(write_tar(tmp_path / "old" / "00000.tar", [("z.jpg", images(photos)["d"])]), tmp_path / "run")
    new = dk.update(old.path, tar, tmp_path / "new", workers=0, keep="-meta:aesthetic")
    assert verdicts(new) == KEPT | {"d": "remove", "e": "remove"}
    assert {row["kept_key"] for row in manifest(new).values() if row["kept_source"]} == {"z"}


def test_a_reference_set_needs_no_such_column(tar: Path, photos: dict[str, Image.Image], tmp_path: Path) -> None:
    held_out = write_tar(tmp_path / "held-out" / "00000.tar", [("z.jpg", images(photos)["d"])])
    finished = run(tar, tmp_path / "run", keep="-meta:aesthetic", against=held_out)
    assert verdicts(finished) == KEPT | {"d": "blocked", "e": "blocked"}


def test_a_decision_in_parts_and_more_workers_give_the_same_bytes(
    tar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = run(tar, tmp_path / "one", keep="-meta:aesthetic")
    monkeypatch.setenv("DEDUPKIT_PART_SIZE", "3")
    parts = run(tar, tmp_path / "two", keep="-meta:aesthetic", workers=2)
    assert parts.manifest.equals(finished.manifest)
    assert (tmp_path / "one" / "manifest.parquet").read_bytes() == (tmp_path / "two" / "manifest.parquet").read_bytes()


@pytest.mark.parametrize(("policy", "order"), [("meta:x", [3, 2, 1, 0, 4]), ("-meta:x", [1, 2, 3, 0, 4])])
def test_what_is_missing_comes_after_infinity(policy: str, order: list[int]) -> None:
    values = {"meta:x": np.array([np.nan, np.inf, 0, -np.inf, np.nan])}
    assert parse_policy(policy).order(values, 5).tolist() == order


def test_a_cell_of_a_url_list_is_read_alike_whatever_the_others_hold(tmp_path: Path) -> None:
    for number, other in enumerate(["2", "no number"]):
        rows = [
            "url\tscore\tn",
            "http://x/1\t\ta",
            "http://x/1\t+Inf\tb",
            "http://x/1\t-inf\tc",
            f"http://x/2\t{other}\td",
        ]
        (tmp_path / f"{number}.tsv").write_text("\n".join(rows) + "\n")
        for keep, kept in (("meta:score", "c"), ("-meta:score", "b")):
            clean_lists(tmp_path / f"{number}.tsv", tmp_path / "out", keep=keep)
            lines = (tmp_path / "out" / f"{number}.tsv").read_text().splitlines()[1:]
            assert [line.split("\t")[2] for line in lines] == [kept, "d"]
            shutil.rmtree(tmp_path / "out")


def test_lists_without_a_number_are_refused_and_leave_the_earlier_result(tmp_path: Path) -> None:
    path, out = tmp_path / "list.tsv", tmp_path / "out"
    path.write_text("url\tscore\nhttp://x/1\t1\nhttp://x/1\t2\n")
    clean_lists(path, out, keep="-meta:score")
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert out / "list.tsv" in before
    path.write_text("url\tscore\nhttp://x/1\tlow\nhttp://x/1\thigh\n")
    with pytest.raises(DedupkitError, match="no row has a number in the column 'score'"):
        clean_lists(path, out, keep="-meta:score")
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    path.write_text("url\tscore\n")
    assert clean_lists(path, out, keep="-meta:score").rows == 0


@pytest.mark.parametrize("suffix", [".parquet", ".tsv"])
def test_rows_of_url_lists_are_kept_by_a_column_of_theirs(suffix: str, tmp_path: Path) -> None:
    columns = {"url": ["http://x/1"] * 3 + ["http://x/2"], "punsafe": ["0.5", "0.1", "", "0.9"], "n": list("abcd")}
    path, cleaned = tmp_path / f"list{suffix}", tmp_path / "out" / f"list{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        path.write_text("\n".join("\t".join(row) for row in [[*columns], *zip(*columns.values(), strict=True)]) + "\n")
    clean_lists(path, tmp_path / "out", keep="meta:punsafe")
    if suffix == ".parquet":
        names = pq.read_table(cleaned)["n"].to_pylist()
    else:
        names = [line.split("\t")[2] for line in cleaned.read_text().splitlines()[1:]]
    assert names == ["b", "d"]
    with pytest.raises(DedupkitError, match="no list has a column 'unsafe' of numbers; there are: url, punsafe, n"):
        clean_lists(path, tmp_path / "other", keep="meta:unsafe")
    with pytest.raises(DedupkitError, match="no row has a number in the column 'n'"):
        clean_lists(path, tmp_path / "third", keep="meta:n")


def test_the_report_says_which_column_decided(tar: Path, tmp_path: Path) -> None:
    finished = run(tar, tmp_path / "run", keep="-meta:aesthetic, -pixels")
    finished.report()
    assert "largest aesthetic, then most pixels" in (tmp_path / "run" / "report.html").read_text()
