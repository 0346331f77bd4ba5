"""The page that searches a run, served to this machine alone: drop an image, or type a key or words."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from dedupkit.report.templates import templates
from dedupkit.serving import Body, LocalPage, Reply, page_policy

__all__ = ["MOST_BYTES", "SearchPage"]

MOST_BYTES = 64 << 20
"""Largest file that may be dropped."""


class SearchPage(LocalPage):
    """Answers what is dropped or typed into the page.

    A query is answered with the samples that are nearest; their thumbnails are fetched one by one afterwards, so that
    the answer does not wait for them. Text never names a file or an address here.

    Args:
        find: Function from the bytes of an image file, or from text, to the JSON form of a search result.
        thumbnail: Function from a sample, and the earlier run in which it lies if it does, to the bytes of a JPEG file.
        about: What the page says of the run: ``run``, ``samples`` and whether it ``takes_text``.
        port: Port of the page; 0 picks a free one.

    Raises:
        OSError: The port is taken.
    """

    takes: ClassVar[Mapping[str, int]] = {"application/json": 4096, "application/octet-stream": MOST_BYTES}

    def __init__(
        self,
        find: Callable[[bytes | str], dict[str, Any]],
        thumbnail: Callable[[int, str | None], bytes],
        about: dict[str, Any],
        port: int = 0,
    ) -> None:
        self._find, self._thumbnail, self._about = find, thumbnail, about
        self._shown: dict[tuple[int, str | None], str] = {}
        self._one_at_a_time = threading.Lock()  # a model answers one query after the other
        super().__init__(port)

    def get(self, path: str) -> Reply | None:
        """The page, and the thumbnails of what was found."""
        if path == "":
            nonce = secrets.token_urlsafe(12)
            page = templates().get_template("search.html.j2").render(nonce=nonce, most=MOST_BYTES, **self._about)
            return Reply(page.encode(), "text/html; charset=utf-8", page_policy(nonce))
        name = path.removeprefix("images/")
        shown = next((place for place, number in tuple(self._shown.items()) if number == name), None)
        if name == path or shown is None:
            return None
        try:
            return Reply(self._thumbnail(*shown), "image/jpeg", {"Cache-Control": "private, max-age=3600"})
        except Exception as error:  # a store or a decoder may raise anything; the page shows that it is missing
            return Reply.refusal(HTTPStatus.NOT_FOUND, str(error) or type(error).__name__)

    def post(self, path: str, body: Body) -> Reply | None:
        """A query."""
        if path != "search":
            return None
        query: Any = body.data
        if body.kind == "application/json":
            value = body.json()
            query = None if value is None else value.get("text")
            if not isinstance(query, str) or not query.strip():
                return Reply.refusal(HTTPStatus.BAD_REQUEST, "no text to search for")
        try:
            with self._one_at_a_time:
                found = self._find(query)
        except Exception as error:  # a model may raise anything; the page shows it
            return Reply.of_json({"error": str(error) or type(error).__name__})
        for each in found["found"]:
            each["image"] = self._shown.setdefault((each["sample"], each["run"]), str(len(self._shown)))
        return Reply.of_json(found)
