"""A page that is served to this machine alone.

The server listens on 127.0.0.1. That alone is no protection: any page that the browser has open can send requests
there. So every address begins with a secret that only the printed link holds; the ``Host`` header must name this
machine, so that a page which points its own name at 127.0.0.1 is refused (any port will do, for ``ssh -L``); a foreign
``Origin`` is refused; and what is sent must be of a type that a foreign page may not send without asking.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

__all__ = ["Body", "LocalPage", "Reply", "page_policy"]

_DIGITS = 18  # of a length; of thousands, int() refuses the text
_HOME = frozenset({"127.0.0.1", "localhost"})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a request.

    Attributes:
        body: Content.
        kind: Its type.
        headers: Further headers.
        status: Status.
        last: Whether the page is finished once this is sent.
    """

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: HTTPStatus = HTTPStatus.OK
    last: bool = False

    @classmethod
    def of_json(cls, value: Any, *, last: bool = False) -> Reply:
        """A value as JSON."""
        return cls(json.dumps(value).encode(), "application/json", last=last)

    @classmethod
    def refusal(cls, status: HTTPStatus, why: str) -> Reply:
        """A line that says why a request is refused."""
        return cls(why.encode("utf-8", "replace"), status=status)


@dataclass(frozen=True, slots=True)
class Body:
    """What a request sends.

    Attributes:
        kind: Its type, such as ``application/json``.
        data: Content.
    """

    kind: str
    data: bytes

    def json(self) -> dict[str, Any] | None:
        """The JSON object that it is; None where it is none."""
        try:
            value = json.loads(self.data)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


def page_policy(nonce: str) -> dict[str, str]:
    """The header of a page that loads nothing from elsewhere and runs only what carries the nonce."""
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
            f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    }


class LocalPage:
    """Serves a page until it is finished; a subclass answers requests in :meth:`get` and :meth:`post`.

    Args:
        port: Port of the page; 0 picks a free one.

    Raises:
        OSError: The port is taken.

    Attributes:
        token: The secret in every address.
        finished: Set when the page is no longer needed.
    """

    takes: ClassVar[Mapping[str, int]] = {"application/json": 4096}
    """Types of what a request may send, and the most bytes of each."""

    def __init__(self, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(18)
        self.finished = threading.Event()
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

    def get(self, path: str) -> Reply | None:
        """The answer to a request for what follows the secret; None where there is no such page."""
        raise NotImplementedError

    def post(self, path: str, body: Body) -> Reply | None:
        """The answer to what is sent; None where there is no such page."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    page: LocalPage
    protocol_version = "HTTP/1.1"
    server_version = "dedupkit"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        """The page, and what it shows."""
        path = self._path()
        if path is not None:
            self._answer(self.page.get(path))

    def do_POST(self) -> None:
        """What the page sends."""
        path = self._path()
        body = None if path is None else self._body()
        if path is not None and body is not None:
            self._answer(self.page.post(path, body))

    def _answer(self, reply: Reply | None) -> None:
        reply = Reply.refusal(HTTPStatus.NOT_FOUND, "no such page") if reply is None else reply
        self._send(reply)
        if reply.last:
            self.page.finished.set()

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

    def _body(self) -> Body | None:
        """What a request sends; None where it was refused."""
        length, kind = self.headers.get("Content-Length", ""), self.headers.get_content_type()
        if kind not in self.page.takes or not length.isdecimal():
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {' or '.join(self.page.takes)}")
            return None
        if len(length) > _DIGITS or int(length) > self.page.takes[kind]:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
            return None
        return Body(kind, self.rfile.read(int(length)))

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(Reply.refusal(status, why))

    def _send(self, reply: Reply) -> None:
        if reply.status >= HTTPStatus.BAD_REQUEST:
            self.close_connection = True  # a body may be left unread
        self.send_response(reply.status)
        always = {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**always, **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for the user."""
