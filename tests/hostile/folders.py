"""Run folders: killed at every change of a file, and damaged in every file."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from hostile.section import Section, Tally

_MORE_JOBS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "run with more hashes": (["run"], {"hashes": ["phash", "pixels", "crops"]}),
    "run by another policy": (["run"], {"keep": "nbytes", "rule": "pdq<=10"}),
    "run with merged captions": ([], {"captions": "merge", "rule": "crops"}),
    "apply to parquet": (["run"], {"workers": 1, "format": "parquet", "shards": 2}),
    "apply a list": (["run"], {"workers": 1, "format": "keys"}),
    "rethreshold back": (["run", "rethreshold"], {"rule": "copies"}),
}


class _FolderSection(Section):
    """A run of two shards of photos, and the process that does jobs on it."""

    limit = 120.0
    whole = True

    def open(self, folder: Path) -> None:
        """Write the data and start the process."""
        import test_interrupted as shared
        from skimage import data

        self._shared = shared
        photos = {name: Image.fromarray(getattr(data, name)()) for name in shared.PHOTOS}
        (folder / "job").mkdir()
        self._folder, self._copies = shared.make_folder(folder / "job", photos), folder / "copies"
        self._stack = ExitStack()
        self._do = self._stack.enter_context(shared.server_for(self._folder))

    def close(self) -> None:
        """End the process."""
        self._stack.close()


class KillsSection(_FolderSection):
    """``run``, ``rethreshold``, ``apply`` and ``calibrate``, first and again, each killed before each change that it
    makes to a file."""

    name = "kills"
    oracle = "the same command given again ends with status 0 and the same bytes as one that was never killed"
    volume = 2_000  # of which the list has 564

    def open(self, folder: Path) -> None:
        """Begin with the first job."""
        super().open(folder)
        self._jobs: dict[str, tuple[list[str], dict[str, Any]]] = {**self._shared.JOBS, **_MORE_JOBS}
        self._waiting = list(self._jobs)
        self._first = 0  # number of the first kill of the job at hand
        self._job: Any = None

    def attempt(self, draw: Random, number: int) -> Tally | None:
        """Kill a job before one change; the next job comes when this one has no more."""
        while self._job is None or number >= self._first + len(self._job.changes):
            if not self._waiting:
                return None
            if self._job is not None:
                self._first += len(self._job.changes)
            shutil.rmtree(self._copies, ignore_errors=True)
            name = self._waiting.pop(0)
            self._job = self._shared.Job.done(self._do, self._folder, self._copies, name, self._jobs)
        self._job.kill(number - self._first)
        return Tally()


class DamagesSection(_FolderSection):
    """Every file of a run folder cut, zeroed, changed in a bit, emptied, lengthened, removed, replaced by a folder, and
    swapped with another."""

    name = "damages"
    oracle = "the file is made again by the same command, or named; verdicts are never other ones"
    volume = 600  # of which the list has 152

    def open(self, folder: Path) -> None:
        """Do the run that is damaged."""
        super().open(folder)
        self._finished = self._shared.Finished.made(self._do, self._folder, self._copies)

    def attempt(self, draw: Random, number: int) -> Tally | None:
        """Damage one file in one way; files take turns."""
        files, kinds = sorted(self._finished.expected), self._shared.KINDS
        turn, file = divmod(number, len(files))
        if turn >= len(kinds):
            return None
        self._finished.damage(files[file], kinds[(turn + file) % len(kinds)])
        return Tally()
