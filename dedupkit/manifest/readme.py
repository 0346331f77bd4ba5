"""The README.md beside cleaned shards, by which Hugging Face ``datasets`` and the Hub know what to load."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["readme"]


def readme(sizes: Mapping[str, int], pattern: str) -> dict[str, bytes]:
    """A README.md whose ``configs`` name the shards, so that ``load_dataset("clean/")`` loads them and nothing else.

    Args:
        sizes: Samples in each shard by file name.
        pattern: Glob of the shards, relative to the folder.

    >>> print(readme({"00000.tar": 8}, "*.tar")["README.md"].decode().split("---")[1].strip())
    configs:
    - config_name: default
      data_files:
      - split: train
        path: "*.tar"
    """
    samples = sum(sizes.values())
    shards = f"{len(sizes):,} shard" + "s" * (len(sizes) != 1)
    text = f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: "{pattern}"
---

The {samples:,} images that dedupkit kept, in {shards}. Load them with Hugging Face `datasets`:

```python
from datasets import load_dataset

data = load_dataset("path/to/this/folder", split="train", streaming=True)
```
"""
    return {"README.md": text.encode()}
