"""A Ray cluster of three nodes on this machine; the nodes share the file system, nothing else."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, environment, one_line, run
from PIL import Image
from reaper import RULE, Reaper, done, many_shards, titled
from s3 import S3, boto, serving

import dedupkit as dk
from dedupkit.engine import Task
from dedupkit.engine._ray_worker import Done, Request, Shown, execute_here
from dedupkit.engine.ray_tasks import RayCluster
from dedupkit.engine.travel import Parcel, pack
from dedupkit.errors import DedupkitError
from dedupkit.manifest.export import apply

ray = pytest.importorskip("ray", reason="could not import ray")


@pytest.fixture(scope="module")
def store() -> Iterator[S3]:
    """A real S3 server on loopback."""
    with serving() as server:
        server.make("bucket")
        yield server


@pytest.fixture(scope="module")
def cluster(store: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three nodes of one core, each with its own scratch; the workers find this package and these tests."""
    from ray.cluster_utils import Cluster

    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent), *([path] if path else [])])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - 15 otherwise, too slow on a busy machine
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    scratch = tmp_path_factory.mktemp("scratch")
    nodes = [{**small, "env_vars": {"DEDUPKIT_SCRATCH": str(scratch / str(number))}} for number in range(3)]
    made = Cluster(initialize_head=True, head_node_args={**nodes[0], "include_dashboard": False})
    made.scratch = scratch
    for node in nodes[1:]:
        made.add_node(**node)
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()
    if path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = path


def outcome(out: Path) -> dict[str, bytes]:
    """What a run gives, byte for byte."""
    return {name: (out / name).read_bytes() for name in ("manifest.parquet", "groups.parquet")}


def note(number: int, log: str, seconds: float = 0.0) -> dict[str, Any]:
    """Notes that it began, in which process and below which parent, a raylet."""
    with open(log, "a") as file:
        file.write(f"{number} {os.getpid()} {os.getppid()}\n")
    time.sleep(seconds)
    return {"number": number}


def die(number: int, log: str) -> dict[str, Any]:
    """Ends its process the first time."""
    note(number, log)
    if sum(line.startswith(f"{number} ") for line in Path(log).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"number": number}


def fail() -> dict[str, Any]:
    raise DedupkitError("name the tars")


def tasks(count: int, log: Path, seconds: float = 0.0, **more: Any) -> list[Task]:
    calls = [partial(note, number=number, log=str(log), seconds=seconds) for number in range(count)]
    return [Task("stage", f"{number:05d}", call, "k", f"shard {number}", **more) for number, call in enumerate(calls)]


def begun(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_three_nodes_two_processes_and_one_process_give_the_same_bytes(
    cluster: Any, shards: Path, tmp_path: Path
) -> None:
    run(shards, tmp_path / "one")
    run(shards, tmp_path / "two", workers=2)
    dk.dedup(shards, tmp_path / "ray", engine="ray", workers=1)
    for name in ("one", "two", "ray"):
        apply(tmp_path / name, tmp_path / f"{name}-clean", workers=1, engine="ray" if name == "ray" else "local")
        assert outcome(tmp_path / name) == outcome(tmp_path / "one")
        cleaned = {path.name: path.read_bytes() for path in (tmp_path / f"{name}-clean").glob("*.tar")}
        assert cleaned == {path.name: path.read_bytes() for path in (tmp_path / "one-clean").glob("*.tar")} != {}
    new = shards / "{00003..00005}.tar"
    dk.update(tmp_path / "one", str(new), tmp_path / "new", workers=0)
    dk.update(tmp_path / "one", str(new), tmp_path / "new-ray", engine="ray", workers=1)
    assert outcome(tmp_path / "new-ray") == outcome(tmp_path / "new")


def test_nodes_that_share_a_bucket_alone_give_the_same_bytes(
    cluster: Any, store: S3, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards, run folder and cleaned shards in a bucket, with verification, whose tasks read what others wrote."""
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "driver"))
    for path in shards.iterdir():
        boto().upload_file(str(path), "bucket", f"data/{path.name}")
    rule = "exact or (phash<=40 and verified)"
    run("s3://bucket/data", tmp_path / "one", rule=rule)
    apply(tmp_path / "one", tmp_path / "clean", workers=1)
    dk.dedup("s3://bucket/data", "s3://bucket/run", rule=rule, engine="ray", workers=1)
    apply("s3://bucket/run", "s3://bucket/clean", engine="ray", workers=1)
    apply("s3://bucket/run", tmp_path / "shared", engine="ray", workers=1)
    there = store.objects("s3://bucket/run")
    assert {name: there[name] for name in outcome(tmp_path / "one")} == outcome(tmp_path / "one")
    cleaned = {path.name: path.read_bytes() for path in (tmp_path / "clean").glob("*.tar")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "shared").glob("*.tar")} == cleaned != {}
    there = store.objects("s3://bucket/clean")
    assert {name: there[name] for name in cleaned} == cleaned
    assert not [name for name in there if "/tasks/" in name], "markers of the call are gone"
    before = store.dates("s3://bucket/clean")
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "another driver"))
    apply("s3://bucket/run", "s3://bucket/clean", engine="ray", workers=1)
    again = store.dates("s3://bucket/clean")
    assert {name: again[name] for name in cleaned} == {name: before[name] for name in cleaned}, "all were whole"
    worked = [node for node in cluster.scratch.iterdir() if list(node.rglob("*.parquet"))]
    assert worked, "the tasks ran on the nodes"


def test_joins_and_decisions_in_many_tasks_give_the_same_bytes(
    cluster: Any, store: S3, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that share files, and nodes that share a bucket alone: what one task leaves for another, and the driver."""
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "driver"))
    run(shards, tmp_path / "one", rule="pdq<=31")
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", "1")
    monkeypatch.setenv("DEDUPKIT_PART_SIZE", "24")
    dk.dedup(shards, tmp_path / "ray", rule="pdq<=31", engine="ray", workers=1)
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "one")
    stages = json.loads((tmp_path / "ray" / "progress.json").read_text())["stages"]
    assert min(stages[stage]["executed"] for stage in ("match pdq", "decide")) > 1
    dk.dedup(shards, "s3://bucket/joined", rule="pdq<=31", engine="ray", workers=1)
    there = store.objects("s3://bucket/joined")
    assert {name: there[name] for name in outcome(tmp_path / "one")} == outcome(tmp_path / "one")
    assert len([name for name in there if name.startswith("edges/pdq/")]) > 1
    assert not [name for name in there if "/parts/" in name or ".next" in name]


def test_a_killed_worker_and_a_killed_node_cost_what_they_were_at(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    log = tmp_path / "log"
    log.touch()
    (tmp_path / "out").mkdir()
    dying = [Task("stage", "die", partial(die, number=99, log=str(log)), "k", "a killer", isolated=True)]
    retries: dict[str, int] = {}
    killed = []

    def kill_node(task: Task, result: dict[str, Any]) -> None:
        if len(begun(log)) > 8 and not killed:
            killed.append(node)
            cluster.remove_node(node, allow_graceful=False)

    with RayCluster(None, 1) as engine:
        results = engine.run(
            [*dying, *tasks(24, log, 0.2)],
            tmp_path / "out",
            on_done=kill_node,
            observe=lambda task, cost: retries.update({task.name: cost.retries}),
        )
        assert [result["number"] for result in results] == [99, *range(24)]
        assert killed
        assert retries["die"] == 1
        assert len(begun(log)) <= 25 + 3
        engine.run([*dying, *tasks(24, log, 0.2)], tmp_path / "out")  # all is done
        assert len(begun(log)) <= 25 + 3


def test_actors_keep_one_process_for_tasks_that_run_alone(cluster: Any, tmp_path: Path) -> None:
    with RayCluster(None, 1) as engine:
        engine.run(tasks(9, tmp_path / "log", 0.1, alone=True), tmp_path)
    processes = [process for _, process, _ in begun(tmp_path / "log")]
    assert len(processes) == 9
    assert 1 <= len(set(processes)) <= 3


def test_errors_of_tasks_are_ours_and_end_the_stage(cluster: Any, tmp_path: Path) -> None:
    bad = Task("stage", "bad", fail, "k", "a shard")
    with RayCluster(None, 1) as engine, pytest.raises(DedupkitError, match=r"^name the tars$"):
        engine.run([bad], tmp_path)
    with RayCluster(None, 1) as engine, pytest.raises(DedupkitError, match="does not see"):
        engine.run(tasks(1, tmp_path / "log"), tmp_path / "not" / "there")


def test_a_node_of_another_version_says_so(tmp_path: Path) -> None:
    said = execute_here(Request("0.0.1", Parcel(str(tmp_path), b"never read"), False, ""))
    assert isinstance(said, Shown)
    assert "the command has 0.0.1; install the same version" in str(said.error)


def test_relative_paths_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raylet works in the directory in which it was started; a node need not have that of the command."""
    monkeypatch.setattr(gc, "freeze", lambda: None)  # this process goes on
    (tmp_path / "node").mkdir()
    monkeypatch.chdir(tmp_path / "node")
    for number, directory in enumerate((tmp_path, tmp_path / "none")):
        job = Task("stage", f"{number}", partial(note, number=number, log="log"), "k")
        said = execute_here(Request(dk.__version__, pack(job, tmp_path), False, str(directory)))
        assert isinstance(said, Done)
        assert [line[0] for line in begun(tmp_path / "log")] == ["0", "1"][: number + 1]


def test_kills_in_all_stages_change_no_byte_and_repeat_no_finished_task(
    cluster: Any, photos: dict[str, Image.Image], tmp_path: Path
) -> None:
    """Workers while they execute tasks, a node, and the command, which is then given again."""
    data, out = many_shards(tmp_path / "data", photos), tmp_path / "out"
    run(data, tmp_path / "one", rule=RULE)
    arguments = [sys.executable, "-m", "dedupkit.cli", "run", data, "--out", out, "--engine", "ray"]
    arguments += ["--address", cluster.address, "--workers", "1", "--rule", RULE]
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    kills = 0
    for begin, end in ((0, 9), (9, 24), (24, None)):  # numbers of finished tasks
        process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        before = done(out)
        also = {end: process.kill} if end else {begin: lambda: cluster.remove_node(node, allow_graceful=False)}
        with Reaper(out, lambda: titled("ray::execute_here"), begin + 2, 4, also) as reaper:
            _, said = process.communicate(timeout=300)
        assert process.returncode == (-signal.SIGKILL if end else 0), said
        kills += reaper.kills + 1
        after = done(out)
        assert {name: file for name, file in before.items() if after.get(name, file) != file} == {}
    assert kills >= 8
    assert outcome(out) == outcome(tmp_path / "one")


def test_no_cluster_is_one_line(shards: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "dedupkit.cli", "run", shards, "--out", tmp_path / "out", "--engine", "ray"]
    said = subprocess.run(
        [*arguments, "--address", "nonsense"], env=environment(), capture_output=True, text=True, timeout=100
    )
    assert said.returncode == 1
    assert "no Ray cluster at nonsense" in one_line(said.stderr)
