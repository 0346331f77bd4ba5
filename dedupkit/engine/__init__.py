"""How tasks run: engines, completion markers, progress."""

from dedupkit.engine.engine import Engine, ThisProcess
from dedupkit.engine.local import LocalProcesses, local_engine, run_tasks
from dedupkit.engine.process import WorkerDied
from dedupkit.engine.progress import Progress
from dedupkit.engine.task import Task, cache_key

__all__ = [
    "Engine",
    "LocalProcesses",
    "Progress",
    "Task",
    "ThisProcess",
    "WorkerDied",
    "cache_key",
    "local_engine",
    "run_tasks",
]
