"""Whether what a run has computed is enough for another rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dedupkit.clustering.rules import Rule
from dedupkit.runfolder.folder import RunFolder
from dedupkit.signals import known_signals

__all__ = ["missing_for"]


def missing_for(rule: Rule, folder: RunFolder, config: Mapping[str, Any]) -> str | None:
    """What a rule needs that a run has not computed, as the beginning of a sentence; None where nothing is missing.

    Args:
        rule: The other rule.
        folder: The run folder.
        config: The content of its ``run.json``.
    """
    known = known_signals(config.get("embedders", {}))
    for name in rule.signals:
        signal = known[name]
        if signal.scan_columns and name not in config["hashes"]:
            return f"this run has not computed {name}"
        facts = folder.joined(name)
        if signal.stage == "match":
            atom = rule.loosest(name)
            have = None if facts is None else replace(atom, bound=float(facts["bound"]))
            if have is None or not have.covers(atom):
                return f"the rule reaches {atom}, the run's edges {have or 'none'}"
        elif signal.stage == "verify":
            from dedupkit.stages.verify import covers_verified

            if facts is None or not covers_verified(rule, facts):
                return "the rule needs pairs that this run has not verified"
    return None
