"""The command line as a user meets it: what it prints, and how it exits."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT, encode, write_tar

from dedupkit.cli.main import explain


def dedupkit(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    command = [sys.executable, "-m", "dedupkit.cli", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos):
    """A shard with one photo, a copy of it, another photo and a broken file."""
    coffee, cat = (photos[name].convert("RGB").resize((300, 200)) for name in ("coffee", "chelsea"))
    members = [
        ("a.jpg", encode(coffee, quality=90)),
        ("b.jpg", encode(coffee, quality=40)),
        ("c.jpg", encode(cat)),
        ("d.jpg", b"no image"),
    ]
    return write_tar(tmp_path_factory.mktemp("cli") / "00000.tar", members)


def test_run_report_and_apply(tmp_path, source):
    out, clean = tmp_path / "out", tmp_path / "clean"
    done = dedupkit("run", source, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("samples read", "4 in 1 shard", "because of pdq", "unreadable", "exact or pdq<=31", "next: dedupkit"):
        assert text in done.stdout
    done = dedupkit("report", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "report.html").exists()
    assert (out / "report.json").exists()
    assert (out / "DATASET_CARD.md").exists()
    done = dedupkit("apply", out, "--to", clean)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote 2 samples" in done.stdout


def test_json_is_one_object_on_standard_output(tmp_path, source):
    summary = json.loads(dedupkit("run", source, "--out", tmp_path / "out", "--json").stdout)
    assert (summary["samples"], summary["keep"], summary["remove"], summary["unreadable"]) == (4, 2, 1, 1)
    assert summary["reasons"] == {"pdq": 1}
    written = json.loads(
        dedupkit("apply", tmp_path / "out", "--to", tmp_path / "keys", "--format", "keys", "--json").stdout
    )
    assert written["samples"] == 2


def test_the_same_command_again_only_decides(tmp_path, source):
    dedupkit("run", source, "--out", tmp_path / "out")
    before = (tmp_path / "out" / "samples" / "00000.parquet").stat().st_mtime_ns
    done = dedupkit("run", source, "--out", tmp_path / "out", "--rule", "exact", "--json")
    assert json.loads(done.stdout)["remove"] == 0
    assert (tmp_path / "out" / "samples" / "00000.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "SOURCE", "--out", "OUT", "--rule", "pdq<=3l"], 2, "       ^"),
        (["run", "SOURCE", "--out", "OUT", "--keep", "-beauty"], 2, "unknown column"),
        (["run", "SOURCE", "--out", "OUT", "--plan", "--captions", "pairs"], 2, "no way to treat captions"),
        (["run", "SOURCE"], 2, "--out"),
        (["run", "SOURCE", "--out", "OUT", "--engine", "abacus"], 2, "abacus"),
        (["run", "SOURCE", "--out", "OUT", "--seed", "-1"], 2, "--seed"),
        (["run", "missing.tar", "--out", "OUT"], 1, "no such source"),
        (["run", "SOURCE", "--out", "OUT", "--hash", "md6"], 1, "unknown hash"),
        (["apply", "missing", "--to", "OUT"], 1, "holds no run"),
        (["apply", "missing", "--to", "OUT", "--format", "zip"], 2, "zip"),
        (["apply", "missing", "--to", "OUT", "--shards", "2", "--shard-size", "2"], 2, "not both"),
        (["report", "missing"], 1, "holds no run"),
    ],
)
def test_an_error_says_what_is_wrong_and_exits_with_its_code(tmp_path, source, arguments, code, message):
    places = {"SOURCE": str(source), "OUT": str(tmp_path / "out")}
    done = dedupkit(*(places.get(argument, argument) for argument in arguments))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if code == 1:
        assert len(done.stderr.strip().split("\n")) == 1


def test_help_and_version():
    assert dedupkit("--version").stdout.startswith("dedupkit ")
    shown = dedupkit("--help").stdout
    for command in ("run", "apply", "report", "calibrate", "demo"):
        assert command in shown


def test_nothing_from_the_data_reaches_the_terminal_as_a_command(tmp_path, source):
    """An escape sequence in the name of a shard is printed, not obeyed, in results and in errors."""
    hostile = tmp_path / "\x1b]0;title\x07\x9b2J\u202e.tar"
    hostile.write_bytes(source.read_bytes()[:1500])
    broken = dedupkit("run", hostile, "--out", tmp_path / "out")
    missing = dedupkit("run", tmp_path / "\x1b[2Jno.tar", "--out", tmp_path / "other")
    assert broken.returncode == 0
    assert missing.returncode == 1
    assert "\\x1b]0;title\\x07\\x9b2J\\u202e.tar" in broken.stdout
    assert "\\x1b[2Jno.tar" in missing.stderr
    shown = broken.stdout + broken.stderr + missing.stdout + missing.stderr
    assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_the_package_is_a_program():
    command = [sys.executable, "-m", "dedupkit", "--version"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("dedupkit ")


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``$D`` with arguments in a shell that redirects its streams."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "D": f"{sys.executable} -m dedupkit.cli"}
    command = ["bash", "-c", line, "bash", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_closed_streams_are_no_traceback(tmp_path, source):
    done = shell('$D run "$1" --out "$2" --workers 1 2>&-', source, tmp_path / "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert "samples read" in done.stdout
    done = shell('$D run "$1" --out "$2" --workers 1 >&-', source, tmp_path / "b")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "b" / "manifest.parquet").exists()
    done = shell('$D report "$1" 2>&-', tmp_path / "nowhere")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    done = shell("$D --help | true; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""
    done = shell("$D --help > /dev/full")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "make room and run the same command again"),
        (errno.EIO, "run the same command again"),
        (errno.EACCES, None),
        (errno.EROFS, None),
    ],
)
def test_only_what_can_pass_is_worth_another_try(number, hint):
    line = explain(OSError(number, os.strerror(number), "out/run.json"))
    assert line.startswith(f"{os.strerror(number)}: out/run.json")
    assert ("again" in line) == (hint is not None)
    assert hint is None or hint in line
