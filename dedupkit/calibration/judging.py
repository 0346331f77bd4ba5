"""The page on which a person judges whether pairs are the same image, served to this machine alone.

The score of a pair is not shown, so that the images are judged and not the score.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from dedupkit.serving import Body, LocalPage, Reply, page_policy

__all__ = ["JudgingServer", "Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """A pair to judge.

    Attributes:
        a: Sample on the left.
        b: Sample on the right.
        about: Lines of text under each of the two.
    """

    a: int
    b: int
    about: tuple[Sequence[str], Sequence[str]]


class JudgingServer(LocalPage):
    """Serves the page until the person is finished.

    Args:
        questions: Questions in the order in which they are asked.
        image: Function from a sample to the bytes of a JPEG file; the page shows an error that it raises as text.
        record: Function that is called at each answer with the number of the question and whether the two are the
            same image, None for an answer that is taken back.
        port: Port of the page; 0 picks a free one.

    Raises:
        OSError: The port is taken.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        image: Callable[[int], bytes],
        record: Callable[[int, bool | None], None],
        port: int = 0,
    ) -> None:
        self.questions = questions
        self.image = image
        self.record = record
        self.lock = threading.Lock()
        self.shown = {sample for question in questions for sample in (question.a, question.b)}
        super().__init__(port)

    def get(self, path: str) -> Reply | None:
        """The page, and its images."""
        if path == "":
            nonce = secrets.token_urlsafe(12)
            return Reply(self.html(nonce).encode(), "text/html; charset=utf-8", page_policy(nonce))
        if path.startswith("images/") and path[7:].isdecimal() and int(path[7:]) in self.shown:
            try:
                return Reply(self.image(int(path[7:])), "image/jpeg", {"Cache-Control": "private, max-age=3600"})
            except Exception as error:  # a store or a decoder may raise anything; the page shows that it is missing
                return Reply.refusal(HTTPStatus.NOT_FOUND, str(error) or type(error).__name__)
        return None

    def post(self, path: str, body: Body) -> Reply | None:
        """An answer, or the end."""
        value = body.json()
        if value is None:
            return Reply.refusal(HTTPStatus.BAD_REQUEST, "no JSON object")
        if path == "finish":
            return Reply.of_json({}, last=True)
        number: Any = value.get("question")
        same: Any = value.get("same")
        known = type(number) is int and 0 <= number < len(self.questions)
        if path != "answers" or not known or not (same is None or isinstance(same, bool)):
            return Reply.refusal(HTTPStatus.BAD_REQUEST, "no such question or answer")
        try:
            with self.lock:
                self.record(number, same)
        except OSError as error:
            return Reply.refusal(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        return Reply.of_json({})

    def html(self, nonce: str) -> str:
        """The page."""
        environment = Environment(
            loader=PackageLoader("dedupkit.calibration", ""),
            autoescape=select_autoescape(["html.j2"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        questions = [{"a": q.a, "b": q.b, "about": q.about} for q in self.questions]
        return environment.get_template("judging.html.j2").render(nonce=nonce, questions=questions)
