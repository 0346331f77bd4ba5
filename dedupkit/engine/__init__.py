"""How tasks run: engines, completion markers, progress."""

from dedupkit.engine.choice import ENGINES, Where, make_engine, only_helps
from dedupkit.engine.engine import Cost, Engine, ThisProcess
from dedupkit.engine.local import LocalProcesses, local_engine, run_tasks
from dedupkit.engine.process import WorkerDied
from dedupkit.engine.progress import Progress
from dedupkit.engine.task import Task, cache_key

__all__ = [
    "ENGINES",
    "Cost",
    "Engine",
    "LocalProcesses",
    "Progress",
    "Task",
    "ThisProcess",
    "Where",
    "WorkerDied",
    "cache_key",
    "local_engine",
    "make_engine",
    "only_helps",
    "run_tasks",
]
