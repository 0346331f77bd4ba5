"""What a run did, for people: an HTML page, the same numbers as JSON, a dataset card, notebook displays."""

from __future__ import annotations

from dedupkit.report.write import write_report

__all__ = ["write_report"]
