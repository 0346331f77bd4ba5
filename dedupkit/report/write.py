"""The report's three files, each written whole or not at all."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from dedupkit.calibration.result import Calibration
from dedupkit.memorization.risk import SOURCES, address_of
from dedupkit.report.collect import collect
from dedupkit.report.plots import risk_plot
from dedupkit.report.templates import templates
from dedupkit.report.thumbnails import Thumbnails
from dedupkit.report.words import LIMITS, policy_words, promises, read_rule, rule_words, score_words
from dedupkit.runfolder import RunFolder
from dedupkit.sources.again import Moved
from dedupkit.store import atomic_path, write_json

__all__ = ["write_report"]


def write_report(run: str | PathLike[str], path: str | Path | None = None, *, source: Moved | None = None) -> Path:
    """Write ``report.html``, ``report.json`` and ``DATASET_CARD.md`` of a finished run.

    The same run gives the same files. Where the source has moved, placeholders stand for the images.

    Args:
        run: The run folder.
        path: Path of the HTML page; ``report.html`` in the run folder by default.
        source: Where the data lies now, if it moved since the run.

    Returns:
        The HTML page.

    Raises:
        DedupkitError: There is no finished run.
        OSError: A file cannot be written.
    """
    folder = RunFolder(run)
    run = folder.path
    page = folder.report_page if path is None else Path(path)
    facts = collect(run)
    thumbnails = Thumbnails(run, moved=source)
    images = thumbnails.get(row.sample for row in facts.shown)
    environment = templates()
    embedders = folder.read_config().embedders
    rule = read_rule(facts.rule, embedders)
    context = {
        "facts": facts,
        "calibration": None if facts.calibration is None else Calibration(facts.calibration.facts, facts.rule),
        "rule_words": rule_words(rule, embedders),
        "policy_words": policy_words(facts.keep_policy),
        "promises": promises(capped=facts.families is not None and facts.families.most is not None),
        "limits": LIMITS,
    }
    document = environment.get_template("report.html.j2").render(
        **context,
        images=images,
        note=thumbnails.note,
        plot=risk_plot(facts.risk.copies),
        risk_sources=[(finding, label, address_of(label)) for finding, label in SOURCES],
        score=lambda row: score_words(rule, row.reason, row.score),
    )
    card = environment.get_template("card.md.j2").render(**context)
    _write(page, document)
    write_json(folder.report_facts, facts.to_json())
    _write(folder.card, card)
    folder.push([folder.report_facts, folder.card, *([page] if page == folder.report_page else [])])
    return page


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")
