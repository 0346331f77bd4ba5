"""Rules as text: read as Python reads the same expression, or refused with an error that points at a character."""

from __future__ import annotations

import math
from random import Random

from dedupkit.clustering import parse_policy, parse_rule
from dedupkit.clustering.rules import Rule
from dedupkit.errors import RuleError
from hostile.section import Section, Tally

_KINDS = {"exact": "identity", "verified": "identity", "pdq": "distance", "phash": "distance", "clip": "similarity"}
_NUMBERS = ("0", "1", "31", "0.5", ".5", "1e-05", "-0.25", "1e400", "nan", "inf", "9" * 30, "0x10", "1_000", "-0", "5.",
    "0.1234567890123456789", "1e-320", "+3", "2**3", "²")  # fmt: skip
_SCRAPS = ("(", ")", "((", "))", " and ", " or ", "<=", ">=", "=", "<", "exact", "pdq", "clip", " ", "\n", "\t", "\0",
    "not ", "é", "\udc80", "and", "or", "&", ",", ";", "import os", "'", '"', "\u2028", "𝟙", "phash<=6", "copies",
    "{embedder}", "thorough")  # fmt: skip


class RulesSection(Section):
    """Rules of random structure, bounds and spacing, and changed texts."""

    name = "rules"
    oracle = "Python's own parser evaluates the same text; what is printed parses to the same rule"
    volume = 70_000
    each = 20

    def attempt(self, draw: Random, number: int) -> Tally:
        """Some texts."""
        tally = Tally(self.each)
        for _ in range(self.each):
            _one(draw, tally)
        return tally


def _one(draw: Random, tally: Tally) -> None:
    sound = draw.random() < 0.5
    text = _expression(draw, draw.randrange(5)) if sound else _scrawl(draw)
    try:
        rule = parse_rule(text, _KINDS, embedder="clip")
    except RuleError as error:
        if sound and "alternatives" not in str(error) and "must be" not in str(error):
            tally.contradict(f"{text!r} was refused: {error}")
        tally.check(str(error).rstrip().endswith("^") or "embedder" in str(error), f"{error} shows no place")
        _policy(text, tally)
        return
    again = parse_rule(str(rule), _KINDS)
    tally.check(again.clauses == rule.clauses, f"{text!r} is printed as {str(rule)!r}")
    if not sound:
        return
    for _ in range(6):
        scores = {"pdq": draw.randrange(64), "phash": draw.randrange(64), "clip": draw.uniform(-1, 1)}
        scores |= {"exact": draw.random() < 0.5, "verified": draw.random() < 0.5}
        expected = bool(eval(text, {"__builtins__": {}}, scores))
        tally.check(_holds(rule, scores) == expected, f"{text!r} with {scores}: not {expected}")


def _holds(rule: Rule, scores: dict[str, float]) -> bool:
    def atom(signal: str, bound: float | None, similarity: bool) -> bool:
        if bound is None:
            return bool(scores[signal])
        return scores[signal] >= bound if similarity else scores[signal] <= bound

    return any(all(atom(a.signal, a.bound, a.similarity) for a in clause) for clause in rule.clauses)


def _policy(text: str, tally: Tally) -> None:
    try:
        policy = parse_policy(text)
    except RuleError:
        return
    tally.check(str(parse_policy(str(policy))) == str(policy), f"the policy {text!r} does not come back")


def _expression(draw: Random, depth: int) -> str:
    """A rule that is one for Python too."""
    space = draw.choice(["", " ", "  "])
    if depth == 0 or draw.random() < 0.3:
        signal = draw.choice(list(_KINDS))
        if _KINDS[signal] == "identity":
            return signal
        bound = draw.choice([draw.randrange(64), draw.random() * 64, draw.random() * 10.0 ** -draw.randrange(12)])
        if _KINDS[signal] == "similarity":
            return f"{signal}{space}>={space}{draw.uniform(-1, 1)!r}"
        assert math.isfinite(bound)
        return f"{signal}{space}<={space}{bound!r}"
    word = draw.choice([" and ", " or "])
    joined = word.join(_expression(draw, depth - 1) for _ in range(draw.randrange(1, 4)))
    return f"({space}{joined}{space})" if draw.random() < 0.6 else joined


def _scrawl(draw: Random) -> str:
    """A text that hardly is a rule."""
    length = draw.choice((0, 1, 2, 3, 5, 9, 300))
    text = "".join(draw.choice(_NUMBERS if draw.random() < 0.25 else _SCRAPS) for _ in range(length))
    if draw.random() < 0.3:
        text = _expression(draw, 3)
        place = draw.randrange(len(text) + 1)
        text = text[:place] + draw.choice(_NUMBERS + _SCRAPS) + text[place + draw.randrange(3) :]
    return text
