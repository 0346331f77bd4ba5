"""Whether what a run has computed is enough for another rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dedupkit.clustering.rules import Atom, Rule
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import known_signals
from dedupkit.stages.clauses import covers_verified
from dedupkit.stages.plan import loosest_unranked, ranked_conditions

__all__ = ["missing_for"]


def missing_for(rule: Rule, folder: RunFolder, config: Mapping[str, Any], keep: str) -> str | None:
    """What a rule needs that a run has not computed, as the beginning of a sentence; None where nothing is missing.

    Args:
        rule: The other rule.
        folder: The run folder.
        config: The content of its ``run.json``.
        keep: The keep policy; what rounds of verification looked at depends on it.
    """
    known = known_signals(config.get("embedders", {}))
    ranked = ranked_conditions(rule, {name for name in rule.signals if known[name].ranks})
    for name in rule.signals:
        signal = known[name]
        if signal.scan_columns and name not in config["hashes"]:
            return f"this run has not computed {name}"
        facts = folder.joined(name)
        if signal.stage == "match":
            atom = loosest_unranked(rule, name, ranked)
            floor = ranked.get(name)
            have = None if facts is None else replace(rule.loosest(name), bound=float(facts["bound"]))
            if atom is not None and (have is None or not have.covers(atom)):
                return f"the rule reaches {atom}, the run's edges {have or 'none'}"
            if floor is not None and not (have is not None and (have.covers(floor) or _reach(facts, floor))):
                return f"the rule reaches {floor}, the run's edges {have or 'none'}"
        elif signal.stage == "verify" and (facts is None or not covers_verified(rule, facts, keep)):
            return "the rule or the keep policy needs pairs that this run has not verified"
    return None


def _reach(facts: Mapping[str, Any] | None, floor: Atom) -> bool:
    """Whether lists of nearest neighbours go down to a floor."""
    reached = (facts or {}).get("ranks", {}).get("floor")
    return reached is not None and replace(floor, bound=float(reached)).covers(floor)
