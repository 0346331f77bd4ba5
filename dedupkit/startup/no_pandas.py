"""Keep pandas out of processes that have no use for it."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

__all__ = ["leave_pandas_out"]


class _NoPandas(MetaPathFinder):
    """An import hook that finds pandas missing when pyarrow looks for it on behalf of dedupkit."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name != "pandas":
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
            frame = frame.f_back
        # pyarrow is compiled and has no frame: whoever called it is the one that asks.
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("dedupkit", "pyarrow"):
            raise ModuleNotFoundError(name, name=name)


def leave_pandas_out() -> None:
    """Keep pyarrow from loading pandas in this process, for processes that are dedupkit's own.

    Where pandas is installed, pyarrow imports it as soon as it converts a Python value: a third of a second in each
    process of a run, and nothing here uses it. pyarrow remembers that it found none; others can import it still.
    """
    sys.meta_path.insert(0, _NoPandas())
