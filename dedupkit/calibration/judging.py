"""The page on which a person judges whether pairs are the same image, served to this machine alone.

The server listens on 127.0.0.1. That alone is no protection: any page that the browser has open can send requests
there. So every address begins with a secret that only the printed link holds; the ``Host`` header must name this
machine, so that a page which points its own name at 127.0.0.1 is refused (any port will do, for ``ssh -L``); a foreign
``Origin`` is refused; and answers are JSON, which a foreign page may not send without asking.

The score of a pair is not shown, so that the images are judged and not the score.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

__all__ = ["JudgingServer", "Question"]

_HOME = frozenset({"127.0.0.1", "localhost"})
_MOST_BYTES = 4096


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


class JudgingServer:
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
        self.token = secrets.token_urlsafe(18)
        self.lock = threading.Lock()
        self.finished = threading.Event()
        self.shown = {sample for question in questions for sample in (question.a, question.b)}
        handler = type("Handler", (_Handler,), {"page": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """The link that opens the page."""
        return f"http://127.0.0.1:{self._server.server_port}/{self.token}/"

    def serve(self) -> None:
        """Answer requests until the page says that all is done, or until Ctrl-C, which ends it early."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            while not self.finished.wait(0.5):  # in short waits, so that Ctrl-C works
                pass
        except KeyboardInterrupt:
            pass
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

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


class _Handler(BaseHTTPRequestHandler):
    page: JudgingServer
    protocol_version = "HTTP/1.1"
    server_version = "dedupkit"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        """The page, and its images."""
        path = self._path()
        if path is None:
            return
        if path == "":
            nonce = secrets.token_urlsafe(12)
            policy = (
                f"default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'nonce-{nonce}'; "
                f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
            self._send(self.page.html(nonce).encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        elif path.startswith("images/") and path[7:].isdecimal() and int(path[7:]) in self.page.shown:
            try:
                self._send(self.page.image(int(path[7:])), "image/jpeg", {"Cache-Control": "private, max-age=3600"})
            except Exception as error:  # a store or a decoder may raise anything; the page shows that it is missing
                self._refuse(HTTPStatus.NOT_FOUND, str(error) or type(error).__name__)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")

    def do_POST(self) -> None:
        """An answer, or the end."""
        path = self._path()
        if path is None:
            return
        body = self._json()
        if body is None:
            return
        if path == "finish":
            self._send(b"{}", "application/json")
            self.page.finished.set()
            return
        number: Any = body.get("question")
        same: Any = body.get("same")
        known = type(number) is int and 0 <= number < len(self.page.questions)
        if path != "answers" or not known or not (same is None or isinstance(same, bool)):
            self._refuse(HTTPStatus.BAD_REQUEST, "no such question or answer")
            return
        try:
            with self.page.lock:
                self.page.record(number, same)
        except OSError as error:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
            return
        self._send(b"{}", "application/json")

    def _path(self) -> str | None:
        """What follows the secret; None where the request was refused."""
        origin = self.headers.get("Origin")
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            foreign = origin is not None and urlsplit(origin).netloc != self.headers.get("Host")
        except ValueError:  # such as "[", which opens an IPv6 address and does not close it
            host, foreign = None, True
        if host not in _HOME or foreign:
            self._refuse(HTTPStatus.FORBIDDEN, "this page is for this machine")
            return None
        first, _, rest = self.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(first.encode(), self.page.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")
            return None
        return rest

    def _json(self) -> Mapping[str, Any] | None:
        """The body of a request; None where it was refused."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not length.isdecimal():
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "answers are JSON")
            return None
        if int(length) > _MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
            return None
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._refuse(HTTPStatus.BAD_REQUEST, "no JSON object")
            return None
        return body

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # a body may be left unread
        self._send(why.encode(), "text/plain; charset=utf-8", {}, status)

    def _send(
        self, body: bytes, kind: str, headers: Mapping[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        always = {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**always, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for the user."""
