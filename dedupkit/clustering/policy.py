"""Keep policies: which of several duplicates is kept, and how many of a template's family.

A policy is an ordered list of columns that ends in a total order, e.g. ``-pixels, -clip_score, nbytes, sample``: the
first column decides, ``-`` means that the larger value is better, and a missing value comes last either way. A name
that begins with ``meta:`` is a column of the data's own, such as ``-meta:aesthetic``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dedupkit.errors import RuleError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DEFAULT_POLICY", "META", "POLICY_COLUMNS", "Policy", "TemplatePolicy", "parse_policy"]

POLICY_COLUMNS = (
    "pixels", "width", "height", "nbytes", "pdq_quality", "clip_score", "caption_length", "sample",
)  # fmt: skip
DEFAULT_POLICY = "-pixels, -nbytes, sample"
"""The keep policy where none is named: most pixels, then most bytes, then first in the input."""
META = "meta:"
"""Begins the name of a column of the data's own."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy: (column, whether larger is better) from the first to the last."""

    columns: tuple[tuple[str, bool], ...]

    def __str__(self) -> str:
        return ", ".join(f"{'-' if larger else ''}{name}" for name, larger in self.columns)

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns whose values ``order`` must be given, each once."""
        return tuple(dict.fromkeys(name for name, _ in self.columns if name != "sample"))

    @property
    def meta(self) -> tuple[str, ...]:
        """The columns of the data's own that it looks at, without their prefix."""
        return tuple(name.removeprefix(META) for name in self.needs if name.startswith(META))

    def order(self, values: Mapping[str, NDArray[np.generic]], count: int) -> NDArray[np.int64]:
        """Row numbers from the most to the least worth keeping.

        Args:
            values: Columns by name, for each name in ``needs`` an array (count,) of numbers, NaN where missing.
            count: number of samples.

        Returns:
            (count,) int64, a permutation.
        """
        import numpy as np

        keys: list[NDArray[np.generic]] = []
        for name, larger in self.columns:
            if name == "sample":  # the row number is unique, so nothing after it matters
                keys.append(np.arange(count) * (-1 if larger else 1))
                break
            column = np.asarray(values[name], dtype=np.float64)
            keys.append(-column if larger else column)  # NaN comes last, behind infinity
        order: NDArray[np.int64] = np.lexsort(keys[::-1])
        return order


def parse_policy(text: str, known: Sequence[str] = POLICY_COLUMNS) -> Policy:
    """Parse a policy; ``sample`` is added at the end where it is missing.

    Args:
        text: The policy.
        known: Columns that it may name beside those of the data's own.

    Raises:
        RuleError: an unknown column, with a caret under it and the columns that exist.

    Example:
        >>> policy = parse_policy("-meta:aesthetic, -pixels")
        >>> str(policy), policy.meta
        ('-meta:aesthetic, -pixels, sample', ('aesthetic',))
    """
    columns: list[tuple[str, bool]] = []
    position = 0
    for part in text.split(","):
        name = part.strip()
        if name or "," in text:
            larger = name.startswith("-")
            bare = name.lstrip("-").strip()
            own = bare.startswith(META) and bare != META
            if bare not in known and not own:
                at = position + (len(part) - len(part.lstrip()))
                there = f"{', '.join(known)}, and {META}NAME for a column of the data's own"
                raise RuleError(f"unknown column {bare!r} in the keep policy; known: {there}\n  {text}\n  {' ' * at}^")
            columns.append((bare, larger))
        position += len(part) + 1
    if not any(name == "sample" for name, _ in columns):
        columns.append(("sample", False))
    return Policy(tuple(columns))


@dataclass(frozen=True, slots=True)
class TemplatePolicy:
    """What becomes of families: ``keep`` all, or ``cap:M`` keeps at most M of each.

    Attributes:
        most: the most that are kept of a family; None for all.

    Example:
        >>> TemplatePolicy.parse("cap:3").most, str(TemplatePolicy.parse("keep"))
        (3, 'keep')
    """

    most: int | None = None

    @classmethod
    def parse(cls, text: str) -> TemplatePolicy:
        """Read what ``str`` writes.

        Raises:
            RuleError: another text.
        """
        match = re.fullmatch(r"keep|cap:([1-9]\d{0,8})", text.strip())
        if match is None:
            raise RuleError(f"{text!r} is no way to treat templates; write keep, or cap:M for at most M of a family")
        return cls(int(match[1]) if match[1] else None)

    def __str__(self) -> str:
        return "keep" if self.most is None else f"cap:{self.most}"
