"""Workers that are killed again and again, in every stage, cost what they were at and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers import children, run
from PIL import Image
from reaper import RULE, Reaper, many_shards, titled

pytest.importorskip("cv2", reason="could not import cv2")

ROUNDS = 20 if os.environ.get("DEDUPKIT_HOSTILE") else 1


@pytest.mark.parametrize("first", [1 + number % 4 for number in range(ROUNDS)])
def test_killed_workers_change_no_byte_and_repeat_no_finished_task(
    photos: dict[str, Image.Image], tmp_path: Path, first: int
) -> None:
    data, out = many_shards(tmp_path / "data", photos), tmp_path / "out"
    run(data, tmp_path / "one", rule=RULE)

    def workers() -> list[int]:
        return sorted({*children(os.getpid())} & {*titled("dedupkit.engine.worker")})

    with Reaper(out, workers, first) as reaper:
        run(data, out, rule=RULE, workers=2)
    stages = json.loads((out / "progress.json").read_text())["stages"]
    for name in ("manifest.parquet", "groups.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert reaper.kills >= 7
    assert all(stage["executed"] == stage["tasks"] for stage in stages.values())
    assert sum(stage["retries"] for stage in stages.values()) <= reaper.kills
