"""Real files for the tests: encoders, tars, and what a run says about a sample."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import dedupkit as dk

ROOT = Path(dk.__file__).parents[1]
Member = tuple[str, bytes]


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpegs(photos: dict[str, Image.Image], count: int, side: int = 256) -> list[bytes]:
    """The first photos as JPEG files, no two alike."""
    chosen = list(photos.values())[:count]
    assert len(chosen) == count
    return [encode(photo.convert("RGB").resize((side, side)), quality=85) for photo in chosen]


def tar_bytes(members: Iterable[Member | tarfile.TarInfo], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar of files (name and bytes) and of special members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                name, data = member
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[Member | tarfile.TarInfo], format: int = tarfile.USTAR_FORMAT) -> Path:
    """Write :func:`tar_bytes` to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members, format))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """A symbolic (or hard) link as a member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def run(sources: Any, out: Path, **options: Any) -> dk.Run:
    """``dk.dedup`` in this process."""
    return dk.dedup(sources, out, **{"workers": 0, **options})


def manifest(finished: dk.Run) -> dict[str, dict[str, Any]]:
    """The manifest's rows by key; every key once."""
    rows = finished.manifest.to_pylist()
    assert [row["sample"] for row in rows] == list(range(len(rows)))
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def verdicts(finished: dk.Run) -> dict[str, str]:
    """Key to verdict."""
    return {key: row["verdict"] for key, row in manifest(finished).items()}


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Every entry below a folder with its modification time and contents."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
        )
        for path in sorted([folder, *folder.rglob("*")])
    }


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python, with the package under test, and capture what it prints."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=options.pop("timeout", 120),
        env=environment(options.pop("env", {})),
        **options,
    )


def command(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return python("-m", "dedupkit.cli", *map(str, arguments), **options)


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """The environment with the package under test first on the path."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **(more or {})}


def one_line(text: str) -> str:
    """The only line of an error output: an error of ours is one line and no traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def children(pid: int) -> Sequence[int]:
    """Processes whose parent is ``pid``."""
    with subprocess.Popen(["ps", "-o", "pid=", "--ppid", str(pid)], stdout=subprocess.PIPE, text=True) as listing:
        found, _ = listing.communicate()
    return [int(line) for line in found.split() if int(line) != listing.pid]
