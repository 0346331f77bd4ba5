"""Workers that are killed again and again, in every stage, cost what they were at and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers import children, run
from PIL import Image
from reaper import RULE, Reaper, done, many_shards, titled

from dedupkit.engine.process import WorkerDied

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

    finished, ended = dict[str, int](), False
    with Reaper(out, workers, first) as reaper:
        while not ended:
            try:
                run(data, out, rule=RULE, workers=2)
                ended = True
            except WorkerDied:  # one task met two kills; the message says to give the same command again
                pass
            before, finished = finished, done(out)
            assert {name: file for name, file in before.items() if finished.get(name, file) != file} == {}
            stages = json.loads((out / "progress.json").read_text())["stages"]
            assert all(stage["executed"] <= stage["tasks"] for stage in stages.values())
    for name in ("manifest.parquet", "groups.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert reaper.kills >= 7
    assert sum(stage["retries"] for stage in stages.values()) <= reaper.kills
