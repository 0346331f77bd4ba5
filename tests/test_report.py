"""The report says what the manifest says, shows the images, and holds against hostile data."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shlex
import shutil
import subprocess
import tarfile
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
import typer.main
from PIL import Image

from dedupkit.cli.main import app
from dedupkit.errors import DedupkitError
from dedupkit.images import thumbnail
from dedupkit.manifest.shown import clip
from dedupkit.memorization.risk import SOURCES, measure_risk
from dedupkit.report import write_report
from dedupkit.report.collect import collect
from dedupkit.report.facts import ReportFacts
from dedupkit.report.histograms import group_sizes, score_histograms
from dedupkit.report.tables import Removed
from dedupkit.report.thumbnails import Thumbnails
from dedupkit.report.words import command as repeating_command
from dedupkit.report.words import policy_words, read_rule, rule_words, score_words
from dedupkit.runfolder import RunConfig, RunFolder
from dedupkit.runfolder.references import Reference
from dedupkit.workflows.dedup import dedup
from dedupkit.workflows.run import Run
from dedupkit.workflows.update import update

HOSTILE = "<script>alert('caption')</script> & \"quotes\" </figure>\x00\x1b[31m ‮ | `x`"
COPIES = 9
ORIENTATION = 0x0112


def photo(name: str, side: int = 256) -> Image.Image:
    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    return image.resize((side, side * image.height // image.width))


def jpeg(image: Image.Image, quality: int = 92, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def write_tar(path: Path, samples: list[tuple[str, bytes, str | None]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, image, caption in samples:
            for extension, data in (("jpg", image), ("txt", caption)):
                if data is not None:
                    content = data.encode() if isinstance(data, str) else data
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    astronaut, cat = photo("astronaut"), photo("chelsea")
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    first = [("a-original", jpeg(astronaut), HOSTILE), ("a-copy", jpeg(astronaut), HOSTILE)]
    first += [(f"a-{q:02d}", jpeg(astronaut, q), "an astronaut") for q in range(20, 20 + 5 * COPIES, 5)]
    first += [("cat", jpeg(cat), "a cat"), ("broken-one", b"no image", "x"), ("broken-two", b"", None)]
    tall = photo("rocket").resize((320, 200))
    second = [("cat-small", jpeg(cat.resize((150, 100)), 60), "a cat"), ("coffee", jpeg(photo("coffee")), None)]
    second += [("turned", jpeg(tall.transpose(Image.Transpose.ROTATE_90), exif=turned), "a rocket")]
    second += [("upright", jpeg(tall), "a rocket")]
    write_tar(folder / "00000.tar", first)
    write_tar(folder / "00001.tar", second)
    return folder


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return dedup(source, tmp_path_factory.mktemp("runs") / "run", workers=1)


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return write_report(run.path).read_text("utf-8")


def images_in(html: str) -> list[Image.Image]:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


class TestNumbers:
    def test_counts_agree_with_the_manifest(self, run: Run, page: str) -> None:
        facts = json.loads((run.path / "report.json").read_text("utf-8"))
        manifest = pq.read_table(run.path / "manifest.parquet").to_pylist()
        verdicts = Counter(row["verdict"] for row in manifest)
        assert facts["samples"] == len(manifest) == facts["kept"] + facts["removed"] + facts["unreadable"]
        assert (facts["kept"], facts["removed"], facts["unreadable"]) == (
            verdicts["keep"], verdicts["remove"], verdicts["unreadable"]
        )  # fmt: skip
        assert facts["removed"] >= COPIES + 2
        assert facts["removed_by_reason"] == Counter(r["reason"] for r in manifest if r["verdict"] == "remove")
        unreadable = {entry["reason"]: entry["count"] for entry in facts["unreadable_by_reason"]}
        assert unreadable == Counter(r["reason"] for r in manifest if r["verdict"] == "unreadable")
        for number in (facts["samples"], facts["kept"], facts["removed"]):
            assert f"<b>{number:,}</b>" in page

    def test_groups_agree_with_the_manifest(self, run: Run) -> None:
        facts = collect(run.path).to_json()
        manifest = pq.read_table(run.path / "manifest.parquet").to_pylist()
        sizes = Counter(row["group"] for row in manifest)
        groups = {group: size for group, size in sizes.items() if size > 1}
        assert facts["groups"]["count"] == len(groups) == len(facts["largest_groups"])
        assert facts["groups"]["largest"] == max(groups.values()) == facts["largest_groups"][0]["size"]
        assert facts["groups"]["samples"] == sum(groups.values())
        assert facts["groups"]["singles"] == len(manifest) - facts["unreadable"] - sum(groups.values())
        assert sum(entry["groups"] for entry in facts["groups"]["sizes"]) == len(groups)
        assert sum(entry["removed"] for entry in facts["groups"]["sizes"]) == facts["removed"]
        by_sample = {row["sample"]: row for row in manifest}
        for group in facts["largest_groups"]:
            kept, *gone = group["shown"]
            assert kept["verdict"] == "keep"
            assert all(row["kept_sample"] == kept["sample"] for row in gone)
            assert all(by_sample[row["sample"]]["group"] == group["group"] for row in group["shown"])

    def test_scores_and_borderline(self, run: Run) -> None:
        facts = collect(run.path).to_json()
        (histogram,) = facts["scores"]
        assert histogram["reason"] == "pdq"
        assert histogram["count"] == facts["removed_by_reason"]["pdq"] == sum(b["count"] for b in histogram["bins"])
        assert histogram["max"] <= histogram["bound"] == 31
        scores = [pair["removed"]["score"] for pair in facts["borderline"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == histogram["max"]
        for pair in facts["borderline"]:
            assert pair["removed"]["kept_sample"] == pair["witness"]["sample"]
            assert pair["witness"]["verdict"] == "keep"

    def test_what_a_model_may_memorize(self, run: Run, page: str) -> None:
        facts = collect(run.path)
        assert facts.risk == measure_risk(run.path, 12)
        ten = facts.risk.copies[1]
        assert (ten.at_least, ten.groups, ten.samples, ten.remaining) == (10, 1, COPIES + 2, 0)
        section = page.partition('<section id="risk">')[2].partition("</section>")[0]
        assert section.count("<rect ") == sum(
            value > 0 for each in facts.risk.copies for value in (each.groups, each.one_caption, each.remaining)
        )
        assert section.count("<img ") == len(facts.risk.top)
        assert section.count("https://arxiv.org/abs/") == len(SOURCES)
        assert HOSTILE not in section

    def test_repeated_captions(self, run: Run) -> None:
        captions = collect(run.path).captions
        first = captions.repeated[0]
        assert (first.caption, first.count) == ("an astronaut", COPIES)
        assert captions.repeats[0].more_than == 1
        assert captions.repeats[0].groups == len(captions.repeated)
        groups = captions.groups_with_one_caption + captions.groups_with_several + captions.groups_without
        assert groups == len(run.groups)

    def test_full_lists_and_what_they_hold_of_planted_copies(self, run: Run, tmp_path: Path, monkeypatch) -> None:
        counts = {"candidates": 4003, "looked_at": 3190, "verified": 59, "capped": 125, "rounds": 2}
        share = {"copies": 64, "above_floor": 60, "estimate": 0.95, "low": 0.61, "high": 0.98}
        across = {"candidates": 7, "looked_at": 7, "verified": 1, "rounds": 1, "unseen": 2}
        found = {**counts, "planted": {"copy": share}, "references": across}
        monkeypatch.setattr("dedupkit.report.collect.verification_facts", lambda *_: found)
        shutil.copytree(run.path, tmp_path / "run")
        page = write_report(tmp_path / "run").read_text("utf-8")
        card = (tmp_path / "run" / "DATASET_CARD.md").read_text("utf-8")
        facts = ReportFacts.from_json(json.loads((tmp_path / "run" / "report.json").read_text("utf-8")))
        assert facts.verification.within.capped == 125
        for text in (page, card):
            assert "lists of nearest neighbours are full for 125" in text
            assert "The lists hold 57 of the 60 copies" in text
            assert "with earlier runs and reference sets" in text
        assert "\n\n\n" not in card

    def test_the_classes_are_the_schema_of_the_file(self, run: Run, page: str) -> None:
        read = ReportFacts.from_json(json.loads((run.path / "report.json").read_text("utf-8")))
        assert read == collect(run.path)
        with pytest.raises(ValueError, match="version"):
            ReportFacts.from_json({"format": 1})

    def test_report_follows_another_rule(self, source: Path, tmp_path: Path) -> None:
        again = dedup(source, tmp_path / "run", workers=1, target_recall=0.95)
        again.rethreshold("exact")
        again.report()
        facts = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
        assert facts["removed_by_reason"] == {"exact": 1}
        assert facts["borderline"] == facts["scores"] == []
        assert "--rule exact" in facts["command"]
        assert "--target-recall 0.95" in facts["command"]

    def test_blocked_samples_frequent_captions_and_what_is_no_sample(self, tmp_path: Path) -> None:
        """A caption of many different images blocks them; a file that is no sample is counted."""
        names = ("coffee", "chelsea", "rocket", "astronaut")
        samples = [(f"p{number}", jpeg(photo(name)), "stock photo") for number, name in enumerate(names)]
        samples += [(f"q{number}", jpeg(photo("camera"), 80 + number), "A cameraman") for number in range(3)]
        write_tar(tmp_path / "s" / "0.tar", samples)
        (tmp_path / "s" / "notes.odt").write_text("about the data")
        run = dedup(tmp_path / "s", tmp_path / "run", workers=1, captions="template>3:drop")
        page = run.report().read_text("utf-8")
        facts = collect(run.path)
        reason = "caption of more than 3 kept samples"
        assert (facts.blocked, facts.kept, facts.groups.singles) == (4, 1, 0)
        assert facts.passed_over.count == 1
        assert [(row.caption, row.count) for row in facts.captions.frequent] == [("stock photo", 4)]
        assert [(row.count, row.captions, row.group_size) for row in facts.captions.repeated] == [(3, 1, 3)]
        card = (run.path / "DATASET_CARD.md").read_text("utf-8")
        assert f"| – by {reason} | 4 |" in card
        assert "1 of 1 duplicate groups repeated one caption and had no other" in card
        assert "\n\n\n" not in card
        assert "Blocked samples" in page
        assert "notes.odt" in page
        assert "--captions 'template>3:drop'" in facts.command
        assert run.explain("p0").words == f"is blocked: {reason}"

    def test_what_duplicates_an_earlier_run_does_not_count_as_resembling_nothing(self, tmp_path: Path) -> None:
        cat, coffee = photo("chelsea"), photo("coffee")
        write_tar(tmp_path / "old.tar", [("cat", jpeg(cat), None)])
        write_tar(tmp_path / "new.tar", [("again", jpeg(cat, 60), None), ("coffee", jpeg(coffee), None)])
        earlier = dedup(tmp_path / "old.tar", tmp_path / "old", workers=0)
        run = update(earlier.path, tmp_path / "new.tar", tmp_path / "new", workers=0)
        facts = collect(run.path)
        assert (facts.kept, facts.removed, facts.groups.count, facts.groups.singles) == (1, 1, 0, 1)
        page = run.report().read_text("utf-8")
        assert "1 kept sample resembles no other" in page
        assert "None between samples of this run" in page  # the hash of what was removed is not identical
        card = (run.path / "DATASET_CARD.md").read_text("utf-8")
        assert page.count("Every duplicate is one of a sample in an earlier run.") == 2
        assert "No two samples" not in page
        assert "No image occurs twice among the samples of this run" in page
        assert "Every duplicate is one of a sample in an earlier run." in card
        assert "No duplicates" not in card

    def test_nothing_removed_and_nothing_read(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "s" / "0.tar", [("one", b"no image", None)])
        facts_of = dedup(tmp_path / "s", tmp_path / "run", workers=1)
        page = facts_of.report().read_text("utf-8")
        assert "No two samples satisfied the rule" in page
        assert "nothing was removed as a duplicate" in page
        assert json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))["groups"]["count"] == 0

    def test_refuses_a_folder_without_a_finished_run(self, tmp_path: Path) -> None:
        with pytest.raises(DedupkitError, match=r"no run\.json"):
            write_report(tmp_path)


class TestPage:
    def test_every_sample_shown_has_its_thumbnail(self, run: Run, page: str) -> None:
        facts = collect(run.path)
        figures = len(facts.shown) + len(facts.risk.top)  # the most repeated groups have theirs twice
        images = images_in(page)
        assert len(images) == figures > 10
        assert all(max(image.size) == 160 for image in images if image.size != (150, 100))
        assert '<div class="blank">' not in page

    def test_hostile_captions_are_text(self, run: Run, page: str) -> None:
        assert "<script" not in page
        assert "&lt;script&gt;alert(&#39;caption&#39;)&lt;/script&gt;" in page
        assert "\x00" not in page
        assert "\x1b" not in page
        assert "<script" not in run.groups[0].show()._repr_html_()

    def test_loads_nothing_from_elsewhere(self, page: str) -> None:
        assert "default-src 'none'" in page
        assert set(re.findall(r"\bsrc=\"([a-z]+:)", page)) == {"data:"}
        assert not re.search(r"<link|@import|url\(", page)
        assert set(re.findall(r"https?://[^/\"<]+", page)) == {"https://arxiv.org"}

    def test_says_the_limits(self, run: Run, page: str) -> None:
        card = (run.path / "DATASET_CARD.md").read_text("utf-8")
        for text in (page, card):
            assert "no privacy guarantee" in text
            assert all(number in text for number in ("2301.13188", "2305.08694", "2605.30642"))

    def test_same_run_same_bytes(self, run: Run, tmp_path: Path) -> None:
        files = ("report.html", "report.json", "DATASET_CARD.md")
        write_report(run.path)
        before = [(run.path / name).read_bytes() for name in files]
        elsewhere = write_report(run.path, tmp_path / "other.html")
        assert elsewhere == tmp_path / "other.html"
        write_report(run.path)
        assert [(run.path / name).read_bytes() for name in files] == before
        assert elsewhere.read_bytes() == before[0]
        assert not list(run.path.glob(".*.tmp"))

    def test_dataset_card(self, run: Run) -> None:
        card = (run.path / "DATASET_CARD.md").read_text("utf-8")
        facts = collect(run.path).to_json()
        assert f"| kept | {facts['kept']} |" in card
        assert facts["command"] in card
        assert "\n\n\n" not in card
        assert facts["command"].startswith("dedupkit run ")
        assert "--rule 'exact or pdq<=31'" in facts["command"]

    @pytest.mark.parametrize("name", ["run", "update"])
    def test_the_command_that_makes_it_again_can_be_given(self, name: str) -> None:
        references = (Reference("earlier", "run", "runs/old", "runs/old"),) if name == "update" else ()
        references += (Reference("against", "list", "hashes.txt", "hashes.txt"),)
        rule = "exact or pdq<=20 or phash<=4 or (copy>=0.4 and verified)"
        config = RunConfig(
            ("in.tar",), ("in.tar",), rule, rule, "sample", hashes=("phash",), embedders={"copy": "copy"},
            templates="cap:2", target_recall=0.999, references=references, against_rule="exact", captions="merge",
        )  # fmt: skip
        program, given, *words = shlex.split(repeating_command(config))
        assert (program, given) == ("dedupkit", name)
        assert words[words.index("--out") + 1] == "OUT"  # not the folder's name, which may be that of the sources
        asked = typer.main.get_command(app).commands[given].make_context(given, words).params
        assert (asked["rule"], asked["embed"], asked["against"]) == (rule, ["copy"], ["hashes.txt"])
        assert asked["against_rule"] == "exact"
        own = shlex.split(repeating_command(replace(config, against_named=False)))
        assert "--against-rule" not in own
        paired = shlex.split(repeating_command(replace(config, against_named=False, captions="pair>=0.8")))
        assert "--against-rule" in paired  # without the condition on captions, which the expanded rule has
        if name == "run":
            assert (asked["hashes"], asked["templates"], asked["target_recall"]) == (["phash"], "cap:2", 0.999)

    @pytest.mark.parametrize(("captions", "expanded"), [("ignore", False), ("pair>=0.8", True), ("pair>=0.8", False)])
    def test_the_command_of_an_update_says_what_it_would_take_over(self, captions: str, expanded: bool) -> None:
        earlier = Reference("earlier", "run", "old", "old")
        config = RunConfig(("in",), ("in",), "pdq<=9", "pdq<=9", "sample", captions=captions, references=(earlier,))
        words = shlex.split(repeating_command(config) if expanded else RunFolder("out").again(config))
        asked = typer.main.get_command(app).commands["update"].make_context("update", words[2:]).params
        assert asked["captions"] == ("ignore" if expanded else captions)  # the expanded rule has the condition
        assert asked["no_against"]

    def test_the_command_that_goes_on_with_a_run_names_its_sources_and_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = RunConfig(
            ("in {0,1}.tar",), ("in 0.tar", "in 1.tar"), "crops", "exact", "-pixels, sample", directory=str(tmp_path),
            captions="pair",
        )  # fmt: skip
        monkeypatch.chdir(tmp_path)
        plain = shlex.split(RunFolder("out").again(config, ["copy"]))
        assert plain[:5] == ["dedupkit", "run", "in {0,1}.tar", "--out", str(tmp_path / "out")]
        asked = typer.main.get_command(app).commands["run"].make_context("run", plain[2:]).params
        assert (asked["rule"], asked["keep"], asked["captions"]) == ("crops", "-pixels, sample", "pair")
        assert asked["embed"] == ["copy"]
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        moved = shlex.split(RunFolder("out").again(config))
        assert moved[:3] == ["cd", str(tmp_path), "&&"]
        assert moved[moved.index("--out") + 1] == str(tmp_path / "other" / "out")
        many = replace(config, sources=tuple(f"{n}.tar" for n in range(1000)))
        assert " 0.tar … --out " in RunFolder("out").again(many)

    def test_in_a_browser(self, run: Run, page: str, tmp_path: Path) -> None:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if chromium is None:
            pytest.skip("no Chromium is installed")
        del page
        done = subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}",
                "--enable-logging=stderr", "--dump-dom", (run.path / "report.html").as_uri(),
            ],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert "CONSOLE" not in done.stderr
        assert "<script" not in done.stdout
        assert done.stdout.count("<img ") == len(images_in(done.stdout)) > 10
        assert done.stdout.rstrip().endswith("</html>")


class TestSourceGone:
    @pytest.fixture
    def moved(self, source: Path, tmp_path: Path) -> Path:
        shutil.copytree(source, tmp_path / "source")
        return dedup(tmp_path / "source", tmp_path / "run", workers=1).path

    def test_moved(self, moved: Path) -> None:
        before = collect(moved)
        shutil.move(moved.parent / "source", moved.parent / "elsewhere")
        page = write_report(moved).read_text("utf-8")
        assert not images_in(page)
        assert '<div class="blank">no image</div>' in page
        assert page.count("is not where it was when the run read it") == 1
        assert collect(moved) == before

    def test_one_shard_gone_and_one_changed(self, moved: Path) -> None:
        (moved.parent / "source" / "00001.tar").unlink()
        page = write_report(moved).read_text("utf-8")
        assert images_in(page)
        assert "could not be shown" in page
        tar = moved.parent / "source" / "00000.tar"
        tar.write_bytes(bytes(tar.stat().st_size))
        page = write_report(moved).read_text("utf-8")
        assert not images_in(page)
        assert "has changed since it was scanned" in page


class TestOtherSources:
    """The same images again from a compressed tar, a Parquet file and a folder."""

    def test_thumbnails(self, source: Path, tmp_path: Path) -> None:
        with tarfile.open(source / "00000.tar") as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        pictures = {name: data for name, data in files.items() if name.startswith("a-") and name.endswith(".jpg")}
        (tmp_path / "folder").mkdir()
        for name, data in pictures.items():
            (tmp_path / "folder" / name).write_bytes(data)
        rows = [{"image": {"bytes": data, "path": name}} for name, data in pictures.items()]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=4)
        with gzip.open(tmp_path / "packed.tar.gz", "wb", 1) as packed:
            packed.write((source / "00000.tar").read_bytes())
        for name in ("folder", "rows.parquet", "packed.tar.gz"):
            again = dedup(tmp_path / name, tmp_path / f"run-{name}", workers=1)
            page = write_report(again.path).read_text("utf-8")
            shown = collect(again.path).largest_groups[0].shown
            assert len(images_in(page)) >= len(shown) == 6
            assert "no image</div>" not in page


class TestNotebook:
    def test_group_shows_images_and_verdicts(self, run: Run) -> None:
        view = run.groups[0].show(most=4)
        html = view._repr_html_()
        assert len(images_in(html)) == 4
        assert html.count("<b>kept</b>") == 1
        assert html.count("<b>removed</b>") == 3
        assert f"and {view.total - 4} more" in html
        assert "&lt;script&gt;" in html
        assert repr(view).startswith(f"<group of {view.total} samples, 4 shown; kept: a-")


class TestThumbnails:
    def test_exif_orientation(self, run: Run) -> None:
        rows = {row["key"]: row["sample"] for row in run.manifest.to_pylist()}
        uris = Thumbnails(run.path).get([rows["turned"], rows["upright"]])
        turned, upright = (images_in(uris[rows[key]])[0] for key in ("turned", "upright"))
        assert turned.size == upright.size == (160, 100)
        assert np.abs(np.asarray(turned, float) - np.asarray(upright, float)).mean() < 8

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "HSV", "LAB"])
    def test_every_mode(self, mode: str) -> None:
        base = photo("coffee", 300)
        via = base.convert("L") if mode in ("I;16", "I", "F", "PA", "LA") else base
        image = Image.new(mode, base.size) if mode in ("PA", "LAB") else via.convert(mode)
        small = Image.open(io.BytesIO(thumbnail(image)))
        assert (small.mode, small.width) == ("RGB", 160)

    def test_carries_no_metadata(self) -> None:
        data = jpeg(photo("coffee"), comment=b"secret", exif=b"Exif\0\0secret")
        assert b"secret" in data
        assert b"secret" not in thumbnail(Image.open(io.BytesIO(data)))

    def test_a_sample_without_image_is_noted(self, run: Run) -> None:
        rows = {row["key"]: row["sample"] for row in run.manifest.to_pylist()}
        thumbnails = Thumbnails(run.path)
        assert thumbnails.get([rows["broken-one"]]) == {}
        assert thumbnails.note == "1 image could not be shown; the first: not an image that Pillow can identify"


class TestWords:
    def test_rule(self) -> None:
        rule = read_rule("(clip>=0.9 and verified) or pdq<=31 or phash_imagededup<=4", ["clip"])
        assert list(rule) == ["clip and verified", "pdq", "phash_imagededup"]
        words = rule_words(rule, {"clip": "openclip:ViT-B-32/laion2b"})
        confirmed = "local features and pixels confirm that both show the same image"
        assert words[0] == f"the cosine of their clip vectors is at least 0.9, and {confirmed}"
        own = read_rule("copy>=0.35", ["copy"])
        assert rule_words(own, {}) == ["the cosine of their copy-descriptor vectors is at least 0.35"]
        assert "normalised by a background" in rule_words(own, {"copy": "copy?background=others.npy"})[0]
        assert "at most 31 bits" in words[1]
        assert words[2] == "their 64-bit pHash hashes (imagededup's definition) differ in at most 4 bits"
        assert score_words(rule, "pdq", 12.0) == "distance 12"
        assert score_words(rule, "clip and verified", 0.9128) == "similarity 0.913"
        assert score_words(rule, None, None) == ""

    def test_two_alternatives_of_one_reason_count_with_the_looser(self) -> None:
        assert read_rule("pdq<=10 or pdq<=31", [])["pdq"][0].bound == 31
        assert read_rule("sscd>=0.9 or sscd>=0.6", ["sscd"])["sscd"][0].bound == 0.6

    def test_policy(self) -> None:
        assert policy_words("-pixels, nbytes, sample") == "most pixels, then smallest file, then first in the input"

    def test_clip(self) -> None:
        assert clip(" a\x00\n b\t") == "a b"
        assert clip("x" * 300) == "x" * 199 + "…"
        assert clip(None) is None


class TestHistograms:
    def test_group_sizes_double(self) -> None:
        sizes = group_sizes(np.array([2, 2, 3, 4, 5, 9]), np.array([1, 1, 2, 2, 4, 8]))
        assert [(e.start, e.end, e.groups, e.removed) for e in sizes] == [
            (2, 2, 2, 2), (3, 4, 2, 4), (5, 8, 1, 4), (9, 16, 1, 8)
        ]  # fmt: skip
        assert group_sizes(np.zeros(0, int), np.zeros(0, int)) == ()

    @pytest.mark.parametrize(
        ("rule", "scores"),
        [
            ("pdq<=31", [0, 1, 30, 31]),
            ("pdq<=0", [0, 0]),
            ("pdq<=3", [0, 3]),
            ("clip>=0.9", [0.9, 0.95, 1.0, 1.0002]),
            ("clip>=1", [1.0]),
            ("clip>=-0.3", [-0.3, 0.0, 0.99]),
        ],
    )
    def test_every_score_has_one_bin(self, rule: str, scores: list[float]) -> None:
        parsed = read_rule(rule, ["clip"])
        count = len(scores)
        removed = Removed(
            np.arange(count), np.zeros(count, np.int64), np.float32(scores), np.zeros(count, np.int32), list(parsed)
        )
        (histogram,) = score_histograms(parsed, removed)
        assert sum(entry.count for entry in histogram.bins) == count

    @pytest.mark.parametrize(
        ("bound", "edges"),
        [
            (0.35, [0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
            (0.9, [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
            (0.796, [0.796, 0.8, 0.85, 0.9, 0.95, 1.0]),
        ],
    )
    def test_similarities_are_counted_between_round_numbers(self, bound: float, edges: list[float]) -> None:
        none = np.zeros(1, np.int64)
        removed = Removed(none, none, np.float32([0.97]), np.zeros(1, np.int32), ["clip"])
        (histogram,) = score_histograms(read_rule(f"clip>={bound}", ["clip"]), removed)
        assert [(each.start, each.end) for each in reversed(histogram.bins)] == list(pairwise(edges))
