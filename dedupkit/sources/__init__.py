"""Readers: every source becomes an ordered list of shards, every shard a stable stream of samples."""

from dedupkit.sources.find import find_shards
from dedupkit.sources.sample import Sample, Shard, ShardError

__all__ = ["Sample", "Shard", "ShardError", "find_shards"]
