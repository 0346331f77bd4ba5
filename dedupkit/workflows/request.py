"""What a user asks for: the embedders, the rules over them and what else decides, and the hashes to scan."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dedupkit.captions.modes import CaptionMode
from dedupkit.clustering.grammar import needs_floor, parse_rule
from dedupkit.clustering.policy import DEFAULT_POLICY, Policy, TemplatePolicy, parse_policy
from dedupkit.clustering.rules import Rule
from dedupkit.engine.progress import LOGGER
from dedupkit.errors import DedupkitError
from dedupkit.signals import SIGNALS, known_signals, requested_signals
from dedupkit.workflows.against import parse_against_rule

__all__ = ["DEFAULT_RECALL", "Asked", "choose_embedders", "hashes_to_scan", "parse_run_rule", "with_files"]

DEFAULT_RECALL = 0.99
"""Recall of clustered searches where none is asked for."""

_DEFAULT_EMBEDDER = "copy"


@dataclass(frozen=True, slots=True)
class Asked:
    """What verdicts are asked for.

    Attributes:
        rule: What makes two samples duplicates, with the condition on captions of the mode.
        compared: What makes a sample duplicate a reference set.
        policy: Which of two duplicates is kept.
        captions: What is done with captions beside images.
        templates: What becomes of families of one template.
    """

    rule: Rule
    compared: Rule
    policy: Policy
    captions: CaptionMode
    templates: TemplatePolicy

    @classmethod
    def parse(
        cls,
        rule: str,
        embedders: Mapping[str, str],
        *,
        keep: str = DEFAULT_POLICY,
        captions: str = "ignore",
        templates: str = "keep",
        against_rule: str | None = None,
    ) -> Asked:
        """Read what a user wrote; arguments as those of :func:`dedupkit.dedup`, embedders by signal name.

        Raises:
            RuleError: A rule, the policy or a mode cannot be read.
            DedupkitError: A cap on families of templates, and a rule that verifies no pairs.
        """
        mode, families = CaptionMode.parse(captions), TemplatePolicy.parse(templates)
        parsed = parse_run_rule(rule, mode, embedders)
        if families.most is not None and not any(SIGNALS[n].stage == "verify" for n in parsed.signals if n in SIGNALS):
            raise DedupkitError(
                f"templates {families} needs a rule that verifies pairs, such as 'thorough', and this verifies none: "
                f"{parsed}"
            )
        if against_rule is None:  # captions are compared among samples, not with reference sets
            compared = parse_run_rule(rule, CaptionMode(), embedders)
        else:
            compared = parse_against_rule(against_rule, embedders)
        return cls(parsed, compared, parse_policy(keep), mode, families)


def choose_embedders(embed: Any, rule: str, before: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """The embedders that are named now.

    Args:
        embed: As for :func:`dedupkit.dedup`.
        rule: The rule; a preset that verifies an embedder's candidates brings the default one.
        before: Specification by signal name of those of earlier calls.

    Returns:
        Specification by signal name; and those among them that were given as objects.

    Raises:
        DedupkitError: Two signals have one name.
    """
    if not embed and needs_floor(rule) and not before:
        embed = _DEFAULT_EMBEDDER
    embedders: dict[str, str] = {}
    objects: dict[str, Any] = {}
    if embed:
        from dedupkit.embedding.given import as_given, listed

        for given in map(as_given, listed(embed)):
            if given.name in embedders or given.name in SIGNALS:
                raise DedupkitError(f"two signals are called {given.name!r}; rename this one: {given.spec}?name=OTHER")
            embedders[given.name] = given.spec
            if given.source is not None:
                objects[given.name] = given.source
    return embedders, objects


def with_files(embedders: Mapping[str, str], needed: Collection[str]) -> dict[str, str]:
    """The embedders of a run whose files are there; one of an earlier call whose file is gone holds up no other rule.

    Args:
        embedders: Specification by signal name.
        needed: Names of those that are named now, or that a rule compares.

    Raises:
        DedupkitError: A file is missing that is needed.
    """
    if not embedders:  # what knows their files takes a while to load
        return {}
    from dedupkit.embedding.keys import check_files

    found = {}
    for name, spec in embedders.items():
        try:
            check_files(spec)
        except DedupkitError as error:
            if name in needed:
                raise
            logging.getLogger(LOGGER).warning("%s is left out until it is named again: %s", name, error)
        else:
            found[name] = spec
    return found


def parse_run_rule(
    rule: str,
    mode: CaptionMode,
    embedders: Mapping[str, str],
    floors: Mapping[str, float] = MappingProxyType({}),
) -> Rule:
    """The rule over these embedders, under which captions must agree too where the mode says so.

    Args:
        rule: A preset or a rule; an embedder that a preset leaves open is the first.
        mode: What is done with captions.
        embedders: Specification by signal name.
        floors: Where candidates for verification begin, by signal name, where a fit said so.

    Raises:
        RuleError: It cannot be read.
    """
    parsed = parse_rule(rule, known_signals(embedders, floors), embedder=next(iter(embedders), None))
    if mode.kind != "pair":
        return parsed
    return Rule(parsed.text, parse_rule(mode.paired(str(parsed)), known_signals(embedders)).clauses)


def hashes_to_scan(rules: Sequence[Rule], extra: Sequence[str]) -> list[str]:
    """The hashes that the scan computes for some rules, and further ones; in the order of the table of signals."""
    unknown = [name for name in extra if name not in SIGNALS or not SIGNALS[name].finds_pairs]
    if unknown:
        known = [name for name, signal in SIGNALS.items() if signal.finds_pairs]
        raise DedupkitError(f"unknown hash {unknown[0]!r}; known: {', '.join(known)}")
    needed = {*extra}.union(*(rule.signals for rule in rules))
    return [name for name in requested_signals() if name in needed]
