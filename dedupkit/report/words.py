"""A run's rule, keep policy and limits in words, and the command that repeats it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["LIMITS", "PROMISES", "Atom", "Claim", "command", "policy_words", "read_rule", "rule_words", "score_words"]

_ATOM = re.compile(r"([A-Za-z_][\w\-]*)(?:(<=|>=)([\d.]+(?:e[+-]?\d+)?))?")

_HASHES = {"phash": "pHash", "dhash": "dHash", "ahash": "aHash", "whash": "wHash"}

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
class Atom:
    """One condition of a rule: a signal and the bound on its score, None for signals that hold or do not."""

    signal: str
    bound: float | None = None
    similarity: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence and the papers behind it, as (label, address)."""

    text: str
    papers: tuple[tuple[str, str], ...] = ()


def _paper(label: str, number: str) -> tuple[str, str]:
    return f"{label}, arXiv:{number}" if label else f"arXiv:{number}", f"https://arxiv.org/abs/{number}"


PROMISES = (
    "Every input sample is in the manifest exactly once, with its verdict; unreadable ones with the reason.",
    "Every removed sample names a kept one, and that very pair satisfies the rule. Nothing is removed because it "
    "resembles something that was itself removed.",
    "No two kept samples satisfy the rule between them, as far as the search for pairs reaches: the searches for equal "
    "bytes and for hashes are exhaustive, a search over embeddings can miss pairs.",
    "The same input and settings give the same verdicts, whatever the number of workers. The source was not changed.",
)

LIMITS = (
    Claim(
        "Removing duplicates lowers how much a generative model memorizes; it is no privacy guarantee. In one "
        "experiment on CIFAR-10 it cut the images that could be extracted from 1,280 to 986, not to none.",
        (_paper("Carlini et al. 2023", "2301.13188"), _paper("", "2605.30642")),
    ),
    Claim(
        "Template families survive: pictures that share most of a layout and differ in one part (a product on the same "
        "background, a poster with another name) can each lie beyond the rule's bound, and a model can still learn the "
        "shared part by heart.",
        (_paper("Webster 2023", "2305.08694"),),
    ),
    Claim(
        "Only what the rule measures was compared. Copies that were cropped, overlaid or redrawn more heavily than its "
        "bounds allow are still there, and two different photos can fall within them: judge the borderline pairs."
    ),
    Claim("Samples that could not be read were compared with nothing."),
    Claim("The run judged likeness alone: not content, consent or licence."),
)


def read_rule(text: str) -> dict[str, tuple[Atom, ...]]:
    """The alternatives of an expanded rule, by the reason that the manifest gives for each.

    Args:
        text: ``rule_expanded`` of run.json, e.g. ``(clip>=0.9 and verified) or pdq<=31``.

    Returns:
        Reason to conditions, in order. Of two alternatives with one reason the looser first condition counts.
    """
    clauses: dict[str, tuple[Atom, ...]] = {}
    for clause in text.split(" or "):
        atoms = tuple(
            Atom(name, float(bound) if bound else None, sign == ">=") for name, sign, bound in _ATOM.findall(clause)
            if name != "and"
        )  # fmt: skip
        reason = " and ".join(atom.signal for atom in atoms)
        clauses[reason] = max(clauses.get(reason, atoms), atoms, key=lambda held: _looseness(held[0]))
    return clauses


def _looseness(atom: Atom) -> float:
    return 0.0 if atom.bound is None else -atom.bound if atom.similarity else atom.bound


def rule_words(rule: Mapping[str, tuple[Atom, ...]]) -> list[str]:
    """Each alternative as the end of the sentence 'two samples are duplicates when …'."""
    return [", and ".join(_atom_words(atom) for atom in atoms) for atoms in rule.values()]


def _atom_words(atom: Atom) -> str:
    if atom.signal == "exact":
        return "their files are identical, byte for byte (SHA-256)"
    if atom.signal == "pixels":
        return "their decoded pixels are identical"
    if atom.bound is None:
        return f"{atom.signal} holds between them"
    if atom.signal == "pdq":
        return (
            f"their PDQ hashes, 256 bits that sum up what a picture looks like, differ in at most {atom.bound:g} bits, "
            "also when one is mirrored or turned by 90°, 180° or 270° (pictures too flat to hash, PDQ quality below "
            "50, match nothing this way)"
        )
    kind, _, definition = atom.signal.partition("_")
    if kind in _HASHES:
        origin = f" ({definition}'s definition)" if definition else ""
        return f"their 64-bit {_HASHES[kind]} hashes{origin} differ in at most {atom.bound:g} bits"
    if atom.similarity:
        return f"their similarity under {atom.signal} is at least {atom.bound:g}"
    return f"their distance under {atom.signal} is at most {atom.bound:g}"


def score_words(rule: Mapping[str, tuple[Atom, ...]], reason: str | None, score: float | None) -> str:
    """A pair's score as a short label: ``distance 12``, ``similarity 0.913``, or nothing where the reason says all."""
    atom = next(iter(rule.get(reason or "", ())), None)
    if atom is None or atom.bound is None or score is None:
        return ""
    return f"similarity {score:.3f}" if atom.similarity else f"distance {score:g}"


def policy_words(policy: str) -> str:
    """A keep policy as a phrase: ``most pixels, then largest file, then first in the input``."""
    phrases = []
    for column in filter(None, (part.strip() for part in policy.split(","))):
        name = column.lstrip("-").strip()
        smaller, larger = _COLUMNS.get(name, (f"smallest {name}", f"largest {name}"))
        phrases.append(larger if column.startswith("-") else smaller)
    return ", then ".join(phrases)


def command(config: Mapping[str, Any], out: Path) -> str:
    """The shell command that makes a run again, with the rule and the policy spelled out.

    Args:
        config: the content of run.json.
        out: the run folder; only its name is used.
    """
    words = ["dedupkit", "run", *map(str, config["sources"]), "--out", out.resolve().name or "out"]
    words += ["--rule", str(config["rule_expanded"]), "--keep", str(config["keep"])]
    for spec in config.get("embedders", {}).values():
        words += ["--embed", str(spec)]
    for name in config.get("hashes", ()):
        words += ["--hash", str(name)]
    return shlex.join([*words, "--seed", str(config.get("seed", 0))])
