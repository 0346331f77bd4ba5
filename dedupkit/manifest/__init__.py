"""The verdicts as tables, as cleaned shards, as lists, and as a filter while training."""

from dedupkit.manifest.filter import KeepFilter, keep_filter

__all__ = ["KeepFilter", "keep_filter"]
