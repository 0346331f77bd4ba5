"""``decision.json``: what the verdicts in a run folder belong to.

The verdicts (``manifest.parquet``, ``groups.parquet``) are prepared in a folder of their own and moved into place once
all of them are there, ``decision.json`` last. A process that is killed while it prepares them leaves the old ones; one
that is killed while it moves them has left all that the next one needs to finish the move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dedupkit.engine.marker import Marker, read_marker
from dedupkit.errors import DamagedError
from dedupkit.runfolder.config import RunConfig
from dedupkit.runfolder.layout import Layout
from dedupkit.store import FileState, digest_of, file_state, is_intact, read_sealed, write_sealed

__all__ = ["DecisionRecord", "decision_digest", "file_states", "inputs_digest"]

_READ_WHOLE = 256 << 20  # larger files are known by their size here, and page by page when they are read


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """The content of ``decision.json``.

    Attributes:
        digest: Digest of the rule, the policy and what was decided about; the manifest has it in its metadata.
        rule: The rule, written out.
        keep: The keep policy.
        signals: The signals of the rule.
        config: Digest of ``run.json``.
        inputs: Digest of the samples and edges.
        files: Size and SHA-256 of the manifest and the groups, by name.
        summary: Counts.
    """

    digest: str
    rule: str
    keep: str
    signals: tuple[str, ...]
    config: str
    inputs: str
    files: Mapping[str, FileState]
    summary: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write ``decision.json``."""
        write_sealed(path, asdict(self) | {"files": {name: list(state) for name, state in self.files.items()}})

    @classmethod
    def read(cls, path: Path) -> DecisionRecord | None:
        """Read ``decision.json``; None where it is missing or damaged."""
        value = read_sealed(path)
        try:
            if value is None or not isinstance(value["summary"], dict):
                return None
            files = {str(name): (int(size), str(digest)) for name, (size, digest) in value.pop("files").items()}
            signals = tuple(map(str, value.pop("signals")))
            return cls(files=files, signals=signals, **value)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def damaged(self, folder: Path, *, whole_up_to: int | None = _READ_WHOLE) -> str | None:
        """The first of the files that is not as it was written, None where all are.

        Args:
            folder: The run folder.
            whole_up_to: See :func:`dedupkit.store.is_intact`.
        """
        for name, state in self.files.items():
            if not is_intact(folder / name, state, whole_up_to=whole_up_to):
                return name
        return None


def decision_digest(config: RunConfig, inputs: str) -> str:
    """Digest of all that verdicts depend on: what was asked, and what was decided about."""
    asked: dict[str, Any] = {"rule": config.rule_expanded, "keep": config.keep, "captions": config.captions}
    if config.templates != "keep":
        asked["templates"] = config.templates
    if config.references:
        asked["against"] = config.against_rule
        asked["references"] = [[one.role, one.kind, one.name, one.reads] for one in config.references]
    return digest_of({**asked, "inputs": inputs})


def inputs_digest(folder: Layout, config: RunConfig, signals: Iterable[str], *, check: bool = False) -> str:
    """Digest of what is decided about: the samples and the edges of some signals, as their markers state them.

    Args:
        folder: The run folder.
        config: What was asked of the run.
        signals: The signals of the rule.
        check: Compare the files with the markers too.

    Raises:
        DamagedError: A marker is missing or damaged; or ``check``, and a file is not as its task wrote it.
    """
    stated: list[Any] = [list(config.shards)]
    named = [folder.scan_marker(shard) for shard in range(len(config.shards))]
    for path in [*named, *(folder.marker("match", signal) for signal in sorted(signals))]:
        marker = read_marker(path)
        if marker is None and path not in named and not path.exists():
            continue  # equal bytes or pixels need no pairs
        stated.append(sorted(_stated(folder, path, marker, check).items()))
    stated += [
        [path.stem, sorted(_vouched(folder, path, read_marker(path), check).items())]
        for path in _across_markers(folder, config)
    ]
    return digest_of(stated)


def _across_markers(folder: Layout, config: RunConfig) -> list[Path]:
    """The markers of the joins with references, in order."""
    if not config.references:
        return []
    return sorted(folder.across_marker(0, "any").parent.glob("*.json"))


def _stated(folder: Layout, path: Path, marker: Marker | None, check: bool) -> dict[str, Any]:
    """What a marker says of its files; of pairs what they are, however many files the tasks of a join made."""
    vouched = _vouched(folder, path, marker, check)
    content = None if marker is None else marker.result.get("content")
    if content is None:
        return vouched
    pairs = {file.relative_to(folder.path).as_posix() for file in folder.edge_files(path.stem)}
    return {name: state for name, state in vouched.items() if name not in pairs} | {f"edges/{path.stem}": content}


def _vouched(folder: Layout, path: Path, marker: Marker | None, check: bool) -> dict[str, Any]:
    if marker is None:
        raise DamagedError(path, "is missing or damaged")
    if check and not marker.holds(folder.path):
        raise DamagedError(folder.path / next(iter(marker.files), ""), "is missing or damaged")
    return {name: list(state) for name, state in marker.files.items()}


def file_states(folder: Path, names: tuple[str, ...]) -> dict[str, FileState]:
    """Size and digest of some files in a folder."""
    return {name: file_state(folder / name) for name in names}
