"""Errors that a user can act on: each says what was wrong, where, and what to do.

All of them are below :class:`DedupkitError`:

* :class:`RuleError`, also a ``ValueError``: a rule or keep policy that cannot be read.
* :class:`RangeError`, also a ``ValueError``: a number out of range.
* :class:`MissingExtraError`, also an ``ImportError``: an optional package that is not installed.
* :class:`RereadError`: an image of a finished run that moved, changed or can no longer be read.
* :class:`DamagedError`: a file of a run folder that is missing or not as it was written.
* :class:`UnknownSampleError`, also a ``KeyError``: an example that a filter finds in no run.
* :class:`dedupkit.images.ImageError`, also a ``ValueError``: bytes that are no image, or an image out of bounds.
* :class:`dedupkit.sources.ShardError`, also an ``OSError``: a shard whose rest cannot be read.
* :class:`dedupkit.engine.WorkerDied`: a worker process that was killed twice over the same task.

What does a whole job (``dedup``, ``apply``, ``CopyGuard``, ``Search``, …) raises :class:`DedupkitError` for a value out
of range too. The parts (hashes, joins, decisions over arrays) raise the usual ``ValueError`` for it, and an argument of
another type is a ``TypeError``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from types import ModuleType

__all__ = [
    "DamagedError",
    "DedupkitError",
    "MissingExtraError",
    "RangeError",
    "RereadError",
    "RuleError",
    "UnknownSampleError",
    "import_optional",
    "require",
]


class DedupkitError(Exception):
    """Base of every error that dedupkit raises on purpose; the command line prints it as one line."""


class RuleError(DedupkitError, ValueError):
    """A rule or keep policy that cannot be read; the message points at the character."""


class RangeError(DedupkitError, ValueError):
    """A number out of range."""


class RereadError(DedupkitError):
    """An image of a finished scan that cannot be read again as it was: its file moved, changed or is unreadable."""


class DamagedError(DedupkitError):
    """A file that dedupkit wrote and that is missing or no longer as it was written.

    Args:
        path: The file.
        what: What is wrong with it, as the end of a sentence about it.
    """

    def __init__(self, path: object, what: str) -> None:
        super().__init__(path, what)
        self.path, self.what = path, what

    def __str__(self) -> str:
        return f"{self.path} {self.what}; give the command that wrote it again, it makes what is lost"


class UnknownSampleError(DedupkitError, KeyError):
    """A filter cannot tell which sample of the run an example is; the message says what it lacks."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would put it in quotes


class MissingExtraError(DedupkitError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def import_optional(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra of dedupkit installs it.

    Args:
        module: dotted module name, e.g. ``"matplotlib.pyplot"``.
        extra: the extra in ``pyproject.toml`` that brings it.

    Raises:
        MissingExtraError: the top-level package is not installed. A package that is installed but fails to
            import raises its own error, unchanged, so that a broken install is not mistaken for a missing one.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(_missing(module, extra)) from error


def require(module: str, extra: str) -> None:
    """Raise :class:`MissingExtraError` unless ``module`` is installed, without importing it."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(_missing(module, extra))


def _missing(module: str, extra: str) -> str:
    needed = _requirements(extra)
    how = f"pip install {' '.join(needed)}" if needed else f"pip install '.[{extra}]' in a checkout of dedupkit"
    return f"{module.split('.')[0]} is not installed; it comes with dedupkit-vision[{extra}]: {how}"


def _requirements(extra: str) -> list[str]:
    """What an extra installs, quoted for a shell: pip finds these also where no index has this distribution."""
    from importlib import metadata
    from shlex import quote

    try:
        declared = metadata.requires("dedupkit-vision") or []
    except metadata.PackageNotFoundError:  # imported from a source tree
        return []
    ours = re.compile(rf"(\s+and\s+)?extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    found = []
    for requirement in declared:
        name, _, marker = requirement.partition(";")
        if ours.search(marker):
            rest = ours.sub("", marker).strip()
            found.append(quote(f"{name.strip()}; {rest}" if rest else name.strip()))
    return found
