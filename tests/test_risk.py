"""What a data set repeats is counted from its groups, with what the rule leaves."""

from __future__ import annotations

import json

import pytest
from helpers import command, encode, run, write_tar

import dedupkit as dk
from dedupkit.memorization.risk import Risk, measure_risk


def test_copies_are_counted_with_their_captions_and_with_what_remains(photos, tmp_path):
    members = []
    for number in range(11):
        image = photos["coffee"].resize((200 + number, 140))
        members += [(f"{number:02d}.jpg", encode(image)), (f"{number:02d}.txt", b"a cup" if number < 10 else b"mug")]
    members.append(("other.jpg", encode(photos["rocket"])))
    finished = run(write_tar(tmp_path / "in.tar", members), tmp_path / "run")
    found = measure_risk(finished.path)
    ten = next(each for each in found.copies if each.at_least == 10)
    assert (ten.groups, ten.samples, ten.one_caption, ten.remaining) == (1, 11, 1, 0)
    assert (found.top[0].caption, found.top[0].caption_count, found.top[0].captions) == ("a cup", 10, 2)
    assert found.templates is None and "not looked for" in str(found)
    assert Risk.from_json(json.loads(json.dumps(found.to_json()))) == found
    done = command("risk", finished.path)
    assert done.returncode == 0, done.stderr
    assert "2301.13188" in done.stdout
    with pytest.raises(dk.DedupkitError, match="no run"):
        measure_risk(tmp_path)
