"""Attempts in processes of their own: one that dies is a crash, one that takes too long a hang, and the rest go on."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hostile.section import Section, Tally, load

__all__ = ["Outcome", "Plan", "run"]

_CHUNK_SECONDS = 5.0
_OPENING = 300.0  # seconds that a section may take to prepare
_NUMBER, _STARTED, _USED, _FIGURES = 0, 1, 2, 3  # places in the shared memory; the figures follow
_KEPT_NOTES = 20
_WAITING = 6  # times its limit that an attempt may take where the machine is busy with something else


@dataclass(frozen=True)
class Plan:
    """How often a section is tried.

    Attributes:
        path: Of the section, ``module:class``.
        attempts: Number of attempts.
        first: Number of the first.
    """

    path: str
    attempts: int
    first: int = 0


@dataclass
class Outcome:
    """What came of all attempts of a section.

    Attributes:
        tried: Number of inputs.
        crashes: Number of attempts that ended their process or raised an unexpected exception.
        hangs: Number of attempts that used more processor time than the section allows, or waited six times as long.
        lost: See :class:`hostile.section.Tally`.
        wrong: See there.
        seconds: Time that the attempts took, all processes together.
        notes: The first findings, each with the command that repeats it.
    """

    tried: int = 0
    crashes: int = 0
    hangs: int = 0
    lost: int = 0
    wrong: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.crashes or self.hangs or self.lost or self.wrong)


@dataclass
class _Chunk:
    """Attempts that one process makes in a row."""

    path: str
    start: int
    stop: int


def run(
    plans: list[Plan], seed: int, processes: int = 2, told: Callable[[str, Outcome], None] = lambda *_: None
) -> dict[str, Outcome]:
    """Make all attempts.

    Args:
        plans: The sections, and how often each is tried.
        seed: Seed for all random choices.
        processes: Number of processes.
        told: Called whenever the outcome of a section changed.

    Returns:
        The outcome of each section by its path.
    """
    outcomes = {plan.path: Outcome() for plan in plans}
    waiting = deque(chunk for plan in plans for chunk in _cut(plan, processes))
    scratch = Path(tempfile.mkdtemp(prefix="hostile-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    workers = [_Worker(seed, scratch / str(number)) for number in range(min(processes, len(waiting)))]
    try:
        while workers:
            for worker in list(workers):
                if worker.chunk is None:
                    if not waiting:
                        worker.end()
                        workers.remove(worker)
                        continue
                    worker.begin(waiting.popleft())
                path = worker.chunk.path  # type: ignore[union-attr]
                if worker.look(outcomes[path]):
                    told(path, outcomes[path])
            time.sleep(0.02)
    finally:
        for worker in workers:
            worker.kill()
        shutil.rmtree(scratch, ignore_errors=True)
    return outcomes


def _cut(plan: Plan, processes: int) -> list[_Chunk]:
    pieces = 1 if load(plan.path).whole else min(8 * processes, max(1, plan.attempts // 20))
    edges = [plan.first + plan.attempts * piece // pieces for piece in range(pieces + 1)]
    return [_Chunk(plan.path, start, stop) for start, stop in itertools.pairwise(edges) if start < stop]


class _Worker:
    """A process and what it is doing."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._seed, self._folder = seed, folder
        self._process: Any = None
        self._limit = 0.0
        self.chunk: _Chunk | None = None

    def begin(self, chunk: _Chunk) -> None:
        self.chunk, self._limit = chunk, load(chunk.path).limit
        if self._process is None:
            self._shared = self._context.Array("d", _FIGURES + 4, lock=False)
            self._pipe, theirs = self._context.Pipe()
            shutil.rmtree(self._folder, ignore_errors=True)
            arguments = (theirs, self._shared, self._seed, str(self._folder))
            self._process = self._context.Process(target=_work, args=arguments, daemon=False)
            self._process.start()
            theirs.close()
        self._shared[:] = [chunk.start, time.monotonic() + _OPENING, 0, 0, 0, 0, 0]
        self._pipe.send((chunk.path, chunk.start, chunk.stop))

    def look(self, outcome: Outcome) -> bool:
        """Take in what happened since; returns whether the chunk ended in one way or another."""
        chunk = self.chunk
        assert chunk is not None
        while self._process is not None:
            try:
                kind, value = self._pipe.recv() if self._pipe.poll() else (None, None)
            except (EOFError, OSError):
                break
            if kind is None:
                break
            if kind == "note":
                if len(outcome.notes) < _KEPT_NOTES:
                    outcome.notes.append(value)
            else:
                outcome.seconds += value
                self._take(outcome)
                self.chunk = None
                return True
        died, late = not self._process.is_alive(), self._is_late()
        if not died and not late:
            return False
        number = int(self._shared[_NUMBER])
        self.kill()
        self._take(outcome)
        outcome.tried += 1
        if died:
            outcome.crashes += 1
            what = f"the process ended with {self._status}"
        else:
            outcome.hangs += 1
            what = f"took over {self._limit:g} s"
        outcome.notes.append(f"{_again(chunk.path, self._seed, number)}: {what}")
        self.chunk = None
        rest = _Chunk(chunk.path, number + 1, chunk.stop)
        if rest.start < rest.stop:
            self.begin(rest)
        return True

    def _is_late(self) -> bool:
        """Whether the attempt has used its time on a processor, or waited far longer."""
        waited = time.monotonic() - self._shared[_STARTED]
        if waited <= self._limit:
            return False
        used = _processor_time(self._process.pid) - self._shared[_USED]
        return used > self._limit or waited > _WAITING * self._limit

    def _take(self, outcome: Outcome) -> None:
        tried, crashes, lost, wrong = map(int, self._shared[_FIGURES:])
        outcome.tried += tried
        outcome.crashes += crashes
        outcome.lost += lost
        outcome.wrong += wrong

    def end(self) -> None:
        if self._process is not None:
            with suppress(OSError):
                self._pipe.send(None)
            self._process.join(30)
            self.kill()

    def kill(self) -> None:
        """End the process and those that it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._status = self._process.exitcode
        self._process.close()
        self._process = None
        self._pipe.close()


def _processor_time(pid: int) -> float:
    """Seconds that a process has run; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _again(path: str, seed: int, number: int) -> str:
    """The options that repeat one attempt."""
    return f"--section {load(path).name} --seed {seed} --first {number} --attempts 1"


def _work(pipe: Any, shared: Any, seed: int, folder: str) -> None:
    """The main function of a worker."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with whoever counts
    if not os.environ.get("HOSTILE_TALKS"):  # libtiff and others print what they think of an image
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    opened: dict[str, Section] = {}
    while (order := pipe.recv()) is not None:
        path, start, stop = order
        began = time.monotonic()
        section = opened.get(path)
        if section is None:
            place = Path(folder) / load(path).name
            place.mkdir(parents=True, exist_ok=True)
            section = opened[path] = load(path)
            section.open(place)
        for number in range(start, stop):
            shared[_NUMBER], shared[_STARTED], shared[_USED] = number, time.monotonic(), time.process_time()
            tally, crashed = _attempt(section, seed, number)
            if tally is None:
                break
            for place_of, figure in enumerate((tally.tried, crashed, tally.lost, tally.wrong), _FIGURES):
                shared[place_of] += figure
            for note in tally.notes:
                pipe.send(("note", f"{_again(path, seed, number)}: {note}"))
        shared[_STARTED] = time.monotonic() + _OPENING
        pipe.send(("done", time.monotonic() - began))
    for section in opened.values():
        section.close()


def _attempt(section: Section, seed: int, number: int) -> tuple[Tally | None, int]:
    try:
        return section.attempt(Random(f"{section.name} {seed} {number}"), number), 0
    except AssertionError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"wrong: {last.filename.rpartition('/')[2]}:{last.lineno} {last.line}: {error}"
        return Tally(section.each, wrong=1, notes=[what[:2000]]), 0
    except Exception:
        return Tally(section.each, notes=[f"crash: {traceback.format_exc()[-2000:]}"]), 1
