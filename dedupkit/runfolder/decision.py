"""``decision.json``: what the verdicts in a run folder belong to.

The verdicts (``manifest.parquet``, ``groups.parquet``) are prepared in a folder of their own and moved into place once
all of them are there, ``decision.json`` last. A process that is killed while it prepares them leaves the old ones; one
that is killed while it moves them has left all that the next one needs to finish the move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dedupkit.store import FileState, digest_of, file_state, is_intact, read_sealed, write_sealed

__all__ = ["DecisionRecord", "decision_digest", "file_states"]

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


def decision_digest(rule: str, keep: str, captions: str, inputs: str, templates: str = "keep") -> str:
    """Digest of all that verdicts depend on."""
    policy = {} if templates == "keep" else {"templates": templates}
    return digest_of({"rule": rule, "keep": keep, "captions": captions, "inputs": inputs, **policy})


def file_states(folder: Path, names: tuple[str, ...]) -> dict[str, FileState]:
    """Size and digest of some files in a folder."""
    return {name: file_state(folder / name) for name in names}
