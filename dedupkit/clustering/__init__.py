"""Deciding: rules over scored edges, keep policies, the keep-set, components. Arrays only."""

from dedupkit.clustering.decide import Decision, Signal, decide, pairs_of_clauses, scored_pairs
from dedupkit.clustering.graph import components, keep_set
from dedupkit.clustering.policy import DEFAULT_POLICY, Policy, parse_policy
from dedupkit.clustering.rules import PRESETS, Rule, parse_rule

__all__ = [
    "DEFAULT_POLICY", "PRESETS", "Decision", "Policy", "Rule", "Signal", "components", "decide", "keep_set",
    "pairs_of_clauses",
    "parse_policy", "parse_rule", "scored_pairs",
]  # fmt: skip
