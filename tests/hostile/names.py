"""Hostile keys through cleaned tars and lists, and back."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from random import Random

from dedupkit.manifest.lists import escape, unescape
from dedupkit.manifest.names import archive_name, original_key
from dedupkit.manifest.tar_shards import TarShardWriter
from dedupkit.sources import Sample
from dedupkit.sources.keys import name_of, text_of
from dedupkit.sources.webdataset import TarShard
from hostile.section import Section, Tally

_PIECES = (
    "/", "//", ".", "..", "../", "./", "%", "%~", "%2E", "%u2028", "__", "_", "\0", "\t", "\n", "\r", "\\", "\\x41",
    "\x7f", "\x9b", "\u2028", "\u202e", "\ufeff", "\ud800", "\udc80", "\udfff", "é", "e\u0301", "日", "😀", "a", "A",
    "ß", "#2", "~2", ".jpg", ".JPG", ".json", ".tar.gz", " ", "-", "CON", "C:", "key", "0" * 101, "n" * 300,
    "\U0010ffff",
)  # fmt: skip


class NamesSection(Section):
    """Keys that climb, are absolute, empty, long, repeated, or hold control characters and invalid text."""

    name = "names"
    oracle = "tarfile's data filter finds every member safe, and two readers find every key and byte again"
    volume = 80_000
    each = 40

    def open(self, folder: Path) -> None:
        """Where the tars are written."""
        self._path = folder / "0.tar"

    def attempt(self, draw: Random, number: int) -> Tally:
        """A tar of samples."""
        tally = Tally(self.each)
        keys = ["".join(draw.choice(_PIECES) for _ in range(draw.choice((0, 1, 1, 2, 3, 4, 8)))) for _ in range(40)]
        for key in keys:
            name = archive_name(key)
            tally.check(original_key(name) == key, f"{key!r} came back as {original_key(name)!r}")
            field = escape(key)
            tally.check(unescape(field) == key and len(field.splitlines()) <= 1, f"{key!r} as a field of a line")
            tally.check("\t" not in field, f"{key!r} holds a tab as a field of a line")
            raw = key.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
            text_of(raw).encode()
            tally.check(name_of(text_of(raw)) == raw, f"{raw!r} as text")
        keys = [text_of(key) for key in keys]  # as every reader gives them
        samples = [(key, draw.randbytes(draw.randrange(700)), draw.choice(_JSON)) for key in keys]
        with TarShardWriter(self._path) as writer:
            for key, image, stated in samples:
                members = {"jpg": image, **({} if stated is None else {"json": stated})}
                writer.add(Sample(key, members, "jpg"), {"key": key, "caption": None, "url": None, "uid": None})
        found = [(sample.key, dict(sample.members)) for sample in TarShard(str(self._path)).read()]
        for reader, read in (("dedupkit", found), ("tarfile", _by_tarfile(self._path, tally))):
            back = [(original_key(name, members.get("json")), members.get("jpg")) for name, members in read]
            missing = len(samples) - len(back)
            if missing > 0:
                tally.lose(f"{missing} samples that were written, to {reader}: {keys}", missing)
                continue
            for (key, image, _), (read_key, read_image) in zip(samples, back, strict=False):
                tally.check((key, image) == (read_key, read_image), f"{reader} read {read_key!r} for {key!r}")
        return tally


_JSON = (None, b'{"a": 1}', b"[1]", b"{", b"\xff", b'{"original_key": 3}', b'{"key": "../x"}')


def _by_tarfile(path: Path, tally: Tally) -> list[tuple[str, dict[str, bytes]]]:
    """Samples as a plain script reads them."""
    found: list[tuple[str, dict[str, bytes]]] = []
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
        for member in archive:
            try:
                tally.check(tarfile.data_filter(member, "/unpacked").name == member.name, f"{member.name!r} is unsafe")
            except tarfile.FilterError as error:
                tally.contradict(f"{member.name!r}: {error}")
            key, _, extension = member.name.rpartition(".")
            if not found or found[-1][0] != key:
                found.append((key, {}))
            stream = archive.extractfile(member)
            found[-1][1][extension] = stream.read() if stream else b""
    return found
