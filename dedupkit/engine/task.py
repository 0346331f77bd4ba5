"""A task, and the marker that says it is done.

A stage is a list of independent tasks. A task names a function by its import path, so that any process on any machine
can call it, and writes its files whole or not at all; its marker ``.done/{stage}/{name}.json`` comes last and holds
the fingerprint of what was asked and the summary that the function returned. Resume, many processes and a cluster are
this one mechanism.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedupkit.store import read_json, write_json

__all__ = ["Task", "done_result", "execute", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work.

    Attributes:
        stage: ``scan``, ``embed``, ``match``, …
        name: unique in its stage, e.g. ``00017``.
        function: import path ``module:function``; called with ``arguments``, returns a JSON-able summary.
        arguments: keyword arguments, picklable.
        key: fingerprint of everything that the result depends on; another key means that the task is not done.
        outputs: The files that it writes; where one is missing, the task is not done.
    """

    stage: str
    name: str
    function: str
    arguments: Mapping[str, Any]
    key: str
    outputs: tuple[str, ...] = ()

    def marker(self, out: Path) -> Path:
        """The completion marker in the run folder."""
        return out / ".done" / self.stage / f"{self.name}.json"


def fingerprint(value: Any) -> str:
    """A short stable hash of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def done_result(task: Task, out: Path) -> dict[str, Any] | None:
    """The summary of a task that is done with this very key and whose files are there, else None.

    A summary with ``"retry": true`` (a shard that could not be read to its end) counts as done for the run that made
    it, and is tried again by the next.
    """
    marker = read_json(task.marker(out))
    if not isinstance(marker, dict) or marker.get("key") != task.key:
        return None
    if not all(Path(path).is_file() for path in task.outputs):
        return None
    result = marker.get("result")
    return result if isinstance(result, dict) and not result.get("retry") else None


def execute(task: Task, out: Path) -> dict[str, Any]:
    """Call the task's function, then write its marker."""
    module, _, name = task.function.partition(":")
    result: dict[str, Any] = getattr(importlib.import_module(module), name)(**task.arguments)
    write_json(task.marker(out), {"key": task.key, "result": result})
    return result
