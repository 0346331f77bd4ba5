"""The demo: plant, download, clean, check, and tell a newcomer what happened."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dedupkit.demo.web import EDITS, Page, build_web
from dedupkit.errors import DedupkitError, require
from dedupkit.workflows.dedup import dedup
from dedupkit.workflows.run import Run

__all__ = ["run_demo"]

_MARK = ".dedupkit-demo"
_DOWNLOAD = "import json, sys; from img2dataset import download; download(**json.loads(sys.argv[1]))"


def run_demo(out: str | Path, *, json_output: bool = False) -> bool:
    """Run the demonstration; everything it writes goes below ``out``, the network is loopback only.

    Args:
        out: New folder, or the folder of an earlier demo, which is replaced.
        json_output: Print one JSON object instead of the story.

    Returns:
        Whether everything that was planted was found, and nothing else removed.

    Raises:
        MissingExtraError: A package of the extra ``demo`` is not installed.
        DedupkitError: ``out`` holds something else, or img2dataset failed.
    """
    require("img2dataset", "demo")
    root = _fresh(Path(out))

    def say(text: str) -> None:
        if not json_output:
            print(text, flush=True)  # noqa: T201

    started = time.perf_counter()
    web = root / "web"
    web.mkdir()
    pages = build_web(web)
    say(f"1. planted   {len(pages)} addresses: real photos, copies of them, dead links, broken files")
    with _served(web) as address:
        _download(root, pages, address)
    shards = sorted((root / "shards").glob("*.tar"))
    say(f"2. downloaded with img2dataset into {len(shards)} WebDataset shards")
    run = dedup(str(root / "shards"), root / "run", rule="thorough")
    say(f"3. cleaned   dedupkit run {root / 'shards'} --rule thorough --out {root / 'run'}")
    written = run.apply(root / "clean")
    say(f"4. applied   dedupkit apply {root / 'run'} --to {root / 'clean'}")
    report = run.report()
    outcome = _check(run, pages)
    outcome["clean_samples"] = written["samples"]
    outcome["as_planted"] = outcome["as_planted"] and written["samples"] == run.summary["keep"]
    outcome["seconds"] = round(time.perf_counter() - started, 1)
    if json_output:
        print(json.dumps(outcome))  # noqa: T201
    else:
        say(_story(run, outcome, root, report))
    return bool(outcome["as_planted"])


def _fresh(root: Path) -> Path:
    """An empty folder; one of an earlier demo is replaced, anything else is refused."""
    if root.exists() and any(root.iterdir()):
        if not (root / _MARK).exists():
            raise DedupkitError(f"{root} is not empty and holds no demo; choose another --out")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / _MARK).touch()
    return root


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; yields its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _download(root: Path, pages: list[Page], address: str) -> None:
    """img2dataset in a process of its own: it prints a lot and starts workers of its own."""
    urls = [f"{address}/{page.path}" for page in pages]
    pq.write_table(pa.table({"url": urls, "caption": [page.caption for page in pages]}), root / "urls.parquet")
    options = {
        "url_list": str(root / "urls.parquet"),
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_folder": str(root / "shards"),
        "output_format": "webdataset",
        "image_size": 384,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "processes_count": 1,
        "thread_count": 8,
        "number_sample_per_shard": 70,
        "enable_wandb": False,
    }
    log = root / "img2dataset.log"
    with log.open("wb") as stream:
        # No proxy for loopback, and none of the update checks that img2dataset's dependencies make.
        quiet = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "NO_ALBUMENTATIONS_UPDATE": "1"}
        command = [sys.executable, "-c", _DOWNLOAD, json.dumps(options)]
        finished = subprocess.run(command, stdout=stream, stderr=stream, env={**os.environ, **quiet}, check=False)  # noqa: S603
    if finished.returncode != 0 or not list((root / "shards").glob("*.tar")):
        raise DedupkitError(f"img2dataset failed; its log: {log}")


def _check(run: Run, pages: list[Page]) -> dict[str, Any]:
    """Hold the manifest against what was planted."""
    rows = run.manifest.select(["url", "verdict", "kept_sample", "group"]).to_pylist()
    by_hashes = run.decide("copies").manifest["group"].to_pylist()
    truth = {page.path: page for page in pages}
    page_of = [truth[row["url"].rpartition("/")[2]] for row in rows]
    wrong = sum(
        page_of[row["kept_sample"]].photo != page.photo
        for row, page in zip(rows, page_of, strict=True)
        if row["verdict"] == "remove"
    )
    original = {page.photo: number for number, page in enumerate(page_of) if page.edit == "original"}
    table = []
    for edit in EDITS:
        copies = [(number, original[page.photo]) for number, page in enumerate(page_of) if page.edit == edit.label]
        found = sum(rows[copy]["group"] == rows[photo]["group"] for copy, photo in copies)
        hashed = sum(by_hashes[copy] == by_hashes[photo] for copy, photo in copies)
        table.append({"edit": edit.label, "planted": len(copies), "by_hashes": hashed, "found": found})
    lost = [row["verdict"] for row, page in zip(rows, page_of, strict=True) if page.photo is None]
    as_planted = (
        len(rows) == len(pages)
        and wrong == 0
        and all(line["found"] == line["planted"] for line in table)
        and run.summary["keep"] == len(original)  # one image of each photo
        and set(lost) == {"unreadable"}
        and run.summary["unreadable"] == len(lost)
    )
    return {"summary": run.summary, "edits": table, "wrong": wrong, "unreadable": len(lost), "as_planted": as_planted}


def _story(run: Run, outcome: dict[str, Any], root: Path, report: Path) -> str:
    lines = ["", *(f"   {label:<24} {text}" for label, text in run.rows()), ""]
    missing = outcome["unreadable"]
    lines.append(f"   {'copies planted as':<28}{'planted':>8}{'copies':>8}{'thorough':>10}")
    for line in outcome["edits"]:
        lines += [f"   {line['edit']:<28}{line['planted']:>8}{line['by_hashes']:>8}{line['found']:>10}"]
    lines += [
        f"   {'dead links, broken files':<28}{missing:>8}{missing:>8}{missing:>10}",
        f"   {'removed by mistake':<28}{'':>16}{outcome['wrong']:>10}",
        "",
        "   as planted: every copy found, one image of each photo kept, nothing removed by mistake"
        if outcome["as_planted"]
        else "   NOT as planted: see the table",
        f"   took {outcome['seconds']} s",
        "",
        "look at",
        f"   {report}   every group, with images",
        f"   {run.path / 'manifest.parquet'}   one row per sample: the verdict, and why",
        f"   {root / 'clean'}   the cleaned shards",
    ]
    return "\n".join(lines)
