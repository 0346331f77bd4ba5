"""``--against``: what a run's samples must not duplicate, as a user names it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import TYPE_CHECKING

from dedupkit import store
from dedupkit.captions.modes import CaptionMode
from dedupkit.clustering.grammar import parse_rule
from dedupkit.clustering.rules import Rule
from dedupkit.errors import DedupkitError, RuleError
from dedupkit.runfolder import Layout, Reference, RunConfig, RunFolder
from dedupkit.signals import SIGNALS, known_signals
from dedupkit.sources.blocklist import LIST_KINDS, Blocklist, is_blocklist, read_blocklist

if TYPE_CHECKING:
    from dedupkit.engine import Engine
    from dedupkit.stages.plan import Job

__all__ = [
    "AGAINST_PRESETS", "References", "find_references", "match_references", "names_against_rule", "parse_against_rule",
]  # fmt: skip

AGAINST_PRESETS: Mapping[str, str] = {
    "datacomp": "{embedder}>=0.604",
    "dinov2": "{embedder}>=0.45",
    "finevision": "{embedder}>=0.95",
}
"""Rules against evaluation sets by name; ``{embedder}`` is the first embedder of the run.

``datacomp``: DataComp (arXiv 2304.14108) removes training images whose cosine with an evaluation image is at least
0.604, under a copy descriptor of the ISC21 challenge. ``dinov2``: DINOv2 (arXiv 2304.07193, appendix A) removes near
duplicates of evaluation images, above 0.45 under SSCD. ``finevision``: FineVision (arXiv 2510.17269) calls images
contaminated above 0.95 under SSCD. All are stated for copy descriptors and mean nothing for another kind of model.
"""


@dataclass(frozen=True, slots=True)
class References:
    """Earlier runs and reference sets, looked at but not opened.

    Attributes:
        named: What they are, earlier runs first.
        lists: By number the content of those that are lists.
        rows: By number how many rows take part, of lists and runs.
    """

    named: tuple[Reference, ...] = ()
    lists: Mapping[int, Blocklist] = field(default_factory=dict)
    rows: Mapping[int, int] = field(default_factory=dict)

    @property
    def hashes(self) -> list[str]:
        """Hashes that the samples need so that lists can be compared with them."""
        kinds = {kind for found in self.lists.values() for kind in found.kinds}
        return [name for name in SIGNALS if SIGNALS[name].scan_columns and name in kinds]


def find_references(
    earlier: Sequence[str | PathLike[str]], against: Sequence[str | PathLike[str]], out: Layout
) -> References:
    """Look at what a user named.

    Args:
        earlier: Finished runs whose kept samples stand.
        against: Run folders, sources of images, and lists; a list is a text file, or ``KIND:FILE`` with one of
            :data:`dedupkit.sources.blocklist.LIST_KINDS`.
        out: The run folder itself.

    Raises:
        DedupkitError: A run that is not finished or of another layout, a list without a usable line, nothing there.
    """
    named: list[Reference] = []
    lists: dict[int, Blocklist] = {}
    rows: dict[int, int] = {}
    for path in earlier:
        rows[len(named)], reference = _run("earlier", fspath(path), out)
        named.append(reference)
    for given in against:
        text = fspath(given)
        kind, _, rest = text.partition(":")
        if kind in LIST_KINDS or (is_blocklist(text) and not store.is_dir(text)):
            reads, path = (kind, rest) if kind in LIST_KINDS else ("", text)
            lists[len(named)] = read_blocklist(path, reads)
            rows[len(named)] = len(lists[len(named)].entries)
            named.append(Reference("against", "list", text, path, _content(path), reads))
        elif _is_run(text):
            rows[len(named)], reference = _run("against", text, out)
            named.append(reference)
        else:
            from dedupkit.sources import find_shards

            find_shards(text)
            named.append(Reference("against", "images", text, text))
    return References(tuple(named), lists, rows)


def parse_against_rule(text: str, embedders: Mapping[str, str]) -> Rule:
    """Parse a rule against references, or the name of a preset.

    Raises:
        RuleError: It cannot be read, or a preset has no embedder.
    """
    expanded = AGAINST_PRESETS.get(text.strip(), text)
    if "{embedder}" in expanded:
        if not embedders:
            raise RuleError(
                f"--against-rule {text} compares vectors of a copy descriptor: name one with --embed, e.g. "
                "torchscript:sscd_disc_mixup.torchscript.pt"
            )
        expanded = expanded.format(embedder=next(iter(embedders)))
    return Rule(text, parse_rule(expanded, known_signals(embedders), embedder=next(iter(embedders), None)).clauses)


def names_against_rule(config: RunConfig) -> bool:
    """Whether the rule against reference sets was named; of a run that does not say, whether it is not the run's own.

    Args:
        config: What was asked of a run.
    """
    if config.against_named is not None or not config.against_rule:
        return bool(config.against_named)
    known = known_signals(config.embedders)
    try:
        own = parse_rule(CaptionMode.parse(config.captions).paired(config.against_rule), known)
    except RuleError:  # of an earlier version
        return False
    return own.clauses != parse_rule(config.rule_expanded, known).clauses


def match_references(
    job: Job, own_keys: Mapping[str, str], found: References, against_rule: Rule, engine: Engine, compute_missing: bool
) -> None:
    """Open the references, and join the samples with each.

    Args:
        job: What is computed for the run itself, which is done.
        own_keys: Digests of its samples and vectors.
        found: The references.
        against_rule: What makes a sample duplicate a reference set.
        engine: Where images are scanned.
        compute_missing: Whether to compute from its images what an earlier run lacks.
    """
    from dedupkit.stages.across import join_references
    from dedupkit.stages.outside import list_rule
    from dedupkit.stages.references import open_reference, write_list

    opened, rules = [], []
    for number, reference in enumerate(found.named):
        if number in found.lists:
            rules.append(list_rule(found.lists[number].kinds, against_rule))
            opened.append(write_list(job, number, reference, found.lists[number]))
        else:
            rules.append(job.rule if reference.role == "earlier" else against_rule)
            opened.append(open_reference(job, number, reference, rules[-1].signals, engine, compute_missing))
    join_references(job, own_keys, opened, rules)


def _is_run(path: str) -> bool:
    if not store.is_remote(path):
        return Layout(path).config.exists()
    return not store.is_http(path) and store.exists(store.join(path, Layout(path).config.name))


def _run(role: str, name: str, out: Layout) -> tuple[int, Reference]:
    folder = RunFolder(name)
    if folder.path.resolve() == out.path.resolve():
        raise DedupkitError(f"{name} is the folder of this run itself; choose another --out")
    verdicts = folder.verdicts()
    return int(verdicts.summary["keep"]), Reference(role, "run", name, folder.shown, verdicts.digest)


def _content(path: str) -> str:
    with store.open_binary(path) as stream:
        return hashlib.sha256(stream.read()).hexdigest()
