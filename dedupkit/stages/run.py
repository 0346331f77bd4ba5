"""The stages of a run as lists of tasks: scan, embed, match, verify.

Arrays are for the tasks; this file loads none, so that a scan begins before its own process has loaded them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from dedupkit.engine import Progress, Task, fingerprint, run_tasks
from dedupkit.errors import DedupkitError
from dedupkit.signals.table import is_hash
from dedupkit.stages.plan import Job
from dedupkit.store import stamp

__all__ = ["run_stages"]

_SAMPLES_FORMAT = 4  # raise it when the columns of samples/ or the meaning of a hash change


def run_stages(job: Job) -> None:
    """Bring samples, embeddings and edges up to what the rule needs; what is there already stays."""
    scanned = _scan(job)
    keys = {name: fingerprint(scanned) for name in job.rule.signals if is_hash(name)}
    for name, spec in job.embedders.items():
        keys[name] = _embed(job, name, spec, scanned)
    _match(job, {name: key for name, key in keys.items() if name in job.rule.signals})
    if "verified" in job.rule.signals:
        from dedupkit.stages.verify import verify_candidates

        verify_candidates(job, fingerprint(keys))


def _scan(job: Job) -> list[str]:
    """Read every shard; returns a fingerprint of what was read of each."""
    tasks = []
    for number, shard in enumerate(job.shards):
        stamps = [stamp(path) for path in shard.paths]
        key = fingerprint([_SAMPLES_FORMAT, shard.source, shard.paths, stamps, job.hashes])
        arguments: dict[str, Any] = {
            "shard": shard,
            "path": str(job.folder.samples(number)),
            "hashes": job.hashes,
            "what": shard.source,
        }
        outputs = (arguments["path"],)
        tasks.append(Task("scan", f"{number:05d}", "dedupkit.stages.scan:scan_shard", arguments, key, outputs))
    watch = _load_ahead if "pdq" in job.rule.signals else None
    results = _run(job, "scan", tasks, job.workers, watch)
    return [fingerprint([task.key, result]) for task, result in zip(tasks, results, strict=True)]


def _load_ahead(samples: int) -> None:
    """Load what the later stages need while the workers scan: a second of work that nobody waits for.

    Args:
        samples: scanned so far.
    """
    for module in ("dedupkit.stages.match_hashes", "dedupkit.stages.decide", "faiss"):
        import_module(module)
    from dedupkit.neighbors.hamming.flat import FLAT_BELOW

    if samples >= FLAT_BELOW:
        _load_join()


@cache
def _load_join() -> None:
    """Load the compiled kernels that a join of more than ``FLAT_BELOW`` hashes takes, by a join of two."""
    import numpy as np

    from dedupkit.hashing.pdq import PDQ_BYTES
    from dedupkit.neighbors.hamming.dihedral import dihedral_pairs

    dihedral_pairs(np.zeros((2, PDQ_BYTES), np.uint8), 0, workers=1)


def _embed(job: Job, name: str, spec: str, scanned: list[str]) -> str:
    """Give every sample its vector, with one model in this process; returns a fingerprint of the vectors."""
    from dedupkit.embedding.precomputed import load_precomputed
    from dedupkit.embedding.spec import embedder_key

    model = embedder_key(spec)
    vectors = load_precomputed(spec) if spec.startswith("precomputed:") else None
    by = _identifiers(job) if vectors is not None else []
    tasks = []
    for number, shard in enumerate(job.shards):
        arguments: dict[str, Any] = {
            "path": str(job.folder.embeddings(name, number)),
            "samples_path": str(job.folder.samples(number)),
        }
        if vectors is not None:
            arguments |= {"vectors": vectors, "by": by}
        else:
            arguments |= {"shard": shard, "embedder": spec, "threads": job.workers, "device": job.device}
            arguments["what"] = shard.source
        function = f"dedupkit.{'stages.embed:embed_shard' if vectors is None else 'embedding:join_shard'}"
        key = fingerprint([model, scanned[number]])
        tasks.append(Task(f"embed-{name}", f"{number:05d}", function, arguments, key, (arguments["path"],)))
    results = _run(job, f"embed {name}", tasks, 1)
    failures = [result["failure"] for result in results if result["failed"]]
    if failures and not any(result["embedded"] for result in results):
        raise DedupkitError(f"{name} gave no image a vector; the first failure: {failures[0]}")
    return fingerprint([[task.key, result] for task, result in zip(tasks, results, strict=True)])


def _identifiers(job: Job) -> list[str]:
    """What vectors can be joined by: keys name a sample only where no two shards share them."""
    from dedupkit.signals.columns import read_column

    keys = read_column(job.folder, len(job.shards), "key")["key"]
    return ["uid", "key", "url"] if len(keys.unique()) == len(keys) else ["uid", "url"]


def _match(job: Job, keys: Mapping[str, str]) -> None:
    """Join each signal, out to the loosest bound that the rule states or that was joined before."""
    with Progress("match", len(keys)) as progress:
        for name, key in keys.items():
            atom = job.rule.loosest(name)
            bound = atom.bound or 0.0
            settings = _search_settings(job, name) if atom.similarity else []
            key = fingerprint([key, settings])
            before = job.folder.joined(name, key)
            if before is None or not (before["bound"] <= bound if atom.similarity else before["bound"] >= bound):
                arguments: dict[str, Any] = {
                    "out": str(job.folder.path),
                    "shards": len(job.shards),
                    "signal": name,
                    "what": name,
                }
                if atom.similarity:
                    function = "dedupkit.stages.match_vectors:match_vectors"
                    arguments |= {"floor": bound, "target_recall": job.target_recall}
                    arguments |= {"seed": job.seed, "device": job.device, "embedder": job.embedders[name]}
                else:
                    function = "dedupkit.stages.match_hashes:match_hashes"
                    arguments |= {"radius": int(bound), "workers": job.workers}
                task = Task("match", name, function, arguments, key)
                task.marker(job.folder.path).unlink(missing_ok=True)
                run_tasks([task], job.folder.path, workers=1)
            progress.advance()


def _search_settings(job: Job, name: str) -> list[Any]:
    """What the pairs of an embedder depend on beside its vectors."""
    from dedupkit.embedding.spec import background_key

    return [job.target_recall, job.seed, *background_key(job.embedders[name])]


def _run(
    job: Job, label: str, tasks: list[Task], workers: int, watch: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """Run tasks under a progress bar; ``watch`` hears the number of samples done while workers are busy."""
    done, busy = 0, False
    with Progress(label, len(tasks), "img") as progress:

        def on_done(_: Task, result: dict[str, Any]) -> None:
            nonlocal done
            done += result["samples"]
            progress.advance(result["samples"])
            if busy and watch is not None:
                watch(done)

        def meanwhile() -> None:
            nonlocal busy
            busy = True
            if watch is not None:
                watch(done)

        return run_tasks(tasks, job.folder.path, workers=workers, on_done=on_done, meanwhile=meanwhile)
