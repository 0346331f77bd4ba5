"""The run folder: its layout, its lock, and whether it may be used."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dedupkit.errors import DedupkitError
from dedupkit.store import is_temporary, read_json, sweep

__all__ = ["RunFolder"]

_LOCK = ".lock"
_FOLDERS = (".done", "samples", "embeddings", "edges", "calibration")


class RunFolder:
    """Names of everything in a run folder.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "run.json"
        self.manifest = self.path / "manifest.parquet"
        self.groups = self.path / "groups.parquet"
        self.decision = self.path / ".done" / "decide.json"

    def samples(self, shard: int) -> Path:
        """The fingerprints of one shard's samples."""
        return self.path / "samples" / f"{shard:05d}.parquet"

    def edges(self, signal: str) -> Path:
        """The scored pairs of one signal."""
        return self.path / "edges" / signal / "00000.parquet"

    def labels(self, signal: str) -> Path:
        """For an embedder: for each sample the first with the same content, -1 where it has no vector."""
        return self.path / "edges" / signal / "first.npy"

    def embeddings(self, name: str, shard: int) -> Path:
        """The vectors of one shard's samples."""
        return self.path / "embeddings" / name / f"{shard:05d}.npy"

    def joined(self, signal: str, key: str | None = None) -> dict[str, Any] | None:
        """What the match stage says of a signal's edges; None where it was not joined.

        Args:
            signal: its name.
            key: fingerprint of what the edges were made from; None to take what is there.
        """
        marker = read_json(self.path / ".done" / "match" / f"{signal}.json")
        if not isinstance(marker, dict) or (key is not None and marker.get("key") != key):
            return None
        result = marker["result"]
        return result if isinstance(result, dict) else None

    def shard_problems(self) -> list[dict[str, str]]:
        """The shards that could not be read to their end: ``source`` and ``problem``."""
        shards = self.read_config()["shards"]
        found = []
        for number, source in enumerate(shards):
            marker = read_json(self.path / ".done" / "scan" / f"{number:05d}.json") or {}
            problem = marker.get("result", {}).get("problem")
            if problem:
                found.append({"source": source, "problem": problem})
        return found

    def passed_over(self) -> dict[str, Any]:
        """What the sources hold that is neither a sample nor about one: ``count``, and one ``example``."""
        total: dict[str, Any] = {"count": 0}
        for number in range(len(self.read_config()["shards"])):
            marker = read_json(self.path / ".done" / "scan" / f"{number:05d}.json") or {}
            found = marker.get("result", {}).get("passed_over")
            if found:
                total.setdefault("example", found["example"])
                total["count"] += found["count"]
        return total

    def without_vector(self) -> dict[str, dict[str, Any]]:
        """The readable images that an embedder has no vector of: they take no part in that signal.

        Returns:
            For each embedder that has not all: ``count`` of them ``of`` so many readable images, ``examples``
            (``source`` and ``key``) and ``reason``, what was wrong with the first.
        """
        config = self.read_config()
        found: dict[str, dict[str, Any]] = {}
        for name in config.get("embedders", {}):
            total: dict[str, Any] = {"count": 0, "of": 0, "examples": [], "reason": None}
            for number, source in enumerate(config["shards"]):
                marker = read_json(self.path / ".done" / f"embed-{name}" / f"{number:05d}.json") or {}
                result = marker.get("result") or {}
                total["count"] += result.get("failed", 0)
                total["of"] += result.get("failed", 0) + result.get("embedded", 0)
                total["reason"] = total["reason"] or result.get("failure")
                total["examples"] += [{"source": source, "key": key} for key in result.get("examples", [])]
            if total["count"]:
                found[name] = {**total, "examples": total["examples"][:5]}
        return found

    def read_config(self) -> dict[str, Any]:
        """What was asked of this run.

        Raises:
            DedupkitError: there is no run here.
        """
        config = read_json(self.config)
        if not isinstance(config, dict):
            raise DedupkitError(f"{self.path} holds no run (no run.json); make one with: dedupkit run SOURCE --out DIR")
        return config

    def read_finished(self) -> dict[str, Any]:
        """What was asked of this run, whose verdicts are there.

        Raises:
            DedupkitError: there is no run here, or it is not finished.
        """
        config = self.read_config()
        if not isinstance(read_json(self.decision), dict) or not self.manifest.exists():
            raise DedupkitError(f"the run in {self.path} is not finished; run the same command again to go on")
        return config

    def refuse_foreign(self, sources: Sequence[str] | None = None) -> None:
        """Refuse a folder that is not for this run, without touching it.

        Args:
            sources: What the run reads, as the user named it; None to accept any run.

        Raises:
            DedupkitError: It is a file, holds something else than a run, or a run over other sources.
        """
        try:
            present = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        except NotADirectoryError:
            raise DedupkitError(f"{self.path} is a file; --out takes a folder") from None
        if not self.config.exists():
            if any(name != _LOCK and not is_temporary(name) for name in present):
                raise DedupkitError(f"{self.path} is not empty and holds no run of dedupkit; choose another --out")
            return
        before = self.read_config().get("sources")
        if sources is not None and before != list(sources):
            raise DedupkitError(
                f"{self.path} holds a run over other sources ({', '.join(before or [])}); choose another --out"
            )

    @contextmanager
    def locked(self, sources: Sequence[str] | None = None) -> Iterator[None]:
        """Hold the folder alone while writing into it; what a killed process left half-written is removed.

        Args:
            sources: What the run reads, as the user named it; None to accept any run.

        Raises:
            DedupkitError: The folder is not for this run (then nothing in it was touched), or another process is
                writing into it.
        """
        self.refuse_foreign(sources)
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DedupkitError(
                    f"another run is writing into {self.path}; wait for it or choose another --out"
                ) from None
            self.refuse_foreign(sources)  # another process may have come first
            sweep(self.path)
            for name in _FOLDERS:
                sweep(self.path / name, recursive=True)
            yield

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the folder while reading from it, together with others, so that nobody decides again meanwhile.

        Raises:
            DedupkitError: another process is writing into it.
        """
        with (self.path / _LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DedupkitError(f"another process is writing into {self.path}; wait for it") from None
            yield
