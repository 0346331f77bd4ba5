"""How tasks run: local worker processes, completion markers, progress."""

from dedupkit.engine.local import WorkerDied, run_tasks, workers_ahead
from dedupkit.engine.progress import Progress
from dedupkit.engine.task import Task, fingerprint

__all__ = ["Progress", "Task", "WorkerDied", "fingerprint", "run_tasks", "workers_ahead"]
