"""Kills processes while a run goes on, one each time that so many more of its tasks are finished."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from helpers import encode, write_tar
from PIL import Image

RULE = "exact or (phash<=10 and verified)"
"""Its run has the stages scan, match, features, verify and decide."""


def many_shards(folder: Path, photos: dict[str, Image.Image], count: int = 16) -> Path:
    """Tars of six photos each, in several qualities, so that a task takes some hundredths of a second."""
    for shard in range(count):
        members = []
        for number, photo in enumerate(list(photos.values())[:6]):
            image = photo.convert("RGB").resize((480, 360))
            members.append((f"{shard:02d}{number}.jpg", encode(image, quality=95 - 4 * ((shard + number) % 16))))
        write_tar(folder / f"{shard:05d}.tar", members)
    return folder


def done(out: Path) -> dict[str, int]:
    """The completion markers below a folder: name to the number of the file, which is another one when it is written
    anew."""
    found = {}
    for parent, _, files in os.walk(out):
        if ".done" in parent:
            for file in files:
                with suppress(FileNotFoundError):
                    path = Path(parent, file)
                    found[str(path.relative_to(out))] = path.stat().st_ino
    return found


def titled(*words: str) -> list[int]:
    """Processes with these words in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                said = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if all(word in said for word in words):
                    found.append(int(entry.name))
    return found


def _started(process: int) -> int:
    """When a process started, in ticks: numbers of processes begin anew."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])


class Reaper:
    """A thread that kills; a context manager around the run.

    Args:
        out: The run folder.
        victims: Gives the processes of which the oldest is killed.
        first: Number of finished tasks after which a process is killed.
        every: Number of further tasks after which the next one is, so that no task meets it twice.
        also: What else is done, by number of finished tasks.

    Attributes:
        kills: The number of processes killed.
    """

    def __init__(
        self,
        out: Path,
        victims: Callable[[], Sequence[int]],
        first: int,
        every: int = 3,
        also: dict[int, Callable[[], Any]] | None = None,
    ) -> None:
        self._out, self._victims, self._also = out, victims, dict(also or {})
        self._due, self._every = first, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.kills = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            count = len(done(self._out))
            for number in [number for number in self._also if count >= number]:
                self._also.pop(number)()
            victims = self._victims() if count >= self._due else ()
            if victims:
                with suppress(OSError):
                    os.kill(min(victims, key=_started), signal.SIGKILL)
                    self.kills += 1
                    self._due = count + self._every
            time.sleep(0.005)
