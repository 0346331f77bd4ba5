"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import dedupkit.hashing
import dedupkit.images

MODULES = [
    found.name
    for package in (dedupkit.hashing, dedupkit.images)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not failed
