"""The run folder: who may have it, what is left of a refused or killed run, and what its verdicts belong to."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers import command, encode, jpegs, one_line, run, snapshot, write_tar
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import dedupkit as dk
from dedupkit.errors import DedupkitError
from dedupkit.manifest.export import apply
from dedupkit.report import write_report
from dedupkit.runfolder import RunConfig, RunFolder, placed
from dedupkit.stages import decide
from dedupkit.store import Mirror, is_temporary, remove_tree, sweep, temporary_path
from dedupkit.workflows.calibrate import calibrate
from dedupkit.workflows.prompts import most_duplicated


@pytest.fixture
def data(tmp_path: Path, photos: dict[str, Image.Image]) -> Path:
    """A folder with two shards, and beside them a file whose name looks temporary."""
    images = jpegs(photos, 3)
    write_tar(tmp_path / "home" / "data" / "0.tar", [("a.jpg", images[0]), ("b.jpg", images[1])])
    write_tar(tmp_path / "home" / "data" / "1.tar", [("a.jpg", images[0]), ("c.jpg", images[2])])
    (tmp_path / "home" / "data" / ".x.tmp").write_text("the user's")
    return tmp_path / "home" / "data"


def home(data: Path) -> Path:
    (data.parent / "project" / "cache").mkdir(parents=True)
    (data.parent / ".x.1234.tmp").write_text("the user's")
    (data.parent / "project" / "cache" / ".y.tmp").write_text("the user's")
    temporary_path(data.parent / "project" / "other-run").write_text("of another run that is being written")
    return data.parent


def another_run(data: Path) -> Path:
    out = data.parent.parent / "another"
    run(data / "0.tar", out)
    temporary_path(out / "samples" / "00000.parquet").write_text("half")
    return out


def a_file(data: Path) -> Path:
    (data.parent.parent / "file").write_text("x")
    return data.parent.parent / "file"


def foreign(data: Path) -> Path:
    out = data.parent.parent / "thesis"
    (out / "samples").mkdir(parents=True)
    (out / ".done").mkdir()
    (out / "samples" / ".x.tmp").write_text("years of work")
    return out


@pytest.mark.parametrize("make", [home, another_run, a_file, foreign], ids=lambda make: make.__name__)
def test_a_folder_that_is_refused_was_not_touched(tmp_path: Path, data: Path, make: Callable[[Path], Path]) -> None:
    out = make(data)
    before = snapshot(tmp_path)
    for workers in (1, 2):
        with pytest.raises(DedupkitError, match="choose another --out|--out takes a folder"):
            run(data, out, workers=workers)
        assert snapshot(tmp_path) == before
    refused = command("run", data, "--out", out, "--rule", "exact")
    assert refused.returncode == 1
    assert "--out" in one_line(refused.stderr)
    assert snapshot(tmp_path) == before


def test_a_run_sweeps_its_own_leftovers_and_nothing_else(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    run(data, out)
    mine = [temporary_path(out / name) for name in ("run.json", "samples/00000.parquet", ".done/scan/00000.json")]
    foreign = [out / ".x.tmp", out / "samples" / ".y.99.tmp", temporary_path(out / "notes" / "plan.txt")]
    foreign[-1].parent.mkdir()
    for path in [*mine, *foreign]:
        path.write_text("x")
    run(data, out)
    assert [path.exists() for path in mine] == [False] * 3
    assert [path.exists() for path in foreign] == [True] * 3


def test_a_run_that_was_killed_before_it_wrote_anything_is_no_foreign_folder(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    temporary_path(out / "run.json").write_text("{")
    assert run(data, out).summary["samples"] == 4
    assert not [path for path in out.iterdir() if is_temporary(path.name)]


def test_a_folder_that_is_removed_goes_at_once(tmp_path: Path) -> None:
    (tmp_path / "work" / "deep").mkdir(parents=True)
    remove_tree(tmp_path / "work")
    remove_tree(tmp_path / "work")
    assert list(tmp_path.iterdir()) == []
    # what a kill in the middle leaves has a name that the next sweep knows
    temporary_path(tmp_path / "work").mkdir()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


# What the verdicts belong to ----------------------------------------------------------------------------------------


def opened_by(out: Path, tmp_path: Path) -> list[Callable[[], Any]]:
    """Every way to open the verdicts of a run."""
    return [
        lambda: dk.Run(out),
        lambda: write_report(out),
        lambda: apply(out, tmp_path / "clean"),
        lambda: dk.keep_filter(out),
        lambda: calibrate(out, sample=1),
        lambda: most_duplicated(out),
    ]


def test_an_interrupted_second_run_shows_no_old_verdicts_under_its_rule(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data, tmp_path / "out", rule="exact")

    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dedupkit.stages.whole.decide", stop)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "out", rule="exact or pdq<=31")
    for open_ in opened_by(tmp_path / "out", tmp_path):
        with pytest.raises(DedupkitError, match=r"not finished: .* those of exact .*pdq<=31.*; run the same command"):
            open_()
    assert run(data, tmp_path / "out", rule="exact or pdq<=31").summary["rule"] == "exact or pdq<=31"


def test_an_interrupted_rethreshold_leaves_the_old_rule_with_the_old_verdicts(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = run(data, tmp_path / "out")
    before = finished.manifest

    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dedupkit.stages.decide.write_groups", stop)
        with pytest.raises(KeyboardInterrupt):
            finished.rethreshold("exact")
    again = dk.Run(tmp_path / "out")
    assert again.summary["rule"] == "exact or pdq<=31"
    assert again.manifest.equals(before)
    assert again.rethreshold("exact").summary["rule"] == "exact"


def test_verdicts_of_another_input_or_configuration_are_refused(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    run(data, out)
    good = (out / "run.json").read_text()
    (out / "run.json").write_text(good.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DedupkitError, match="another run.json"):
        dk.Run(out)
    (out / "run.json").write_text(good)
    (out / ".done" / "scan" / "00001.json").write_bytes((out / ".done" / "scan" / "00000.json").read_bytes())
    with pytest.raises(DedupkitError, match="other samples or pairs"):
        dk.Run(out)
    assert run(data, out).summary["samples"] == 4


def test_the_manifest_says_which_decision_it_holds(tmp_path: Path, data: Path) -> None:
    digests = []
    for rule in ("exact", "exact or pdq<=31", "exact"):
        out = run(data, tmp_path / "out", rule=rule).path
        digests.append(json.loads((out / "decision.json").read_text())["digest"])
        for name in ("manifest.parquet", "groups.parquet"):
            assert pq.read_schema(out / name).metadata[b"dedupkit.decision"].decode() == digests[-1]
    assert digests[0] == digests[2] != digests[1]


def test_pairs_of_images_that_are_gone_decide_about_no_others(tmp_path: Path, photos: dict[str, Image.Image]) -> None:
    images, data = jpegs(photos, 4), tmp_path / "data"
    data.mkdir()
    for name, image in zip("ab", [images[0], encode(Image.open(io.BytesIO(images[0])), quality=60)], strict=True):
        (data / f"{name}.jpg").write_bytes(image)
    assert run(data, tmp_path / "out", hashes=["phash"]).summary["remove"] == 1
    for name, image in zip("ab", images[2:], strict=True):
        (data / f"{name}.jpg").write_bytes(image)
    finished = run(data, tmp_path / "out", rule="exact or phash<=2")
    with pytest.raises(DedupkitError, match="pdq.* run again"):
        finished.decide("copies")
    assert finished.decide("exact").summary["remove"] == 0
    assert run(data, tmp_path / "out").summary["remove"] == 0


def test_what_a_killed_decision_prepared_is_not_published_with_another(tmp_path: Path, data: Path) -> None:
    finished = run(data, tmp_path / "out", captions="template>1")
    (finished.path / ".next").mkdir()
    (finished.path / "templates.parquet").rename(finished.path / ".next" / "templates.parquet")
    run(data, tmp_path / "out", rule="exact")
    assert not (finished.path / "templates.parquet").exists()


# Versions -----------------------------------------------------------------------------------------------------------


def test_a_run_of_an_older_layout_is_made_anew_and_never_misread(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    expected = run(data, out).manifest
    config = json.loads((out / "run.json").read_text())
    del config["layout"]
    (out / "run.json").write_text(json.dumps(config | {"dedupkit": "0.1.0"}))
    for marker in out.glob(".done/*/*.json"):
        value = json.loads(marker.read_text())
        marker.write_text(json.dumps({"key": value["key"], "result": value["result"]}))
    (out / "decision.json").rename(out / ".done" / "decide.json")
    with pytest.raises(DedupkitError, match=r"written by dedupkit 0\.1\.0 in layout 1.* give the command"):
        dk.Run(out)
    assert run(data, out).manifest.equals(expected)
    (out / "run.json").write_text(json.dumps(config | {"layout": 99}))
    for use in (lambda: dk.Run(out), lambda: run(data, out)):
        with pytest.raises(DedupkitError, match="layout 99 by a later version"):
            use()


@given(
    st.lists(st.text(), min_size=1),
    st.lists(st.text()),
    st.text(),
    st.dictionaries(st.text(), st.text()),
    st.integers(),
    st.none() | st.floats(0, 1, exclude_min=True),
    st.booleans(),
)
def test_a_configuration_survives_being_written(
    sources: list[str],
    shards: list[str],
    rule: str,
    embedders: dict[str, str],
    seed: int,
    recall: float | None,
    compute_missing: bool,
) -> None:
    config = RunConfig(
        tuple(sources), tuple(shards), rule, rule, "sample", embedders=embedders, seed=seed, target_recall=recall,
        compute_missing=compute_missing,
    )  # fmt: skip
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


# Copies of a folder in a store --------------------------------------------------------------------------------------


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a run folder in a store; copies lie in a scratch folder of this test's own."""
    import fsspec

    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "scratch"))
    memory = fsspec.filesystem("memory")
    config = RunConfig(("data",), ("data/0.tar",), "exact", "exact", "sample", embedders={"net": "onnx:net.onnx"})
    memory.pipe("/runs/first/run.json", json.dumps(config.to_json()).encode())
    yield "memory://runs/first"
    memory.rm("/runs", recursive=True)


def test_processes_that_open_the_same_remote_run_wait_for_the_copy(
    remote: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, copying = Mirror.pull, threading.Event()

    def slowly(mirror: Mirror) -> None:
        copying.set()
        time.sleep(0.3)
        real(mirror)

    monkeypatch.setattr(placed, "_PATIENCE", 0.0)
    opened = RunFolder(remote)
    monkeypatch.setattr(Mirror, "pull", slowly)
    found: list[RunFolder] = []
    first = threading.Thread(target=lambda: found.append(RunFolder(remote)))
    first.start()
    assert copying.wait(5)
    with caplog.at_level("INFO", "dedupkit"), opened.shared():  # a reader waits too
        first.join()
        with pytest.raises(DedupkitError, match="is writing into memory://runs/first; wait for it"):
            RunFolder(remote)
    assert "being copied by another process of this machine" in caplog.text
    assert [folder.read_config().rule for folder in [*found, RunFolder(remote)]] == ["exact", "exact"]


def test_a_rank_that_only_helps_leaves_the_copy_of_rank_0_alone(remote: str) -> None:
    writing = RunFolder(remote)
    with writing.locked():
        writing.config.write_text("what rank 0 has not put yet")
        (writing.path / "samples").mkdir()
        writing.samples(0).write_text("nor this")
        helping = RunFolder(remote, whole=False)
        assert helping.read_config().embedders == {"net": "onnx:net.onnx"}
        assert writing.config.read_text() == "what rank 0 has not put yet"
        assert writing.samples(0).exists()
        for path in (writing.config, writing.samples(0)):
            path.unlink()


def test_no_path_of_a_run_folder_is_spelled_elsewhere() -> None:
    names = re.compile(
        r"""["'](run\.json|decision\.json|groups\.parquet|DATASET_CARD\.md|calibration\.json|\.done)["']"""
    )
    package = Path(dk.__file__).parent
    spelled = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if names.search(path.read_text()) and path.parent.name != "runfolder"
    }
    assert spelled <= {"engine/marker.py"}, spelled  # markers are the engine's


def test_the_same_call_again_decides_only_where_a_verdict_is_damaged(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, decided = run(shards, tmp_path / "out").path, []
    original = decide.decide_run
    monkeypatch.setattr(decide, "decide_run", lambda *given, **more: decided.append(given) or original(*given, **more))
    run(shards, out)
    assert not decided
    groups, whole = out / "groups.parquet", (out / "groups.parquet").read_bytes()
    groups.write_bytes(whole[:-1] + b"!")
    run(shards, out)
    assert len(decided) == 1
    assert groups.read_bytes() == whole
    run(shards, out, keep="nbytes, sample")
    assert len(decided) == 2
