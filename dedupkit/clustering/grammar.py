"""The text of rules, e.g. ``exact or pdq<=31`` or ``(clip>=0.9 and verified) or pdq<=31``, and names for some.

``and`` binds tighter than ``or``.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from dedupkit.clustering.rules import Atom, Clause, Rule, written
from dedupkit.errors import RuleError

if TYPE_CHECKING:
    from dedupkit.signals.signal import Signal

__all__ = ["PRESETS", "Comparison", "needs_embedder", "needs_floor", "parse_rule"]

PRESETS: dict[str, str] = {
    "copies": "exact or pdq<=31",
    "crops": "exact or pdq<=31 or crops<=31",
    "sd3": "exact or {embedder}>=0.5",
    "dinov2": "exact or {embedder}>=0.6",
    "sscd": "exact or {embedder}>=0.75",
    "semdedup": "exact or {embedder}>=0.95",
    "thorough": "exact or pdq<=31 or (crops<=31 and verified) or ({embedder}>={low} and verified)",
}
"""Names that stand for a rule; ``{embedder}`` is the first one of the run, ``{low}`` where its candidates for
verification begin (:attr:`dedupkit.signals.embedded.Embedded.candidate_floor`).

``copies``: PDQ's published match radius, in any orientation, quality >= 50 on both. ``crops``: the same for nested
central views of the images, which finds even crops and borders. ``sd3``, ``dinov2`` and ``sscd``: the thresholds of
Stable Diffusion 3 (arXiv 2403.03206), DINOv2 (2304.07193) and SSCD (2202.10261; 90 % precision on DISC), stated for a
copy descriptor. ``semdedup``: 1 - epsilon with epsilon = 0.05, for CLIP (2303.09540). ``thorough``: a low floor, and
every candidate that the hashes do not settle is verified.
"""

_PUBLISHED_FOR = {
    **dict.fromkeys(("sd3", "dinov2", "sscd"), ("SSCD", "torchscript:sscd_disc_mixup.torchscript.pt")),
    "semdedup": ("CLIP", "openclip:ViT-B-32/laion2b_s34b_b79k"),
}
"""The model that a preset's threshold was published for, and how one names it; among vectors of the bundled descriptor
``copy`` the same number makes strangers duplicates."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][\w\-]*)"
    r"|(?P<op><=|>=|<|>|==|=)|(?P<paren>[()]))"
)
_MAX_CLAUSES = 64
_MAX_DEPTH = 50  # of parentheses
_LOW_FLOOR = 0.45  # where nothing is known of the embedder
_EMBEDDERS = ("copy", "lite")  # specifications that are a word alone


def needs_embedder(text: str) -> bool:
    """Whether the text names a preset that stands for a rule over an embedder."""
    return "{embedder}" in PRESETS.get(text.strip(), "")


def needs_floor(text: str) -> bool:
    """Whether the text names a preset with candidates for verification, which begin where the embedder says."""
    return "{low}" in PRESETS.get(text.strip(), "")


def parse_rule(
    text: str, signals: Mapping[str, Signal | Comparison | str], *, embedder: str | None = None, presets: bool = True
) -> Rule:
    """Parse a rule or the name of a preset.

    >>> from dedupkit.signals import known_signals
    >>> rule = parse_rule("exact or (lite>=0.6 and pdq<=64)", known_signals(["lite"]))
    >>> str(rule), rule.signals
    ('exact or (lite>=0.6 and pdq<=64)', ('exact', 'lite', 'pdq'))

    Args:
        text: The rule, e.g. ``"exact or pdq<=31"``.
        signals: The signals that exist, by name (:func:`dedupkit.signals.known_signals`); or, for scores of one's own,
            their kinds: ``"identity"`` (stands alone), ``"distance"`` (takes ``<=``), ``"similarity"`` (takes ``>=``),
            or in more detail a :class:`Comparison`.
        embedder: The signal that presets over an embedder mean.
        presets: Whether names of presets stand for rules, and embedders can be added; False where signals are not those
            of images.

    Returns:
        The rule. Its text parses to an equal one.

    Raises:
        RuleError: The rule cannot be read, or states a bound that no score can reach; the message shows the rule with
            a caret under the character where it goes wrong. Or it is a preset whose embedder is missing, or ``copy``
            where its threshold is another model's.
    """
    given = text.strip()
    if not presets:
        return Rule(given, _Parser(text, signals, presets).parse())
    if given in _PUBLISHED_FOR and embedder in (None, "copy"):
        model, spec = _PUBLISHED_FOR[given]
        raise RuleError(
            f"the preset {given!r} has a threshold that was published for {model}: name that model with --embed, e.g. "
            f"{spec}; for another one, such as 'copy', write a rule with a threshold that was measured for it"
        )
    if needs_embedder(given) and embedder is None:
        raise RuleError(f"the preset {given!r} needs an embedder; name one with --embed, e.g. --embed copy")
    expanded = PRESETS.get(given, text)
    if embedder is not None and given in PRESETS:
        low = getattr(signals.get(embedder), "candidate_floor", _LOW_FLOOR)
        expanded = expanded.replace("{embedder}", embedder).replace("{low}", written(low))
    return Rule(given, _Parser(expanded, signals, presets).parse())


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a signal may be compared.

    Attributes:
        kind: ``identity``, ``distance`` or ``similarity``.
        bounds: The least and the largest bound of a comparison.
        whole: Whether scores are whole numbers.
        finds_pairs: Whether it finds pairs of its own.
        alone: Whether a distance or a similarity may also stand without a bound, for equality.
    """

    kind: str
    bounds: tuple[float, float]
    whole: bool = False
    finds_pairs: bool = True
    alone: bool = False

    @classmethod
    def of(cls, signal: Signal | Comparison | str) -> Comparison:
        """From the signal, or from its kind alone."""
        if isinstance(signal, Comparison):
            return signal
        if isinstance(signal, str):
            return cls(signal, (-1.0, 1.0) if signal == "similarity" else (0.0, sys.float_info.max))
        return cls(signal.kind, signal.bounds, signal.whole, signal.finds_pairs)


class _Parser:
    """Recursive descent; each level returns clauses."""

    def __init__(self, text: str, signals: Mapping[str, Signal | Comparison | str], presets: bool) -> None:
        self._text, self._presets = text, presets
        self._signals = {name: Comparison.of(signal) for name, signal in signals.items()}
        self._tokens = list(self._tokenize())
        self._next = 0
        self._depth = 0

    def parse(self) -> tuple[Clause, ...]:
        clauses = self._either()
        if self._peek()[0] != "end":
            self._fail("expected 'and', 'or' or the end")
        for clause in clauses:
            if not any(self._signals[atom.signal].finds_pairs for atom in clause):
                name = clause[0].signal
                position = next(at for kind, value, at in self._tokens if (kind, value) == ("name", name))
                raise self._error(
                    f"{name!r} finds no pairs of its own; join it to a condition that does, e.g. (pdq<=64 and {name})",
                    position,
                )
        return tuple(dict.fromkeys(clauses))

    def _tokenize(self) -> list[tuple[str, str, int]]:
        tokens, position, end = [], 0, len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None:
                at = position + len(self._text[position:]) - len(self._text[position:].lstrip())
                raise self._error("unexpected character", at)
            kind = str(match.lastgroup)
            value = match[kind]
            tokens.append(("word" if value in ("and", "or") else kind, value, match.start(kind)))
            position = match.end()
        return [*tokens, ("end", "", end)]

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next]

    def _take(self) -> tuple[str, str, int]:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _either(self) -> list[Clause]:
        clauses = self._both()
        while self._peek()[1] == "or":
            self._take()
            clauses = self._few([*clauses, *self._both()])
        return clauses

    def _both(self) -> list[Clause]:
        clauses = self._primary()
        while self._peek()[1] == "and":
            self._take()
            clauses = self._few([tuple(dict.fromkeys(one + two)) for one, two in product(clauses, self._primary())])
        return clauses

    def _few(self, clauses: list[Clause]) -> list[Clause]:
        distinct = list(dict.fromkeys(clauses))
        if len(distinct) > _MAX_CLAUSES:
            self._fail(f"the rule has more than {_MAX_CLAUSES} alternatives")
        return distinct

    def _primary(self) -> list[Clause]:
        kind, value, position = self._take()
        if value == "(":
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise self._error(f"parentheses are nested more than {_MAX_DEPTH} deep", position)
            clauses = self._either()
            if self._peek()[1] != ")":
                self._fail("expected ')'")
            self._take()
            self._depth -= 1
            return clauses
        if kind != "name":
            raise self._error("expected a signal or '('", position)
        signal = self._signals.get(value)
        if signal is None:
            raise self._error(self._unknown(value), position)
        if signal.kind == "identity":
            if self._peek()[0] == "op":
                self._fail(f"{value!r} holds or does not; it takes no comparison")
            return [(Atom(value),)]
        if signal.alone and self._peek()[0] != "op":
            return [(Atom(value),)]
        return [(self._comparison(value, signal),)]

    def _unknown(self, name: str) -> str:
        """What to say of a name that is no signal."""
        if name.lower() == "not":
            return "a rule has no 'not'; it says which pairs are duplicates, by conditions, 'and' and 'or'"
        unknown = f"unknown signal {name!r}"
        if self._presets and name in _EMBEDDERS:
            return f"{unknown}; add --embed {name}"
        if self._presets and name in PRESETS:
            return f"{name!r} is the name of a whole rule and no part of another; docs/clustering.md has it written out"
        presets = list(PRESETS) if self._presets and self._text.strip() == name else []
        near = difflib.get_close_matches(name, dict.fromkeys([*self._signals, *presets]), n=2)
        hint = f"known: {', '.join(self._signals)}" + (f"; presets: {', '.join(presets)}" if presets else "")
        if near:
            hint = f"did you mean {' or '.join(map(repr, near))}?"
        return f"{unknown}; {hint}" + ((" " if near else "; ") + "--embed adds an embedder" if self._presets else "")

    def _comparison(self, name: str, signal: Comparison) -> Atom:
        similarity = signal.kind == "similarity"
        wanted = ">=" if similarity else "<="
        _, operator, position = self._take()
        if operator != wanted:
            raise self._error(f"{name!r} is a {signal.kind}: compare it with {wanted}", position)
        kind, number, position = self._take()
        if kind != "number":
            raise self._error("expected a number", position)
        bound, (least, most) = float(number), signal.bounds
        if not least <= bound <= min(most, sys.float_info.max):
            span = f"from {written(least)} to {written(most)}" if most < sys.float_info.max else "0 or more"
            unit = " (bits that differ)" if signal.whole else ""
            raise self._error(f"the bound of {name!r} must be {span}{unit}", position)
        return Atom(name, float(math.floor(bound)) if signal.whole else bound, similarity=similarity)

    def _fail(self, message: str) -> None:
        raise self._error(message, self._peek()[2])

    def _error(self, message: str, position: int) -> RuleError:
        return RuleError(f"{message}\n  {self._text}\n  {' ' * position}^")
