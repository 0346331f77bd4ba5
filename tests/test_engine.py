"""Tasks in this process and in workers: results, deaths, errors, markers, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, children, command, environment, jpegs, one_line, python, run, verdicts, write_tar
from PIL import Image

import dedupkit as dk
from dedupkit.engine import LocalProcesses, Progress, Task, WorkerDied, cache_key, run_tasks
from dedupkit.errors import DedupkitError, RuleError
from dedupkit.sources import ShardError
from dedupkit.startup.cores import worker_count

ERRORS: dict[str, Callable[[], BaseException]] = {
    "dedupkit": lambda: DedupkitError("name the tars"),
    "rule": lambda: RuleError("no such signal"),
    "shard": lambda: ShardError("cut at byte 5"),
    "disk": lambda: OSError(28, "No space left on device", "/somewhere/file"),
    "bug": lambda: ZeroDivisionError("division by zero"),
}


# The tasks; a worker imports this module to find them. ---------------------------------------------------------------


def square(number: int, log: str) -> dict[str, Any]:
    """Notes that it ran and in which process, and prints, which must not disturb the worker's replies."""
    print("a library that prints", number)
    with open(log, "a") as file:
        file.write(f"{number} {os.getpid()}\n")
    return {"square": number * number, "samples": 1}


def die(times: int, log: str) -> dict[str, Any]:
    """Kill this very process, the first ``times`` times."""
    with open(log, "a") as file:
        file.write("x")
    if os.path.getsize(log) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"tries": os.path.getsize(log)}


def fail(kind: str) -> dict[str, Any]:
    raise ERRORS[kind]()


def ask_again(log: str) -> dict[str, Any]:
    with open(log, "a") as file:
        file.write("x")
    return {"problem": "gone", "retry": True}


def task(name: str, function: Callable[..., dict[str, Any]], key: str = "k", label: str = "", **arguments: Any) -> Task:
    return Task("stage", name, partial(function, **arguments), key, label)


def squares(count: int, log: Path, key: str = "k") -> list[Task]:
    return [task(f"{number:05d}", square, key, number=number, log=str(log)) for number in range(count)]


def ran(log: Path) -> list[int]:
    return sorted(int(line.split()[0]) for line in log.read_text().splitlines()) if log.exists() else []


def markers(out: Path) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in sorted(out.glob(".done/stage/*.json"))}


# Results ------------------------------------------------------------------------------------------------------------


def test_workers_give_what_this_process_gives(tmp_path: Path) -> None:
    results = {}
    for workers in (1, 2, 5):
        out, log = tmp_path / str(workers), tmp_path / f"{workers}.log"
        seen: list[str] = []
        results[workers] = run_tasks(
            squares(4, log), out, workers=workers, on_done=lambda one, _, seen=seen: seen.append(one.name)
        )
        assert sorted(seen) == [f"{number:05d}" for number in range(4)]
        assert ran(log) == list(range(4))
        processes = {line.split()[1] for line in log.read_text().splitlines()}
        assert (processes == {str(os.getpid())}) == (workers == 1)
        assert len(processes) <= workers
    assert results[1] == results[2] == results[5] == [{"square": n * n, "samples": 1} for n in range(4)]
    assert markers(tmp_path / "1") == markers(tmp_path / "2")


def test_no_worker_outlives_the_tasks(tmp_path: Path) -> None:
    run_tasks(squares(4, tmp_path / "log"), tmp_path / "out", workers=2)
    for line in (tmp_path / "log").read_text().splitlines():
        assert_gone(int(line.split()[1]))


def test_no_tasks_are_no_work(tmp_path: Path) -> None:
    assert run_tasks([], tmp_path, workers=4) == []


# Markers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_done_is_not_done_again(tmp_path: Path, workers: int) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    run_tasks(squares(2, log), out, workers=workers)
    seen: list[str] = []
    again = run_tasks(squares(4, log), out, workers=workers, on_done=lambda one, _: seen.append(one.name))
    assert [result["square"] for result in again] == [0, 1, 4, 9]
    assert ran(log) == [0, 1, 2, 3]
    assert len(seen) == 4  # progress counts what was there as well


def test_another_key_runs_again(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    run_tasks(squares(2, log), out, workers=1)
    run_tasks(squares(2, log, key="other"), out, workers=1)
    assert ran(log) == [0, 0, 1, 1]
    assert {marker["key"] for marker in markers(out).values()} == {"other"}


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"key": "k"}', '{"key": "k", "result": 5}'])
def test_a_marker_that_is_no_marker_runs_again(tmp_path: Path, contents: str) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    (one,) = squares(1, log)
    run_tasks([one], out, workers=1)
    one.marker(out).write_text(contents)
    assert run_tasks([one], out, workers=1) == [{"square": 0, "samples": 1}]
    assert ran(log) == [0, 0]


def test_a_result_that_asks_for_it_is_tried_again_by_the_next_run(tmp_path: Path) -> None:
    one = task("00000", ask_again, log=str(tmp_path / "log"))
    for times in (1, 2):
        assert run_tasks([one], tmp_path, workers=1) == [{"problem": "gone", "retry": True}]
        assert (tmp_path / "log").stat().st_size == times


def test_a_cache_key_depends_on_values_and_not_on_order() -> None:
    assert cache_key({"a": 1, "b": [1, 2]}) == cache_key({"b": [1, 2], "a": 1})
    assert cache_key({"a": 1}) != cache_key({"a": 2})
    assert cache_key([1, 2]) != cache_key([2, 1])


@dataclass(frozen=True)
class Part:
    source: str
    captions: dict[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


def test_a_cache_key_of_a_dataclass_is_the_same_in_another_process() -> None:
    part = Part("a", {"x": "y"}, frozenset(map(str, range(20))))
    script = f"import test_engine as t; print(t.cache_key(t.{part!r}))"
    assert python("-c", script, cwd=Path(__file__).parent).stdout.strip() == cache_key(part)
    assert cache_key(part) != cache_key(replace(part, source="b")) != cache_key(Part("b"))


@pytest.mark.parametrize("value", [object(), Path("a"), b"bytes", Part, len, {"deep": [object()]}])
def test_a_value_without_a_stable_form_has_no_cache_key(value: object) -> None:
    with pytest.raises(TypeError, match="no JSON form"):
        cache_key(value)


# Deaths and errors --------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_once(tmp_path: Path) -> None:
    log = tmp_path / "deaths"
    tasks = [*squares(3, tmp_path / "log"), task("90000", die, times=1, log=str(log))]
    results = run_tasks(tasks, tmp_path / "out", workers=2)
    assert results[-1] == {"tries": 2}
    assert ran(tmp_path / "log") == [0, 1, 2]


def test_a_task_that_kills_its_worker_twice_is_named(tmp_path: Path) -> None:
    log = tmp_path / "deaths"
    tasks = [*squares(2, tmp_path / "log"), task("00077", die, times=9, log=str(log), label="laion/00077.tar")]
    with pytest.raises(WorkerDied) as caught:
        run_tasks(tasks, tmp_path / "out", workers=2)
    message = str(caught.value)
    assert isinstance(caught.value, DedupkitError)
    for part in ("killed by SIGKILL", "stage/00077", "laion/00077.tar", "fewer --workers"):
        assert part in message
    assert log.stat().st_size == 2
    assert "00077.json" not in markers(tmp_path / "out")
    # what the others did stays done, and the task runs once nothing kills it
    done = ran(tmp_path / "log")
    tasks[-1] = task("00077", die, times=0, log=str(log), label="laion/00077.tar")
    assert len(run_tasks(tasks, tmp_path / "out", workers=2)) == 3
    assert ran(tmp_path / "log") == [0, 1]
    assert set(done) <= {0, 1}


@pytest.mark.parametrize(
    ("workers", "kind"), [*((1, kind) for kind in ERRORS), *((2, kind) for kind in ("dedupkit", "disk", "bug"))]
)
def test_an_error_in_a_task_is_the_runs_error(tmp_path: Path, workers: int, kind: str) -> None:
    original = ERRORS[kind]()
    tasks = [*squares(1, tmp_path / "log"), task("90000", fail, kind=kind)]
    with pytest.raises((DedupkitError, OSError, RuntimeError, ZeroDivisionError)) as caught:
        run_tasks(tasks, tmp_path / "out", workers=workers)
    assert str(original) in str(caught.value)
    if workers == 1 or kind != "bug":
        assert type(caught.value) is type(original)
    else:
        assert str(caught.value) == "ZeroDivisionError: division by zero"
    if isinstance(original, OSError) and original.errno:
        assert (caught.value.errno, caught.value.filename) == (28, "/somewhere/file")
    assert "90000.json" not in markers(tmp_path / "out")


def test_an_error_while_a_task_is_taken_is_the_runs_error(tmp_path: Path) -> None:
    todo = iter(enumerate(squares(1, tmp_path / "log")))

    def take() -> tuple[int, Task]:
        for numbered in todo:
            return numbered
        raise OSError("the store that says whose task it is cannot be asked")

    with LocalProcesses(1) as engine, pytest.raises(OSError, match="cannot be asked"):
        list(engine.serve(take, tmp_path, 2))
    assert ran(tmp_path / "log") == [0]


# Progress -----------------------------------------------------------------------------------------------------------


def test_without_a_terminal_progress_is_logged_also_during_one_long_task(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="dedupkit")
    with Progress("scan", 3, "img", every=0.05) as progress:
        progress.advance(1200)
        time.sleep(0.2)
    lines = [record.message for record in caplog.records]
    assert 2 <= len(lines) <= 6
    assert lines[-1].startswith("scan: 1 of 3 tasks, 1,200 img, ")
    assert {record.name for record in caplog.records} == {"dedupkit"}
    time.sleep(0.1)
    assert len(caplog.records) == len(lines)  # it ended


def test_a_stage_that_counts_nothing_beside_its_tasks_logs_no_rate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="dedupkit")
    with Progress("match", 1, every=0.05):
        time.sleep(0.2)
    assert caplog.records[0].message == "match: 0 of 1 task, 0 s so far"


def test_a_short_stage_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="dedupkit")
    with Progress("scan", 3) as progress:
        progress.advance()
    assert not caplog.records


@pytest.mark.parametrize("stderr", ["closed", "unread"])
def test_a_standard_error_that_nobody_reads_does_not_end_a_run(tmp_path: Path, data: Path, stderr: str) -> None:
    script = (
        "import sys, os, dedupkit as dk; import dedupkit.engine.progress as p\n"
        f"p._on_terminal = lambda: {stderr == 'unread'}\n"
        f"run = dk.dedup({str(data)!r}, {str(tmp_path / 'out')!r}, workers=2)\n"
        "print(run.summary['samples'])"
    )
    redirect = "2>&-" if stderr == "closed" else "2> >(exec true)"
    command_ = f'sleep 0.2 && exec "$0" -c "$1" {redirect}'
    done = subprocess.run(
        ["bash", "-c", command_, sys.executable, script], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "16\n"), done.stderr


# Whole runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, photos: dict[str, Image.Image]) -> Path:
    """Four shards with copies across them."""
    images = jpegs(photos, 6)
    for shard in range(4):
        members = [(f"{shard}{i}.jpg", images[(shard + i) % 6]) for i in range(3)]
        write_tar(tmp_path / "data" / f"{shard}.tar", [*members, (f"{shard}x.jpg", b"broken" + b" HANG" * (shard > 1))])
    return tmp_path / "data"


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path, data: Path) -> None:
    for workers in (1, 2):
        run(data, tmp_path / str(workers), workers=workers)
    files = ["manifest.parquet", "groups.parquet", *(f"samples/{shard:05d}.parquet" for shard in range(4))]
    for name in files:
        assert len({(tmp_path / str(workers) / name).read_bytes() for workers in (1, 2)}) == 1, name
    found = verdicts(dk.Run(tmp_path / "2"))
    assert list(found.values()).count("keep") == 6
    assert list(found.values()).count("unreadable") == 4


def test_two_jobs_in_two_threads_do_not_meet(tmp_path: Path, data: Path, photos: dict[str, Image.Image]) -> None:
    other = tmp_path / "other"
    for shard, image in enumerate(jpegs(photos, 6, side=200)):
        write_tar(other / f"{shard}.tar", [(f"{n}.jpg", image) for n in range(2)])
    jobs = {"one": (data, {"rule": "copies"}), "two": (other, {"rule": "exact", "hashes": ["phash"]})}
    alone = {name: dk.dedup(source, tmp_path / name, workers=2, **options) for name, (source, options) in jobs.items()}
    log = tmp_path / "log"
    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        together = {
            name: pool.submit(dk.dedup, source, tmp_path / f"{name}-together", workers=2, **options)
            for name, (source, options) in jobs.items()
        }
        killed = pool.submit(
            run_tasks, [*squares(2, log), task("9", die, times=9, log=str(tmp_path / "deaths"))], tmp_path, workers=2
        )
        with pytest.raises(WorkerDied):  # a job that fails meanwhile harms nobody
            killed.result()
        for name, future in together.items():
            path = future.result().path
            for file in ("manifest.parquet", "groups.parquet", "samples/00000.parquet"):
                assert (path / file).read_bytes() == (alone[name].path / file).read_bytes()
    assert not children(os.getpid())


def test_workers_that_are_not_needed_end_with_the_engine(tmp_path: Path) -> None:
    with LocalProcesses(3) as engine:
        engine.start(5, os.getcwd)
        assert len(children(os.getpid())) == 3
        engine.run(squares(2, tmp_path / "log"), tmp_path)
        assert len(children(os.getpid())) == 1
    assert not children(os.getpid())


def test_workers_last_from_one_call_to_the_next(tmp_path: Path) -> None:
    with LocalProcesses(2) as engine:
        with engine.lasting():
            engine.run(squares(4, tmp_path / "log"), tmp_path)
            killed, kept = children(os.getpid())
            engine.run(squares(4, tmp_path / "log", "again"), tmp_path)
            assert sorted(children(os.getpid())) == sorted((killed, kept))
            os.kill(killed, signal.SIGKILL)
            engine.run(squares(4, tmp_path / "log", "and again"), tmp_path)
            assert ran(tmp_path / "log") == sorted(3 * list(range(4)))
            assert kept in children(os.getpid())
            with pytest.raises(DedupkitError, match="name the tars"):
                engine.run([task(f"{n}", fail, kind="dedupkit") for n in range(2)], tmp_path)
            assert not children(os.getpid())  # none of them is asked again
            engine.run(squares(4, tmp_path / "log", "and on"), tmp_path)
        assert not children(os.getpid())


def test_a_run_is_found_after_a_change_of_directory(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = dk.dedup("data", "out", workers=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert finished.manifest.num_rows == 16
    assert len(finished.groups[0].rows) > 1
    assert finished.rethreshold("exact").summary["rule"] == "exact"


def test_a_script_needs_no_main_guard(tmp_path: Path, data: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import dedupkit as dk\n"
        "print('once')\n"
        f"run = dk.dedup({str(data)!r}, {str(tmp_path / 'out')!r}, workers=2)\n"
        "print(run.summary['samples'])\n"
    )
    result = python(str(script), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "once\n16\n"
    assert result.stderr == ""


def assert_gone(pid: int) -> None:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


HANGING_DECODER = """
import PIL.Image, time
real = PIL.Image.open
def open_(source, *arguments, **options):
    if source.getvalue().endswith(b"HANG"):
        time.sleep(300)
    return real(source, *arguments, **options)
PIL.Image.open = open_
"""


class Blocked:
    """``dedupkit run`` with a decoder that hangs in two of four shards: its workers are in the middle of tasks."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.data, self.out, self.log = data, folder / "out", folder / "stderr"
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(HANGING_DECODER)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dedupkit.cli", "run", str(data), "--out", str(self.out), "--workers", "2"],
            stdout=subprocess.DEVNULL,
            stderr=self.log.open("wb"),
            env=environment({"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "site")])}),
            start_new_session=True,
            # A background job of a shell ignores the interrupt and hands that down; a user's terminal does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 60
        while len(list(self.out.glob(".done/scan/*.json"))) < 2:
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        time.sleep(0.2)
        self.workers = children(self.process.pid)
        assert len(self.workers) == 2

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Signal the process group, as the terminal does; returns the exit code and what went to standard error."""
        os.killpg(self.process.pid, number)
        return self.process.wait(timeout=10), self.log.read_text()

    def clean(self) -> None:
        for pid in (self.process.pid, *self.workers):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


@pytest.fixture
def blocked(tmp_path: Path, data: Path) -> Iterator[Blocked]:
    run_ = Blocked(tmp_path, data)
    yield run_
    run_.clean()


def assert_goes_on(blocked: Blocked) -> None:
    """The same command does what is left, and only that."""
    before = {path: path.stat().st_mtime_ns for path in (blocked.out / "samples").glob("*.parquet")}
    assert len(before) == 2
    again = command("run", blocked.data, "--out", blocked.out, "--workers", "2")
    assert again.returncode == 0, again.stderr
    assert len(verdicts(dk.Run(blocked.out))) == 16
    for path, written in before.items():
        assert path.stat().st_mtime_ns == written
    assert not list(blocked.out.rglob("*.tmp"))


def test_an_interrupt_stops_the_run_and_its_workers(blocked: Blocked) -> None:
    code, error = blocked.stop(signal.SIGINT)
    for pid in blocked.workers:
        assert_gone(pid)
    assert not (blocked.out / "manifest.parquet").exists()
    with pytest.raises(DedupkitError, match="not finished; run the same command again"):
        dk.Run(blocked.out)
    assert_goes_on(blocked)
    assert code == 1
    assert one_line(error) == "dedupkit: stopped; run the same command again to go on from here"


def test_a_run_that_is_killed_can_go_on(blocked: Blocked) -> None:
    blocked.stop(signal.SIGKILL)
    for pid in blocked.workers:  # they would go on to the end of their task
        os.kill(pid, signal.SIGKILL)
        assert_gone(pid)
    assert_goes_on(blocked)


def test_workers_ignore_modules_in_the_current_folder(tmp_path: Path, photos: dict[str, Image.Image]) -> None:
    """A folder may hold a file that is called like a module; the workers start from it all the same."""
    for name in ("pickle", "numpy", "dedupkit"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    for number, image in enumerate(jpegs(photos, 2)):
        write_tar(tmp_path / "data" / f"{number}.tar", [("a.jpg", image)])
    arguments = ("run", "data", "--out", "out", "--workers", "2")
    result = python("-P", "-m", "dedupkit.cli", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_command_line_loads_no_pandas(tmp_path: Path, photos: dict[str, Image.Image]) -> None:
    """pyarrow would, in every process; it is found and works where somebody does ask for it."""
    pytest.importorskip("pandas")
    write_tar(tmp_path / "data.tar", [(f"{n}.jpg", image) for n, image in enumerate(jpegs(photos, 2))])
    script = (
        "import sys; from dedupkit.cli.main import app;"
        "app(['run', 'data.tar', '--out', 'out'], standalone_mode=False); assert 'pyarrow.lib' in sys.modules;"
        "assert 'pandas' not in sys.modules; import pandas; assert pandas.__version__"
    )
    result = python("-c", script, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_by_default_there_is_a_worker_for_each_core_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 5, 6}, raising=False)
    assert worker_count(None) == 3
    assert worker_count(0) == 0
    monkeypatch.delattr("os.sched_getaffinity")
    assert worker_count(None) == 64


def test_a_number_of_workers_that_makes_no_sense_is_one_error():
    import numpy as np

    from dedupkit.neighbors import hamming_pairs, jaccard_pairs
    from dedupkit.workflows.metadata import clean_lists

    offsets, tokens = np.array([0, 1, 2]), np.array([1, 1], np.uint32)
    hashes = np.zeros((2, 8), np.uint8)
    calls = {
        lambda workers: hamming_pairs(hashes, 1, workers=workers): 1,
        lambda workers: jaccard_pairs(offsets, tokens, threshold=0.5, workers=workers): 1,
        lambda workers: clean_lists([], "out", workers=workers): 1,
        lambda workers: dk.find_duplicates(encoding_map={"a": "0" * 64}, num_dist_workers=workers): 0,
    }
    for call, least in calls.items():
        for wrong in range(-1, least):
            for kind in (ValueError, dk.DedupkitError):
                with pytest.raises(kind, match=f"the number of workers is at least {least}, not {wrong}"):
                    call(wrong)
