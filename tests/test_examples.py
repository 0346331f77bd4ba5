"""The examples run as they stand: offline, on the shards that they make themselves."""

from __future__ import annotations

import csv
import io
import json
import os
import re

import pytest
from helpers import ROOT, python

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def _photos():
    pytest.importorskip("skimage")


def example(name: str, *arguments: str):
    """Run one and expect it to succeed."""
    done = python(str(ROOT / "examples" / name), *arguments, env=OFFLINE)
    assert done.returncode == 0, done.stderr
    return done


def test_a_researcher_looks_at_a_run_and_decides_again():
    out = example("notebook_researcher.py").stdout
    samples, kept, removed = map(
        int, re.search(r"(\d+) samples, (\d+) kept, (\d+) removed, 1 unreadable", out).groups()
    )
    assert samples == 33
    assert kept + removed == 32
    strict, middle, again = (int(n) for n in re.findall(r"^(?:exact|pdq<=10|copies): (\d+) kept$", out, re.MULTILINE))
    assert 32 == strict > middle > again == kept
    assert f"{kept} of 32 kept" in out  # the single modules come to the same


def test_a_training_loop_sees_what_the_manifest_keeps():
    pytest.importorskip("webdataset")
    pytest.importorskip("datasets")
    out = example("training_filter.py").stdout
    through_webdataset = re.search(r"webdataset: (\d+) of 33 samples", out)[1]
    through_datasets = re.search(r"datasets: (\d+) samples", out)[1]
    kept = re.search(r"manifest: (\d+) kept", out)[1]
    assert through_webdataset == through_datasets == kept


def test_a_maintainer_gets_a_reason_for_every_sample_that_is_gone(tmp_path):
    done = example("dataset_maintainer.py", "--out", str(tmp_path / "run"), "--clean", str(tmp_path / "clean"))
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["verdict"] for row in rows} == {"remove", "unreadable"}
    assert all(row["reason"] for row in rows)
    assert all(bool(row["kept_source"] and row["kept_key"]) == (row["verdict"] == "remove") for row in rows)
    assert f"wrote {33 - len(rows)} samples" in done.stderr
    for name in ("run/report.html", "run/DATASET_CARD.md", "clean/00000.tar", "clean/sizes.json"):
        assert (tmp_path / name).exists()


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("cv2")
    cells = json.loads((ROOT / "examples" / "worked.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    path = os.pathsep.join([str(ROOT), str(ROOT / "examples")])
    done = python("-c", code, cwd=tmp_path, env={**OFFLINE, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    assert "crop, mirrored, rotated by 4 degrees, of the photo" in done.stdout


def test_a_list_is_cleaned_downloaded_and_cleaned_again(tmp_path):
    pytest.importorskip("img2dataset")
    pytest.importorskip("can_ada")
    out = example("url_list.py", "--out", str(tmp_path / "work")).stdout
    assert "list: 96 rows, 32 addresses left to download" in out
    samples, kept = map(int, re.search(r"images: (\d+) downloaded, (\d+) kept", out).groups())
    assert samples == 32 and kept < 16
    assert "prompted by" in out
    assert (tmp_path / "work" / "clean" / "00000.tar").exists()
