"""``search --serve``: a run on a local page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dedupkit.report.search_page import SearchPage
from dedupkit.workflows.search import Search

__all__ = ["search_page", "serve_search"]


def search_page(search: Search, *, top: int = 20, port: int = 0) -> SearchPage:
    """The page of a search, which :meth:`dedupkit.serving.LocalPage.serve` serves.

    Args:
        search: What answers.
        top: Greatest number of samples.
        port: Port of the page; 0 picks a free one.

    Raises:
        OSError: The port is taken.
    """

    def find(query: bytes | str) -> dict[str, Any]:
        found = search.named(query.strip(), top) if isinstance(query, str) else search.image(query, top)
        return found.to_json()

    about = {"run": str(search.path), "samples": search.samples, "takes_text": search.takes_text}
    return SearchPage(find, lambda sample, run: search.thumbnail(sample, run=run), about, port)


def serve_search(search: Search, *, top: int = 20, port: int = 0, tell: Callable[[str], None] = print) -> None:
    """Load what answers, say where the page is, and serve it until Ctrl-C.

    Args:
        search: What answers.
        top: Greatest number of samples.
        port: Port of the page; 0 picks a free one.
        tell: Function that is called with the link of the page.

    Raises:
        OSError: The port is taken.
    """
    search.load()
    page = search_page(search, top=top, port=port)
    tell(page.url)
    page.serve()
