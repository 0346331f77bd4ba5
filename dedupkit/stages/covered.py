"""What a run has computed: whether it is enough for another rule, and what it was compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dedupkit.clustering.grammar import parse_rule
from dedupkit.clustering.policy import META, parse_policy
from dedupkit.clustering.rules import Atom, Rule
from dedupkit.engine.marker import read_marker
from dedupkit.errors import DedupkitError
from dedupkit.runfolder.config import RunConfig
from dedupkit.runfolder.folder import RunFolder
from dedupkit.runfolder.references import Reference
from dedupkit.signals import find_signal, known_signals
from dedupkit.stages.blocked import reference_rule
from dedupkit.stages.clauses import covers_verified
from dedupkit.stages.plan import loosest_unranked, ranked_conditions

__all__ = ["changed_earlier", "missing_for", "reference_facts", "refuse_changed", "verification_facts"]

_NOTHING_LEFT_OUT: Mapping[str, Any] = {
    "malformed": 0, "examples": [], "flat": 0, "shard_problems": [], "unreadable": 0, "without_vector": {},
}  # fmt: skip


def missing_for(rule: Rule, folder: RunFolder, config: RunConfig) -> str | None:
    """What a rule needs that a run has not computed, as the beginning of a sentence; None where nothing is missing.

    Args:
        rule: The other rule.
        folder: The run folder.
        config: What was asked of the run, with the other keep policy and rule against reference sets. What rounds of
            verification looked at depends on the policy.
    """
    for column in parse_policy(config.keep).meta:
        if column not in config.meta:
            return f"this run has not stored {META}{column}, which the keep policy names"
    known = known_signals(config.embedders)
    ranked = ranked_conditions(rule, {name for name in rule.signals if known[name].ranks})
    for name in rule.signals:
        signal = known[name]
        if signal.scan_columns and name not in config.hashes:
            return f"this run has not computed {name}"
        facts = folder.joined(name)
        if signal.stage == "match":
            beyond = _beyond(rule, name, ranked, facts)
            if beyond is not None:
                return beyond
        elif signal.stage == "verify" and (facts is None or not covers_verified(rule, facts, config.keep)):
            return "the rule or the keep policy needs pairs that this run has not verified"
    for number, reference in enumerate(config.references):
        compared = rule if reference.role == "earlier" else reference_rule(folder, config, number)
        ranked = ranked_conditions(compared, {name for name in compared.signals if name in known and known[name].ranks})
        for name in compared.signals:
            missing = _missing_across(compared, folder, number, name, ranked)
            if missing is not None:
                return f"{missing} with {reference.name}"
    return None


def changed_earlier(config: RunConfig) -> str | None:
    """The first earlier run whose verdicts are others than those that this run was compared with; None without one.

    Args:
        config: What was asked of the run.

    Raises:
        DedupkitError: An earlier run is gone or not finished.
    """
    for reference in config.references:
        if reference.role == "earlier" and _is_changed(reference):
            return reference.path
    return None


def refuse_changed(references: Sequence[Reference]) -> None:
    """Refuse to go on with runs that another command decided again, or began to, since they were named.

    Args:
        references: Earlier runs and reference sets, of which only runs are looked at.

    Raises:
        DedupkitError: A run is no longer the one that was named.
    """
    for reference in references:
        if reference.kind == "run" and _is_changed(reference):
            raise DedupkitError(f"{reference.name} was decided again meanwhile; give the same command again")


def _is_changed(reference: Reference) -> bool:
    """Whether the verdicts of a run are others than those that were named, or being made anew."""
    return RunFolder(reference.path).verdicts().digest != reference.digest


def _missing_across(rule: Rule, folder: RunFolder, number: int, name: str, ranked: Mapping[str, Atom]) -> str | None:
    facts = folder.joined_across(number, name)
    if facts is None:
        return f"{name} was not compared"
    if "tested" in facts:
        return None if covers_verified(rule, facts, None) else "the rule needs pairs that were not verified"
    return None if rule.loosest(name).bound is None else _beyond(rule, name, ranked, facts)


def _beyond(rule: Rule, name: str, ranked: Mapping[str, Atom], facts: Mapping[str, Any] | None) -> str | None:
    """How far a rule reaches beyond a join, given what that says; None where it does not."""
    have = None if facts is None else replace(rule.loosest(name), bound=float(facts["bound"]))
    every, nearest = loosest_unranked(rule, name, ranked), ranked.get(name)
    if every is not None and (have is None or not have.covers(every)):
        return f"the rule reaches {every}, the run's edges {have or 'none'}"
    if nearest is not None and not (have is not None and (have.covers(nearest) or _reach(facts, nearest))):
        return f"the rule reaches {nearest}, the run's edges {have or 'none'}"
    return None


def _reach(facts: Mapping[str, Any] | None, floor: Atom) -> bool:
    """Whether lists of nearest neighbours go down to a floor."""
    reached = (facts or {}).get("ranks", {}).get("floor")
    return reached is not None and replace(floor, bound=float(reached)).covers(floor)


def reference_facts(folder: RunFolder, counts: Sequence[int]) -> list[dict[str, Any]]:
    """What each earlier run and reference set is and what came of it.

    Args:
        folder: A finished run.
        counts: For each how many samples have their witness there.

    Returns:
        ``role``, ``kind`` and ``name`` as in ``run.json``, ``samples`` (those counts), ``rows`` that took part; of
        lists ``malformed`` lines, ``examples`` of these, and ``flat``: PDQ hashes left out for their quality; and of
        images ``shard_problems``, ``unreadable`` rows, and images ``without_vector``.
    """
    found = []
    for number, (reference, count) in enumerate(zip(folder.read_config().references, counts, strict=False)):
        read = read_marker(folder.marker("reference", f"{number:03d}")) if reference.kind != "run" else None
        home = folder.across_marker(number, "any").parent
        joins = filter(None, map(read_marker, sorted(home.glob(f"{number:03d}-*.json"))))
        about = {} if read is None else read.result
        found.append(
            {"role": reference.role, "kind": reference.kind, "name": reference.name, "samples": count}
            | {"rows": max((int(join.result["rows"]) for join in joins), default=0)}
            | {name: about.get(name, none) for name, none in _NOTHING_LEFT_OUT.items()}
        )
    return found


def verification_facts(folder: RunFolder, config: RunConfig) -> dict[str, Any]:
    """How many pairs were looked at, where the rule needs that; nothing for a run of an earlier version.

    Args:
        folder: A finished run.
        config: What was asked of it, with the rule in force.

    Returns:
        The counts of the pairs within the run, and those of pairs with earlier runs and reference sets as
        ``references``, where there are any.
    """
    signals = parse_rule(config.rule_expanded, known_signals(config.embedders)).signals
    facts = (folder.joined(name) for name in signals if find_signal(name).stage == "verify")
    within: dict[str, Any] = next((found["verification"] for found in facts if found and "verification" in found), {})
    joins = (folder.joined_across(number, "verified") for number in range(len(config.references)))
    across = [found["verification"] for found in joins if found and "verification" in found]
    if not across:
        return within
    total = {name: sum(counts.get(name, 0) for counts in across) for name in across[0]}
    return {**within, "references": {**total, "rounds": max(counts["rounds"] for counts in across)}}
