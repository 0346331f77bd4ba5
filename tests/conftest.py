"""What every test file may use: photos that ship with scikit-image, and room for files in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: waiting threads would cost more than they do

import numpy as np
import pytest
from helpers import encode, write_tar
from PIL import Image

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "page", "moon", "brick", "grass", "gravel")
PHOTOS += ("retina", "hubble_deep_field", "immunohistochemistry")


def _room_in_memory() -> Path | None:
    """A folder for temporary files where a file is on the disk at once.

    Each run waits some sixty times until a file is on the disk, a third of its time on a slow one. None where there is
    no such place with 4 GiB of room, where ``TMPDIR`` says otherwise, and in a process that pytest-xdist started, which
    has the folder of the first.
    """
    place = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(place, os.W_OK) or shutil.disk_usage(place).free < 1 << 32:
        return None
    folder = Path(tempfile.mkdtemp(prefix="dk-", dir=place))  # a short name: paths of sockets are limited
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


_IN_MEMORY = _room_in_memory()
_LONG = ("test_ray.py", "test_interrupted.py", "test_hostile.py", "test_buckets.py", "test_ranks.py", "test_kills.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long and waits much, so that one of two processes does not end with it alone."""
    items.sort(key=lambda item: item.path.name not in _LONG)


def pytest_unconfigure() -> None:
    """Give the memory back."""
    if _IN_MEMORY is not None:
        shutil.rmtree(_IN_MEMORY, ignore_errors=True)


@pytest.fixture(scope="session")
def photos() -> dict[str, Image.Image]:
    """Photos by name, colour and grey, those that need no download."""
    data = pytest.importorskip("skimage.data")
    found = {}
    for name in PHOTOS:
        try:
            found[name] = Image.fromarray(np.asarray(getattr(data, name)()))
        except Exception:  # not shipped with this version, and no network
            continue
    assert len(found) >= 8
    return found


@pytest.fixture(scope="session")
def photo(photos: dict[str, Image.Image]) -> Image.Image:
    """One colour photo, 512x512."""
    return photos["astronaut"]


def _fail_if_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Where everything must be installed (DEDUPKIT_REQUIRE_ALL=1), a test skipped for a missing package fails."""
    if not report.skipped or os.environ.get("DEDUPKIT_REQUIRE_ALL") != "1":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if "could not import" in reason:
        report.outcome = "failed"
        report.longrepr = f"{reason}\nDEDUPKIT_REQUIRE_ALL=1 is set: a missing package is a failure"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _fail_if_missing(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _fail_if_missing(report)
    return report


@pytest.fixture(scope="session")
def shards(photos: dict[str, Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tars of a few photos, with copies across them."""
    folder = tmp_path_factory.mktemp("shards")
    small = [photo.convert("RGB").resize((160, 120)) for photo in list(photos.values())[:6]]
    for shard in range(6):
        members = []
        for number in range(4):
            photo = small[(shard + number) % 6]
            members.append((f"{shard}{number}.jpg", encode(photo, quality=90 - 5 * shard)))
            members.append((f"{shard}{number}.txt", f"photo {number}".encode()))
        write_tar(folder / f"{shard:05d}.tar", members)
    return folder
