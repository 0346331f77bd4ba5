"""Sources behind a real HTTP server with the faults that servers have."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, jpegs, manifest, one_line, run, tar_bytes
from PIL import Image

from dedupkit import store
from dedupkit.errors import DedupkitError
from dedupkit.runfolder.folder import RunFolder
from dedupkit.sources import find_shards
from dedupkit.sources.reread import Originals
from dedupkit.store import remote

pytest.importorskip("aiohttp")


class Faulty(http.server.ThreadingHTTPServer):
    """Serves bytes from memory; ``faults`` says how, ``asked`` counts the requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.ranges = True
        self.status: dict[str, list[int]] = {}  # the answers to come, before it works
        self.cut: dict[str, int] = {}  # bytes after which the connection ends, once
        self.delay = 0.0
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Faulty
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        name = self.path.lstrip("/")
        self.server.asked[f"{self.command} {name}"] += 1
        time.sleep(self.server.delay)
        statuses = self.server.status.get(name, [])
        data = self.server.contents.get(name)
        if statuses or data is None:
            status = (statuses.pop(0) if len(statuses) > 1 else statuses[0]) if statuses else 404
            if status != 200:
                self.send_error(status)
                return
        assert data is not None
        first, last = 0, len(data) - 1
        asked = self.headers.get("Range", "") if self.server.ranges else ""
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", f'"{hash(data):x}"')
        self.end_headers()
        if body:
            cut = self.server.cut.pop(name, None)
            self.wfile.write(data[first : last + 1][:cut])
            if cut is not None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01, 0.01))
    with Faulty() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def images(photos: dict[str, Image.Image]) -> list[bytes]:
    return jpegs(photos, 6, 64)


def large_tar(images: list[bytes]) -> bytes:
    """A tar of some megabytes: more than one block of any buffer."""
    filling = [(f"{number:02d}.bin", bytes([number]) * 1_500_000) for number in range(6)]
    return tar_bytes(sorted([*filling, *((f"{number:02d}.jpg", image) for number, image in enumerate(images))]))


def read(url: str) -> list[bytes | None]:
    return [sample.image for shard in find_shards(url) for sample in shard.read()]


@pytest.mark.parametrize("ranges", [True, False])
def test_every_byte_arrives_whether_the_server_knows_ranges_or_not(
    server: Faulty, images: list[bytes], ranges: bool, tmp_path: Path
) -> None:
    server.ranges = ranges
    server.contents["0.tar"] = data = large_tar(images)
    buffer = pa.BufferOutputStream()
    table = pa.table({"image": pa.array(images * 20, pa.binary()), "filling": [bytes(50_000)] * 120})
    pq.write_table(table, buffer, row_group_size=7, compression="none", use_dictionary=False)
    server.contents["0.parquet"] = buffer.getvalue().to_pybytes()
    assert read(f"{server.url}/0.tar") == images
    assert read(f"{server.url}/0.parquet") == images * 20
    with store.open_binary(f"{server.url}/0.tar") as stream:
        for position in (0, 7_000_000, 100, 3_000_000, len(data) - 10, 3_000_050):
            assert stream.seek(position) == position
            assert stream.read(100) == data[position : position + 100], position
        assert stream.seek(-5, 2) == len(data) - 5
        assert stream.read() == data[-5:]
    finished = run(f"{server.url}/0.tar", tmp_path / "out")
    assert finished.summary["keep"] == 6
    assert dict(Originals(RunFolder(finished.path)).read([4, 1])) != {}
    assert finished.apply(tmp_path / "clean")["samples"] == 6


def test_a_small_file_is_not_taken_for_the_range_that_was_asked(server: Faulty, images: list[bytes]) -> None:
    """The whole file is shorter than the range asked for, and is no answer to it all the same."""
    server.ranges = False
    server.contents["0.bin"] = data = bytes(range(256)) * 10
    with store.open_binary(f"{server.url}/0.bin") as stream:
        stream.seek(1000)
        assert stream.read(100) == data[1000:1100]


def test_what_is_transient_is_tried_again(server: Faulty, images: list[bytes]) -> None:
    server.contents["0.tar"] = large_tar(images)
    server.status["0.tar"] = [503, 503, 429, 200]
    server.cut["0.tar"] = 4_000_000
    assert read(f"{server.url}/0.tar") == images


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(server: Faulty, images: list[bytes], ranges: bool) -> None:
    server.ranges = ranges
    server.contents["0.tar"] = large_tar(images)
    shards = find_shards(f"{server.url}/0.tar")
    server.cut["0.tar"] = 4_000_000
    assert [sample.image for sample in shards[0].read()] == images


@pytest.mark.parametrize(("status", "said"), [(403, "access is denied"), (401, "credentials are needed"), (503, "503")])
def test_the_cause_is_named(server: Faulty, images: list[bytes], tmp_path: Path, status: int, said: str) -> None:
    server.contents["0.tar"] = server.contents["1.tar"] = tar_bytes([("a.jpg", images[0])])
    server.status["1.tar"] = [status]
    with pytest.raises(DedupkitError, match=f"1.tar cannot be read: .*{status}") as caught:
        find_shards(f"{server.url}/1.tar")
    assert said in str(caught.value)
    assert "no such source" not in str(caught.value)
    rows = manifest(run(f"{server.url}/{{0,1}}.tar", tmp_path / "out"))
    assert rows["a"]["verdict"] == "keep"
    assert str(status) in rows[""]["reason"]
    assert "gone" not in rows[""]["reason"]


def test_a_dead_endpoint_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = command("run", f"http://127.0.0.1:{port}/0.tar", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "Cannot connect to host" in one_line(done.stderr)
    assert "no such source" not in done.stderr


def test_stores_of_every_kind_are_tried_again(images: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFile

    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01, 0.01))
    memory = fsspec.filesystem("memory")
    memory.pipe("/flaky/0.tar", large_tar(images))
    reads, failures = MemoryFile.read, iter([True, False, True, True, False, False, True])

    def failing(self: Any, *arguments: Any) -> bytes:
        if next(failures, False):
            self.seek(3, 1)
            raise ConnectionResetError("gone for a moment")
        data: bytes = reads(self, *arguments)
        return data

    monkeypatch.setattr(MemoryFile, "read", failing)
    try:
        assert read("memory://flaky/0.tar") == images
        assert next(failures, None) is None
    finally:
        memory.rm("/flaky", recursive=True)


def test_what_is_not_there_is_not_there(server: Faulty) -> None:
    with pytest.raises(DedupkitError, match="no such source"):
        find_shards(f"{server.url}/none.tar")


def test_metadata_that_may_not_be_read_counts_as_missing_and_one_that_fails_is_told(
    server: Faulty, images: list[bytes]
) -> None:
    server.contents["0.tar"] = tar_bytes([("a.jpg", images[0])])
    server.status["0.parquet"] = [403]  # a bucket that may not be listed says so of what does not exist
    assert len(read(f"{server.url}/0.tar")) == 1
    server.status["0.parquet"] = [501]
    (shard,) = find_shards(f"{server.url}/0.tar")
    with pytest.raises(OSError, match="0.parquet cannot be read"):
        list(shard.read())


def test_an_object_that_changed_is_scanned_again(server: Faulty, images: list[bytes], tmp_path: Path) -> None:
    for number in range(2):
        server.contents[f"{number}.tar"] = tar_bytes([(f"{number}.jpg", images[number])])
    source = f"{server.url}/{{0,1}}.tar"
    assert set(manifest(run(source, tmp_path / "out"))) == {"0", "1"}
    server.asked.clear()
    assert set(manifest(run(source, tmp_path / "out"))) == {"0", "1"}
    assert not any(request == "GET 0.tar" for request in server.asked)  # nothing is read again
    server.contents["1.tar"] = tar_bytes([("new.jpg", images[2])])
    server.asked.clear()
    assert set(manifest(run(source, tmp_path / "out"))) == {"0", "new"}
    assert server.asked["GET 0.tar"] == 0


def test_many_shards_are_asked_for_at_once(server: Faulty, images: list[bytes]) -> None:
    server.contents |= {f"{number:02d}.tar": tar_bytes([("a.jpg", images[0])]) for number in range(40)}
    server.delay = 0.05
    started = time.monotonic()
    shards = find_shards(f"{server.url}/{{00..39}}.tar")
    paths = [path for shard in shards for path in shard.paths]
    assert all(store.stamps(paths))
    # 40 shards, one after another, would take 40 * 3 * 0.05 = 6 s at least
    assert time.monotonic() - started < 2.5


def test_a_remote_folder_is_listed_with_its_states(images: list[bytes], tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        memory.pipe("/changing/a.jpg", images[0])
        memory.pipe("/changing/b.jpg", images[1])
        assert len(manifest(run("memory://changing", tmp_path / "out"))) == 2
        before = manifest(run("memory://changing", tmp_path / "out"))["b.jpg"]["sha256"]
        memory.pipe("/changing/b.jpg", images[2])
        assert manifest(run("memory://changing", tmp_path / "out"))["b.jpg"]["sha256"] != before
    finally:
        memory.rm("/changing", recursive=True)
