"""What every test file may use: photos that ship with scikit-image."""

from __future__ import annotations

import os
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
