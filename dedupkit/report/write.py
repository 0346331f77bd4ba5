"""The report's three files, each written whole or not at all."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from dedupkit.calibration.result import Calibration
from dedupkit.report.collect import collect
from dedupkit.report.thumbnails import Thumbnails
from dedupkit.report.words import LIMITS, PROMISES, policy_words, read_rule, rule_words, score_words
from dedupkit.runfolder import RunFolder
from dedupkit.sources.again import Moved
from dedupkit.store import atomic_path, write_json

__all__ = ["write_report"]

_MARKDOWN = re.compile(r"([\\`*_\[\]|#!~])")


def write_report(run: Path, path: str | Path | None = None, *, source: Moved | None = None) -> Path:
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
    run = Path(run)
    folder = RunFolder(run)
    page = folder.report_page if path is None else Path(path)
    facts = collect(run)
    thumbnails = Thumbnails(run, moved=source)
    images = thumbnails.get(row.sample for row in facts.shown)
    templates = _templates()
    rule = read_rule(facts.rule)
    context = {
        "facts": facts,
        "calibration": None if facts.calibration is None else Calibration(facts.calibration.facts, facts.rule),
        "rule_words": rule_words(rule),
        "policy_words": policy_words(facts.keep_policy),
        "promises": PROMISES,
        "limits": LIMITS,
    }
    document = templates.get_template("report.html.j2").render(
        **context,
        images=images,
        note=thumbnails.note,
        score=lambda row: score_words(rule, row.reason, row.score),
    )
    card = templates.get_template("card.md.j2").render(**context)
    _write(page, document)
    write_json(folder.report_facts, facts.to_json())
    _write(folder.card, card)
    return page


def _templates() -> Environment:
    """Pages are escaped by default; in Markdown the filter ``md`` escapes what comes from the data."""
    environment = Environment(
        loader=PackageLoader("dedupkit.report", ""),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"n": "{:,}".format, "pct": _percent, "md": _markdown, "size": _bytes}
    return environment


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB" if count >= 1000 else f"{count} B"


def _markdown(text: Any) -> str:
    """Text from the data as one line of Markdown that means nothing but itself."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")
