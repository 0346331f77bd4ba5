"""Deciding: rules over scored edges, keep policies, the keep-set, components. Arrays only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dedupkit.startup.lazy import lazy_names

if TYPE_CHECKING:
    from dedupkit.clustering.deciding import Decision, decide, pairs_of_clauses, scored_pairs
    from dedupkit.clustering.grammar import PRESETS, parse_rule
    from dedupkit.clustering.graph import components, keep_set
    from dedupkit.clustering.policy import DEFAULT_POLICY, Policy, TemplatePolicy, parse_policy
    from dedupkit.clustering.rules import Rule
    from dedupkit.signals.matches import Matches

__all__ = [
    "DEFAULT_POLICY", "PRESETS", "Decision", "Matches", "Policy", "Rule", "TemplatePolicy", "components", "decide",
    "keep_set", "pairs_of_clauses", "parse_policy", "parse_rule", "scored_pairs",
]  # fmt: skip

# Reading a rule needs no arrays, and a run reads its rule before anything else.
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Decision", "Matches", "decide", "pairs_of_clauses", "scored_pairs"), "deciding"),
        **dict.fromkeys(("components", "keep_set"), "graph"),
        **dict.fromkeys(("DEFAULT_POLICY", "Policy", "TemplatePolicy", "parse_policy"), "policy"),
        **dict.fromkeys(("PRESETS", "parse_rule"), "grammar"),
        "Rule": "rules",
    },
)
