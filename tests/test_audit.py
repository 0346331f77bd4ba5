"""An audit says which generated images copy the training set, with a floor from real ones."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from helpers import command, encode, one_line, run, write_tar
from PIL import ImageOps

import dedupkit as dk
from dedupkit.workflows.audit import AuditResult, audit


def test_copies_are_named_counted_and_listed_and_a_floor_that_overlaps_is_refused(photos, tmp_path):
    train = [(f"{name}.jpg", encode(photos[name].convert("RGB"))) for name in ("astronaut", "coffee", "rocket")]
    train.append(("small.jpg", encode(photos["coffee"].resize((240, 160)))))
    finished = run(write_tar(tmp_path / "train.tar", train), tmp_path / "run")
    made = [("a.jpg", encode(ImageOps.mirror(photos["coffee"]))), ("a.txt", b"a cup"), ("b.jpg", b"broken")]
    made.append(("c.png", encode(photos["camera"], "PNG")))
    generated = write_tar(tmp_path / "made.tar", made)
    real = write_tar(tmp_path / "real.tar", [("moon.jpg", encode(photos["coins"]))])
    done = command("audit", generated, "--against", finished.path, "--out", tmp_path / "out", "--real", real, "--json")
    assert done.returncode == 0, done.stderr
    found = AuditResult.from_json(json.loads(done.stdout))
    assert (found.generated, found.unreadable, found.copies, found.groups, found.takedown) == (2, 1, 1, 1, 2)
    assert (found.real, found.false_alarms) == (1, 0)
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == json.loads(done.stdout)
    rows = {row["key"]: row for row in pq.read_table(tmp_path / "out" / "audit.parquet").to_pylist()}
    assert rows["a"]["copy"]
    assert (rows["a"]["kept_key"], rows["a"]["group_size"], rows["a"]["prompt"]) == ("coffee", 2, "a cup")
    assert not rows["c"]["copy"]
    assert rows["b"]["error"]
    assert all(len(line) == 64 for line in (tmp_path / "out" / "takedown.txt").read_text().split())
    with pytest.raises(dk.DedupkitError, match="are in the training set"):
        audit(generated, finished.path, tmp_path / "out", real=tmp_path / "train.tar")
    (tmp_path / "empty").mkdir()
    failed = command("audit", tmp_path / "empty", "--against", finished.path, "--out", tmp_path / "out")
    assert "nothing to read" in one_line(failed.stderr)
