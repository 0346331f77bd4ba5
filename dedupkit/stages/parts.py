"""Large decisions in parts, as tasks of an engine; see :mod:`dedupkit.clustering.parts`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from dedupkit.clustering import Decision, Policy, Rule
from dedupkit.clustering.part_files import (
    Parting,
    Rows,
    decide_part,
    gather_parts,
    part_inputs,
    part_verdicts,
    write_parts,
)
from dedupkit.clustering.parts import MOST_PARTS, find_parts
from dedupkit.engine import Engine, Progress, Task, ThisProcess, cache_key
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunFolder
from dedupkit.signals.matches import Streamed
from dedupkit.startup.memory import give_back_memory
from dedupkit.store import on_disk, remove_tree

__all__ = ["PartTasks", "expected_parts", "is_large", "part_size"]

_PART = 8_000_000  # samples and scored pairs that are decided about in one piece: about 1 GiB
_STAGE = "decide"
_FORMAT = 1  # raise it when what these tasks write changes


def is_large(signals: Mapping[str, Streamed]) -> bool:
    """Whether a decision is made in parts."""
    samples = next(iter(signals.values())).samples
    return samples + sum(signal.edges for signal in signals.values()) > part_size()


def expected_parts(samples: int, pairs: int) -> int:
    """About how many parts a decision is made in whose samples all have a pair; 0 where it is made in one piece.

    Args:
        samples: Number of samples.
        pairs: Number of scored pairs.
    """
    size = part_size()
    return 0 if samples + pairs <= size else min(MOST_PARTS, -(-(samples + pairs) // size))


def part_size() -> int:
    """Number of samples and scored pairs that are decided about in one piece.

    Raises:
        DedupkitError: ``DEDUPKIT_PART_SIZE`` is no number.
    """
    stated = os.environ.get("DEDUPKIT_PART_SIZE")
    if stated is not None and not (stated.isdecimal() and int(stated)):
        raise DedupkitError(f"DEDUPKIT_PART_SIZE is a number of samples and pairs, not {stated!r}")
    return int(stated) if stated else _PART


@dataclass(frozen=True, slots=True)
class PartTasks:
    """Where large decisions are made; what was done of one before it was interrupted is not done again.

    Attributes:
        folder: The run folder.
        home: Folder for the parts.
        out: Where tasks leave their markers.
        engine: What runs the tasks.
        key: Digest of what is decided about.
    """

    folder: RunFolder
    home: Path
    out: Path
    engine: Engine
    key: str = ""
    _calls: Iterator[int] = field(default_factory=count)
    _held: dict[str, Streamed] = field(default_factory=dict)

    @classmethod
    def of_run(cls, folder: RunFolder, engine: Engine, key: str) -> PartTasks:
        """In the run folder, where the next process finds what is done."""
        return cls(folder, folder.staged / "parts", folder.path, engine, key)

    @classmethod
    @contextmanager
    def temporary(cls, folder: RunFolder) -> Iterator[PartTasks]:
        """In this process, with files in a temporary folder: nothing is written into the run folder."""
        with TemporaryDirectory(prefix="dedupkit-decide-") as home:
            yield cls(folder, Path(home, "parts"), Path(home), ThisProcess())

    def decide(
        self,
        rule: Rule,
        policy: Policy,
        signals: Mapping[str, Streamed],
        masks: tuple[NDArray[np.bool_], NDArray[np.bool_]],
        rows: Iterable[Rows],
    ) -> Decision:
        """Apply a rule to scored pairs, as :func:`dedupkit.clustering.decide` does.

        Args:
            rule: What makes two samples duplicates.
            policy: Which of them is kept.
            signals: One entry for each signal of the rule.
            masks: (n,) which samples take part, and which are kept whatever the order says.
            rows: All samples, in order.
        """
        call, size = f"{next(self._calls):02d}", part_size()
        home = self.home / call
        digests = [sha256(np.packbits(mask).tobytes()).hexdigest() for mask in masks]
        key = cache_key([_FORMAT, self.key, str(rule), str(policy), size, digests])
        parting = Parting(rule, policy, {name: signal.origin for name, signal in signals.items()}, len(masks[0]))
        home.mkdir(parents=True, exist_ok=True)
        signals = {name: self._on_disk(name, signal) for name, signal in signals.items()}
        parts = find_parts(rule, signals, masks[0], size)
        for number in range(parts.count):
            for path in part_inputs(home, number, signals):
                path.unlink()  # of a process that was killed
        write_parts(home, parting, parts, signals, masks, rows)
        give_back_memory()
        tasks, within = [], self.out == self.folder.path
        for number in range(parts.count):
            work, read = partial(decide_part, str(home), number, parting), part_inputs(home, number, signals)
            made = (str(part_verdicts(home, number)),)
            name = f"{call}-{number:02d}"
            tasks.append(Task(_STAGE, name, work, cache_key([key, number]), name, made, tuple(map(str, read))))
            if within:
                self.folder.push(read)
        with Progress(_STAGE, len(tasks), path=self.folder.progress if within else None) as progress:
            found = self.engine.run(tasks, self.out, on_done=lambda _, __: progress.advance(), observe=progress.observe)
        return gather_parts(home, parts, masks[0], found)

    def _on_disk(self, name: str, signal: Streamed) -> Streamed:
        """A signal whose labels lie in a file."""
        if name not in self._held:
            labels = on_disk(signal.labels())
            self._held[name] = replace(signal, labels=lambda: labels)
        return self._held[name]

    def clear(self) -> None:
        """Remove what large decisions left."""
        remove_tree(self.home)
        remove_tree(self.folder.marker(_STAGE, "any").parent)
