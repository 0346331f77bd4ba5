"""Families of one template in a run: its table, and which samples go where a family is full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dedupkit.clustering import Decision, Rule, TemplatePolicy
from dedupkit.clustering.families import cap_families
from dedupkit.errors import DedupkitError
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import find_signal
from dedupkit.signals.columns import Scanned
from dedupkit.stages.whole import Whole
from dedupkit.store import read_columns

__all__ = ["FAMILIES_SCHEMA", "Families", "families_of", "signals_of", "with_families"]

_BOX = pa.list_(pa.float32(), 4)
FAMILIES_SCHEMA = pa.schema(
    [
        ("family", pa.int64()),
        ("size", pa.int32()),
        ("kept", pa.int32()),
        ("removed", pa.int32()),
        ("samples", pa.list_(pa.int64())),
        ("same", pa.list_(pa.float32())),
        ("differs", pa.list_(_BOX)),
        ("head_differs", pa.list_(_BOX)),
    ]
)
"""``family`` is its head, the first of ``samples``. For each sample ``same`` is the share of the textured area that is
that of the head, ``differs`` and ``head_differs`` bound the rest of it and of the head (left, top, right, bottom)."""


def signals_of(rule: Rule, folder: RunFolder) -> tuple[str, ...]:
    """The signals that verdicts depend on: those of the rule, and templates where they were looked for."""
    found = _looks_for_templates(rule) and folder.joined("template") is not None
    return (*rule.signals, *(["template"] if found and "template" not in rule.signals else []))


def _looks_for_templates(rule: Rule) -> bool:
    """Whether a run by this rule finds templates: while it verifies pairs."""
    return any(find_signal(name).stage == "verify" for name in rule.signals)


@dataclass(frozen=True, slots=True)
class Families:
    """Families of what is kept, and of what goes because of them.

    Attributes:
        table: One row a family, the largest first, see :data:`FAMILIES_SCHEMA`.
        gone: (n,) bool, which samples went because their family is full.
    """

    table: pa.Table
    gone: NDArray[np.bool_]

    @property
    def counts(self) -> dict[str, int]:
        """``families``, the samples ``in_families``, and the ``largest`` one."""
        sizes = self.table["size"].to_numpy()
        return {"families": len(sizes), "in_families": int(sizes.sum()), "largest": int(sizes.max(initial=0))}


def with_families(
    whole: Whole, decision: Decision, scanned: Scanned, active: NDArray[np.bool_]
) -> tuple[Decision, Families | None]:
    """The verdicts with at most so many of each family of one template, and the families.

    Args:
        whole: What was decided about, and how.
        decision: The verdicts by the rule.
        scanned: All samples.
        active: (n,) bool, which take part.

    Returns:
        The verdicts; and the families, None where the rule looks for none.

    Raises:
        DedupkitError: The run keeps at most so many of a family, and has looked for none.
    """
    folder, rule, policy = whole.folder, whole.rule, TemplatePolicy.parse(whole.config.templates)
    if "template" not in signals_of(rule, folder) or folder.joined("template") is None:
        if policy.most is not None:
            raise DedupkitError(
                f"templates {policy} needs a run that verified pairs: run again with --rule thorough, or another rule "
                "that names verified"
            )
        return decision, None
    signal, count = find_signal("template"), len(active)
    decision, head = cap_families(
        decision,
        signal.matches(scanned),
        whole.order[whole.order < count],
        active,
        policy.most or count,
        lambda some, stays: whole.decide(some, restrict=True, held=stays),
        len(rule.clauses),
    )
    return decision, families_of(folder, head, decision, signal.labels(scanned))


def families_of(folder: RunFolder, head: NDArray[np.int64], decision: Decision, first: NDArray[np.int32]) -> Families:
    """The families as a table.

    Args:
        folder: Folder of the run.
        head: (n,) the head of each sample's family, its own number where it has none, -1 for other samples.
        decision: The verdicts.
        first: (n,) the first sample with the same bytes; edges are between these.
    """
    found: dict[tuple[int, int], tuple[float, list[float], list[float]]] = {}
    for edge in read_columns(folder.edges("template"), ["a", "b", "score", "a_differs", "b_differs"]).to_pylist():
        found[edge["a"], edge["b"]] = edge["score"], edge["a_differs"], edge["b_differs"]
        found[edge["b"], edge["a"]] = edge["score"], edge["b_differs"], edge["a_differs"]
    whole = (1.0, [0.0] * 4, [0.0] * 4)  # of the head itself, and of equal bytes
    families: dict[int, list[int]] = {}
    for sample in np.flatnonzero((head >= 0) & (head != np.arange(len(head)))).tolist():
        families.setdefault(int(head[sample]), []).append(sample)
    rows: list[dict[str, Any]] = []
    for family, others in families.items():
        members = [family, *others]
        about = [found.get((int(first[sample]), int(first[family])), whole) for sample in members]
        if all(score is whole for score in about):
            continue  # nothing but equal bytes
        kept = int((decision.witness[members] < 0).sum())
        same, differs, head_differs = (list(column) for column in zip(*about, strict=True))
        rows.append(
            {"family": family, "size": len(members), "kept": kept, "removed": len(members) - kept, "samples": members}
            | {"same": same, "differs": differs, "head_differs": head_differs}
        )
    rows.sort(key=lambda row: (-row["size"], row["family"]))
    removed = (head >= 0) & (decision.witness >= 0)
    return Families(pa.Table.from_pylist(rows, schema=FAMILIES_SCHEMA), removed)
