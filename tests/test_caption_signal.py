"""Rules that look at captions: what a run keeps when images and texts must agree."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from helpers import jpegs, write_tar

import dedupkit as dk

SAMPLES = [
    # key, image, caption
    ("a0", 0, "A red fox in the snow"),
    ("a1", 0, "a red FOX, in the snow!"),
    ("a2", 0, "Buy cheap prints online"),
    ("a3", 0, None),
    ("a4", 0, ""),
    ("b0", 1, "a red fox in the snow"),
    ("b1", 1, "two red wolves in the snow"),
    ("c0", 2, None),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory, photos):
    images = jpegs(photos, 3)
    members = []
    for key, image, caption in SAMPLES:
        members.append((f"{key}.jpg", images[image]))
        members += [] if caption is None else [(f"{key}.txt", caption.encode())]
    members.append(("broken.jpg", b"no image"))
    members.append(("broken.txt", b"a red fox in the snow"))
    return write_tar(tmp_path_factory.mktemp("captions") / "in.tar", members)


def kept(run) -> list[str]:
    return run.manifest.to_pandas().query("verdict == 'keep'")["key"].tolist()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("exact", ["a0", "b0", "c0"]),
        ("exact and caption>=0.8", ["a0", "a2", "a3", "a4", "b0", "b1", "c0"]),
        ("exact and caption>=0.5", ["a0", "a2", "a3", "a4", "b0", "c0"]),
        ("(pdq<=31 and caption>=0.8) or (pdq<=31 and uncaptioned)", ["a0", "a2", "a3", "b0", "b1", "c0"]),
        ("caption>=0.8", ["a0", "a2", "a3", "a4", "b1", "c0"]),
        ("caption>=0.5", ["a0", "a2", "a3", "a4", "c0"]),
        ("uncaptioned", ["a0", "a1", "a2", "a3", "b0", "b1"]),
    ],
)
def test_a_rule_over_captions_keeps(source, tmp_path, rule, expected):
    run = dk.dedup(source, tmp_path / "run", rule=rule, keep="sample")
    assert kept(run) == expected
    manifest = run.manifest.to_pylist()
    assert manifest[-1]["verdict"] == "unreadable"
    for row in manifest:
        if row["verdict"] == "remove":
            assert manifest[row["kept_sample"]]["verdict"] == "keep"


def test_a_stricter_bound_needs_no_second_join(source, tmp_path):
    run = dk.dedup(source, tmp_path / "run", rule="caption>=0.5", keep="sample")
    edges = (tmp_path / "run" / "edges" / "caption" / "00000.parquet").read_bytes()
    again = run.rethreshold("caption>=0.9")
    assert kept(again) == ["a0", "a2", "a3", "a4", "b1", "c0"]
    assert (tmp_path / "run" / "edges" / "caption" / "00000.parquet").read_bytes() == edges
    with pytest.raises(dk.DedupkitError, match=r"the rule reaches caption>=0.4, the run's edges caption>=0.5"):
        run.rethreshold("caption>=0.4")


def test_the_report_says_it_in_words(source, tmp_path):
    run = dk.dedup(source, tmp_path / "run", rule="exact and caption>=0.8")
    page = run.report().read_text()
    assert "the words of their captions agree" in page


def test_many_captions_over_many_shards_give_the_pairs_of_the_join(tmp_path, photos):
    image = jpegs(photos, 1)[0]
    texts = [f"word{n % 50} word{n % 7} word{n % 3} photo of number {n % 90}" for n in range(300)]
    sources = []
    for shard in range(3):
        members = []
        for number in range(shard * 100, shard * 100 + 100):
            members += [(f"{number:04d}.jpg", image), (f"{number:04d}.txt", texts[number].encode())]
        sources.append(write_tar(tmp_path / f"{shard}.tar", members))
    run = dk.dedup(sources, tmp_path / "run", rule="caption>=0.7", keep="sample")
    from dedupkit.captions import caption_pairs

    pairs = caption_pairs(texts, 0.7)
    edges = pq.read_table(tmp_path / "run" / "edges" / "caption" / "00000.parquet")
    near = pairs.score < 1
    assert set(zip(edges["a"].to_pylist(), edges["b"].to_pylist(), strict=True)) >= set(
        zip(pairs.a[near].tolist(), pairs.b[near].tolist(), strict=True)
    )
    remaining = [int(key) for key in kept(run)]
    assert not any(a in remaining and b in remaining for a, b in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))
