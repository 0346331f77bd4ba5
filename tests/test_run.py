"""A finished run looked at from Python: tables, groups, borderline pairs, one sample explained, another rule tried."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest
from helpers import encode, run, snapshot, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dedupkit as dk
from dedupkit.manifest.rows import FileRows, TableRows
from dedupkit.runfolder import RunFolder
from dedupkit.workflows.search import Search

NAMES = ("astronaut", "coffee", "chelsea")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photos) -> dk.Run:
    """Three shards of one photo each, in four qualities; one key is in two shards, one image is broken."""
    folder = tmp_path_factory.mktemp("shards")
    for number, name in enumerate(NAMES):
        image = photos[name].convert("RGB").resize((240, 180))
        members = [(f"{name}-{quality}.jpg", encode(image, quality=quality)) for quality in (95, 60, 30, 10)]
        members += [("same.jpg", encode(image.rotate(180 * number), quality=80))]
        members += [("broken.jpg", b"no image")] if number == 1 else []
        write_tar(folder / f"{number:05d}.tar", members)
    return run(folder, tmp_path_factory.mktemp("run") / "out", hashes=["phash"])


@pytest.fixture
def copy(finished, tmp_path) -> dk.Run:
    return dk.Run(shutil.copytree(finished.path, tmp_path / "copy"))


def test_kept_and_removed_are_the_rows_of_the_manifest(finished):
    rows = finished.manifest.to_pylist()
    assert finished.kept.to_pylist() == [row for row in rows if row["verdict"] == "keep"]
    assert finished.removed.to_pylist() == [row for row in rows if row["verdict"] == "remove"]
    assert finished.removed.num_rows == finished.summary["remove"] > 8


def test_a_run_is_taken_wherever_its_folder_is(finished, copy, tmp_path, photos):
    from dedupkit.memorization.risk import measure_risk
    from dedupkit.report import write_report
    from dedupkit.workflows.against import find_references
    from dedupkit.workflows.prompts import most_duplicated

    assert os.fspath(copy) == str(copy.path)
    assert dk.Run(copy).kept == copy.kept
    assert dk.keep_filter(copy)({"__key__": "coffee-95", "__url__": "00001.tar"})
    assert measure_risk(copy) == measure_risk(copy.path)
    assert most_duplicated(copy, 1) == most_duplicated(copy.path, 1)
    assert write_report(copy) == copy.path / "report.html"
    assert find_references([copy], [copy], RunFolder(tmp_path)) == find_references(
        [copy.path], [copy.path], RunFolder(tmp_path)
    )
    shard = write_tar(tmp_path / "new.tar", [("a.jpg", encode(photos["coffee"].resize((240, 180)), quality=50))])
    new = dk.update(copy, shard, tmp_path / "new", workers=0)
    assert new.removed["kept_source"].to_pylist() == [str(copy.path)]
    assert run(shard, tmp_path / "against", against=copy).summary["blocked"] == 1


def test_a_run_in_a_bucket_is_taken_by_its_url(tmp_path, photos, monkeypatch):
    monkeypatch.setenv("DEDUPKIT_SCRATCH", str(tmp_path / "scratch"))
    shard = write_tar(tmp_path / "0.tar", [(f"{n}.jpg", encode(photos["coffee"], quality=90 - n)) for n in range(2)])
    try:
        remote = run(shard, "memory://runs/first")
        assert os.fspath(remote) == "memory://runs/first"
        assert dk.Run(remote).kept == remote.kept
        assert [dk.keep_filter(remote)({"__key__": key}) for key in "01"] == [True, False]
        new = dk.update(remote, shard, tmp_path / "new", workers=0)
        assert [reference["path"] for reference in new.config["references"]] == ["memory://runs/first"]
    finally:
        fsspec.filesystem("memory").rm("/runs", recursive=True)


def test_a_run_in_memory_lasts_as_long_as_what_was_made_of_it(photos):
    search = Search(dk.dedup([photos["coffee"], photos["chelsea"]], workers=0))
    again = dk.Run(dk.dedup([photos["coffee"], photos["chelsea"]], workers=0))
    gc.collect()
    assert [each.sample for each in search.image(photos["coffee"]).found] == [0]
    assert again.kept.num_rows == 2


def test_shards_say_what_became_of_their_samples(finished):
    shards = finished.shards.to_pylist()
    assert [Path(shard["source"]).name for shard in shards] == ["00000.tar", "00001.tar", "00002.tar"]
    assert [shard["samples"] for shard in shards] == [5, 6, 5]
    assert [shard["unreadable"] for shard in shards] == [0, 1, 0]
    assert all(s["keep"] + s["remove"] + s["unreadable"] == s["samples"] for s in shards)
    assert {shard["problem"] for shard in shards} == {None}


def test_a_group_reads_only_the_row_groups_that_hold_it(finished, monkeypatch):
    read = []
    original = pq.ParquetFile.read_row_group

    def counted(self, group, *arguments, **options):
        read.append(group)
        return original(self, group, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    groups = finished.groups
    assert len(groups) == 3
    for number in (0, -1):
        group = groups[number]
        assert len(read) == 1
        assert {row["group"] for row in group.rows} == {group.group}
        assert [row["verdict"] for row in group.rows] == ["keep", *["remove"] * (len(group) - 1)]
        read.clear()
    assert [group.group for group in groups] == [group.group for group in groups[:]]
    assert len(read) == 2 * 3  # each row group once for a loop, once for a slice


def test_borderline_pairs_are_the_removals_nearest_to_the_bound(finished):
    pairs = finished.borderline(2)
    scores = [pair.score for pair in pairs]
    assert len(pairs) == 2
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == max(row["score"] for row in finished.removed.to_pylist())
    assert all(pair.removed["kept_sample"] == pair.witness["sample"] for pair in pairs)
    assert len(finished.borderline()) == 3  # each kept sample once
    assert "<img" in pairs[0].show()._repr_html_()


def test_what_a_cell_ends_with_is_printed_in_a_line_and_shown_with_thumbnails(finished):
    group, pair = finished.groups[0], finished.borderline(1)[0]
    assert repr(group).startswith(f"<group {group.group}: {len(group)} samples, 1 kept")
    assert repr(pair).startswith(f"<{pair.removed['key']} removed as a duplicate of {pair.witness['key']}: pdq, ")
    assert group._repr_html_().count("<img") == len(group)
    assert pair._repr_html_().count("<img") == 2
    assert repr(finished.groups) == f"<{len(finished.groups)} groups, the largest of {len(group)} samples>"
    told = finished.explain(pair.removed["sample"])
    assert repr(told) == f"<{pair.removed['key']} {told.words}>"
    assert repr(finished.keep_filter()) == f"<keep filter of {finished.path / 'manifest.parquet'}>"
    assert repr(dk.CopyGuard(finished)).endswith(f"{finished.summary['samples']} samples; a copy by pdq<=31>")


class TestExplain:
    def test_a_removed_sample_names_its_witness_and_the_reason(self, finished):
        row = next(row for row in finished.removed.to_pylist() if row["score"] > 0)
        told = finished.explain(row["key"] if row["key"] != "same" else row["sample"])
        assert told.row == row
        assert told.witness["sample"] == row["kept_sample"]
        assert told.score == row["score"]
        assert row["sample"] in told.group
        assert len(told.group) == row["group_size"]
        text = str(told)
        for part in (row["key"], row["source"], row["kept_key"], "is removed", "PDQ", f"distance {row['score']:g}"):
            assert part in text

    def test_kept_and_unreadable_samples(self, finished):
        kept = finished.kept.to_pylist()[0]
        assert "is kept: no kept sample that ranks before it (most pixels" in str(finished.explain(kept["sample"]))
        assert "is unreadable: not an image" in str(finished.explain("broken"))
        alone = finished.decide("exact").explain("astronaut-95")
        assert "no other sample that takes part satisfies the rule with it" in alone.words
        assert alone.group == (0,)

    def test_an_unknown_key_says_what_comes_near(self, finished):
        with pytest.raises(dk.DedupkitError, match="did you mean 'coffee-95'"):
            finished.explain("cofee-95")
        with pytest.raises(dk.DedupkitError, match="did you mean 'chelsea-95' or 'chelsea-60'"):
            finished.explain("chelsea")
        with pytest.raises(dk.DedupkitError, match="the run has 16, numbered from 0"):
            finished.explain(16)

    def test_an_ambiguous_key_lists_the_shards(self, finished):
        with pytest.raises(dk.DedupkitError, match=r"3 samples have the key 'same': 4 in .*00000\.tar, .*source="):
            finished.explain("same")
        with pytest.raises(TypeError, match="its key or its number, a str or an int, not float"):
            finished.explain(1.0)
        assert finished.explain("same", source="00001.tar").row["source"].endswith("00001.tar")
        with pytest.raises(dk.DedupkitError, match=r"in a shard named '7\.tar'"):
            finished.explain("same", source="7.tar")


class TestAnotherRule:
    def test_it_is_tried_in_memory_and_written_on_request(self, copy):
        before = snapshot(copy.path)
        draft = copy.decide("exact or pdq<=4", keep="nbytes, sample")
        assert draft.summary["rule"] == "exact or pdq<=4"
        assert draft.summary["remove"] < copy.summary["remove"]
        assert draft.kept.num_rows == draft.summary["keep"]
        assert {pair.score <= 4 for pair in draft.borderline()} <= {True}
        assert draft.rows()[-1] == ("rule", "exact or pdq<=4")
        assert "not saved" in repr(draft)
        assert "<table>" in draft._repr_html_()
        assert snapshot(copy.path) == before
        saved = draft.save()
        assert saved.manifest.equals(draft.manifest)
        assert saved.summary == {**draft.summary}
        assert dk.Run(copy.path).config["keep"] == "nbytes, sample"

    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.sampled_from(["exact", "pdq<=31", "pdq<=6 or exact", "phash<=0"]), st.sampled_from([None, "nbytes, sample"])
    )
    def test_memory_and_files_say_the_same(self, finished, tmp_path_factory, rule, keep):
        again = dk.Run(shutil.copytree(finished.path, tmp_path_factory.mktemp("again") / "run"))
        if rule.startswith("phash"):  # computed, and not joined
            with pytest.raises(dk.DedupkitError, match="run again with --rule"):
                again.decide(rule, keep=keep)
            return
        draft = again.decide(rule, keep=keep)
        saved = again.rethreshold(rule, keep=keep)
        assert draft.summary == saved.summary
        assert draft.manifest.equals(saved.manifest)
        assert draft.groups.table.equals(saved.groups.table)
        assert [group.rows for group in draft.groups] == [group.rows for group in saved.groups]
        assert draft.shards.equals(saved.shards)

    def test_the_runs_own_rule_gives_the_runs_verdicts(self, finished):
        assert finished.decide().manifest.equals(finished.manifest)


def test_rows_from_a_file_and_from_memory_agree(finished):
    file, memory = FileRows(finished.path / "manifest.parquet"), TableRows(lambda: finished.manifest)
    assert file.rows([15, 0, 7, 0]) == memory.rows([15, 0, 7, 0])
    assert list(file.rows([15, 0, 7])) == [0, 7, 15]
    assert file.rows([]) == memory.rows([]) == {}
