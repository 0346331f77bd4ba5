"""A rank other than 0: it executes what rank 0 posts."""

from __future__ import annotations

import time
from pathlib import Path

from dedupkit import __version__
from dedupkit.engine.board import Batch, Board, Session
from dedupkit.engine.engine import Cost
from dedupkit.engine.heartbeat import Heartbeat, Pulse
from dedupkit.engine.local import LocalProcesses
from dedupkit.engine.place import Place, Timing
from dedupkit.engine.room import room_of
from dedupkit.engine.share import take_share
from dedupkit.engine.task import Task
from dedupkit.errors import DedupkitError

__all__ = ["Helper"]

_AGAIN = "what was done is kept, give the same command again"


class Helper:
    """A process that helps rank 0 of the same command; see :class:`dedupkit.engine.rank.Ranks`.

    Args:
        out: The run folder, which all ranks see under this path, or this machine's copy of one in an object store.
        place: Which of the processes this is.
        workers: Number of worker processes, 1 or more.
        timing: How long to wait for rank 0.
    """

    def __init__(self, out: Path, place: Place, workers: int, timing: Timing | None = None) -> None:
        self.place = place
        self._out, self._local, self._timing = out, LocalProcesses(workers), timing or Timing()
        self._pause = room_of(out).pause

    def help(self) -> int:
        """Execute tasks that rank 0 posts until it ends; returns how many were done here.

        Raises:
            DedupkitError: Rank 0 has another version of dedupkit, failed, died or did not begin in time.
        """
        session = self._joined()
        if session is None:
            return 0
        board = Board(self._out, session.token)
        first = Pulse(board.heartbeat(session.first), self._timing.timeout)
        who, done, number = self.place.who, 0, 0
        with Heartbeat(board.heartbeat(who), self._timing.beat(board.room.every)), self._local.lasting():
            while True:
                batch = board.batch(number, who)
                if batch is not None:
                    done += self._help_with(batch)
                    number += 1
                    continue
                alive = first.alive()  # asked first: rank 0 says what became of the run, then leaves
                now = Board.session(self._out)
                if now is not None and now.token == session.token and now.ended:
                    if now.failure is not None:
                        raise DedupkitError(f"rank 0 failed: {now.failure}")
                    return done
                if (now is not None and now.token != session.token) or not alive:
                    raise DedupkitError(f"rank {self.place.rank} has lost rank 0; {_AGAIN}")
                time.sleep(max(self._timing.poll, self._pause))

    def _joined(self) -> Session | None:
        """Wait for rank 0's session; None where it has ended already."""
        began = time.monotonic()
        pulse: tuple[str, Pulse] | None = None
        while True:
            session = Board.session(self._out)
            waited = time.monotonic() - began
            if session is not None and not session.ended:
                if pulse is None or pulse[0] != session.token:
                    board = Board(self._out, session.token)
                    pulse = (session.token, Pulse(board.heartbeat(session.first), self._timing.timeout))
                if pulse[1].beats():  # else it may be what a killed run of an earlier version left
                    if session.version != __version__:
                        raise DedupkitError(
                            f"rank {self.place.rank} has dedupkit {__version__}, rank 0 has {session.version}; install "
                            "the same version for all ranks"
                        )
                    return session
            elif session is not None:
                mine, late = session.job != "" and session.job == self.place.job, waited > self._timing.late
                if mine and late and session.failure is not None:  # sooner it may be tried again
                    raise DedupkitError(f"rank 0 failed: {session.failure}")
                if late or (mine and session.failure is None):
                    return None
            if waited > self._timing.patience:
                raise DedupkitError(
                    f"rank {self.place.rank} has waited {self._timing.patience:.0f} s for rank 0, which did not begin "
                    f"in {self._out}; start all ranks with the same command"
                )
            time.sleep(max(self._timing.poll, self._pause))

    def _help_with(self, batch: Batch) -> int:
        costs: dict[str, Cost] = {}

        def observe(task: Task, cost: Cost) -> None:
            costs[task.name] = cost

        done = 0
        try:
            for position, _ in take_share(batch, self.place, self._local, observe=observe):
                cost = costs.pop(batch.tasks[position].name)
                batch.report(self.place.who, position=position, seconds=cost.seconds, retries=cost.retries)
                done += 1
        except Exception as error:
            batch.report(self.place.who, error=" ".join(str(error).split()) or type(error).__name__)
            raise
        return done
