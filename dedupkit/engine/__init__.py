"""How tasks run: local worker processes, completion markers, progress."""

from dedupkit.engine.local import WorkerDied, run_tasks, workers_ahead
from dedupkit.engine.progress import Progress
from dedupkit.engine.task import Task, cache_key

__all__ = ["Progress", "Task", "WorkerDied", "cache_key", "run_tasks", "workers_ahead"]
