"""One run by several processes on any machines that share a file system or a bucket, without a service between them.

Every rank is started with the same command. Rank 0 holds the run folder, makes the list of tasks of each stage, posts
it, and does what is a single task. Each rank takes its share of a list first, every ``world``-th task, then whatever
nobody has taken. A task that a dead rank had taken is posted again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from dedupkit import __version__
from dedupkit.engine.board import Batch, Board, Session
from dedupkit.engine.engine import Cost, Observe, OnDone, Summary, run_waiting
from dedupkit.engine.heartbeat import Heartbeat, Pulse
from dedupkit.engine.local import LocalProcesses
from dedupkit.engine.marker import read_marker
from dedupkit.engine.place import Place, Timing
from dedupkit.engine.share import take_share
from dedupkit.engine.task import Task
from dedupkit.engine.travel import bring_results
from dedupkit.errors import DedupkitError

__all__ = ["Ranks"]

_WORKING = 10  # times as long as rank 0 listens to the others, it does tasks of its own


@dataclass(slots=True)
class _Posted:
    """A batch as rank 0 waits for it."""

    board: Board
    batch: Batch
    waiting: dict[int, tuple[int, Task]]  # position in the batch to number in the stage and task
    timeout: float
    retries: int = 0
    reported: dict[int, tuple[float, Cost]] = field(default_factory=dict)  # when, and what it took

    def collect(self, observe: Observe | None) -> Iterator[tuple[int, Summary]]:
        """Yield what other ranks have done since the last call."""
        for said in self.batch.reports():
            if "error" in said:
                raise DedupkitError(f"rank {said['from'].partition('-')[0]}: {said['error']}")
            self.reported[said["position"]] = (
                time.monotonic(),
                Cost(said["seconds"], said["retries"] + self.retries),
            )
        reported = [position for position in self.reported if position in self.waiting]
        bring_results((self.waiting[position][1] for position in reported), self.batch.out)
        for position in reported:
            index, task = self.waiting[position]
            marker = read_marker(task.marker(self.batch.out))
            if marker is not None and marker.key == task.key:  # else it is not visible here yet
                del self.waiting[position]
                if observe is not None:
                    observe(task, self.reported[position][1])
                yield index, marker.result

    def late(self, position: int) -> bool:
        """Whether a task was reported, but its marker has not come."""
        return position in self.reported and time.monotonic() - self.reported[position][0] > self.timeout


class Ranks:
    """The engine of rank 0, which shares its tasks with the other ranks; see :class:`dedupkit.engine.helper.Helper`.

    Args:
        out: The run folder, which all ranks see under this path, or this machine's copy of one in an object store.
        place: This process's, with rank 0.
        workers: Number of worker processes of each rank, 1 or more.
        timing: How long to wait for other ranks.
    """

    def __init__(self, out: Path, place: Place, workers: int, timing: Timing | None = None) -> None:
        self.place = place
        self._out, self._local, self._timing = out, LocalProcesses(workers), timing or Timing()
        self._session: Session | None = None
        self._stack = ExitStack()
        self._pulses: dict[str, Pulse] = {}
        self._batches = 0

    def start(self, count: int, load: Callable[[], object]) -> None:
        """Open the session, so that the other ranks wait, and start worker processes; see :meth:`Engine.start`."""
        self._opened()
        self._local.start(-(-count // self.place.world), load)

    def run(
        self,
        tasks: Sequence[Task],
        out: Path,
        *,
        on_done: OnDone | None = None,
        meanwhile: Callable[[], None] | None = None,
        observe: Observe | None = None,
    ) -> list[Summary]:
        """Execute the tasks that are not done yet, together with the other ranks; see :meth:`Engine.run`."""
        board = self._opened()

        def run(jobs: list[tuple[int, Task]]) -> Iterator[tuple[int, Summary]]:
            if jobs:
                yield from self._together(self._post(board, jobs, out), meanwhile, observe)

        return run_waiting(tasks, out, on_done, run)

    def lasting(self) -> AbstractContextManager[None]:
        """Keep this rank's processes between calls of :meth:`run`; see :meth:`Engine.lasting`."""
        return self._local.lasting()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._local.__exit__(kind, value, trace)
        if self._session is not None:
            failure = None if value is None else " ".join(str(value).split()) or type(value).__name__
            Board.write_session(self._out, replace(self._session, ended=True, failure=failure))
            self._stack.close()
            Board(self._out, self._session.token).close()
            self._session = None

    def _opened(self) -> Board:
        if self._session is not None:
            return Board(self._out, self._session.token)
        session = Session(secrets.token_hex(8), __version__, self.place.who, self.place.job)
        board = Board(self._out, session.token)
        board.open()
        self._stack.enter_context(Heartbeat(board.heartbeat(self.place.who), self._timing.beat(board.room.every)))
        Board.write_session(self._out, session)
        self._session = session
        return board

    def _post(self, board: Board, jobs: Sequence[tuple[int, Task]], out: Path) -> _Posted:
        batch = board.post(self._batches, [task for _, task in jobs], out)
        self._batches += 1
        return _Posted(board, batch, dict(enumerate(jobs)), self._timing.timeout)

    def _together(
        self, posted: _Posted, meanwhile: Callable[[], None] | None, observe: Observe | None
    ) -> Iterator[tuple[int, Summary]]:
        """Do this rank's share of posted tasks, and collect what the others report."""
        batch, waiting = posted.batch, posted.waiting
        share = take_share(batch, self.place, self._local, meanwhile=meanwhile, observe=observe)
        listen = 0.0  # when the others are listened to next; in a store that takes a request for each thousand reports
        for position, result in share:
            job = waiting.pop(position, None)
            if job is not None:
                yield job[0], result
            began = time.monotonic()
            if began >= listen:
                yield from posted.collect(observe)
                ended = time.monotonic()
                listen = ended + max(posted.board.room.pause, _WORKING * (ended - began))
        while waiting:
            yield from posted.collect(observe)
            lost = [p for p in waiting if posted.late(p) or not self._lives(posted.board, batch.owner(p))]
            if lost:
                again = self._post(posted.board, [waiting.pop(position) for position in lost], batch.out)
                again.retries = posted.retries + 1
                yield from self._together(again, None, observe)
            elif waiting:
                time.sleep(max(min(self._timing.poll, 0.2), posted.board.room.pause))

    def _lives(self, board: Board, who: str) -> bool:
        if who == self.place.who:
            return True
        if who not in self._pulses:
            self._pulses[who] = Pulse(board.heartbeat(who), self._timing.timeout)
        return self._pulses[who].alive()
