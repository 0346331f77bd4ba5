"""Images and readers that end the process that reads them: the shard goes on without them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import jpegs, python, write_tar
from PIL import Image

import dedupkit as dk
from dedupkit.clustering.grammar import parse_rule
from dedupkit.engine import LocalProcesses
from dedupkit.engine.marker import read_marker
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import known_signals
from dedupkit.sources import Sample
from dedupkit.stages.careful import ending_of
from dedupkit.stages.plan import Job
from dedupkit.stages.run import run_stages
from dedupkit.store import read_columns

ENDS = {"abort": os.abort, "kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "exit": lambda: os._exit(7)}
RAISES = {"memory": MemoryError, "recursion": RecursionError, "other": ZeroDivisionError}


class Sample_(Sample):
    """A sample whose image is read when it is asked for."""

    @property
    def image(self) -> bytes | None:
        if self.uid in ENDS:
            ENDS[self.uid]()
        return super().image


@dataclass(frozen=True)
class Hostile:
    """A shard of good images and of some that end or break whoever reads them."""

    images: tuple[bytes, ...]
    what: tuple[str, ...]  # for each image: good, or a name of ENDS
    reader: tuple[int, str] = (-1, "")  # before which sample the reader itself ends or raises
    source: str = "hostile"
    paths: tuple[str, ...] = ()
    settings: str = ""

    def read(self, **options: Any) -> Iterator[Sample]:
        for number, (image, what) in enumerate(zip(self.images, self.what, strict=True)):
            if number == self.reader[0]:
                if self.reader[1] in ENDS:
                    ENDS[self.reader[1]]()
                raise RAISES[self.reader[1]]("deep inside")
            yield Sample_(f"{number}", {"jpg": image}, "jpg", uid=what)

    def fetch_many(self, places: Sequence[Any]) -> Iterator[Any]:
        raise NotImplementedError


def scan(out: Path, shards: list[Hostile], workers: int) -> list[list[dict[str, Any]]]:
    """The rows of each shard, as a run of these shards scans them."""
    with LocalProcesses(workers) as engine:
        rule = parse_rule("exact", known_signals({}), embedder=None)
        run_stages(Job(RunFolder(out), shards, rule), engine)
    return [read_columns(RunFolder(out).samples(number)).to_pylist() for number in range(len(shards))]


def is_tried_again(out: Path, shard: int) -> bool:
    marker = read_marker(RunFolder(out).scan_marker(shard))
    assert marker is not None
    return bool(marker.result.get("retry"))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_ends_the_process_costs_its_own_row(tmp_path: Path, photos: Any, workers: int) -> None:
    images = tuple(jpegs(photos, 5))
    shards = [Hostile(images, ("good", "abort", "good", "kill", "exit")), Hostile(images[:3], ("good",) * 3)]
    alone = scan(tmp_path / "good", [Hostile(images, ("good",) * 5)], 1)[0]
    rows, others = scan(tmp_path / "out", shards, workers)
    assert [row["key"] for row in rows] == ["0", "1", "2", "3", "4"]
    reasons = [row["error"] for row in rows]
    assert [reason is None for reason in reasons] == [True, False, True, False, False]
    assert ["SIGABRT" in reasons[1], "SIGKILL" in reasons[3], "exit status 7" in reasons[4]] == [True] * 3
    assert [rows[n]["pdq"] for n in (0, 2)] == [alone[n]["pdq"] for n in (0, 2)]
    assert [row["error"] for row in others] == [None] * 3
    # SIGKILL may have been for want of memory: the next run tries that shard again
    assert [is_tried_again(tmp_path / "out", shard) for shard in range(2)] == [True, False]


def test_a_reader_that_ends_the_process_ends_its_shard(tmp_path: Path, photos: Any) -> None:
    images = tuple(jpegs(photos, 4))
    rows, others = scan(
        tmp_path, [Hostile(images, ("good", "abort", "good", "good"), (3, "kill")), Hostile(images, ("good",) * 4)], 2
    )
    assert [row["key"] for row in rows] == ["0", "1", "2", ""]
    assert "ends the process (killed by SIGKILL)" in rows[3]["error"]
    assert [row["error"] is None for row in rows] == [True, False, True, False]
    assert len(others) == 4
    assert is_tried_again(tmp_path, 0)


@pytest.mark.parametrize("error", sorted(RAISES))
def test_whatever_a_reader_raises_is_its_shards_problem(tmp_path: Path, photos: Any, error: str) -> None:
    images = tuple(jpegs(photos, 3))
    (rows,) = scan(tmp_path, [Hostile(images, ("good",) * 3, (2, error))], 1)
    assert [row["key"] for row in rows] == ["0", "1", ""]
    assert rows[2]["error"] == f"{RAISES[error].__name__}: deep inside"


@pytest.mark.parametrize("error", sorted(RAISES))
def test_whatever_an_image_raises_is_its_rows_reason(monkeypatch: Any, photos: Any, error: str) -> None:
    from dedupkit.stages import scan as module

    images = jpegs(photos, 4)
    real = module.decimate

    def decimate(chosen: Sequence[bytes], views: Any) -> Any:
        if images[2] in chosen:
            raise RAISES[error]("too deep")
        return real(chosen, views)

    monkeypatch.setattr(module, "decimate", decimate)
    rows = module._Rows(())
    for number, image in enumerate(images):
        rows.add(Sample(str(number), {"jpg": image}, "jpg"))
    found = rows.table().to_pylist()
    assert [row["error"] for row in found] == [None, None, f"{RAISES[error].__name__}: too deep", None]
    assert [row["pdq"] is None for row in found] == [False, False, True, False]
    assert rows.transient is (error == "memory")


def test_an_error_is_no_end() -> None:
    assert ending_of(lambda: 1 / 0) is None
    assert ending_of(lambda: os.kill(os.getpid(), signal.SIGKILL)) == "killed by SIGKILL"
    assert ending_of(lambda: os._exit(3)) == "exit status 3"


PLUGIN = """
import PIL.Image, os
real = PIL.Image.open
def open_(source, *arguments, **options):
    if source.getvalue().endswith(b"KILLER"):
        os.kill(os.getpid(), 11)
    return real(source, *arguments, **options)
PIL.Image.open = open_
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_ends_well_after_a_decoder_crashed(tmp_path: Path, photos: Any, workers: str) -> None:
    """A module on the path stands in for a decoder with a defect: the files and the processes are real."""
    from helpers import encode

    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PLUGIN)
    images = [encode(Image.open(__import__("io").BytesIO(image)), "PNG") for image in jpegs(photos, 4, side=96)]
    for shard in range(2):
        members = [(f"{shard}{n}.png", image + b"KILLER" * (n == 2 and shard == 0)) for n, image in enumerate(images)]
        write_tar(tmp_path / "data" / f"{shard}.tar", members)
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(dk.__file__).parents[1])])
    arguments = ("-m", "dedupkit.cli", "run", str(tmp_path / "data"), "--out", str(tmp_path / "out"))
    done = python(*arguments, "--workers", workers, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    rows = dk.Run(tmp_path / "out").manifest.to_pylist()
    unreadable = [row for row in rows if row["verdict"] == "unreadable"]
    assert [row["key"] for row in unreadable] == ["02"]
    assert "killed by SIGSEGV" in unreadable[0]["reason"]
    assert len(rows) == 8
    assert len(unreadable[0]["sha256"]) > 0
