"""What ``run --plan`` says, against what then happens."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import command, encode, run, write_tar
from PIL import Image
from test_projection import write_net

from dedupkit.engine import ThisProcess
from dedupkit.errors import DedupkitError
from dedupkit.runfolder import RunFolder
from dedupkit.signals import JoinSettings, known_signals
from dedupkit.signals.columns import Scanned
from dedupkit.signals.expected import Extent
from dedupkit.workflows.plan import plan_run


def counted(function: Any, done: Counter[str]) -> Any:
    """The function of an engine that runs tasks; it counts them by stage."""

    def counting(engine: Any, tasks: Any, *given: Any, **named: Any) -> Any:
        done.update(task.stage for task in tasks)
        return function(engine, tasks, *given, **named)

    return counting


def test_a_plan_states_tasks_and_bytes_and_is_near_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(4):  # more samples than are measured, of different sizes; all in pairs
        random, members = np.random.default_rng(shard // 2), []
        for number in range(400):
            pixels = random.integers(0, 256, (6, 6, 3), np.uint8)
            image = Image.fromarray(pixels).resize((96 + 32 * (shard // 2), 96), Image.Resampling.BICUBIC)
            members.append((f"{shard}{number:04d}.jpg", encode(image, quality=85 - shard % 2)))
            members.append((f"{shard}{number:04d}.txt", b"a caption"))
        write_tar(tmp_path / "in" / f"{shard:05d}.tar", members)
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    planned = plan_run(tmp_path / "in", workers=1)
    assert planned.tasks == {"scan": 4, "match": 1, "decide": 1}
    assert planned.bytes == size
    assert planned.sampled == 900
    assert 800 <= planned.samples <= 3200
    assert not planned.own_bytes
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", "1000")
    monkeypatch.setenv("DEDUPKIT_PART_SIZE", "400")
    many = plan_run(tmp_path / "in", workers=1)
    done = Counter[str]()
    monkeypatch.setattr(ThisProcess, "run", counted(ThisProcess.run, done))
    began = time.perf_counter()
    finished = run(tmp_path / "in", tmp_path / "out")
    took = time.perf_counter() - began
    assert finished.summary["samples"] == 1600
    for planned_as, stage in (("match pdq", "match-pdq"), ("decide", "decide")):
        assert done[stage] > 3
        assert done[stage] / 2 <= many.tasks[planned_as] <= done[stage] * 2
    assert many.own_bytes > 1600 * 32
    assert took / 6 < planned.seconds["total"] < took * 6  # generous: the machine does other things too
    said = command("run", tmp_path / "in", "--out", tmp_path / "none", "--plan", "--json", "--workers", "1")
    assert json.loads(said.stdout)["bytes"] == size
    assert "samples" in command("run", tmp_path / "in", "--out", tmp_path / "none", "--plan").stdout
    assert not (tmp_path / "none").exists()


def test_a_plan_counts_the_copies_that_a_projection_is_fitted_to(photos, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("onnx")
    write_net(tmp_path / "net.onnx")
    members = []
    for number in range(20):
        window = photos["astronaut"].convert("RGB").crop((number, number, number + 200, number + 160))
        members.append((f"{number:03d}.jpg", encode(window)))
    write_tar(tmp_path / "a.tar", members)
    spec = f"onnx:{tmp_path / 'net.onnx'}?project=copies"
    planned = plan_run(tmp_path / "a.tar", rule="exact or net>=0.9", embed=spec, workers=1)
    assert planned.seconds["project net"] > planned.seconds["embed net"] > 0


def test_small_shards_are_counted_exactly(photo: Image.Image, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"{number}.jpg", encode(photo.resize((64, 64)))) for number in range(7)])
    assert plan_run(tmp_path / "a.tar", workers=1).samples == 7
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(encode(photo.resize((64, 64 + number))))
    assert plan_run(folder, workers=1).samples == 5


def test_references_ranks_and_verification_are_accounted_for(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("a", 6), ("b", 3)):
        images = [(f"{name}{number}.jpg", encode(photo.resize((96 + number, 96)))) for number in range(count)]
        write_tar(tmp_path / f"{name}.tar", images)
    (tmp_path / "list.txt").write_text("example.org\nexample.com\n")
    against = [str(tmp_path / "b.tar"), str(tmp_path / "list.txt")]
    alone = plan_run(tmp_path / "a.tar", workers=1)
    more = plan_run(tmp_path / "a.tar", workers=1, against=against)
    assert more.tasks == alone.tasks | {"scan references": 1, "across": 2}
    assert more.bytes == alone.bytes + (tmp_path / "b.tar").stat().st_size
    assert more.memory["main"] > 0
    assert more.seconds["scan references"] > 0
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert plan_run(tmp_path / "a.tar", workers=2, engine="rank").workers == 8
    assert "further nodes" in plan_run(tmp_path / "a.tar", workers=2, engine="ray").left_out[0]
    hashed = {"rule": "exact", "hashes": ["phash"], "against": against, "against_rule": "exact or phash<=2"}
    assert plan_run(tmp_path / "a.tar", workers=1, **hashed).tasks["across"] == 2
    paired = plan_run(tmp_path / "a.tar", workers=1, captions="pair")
    assert paired.tasks["match"] == alone.tasks["match"] + 1  # that of the captions
    pytest.importorskip("cv2")
    said = plan_run(tmp_path / "a.tar", workers=1, rule="exact or (phash<=20 and verified)").left_out
    assert "ms a pair" in said[0]


@pytest.mark.parametrize(
    "refused",
    [
        {"keep": "-beauty"},
        {"captions": "pairs"},
        {"templates": "cap:2"},
        {"against_rule": "datacomp"},
        {"embed": "precomputed:gone.npz"},
    ],
)
def test_what_a_run_refuses_has_no_plan(tmp_path: Path, refused: dict[str, str]) -> None:
    write_tar(tmp_path / "a.tar", [])
    with pytest.raises(DedupkitError) as plan:
        plan_run(tmp_path / "a.tar", workers=1, **refused)
    with pytest.raises(DedupkitError) as instead:
        run(tmp_path / "a.tar", tmp_path / "out", **refused)
    assert str(plan.value) == str(instead.value)


CELLS = {"rows": 10**8, "cells": 40_000, "cap": 4, "margin": 0.1}


@pytest.mark.parametrize(
    ("name", "settings", "facts"),
    [
        ("pdq", JoinSettings(31), {"rows": 10**8, "distinct": 10**8}),
        ("crops", JoinSettings(16), {"rows": 6 * 10**8, "distinct": 10**8}),
        ("phash", JoinSettings(4), {"rows": 10**8, "distinct": 10**8}),
        ("lite", JoinSettings(0.9), {"plan": CELLS, "facts": {"distinct": 10**8}}),
        ("lite", JoinSettings(math.inf, floor=0.6), {"plan": CELLS, "facts": {"ranks": {"k": 4}}}),
    ],
)
def test_as_many_tasks_are_expected_of_a_large_join_as_its_steps_make(
    name: str, settings: JoinSettings, facts: dict[str, Any], tmp_path: Path
) -> None:
    signal = known_signals({"lite": "lite"})[name]
    expected = signal.expected(Extent(10**8), settings)
    steps = signal.steps(Scanned(RunFolder(tmp_path), 1), settings, "", 10**8)
    assert steps is not None
    lists = [next(steps)]
    while lists[-1][0].name != "00000":  # the pairs
        each = facts | {"distinct": facts.get("distinct", 0) // len(lists[-1])}  # the tasks share the hashes
        lists.append(steps.send([each] * len(lists[-1])))
    assert expected.tasks == sum(map(len, lists)) > 4
    assert expected.nbytes > 10**8 * 8
    assert 0 < expected.memory < 16 << 30
    assert expected.seconds > 1


def test_a_search_for_neighbours_and_pairs_at_once_is_expected_as_one_task() -> None:
    signal = known_signals({"lite": "lite"})["lite"]
    assert signal.expected(Extent(10**8), JoinSettings(0.9, floor=0.6)).tasks == 1
