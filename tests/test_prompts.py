"""The captions of the most duplicated images, as a list that others can use."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from helpers import command, jpegs, one_line, write_tar

import dedupkit as dk
from dedupkit.errors import DedupkitError
from dedupkit.workflows.prompts import most_duplicated, write_prompts


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("prompts")
    captions = {
        0: ["a fox", "a fox", "a  fox\nin two lines", ""],
        1: ["a house", "the house", "the house"],
        2: ["alone"],
        3: ["", None],
    }
    members = []
    for image, texts in captions.items():
        for number, text in enumerate(texts):
            members.append((f"{image}{number}.jpg", jpegs(photos, 4)[image]))
            members += [] if text is None else [(f"{image}{number}.txt", text.encode())]
    return dk.dedup(write_tar(folder / "in.tar", members), folder / "run", rule="exact").path


def test_one_caption_a_group_the_most_duplicated_first(run):
    rows = most_duplicated(run).to_pylist()
    assert [(row["prompt"], row["images"], row["with_prompt"], row["captions"]) for row in rows] == [
        ("a fox", 4, 2, 2),
        ("the house", 3, 2, 2),
    ]
    assert [row["kept_key"] for row in rows] == ["00", "10"]
    assert most_duplicated(run, 1).num_rows == 1


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "parquet"])
def test_files_of_each_format(run, tmp_path, suffix):
    path = tmp_path / f"prompts.{suffix}"
    assert write_prompts(run, path) == 2
    read = {
        "txt": lambda: path.read_text().splitlines(),
        "jsonl": lambda: [json.loads(line)["prompt"] for line in path.read_text().splitlines()],
        "parquet": lambda: pq.read_table(path)["prompt"].to_pylist(),
    }[suffix]()
    assert read == ["a fox", "the house"]


def test_the_command_prints_captions_or_json(run):
    assert command("prompts", run, "--top", "1").stdout == "a fox\n"
    assert json.loads(command("prompts", run, "--top", "1", "--json").stdout)["images"] == 4


def test_what_cannot_be_done_is_one_clear_error(run, tmp_path):
    with pytest.raises(DedupkitError, match=r"end its name in .txt, .jsonl, .parquet"):
        write_prompts(run, tmp_path / "prompts.doc")
    with pytest.raises(DedupkitError, match="holds no run"):
        most_duplicated(tmp_path)
    failed = command("prompts", run, "--to", "s3://bucket/p.jsonl", cwd=tmp_path)
    assert "s3://bucket/p.jsonl lies on no disk of this machine" in one_line(failed.stderr)
    assert not list(tmp_path.iterdir())
