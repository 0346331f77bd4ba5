"""What the ranks of one run leave for one another in the run folder.

Below ``.ranks``: ``session.json`` names the session that rank 0 has opened last, and a folder of the session's name
holds the batches of tasks that rank 0 posts, a claim for each task that is taken, what each rank reports, and the
heartbeats.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dedupkit.engine.task import Task
from dedupkit.errors import DedupkitError
from dedupkit.store import atomic_path, read_sealed, remove_tree, write_sealed

__all__ = ["Batch", "Board", "Session", "ranks_folder"]


def ranks_folder(out: Path) -> Path:
    """Where ranks meet in a run folder."""
    return out / ".ranks"


@dataclass(frozen=True, slots=True)
class Session:
    """What rank 0 says of its run.

    Attributes:
        token: Random name of the session.
        version: Rank 0's version of dedupkit.
        first: Rank 0's name in claims.
        job: What the scheduler calls the job; empty where it gives no name.
        ended: Whether rank 0 has finished or failed.
        failure: Why it failed.
    """

    token: str
    version: str
    first: str = ""
    job: str = ""
    ended: bool = False
    failure: str | None = None


class Board:
    """The folder of a session.

    Args:
        out: The run folder.
        token: Name of the session.
    """

    def __init__(self, out: Path, token: str) -> None:
        self.path = ranks_folder(out) / token

    @staticmethod
    def session(out: Path) -> Session | None:
        """The session that was opened last, if any."""
        value = read_sealed(ranks_folder(out) / "session.json")
        try:
            return None if value is None else Session(**value)
        except TypeError:  # of another version; the fields that say so are always there
            return Session(str(value["token"]), str(value["version"]))  # type: ignore[index]

    @staticmethod
    def write_session(out: Path, session: Session) -> None:
        """Say what the session is or what became of it."""
        write_sealed(ranks_folder(out) / "session.json", asdict(session))

    def open(self) -> None:
        """Make the folder, and remove those of earlier sessions."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for folder in self.path.parent.iterdir():
            if folder.is_dir():
                remove_tree(folder)
        self.path.mkdir()

    def close(self) -> None:
        """Remove the folder."""
        remove_tree(self.path)

    def heartbeat(self, who: str) -> Path:
        """The file of a process's heartbeat."""
        return self.path / f"alive-{who}"

    def post(self, number: int, tasks: Sequence[Task], out: Path) -> Batch:
        """Post tasks for all ranks, whose markers go below ``out``."""
        batch = Batch(self.path, number, list(tasks), out)
        batch.claims.mkdir()
        with atomic_path(self.path / f"{number:05d}.tasks") as temporary:
            temporary.write_bytes(pickle.dumps((batch.tasks, str(out))))
        return batch

    def batch(self, number: int, who: str) -> Batch | None:
        """Read what rank 0 posted under a number; None where it has not yet.

        Raises:
            DedupkitError: Another user wrote it; what others wrote is not executed.
        """
        path = self.path / f"{number:05d}.tasks"
        try:
            if path.stat().st_uid != self.heartbeat(who).stat().st_uid:
                raise DedupkitError(f"{path} belongs to another user; all ranks must run as the same one")
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        tasks, out = pickle.loads(data)  # noqa: S301 - rank 0, the same user, wrote it
        return Batch(self.path, number, tasks, Path(out))


class Batch:
    """A list of tasks, who has taken which, and what came of them.

    Args:
        folder: The session's folder.
        number: Number of the batch in the session.
        tasks: The tasks.
        out: The folder that holds their markers.
    """

    def __init__(self, folder: Path, number: int, tasks: list[Task], out: Path) -> None:
        self.tasks, self.out = tasks, out
        self.claims = folder / f"{number:05d}.claims"
        self._folder, self._number = folder, number
        self._offsets: dict[str, int] = {}

    def claim(self, position: int, who: str) -> bool:
        """Take a task; False where another process has it."""
        try:
            descriptor = os.open(self.claims / str(position), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except (FileExistsError, FileNotFoundError):  # taken, or the session is over
            return False
        with os.fdopen(descriptor, "w") as claim:
            claim.write(who)
        return True

    def owner(self, position: int) -> str:
        """The process that has taken a task; empty where that is not known (yet)."""
        try:
            return (self.claims / str(position)).read_text()
        except OSError:
            return ""

    def report(self, who: str, **said: Any) -> None:
        """Say what came of a task; closed at once, so that other machines see it."""
        with suppress(FileNotFoundError), (self._folder / f"{self._number:05d}.from-{who}").open("a") as stream:
            stream.write(json.dumps({"from": who, **said}) + "\n")

    def reports(self) -> Iterator[dict[str, Any]]:
        """What was said since this was last called."""
        for path in sorted(self._folder.glob(f"{self._number:05d}.from-*")):
            with path.open() as stream:
                stream.seek(self._offsets.get(path.name, 0))
                text = stream.read()
            whole = text[: text.rfind("\n") + 1]
            self._offsets[path.name] = self._offsets.get(path.name, 0) + len(whole)  # JSON in ASCII: one byte each
            for line in whole.splitlines():
                yield json.loads(line)
