"""The run folder: who may have it, what is left of a refused or killed run, and what its verdicts belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import command, jpegs, one_line, run, snapshot, write_tar
from PIL import Image

from dedupkit.errors import DedupkitError
from dedupkit.store import is_temporary, remove_tree, sweep, temporary_path


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
