"""What the ranks of one run leave for one another.

``session.json`` names the session that rank 0 has opened last, and a folder of the session's name holds the batches of
tasks that rank 0 posts, a claim for each task that is taken, what each rank reports, and the heartbeats. They lie in
``.ranks`` in the run folder, or are objects there if the run lies in a store.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dedupkit.engine.room import Note, Room, room_of
from dedupkit.engine.task import Task
from dedupkit.engine.travel import fetching, pack, unpack
from dedupkit.store import MEETING

__all__ = ["Batch", "Board", "Session", "ranks_folder"]

_SESSION = "session.json"


def ranks_folder(out: Path) -> Path:
    """Where ranks meet in a run folder."""
    return out / MEETING


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

    Attributes:
        room: Where it lies.
    """

    def __init__(self, out: Path, token: str) -> None:
        self.room: Room = room_of(out)
        self._token = token

    @staticmethod
    def session(out: Path) -> Session | None:
        """The session that was opened last, if any."""
        value = room_of(out).read_record(_SESSION)
        if value is None:
            return None
        known = {field.name for field in fields(Session)}
        return Session(**{name: said for name, said in value.items() if name in known})  # another version may say more

    @staticmethod
    def write_session(out: Path, session: Session) -> None:
        """Say what the session is or what became of it."""
        room_of(out).write_record(_SESSION, asdict(session))

    def open(self) -> None:
        """Make the folder, and remove those of earlier sessions."""
        self.room.clear()
        self.room.make(self._token)

    def close(self) -> None:
        """Remove the folder."""
        self.room.leave(self._token)

    def heartbeat(self, who: str) -> Note:
        """The text of a process's heartbeat."""
        return self.room.note(self._alive(who))

    def post(self, number: int, tasks: Sequence[Task], out: Path) -> Batch:
        """Post tasks for all ranks, whose markers go below ``out``."""
        batch = Batch(self.room, f"{self._token}/{number:05d}", [fetching(task) for task in tasks], out)
        self.room.make(batch.claims)
        self.room.make(batch.said)
        self.room.write(f"{batch.name}.tasks", pickle.dumps([pack(task, out) for task in tasks]))
        return batch

    def batch(self, number: int, who: str) -> Batch | None:
        """Read what rank 0 posted under a number; None where it has not yet.

        Raises:
            DedupkitError: Another user wrote it; what others wrote is not executed.
        """
        name = f"{self._token}/{number:05d}"
        data = self.room.read(f"{name}.tasks", self._alive(who))
        if data is None:
            return None
        parcels = [unpack(parcel) for parcel in pickle.loads(data)]  # noqa: S301 - rank 0, the same user, wrote it
        return Batch(self.room, name, [task for task, _ in parcels], parcels[0][1])

    def _alive(self, who: str) -> str:
        return f"{self._token}/alive-{who}"


class Batch:
    """A list of tasks, who has taken which, and what came of them.

    Args:
        room: Where the ranks meet.
        name: Name of the batch there.
        tasks: The tasks, which bring what they read.
        out: The folder that holds their markers.
    """

    def __init__(self, room: Room, name: str, tasks: list[Task], out: Path) -> None:
        self.name, self.tasks, self.out = name, tasks, out
        self.claims, self.said = f"{name}.claims", f"{name}.said"
        self._room = room
        self._owners: dict[int, str] = {}

    def claim(self, position: int, who: str) -> bool:
        """Take a task; False where another process has it, or the session is over."""
        return self._room.take(self.claims, str(position), who)

    def owner(self, position: int) -> str:
        """The process that has taken a task; empty where that is not known (yet)."""
        if position not in self._owners:
            try:
                self._owners[position] = self._room.note(f"{self.claims}/{position}").read_text()
            except OSError:
                return ""
            if not self._owners[position]:  # it was taken, and is not written yet
                return self._owners.pop(position)
        return self._owners[position]

    def report(self, who: str, **said: Any) -> None:
        """Say what came of a task."""
        self._room.say(self.said, who, json.dumps({"from": who, **said}))

    def reports(self) -> Iterator[dict[str, Any]]:
        """What was said since this was last called."""
        return map(json.loads, self._room.heard(self.said))
