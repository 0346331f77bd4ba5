"""The order in which a rank takes the tasks of a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from dedupkit.engine.board import Batch
from dedupkit.engine.engine import Observe, Summary, in_this_process
from dedupkit.engine.local import LocalProcesses
from dedupkit.engine.place import Place
from dedupkit.engine.task import Task

__all__ = ["Share", "share_first", "take_share"]


def share_first(count: int, rank: int, world: int) -> list[int]:
    """Positions in the order in which a rank tries them: its own share, then those of the ranks after it.

    Args:
        count: Number of tasks.
        rank: Number of the rank, from 0.
        world: Number of ranks.

    >>> share_first(5, 1, 2)
    [1, 3, 0, 2, 4]
    """
    return [position for shift in range(world) for position in range((rank + shift) % world, count, world)]


class Share:
    """Gives a rank the tasks of a batch that nobody has taken; safe to share between threads.

    Args:
        batch: The tasks and their claims.
        place: This process's.
    """

    def __init__(self, batch: Batch, place: Place) -> None:
        self._batch, self._who = batch, place.who
        self._order = iter(share_first(len(batch.tasks), place.rank, place.world))
        self._lock = threading.Lock()

    def take(self) -> tuple[int, Task] | None:
        """Take a task: its position and itself; None where all are taken."""
        with self._lock:
            for position in self._order:
                if self._batch.claim(position, self._who):
                    return position, self._batch.tasks[position]
        return None


def take_share(
    batch: Batch,
    place: Place,
    local: LocalProcesses,
    *,
    meanwhile: Callable[[], None] | None = None,
    observe: Observe | None = None,
) -> Iterator[tuple[int, Summary]]:
    """Execute tasks of a batch here until all are taken; yields position and summary of each.

    Args:
        batch: The tasks.
        place: This process's.
        local: Where tasks run that are not ``alone``.
        meanwhile: See :meth:`dedupkit.engine.Engine.run`.
        observe: See :meth:`dedupkit.engine.Engine.run`.
    """
    share = Share(batch, place)
    if all(task.alone for task in batch.tasks):
        return in_this_process(iter(share.take, None), batch.out, observe)
    return local.serve(share.take, batch.out, len(batch.tasks), meanwhile=meanwhile, observe=observe)
