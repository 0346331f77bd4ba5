"""A run's rule, keep policy and limits in words, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dedupkit.clustering.grammar import parse_rule
from dedupkit.clustering.policy import META
from dedupkit.clustering.rules import Atom, reason_of
from dedupkit.runfolder import RunConfig
from dedupkit.runfolder.again import command as making
from dedupkit.signals import find_signal, known_signals

__all__ = [
    "LIMITS", "Atom", "Claim", "command", "policy_words", "promises", "read_rule", "rule_words", "score_words",
]  # fmt: skip

_COLUMNS = {
    "pixels": ("fewest pixels", "most pixels"),
    "width": ("smallest width", "largest width"),
    "height": ("smallest height", "largest height"),
    "nbytes": ("smallest file", "largest file"),
    "pdq_quality": ("least detail (PDQ quality)", "most detail (PDQ quality)"),
    "clip_score": ("lowest image-text similarity", "highest image-text similarity"),
    "caption_length": ("shortest caption", "longest caption"),
    "sample": ("first in the input", "last in the input"),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence and the papers behind it, as (label, address)."""

    text: str
    papers: tuple[tuple[str, str], ...] = ()


def _paper(label: str, number: str) -> tuple[str, str]:
    return f"{label}, arXiv:{number}" if label else f"arXiv:{number}", f"https://arxiv.org/abs/{number}"


_PROMISES = (
    "Every input sample is in the manifest exactly once, with its verdict; unreadable ones with the reason.",
    "Every sample removed as a duplicate names a kept one, and that very pair satisfies the rule. Nothing is removed "
    "because it resembles something that was itself removed.",
    "No two kept samples satisfy the rule between them, as far as the search for pairs reaches: the searches for equal "
    "bytes and for hashes are exhaustive, a search over embeddings can miss pairs.",
    "The same input and settings give the same verdicts, whatever the number of workers. The source was not changed.",
)

_CAPPED = (
    "Every sample removed by the family cap names the kept one that its template family is formed around. That very "
    "pair shares a template, and need not satisfy the rule."
)

LIMITS = (
    Claim(
        "Removing duplicates lowers how much a generative model memorizes; it is no privacy guarantee. In one "
        "experiment on CIFAR-10 it cut the images that could be extracted from 1,280 to 986, not to none.",
        (_paper("Carlini et al. 2023", "2301.13188"), _paper("", "2605.30642")),
    ),
    Claim(
        "Template families survive unless the run caps them: images that share most of a layout and differ in one part "
        "(a poster with another name) are no duplicates of each other, and a model can still learn the shared part by "
        "heart. Only a rule that verifies pairs sees them, and only where the shared part has texture.",
        (_paper("Webster 2023", "2305.08694"),),
    ),
    Claim(
        "Only what the rule measures was compared. Copies that were cropped, overlaid or redrawn more heavily than its "
        "bounds allow are still there, and two different photos can fall within them: judge the borderline pairs."
    ),
    Claim("Samples that could not be read were compared with nothing."),
    Claim("The run judged likeness alone: not content, consent or licence."),
)


def promises(*, capped: bool) -> tuple[str, ...]:
    """What a run promises.

    Args:
        capped: Whether it keeps at most so many of each template family.
    """
    return (*_PROMISES, _CAPPED) if capped else _PROMISES


def read_rule(text: str, embedders: Iterable[str]) -> dict[str, tuple[Atom, ...]]:
    """The alternatives of an expanded rule, by the reason that the manifest gives for each.

    Args:
        text: ``rule_expanded`` of run.json, such as ``(clip>=0.9 and verified) or pdq<=31``.
        embedders: Signal names of the run's embedders.

    Returns:
        Reason to conditions, in order. Where two alternatives have one reason, the one with the looser first condition
        counts.

    Example:
        >>> list(read_rule("(clip>=0.9 and verified) or pdq<=31", ["clip"]))
        ['clip and verified', 'pdq']
    """
    clauses: dict[str, tuple[Atom, ...]] = {}
    for clause in parse_rule(text, known_signals(embedders)).clauses:
        reason = reason_of(clause)
        before = clauses.get(reason, clause)
        clauses[reason] = clause if clause[0].covers(before[0]) else before
    return clauses


def rule_words(rule: Mapping[str, tuple[Atom, ...]], embedders: Mapping[str, str]) -> list[str]:
    """Each alternative as the end of the sentence 'two samples are duplicates when …'.

    Args:
        rule: Conditions behind each reason.
        embedders: Specification by name of the run's embedders.

    Example:
        >>> rule_words(read_rule("exact or clip>=0.9", ["clip"]), {})
        ['their files are identical, byte for byte (SHA-256)', 'the cosine of their clip vectors is at least 0.9']
    """
    known = known_signals(embedders)
    return [
        ", and ".join((known.get(atom.signal) or find_signal(atom.signal)).words(atom.bound) for atom in atoms)
        for atoms in rule.values()
    ]


def score_words(rule: Mapping[str, tuple[Atom, ...]], reason: str | None, score: float | None) -> str:
    """A pair's score as a short label: ``distance 12``, ``similarity 0.913``, or nothing where the reason says all."""
    atom = next(iter(rule.get(reason or "", ())), None)
    if atom is None or score is None:
        return ""
    return find_signal(atom.signal).score_words(score)


def policy_words(policy: str) -> str:
    """A keep policy as a phrase.

    Example:
        >>> policy_words("-pixels, nbytes, sample")
        'most pixels, then smallest file, then first in the input'
    """
    phrases = []
    for column in filter(None, (part.strip() for part in policy.split(","))):
        name = column.lstrip("-").strip()
        own = name.removeprefix(META)
        smaller, larger = _COLUMNS.get(name, (f"smallest {own}", f"largest {own}"))
        phrases.append(larger if column.startswith("-") else smaller)
    return ", then ".join(phrases)


def command(config: RunConfig) -> str:
    """The shell command that makes a run again in a new folder ``OUT``, with the rule and the policy spelled out.

    The name of the run folder is left out: it depends on where the run lies, and may be that of the sources.

    Args:
        config: What was asked of the run.
    """
    return making(config, "OUT", expanded=True)
