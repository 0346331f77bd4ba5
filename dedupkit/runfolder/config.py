"""``run.json``: what was asked of a run, with the version of the run folder's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dedupkit.runfolder.references import Reference

__all__ = ["LAYOUT", "RunConfig"]

LAYOUT = 2
"""Version of the run folder's layout: raised when what lies in it, or what that means, changes.

1 (in development, before 0.1.0): markers without digests, the counts of the verdicts in ``.done/decide.json``.
2: markers vouch for files, ``decision.json`` says what the verdicts belong to.
"""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What was asked of a run.

    Attributes:
        sources: The sources as the user named them.
        directory: The folder in which relative sources were named.
        shards: ``source`` of each shard, in order.
        rule: The rule as the user gave it.
        rule_expanded: The rule written out.
        keep: The keep policy.
        hashes: Signals that the scan computes on request.
        meta: Columns of the data's own that the scan stores for keep policies.
        embedders: Specification by signal name.
        seed: Seed for all random choices.
        target_recall: Recall of clustered searches; None where the default was left.
        templates: What becomes of families of one template, as :class:`dedupkit.clustering.TemplatePolicy` writes it.
        references: Earlier runs and reference sets.
        against_rule: What makes a sample duplicate a reference set, written out; empty without one.
        against_named: Whether that rule was named, and is not the run's own; None where a run does not say.
        compute_missing: Whether what a run among the references lacks is computed from its images.
        captions: What is done with captions, as :class:`dedupkit.captions.modes.CaptionMode` writes it.
        dedupkit: Version of dedupkit.
        python: Version of Python.
        versions: Versions of packages that the results depend on.
        layout: Version of the run folder's layout.

    >>> config = RunConfig(sources=("in.tar",), shards=("in.tar",), rule="exact", rule_expanded="exact", keep="sample")
    >>> RunConfig.from_json(config.to_json()) == config
    True
    """

    sources: tuple[str, ...]
    shards: tuple[str, ...]
    rule: str
    rule_expanded: str
    keep: str
    directory: str | None = None
    hashes: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    embedders: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    captions: str = "ignore"
    templates: str = "keep"
    target_recall: float | None = None
    references: tuple[Reference, ...] = ()
    against_rule: str = ""
    against_named: bool | None = None
    compute_missing: bool = False
    dedupkit: str = "unknown"
    python: str = "unknown"
    versions: Mapping[str, str] = field(default_factory=dict)
    layout: int = LAYOUT

    def to_json(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["references"] = tuple(reference.to_json() for reference in self.references)
        choices = (("templates", "keep"), ("target_recall", None), ("meta", ()), ("compute_missing", False))
        for name, default in (*choices, ("against_named", None)):
            if values[name] == default:  # as runs before there was a choice have it
                del values[name]
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunConfig:
        """Read the content of ``run.json``, of this layout or an older one.

        Raises:
            ValueError: It is not what a run writes.
        """
        known = {item.name for item in fields(cls)}
        given: dict[str, Any] = {"layout": 1} | {name: each for name, each in value.items() if name in known}
        try:
            for name in ("sources", "shards", "hashes", "meta"):
                given[name] = tuple(_texts(given.get(name, [])))
            for name in ("embedders", "versions"):
                given[name] = dict(zip(_texts(given.get(name, {})), _texts(given.get(name, {}).values()), strict=True))
            for name in ("rule", "rule_expanded", "keep"):
                _texts([given[name]])
            _texts([given.get(name, "") for name in ("captions", "templates", "against_rule")])
            given["references"] = tuple(map(Reference.from_json, given.get("references", [])))
            recall = given.get("target_recall")
            if recall is not None and not (isinstance(recall, int | float) and 0 < recall <= 1):
                raise ValueError("a target recall that is no share")
            if not all(isinstance(given.get(name) or False, bool) for name in ("compute_missing", "against_named")):
                raise ValueError("neither true nor false")
            if not given["sources"] or not isinstance(given["layout"], int) or not isinstance(given["seed"], int):
                raise ValueError("no sources, layout or seed")
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _texts(values: Any) -> list[str]:
    texts = list(values)
    if isinstance(values, str) or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a list of texts")
    return texts
