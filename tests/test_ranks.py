"""Several processes that run the same command over one run folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, environment, one_line, run
from s3 import boto, serving

import dedupkit as dk
from dedupkit.engine import Task
from dedupkit.engine.board import Batch, Board, Session
from dedupkit.engine.heartbeat import Heartbeat, Pulse
from dedupkit.engine.helper import Helper
from dedupkit.engine.place import Place, Timing, place_of, timing_of
from dedupkit.engine.rank import Ranks
from dedupkit.engine.room import FolderRoom, ObjectRoom
from dedupkit.engine.share import share_first
from dedupkit.errors import DedupkitError
from dedupkit.manifest.export import apply
from dedupkit.store import Bucket

QUICK = Timing(timeout=1.5, patience=20, late=1, poll=0.05)


def outcome(out: Path) -> dict[str, bytes]:
    """What a run gives, byte for byte."""
    return {name: (out / name).read_bytes() for name in ("manifest.parquet", "groups.parquet")}


def start(
    rank: int, world: int, shards: Path | str, out: Path | str, *more: str, **variables: str
) -> subprocess.Popen[str]:
    return start_command(rank, world, "run", str(shards), "--out", str(out), *more, **variables)


def start_command(rank: int, world: int, *words: str, **variables: str) -> subprocess.Popen[str]:
    place = {"RANK": str(rank), "WORLD_SIZE": str(world), "DEDUPKIT_JOB": "17.0.", "DEDUPKIT_RANK_TIMEOUT": "5"}
    return subprocess.Popen(
        [sys.executable, "-m", "dedupkit.cli", *words, "--engine", "rank"],
        env=environment({**place, **variables}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ended(processes: list[subprocess.Popen[str]], within: float = 90) -> list[tuple[int, str]]:
    return [(process.returncode, error) for process in processes for _, error in [process.communicate(timeout=within)]]


# Whole runs -----------------------------------------------------------------------------------------------------------


def test_four_ranks_by_the_sbatch_script_give_the_bytes_of_one_process(shards: Path, tmp_path: Path) -> None:
    """A stand-in for srun starts the processes; rank 0 last."""
    run(shards, tmp_path / "one")
    programs, out = tmp_path / "bin", tmp_path / "ranks"
    programs.mkdir()
    (programs / "dedupkit").write_text(f'#!/bin/bash\nexec "{sys.executable}" -m dedupkit.cli "$@"\n')
    (programs / "srun").write_text(
        """#!/bin/bash
        while [[ "$1" == --* ]]; do shift; done
        for rank in 3 2 1; do SLURM_PROCID=$rank "$@" & done
        SLURM_PROCID=0 "$@"; first=$?
        wait || exit 1
        exit $first
        """
    )
    for file in programs.iterdir():
        file.chmod(0o755)
    script = ROOT / "examples" / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert subprocess.run(["bash", script], capture_output=True).returncode == 2  # it says how it is used
    slurm = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "1"}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", script, shards, out], env=environment({**slurm, "PATH": path}), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert outcome(out) == outcome(tmp_path / "one")
    for source, to in ((tmp_path / "one", tmp_path / "a"), (out, tmp_path / "b")):
        apply(source, to, workers=1)
    cleaned = [{path.name: path.read_bytes() for path in sorted((tmp_path / name).glob("*.tar"))} for name in "ab"]
    assert cleaned[0] == cleaned[1] != {}
    assert [path.name for path in (out / ".ranks").iterdir()] == ["session.json"]
    (code, error), *_ = ended([start(2, 4, shards, out)])  # rank 0 has ended: nothing is left to do
    assert (code, error) == (0, "")


def test_four_ranks_that_share_a_bucket_alone_give_the_bytes_of_one_process(shards: Path, tmp_path: Path) -> None:
    """Each rank has a scratch folder of its own; requests fail now and then."""
    with serving() as server:
        server.make("bucket")
        for path in shards.iterdir():
            boto().upload_file(str(path), "bucket", f"data/{path.name}")
        rule = "exact or (phash<=10 and verified)"
        run("s3://bucket/data", tmp_path / "one", rule=rule)
        apply(tmp_path / "one", tmp_path / "clean", workers=1)
        server.busy = 0.02
        ranks = []
        for rank in (0, 1, 2, 3):
            scratch = {"DEDUPKIT_SCRATCH": str(tmp_path / f"scratch-{rank}")}
            more = ["--rule", rule, "--workers", "1"]
            ranks.append(start(rank, 4, "s3://bucket/data", "s3://bucket/run", *more, **scratch))
        assert [code for code, _ in ended(ranks, 300)] == [0] * 4
        writers = []
        for rank in (0, 1):
            scratch = {"DEDUPKIT_SCRATCH": str(tmp_path / f"scratch-{rank + 2}")}  # rank 0 has nothing here yet
            words = ("apply", "s3://bucket/run", "--to", "s3://bucket/clean", "--workers", "1")
            writers.append(start_command(rank, 2, *words, **scratch))
        assert [code for code, _ in ended(writers, 300)] == [0] * 2
        server.calm()
        there, clean = server.objects("s3://bucket/run"), server.objects("s3://bucket/clean")
    local = {path.name: path.read_bytes() for path in (tmp_path / "clean").glob("*.tar")}
    assert {name: data for name, data in clean.items() if name.endswith(".tar")} == local != {}
    assert not [name for name in clean if "/tasks/" in name or name.endswith("/made")]
    assert {name: there[name] for name in outcome(tmp_path / "one")} == outcome(tmp_path / "one")
    assert {name for name in there if name.startswith(".ranks")} == {".ranks/session.json"}
    worked = [rank for rank in range(4) if list((tmp_path / f"scratch-{rank}").rglob("samples/*.parquet"))]
    assert len(worked) == 4


def test_ranks_share_the_tasks_of_a_join(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "one", rule="pdq<=31")
    more = {"DEDUPKIT_JOIN_TASKS_FROM": "1"}
    started = [
        start(rank, 2, shards, tmp_path / "out", "--rule", "pdq<=31", "--workers", "1", **more) for rank in (0, 1)
    ]
    assert [code for code, _ in ended(started)] == [0, 0]
    assert outcome(tmp_path / "out") == outcome(tmp_path / "one")
    assert len(list(tmp_path.glob("out/edges/pdq/*.parquet"))) > 1


def test_ranks_share_the_shards_that_apply_writes(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run")
    apply(tmp_path / "run", tmp_path / "one", shard_size=5)
    words = ("apply", str(tmp_path / "run"), "--to", str(tmp_path / "two"), "--shard-size", "5", "--workers", "1")
    started = [start_command(rank, 2, *words) for rank in (1, 0)]
    said = [process.communicate(timeout=90) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    written = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.tar")} for name in ("one", "two")]
    assert written[0] == written[1] != {}
    assert "wrote" in said[1][0]
    assert re.fullmatch(r"did \d+ of rank 0's tasks\n", said[0][0])


def test_one_file_is_for_one_process(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run")
    with pytest.raises(DedupkitError, match="urls is one file, which one process writes"):
        apply(tmp_path / "run", tmp_path / "urls", format="urls", engine="rank")


def test_a_second_rank_0_is_refused_by_the_lock(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "out")
    from dedupkit.runfolder import RunFolder

    with RunFolder(tmp_path / "out").locked():
        (code, error), *_ = ended([start(0, 2, shards, tmp_path / "out")])
    assert code == 1
    assert "another run is writing" in one_line(error)


# The mechanism --------------------------------------------------------------------------------------------------------


def note(number: int, log: str, seconds: float = 0.0) -> dict[str, Any]:
    """Notes that it ran, and where."""
    with open(log, "a") as file:
        file.write(f"{number} {os.environ.get('TEST_RANK', '0')}\n")
    time.sleep(seconds)
    return {"number": number, "samples": 1}


def fail(log: str) -> dict[str, Any]:
    if os.environ.get("TEST_RANK"):
        raise DedupkitError("no such thing here")
    time.sleep(60)
    return {}


def tasks(count: int, log: Path, seconds: float = 0.0, call: Callable[..., dict[str, Any]] = note) -> list[Task]:
    return [
        Task("stage", f"{number:05d}", partial(call, number=number, log=str(log), seconds=seconds), "k", isolated=True)
        for number in range(count)
    ]


HELPER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ranks import QUICK
from dedupkit.engine.helper import Helper
from dedupkit.engine.place import Place
print(Helper(Path(sys.argv[1]), Place(int(sys.argv[2]), 3, "job", "life" + sys.argv[2]), 1, QUICK).help())
"""


def helper(out: Path, rank: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HELPER.format(tests=str(Path(__file__).parent)), str(out), str(rank)],
        env=environment({"TEST_RANK": str(rank)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_every_task_runs_once_and_what_a_killed_rank_had_taken_is_made_up_for(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    log.touch()
    helpers = [helper(out, 1), helper(out, 2)]
    retries = []

    def kill_one(task: Task, result: dict[str, Any]) -> None:
        if helpers[0].poll() is None and f" {1}\n" in log.read_text():
            helpers[0].kill()

    with Ranks(out, Place(0, 3, "job", "life"), 1, QUICK) as engine:
        results = engine.run(
            tasks(24, log, 0.25), out, on_done=kill_one, observe=lambda _, cost: retries.append(cost.retries)
        )
    assert [result["number"] for result in results] == list(range(24))
    said = [process.communicate(timeout=30) for process in helpers]
    assert helpers[0].returncode == -signal.SIGKILL, said
    assert helpers[1].returncode == 0, said
    lines = [line.split() for line in log.read_text().splitlines()]
    assert {rank for _, rank in lines} == {"0", "1", "2"}
    assert len(lines) <= 24 + 2  # what the killed rank was at, and what its worker had begun
    assert len(retries) == 24


def test_an_error_on_any_rank_ends_the_run_and_names_the_rank(tmp_path: Path) -> None:
    process = helper(tmp_path, 1)
    bad = [Task("stage", f"{number}", partial(fail, log=""), "k", isolated=True) for number in range(2)]
    with (
        pytest.raises(DedupkitError, match="rank 1: no such thing here"),
        Ranks(tmp_path, Place(0, 2, "job", "life"), 1, QUICK) as engine,
    ):
        engine.run([*tasks(1, tmp_path / "log", 3), *bad], tmp_path)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no such thing here" in error


def test_a_helper_says_that_rank_0_is_gone(tmp_path: Path) -> None:
    board = Board(tmp_path, "token")
    board.open()
    Board.write_session(tmp_path, Session("token", dk.__version__, "0-x", "job"))
    with Heartbeat(board.heartbeat("0-x"), 0.05):
        joined = Helper(tmp_path, Place(1, 2, "job", "x"), 1, QUICK)._joined()
        assert joined is not None
        began = time.monotonic()
    with pytest.raises(DedupkitError, match="did not begin"):  # its file is there, but nothing changes in it
        Helper(tmp_path, Place(1, 2, "job", "x"), 1, Timing(1, 1, 1, 0.05)).help()
    assert time.monotonic() - began < 10


def test_a_helper_that_looks_just_as_rank_0_ends_has_not_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, read = Board.session, Board.batch
    engine = Ranks(tmp_path, Place(0, 2, "job", "life"), 1, QUICK)
    engine._opened()
    joined = []

    def batch(board: Board, number: int, who: str) -> Any:
        joined.append(who)
        return read(board, number, who)

    def session(out: Path) -> Session | None:
        seen = look(out)
        if joined:
            engine.__exit__(None, None, None)  # after what the helper has just read
        return seen

    monkeypatch.setattr(Board, "close", lambda board: None)  # a store takes a while to remove what is there
    monkeypatch.setattr(Board, "batch", batch)
    monkeypatch.setattr(Board, "session", session)
    assert Helper(tmp_path, Place(1, 2, "job", "x"), 1, QUICK).help() == 0
    assert len(joined) > 1


def test_a_rank_of_another_version_says_so(tmp_path: Path) -> None:
    board = Board(tmp_path, "token")
    board.open()
    said = {"token": "token", "version": "0.0.1", "first": "0-x", "job": "job", "ended": False, "unknown": 1}
    board.room.write_record("session.json", said)
    helper = Helper(tmp_path, Place(1, 2, "job", "x"), 1, Timing(1, 0.3, 1, 0.05))
    with pytest.raises(DedupkitError, match="did not begin"):  # a killed run left it: this rank 0 is yet to come
        helper.help()
    with (
        Heartbeat(board.heartbeat("0-x"), 0.05),
        pytest.raises(DedupkitError, match=r"rank 1 has dedupkit .*, rank 0 has 0\.0\.1"),
    ):
        helper.help()


def test_a_helper_that_comes_after_the_end_has_nothing_to_do(tmp_path: Path) -> None:
    Board.write_session(tmp_path, Session("token", dk.__version__, "0-x", "job", ended=True))
    assert Helper(tmp_path, Place(1, 2, "job", "x"), 1, QUICK).help() == 0
    assert Helper(tmp_path, Place(1, 2, "another", "x"), 1, QUICK).help() == 0  # after a while: no new one begins


def test_a_command_that_failed_may_be_given_again_in_the_same_step_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Session("first", dk.__version__, "0-x", "job", ended=True, failure="no room")
    said = iter([failed, failed, Session("second", dk.__version__, "0-y", "job", ended=True)])
    helper = Helper(tmp_path, Place(1, 2, "job", "x"), 1, Timing(1, 5, 0.3, 0.05))
    with monkeypatch.context() as patch:
        patch.setattr(Board, "session", lambda out: next(said))
        assert helper.help() == 0
    Board.write_session(tmp_path, failed)
    with pytest.raises(DedupkitError, match="rank 0 failed: no room"):
        helper.help()


def test_signs_of_life_need_no_clock(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    with Heartbeat(path, 0.05):
        pulse = Pulse(path, 0.5)
        for _ in range(10):
            os.utime(path, (0, 0))  # a server whose clock stands in another year
            time.sleep(0.1)
            assert pulse.alive()
        assert pulse.beats()
    assert not pulse.alive()  # it has left, which is known at once


def test_a_rank_that_is_late_leaves_nothing_in_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once rank 0 has closed the session, or while it does."""
    bucket = Bucket("memory://late/run")
    room = ObjectRoom(bucket, ".ranks")
    late = ObjectRoom(Bucket("memory://late/run"), ".ranks")
    for folder in ("one", "one/0.claims", "one/0.said"):
        room.make(folder)
    assert late.take("one/0.claims", "0", "1-x")
    late.say("one/0.said", "1-x", "done")
    late.note("one/alive-1-x").write_text("1")
    assert (list(room.heard("one/0.said")), late.note("one/alive-1-x").read_text()) == (["done"], "1")
    remove, taken = Bucket.remove, []

    def busy(self: Bucket, names: Any) -> None:
        if not taken:
            taken.append(late.take("one/0.claims", "1", "1-x"))  # after rank 0 has listed what is there
        remove(self, names)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "remove", busy)
        room.leave("one")
    assert taken == [True]
    assert not bucket.find()
    assert not late.take("one/0.claims", "0", "1-x")
    late.say("one/0.said", "1-x", "done again")
    with pytest.raises(FileNotFoundError, match="gone"):
        late.note("one/alive-1-x").write_text("2")
    assert not bucket.find()


def test_rank_0_lists_the_reports_of_others_in_a_store_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = [(number, {"number": number}) for number in range(50)]
    monkeypatch.setattr("dedupkit.engine.rank.take_share", lambda *_, **__: iter(done))
    heard: list[str] = []
    monkeypatch.setattr(Batch, "reports", lambda batch: iter(heard.append(batch.name) or []))
    monkeypatch.setattr(FolderRoom, "pause", 60.0)  # that of objects is a second
    with Ranks(tmp_path, Place(0, 2, "job", "life"), 1, QUICK) as engine:
        assert engine.run(tasks(50, tmp_path / "log"), tmp_path) == [result for _, result in done]
    assert len(heard) == 1


def test_each_rank_tries_its_own_share_first_and_then_everything() -> None:
    for count, world in ((0, 1), (5, 2), (7, 3), (3, 8)):
        orders = [share_first(count, rank, world) for rank in range(world)]
        assert all(sorted(order) == list(range(count)) for order in orders)
        own = [order[: len(range(rank, count, world))] for rank, order in enumerate(orders)]
        assert sorted(position for share in own for position in share) == list(range(count))


def test_a_place_that_is_none_is_refused() -> None:
    assert place_of({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}).job == "7.."
    for environ in ({}, {"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "x", "WORLD_SIZE": "4"}, {"RANK": "1"}):
        with pytest.raises(DedupkitError, match="WORLD_SIZE"):
            place_of(environ)
    with pytest.raises(DedupkitError, match="DEDUPKIT_RANK_TIMEOUT"):
        timing_of({"DEDUPKIT_RANK_TIMEOUT": "soon"})
