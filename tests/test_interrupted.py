"""Killed before any change of a file, the same command again ends as if nothing had happened.

Not at random moments: the changes that a small run makes are listed, and each of them is the last once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import killing
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import encode, environment, write_tar
from PIL import Image

pytest.importorskip("cv2")

PHOTOS = ("astronaut", "coffee", "chelsea")
RULE = "exact or pdq<=31 or (mine>=0.5 and verified)"
HOSTILE = bool(os.environ.get("DEDUPKIT_HOSTILE"))
EVERY, EVERY_OF_LONG, EVERY_OF_WORKERS = (1, 1, 1) if HOSTILE else (5, 9, 10)
"""The tests kill before every fifth change, of a calibration, which takes a second, every ninth; workers die before
each tenth. With DEDUPKIT_HOSTILE=1 it is before all, and ``make hostile`` kills more jobs before all changes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Image.Image]) -> Path:
    """Two shards of five images, a crop and a copy among them, and a vector for each image."""
    return make_folder(tmp_path_factory.mktemp("killed"), photos)


def make_folder(root: Path, photos: Mapping[str, Image.Image]) -> Path:
    """Write the shards, the vectors, and a copy of the shards to begin with."""
    one, two, three = (photos[name].convert("RGB").resize((256, 256)) for name in PHOTOS)
    write_tar(root / "data" / "0.tar", [("a.jpg", encode(one)), ("b.jpg", encode(two))])
    crop = encode(one.crop((30, 30, 230, 230)))
    write_tar(root / "data" / "1.tar", [("c.jpg", crop), ("d.jpg", encode(three)), ("e.jpg", encode(two, quality=30))])
    vectors = np.eye(5, 8, dtype=np.float32)
    vectors[2] += 2 * vectors[0]
    pq.write_table(pa.table({"key": list("abcde"), "embedding": vectors.tolist()}), root / "vectors.parquet")
    shutil.copytree(root / "data", root / "warm" / "data")
    return root


def options(folder: Path) -> dict[str, Any]:
    return {"rule": RULE, "embed": f"precomputed:{folder / 'vectors.parquet'}?name=mine", "workers": 0}


@pytest.fixture(scope="module")
def do(folder: Path) -> Iterator[killing.Server]:
    with server_for(folder) as server:
        yield server


def server_for(folder: Path) -> AbstractContextManager[killing.Server]:
    """The server of a folder that :func:`make_folder` wrote."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return killing.server(environment(threads), ("run", str(folder / "warm"), options(folder)))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the lock and what holds times."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not name.startswith((".lock", ".done/applied", "progress.json"))
    }


def restore(folder: Path, before: Path | None) -> None:
    for name in ("out", "clean"):
        shutil.rmtree(folder / name, ignore_errors=True)
        if before is not None and (before / name).exists():
            shutil.copytree(before / name, folder / name)


# What is done, and what was done before it.
JOBS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "run": ([], {}),
    "run again": (["run"], {"rule": "exact or pdq<=20 or (mine>=0.9 and verified)", "hashes": ["phash"], "workers": 1}),
    "rethreshold": (["run"], {"rule": "exact"}),
    "apply": (["run"], {"workers": 1}),
    "apply again": (["run", "apply", "rethreshold"], {"workers": 1}),
    "calibrate": (["run"], {"workers": 1, "sample": 2}),
}


@dataclass(frozen=True)
class Job:
    """A job that was done once: its changes are known, and what it leaves.

    Attributes:
        do: The server.
        folder: Where it was done.
        before: A copy of the folder as it was before.
        name: What the server calls it.
        asked: Its options.
        changes: The changes of files that it made.
        expected: The files of the run and of the cleaned data when it was done.
    """

    do: killing.Server
    folder: Path
    before: Path
    name: str
    asked: dict[str, Any]
    changes: list[str]
    expected: tuple[dict[str, bytes], dict[str, bytes]]

    @classmethod
    def done(cls, do: killing.Server, folder: Path, before: Path, job: str, jobs: Mapping[str, Any] = JOBS) -> Job:
        """Do what comes before a job, then the job."""
        first, asked = jobs[job]
        asked = options(folder) | asked if job.startswith("run") else asked
        name = job.split()[0]
        restore(folder, None)
        for earlier in first:
            more = options(folder) if earlier == "run" else JOBS[earlier][1]
            assert do(earlier, folder, None, **more)[0] == 0
        shutil.copytree(folder, before)
        status, changes = do(name, folder, None, **asked)
        assert status == 0, changes
        return cls(do, folder, before, name, asked, changes, (contents(folder / "out"), contents(folder / "clean")))

    def kill(self, at: int) -> None:
        """Kill the job before a change; the same command again must end as if nothing had happened."""
        change = self.changes[at]
        restore(self.folder, self.before)
        killed, reached = self.do(self.name, self.folder, at, **self.asked)
        assert (killed, reached) == (killing.KILLED, []), change
        again, said = self.do(self.name, self.folder, None, **self.asked)
        assert again == 0, f"killed before {at}: {change}: {said}"
        now = contents(self.folder / "out"), contents(self.folder / "clean")
        for found, whole in zip(now, self.expected, strict=True):
            other = {name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name)}
            assert not other, f"killed before {at}: {change}: {other}"


@pytest.mark.parametrize("job", JOBS)
def test_killed_before_any_change_the_same_command_ends_the_same(
    do: killing.Server, folder: Path, tmp_path: Path, job: str
) -> None:
    done = Job.done(do, folder, tmp_path / "before", job)
    assert len(done.changes) > 8
    every = EVERY_OF_LONG if job == "calibrate" else EVERY
    for at in range(len(job) % every, len(done.changes), every):
        done.kill(at)


HOOK = """
import os, sys
sys.path.insert(0, os.environ["DEDUPKIT_KILLING"])
if "dedupkit.engine.worker" in " ".join(sys.orig_argv):
    import killing
    killing.Killer(os.environ["DEDUPKIT_KILL_BELOW"], int(os.environ["DEDUPKIT_KILL_AT"]))
"""


def test_killed_workers_are_replaced_or_named_and_the_same_command_goes_on(folder: Path, tmp_path: Path) -> None:
    """Every worker dies at its n-th change: with luck another does its task, else the run ends with one line."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    work = tmp_path / "work"
    shutil.copytree(folder / "data", work / "data")
    out = work / "out"
    command = [sys.executable, "-m", "dedupkit.cli", "run", str(work / "data"), "--out", str(out), "--workers", "2"]
    command += ["--rule", RULE, "--embed", options(folder)["embed"]]

    def go(at: int) -> subprocess.CompletedProcess[str]:
        hook = {"DEDUPKIT_KILLING": str(Path(__file__).parent), "DEDUPKIT_KILL_BELOW": str(out)}
        path = os.pathsep.join([str(tmp_path / "hook"), environment()["PYTHONPATH"]])
        env = environment() | hook | {"DEDUPKIT_KILL_AT": str(at), "PYTHONPATH": path}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)

    assert go(1_000).returncode == 0
    expected = contents(out)
    for at in range(0, 20, EVERY_OF_WORKERS):
        shutil.rmtree(out)
        killed = go(at)
        assert killed.returncode in (0, 1), killed.stderr
        assert killed.returncode == 0 or "a worker process died" in killed.stderr
        assert go(1_000).returncode == 0
        assert contents(out) == expected, at


# Damage -------------------------------------------------------------------------------------------------------------


def damage(path: Path, kind: str, other: Path) -> None:
    """Spoil a file of a run folder; ``other`` is one to swap it with."""
    data = path.read_bytes()
    if kind == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
        return
    path.unlink()
    middle = len(data) // 2
    spoiled = {
        "cut": data[:middle],
        "zero": bytes(len(data)),
        "flip": data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :],
        "empty": b"",
        "longer": data + b"\n",
    }
    if kind in spoiled:
        path.write_bytes(spoiled[kind])
    elif kind == "folder":
        (path / "inside").mkdir(parents=True)


def said_by(data: bytes | None) -> Any:
    """JSON says the same with another line at its end; other files do not."""
    return json.loads(data) if data is not None and data.startswith(b"{") else data


KINDS = ("cut", "zero", "flip", "empty", "longer", "gone", "folder", "swap")


@dataclass(frozen=True)
class Finished:
    """A run folder to damage.

    Attributes:
        do: The server.
        folder: Where it lies.
        before: A copy of it.
        expected: Its files.
        rethresholded: The verdicts under another rule.
    """

    do: killing.Server
    folder: Path
    before: Path
    expected: dict[str, bytes]
    rethresholded: dict[str, bytes]

    @classmethod
    def made(cls, do: killing.Server, folder: Path, before: Path) -> Finished:
        """Do a run, copy it, and decide it again by another rule."""
        restore(folder, None)
        assert do("run", folder, None, **options(folder))[0] == 0
        shutil.copytree(folder, before)
        expected = contents(folder / "out")
        assert do("rethreshold", folder, None, rule="exact or pdq<=20")[0] == 0
        verdicts = {name: (folder / "out" / name).read_bytes() for name in ("manifest.parquet", "groups.parquet")}
        return cls(do, folder, before, expected, verdicts)

    def damage(self, name: str, kind: str) -> None:
        """Damage a file; it is made again or named, and no other verdicts come of it."""
        what, files = f"{kind} {name}", sorted(self.expected)
        place = files.index(name)
        others = [file for file in files if Path(file).suffix == Path(name).suffix and file != name]
        other = self.folder / "out" / (others[place % len(others)] if others else files[place - 1])
        for command, asked in (("rethreshold", {"rule": "exact or pdq<=20"}), ("run", options(self.folder))):
            restore(self.folder, self.before)
            damage(self.folder / "out" / name, kind, other)
            status, said = self.do(command, self.folder, None, **asked)
            if status:
                assert said[0].startswith(("DedupkitError: ", "DamagedError: ")), f"{what}: {said[0]}"
                assert "\n" not in said[0]
                assert command == "rethreshold" or name == "run.json", f"{what}: {said[0]}"
            elif command == "run":
                now = contents(self.folder / "out")
                other_than = {file for file in self.expected if said_by(now.get(file)) != said_by(self.expected[file])}
                assert not other_than, what
            else:
                verdicts = {file: (self.folder / "out" / file).read_bytes() for file in self.rethresholded}
                assert verdicts == self.rethresholded, what


def test_a_damaged_file_is_made_again_or_named_and_never_gives_other_verdicts(
    do: killing.Server, folder: Path, tmp_path: Path
) -> None:
    finished = Finished.made(do, folder, tmp_path / "before")
    assert len(finished.expected) >= 19
    tried = 0
    for place, name in enumerate(sorted(finished.expected)):
        for number, kind in enumerate(KINDS):
            if HOSTILE or not (place + number) % 3 or kind == "flip":
                finished.damage(name, kind)
                tried += 1
    assert tried >= 50


def test_a_damaged_calibration_is_measured_again(do: killing.Server, folder: Path, tmp_path: Path) -> None:
    restore(folder, None)
    asked: dict[str, Any] = {"workers": 1, "sample": 2}
    assert do("run", folder, None, **options(folder))[0] == 0
    assert do("calibrate", folder, None, **asked)[0] == 0
    shutil.copytree(folder, tmp_path / "before")
    expected = contents(folder / "out")
    files = ["calibration.json", "calibration/synthetic.parquet", "calibration/impostors.npz"]
    for place, name in enumerate(files):
        for kind in KINDS if HOSTILE else KINDS[place::3]:
            restore(folder, tmp_path / "before")
            damage(folder / "out" / name, kind, folder / "out" / files[place - 1])
            status, said = do("calibrate", folder, None, **asked)
            assert status == 0, f"{kind} {name}: {said}"
            now = contents(folder / "out")
            assert {file for file in expected if said_by(now.get(file)) != said_by(expected[file])} <= {name}, kind
            assert now["calibration.json"] == expected["calibration.json"], f"{kind} {name}"
