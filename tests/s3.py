"""A real S3 server on loopback (moto's), and the faults that such servers have."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_SLOW = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3:
    """The server; a WSGI application around moto's.

    Attributes:
        busy: Share of requests that are answered with 503, half of them after they were carried out.
        cut: Share of answers with a body that end in the middle.
        stale: Share of listings that are those of an earlier time.
        silent: Share of requests that are carried out, and answered after three seconds: give clients a time-out.
        delay: Seconds that each request takes.
        asked: How often a method was used.
        faults: How often each fault came.
        sent: Bytes of all answers.
        on_put: Called with the name of each object that a client begins to put.
        refused: Text of an error that every request gets, such as that of credentials that have expired.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lists: dict[str, list[Any]] = {}
        self._turns: Counter[str] = Counter()
        self._lock = threading.RLock()
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.url = ""
        self.sent = 0
        self.calm()

    def calm(self) -> None:
        """End all faults."""
        self.busy = self.cut = self.stale = self.silent = self.delay = 0.0
        self.refused: tuple[str, str, str] | None = None
        self.on_put: Callable[[str], None] | None = None

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """One request."""
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        time.sleep(self.delay)
        with self._lock:
            self.asked[method] += 1
            if method == "PUT" and self.on_put is not None:
                self.on_put(environ["PATH_INFO"])
        busy = self._due("busy", self.busy)
        if self.refused is not None:
            status, code, message = self.refused
            start(status, [("Content-Type", "application/xml")])
            return [
                b"" if method == "HEAD" else f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            ]
        if busy and self.faults["503"] <= self.faults["503 after"]:
            return self._fail("503", environ, start)
        said: list[Any] = []
        body = b"".join(self._moto(environ, lambda status, headers, *_: said.extend([status, headers]) or None))
        if busy:
            return self._fail("503 after", environ, start)
        if self._due("silent", self.silent):
            self.faults["silent"] += 1
            time.sleep(3)
        if "list-type=2" in query:
            with self._lock:
                earlier = self._lists.setdefault(f"{environ['PATH_INFO']}?{query}", [said, body])
                if self._due("stale", self.stale):
                    self.faults["stale"] += 1
                    said, body = earlier
                else:
                    self._lists[f"{environ['PATH_INFO']}?{query}"] = [said, body]
        start(*said)
        self.sent += len(body)
        if method == "GET" and len(body) > 100 and "list-type" not in query and self._due("cut", self.cut):
            self.faults["cut"] += 1
            return self._cut(body)
        return [body]

    def _due(self, fault: str, share: float) -> bool:
        """Whether it is a fault's turn: every third time with a share of 0.3, and so on."""
        with self._lock:
            self._turns[fault] += share > 0
            return share > 0 and self._turns[fault] % round(1 / share) == 0

    def _fail(self, fault: str, environ: dict[str, Any], start: Any) -> list[bytes]:
        self.faults[fault] += 1
        if fault == "503":  # else it is read
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_SLOW)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else _SLOW]

    @staticmethod
    def _cut(body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise ConnectionResetError("cut in the middle")

    def make(self, bucket: str) -> str:
        """Make a bucket; returns its URL."""
        boto().create_bucket(Bucket=bucket)
        return f"s3://{bucket}"

    def objects(self, url: str) -> dict[str, bytes]:
        """The objects below a URL, as the server has them."""
        return {name: key.value for name, key in self._keys(url).items()}

    def dates(self, url: str) -> dict[str, Any]:
        """When each object was put."""
        return {name: key.last_modified for name, key in self._keys(url).items()}

    @staticmethod
    def _keys(url: str) -> dict[str, Any]:
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        keys = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys
        return {name.removeprefix(f"{prefix}/"): keys[name] for name in list(keys) if name.startswith(f"{prefix}/")}


def boto() -> Any:
    """A client that is not dedupkit's."""
    import boto3

    return boto3.client("s3")


@contextmanager
def serving() -> Iterator[S3]:
    """A server, to which the environment leads every client that this process and its children make."""
    pytest.importorskip("moto", reason="could not import moto")
    pytest.importorskip("s3fs", reason="could not import s3fs")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any, **__: Any) -> None: ...

    app = S3()
    running = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    app.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    settings = {"AWS_ENDPOINT_URL": app.url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    settings |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        yield app
        s3fs.S3FileSystem.clear_instance_cache()
    running.shutdown()
    thread.join()
    running.server_close()
    os.environ.pop("AWS_ENDPOINT_URL", None)
