"""A demonstration whose right answer is known: a small web of real photos, downloaded, cleaned and checked."""

from dedupkit.demo.story import run_demo

__all__ = ["run_demo"]
