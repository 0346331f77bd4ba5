"""Families of one template: what is found, what a cap removes, and the promises that hold under it."""

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import encode, manifest, run, write_tar
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import dedupkit as dk
from dedupkit.clustering import Matches, TemplatePolicy, decide, parse_rule
from dedupkit.clustering.families import cap_families
from dedupkit.errors import DedupkitError, RuleError
from dedupkit.memorization.risk import Risk, Templates, measure_risk
from dedupkit.report.collect import collect
from dedupkit.verification import features_of, verify_pair

pytest.importorskip("cv2")

RULE = "exact or (vectors>=0.3 and verified)"
BOX = (130, 60, 290, 220)  # where posters differ


def poster(picture, layout):
    """A page with lines of text all over, the same for a layout, and a picture in the middle."""
    page = Image.new("RGB", (420, 300), "white")
    draw = ImageDraw.Draw(page)
    for line in range(15):
        draw.text((6, 4 + 20 * line), f"{layout} {(line + 3) * 7919 % 977} " * 9, "black", font_size=14)
    page.paste(picture.resize((BOX[2] - BOX[0], BOX[3] - BOX[1])), BOX)
    return page


@pytest.fixture(scope="module")
def files(photos):
    pictures = [photos[name].convert("RGB") for name in ("astronaut", "coffee", "chelsea")]
    pages = {(layout, i): poster(image, layout) for layout in ("show", "sale") for i, image in enumerate(pictures)}
    pages["photo", 0] = photos["rocket"].convert("RGB").resize((300, 200))
    return {name: encode(page, quality=92) for name, page in pages.items()}


@pytest.fixture(scope="module")
def source(files, tmp_path_factory):
    """Six posters of two layouts, a photo, a byte copy and a recompressed copy of a poster; all of them candidates."""
    folder = tmp_path_factory.mktemp("posters")
    named = {f"{layout}-{i}": data for (layout, i), data in files.items()}
    named["show-1-equal"] = named["show-1"]
    again = Image.open(write(folder, named["show-1"]))
    named["show-1-again"] = encode(again, quality=80)
    write_tar(folder / "in.tar", [(f"{key}.jpg", data) for key, data in named.items()])
    keys = list(named)
    angle = np.radians(np.linspace(0, 40, len(keys)))
    return str(folder / "in.tar"), (np.column_stack([np.cos(angle), np.sin(angle)]), keys)


def write(folder, data):
    path = folder / "page.jpg"
    path.write_bytes(data)
    return path


def families(finished):
    table = pq.read_table(finished.path / "families.parquet").to_pylist()
    keys = {row["sample"]: row["key"] for row in finished.manifest.to_pylist()}
    return {keys[row["family"]]: {**row, "keys": [keys[sample] for sample in row["samples"]]} for row in table}


def test_a_pair_of_posters_is_one_template(files):
    found = verify_pair(files["show", 0], files["show", 1])
    assert found.relation == "template" and not found.verified
    assert found.describe("the other").startswith("the template of the other with other content")
    expected = [BOX[0] / 420, BOX[1] / 300, BOX[2] / 420, BOX[3] / 300]
    assert found.differs == pytest.approx(expected, abs=0.13)
    assert verify_pair(files["show", 0], files["sale", 0]).relation in ("other", "other shot")
    assert verify_pair(files["show", 0], files["photo", 0]).relation == "other"
    assert verify_pair(files["show", 1], features_of(files["show", 1])).relation == "copy"


def test_families_are_listed_and_kept_by_default(source, tmp_path):
    finished = run(source[0], tmp_path / "out", rule=RULE, embed=source[1])
    found = families(finished)
    assert sorted(sorted(key[:6] for key in row["keys"]) for row in found.values()) == [
        ["sale-0", "sale-1", "sale-2"], ["show-0", "show-1", "show-2"],
    ]  # fmt: skip
    for head, row in found.items():
        assert row["keys"][0] == head and (row["size"], row["kept"], row["removed"]) == (3, 3, 0)
        assert row["same"][0] == 1 and all(0.25 <= same < 1 for same in row["same"][1:])
        assert row["differs"][1] == pytest.approx(row["head_differs"][1], abs=0.05)
    assert finished.summary["families"] == {"families": 2, "in_families": 6, "largest": 3}
    assert ("template families", "2, 6 samples, the largest of 3") in finished.rows()
    risk = measure_risk(finished.path)
    assert risk.templates is not None and risk.templates[0] == Templates(2, 2, 6, 2)
    assert Risk.from_json(json.loads(json.dumps(risk.to_json()))) == risk
    assert "templates  families" in str(risk)
    verdict = {key: row["verdict"] for key, row in manifest(finished).items()}
    assert sum(verdict[key] == "keep" for key in ("show-1", "show-1-equal", "show-1-again")) == 1
    assert sum(value == "keep" for value in verdict.values()) == 7


@pytest.mark.parametrize("most", [1, 2])
def test_a_cap_keeps_so_many_of_each_family(source, tmp_path, most):
    finished = run(source[0], tmp_path / "out", rule=RULE, embed=source[1], templates=f"cap:{most}")
    rows = manifest(finished)
    for layout in ("show", "sale"):
        assert sum(row["verdict"] == "keep" for key, row in rows.items() if key.startswith(layout)) == most
    assert rows["photo-0"]["verdict"] == "keep"
    gone = [row for row in rows.values() if row["reason"] == "template family"]
    assert len(gone) >= 2 * (3 - most)
    for row in gone:  # the witness is kept, and one template with the sample by itself
        assert rows[row["kept_key"]]["verdict"] == "keep" and 0.25 <= row["score"] <= 1
        words = finished.explain(row["key"]).words
        assert "family of one template" in words
    assert {row["kept"] for row in families(finished).values()} == {most}
    risk = measure_risk(finished.path).templates
    assert risk is not None and risk[0].remaining == (2 if most == 2 else 0)
    before = {key: row["verdict"] for key, row in rows.items()}
    again = finished.decide(templates="keep")
    assert again.summary["keep"] == 7 and finished.decide(templates="cap:3").summary["keep"] == 7
    back = again.save().rethreshold(RULE, templates=f"cap:{most}")
    assert {key: row["verdict"] for key, row in manifest(back).items()} == before


def test_what_a_cap_removes_is_counted_apart_from_duplicates(source, tmp_path):
    finished = run(source[0], tmp_path / "out", rule=RULE, embed=source[1], templates="cap:2")
    rows = finished.manifest.to_pylist()
    capped = sum(row["reason"] == "template family" for row in rows)
    duplicates = sum(row["verdict"] == "remove" for row in rows) - capped
    assert capped >= 2 and duplicates >= 1
    shown = dict(finished.rows())
    assert shown["removed as duplicates"].startswith(f"{duplicates}  (")
    assert shown["removed by the family cap"].startswith(f"{capped}  (")
    assert "  because of template family" not in shown
    page = finished.report().read_text("utf-8")
    assert f"<b>{capped}</b><span>removed by the family cap" in page
    assert "need not satisfy the rule" in page
    card = (finished.path / "DATASET_CARD.md").read_text("utf-8")
    assert f"| removed as duplicates | {duplicates} |" in card and f"| removed by the family cap | {capped} |" in card
    assert f"at most 2 were kept, which removed {capped} more" in card
    assert "\n\n\n" not in card
    assert "directly, but for those that the family cap removed; nothing" in card
    singles = sum(row["verdict"] == "keep" and row["group_size"] == 1 for row in rows)
    assert collect(finished.path).groups.singles == singles
    plain = finished.rethreshold(RULE, templates="keep")
    assert "family cap" not in plain.report().read_text("utf-8") + str(plain.rows())
    assert "family cap" not in (plain.path / "DATASET_CARD.md").read_text("utf-8")


def test_a_rule_can_name_templates(source, tmp_path):
    rule = "exact or (vectors>=0.3 and verified) or (vectors>=0.3 and template)"
    finished = run(source[0], tmp_path / "out", rule=rule, embed=source[1])
    rows = manifest(finished)
    assert sorted(key[:4] for key, row in rows.items() if row["verdict"] == "keep") == ["phot", "sale", "show"]
    assert finished.summary["families"]["families"] == 0
    with pytest.raises(DedupkitError, match="names 'template'"):
        finished.calibrate(sample=2)


def test_what_cannot_be_capped_is_said(source, tmp_path):
    for wrong in ("cap:0", "cap", "drop", "cap:-1", "keep:3"):
        with pytest.raises(RuleError, match="cap:M"):
            TemplatePolicy.parse(wrong)
    with pytest.raises(DedupkitError, match="such as 'thorough', and this verifies none: exact or pdq<=31"):
        run(source[0], tmp_path / "out", templates="cap:2")
    finished = run(source[0], tmp_path / "out")
    assert not (finished.path / "families.parquet").exists()
    with pytest.raises(DedupkitError, match="run again with --rule thorough"):
        finished.decide(templates="cap:2")
    assert dk.Run(finished.path).config.get("templates", "keep") == "keep"


def test_equal_bytes_that_a_rule_keeps_are_capped_only_where_another_image_shares_their_template():
    first = np.array([0, 0, 0, 3, 3, 5], np.int32)  # as under --captions pair; 3, 4 and 5 are of one template
    edge = (np.array([value], kind) for value, kind in ((3, np.int32), (5, np.int32), (0.5, np.float32)))
    everything = np.ones(6, bool)
    nothing = Matches.identity(np.arange(6, dtype=np.int32))
    kept = decide(parse_rule("exact", {"exact": "identity"}), {"exact": nothing}, np.arange(6), everything)
    verdict, _ = cap_families(kept, Matches(first, *edge), np.arange(6), everything, 1, lambda some, stays: kept, 1)
    assert verdict.witness.tolist() == [-1, -1, -1, -1, 3, 3]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_promises_hold_under_a_cap(data):
    count, most = data.draw(st.integers(2, 14)), data.draw(st.integers(1, 3))
    pairs = list(itertools.combinations(range(count), 2))
    first = np.arange(count, dtype=np.int32)

    def edges(most_edges):
        chosen = data.draw(st.lists(st.sampled_from(pairs), max_size=most_edges, unique=True))
        a, b = (np.array([pair[end] for pair in chosen], np.int32) for end in (0, 1))
        return Matches(first, a, b, np.ones(len(chosen), np.float32))

    copies, templates = edges(count), edges(3 * count)
    order = np.array(data.draw(st.permutations(range(count))))
    part = np.array(data.draw(st.lists(st.sampled_from([True, True, True, False]), min_size=count, max_size=count)))
    rule = parse_rule("verified and pdq<=9", {"verified": "identity", "pdq": "distance"})
    zero = Matches(first, copies.a, copies.b, np.zeros(len(copies.a), np.float32))

    def by_rule(some, stays=None):
        signals = {"verified": copies.restricted(some), "pdq": zero.restricted(some)}
        return decide(rule, signals, order, some, stays)

    verdict, head = cap_families(by_rule(part), templates, order, part, most, by_rule, 1)
    kept = part & (verdict.witness < 0)
    copy, template = ({(int(a), int(b)) for a, b in zip(m.a, m.b, strict=True)} for m in (copies, templates))
    for i in np.flatnonzero(part & ~kept).tolist():
        w = int(verdict.witness[i])
        assert kept[w]
        assert (min(i, w), max(i, w)) in (template if verdict.clause[i] == 1 else copy)
    for i, j in itertools.combinations(np.flatnonzero(kept).tolist(), 2):
        assert (i, j) not in copy
    sizes = np.bincount(head[kept], minlength=count)
    assert (sizes <= most).all()
    for i in np.flatnonzero(kept & (head != np.arange(count))).tolist():
        assert (min(i, head[i]), max(i, head[i])) in template and kept[head[i]]
    heads = np.flatnonzero(kept & (head == np.arange(count))).tolist()
    assert all((i, j) not in template for i, j in itertools.combinations(heads, 2))
    plain, _ = cap_families(by_rule(part), templates, order, part, count, by_rule, 1)
    np.testing.assert_array_equal(plain.witness, by_rule(part).witness)
