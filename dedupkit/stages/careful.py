"""A shard whose samples are tried in processes of their own, for shards with an image that crashes a decoder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dedupkit.engine.process import describe_ending
from dedupkit.signals import Signal
from dedupkit.sources import Sample, Shard, ShardError
from dedupkit.sources.around import AroundShard
from dedupkit.sources.sample import Extra, PassedOver
from dedupkit.stages.scan import scan_sample

__all__ = ["CarefulShard", "ending_of"]


@dataclass(frozen=True, slots=True)
class CarefulShard(AroundShard):
    """A shard that yields, in place of a sample that ends the process, one with that reason.

    Attributes:
        shard: The shard.
        signals: What will be measured of each sample.
        notes: File that holds the number of samples read so far, for whoever finds this process dead.
        end: Where to stop, because reading on ends the process: number of samples, and how the process ended.
    """

    shard: Shard
    signals: Sequence[Signal]
    notes: str
    end: tuple[int, str] | None = None

    def read(self, *, extra: Extra = False, passed_over: PassedOver | None = None) -> Iterator[Sample]:
        """Yield the shard's samples; see :meth:`dedupkit.sources.Shard.read`."""
        samples = self.shard.read(extra=extra, passed_over=passed_over)
        count = 0
        while self.end is None or count < self.end[0]:
            Path(self.notes).write_text(str(count))
            try:
                sample = next(samples)
            except StopIteration:
                return
            count += 1
            yield self._tried(sample)
        if self.end is not None:
            raise ShardError(f"reading on after {count} samples ends the process ({self.end[1]})")

    def _tried(self, sample: Sample) -> Sample:
        ending = ending_of(lambda: scan_sample(sample, self.signals))
        if ending is None:
            return sample
        error = f"reading this image ends the process ({ending})"
        transient = ending == describe_ending(-signal.SIGKILL)  # the system had no memory left
        if ending_of(lambda: sample.image) is None:
            return replace(sample, error=error, transient=transient)
        return Sample(
            sample.key,
            error=error,
            caption=sample.caption,
            url=sample.url,
            uid=sample.uid,
            clip_score=sample.clip_score,
            transient=transient,
        )


def ending_of(call: Callable[[], object]) -> str | None:
    """How a copy of this process ends that makes a call: None where it lives on, whatever the call raises."""
    child = os.fork()
    if child == 0:
        try:
            call()
        except BaseException:  # an error is not an end; the caller meets it again
            os._exit(0)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return describe_ending(code) if code else None
