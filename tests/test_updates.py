"""Updates and reference sets: the parts have the verdicts of the whole, and what must not be in a run is blocked."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from helpers import command, encode, one_line, run, write_tar
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from test_promises import EDITS, RULES, Oracle, Pictures, needs_vectors

import dedupkit as dk
from dedupkit.captions.modes import CaptionMode
from dedupkit.cli.run import show_run
from dedupkit.clustering import decide, parse_policy, parse_rule
from dedupkit.clustering.policy import DEFAULT_POLICY
from dedupkit.clustering.rules import reason_of
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.signals import find_signal, known_signals, requested_signals, vectors
from dedupkit.signals.across import Across
from dedupkit.signals.columns import Scanned, read_column, write_edges
from dedupkit.sources.blocklist import read_blocklist
from dedupkit.stages.crossing import Crossing
from dedupkit.stages.outside import across_files, write_labels
from dedupkit.stages.whole import keep_order
from dedupkit.workflows import dedup
from dedupkit.workflows.against import names_against_rule

CAPTIONED = "pdq<=31 and caption>=0.5"
ANGLES = (None, 0, 0, 10, 25, 40, 62, 90)
slow = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],  # an example takes a second, so a failing one is not made smaller
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
choices = st.lists(
    st.tuples(st.sampled_from(["astronaut", "coffee", "chelsea"]), st.sampled_from(sorted(EDITS))),
    min_size=3,
    max_size=14,
)
angles_of_files = st.lists(st.sampled_from(ANGLES), min_size=8, max_size=8)


@pytest.fixture(scope="module")
def pictures(photos) -> Pictures:
    """Every edit of a few photos, encoded."""
    base = {name: photos[name].convert("RGB").resize((200, 160)) for name in ("astronaut", "coffee", "chelsea")}
    return Pictures({(name, edit): make(image) for name, image in base.items() for edit, make in EDITS.items()})


class Parts:
    """Pictures with keys, captions and made-up vectors, dealt over some tars."""

    def __init__(self, folder: Path, chosen, pictures, angles, counts: tuple[int, ...]) -> None:
        self.files = [pictures[choice] for choice in chosen]
        self.keys = [f"{i:04d}" for i in range(len(chosen))]
        self.broken = [edit == "broken" for _, edit in chosen]
        angle = [angles[zlib.crc32(data) % len(angles)] for data in self.files]
        self.vectors = [None if t is None else np.array([np.cos(np.radians(t)), np.sin(np.radians(t))]) for t in angle]
        self.ends = np.cumsum([0, *counts]).tolist()
        self.tars = []
        for number, (low, high) in enumerate(zip(self.ends, self.ends[1:], strict=False)):
            members = []
            for i in range(low, high):
                members += [(f"{self.keys[i]}.jpg", self.files[i])]
                members += [(f"{self.keys[i]}.txt", f"{chosen[i][1]} of {chosen[i][0]}".encode())]
            self.tars.append(str(write_tar(folder / f"{number}.tar", members)))

    def embed(self, text: str, low: int, high: int):
        """The vectors of some samples, as an embedder; assumes that there are any where a rule needs them."""
        if not needs_vectors(text):
            return ()
        mine = [i for i in range(low, high) if self.vectors[i] is not None]
        assume(any(not self.broken[i] for i in mine))
        return np.array([self.vectors[i] for i in mine]), [self.keys[i] for i in mine]


@slow
@given(
    chosen=choices, text=st.sampled_from((*RULES, "pdq<=31 and caption>=0.5")), angles=angles_of_files, data=st.data()
)
def test_a_chain_of_updates_gives_what_one_decision_gives_in_which_old_kept_samples_come_first(
    tmp_path_factory, pictures, chosen, text, angles, data
):
    pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("chain")
    first = data.draw(st.integers(1, len(chosen) - 2))
    second = data.draw(st.integers(1, len(chosen) - first - 1))
    parts = Parts(folder, chosen, pictures, angles, (first, second, len(chosen) - first - second))
    ends = parts.ends
    runs = [run(parts.tars[0], folder / "r0", rule=text, embed=parts.embed(text, 0, first))]
    for number in (1, 2):
        options = {"embed": parts.embed(text, ends[number], ends[number + 1])} if needs_vectors(text) else {}
        runs.append(dk.update(runs[-1].path, parts.tars[number], folder / f"r{number}", workers=0, **options))
    rows = [row for each in runs for row in each.manifest.to_pylist()]
    assert [row["key"] for row in rows] == parts.keys  # 1: each sample is in one of the manifests, once

    whole = run(parts.tars, folder / "whole", rule=text, embed=parts.embed(text, 0, len(chosen)))
    home = RunFolder(whole.path)
    rule = parse_rule(whole.config["rule_expanded"], known_signals(["vectors"]))
    signals = {name: find_signal(name).matches(Scanned(home, 3)) for name in rule.signals}
    policy = parse_policy(DEFAULT_POLICY)
    order = keep_order(home, 3, policy, len(rows))
    readable = read_column(home, 3, "error")["error"].is_null().to_numpy()
    kept = np.zeros(len(rows), bool)
    for number in range(3):
        part = readable & (np.arange(len(rows)) < ends[number + 1])
        restricted = {name: matches.restricted(part) for name, matches in signals.items()}
        decision = decide(rule, restricted, order, part, kept.copy())
        kept = part & (decision.witness < 0)
        for i in range(ends[number], ends[number + 1]):
            row, witness = rows[i], int(decision.witness[i])
            verdict = "unreadable" if not readable[i] else "keep" if kept[i] else "remove"
            assert row["verdict"] == verdict
            if verdict == "remove":  # 2: the witness is kept, here or in an earlier run, and the rule holds
                assert row["kept_key"] == parts.keys[witness]
                assert row["reason"] in map(reason_of, rule.clauses)
                at = int(np.searchsorted(ends, witness, side="right")) - 1
                assert row["kept_source"] == (None if at == number else str(runs[at].path))
                assert row["kept_sample"] == witness - ends[at]


@slow
@given(chosen=choices, text=st.sampled_from(RULES), angles=angles_of_files, data=st.data())
def test_samples_that_duplicate_a_reference_are_blocked_and_the_rest_is_decided_without_them(
    tmp_path_factory, pictures, chosen, text, angles, data
):
    pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("against")
    count = data.draw(st.integers(1, len(chosen) - 1))
    parts = Parts(folder, chosen, pictures, angles, (count, len(chosen) - count))
    options = {"rule": text, "embed": parts.embed(text, count, len(chosen))}
    # vectors made elsewhere are those of one set of samples, so a reference with vectors is a run of its own
    reference = parts.tars[0]
    if needs_vectors(text):
        named = parse_rule(text, known_signals(["vectors"]), embedder="vectors").signals
        hashes = [name for name in named if name in requested_signals()]
        embed = parts.embed(text, 0, count)
        reference = str(run(reference, folder / "set", rule="exact", embed=embed, hashes=hashes).path)
    found = run(parts.tars[1], folder / "out", against=reference, **options)
    rows = found.manifest.to_pylist()
    kept_there = range(count)
    if needs_vectors(text):
        kept_there = [i for i, row in enumerate(dk.Run(reference).manifest.to_pylist()) if row["verdict"] == "keep"]
    rule = parse_rule(found.config["rule_expanded"], known_signals(["vectors"]))
    oracle = Oracle(parts.files, parts.vectors)

    def duplicates(i: int, j: int) -> bool:
        return any(all(oracle.holds(atom, i, j) for atom in clause) for clause in rule.clauses)

    left = []
    for i, row in enumerate(rows, count):
        assert (row["verdict"] == "unreadable") == parts.broken[i]
        if parts.broken[i]:
            continue
        touched = [j for j in kept_there if not parts.broken[j] and duplicates(i, j)]
        assert (row["verdict"] == "blocked") == bool(touched)
        if touched:
            assert parts.keys.index(row["kept_key"]) in touched
            assert row["kept_source"] == reference
            assert row["reason"].startswith(f"{reference}: ")
        else:
            left.append((row, i))
    if left:
        members = [(f"{parts.keys[i]}.jpg", parts.files[i]) for _, i in left]
        if needs_vectors(text):
            assume(any(parts.vectors[i] is not None for _, i in left))
            mine = [i for _, i in left if parts.vectors[i] is not None]
            options["embed"] = np.array([parts.vectors[i] for i in mine]), [parts.keys[i] for i in mine]
        alone = run(str(write_tar(folder / "left.tar", members)), folder / "alone", **options).manifest.to_pylist()
        shown = ("key", "verdict", "reason", "score", "kept_key", "kept_source")
        assert [{k: row[k] for k in shown} for row, _ in left] == [{k: row[k] for k in shown} for row in alone]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pictures) -> dk.Run:
    """A run over three photos."""
    folder = tmp_path_factory.mktemp("old")
    members = [(f"{name}.jpg", pictures[name, "same"]) for name in ("astronaut", "coffee", "chelsea")]
    return run(str(write_tar(folder / "old.tar", members)), folder / "run")


def test_an_update_is_compared_with_the_reference_sets_of_the_run(tmp_path, pictures, monkeypatch):
    """A benchmark that the old images must not hold, the new ones must not hold either."""
    monkeypatch.chdir(tmp_path)
    bench = [(f"{name}.jpg", pictures[name, "same"]) for name in ("coffee", "chelsea")]
    write_tar(tmp_path / "bench.tar", bench)
    write_tar(tmp_path / "old.tar", [("astronaut.jpg", pictures["astronaut", "same"])])
    new = write_tar(tmp_path / "new.tar", [("same.jpg", bench[0][1]), ("worse.jpg", pictures["chelsea", "worse"])])
    run("old.tar", tmp_path / "exact", rule="copies", against="bench.tar", against_rule="exact")
    run("old.tar", tmp_path / "whole", rule="copies", against="bench.tar")
    run("old.tar", tmp_path / "alone", rule="copies")

    def verdicts(old: str, **options: object) -> list[str]:
        out = tmp_path / "-".join([old, "new", *options])
        return dk.update(tmp_path / old, str(new), out, workers=1, **options).manifest["verdict"].to_pylist()

    assert verdicts("alone") == ["keep", "keep"]
    assert verdicts("whole") == ["blocked", "blocked"]
    assert verdicts("whole", against=()) == ["keep", "keep"]
    assert verdicts("exact") == ["blocked", "keep"]
    assert verdicts("exact", rule="exact or pdq<=10") == ["blocked", "keep"]
    assert verdicts("exact", against_rule="copies") == ["blocked", "blocked"]
    run("old.tar", tmp_path / "named", rule="exact", against="bench.tar", against_rule="exact")
    assert verdicts("named", rule="copies") == ["blocked", "keep"]
    (tmp_path / "bench.tar").rename(tmp_path / "moved.tar")
    with pytest.raises(dk.DedupkitError, match="was compared with bench.tar, which the .*--against"):
        verdicts("whole", keep="sample")
    assert verdicts("whole", against="moved.tar") == ["blocked", "blocked"]
    none = ["update", tmp_path / "whole", new, "--out", tmp_path / "none", "--no-against"]
    assert json.loads(command(*none, "--json").stdout)["blocked"] == 0
    refused = command(*none, "--against", "moved.tar")
    assert (refused.returncode, "goes without --against" in refused.stderr) == (2, True)


def test_a_rule_that_is_tried_counts_for_reference_sets_unless_theirs_was_named(tmp_path, pictures):
    shard = new_shard(tmp_path, pictures)
    sets = [str(write_tar(tmp_path / "set.tar", [("set.jpg", pictures["coffee", "same"])])), tmp_path / "list.txt"]
    sets[1].write_text(f"sha256 {'0' * 64}\n")
    own = run(shard, tmp_path / "own", rule="copies", against=sets)
    named = run(shard, tmp_path / "named", rule="copies", against=sets, against_rule="copies")
    assert (own.summary["blocked"], named.summary["blocked"]) == (1, 1)
    assert own.decide().manifest.equals(own.manifest)
    tried, fresh = own.rethreshold("exact"), run(shard, tmp_path / "fresh", rule="exact", against=sets)
    assert tried.manifest.equals(fresh.manifest)
    assert tried.summary["blocked"] == 0
    assert tried.decide("copies").manifest.equals(named.manifest)
    assert named.decide("exact").summary["blocked"] == 1
    fresh = run(shard, tmp_path / "own", rule="exact", against=sets)  # joins with the sets what this rule names alone
    with pytest.raises(dk.DedupkitError, match=r"pdq was not compared with \S*set.tar; run again with --rule 'copies'"):
        fresh.decide("copies")
    paired = run(shard, tmp_path / "paired", rule="copies", against=sets, captions="pair")
    assert paired.decide("exact").config["against_rule"] == "exact"


@pytest.mark.parametrize("captions", ["ignore", "pair>=0.8"])
def test_the_rule_of_an_older_run_counts_as_named_where_it_is_not_the_runs_own(captions):
    rule = CaptionMode.parse(captions).paired("exact or pdq<=31")
    config = RunConfig(("in",), ("in",), "copies", rule, "sample", captions=captions, against_rule="exact or pdq<=31")
    assert not names_against_rule(config)
    assert names_against_rule(replace(config, against_rule="exact"))
    assert names_against_rule(replace(config, against_named=True))
    assert not names_against_rule(replace(config, against_rule="dinov2"))  # as a version in development wrote it


def test_samples_are_counted_once_for_references_of_one_name(tmp_path, pictures, finished):
    """The run that is updated may be a reference set too, and a set may be named twice."""
    shard = write_tar(tmp_path / "new.tar", [("coffee.jpg", pictures["coffee", "same"])])
    old = str(finished.path)
    assert dk.update(old, shard, tmp_path / "both", against=old, workers=0).summary["by_reference"] == [0, 1]
    assert run(shard, tmp_path / "twice", against=[old, old]).summary["by_reference"] == [1, 0]


def new_shard(folder: Path, pictures) -> str:
    members = []
    for name, edit in (("coffee", "worse"), ("chelsea", "mirror"), ("astronaut", "flat")):
        members.append((f"{name}-{edit}.jpg", pictures[name, edit]))
        members.append((f"{name}-{edit}.json", json.dumps({"url": f"https://cdn.{name}.org/{edit}.jpg"}).encode()))
    return str(write_tar(folder / "new.tar", members))


def blocked(found: dk.Run) -> dict[str, str]:
    """Key to what a blocked sample duplicates, and why without the name of the list."""
    rows = [row for row in found.manifest.to_pylist() if row["verdict"] == "blocked"]
    return {row["key"]: (row["reason"].rpartition(": ")[2], row["kept_key"], row["kept_sample"]) for row in rows}


def test_lists_of_hashes_urls_and_domains_block_and_malformed_lines_are_counted(tmp_path, pictures):
    pytest.importorskip("can_ada")
    shard = new_shard(tmp_path, pictures)
    plain = run(shard, tmp_path / "plain", hashes=["phash"]).manifest.to_pylist()
    sha, pdq = plain[0]["sha256"], plain[1]["pdq"].hex()
    (tmp_path / "mixed.txt").write_text(f"# takedowns\n\n{sha.upper()}\nnot a line\npdq {pdq}, 100\n<html>\n")
    found = run(shard, tmp_path / "mixed", against=tmp_path / "mixed.txt")
    assert blocked(found) == {
        "coffee-worse": ("exact", sha.upper(), 3),
        "chelsea-mirror": ("pdq", pdq, 5),
    }
    assert "0 unreadable, 2 blocked; rule" in repr(found)
    (shard_counts,) = found.shards.to_pylist()
    assert shard_counts["samples"] == sum(shard_counts[name] for name in ("keep", "remove", "unreadable", "blocked"))
    (facts,) = found.summary["references"]
    assert (facts["malformed"], facts["samples"], facts["rows"]) == (2, 2, 2)
    assert facts["examples"] == ["line 4: not a line", "line 6: <html>"]
    assert any("malformed" in label and "line 4" in text for label, text in found.rows())
    page = found.report().read_text()
    assert "mixed.txt" in page
    assert "line 4: not a line" in page

    lines = [f"hash,quality,filename\n{pdq},30,a.jpg\n{plain[0]['pdq'].hex()},99,b.jpg\n"]
    (tmp_path / "exchange.csv").write_text(lines[0])
    found = run(shard, tmp_path / "exchange", against=f"pdq:{tmp_path / 'exchange.csv'}")
    assert list(blocked(found)) == ["coffee-worse"]
    assert found.summary["references"][0]["flat"] == 1

    (tmp_path / "urls.txt").write_text("HTTPS://cdn.coffee.org:443/worse.jpg?utm_source=x\n")
    (tmp_path / "domains.txt").write_text("*.astronaut.org\nexample.com\n")
    lists = [tmp_path / name for name in ("urls.txt", "domains.txt")]
    found = run(shard, tmp_path / "addresses", against=lists)
    assert blocked(found) == {
        "coffee-worse": ("url", "HTTPS://cdn.coffee.org:443/worse.jpg?utm_source=x", 1),
        "astronaut-flat": ("domain", "*.astronaut.org", 1),
    }
    assert found.summary["by_reference"] == [1, 1]


def test_a_list_that_is_read_another_way_blocks_what_it_then_names(tmp_path, pictures, monkeypatch):
    shard = new_shard(tmp_path, pictures)
    plain = run(shard, tmp_path / "out").manifest.to_pylist()
    listed = tmp_path / "hashes.txt"
    listed.write_text(f"{plain[0]['sha256']}\n{plain[1]['pdq'].hex()}\n")
    for reads, keys in (("sha256:", ["coffee-worse"]), ("", ["coffee-worse", "chelsea-mirror"])):
        assert list(blocked(run(shard, tmp_path / "out", against=f"{reads}{listed}"))) == keys
    with monkeypatch.context() as older:  # a version that took every line for a PDQ hash
        older.setattr("dedupkit.stages.references._LIST_FORMAT", 0)
        older.setattr("dedupkit.sources.blocklist._kinds", lambda _text, _reads: ("pdq",))
        assert list(blocked(run(shard, tmp_path / "out", against=listed))) == ["chelsea-mirror"]
    assert list(blocked(run(shard, tmp_path / "out", against=listed))) == keys


def test_what_of_a_reference_set_could_not_be_compared_is_told(tmp_path, pictures):
    data = pictures["coffee", "same"]
    shard = str(write_tar(tmp_path / "in.tar", [("in.jpg", data)]))
    write_tar(tmp_path / "set0.tar", [("there.jpg", data), ("lacking.jpg", data), ("broken.jpg", b"no image")])
    np.savez(tmp_path / "v.npz", embedding=np.eye(2), key=np.array(["in", "there"]))
    options = {"rule": "exact or mine>=0.9", "embed": f"precomputed:{tmp_path}/v.npz?name=mine"}
    found = run(shard, tmp_path / "out", against=f"{tmp_path}/set{{0..1}}.tar", **options)
    (facts,) = found.summary["references"]
    assert (facts["rows"], facts["unreadable"], facts["without_vector"]["mine"]["count"]) == (2, 2, 1)
    (problem,) = facts["shard_problems"]
    assert problem == {"source": f"{tmp_path}/set1.tar", "problem": "the shard is gone: no such file"}
    assert sum("not read to its end in" in label for label, _ in found.rows()) == 1
    with pytest.raises(typer.Exit) as ended:
        show_run(found, json_output=True, strict=True)
    assert ended.value.exit_code == 3
    page = found.report().read_text()
    assert "set1.tar</code> the shard is gone" in page
    assert "1 image of 2 in <code>" in page
    assert "1 of its shards not to the end" in (found.path / "DATASET_CARD.md").read_text()
    write_tar(tmp_path / "set1.tar", [("more.jpg", data)])
    (mended,) = run(shard, tmp_path / "out", against=f"{tmp_path}/set{{0..1}}.tar", **options).summary["references"]
    assert (mended["rows"], mended["unreadable"], mended["shard_problems"]) == (3, 1, [])


def test_a_list_of_phashes_makes_the_scan_compute_them(tmp_path, pictures):
    shard = new_shard(tmp_path, pictures)
    values = read_column(RunFolder(run(shard, tmp_path / "plain", hashes=["phash"]).path), 1, "phash")["phash"]
    (tmp_path / "list.txt").write_text(values[1].as_py().hex() + "\n")
    found = run(shard, tmp_path / "out", against=tmp_path / "list.txt", rule="exact")
    assert list(blocked(found)) == ["chelsea-mirror"]
    assert "phash" in found.config["hashes"]


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("a" * 64, ("sha256", "pdq")),
        ("0123456789ABCDEF", ("phash",)),
        ("sha256 " + "b" * 64, ("sha256",)),
        (f'"{"c" * 64}",100,"x,y.jpg"', ("sha256", "pdq")),
        ("https://a.org/x.jpg, 0.9", ("urls",)),
        ("https://a.org/x,y.jpg", ("urls",)),
        ("ftp://a.org/x", ("urls",)),
        ("*.müller.example", ("domains",)),
        (".example.org", ("domains",)),
        ("пример.рф", ("domains",)),
        ("d" * 32, None),
        ("a b", None),
        ("localhost", None),
        ("\x00\ufffd", None),
    ],
)
def test_a_line_of_a_list_is_what_it_looks_like(tmp_path, line, kinds):
    (tmp_path / "list.txt").write_text(f"e.example\n{line}\n", "utf-8")
    found = read_blocklist(str(tmp_path / "list.txt"))
    assert [entry.kinds for entry in found.entries[1:]] == ([] if kinds is None else [kinds])
    assert found.malformed == (kinds is None)


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_a_heading_says_where_a_url_ends(tmp_path, separator):
    lines = [("reason", "url", "date"), ("spam", "https://a.org/x.jpg", "2024")]
    (tmp_path / "list.csv").write_text("".join(separator.join(fields) + "\n" for fields in lines))
    (tmp_path / "last.csv").write_text("".join(separator.join(fields[1:]) + "\n" for fields in lines))
    for name in ("list.csv", "last.csv"):
        (entry,) = read_blocklist(str(tmp_path / name)).entries
        assert (entry.text, entry.kinds) == ("https://a.org/x.jpg", ("urls",))


def test_a_domain_blocks_urls_in_unicode_and_in_ascii(tmp_path, pictures):
    urls = ["https://Bücher.example/a.jpg", "https://xn--bcher-kva.example/b.jpg", "https://buecher.example/c.jpg"]
    members = []
    for key, name, url in zip("abc", ("astronaut", "coffee", "chelsea"), urls, strict=True):
        members += [(f"{key}.jpg", pictures[name, "same"]), (f"{key}.json", json.dumps({"url": url}).encode())]
    (tmp_path / "list.txt").write_text("bücher.example\n", "utf-8")
    shard = str(write_tar(tmp_path / "in.tar", members))
    assert sorted(blocked(run(shard, tmp_path / "out", against=tmp_path / "list.txt"))) == ["a", "b"]


def test_an_update_follows_a_run_that_was_decided_again(tmp_path, pictures):
    members = {name: [(f"{name}.jpg", pictures[name, "same"])] for name in ("coffee", "chelsea")}
    parts = [str(write_tar(tmp_path / f"{name}.tar", files)) for name, files in members.items()]
    against = {"against": str(write_tar(tmp_path / "set.tar", [("set.jpg", pictures["coffee", "worse"])]))}
    old = run(parts[0], tmp_path / "old", against_rule="exact or pdq<=31", **against)
    new = dk.update(old.path, [parts[1]], tmp_path / "new", workers=0)
    assert (old.summary["blocked"], new.summary["keep"]) == (1, 1)

    again = run(parts[0], tmp_path / "old", against_rule="exact and pdq<=31", **against)
    assert again.summary["blocked"] == 0
    for act in (lambda: new.decide("exact"), lambda: dk.update(new.path, parts[1], tmp_path / "third", workers=0)):
        with pytest.raises(dk.DedupkitError, match="was decided again since"):
            act()
    new = dk.update(old.path, [parts[1]], tmp_path / "new", workers=0)
    assert new.decide("exact").summary["keep"] == 1


@pytest.mark.parametrize("stage", ["match_samples", "verify_samples"])
def test_an_update_stops_where_the_earlier_run_is_decided_again_meanwhile(
    tmp_path, pictures, finished, monkeypatch, stage
):
    old, shard = shutil.copytree(finished.path, tmp_path / "old"), new_shard(tmp_path, pictures)
    original = getattr(dedup, stage)

    def slow(*arguments):
        dk.Run(old).rethreshold("exact")  # another command, while this stage goes on
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(dedup, stage, slow)
        with pytest.raises(dk.DedupkitError, match="old was decided again meanwhile; give the same command again"):
            dk.update(old, shard, tmp_path / "new", rule="copies", workers=0)
    with pytest.raises(dk.DedupkitError, match="is not finished"):
        dk.Run(tmp_path / "new")
    assert dk.update(old, shard, tmp_path / "new", rule="copies", workers=0).summary["remove"] == 2


def test_candidates_of_copies_of_one_new_image_take_no_room_for_the_pairs_among_these(tmp_path):
    count, folder = 2_000, RunFolder(tmp_path)
    files = across_files(folder, 0, "pdq")
    join = Across(np.zeros(count, np.int32), np.zeros(1, np.int32), iter(()))
    write_edges(files.pairs, iter([(np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, 9.0))]), across=True)
    write_labels(files, join)
    exact = Across(np.arange(count, dtype=np.int32), np.zeros(1, np.int32), iter(()))
    tracemalloc.start()
    try:
        found = Crossing.of(folder, 0, parse_rule("pdq<=31 and verified", known_signals()), exact, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.pairs.tolist() == list(range(count))
    assert peak < 5e6  # with the two million pairs of new images, 176 MB


def test_an_update_writes_and_applies_the_new_part_alone_and_leaves_the_old_run_untouched(tmp_path, pictures, finished):
    before = (finished.path / "manifest.parquet").read_bytes()
    shard = new_shard(tmp_path, pictures)
    done = command("update", finished.path, shard, "--out", tmp_path / "run", "--json", "--workers", "2")
    summary = json.loads(done.stdout)
    assert (summary["samples"], summary["keep"], summary["remove"]) == (3, 1, 2)
    assert summary["references"][0] == {
        "role": "earlier", "kind": "run", "name": str(finished.path), "samples": 2, "rows": 3,
        "malformed": 0, "examples": [], "flat": 0, "shard_problems": [], "unreadable": 0, "without_vector": {},
    }  # fmt: skip
    new = dk.Run(tmp_path / "run")
    labels = [label for label, _ in new.rows()]
    assert labels.index(f"  removed for {finished.path}") < labels.index("unreadable")
    report = new.apply(tmp_path / "clean")
    assert report["samples"] == 1
    assert (finished.path / "manifest.parquet").read_bytes() == before
    told = str(new.explain("coffee-worse"))
    assert f"coffee in {finished.path}" in told
    assert new.report().read_text().count(str(finished.path)) >= 1
    assert new.borderline() == []  # both witnesses lie elsewhere
    strict = new.decide("exact")  # within what was compared
    assert strict.summary["keep"] == 3
    with pytest.raises(dk.DedupkitError, match="run again with --rule"):
        new.decide("pdq<=40")


def test_a_byte_copy_that_is_a_twin_of_another_new_sample_points_at_no_third_one(tmp_path, pictures):
    data, other = pictures["coffee", "same"], pictures["chelsea", "same"]
    old = run(str(write_tar(tmp_path / "old.tar", [("old.jpg", data)])), tmp_path / "old")
    members = [("twin.jpg", data + b"\0"), ("copy.jpg", data), ("other.jpg", other)]
    new = dk.update(old.path, str(write_tar(tmp_path / "new.tar", members)), tmp_path / "new", workers=0)
    assert new.manifest["verdict"].to_pylist() == ["remove", "remove", "keep"]
    assert new.manifest["kept_key"].to_pylist() == ["old", "old", None]


def test_the_same_update_gives_the_same_bytes_with_any_workers_and_after_files_were_lost(tmp_path, pictures, finished):
    shard = new_shard(tmp_path, pictures)
    one = dk.update(finished.path, shard, tmp_path / "one", workers=0)
    two = dk.update(finished.path, shard, tmp_path / "two", workers=2)
    names = ("manifest.parquet", "groups.parquet")
    expected = [(one.path / name).read_bytes() for name in names]
    assert [(two.path / name).read_bytes() for name in names] == expected
    shutil.rmtree(two.path / "references")
    (two.path / "manifest.parquet").write_bytes(b"")
    assert [
        (dk.update(finished.path, shard, two.path, workers=0).path / name).read_bytes() for name in names
    ] == expected


def test_updates_of_updates_give_the_same_bytes_in_another_folder(tmp_path, pictures, monkeypatch):
    made = []
    for place in (tmp_path / "one", tmp_path / "two"):
        write_tar(place / "old.tar", [("coffee.jpg", pictures["coffee", "same"])])
        write_tar(place / "middle.tar", [("chelsea.jpg", pictures["chelsea", "same"])])
        new_shard(place, pictures)
        monkeypatch.chdir(place)
        run("old.tar", "first")
        dk.update("first", "middle.tar", "second", workers=0)
        third = dk.update("second", "new.tar", "third", workers=0)
        made.append((third.path / "manifest.parquet").read_bytes())
    assert third.manifest["kept_source"].to_pylist() == ["first", "second", None]
    assert made[0] == made[1]
    monkeypatch.chdir(tmp_path)  # where "first" is no name of the first run
    other = dk.update("two/second", "two/new.tar", "third", workers=0)
    assert other.manifest["kept_source"].to_pylist() == [str(tmp_path / "two" / "first"), "two/second", None]


def test_an_earlier_run_that_decides_anew_is_joined_anew(tmp_path, pictures):
    members = [("big.jpg", pictures["coffee", "same"]), ("small.jpg", pictures["coffee", "small"])]
    old = run(str(write_tar(tmp_path / "old.tar", members)), tmp_path / "old")
    shard = new_shard(tmp_path, pictures)
    first = dk.update(old.path, shard, tmp_path / "new", workers=0)
    assert first.manifest["kept_key"][0].as_py() == "big"
    old.rethreshold("exact or pdq<=31", keep="pixels")
    again = dk.update(old.path, shard, tmp_path / "new", workers=0, keep=DEFAULT_POLICY)
    assert again.manifest["kept_key"][0].as_py() == "small"


def test_what_an_earlier_run_lacks_is_computed_on_request_and_named_otherwise(tmp_path, pictures, finished):
    shard = new_shard(tmp_path, pictures)
    arguments = ["update", finished.path, shard, "--out", tmp_path / "run", "--rule", "exact or phash<=6"]
    refused = command(*arguments)
    assert refused.returncode == 1
    assert "has not computed phash; --compute-missing computes" in one_line(refused.stderr)
    done = command(*arguments, "--compute-missing")
    assert done.returncode == 0, done.stderr
    rows = dk.Run(tmp_path / "run").manifest.to_pylist()
    assert (rows[0]["reason"], rows[0]["kept_key"]) == ("phash", "coffee")
    assert dk.Run(tmp_path / "run").config["compute_missing"]
    (tmp_path / "run" / "decision.json").unlink()
    with pytest.raises(dk.DedupkitError, match="again to go on: dedupkit update .* --compute-missing"):
        dk.Run(tmp_path / "run")


def test_images_of_an_earlier_run_that_changed_are_not_taken_for_what_it_read(tmp_path, pictures):
    source = tmp_path / "old.tar"
    old = run(str(write_tar(source, [("a.jpg", pictures["coffee", "same"])])), tmp_path / "old")
    write_tar(source, [("a.jpg", pictures["chelsea", "same"])])
    with pytest.raises(dk.DedupkitError, match="changed since it was made"):
        dk.update(old.path, new_shard(tmp_path, pictures), tmp_path / "new", rule="phash<=4", compute_missing=True)


def test_a_bad_reference_is_refused_with_one_line(tmp_path, pictures, finished):
    shard = new_shard(tmp_path, pictures)
    (tmp_path / "empty.txt").write_text("nothing here\n")
    unfinished, other = tmp_path / "unfinished", tmp_path / "layout"
    for copy in (unfinished, other):
        shutil.copytree(finished.path, copy)
    (unfinished / "decision.json").unlink()
    config = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**config, "layout": 1}))
    for reference, said in (
        (tmp_path / "empty.txt", "no usable line"),
        (tmp_path / "missing.txt", "cannot be read"),
        (tmp_path / "missing", "no such source"),
        (unfinished, "is not finished"),
        (other, "layout 1"),
        (tmp_path / "out", "the folder of this run itself"),
    ):
        if reference.name == "out":
            run(shard, tmp_path / "out")
        with pytest.raises(dk.DedupkitError, match=said):
            run(shard, tmp_path / "out", against=reference)
    with pytest.raises(dk.RuleError, match="name one with --embed"):
        run(shard, tmp_path / "out", against=str(finished.path), against_rule="dinov2")


def test_vectors_of_another_model_or_length_are_refused(tmp_path, pictures):
    sets = []
    for name, width in (("one", 2), ("other", 3)):
        source = str(write_tar(tmp_path / f"{name}.tar", [(f"{name}.jpg", pictures["coffee", "same"])]))
        sets.append((source, (np.ones((1, width)), [name])))
    old = run(sets[0][0], tmp_path / "old", rule="vectors>=0.9", embed=sets[0][1])
    with pytest.raises(dk.DedupkitError, match="have 3 values here and 2 in"):
        run(sets[1][0], tmp_path / "new", rule="vectors>=0.9", embed=sets[1][1], against=str(old.path))
    with pytest.raises(dk.DedupkitError, match="made elsewhere"):
        dk.update(old.path, sets[1][0], tmp_path / "new2")


def test_vectors_whose_name_is_part_of_another_signals_are_not_taken_for_it(tmp_path, pictures):
    source = str(write_tar(tmp_path / "old.tar", [("old.jpg", pictures["coffee", "same"])]))
    np.savez(tmp_path / "made.npz", embedding=np.ones((1, 2)), key=np.array(["old"]))
    old = run(source, tmp_path / "old", rule="crops<=31", embed=f"precomputed:{tmp_path / 'made.npz'}?name=crop")
    new = dk.update(old.path, new_shard(tmp_path, pictures), tmp_path / "new", workers=0)
    assert new.manifest["reason"].to_pylist()[0] == "crops"


def test_an_update_takes_vectors_that_were_loaded_like_those_of_the_earlier_run(tmp_path, pictures):
    made = []
    for name in ("one", "other"):
        source = str(write_tar(tmp_path / f"{name}.tar", [(f"{name}.jpg", pictures["coffee", "same"])]))
        np.savez(tmp_path / f"{name}.npz", embedding=np.ones((1, 2)), key=np.array([name]))
        made.append((source, dk.embedding.load_precomputed(f"{tmp_path / name}.npz?name=mine")))
    old = run(made[0][0], tmp_path / "old", rule="mine>=0.9", embed=made[0][1])
    new = dk.update(old.path, made[1][0], tmp_path / "new", embed=made[1][1], workers=0)
    assert new.manifest["reason"].to_pylist() == ["mine"]


def test_vectors_that_a_killed_join_with_a_reference_left_are_removed(tmp_path, pictures, monkeypatch):
    made = []
    for name in ("one", "other"):
        source = str(write_tar(tmp_path / f"{name}.tar", [(f"{name}.jpg", pictures["coffee", "same"])]))
        made.append((source, (np.ones((1, 2)), [name])))
    run(made[0][0], tmp_path / "old", rule="vectors>=0.9", embed=made[0][1])
    original = vectors.join_vectors

    def killed(*arguments):
        shutil.copytree(tmp_path / "new", tmp_path / "killed")  # what a kill would leave
        return original(*arguments)

    monkeypatch.setattr(vectors, "join_vectors", killed)
    run(made[1][0], tmp_path / "new", rule="vectors>=0.9", embed=made[1][1], against=str(tmp_path / "old"))
    gathered = {"0.npy", "1.npy"}
    assert gathered <= {path.name for path in (tmp_path / "killed").rglob("*.npy")}
    with RunFolder(tmp_path / "killed").locked():  # as the next call does
        assert not gathered & {path.name for path in (tmp_path / "killed").rglob("*")}
    assert not gathered & {path.name for path in (tmp_path / "new").rglob("*")}


def test_a_run_whose_earlier_run_is_gone_says_so_when_it_is_updated_and_is_read_as_before(tmp_path, pictures, finished):
    shutil.copytree(finished.path, tmp_path / "old")
    new = dk.update(tmp_path / "old", new_shard(tmp_path, pictures), tmp_path / "new", workers=0)
    rows = new.manifest.to_pylist()
    shutil.rmtree(tmp_path / "old")
    assert dk.Run(new.path).manifest.to_pylist() == rows
    third = str(write_tar(tmp_path / "third.tar", [("x.jpg", encode(ImageOps.flip(Image.new("RGB", (64, 64)))))]))
    with pytest.raises(dk.DedupkitError, match="which is gone"):
        dk.update(new.path, third, tmp_path / "third")
