"""Rows of a scan, whatever a reader hands over."""

from __future__ import annotations

import pytest

from dedupkit.sources import Sample
from dedupkit.stages.scan import scan_sample


@pytest.mark.parametrize(
    ("odd", "column", "wanted"),
    [
        ({"key": "a\udcff"}, "key", "a\ufffd"),
        ({"caption": 5}, "caption", "5"),
        ({"caption": ["x", "y"]}, "caption", '["x", "y"]'),
        ({"uid": b"\xff"}, "uid", "\ufffd"),
        ({"clip_score": "no number"}, "clip_score", None),
        ({"offset": 1 << 70}, "offset", None),
    ],
)
def test_an_odd_value_costs_no_row(odd, column, wanted):
    (row,) = scan_sample(Sample(**{"key": "a", "error": "no image", **odd}), []).to_pylist()
    assert row[column] == wanted
    assert row["error"] == "no image"
