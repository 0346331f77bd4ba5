"""The tar reader against the standard library's, and against broken archives."""

from __future__ import annotations

import io
import random
import tarfile
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from helpers import link, tar_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupkit.sources.sample import ShardError
from dedupkit.sources.tar_stream import TarMember, iter_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
BLOCK = 512

part = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=90)
surrogates = st.sampled_from(["caf\udce9.jpg", "\udcff.txt"])  # bytes of a file name that are no UTF-8
name = st.one_of(
    st.lists(part, min_size=1, max_size=6).map("/".join),
    st.integers(90, 600).map(lambda length: "n" * length + ".jpg"),
    st.integers(1, 40).map(lambda depth: "/".join(["folder"] * depth) + "/a.b.jpg"),
    surrogates,
)
member = st.tuples(name, st.integers(0, 3000), st.sampled_from(["file"] * 5 + ["folder", "symbolic", "hard", "fifo"]))


def as_info(name: str, kind: str) -> tarfile.TarInfo:
    if kind == "symbolic":
        return link(name, "target" * 30)
    if kind == "hard":
        return link(name, "target", tarfile.LNKTYPE)
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if kind == "folder" else tarfile.FIFOTYPE
    return info


def build(described: list[tuple[str, int, str]], format: int) -> bytes:
    """A tar of those members that the format can hold."""
    members: list[tuple[str, bytes] | tarfile.TarInfo] = []
    for number, (name, size, kind) in enumerate(described):
        one = (name, random.Random(number).randbytes(size)) if kind == "file" else as_info(name, kind)
        try:
            tar_bytes([one], format)
        except ValueError:  # a name that ustar cannot split, or is too long for it
            continue
        members.append(one)
    return tar_bytes(members, format)


def expected(data: bytes) -> list[tuple[str, int, bytes, str]]:
    """The same archive as :mod:`tarfile` reads it."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            kind = "file" if info.isreg() else "link" if info.issym() or info.islnk() else "device"
            kind = "folder" if info.isdir() else kind
            contents = archive.extractfile(info).read() if kind == "file" else b""
            found.append((info.name, info.offset_data, contents, kind))
    return found


def comparable(members: Iterator[TarMember] | list[TarMember]) -> list[tuple[str, int, bytes, str]]:
    """As :func:`expected`: tarfile takes the slash off a folder's name."""
    return [(m.name.rstrip("/") if m.kind == "folder" else m.name, m.offset, m.data, m.kind) for m in members]


def read_until_error(stream: io.BytesIO) -> tuple[list[TarMember], ShardError | None]:
    members = []
    try:
        for one in iter_tar(stream):
            members.append(one)  # noqa: PERF402 - what came before the error counts
    except ShardError as error:
        return members, error
    return members, None


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@settings(deadline=None, max_examples=120)
@given(described=st.lists(member, max_size=8))
def test_reads_what_tarfile_reads(format: int, described: list[tuple[str, int, str]]) -> None:
    data = build(described, format)
    assert comparable(iter_tar(io.BytesIO(data))) == expected(data)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_offsets_point_at_the_bytes(format: int) -> None:
    data = build([("a" * 140 + "/" + "b" * 80, 700, "file"), ("c.jpg", 0, "file"), ("ü" * 60, 513, "file")], format)
    for one in iter_tar(io.BytesIO(data)):
        assert data[one.offset : one.offset + len(one.data)] == one.data


def test_pax_records_apply_to_the_next_member_alone() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("first.txt", {"size": "3", "path": "renamed.txt"}), ("second.txt", {})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 3, headers
            archive.addfile(info, io.BytesIO(b"abc"))
        hard = link("third.txt", "first.txt", tarfile.LNKTYPE)
        hard.pax_headers = {"size": "3"}  # a link has no data, whatever a record says
        archive.addfile(hard)
        fourth = tarfile.TarInfo("fourth.txt")
        fourth.size = 3
        archive.addfile(fourth, io.BytesIO(b"def"))
    data = buffer.getvalue()
    assert comparable(iter_tar(io.BytesIO(data))) == expected(data)


def test_a_long_name_ends_at_its_first_nul() -> None:
    data = tar_bytes([("a" * 150 + ".jpg", b"x")], tarfile.GNU_FORMAT)
    data = data.replace(b"a" * 150 + b".jpg", b"b.jpg\0".ljust(154, b"c"), 1)
    assert [m.name for m in iter_tar(io.BytesIO(data))] == ["b.jpg"]
    assert comparable(iter_tar(io.BytesIO(data))) == expected(data)


def test_sizes_in_base_256_and_octal_are_the_same() -> None:
    data = bytearray(tar_bytes([("a.bin", b"x" * 700), ("b.bin", b"y")]))
    data[124:136] = b"\x80" + (700).to_bytes(11, "big")
    rewrite_checksum(data, 0)
    assert comparable(iter_tar(io.BytesIO(bytes(data)))) == expected(bytes(data))


def test_a_stream_may_return_less_than_was_asked() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 100))

    data = build([("a.jpg", 3000, "file"), ("b" * 300, 20, "file")], tarfile.PAX_FORMAT)
    assert comparable(iter_tar(Slow(data))) == expected(data)


def test_a_stream_need_not_seek() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("seek")

        def tell(self) -> int:
            raise io.UnsupportedOperation("tell")

    data = build([("a.jpg", 3000, "file"), ("b" * 300, 20, "file")], tarfile.GNU_FORMAT)
    assert comparable(iter_tar(Pipe(data))) == expected(data)


# Truncation ---------------------------------------------------------------------------------------------------------

LONG = "deep/" * 60 + "c.jpg"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_cut_anywhere_yields_the_whole_members_and_then_an_error(format: int) -> None:
    data = tar_bytes([("a.jpg", b"A" * 700), ("b.jpg", b"B" * BLOCK), (LONG, b"C" * 100)], format)
    whole = expected(data)
    ends = [offset + len(contents) for _, offset, contents, _ in whole]
    boundaries = {-(-end // BLOCK) * BLOCK for end in ends}  # where a header comes next
    cuts = sorted({*range(1, boundaries_end := max(boundaries), 37), *(b + d for b in boundaries for d in (-1, 0, 1))})
    assert boundaries_end < len(data)
    for cut in cuts:
        members, error = read_until_error(io.BytesIO(data[:cut]))
        assert comparable(members) == [one for one, end in zip(whole, ends, strict=True) if end <= cut], cut
        if cut in boundaries:
            assert error is None, cut  # no end marker: tarfile takes that too, many writers leave it out
        else:
            assert error is not None, cut
            assert "truncated tar" in str(error)


def test_a_cut_in_the_end_marker_is_no_loss() -> None:
    data = tar_bytes([("a.jpg", b"A" * 700)])
    end = 3 * BLOCK
    assert [m.name for m in iter_tar(io.BytesIO(data[: end + BLOCK]))] == ["a.jpg"]


def test_the_error_names_the_member_that_is_cut() -> None:
    data = tar_bytes([("a.jpg", b"A"), (LONG, b"C" * 900)], tarfile.PAX_FORMAT)
    offset = expected(data)[1][1]
    _, error = read_until_error(io.BytesIO(data[: offset + 10]))
    assert LONG in str(error)
    assert str(offset + 10) in str(error)


def test_an_empty_file_is_no_tar_and_an_empty_tar_is_one() -> None:
    with pytest.raises(ShardError, match="empty file"):
        list(iter_tar(io.BytesIO(b"")))
    assert list(iter_tar(io.BytesIO(tar_bytes([])))) == []


# Corruption ---------------------------------------------------------------------------------------------------------


def rewrite_checksum(data: bytearray, header: int) -> None:
    data[header + 148 : header + 156] = b" " * 8
    total = sum(data[header : header + BLOCK])
    data[header + 148 : header + 156] = f"{total:06o}\0 ".encode()


@pytest.mark.parametrize("byte", [0, 50, 100, 124, 130, 148, 156, 257, 345, 511])
def test_a_corrupted_header_is_an_error_after_what_came_before(byte: int) -> None:
    data = bytearray(tar_bytes([("a.jpg", b"A" * 700), ("b.jpg", b"B" * 700), ("c.jpg", b"C")]))
    data[3 * BLOCK + byte] ^= 0x15
    members, error = read_until_error(io.BytesIO(bytes(data)))
    assert [m.name for m in members] == ["a.jpg"]
    assert "broken tar" in str(error)
    assert str(3 * BLOCK) in str(error)


@pytest.mark.parametrize("size", [b"-0000000001\0", b"+0000000005\0", b"0000000_005\0", b"00000000zzz\0", b"\xff" * 12])
def test_a_size_that_is_no_octal_number_is_an_error(size: bytes) -> None:
    data = bytearray(tar_bytes([("a.jpg", b"A" * 700), ("b.jpg", b"B")]))
    data[124:136] = size
    rewrite_checksum(data, 0)
    members, error = read_until_error(io.BytesIO(bytes(data)))
    assert members == []
    assert "broken tar" in str(error)


@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"K", b"g"])
@pytest.mark.parametrize("size", [1 << 61, 1 << 63, (1 << 88) - 1])
def test_a_header_that_claims_exabytes_allocates_nothing(kind: bytes, size: int) -> None:
    data = bytearray(tar_bytes([("a.jpg", b"A" * 700)]))
    data[124:136] = b"\x80" + size.to_bytes(11, "big")
    data[156:157] = kind
    rewrite_checksum(data, 0)
    tracemalloc.start()
    members, error = read_until_error(io.BytesIO(bytes(data)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert members == []
    assert error is not None
    assert peak < 1 << 25


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=4000))
def test_random_bytes_are_an_error(data: bytes) -> None:
    if data[:BLOCK] == bytes(BLOCK):
        return
    members, error = read_until_error(io.BytesIO(data))
    assert members == []
    assert error is not None


@settings(deadline=None, max_examples=150)
@given(
    damage=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8), repair=st.booleans()
)
def test_a_damaged_archive_ends_soon(damage: list[tuple[int, int]], repair: bool) -> None:
    data = bytearray(tar_bytes([("a.jpg", b"A" * 900), (LONG, b"B" * 30), ("c", b"C")], tarfile.PAX_FORMAT))
    for position, value in damage:
        data[position % len(data)] = value
    if repair:  # a header with a sound checksum and hostile contents
        rewrite_checksum(data, 0)
    started = time.monotonic()
    members, _ = read_until_error(io.BytesIO(bytes(data)))
    assert sum(len(m.data) for m in members) <= len(data)
    assert time.monotonic() - started < 1


def test_a_pax_block_of_nonsense_is_ignored() -> None:
    for records in (b"0 path=x\n", b"99999 path=x\n", b"path=x\n", b"\xff\xfe\xfd", b"12 path", b"5 a=\n" * 3):
        data = bytearray(tar_bytes([("pax", records.ljust(BLOCK, b"\0")), ("a.jpg", b"A")]))
        data[156:157] = b"x"
        rewrite_checksum(data, 0)
        members, error = read_until_error(io.BytesIO(bytes(data)))
        assert error is None
        assert [m.name for m in members] == ["a.jpg"]
