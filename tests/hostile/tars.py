"""Hostile tars, sound and damaged: what tarfile reads is read, and every member is in a row or counted."""

from __future__ import annotations

import gzip
import io
import re
import struct
import tarfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from dedupkit.sources import Sample, ShardError
from dedupkit.sources.columns import IMAGE_EXTENSIONS
from dedupkit.sources.keys import text_of
from dedupkit.sources.sample import PassedOver
from dedupkit.sources.tar_stream import TarMember, iter_tar
from dedupkit.sources.webdataset import TarShard
from hostile.changes import damaged
from hostile.section import Section, Tally

_BLOCK = 512
_NAMES = ("a", "b", "00000001", "a.b", "../x", "/abs", "d/e", "__m__", "é", "caf\udce9", "n" * 120, "deep/" * 40 + "z",
    "d" * 99 + "/" + "f" * 90, "", ".", "..", "./a", "a//b", "-", " ", "a\tb", "日本")  # fmt: skip
_EXTENSIONS = (".jpg", ".jpg", ".JPG", ".png", ".txt", ".json", ".cls", ".seg.png", "", ".", ".jpg.txt")
_KINDS = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
_SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)


class _Member(NamedTuple):
    """A member as tarfile has it."""

    name: str
    offset: int
    data: bytes
    kind: str


class TarsSection(Section):
    """Tars in three formats of members with odd names, kinds, sizes and pax records; half of them then damaged."""

    name = "tars"
    oracle = "tarfile: its members, bytes and order; a break is told"
    volume = 150_000

    def open(self, folder: Path) -> None:
        """Where the tars are written."""
        self._folder = folder

    def attempt(self, draw: Random, number: int) -> Tally:
        """One archive."""
        data = _archive(draw)
        is_sound = draw.random() < 0.5
        if not is_sound:
            data = _changed(data, draw)
        tally = Tally()
        ours, problem = _ours(data)
        theirs, is_exact = _by_tarfile(data)
        _compare(ours, theirs[: _well_formed(data, theirs)], problem, is_sound and is_exact, tally)
        suffix = draw.choice((".tar", ".tar", ".tar.gz", ".tgz"))
        path = self._folder / f"0{suffix}"
        path.write_bytes(data if suffix == ".tar" else gzip.compress(data, 1))
        _compare_samples(path, ours, problem, tally)
        return tally


def _archive(draw: Random) -> bytes:
    buffer = io.BytesIO()
    form = draw.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for _ in range(draw.choice((0, 1, 3, 6, 12))):
            info = tarfile.TarInfo(draw.choice(_NAMES) + draw.choice(_EXTENSIONS) or "x")
            content = b""
            if draw.random() < 0.15:
                info.type, info.linkname = draw.choice(_KINDS), draw.choice(("t", "t" * 120))
            else:
                content = draw.randbytes(draw.choice((0, 1, 511, 512, 513, draw.randrange(3000))))
                info.size = len(content)
            if form == tarfile.PAX_FORMAT and draw.random() < 0.3:
                info.pax_headers = draw.choice((
                    {"comment": "x" * 600}, {"path": "renamed.jpg"}, {"mtime": "1.5"}, {"size": str(info.size)},
                    {"SCHILY.xattr.user.a": "b"}, {"GNU.sparse.name": "s.jpg", "GNU.sparse.major": "1"},
                ))  # fmt: skip
            with suppress(ValueError, UnicodeError):  # names that this format cannot hold
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _changed(data: bytes, draw: Random) -> bytes:
    """Bytes changed, mostly in headers, and mostly with checksums that fit."""
    if draw.random() < 0.3:
        data = damaged(draw, data)
    result = bytearray(data[: draw.choice((len(data), len(data), draw.randrange(len(data) + 1)))])
    headers = [at for at in range(0, len(result) - _BLOCK + 1, _BLOCK) if result[at + 257 : at + 262] == b"ustar"]
    for at in draw.sample(headers, min(len(headers), draw.choice((0, 1, 1, 2)))):
        kind = draw.randrange(7)
        if kind == 0:
            result[at + 156] = draw.choice(b"0123456789xgLKSVDNA\0")
        elif kind == 1:
            size = draw.choice((0, 1, 512, 1 << 40, 8**11 - 1, len(result)))
            result[at + 124 : at + 136] = f"{size:011o}\0".encode()[:12].ljust(12, b"\0")
        elif kind == 2:
            result[at + 124 : at + 136] = b"\x80" + draw.choice((0, 700, 1 << 62)).to_bytes(11, "big")
        elif kind == 3:
            name = draw.choice((b"", b"../../etc/x.jpg", b"\xff\xfe.jpg", b"a\0b.jpg", draw.randbytes(100)))
            result[at : at + 100] = name.ljust(100, b"\0")
        elif kind == 4:
            result[at + draw.randrange(345, 500)] = draw.randrange(256)
        elif kind == 5:
            result[at + draw.randrange(_BLOCK)] = draw.randrange(256)
        else:
            record = draw.choice((b"99999 path=x\n", b"0 path=x\n", b"12 size=999\n", b"9 path=\n", b"\xff" * 30))
            result[at + _BLOCK : at + _BLOCK + len(record)] = record
        if draw.random() < 0.9:
            result[at + 148 : at + 156] = b" " * 8
            total = sum(result[at : at + _BLOCK]) % 8**6
            result[at + 148 : at + 156] = struct.pack("7sx", f"{total:06o}".encode())
    if draw.random() < 0.1:
        result += draw.choice((data, b"x" * 700, bytes(20_000)))
    return bytes(result)


def _ours(data: bytes) -> tuple[list[TarMember], str | None]:
    members: list[TarMember] = []
    try:
        for member in iter_tar(io.BytesIO(data)):
            members.append(member)  # noqa: PERF402 - what came before the error counts
    except ShardError as error:
        return members, str(error)
    return members, None


def _by_tarfile(data: bytes) -> tuple[list[_Member], bool]:
    """The members that tarfile yields, and whether it got to an end without an error."""
    found: list[_Member] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                kind = "file" if info.isreg() and not info.issparse() else "other"
                stream = archive.extractfile(info) if kind == "file" else None
                content = stream.read() if stream else b""
                if len(content) < (info.size if kind == "file" else 0):
                    return found, False
                found.append(_Member(info.name, info.offset_data, content, kind))
    except Exception:  # tarfile raises much on hostile headers; it is the oracle up to there
        return found, False
    return found, True


def _well_formed(data: bytes, members: list[_Member]) -> int:
    """How many members come before the first header that breaks the rules in a way in which readers differ."""
    end = 0
    for number, member in enumerate(members):
        headers = [at for at in range(end, member.offset, _BLOCK) if data[at + 257 : at + 262] == b"ustar"]
        extended = [data[at + 156 : at + 157] for at in headers if data[at + 156 : at + 157] in (b"x", b"g", b"L")]
        if len(extended) > 1 or not all(_is_plain(data, at) for at in headers):
            return number
        end = member.offset + len(member.data) + -len(member.data) % _BLOCK
    return len(members)


def _is_plain(data: bytes, at: int) -> bool:
    """Whether a header means the same to every reader."""
    kind = data[at + 156 : at + 157]
    if data[at + 262 : at + 265] != b"\x0000" and any(data[at + 345 : at + 500]):
        return False  # GNU keeps other things where ustar has the prefix, and tarfile reads a prefix there
    if kind not in (b"x", b"g", b"L"):
        return True
    if data[at + 124] >= 0x80:  # nobody writes the size of a name in base 256
        return False
    size = int(data[at + 124 : at + 135].strip(b"\0 ") or b"0", 8)
    block = data[at + _BLOCK : at + _BLOCK + size]
    if kind == b"L":  # tarfile reads to the first NUL, whatever the size says
        return block.endswith(b"\0") and block.count(b"\0") == 1
    while match := re.match(rb"([1-9][0-9]*) [^=\n]+=", block):
        length = int(match[1])
        if block[length - 1 : length] != b"\n" or length <= match.end():
            break
        if match[0].endswith(b" size=") and not block[match.end() : length - 1].isdigit():
            break
        block = block[length:]
    return not block and kind == b"x"  # tarfile applies a global path to all members


def _compare(ours: list[TarMember], theirs: list[_Member], problem: str | None, is_sound: bool, tally: Tally) -> None:
    """Both yield the same members as far as both get, and what is left out is told."""
    for mine, other in zip(ours, theirs, strict=False):
        if mine.kind not in ("file", "large") or other.kind != "file":
            if is_sound:
                tally.check(mine.offset == other.offset, f"offset of {other.name!r}")
            elif mine.offset != other.offset:
                return  # headers of kinds that define no size are where readers part
            continue
        agree = (mine.name, mine.offset, mine.data) == (other.name, other.offset, other.data)
        tally.check(agree, f"{mine[:2]} of {len(mine.data)} bytes is {other[:2]} of {len(other.data)} to tarfile")
        if not agree:
            return
    if len(theirs) > len(ours) and problem is None:
        tally.lose(f"{len(theirs) - len(ours)} members that tarfile reads, without a word", len(theirs) - len(ours))
    if is_sound:
        tally.check(problem is None and len(ours) == len(theirs), f"a sound archive: {problem}")


def _compare_samples(path: Path, members: list[TarMember], problem: str | None, tally: Tally) -> None:
    """Every member is in a sample or counted, in the order of the archive, with its bytes."""
    samples: list[Sample] = []
    passed, failure = PassedOver(), None
    try:
        for sample in TarShard(str(path)).read(passed_over=passed):
            samples.append(sample)  # noqa: PERF402 - what came before the error counts
    except ShardError as error:
        failure = str(error)
    tally.check((failure is None) == (problem is None), f"the archive: {problem}; its samples: {failure}")
    groups: list[tuple[str, list[tuple[str, TarMember]]]] = []
    aside = 0
    for member in members:
        base = member.name.rpartition("/")[2]
        match = _SAMPLE.fullmatch(member.name)
        if match is None or (base.startswith("__") and base.endswith("__")) or member.kind in _ASIDE:
            aside += member.kind != "folder"
        elif groups and groups[-1][0] == match[1]:
            groups[-1][1].append((match[2].lower(), member))
        else:
            groups.append((match[1], [(match[2].lower(), member)]))
    if passed.count < aside or len(samples) < len(groups):
        missing = max(aside - passed.count, 0) + max(len(groups) - len(samples), 0)
        tally.lose(f"{missing} of {len(members)} members are in no row and not counted", missing)
        return
    for sample, (key, group) in zip(samples, groups, strict=False):
        tally.check(sample.key == text_of(key), f"{sample.key!r} in place of {key!r}")
        text = f"{sample.key}{sample.error}{sample.caption}{sample.url}{sample.uid}"
        text.encode("utf-8")
        images = [member for extension, member in group if extension in IMAGE_EXTENSIONS]
        if sample.error is None:
            tally.check(len(images) == 1 and sample.image == images[0].data, f"the image of {key!r}")
        elif len(images) == 1 and len(group) == 1 and images[0].kind == "file" and not problem:
            unsafe = key.startswith("/") or ".." in key.split("/")
            tally.check(unsafe, f"{key!r} is refused: {sample.error}")


_ASIDE = frozenset({"folder", "device", "label"})
