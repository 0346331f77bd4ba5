"""Why a sample got its verdict, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dedupkit.clustering.families import TEMPLATE_REASON
from dedupkit.errors import DedupkitError
from dedupkit.manifest.rows import Rows
from dedupkit.runfolder import RunConfig, RunFolder

__all__ = ["Explanation", "explain", "find_sample"]

_LISTED = 5
_MOST_COMPARED = 20_000  # keys that a misspelt one is compared with


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """All that is known of one sample.

    Attributes:
        row: Its row of the manifest.
        words: Its verdict and the reason, as a sentence.
        witness: Row of the kept sample that it duplicates; None unless that is a sample of this run.
        relation: What it is of its witness (a crop, a recoloured copy, …), where the pair was verified.
        group: The samples of its group, itself included.
    """

    row: dict[str, Any]
    words: str
    witness: dict[str, Any] | None
    relation: str | None
    group: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """``keep``, ``remove``, ``unreadable`` or ``blocked``."""
        return str(self.row["verdict"])

    @property
    def score(self) -> float | None:
        """The score between it and its witness."""
        return None if self.row["score"] is None else float(self.row["score"])

    def __repr__(self) -> str:
        return f"<{self.row['key']} {self.words}>"

    def __str__(self) -> str:
        row = self.row
        about = f"{row['width']} × {row['height']}, {row['nbytes']:,} bytes, {row['format']}" if row["nbytes"] else ""
        lines = [f"{row['key']}  {self.words}", f"  sample   {row['sample']} of {row['source']}"]
        lines += [f"  image    {about}"] if about else []
        lines += [f"  {name:<7}  {row[name]}" for name in ("caption", "url", "uid") if row[name]]
        if self.witness is not None:
            lines.append(
                f"  witness  {self.witness['key']}, sample {self.witness['sample']} of {self.witness['source']}"
            )
        if row["kept_source"] is not None:
            lines.append(f"  witness  {row['kept_key']}, sample {row['kept_sample']} of {row['kept_source']}")
        if len(self.group) > 1:
            lines.append(f"  group    {row['group']}, of {len(self.group):,} samples")
        return "\n".join(lines)


def find_sample(rows: Rows, key: str | int, source: str | None) -> int:
    """The number of the sample of some key.

    Args:
        rows: The manifest.
        key: Key or number.
        source: Shard, or the end of its name.

    Raises:
        DedupkitError: There is none, or there are several.
        TypeError: ``key`` is neither text nor a whole number.
    """
    table = rows.table(["sample", "source", "key"])
    if isinstance(key, int | np.integer):
        if not 0 <= key < table.num_rows:
            raise DedupkitError(f"there is no sample {key}; the run has {table.num_rows:,}, numbered from 0")
        return int(key)
    if not isinstance(key, str):
        raise TypeError(f"a sample is named by its key or its number, a str or an int, not {type(key).__name__}")
    found = table.filter(pc.equal(table["key"], key))
    if source is not None:
        found = found.filter(pc.ends_with(found["source"], source))
    if not found.num_rows:
        near = _near(table["key"].combine_chunks(), key)
        where = f" in a shard named {source!r}" if source is not None else ""
        raise DedupkitError(f"no sample has the key {key!r}{where}" + (f"; did you mean {near}?" if near else ""))
    if found.num_rows > 1:
        listed = ", ".join(f"{row['sample']} in {row['source']}" for row in found.slice(0, _LISTED).to_pylist())
        more = ", …" if found.num_rows > _LISTED else ""
        raise DedupkitError(
            f"{found.num_rows:,} samples have the key {key!r}: {listed}{more}; name one by source=, or by its number"
        )
    return int(found["sample"][0].as_py())


def _near(keys: Any, key: str) -> str:
    """Keys that a misspelt one may stand for, as a list in words."""
    containing = keys.filter(pc.match_substring(keys, key)) if key else keys
    close = containing.slice(0, _LISTED).to_pylist()
    close = close or get_close_matches(key, keys.slice(0, _MOST_COMPARED).to_pylist(), _LISTED, 0.7)
    return " or ".join(map(repr, close))


def explain(folder: RunFolder, config: RunConfig, rows: Rows, sample: int) -> Explanation:
    """Say why a sample got its verdict.

    Args:
        folder: Folder of the run.
        config: What was asked of the run, with the rule and policy in force.
        rows: The manifest.
        sample: Number of the sample.
    """
    from dedupkit.report.relations import relations
    from dedupkit.report.words import policy_words

    row = rows.rows([sample])[sample]
    elsewhere = row["kept_source"] is not None
    witness = None if row["kept_sample"] is None or elsewhere else rows.rows([row["kept_sample"]])[row["kept_sample"]]
    group: tuple[int, ...] = (sample,)
    if row["group_size"] > 1:
        table = rows.table(["sample", "group"])
        group = tuple(table.filter(pc.equal(table["group"], row["group"]))["sample"].to_pylist())
    relation = None
    if witness is not None:
        pair = (sample, row["kept_sample"])
        edges = folder.edges("template" if row["reason"] == TEMPLATE_REASON else "verified")
        relation = relations(edges, [pair]).get(pair)
    if row["verdict"] == "unreadable":
        words = f"is unreadable: {row['reason']}"
    elif row["verdict"] == "blocked":
        words = f"is blocked: {row['reason']}" + (f", as {row['kept_key']}" if elsewhere else "")
    elif elsewhere:
        words = f"is removed as a duplicate of {row['kept_key']} in {row['kept_source']}: {_because(config, row)}"
    elif witness is not None and row["reason"] == TEMPLATE_REASON:
        words = f"is removed because the family of one template around {witness['key']}, which is kept, is full"
        words += f" ({relation})" if relation else ""
    elif witness is not None:
        words = f"is removed as a duplicate of {witness['key']}, which is kept: {_because(config, row)}"
        words += f" ({relation})" if relation else ""
    elif len(group) == 1:
        words = "is kept: no other sample that takes part satisfies the rule with it"
    else:
        order = policy_words(config.keep)
        words = f"is kept: no kept sample that ranks before it ({order}) satisfies the rule with it"
    return Explanation(row, words, witness, relation, group)


def _because(config: RunConfig, row: Mapping[str, Any]) -> str:
    from dedupkit.report.words import read_rule, rule_words, score_words

    rule = read_rule(config.rule_expanded, config.embedders)
    reason = row["reason"]
    if reason not in rule:
        return str(reason)
    (said,) = rule_words({reason: rule[reason]}, config.embedders)
    score = score_words(rule, reason, row["score"])
    return said + (f"; {score}" if score else "")
