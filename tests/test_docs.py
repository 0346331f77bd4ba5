"""The documentation says what is so: links resolve, commands parse, code compiles, tables are complete."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from helpers import ROOT

from dedupkit.cli.main import app
from dedupkit.clustering.grammar import PRESETS, needs_floor, parse_rule
from dedupkit.clustering.policy import POLICY_COLUMNS
from dedupkit.embedding.spec import embedder_name
from dedupkit.manifest.export import FORMATS
from dedupkit.signals import SIGNALS, known_signals
from dedupkit.stages.group_table import GROUPS_SCHEMA
from dedupkit.stages.manifest_table import MANIFEST_SCHEMA

PAGES = sorted(
    path for path in [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"] if path.exists()
)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
SHELL = ("", "sh", "bash", "shell", "console", "text")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for match in FENCE.finditer(page.read_text("utf-8")):
        if match[1] in languages:
            yield match[2]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    text = FENCE.sub("", page.read_text("utf-8"))
    titles = (re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()) for line in text.split("\n") if line.startswith("#"))
    return {title.strip().replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every ``dedupkit …`` line in a fenced block, up to a comment, a pipe or a redirection."""
    for block in blocks(page, *SHELL):
        for line in block.replace("\\\n", " ").split("\n"):
            line = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if line.startswith("dedupkit "):
                lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&>")
                lexer.whitespace_split = True
                words = list(lexer)
                ends = [place for place, word in enumerate(words) if set(word) <= set("|;&>")]
                yield words[1 : min(ends, default=len(words))]


def test_every_page_stands_in_the_index_and_on_the_site():
    linked = {target.partition("#")[0] for target in LINK.findall((ROOT / "docs/index.md").read_text("utf-8"))}
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "index.md" or page.name in linked, f"docs/index.md does not link to {page.name}"
        assert re.search(rf"[ :]{re.escape(page.name)}$", nav, re.MULTILINE), f"{page.name} is not in mkdocs.yml"


def broken_links(page: Path) -> list[str]:
    """Links to files or headings of the project that are not there."""
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    return broken


@pages
def test_links_within_the_project_resolve(page):
    assert broken_links(page) == []


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "other.md").write_text("# A heading, here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n[a](other.md) [b](other.md#a-heading-here) [c](#title) [d](https://example.org) ![e](gone.png)\n"
        "[f](gone.md) [g](other.md#gone) [h](#gone)\n```\n[i](in-code.md)\n```\n"
    )
    assert broken_links(page) == ["gone.png", "gone.md", "other.md#gone", "#gone"]


@pages
def test_command_lines_parse(page, tmp_path):
    program = typer.main.get_command(app)
    for words in commands(page):
        if words[0].startswith("-"):
            assert words[0] in {name for option in program.params for name in option.opts}
            continue
        assert words[0] in program.commands, f"dedupkit has no command {words[0]}"
        command = program.commands[words[0]]
        synopsis = any(word.startswith("[") or word == "..." for word in words)
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        for word in words[1:]:
            option = word.strip("[]").partition("=")[0]
            assert not option.startswith("--") or option in known, f"{' '.join(words)}: no option {option}"
        if synopsis:
            continue
        values = command.make_context(words[0], words[1:]).params
        embedders = [embedder_name(spec) for spec in values.get("embed") or ()]
        if "rule" in values and words[0] == "run":
            default = embedders or (["copy"] if needs_floor(values["rule"]) else [])
            parse_rule(values["rule"], known_signals(default), embedder=next(iter(default), None))
        assert values.get("format", "keys") in FORMATS


@pages
def test_python_compiles_and_imports_what_exists(page):
    for block in blocks(page, "python", "py"):
        code = block
        if ">>> " in code:
            lines = (line for line in code.split("\n") if line.startswith((">>> ", "... ")))
            code = "\n".join(line[4:] for line in lines)
        for node in ast.walk(ast.parse(code, page.name)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dedupkit":
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{node.module} has no {name.name}"
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dk":
                assert hasattr(importlib.import_module("dedupkit"), node.attr), f"dedupkit has no {node.attr}"


@pages
def test_pages_name_no_place_of_one_machine(page):
    assert not re.search(r"/(?:home|root|work|Users|tmp)/", page.read_text("utf-8"))


def test_every_column_preset_signal_and_format_is_described():
    def cells(name: str) -> str:
        rows = (ROOT / "docs" / name).read_text("utf-8").split("\n")
        return "\n".join(row.split("|")[1] for row in rows if row.startswith("|"))

    manifest, clustering, apply = cells("manifest.md"), cells("clustering.md"), cells("apply.md")
    for column in (*MANIFEST_SCHEMA.names, *GROUPS_SCHEMA.names):
        assert f"`{column}`" in manifest, column
    for name in (*PRESETS, *(signal for signal in SIGNALS if "_imagededup" not in signal)):
        assert f"`{name}`" in clustering, name
    for name in FORMATS:
        assert f"`{name}`" in apply, name
    policies = (ROOT / "docs/clustering.md").read_text("utf-8")
    for column in POLICY_COLUMNS:
        assert f"`{column}`" in policies, column


def test_presets_are_written_out_as_they_are():
    text = (ROOT / "docs" / "clustering.md").read_text("utf-8")
    for name, rule in PRESETS.items():
        row = next(line for line in text.split("\n") if line.startswith(f"| `{name}`"))
        assert f"`{rule.replace('{embedder}', 'E').replace('{low}', 'LOW')}`" in row, name


def test_versions_are_those_of_the_code():
    import dedupkit
    from dedupkit.runfolder import LAYOUT
    from dedupkit.stages.run import _SAMPLES_FORMAT

    rows = [line.split("|") for line in (ROOT / "docs/versions.md").read_text("utf-8").split("\n") if line[:1] == "|"]
    stated = {row[1].strip(): row[2].strip() for row in rows}
    assert stated["interface"] == dedupkit.__version__
    assert stated["layout of the run folder"] == str(LAYOUT)
    assert stated["meaning of the hashes"] == str(_SAMPLES_FORMAT)
