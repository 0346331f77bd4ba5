"""What every test file may use: photos that ship with scikit-image."""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: waiting threads would cost more than they do

import numpy as np
import pytest
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
