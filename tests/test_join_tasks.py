"""Joins as many tasks: the edges and the verdicts of the join in one process, whatever the pieces and the engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import killing
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import command, environment, jpegs, one_line, run, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import dedupkit as dk
from dedupkit.errors import DedupkitError
from dedupkit.hashing.pdq import CROP_VIEWS
from dedupkit.neighbors.cosine import join, neighbors, overlap, pieces
from dedupkit.neighbors.cosine.list_pieces import COLUMNS, pairs_between, pairs_of_range, rows_between
from dedupkit.neighbors.cosine.settings import Settings
from dedupkit.neighbors.hamming import ranges
from dedupkit.neighbors.hamming.crops import iter_crop_pairs, nearest_views
from dedupkit.neighbors.hamming.dihedral import class_words, dihedral_pairs, transpose
from dedupkit.neighbors.hamming.join import Pairs, as_words, hamming_pairs
from dedupkit.neighbors.hamming.ranges import HashFiles, Search, cut, join_range
from dedupkit.neighbors.sets.join import Sets, iter_jaccard_pairs, iter_part_pairs, parts_of
from dedupkit.runfolder import RunFolder
from dedupkit.signals import SIGNALS, caption_tasks, hash_tasks, vector_join, vector_plan, vector_tasks
from dedupkit.signals.columns import write_edges
from dedupkit.stages import match_tasks
from dedupkit.store import read_columns

RULE = "pdq<=31 or crops<=31 or phash<=8"
VIEWS = 1 + len(CROP_VIEWS)


def hashes_of(rng: np.random.Generator, count: int, width: int) -> NDArray[np.uint8]:
    """Hashes around a few centres."""
    centres = rng.random((5, width * 8)) < 0.5
    flips = rng.random((count, width * 8)) < rng.choice([0.0, 0.03, 0.1, 0.5], (count, 1))
    return np.packbits(centres[rng.integers(0, 5, count)] ^ flips, axis=1)


def in_pieces(codes: NDArray[np.uint64], search: Search, most_rows: int) -> list[Pairs]:
    """What each piece of a search finds."""
    with TemporaryDirectory() as folder:
        files = HashFiles(Path(folder, "codes.npy"), Path(folder, "turned.npy") if search.turned else None)
        np.save(files.codes, codes)
        if files.turned is not None:
            np.save(files.turned, transpose(codes))
        return [Pairs.gather(join_range(files, search, piece)) for piece in cut(search, most_rows)]


def rows(pairs: Pairs) -> list[tuple[int, int, int]]:
    return list(zip(pairs.a.tolist(), pairs.b.tolist(), pairs.distance.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), count=st.integers(0, 300), radius=st.integers(0, 40), parts=st.integers(1, 4))
def test_the_pieces_of_a_search_are_the_join_each_pair_once(
    data: st.DataObject, count: int, radius: int, parts: int
) -> None:
    turned = data.draw(st.booleans())
    width = 32 if turned else data.draw(st.sampled_from([8, 32]))
    radius = min(radius, 12) if width == 8 else radius
    chunks = data.draw(st.sampled_from([None, 0, 3, 4, 8]))
    hashes = hashes_of(np.random.default_rng(data.draw(st.integers(0, 99))), count, width)
    codes = class_words(hashes) if turned else as_words(hashes)
    search = Search(count, width // 8, radius, turned, chunks=chunks)
    found = [pair for piece in in_pieces(codes, search, max(1, count // parts)) for pair in rows(piece)]
    whole = (dihedral_pairs if turned else hamming_pairs)(hashes, radius, workers=1)
    assert sorted(found) == rows(whole)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 60), radius=st.integers(0, 40))
def test_a_pair_of_images_comes_from_one_pair_of_views_with_the_least_distance(
    seed: int, count: int, radius: int
) -> None:
    rng = np.random.default_rng(seed)
    views = hashes_of(rng, count * VIEWS, 32).reshape(count, VIEWS, 32)
    views[:, 1:][rng.random((count, VIEWS - 1)) < 0.2] = 0  # too flat
    codes = class_words(views.reshape(-1, 32))
    search = Search(len(codes), 4, radius, turned=True, blank=True)
    pieces = [nearest_views(codes, hits, VIEWS) for hits in in_pieces(codes, search, max(1, len(codes) // 2))]
    whole = Pairs.gather(iter_crop_pairs(views.reshape(count, -1), radius, workers=1))
    assert sorted(pair for piece in pieces for pair in rows(piece)) == rows(whole)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(50, 400), group=st.integers(1, 30), cap=st.integers(1, 4))
def test_the_cells_of_a_join_of_vectors_are_the_join(seed: int, count: int, group: int, cap: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((9, 8))[rng.integers(0, 9, count)] + 0.2 * rng.standard_normal((count, 8))).astype(
        "f2"
    )
    vectors[count // 2 : count // 2 + 5] = vectors[:5]
    how = Settings(0.9, "cells", 0.9, overlap=overlap.Overlap(cap, 0.2))
    whole = join.Join(vectors, None, how)
    plan, arrays = pieces.planned(whole.distinct[0], whole.plan)
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.npy") for name in ("vectors", *pieces.PLANNED)]
        for path, array in zip(paths, [vectors, *arrays], strict=True):
            np.save(path, array)
        parts = pieces.Pieces(paths[0], paths[1:], plan, how)
        files = [Path(folder, f"{name}-0.npy") for name in pieces.ASSIGNED]
        for path, array in zip(files, pieces.assigned(parts.assign(0, plan.rows), plan.cells), strict=True):
            np.save(path, array)
        cells = [range(first, min(first + group, plan.cells)) for first in range(0, plan.cells, group)]
        blocks = [block for part in cells for block in parts.join(part, [files])]
    found = sorted(pair for columns in blocks for pair in zip(*(column.tolist() for column in columns), strict=True))
    pairs = whole.pairs()
    assert found == list(zip(pairs.a.tolist(), pairs.b.tolist(), pairs.score.tolist(), strict=True))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(50, 400), group=st.integers(1, 30), k=st.integers(1, 6))
def test_the_cells_of_a_search_for_neighbours_are_the_search(seed: int, count: int, group: int, k: int) -> None:
    """Some vectors occur twice, and some many times, so that lists are full of equal ones."""
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((9, 8))[rng.integers(0, 9, count)] + 0.2 * rng.standard_normal((count, 8))).astype(
        "f2"
    )
    vectors[count // 2 : count // 2 + 5] = vectors[:5]
    vectors[-12:] = vectors[7]
    how = Settings(0.5, "cells", 0.9, overlap=overlap.Overlap(int(rng.integers(1, 5)), 0.2))
    distinct, cells, _ = neighbors.planned_search(vectors, k, how)
    plan, arrays = pieces.planned(distinct, cells)
    halves = [(0, plan.rows // 2), (plan.rows // 2, plan.rows)]
    with TemporaryDirectory() as folder:

        def saved(stem: str, names: tuple[str, ...], columns: Any) -> list[Path]:
            paths = [Path(folder, f"{stem}-{name}.npy") for name in names]
            for path, array in zip(paths, columns, strict=True):
                np.save(path, array)
            return paths

        paths = saved("plan", ("vectors", *pieces.PLANNED), [vectors, *arrays])
        parts = pieces.Pieces(paths[0], paths[1:], plan, how)
        files = [saved("cells", pieces.ASSIGNED, pieces.assigned(parts.assign(0, plan.rows), plan.cells))]
        groups = [range(first, min(first + group, plan.cells)) for first in range(0, plan.cells, group)]
        near = [saved(f"near{at}", COLUMNS, parts.nearest(k, cells, files)) for at, cells in enumerate(groups)]
        stored = pieces.stored_vectors(paths[0], paths[1:])
        listed = [pairs_of_range(stored, k, how.floor, half, near) for half in halves]
        lists = [saved(f"list{at}", COLUMNS, pairs) for at, (pairs, _) in enumerate(listed)]
        between = [pairs_between(count, rows_between(stored, half), lists) for half in halves]
    whole = neighbors.search(vectors, k, how)
    a, b, score = (np.concatenate(column) for column in zip(*between, strict=True))
    assert (a == whole.a).all()
    assert (b == whole.b).all()
    assert (score == whole.score).all()
    ends = whole.last[np.isfinite(whole.last)]
    assert sum(each.full for _, each in listed) == len(ends)
    assert max(each.last for _, each in listed) == ends.max(initial=-np.inf)


def test_large_sets_are_cut_until_a_piece_holds_few_enough() -> None:
    search = Search(1_000_000_000, 4, 31, turned=True)
    pieces = cut(search)
    assert len(pieces) > 1000
    assert all(len(group) == 1 << group[0].bits for group in _grouped(pieces))
    assert {(piece.half, piece.chunk) for piece in cut(Search(1000, 4, 31, turned=True))} <= {
        (half, chunk) for half in (0, 1) for chunk in range(32)
    }


def _grouped(pieces: list[Any]) -> list[list[Any]]:
    groups: dict[tuple[int, int], list[Any]] = {}
    for piece in pieces:
        groups.setdefault((piece.half, piece.chunk), []).append(piece)
    return list(groups.values())


def test_a_file_of_hashes_may_be_larger_than_memory(tmp_path: Path) -> None:
    """Its pages are only read, so the system need not have room for copies of them."""
    count = 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 32
    with (tmp_path / "codes.npy").open("wb") as stream:
        header = {"descr": "<u8", "fortran_order": False, "shape": (count, 4)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + 32 * count)
    with ranges._Mapped(tmp_path / "codes.npy") as mapped:
        assert mapped.rows.shape == (count, 4)
        assert not mapped.rows[-1].any()
        mapped.release()


def test_the_digest_of_pairs_depends_on_no_order_and_on_every_value(tmp_path: Path) -> None:
    a, b, score = np.array([3, 1, 5]), np.array([2, 4, 9]), np.array([0, 7, 31], np.float32)

    def content(*blocks: Any) -> str:
        return write_edges(tmp_path / "edges.parquet", blocks).content

    whole = content((a, b, score))
    assert content((b[::-1], a[::-1], score[::-1])) == whole
    assert content((a[:1], b[:1], score[:1]), (a[1:], b[1:], score[1:])) == whole
    assert len({whole, content((a, b, score + 1)), content((a, b + 1, score)), content((a[:2], b[:2], score[:2]))}) == 4


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joins from one sample on are many tasks, and these are small."""
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", "1")
    monkeypatch.setattr(hash_tasks, "PART_BYTES", 200)
    monkeypatch.setattr(hash_tasks, "cut", lambda search: cut(search, max(4, search.rows // 3)))


def outcome(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("manifest.parquet", "groups.parquet")}


def edges(out: Path, signal: str) -> list[dict[str, Any]]:
    files = RunFolder(out).edge_files(signal)
    return sorted(pa.concat_tables(map(read_columns, files)).to_pylist(), key=lambda edge: (edge["a"], edge["b"]))


@pytest.fixture(scope="module")
def one(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    run(shards, out, rule=RULE)
    return out


def test_many_tasks_give_the_edges_and_the_bytes_of_one(small: None, shards: Path, one: Path, tmp_path: Path) -> None:
    finished = run(shards, tmp_path / "out", rule=RULE)
    assert outcome(tmp_path / "out") == outcome(one)
    for signal in ("pdq", "crops", "phash"):
        assert edges(tmp_path / "out", signal) == edges(one, signal)
    assert len(RunFolder(tmp_path / "out").edge_files("pdq")) > 1
    assert not list(tmp_path.glob("out/edges/*/parts"))
    assert sorted(path.name for path in tmp_path.glob("out/.done/*")) == ["match", "scan"]
    assert finished.summary["edges"] > 0


@pytest.mark.parametrize("tasks", ["1", "1000"])
def test_samples_with_equal_vectors_are_one_in_a_join(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: str
) -> None:
    """As blank images of different bytes are, all of whose pairs might be too many."""
    for module in (vector_join, vector_plan):
        monkeypatch.setattr(module, "MAX_EDGES", 20)
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", tasks)
    keys = [f"{shard}{number}" for shard in range(6) for number in range(4)]
    vectors = np.eye(24, 24, dtype=np.float32)
    vectors[3:] = vectors[3]
    vectors[2] = vectors[1] + vectors[3]
    pq.write_table(pa.table({"key": keys, "embedding": vectors.tolist()}), tmp_path / "v.parquet")
    options = {"rule": "mine>=0.7", "keep": "sample", "embed": f"precomputed:{tmp_path / 'v.parquet'}?name=mine"}
    finished = run(shards, tmp_path / "out", **options)
    assert [(edge["a"], edge["b"]) for edge in edges(tmp_path / "out", "mine")] == [(1, 2), (2, 3)]
    rows = finished.manifest.to_pylist()
    assert [row["kept_sample"] for row in rows] == [None, None, 1, None, *[3] * 20]
    assert {row["group"] for row in rows[1:]} == {1}
    assert {row["score"] for row in rows[4:]} == {1.0}


@pytest.mark.parametrize("tasks", ["1", "1000"])
def test_an_image_has_the_vector_that_any_of_its_files_has(
    photos: dict[str, Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: str
) -> None:
    """Vectors that were made elsewhere may cover some of the files alone."""
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", tasks)
    one, near, other = jpegs(photos, 3)
    files = {"a": one, "b": other, "c": one, "d": near, "e": one}
    source = write_tar(tmp_path / "in.tar", [(f"{key}.jpg", data) for key, data in files.items()])
    vectors = np.array([[0, 1], [1, 0], [1, 0.1]], np.float32)
    np.savez(tmp_path / "v.npz", embedding=vectors, key=np.array(["b", "c", "d"]))
    options = {"rule": "exact or mine>=0.9", "keep": "sample", "embed": f"precomputed:{tmp_path / 'v.npz'}?name=mine"}
    first = run(source, tmp_path / "out", **options)
    assert first.manifest["kept_key"].to_pylist() == [None, None, "a", "a", "a"]
    write_tar(tmp_path / "new.tar", [("d.jpg", near)])
    second = dk.update(first.path, tmp_path / "new.tar", tmp_path / "new", workers=0, **options)
    assert second.manifest["kept_key"].to_pylist() == ["a"]  # which has no vector itself


def test_two_processes_give_the_bytes_of_one(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(shards, tmp_path / "one", rule="pdq<=31")
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", "1")
    run(shards, tmp_path / "two", rule="pdq<=31", workers=2)
    assert outcome(tmp_path / "two") == outcome(tmp_path / "one")


@pytest.mark.parametrize("rule", ["mine>=0.9", "mine>=0.5 and verified"])
@pytest.mark.parametrize("cells", [True, False])
def test_vectors_are_joined_by_cell_as_in_one_task(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: bool, rule: str
) -> None:
    """Vectors of a few directions, some equal and one of zeros; with cells even where they save no work."""
    if cells:
        for module in (join, neighbors, vector_tasks):
            monkeypatch.setattr(module, "EXACT_PAIRS", 0)
        monkeypatch.setattr(overlap, "WORTHWHILE", 1e9)
        monkeypatch.setattr(pieces, "block_rows", lambda count: 5)
        monkeypatch.setattr(pieces, "_ROWS", 1)
        monkeypatch.setattr(vector_plan, "CELLS", 3)
    keys = [f"{shard}{number}" for shard in range(6) for number in range(4)]
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6, 8))[rng.integers(0, 6, 24)] + 0.1 * rng.standard_normal((24, 8))
    vectors[3], vectors[7] = vectors[20], 0
    pq.write_table(pa.table({"key": keys, "embedding": vectors.astype(np.float32).tolist()}), tmp_path / "v.parquet")
    monkeypatch.setattr(vector_join, "list_length", lambda images, recall: 2)
    options = {"rule": rule, "embed": f"precomputed:{tmp_path / 'v.parquet'}?name=mine"}
    run(shards, tmp_path / "one", **options)
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", "1")
    run(shards, tmp_path / "many", **options)
    assert outcome(tmp_path / "many") == outcome(tmp_path / "one")
    assert edges(tmp_path / "many", "mine") == edges(tmp_path / "one", "mine") != []
    facts = [RunFolder(tmp_path / name).joined("mine") for name in ("one", "many")]
    assert facts[0] == facts[1]
    assert (len(RunFolder(tmp_path / "many").edge_files("mine")) > 1) == cells


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(0, 80), room=st.integers(1, 200), floor=st.sampled_from([0.4, 0.7]))
def test_the_parts_of_a_join_of_word_sets_are_the_join(seed: int, count: int, room: int, floor: float) -> None:
    rng = np.random.default_rng(seed)
    bases = [rng.integers(0, 60, rng.integers(1, 12)) for _ in range(6)]
    listed = [np.append(bases[rng.integers(0, 6)], rng.integers(0, 60, rng.integers(0, 3))) for _ in range(count)]
    offsets = np.cumsum([0, *map(len, listed)])
    sets = Sets.of(offsets, np.concatenate([np.zeros(0, np.int64), *listed]))
    parts = list(parts_of(sets, room * 20))
    blocks = [block for part in parts for block in iter_part_pairs(sets, floor, part)]
    whole = list(iter_jaccard_pairs([sets], floor, workers=1))
    found, expected = (
        sorted(
            pair for each in some for pair in zip(each.a.tolist(), each.b.tolist(), each.score.tolist(), strict=True)
        )
        for some in (blocks, whole)
    )
    assert found == expected


def test_captions_are_joined_in_parts_as_in_one_task(
    photos: dict[str, Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some alike, some equal, one long, one missing."""
    images = jpegs(photos, 8, 64)
    long = " ".join(f"word{number}" for number in range(150))
    texts = [
        "a red fox",
        "a red fox runs",
        "The red fox, a!",
        long,
        f"{long} more",
        "",
        "one two three four",
        "four two",
    ]
    members = [
        member for number, (image, text) in enumerate(zip(images, texts, strict=True))
        for member in ((f"{number}.jpg", image), (f"{number}.txt", text.encode()))
    ]  # fmt: skip
    write_tar(tmp_path / "data" / "0.tar", members)
    run(tmp_path / "data", tmp_path / "one", rule="caption>=0.5")
    monkeypatch.setenv("DEDUPKIT_JOIN_TASKS_FROM", "1")
    monkeypatch.setattr(caption_tasks, "LISTS", 100)
    run(tmp_path / "data", tmp_path / "many", rule="caption>=0.5")
    assert outcome(tmp_path / "many") == outcome(tmp_path / "one")
    assert edges(tmp_path / "many", "caption") == edges(tmp_path / "one", "caption") != []
    assert len(RunFolder(tmp_path / "many").edge_files("caption")) > 2
    facts = [RunFolder(tmp_path / name).joined("caption") for name in ("one", "many")]
    assert facts[0] == facts[1]


def test_a_join_in_fewer_tasks_leaves_no_pairs_of_the_one_before(
    small: None, shards: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(shards, out, rule="pdq<=20")
    many = len(RunFolder(out).edge_files("pdq"))
    monkeypatch.setattr(hash_tasks, "cut", cut)
    run(shards, out, rule="pdq<=25")
    assert len(RunFolder(out).edge_files("pdq")) <= many
    monkeypatch.delenv("DEDUPKIT_JOIN_TASKS_FROM")
    run(shards, out, rule=RULE)
    assert len(RunFolder(out).edge_files("pdq")) == 1
    assert outcome(out) == outcome(one)


def test_more_hashes_than_a_join_can_number_are_refused_with_what_to_do(
    small: None, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_tasks, "MOST_ROWS", 2)
    with pytest.raises(DedupkitError, match=r"pdq has .* and one run joins at most 2: .* dedupkit update"):
        run(shards, tmp_path / "out", rule="pdq<=31")


def test_what_a_stopped_join_has_done_is_not_done_again(
    small: None, shards: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = hash_tasks.join_piece

    def counted(to: str, *rest: Any) -> dict[str, Any]:
        if len(calls) == 3:
            calls.append("stopped")
            raise KeyboardInterrupt
        calls.append(to)
        return real(to, *rest)

    monkeypatch.setattr(hash_tasks, "join_piece", counted)
    with pytest.raises(KeyboardInterrupt):
        run(shards, tmp_path / "out", rule=RULE)
    run(shards, tmp_path / "out", rule=RULE)
    assert len(set(calls)) == len(calls)
    assert outcome(tmp_path / "out") == outcome(one)


@pytest.fixture(scope="module")
def do(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[killing.Server]:
    folder = tmp_path_factory.mktemp("killed")
    (folder / "data").symlink_to(shards)
    with killing.server(
        environment({"DEDUPKIT_JOIN_TASKS_FROM": "1"}), ("run", str(folder), {"rule": RULE, "workers": 0})
    ) as server:
        yield server


def test_killed_in_the_middle_the_same_command_ends_the_same(do: killing.Server, shards: Path, tmp_path: Path) -> None:
    """Each command dies before its thirtieth change of a file, until one has less than that to do."""
    options, out = {"rule": RULE, "workers": 0}, tmp_path / "out"
    (tmp_path / "data").symlink_to(shards)
    status, changes = do("run", tmp_path, None, **options)
    assert status == 0, changes
    expected = outcome(out)
    shutil.rmtree(out)
    kills = 0
    while (done := do("run", tmp_path, 30, **options))[0] == killing.KILLED:
        kills += 1
        assert kills < len(changes)
    assert done[0] == 0, done
    assert kills > 3
    assert outcome(out) == expected


def test_engines_of_one_machine_and_of_many_begin_at_other_numbers() -> None:
    assert match_tasks.tasks_from(here=True) > match_tasks.tasks_from(here=False)
    assert SIGNALS["exact"].steps(None, None, "", 1) is None  # type: ignore[arg-type]


def test_a_wrong_number_is_one_line(shards: Path, tmp_path: Path) -> None:
    said = command("run", shards, "--out", tmp_path / "out", env={"DEDUPKIT_JOIN_TASKS_FROM": "many"})
    assert said.returncode == 1
    assert "DEDUPKIT_JOIN_TASKS_FROM is a number of samples" in one_line(said.stderr)
