"""Sources behind an HTTP server on this machine that breaks its promises."""

from __future__ import annotations

import http.server
import socket
import threading
import warnings
from pathlib import Path
from random import Random

import hostile_jpeg
import pyarrow as pa
import pyarrow.parquet as pq
from helpers import tar_bytes

from dedupkit.errors import DedupkitError
from dedupkit.sources import find_shards
from dedupkit.store import remote
from hostile.section import Section, Tally

_FAULTS = (
    "status",
    "cut",
    "whole",
    "shifted",
    "short",
    "garbage",
    "redirect",
    "unsized",
    "silent",
    "empty",
    "no length",
)


class ServersSection(Section):
    """Answers that are refused, cut, of other ranges than were asked, shorter than they say, garbage, redirected in
    circles or to files, and servers that know no ranges; once, sometimes, or always."""

    name = "servers"
    oracle = "the bytes in memory: every image as it is stored, or an error that tells"
    volume = 7_000
    limit = 60.0

    def open(self, folder: Path) -> None:
        """Start the server."""
        warnings.simplefilter("ignore")
        remote.PAUSES = (0.002, 0.002, 0.002)
        images = hostile_jpeg.originals()[:6]
        buffer = pa.BufferOutputStream()
        table = pa.table({"image": pa.array(images * 5, pa.binary()), "filling": [bytes(9_000)] * 30})
        pq.write_table(table, buffer, row_group_size=7, compression="none", use_dictionary=False)
        filling = [(f"{number}.bin", bytes([number]) * 70_000) for number in range(6)]
        members = sorted([*filling, *((f"{number}.jpg", image) for number, image in enumerate(images))])
        self._contents = {"0.tar": tar_bytes(members), "0.parquet": buffer.getvalue().to_pybytes()}
        self._images = {"0.tar": images, "0.parquet": images * 5}
        self._server = _Server(self._contents)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()

    def attempt(self, draw: Random, number: int) -> Tally:
        """Read one file from a server with one or two faults."""
        tally, name = Tally(), draw.choice(list(self._contents))
        self._server.draw = Random(draw.getrandbits(32))
        self._server.faults = draw.sample(_FAULTS, draw.choice((0, 1, 1, 2)))
        self._server.share = draw.choice((0.1, 0.3, 1.0))
        found: list[bytes | None] = []
        try:
            for shard in find_shards(f"http://127.0.0.1:{self._server.server_port}/{name}"):
                found += [sample.image for sample in shard.read() if sample.error is None]
        except (DedupkitError, OSError) as error:
            tally.check(str(error).strip(), f"{self._server.faults}: an error without a word: {error!r}")
            return tally
        expected = self._images[name]
        about = f"{name} with {self._server.faults} at {self._server.share}"
        if len(found) < len(expected):
            tally.lose(f"{len(expected) - len(found)} images of {about}", len(expected) - len(found))
        else:
            tally.check(found == expected, f"other images of {about}")
        return tally


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.contents = contents
        self.draw, self.faults, self.share = Random(), list[str](), 0.0

    def handle_error(self, *_: object) -> None:
        """A client that goes away is none."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        data, draw = self.server.contents.get(self.path.lstrip("/")), self.server.draw
        faults = {fault for fault in self.server.faults if draw.random() < self.server.share}
        if data is None:
            self.send_error(404)
            return
        if "status" in faults:
            self.send_error(draw.choice((400, 403, 404, 408, 416, 418, 429, 500, 503)))
            return
        if "silent" in faults or "garbage" in faults:
            self.wfile.write(draw.randbytes(60) if "garbage" in faults else b"")
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if "redirect" in faults:
            self.send_response(draw.choice((301, 302, 307)))
            self.send_header(
                "Location", draw.choice((self.path, "file:///etc/passwd", "/other", "http://127.0.0.1:1/"))
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = 0, len(data) - 1
        asked = self.headers.get("Range", "") if "whole" not in faults else ""
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start or 0), min(int(end or last), last)
            if "shifted" in faults:
                first = max(0, first - draw.randrange(1, 600))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
            self.send_header("Accept-Ranges", "none" if "whole" in faults else "bytes")
        sent = b"" if "empty" in faults else data[first : last + 1]
        if "short" in faults:
            sent = sent[: draw.randrange(len(sent) + 1)]
        if "no length" not in faults:
            self.send_header("Content-Length", str(len(sent) if "short" in faults else last + 1 - first))
        else:
            self.close_connection = True
        if "unsized" not in faults:
            self.send_header("ETag", '"1"')
        self.end_headers()
        if body:
            cut = draw.randrange(len(sent) + 1) if "cut" in faults else len(sent)
            self.wfile.write(sent[:cut])
            if cut < last + 1 - first:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
