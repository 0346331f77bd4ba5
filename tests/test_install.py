"""What a small install can do: the import is light, and the core needs no extra."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata

import pytest
from helpers import ROOT, encode, write_tar

HEAVY = ("torch", "open_clip", "ray", "img2dataset", "imagededup", "matplotlib", "pandas", "numba", "faiss", "scipy")
EXTRAS = (*HEAVY[:7], "timm", "cv2", "onnxruntime", "sklearn", "skimage", "datasets", "webdataset", "IPython")


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_importing_the_package_loads_nothing_heavy():
    done = python(f"""
        import sys, dedupkit
        dir(dedupkit)
        print([name for name in {HEAVY!r} if name in sys.modules])
    """)
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_package_takes_less_than_a_third_of_a_second():
    code = """
        import time
        started = time.perf_counter()
        import dedupkit
        print(time.perf_counter() - started)
    """
    assert min(float(python(code).stdout) for _ in range(3)) < 0.3


def test_the_core_does_the_whole_job_with_no_extra_installed(tmp_path, photos):
    image = photos["coffee"].resize((300, 200))
    members = [("a.jpg", encode(image, quality=90)), ("b.jpg", encode(image, quality=50))]
    source = write_tar(tmp_path / "in.tar", members)
    done = python(
        f"""
        import sys
        from importlib.abc import MetaPathFinder
        class Missing(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {EXTRAS!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Missing())
        import dedupkit as dk
        run = dk.dedup(sys.argv[1], sys.argv[2], rule="copies", hashes=["phash", "pixels"], workers=1)
        run.apply(sys.argv[3])
        run.report()
        run.rethreshold("exact or pdq<=10")
        print(run.summary["keep"], run.summary["remove"])
        try:
            dk.plot_duplicates(".", {{"a.jpg": ["b.jpg"]}}, "a.jpg")
        except dk.MissingExtraError as error:
            print(error)
        """,
        str(source), str(tmp_path / "out"), str(tmp_path / "clean"),
    )  # fmt: skip
    assert done.stderr == ""
    counts, error = done.stdout.strip().split("\n")
    assert counts == "1 1"
    assert "matplotlib is not installed" in error
    assert "[notebook]" in error


def test_a_broken_extra_is_not_mistaken_for_a_missing_one(tmp_path, monkeypatch):
    from dedupkit.errors import import_optional

    (tmp_path / "half_installed.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        import_optional("half_installed", "clip")


def test_a_missing_extra_is_installed_by_a_command_that_needs_no_index_with_this_package():
    from dedupkit.errors import MissingExtraError, import_optional

    with pytest.raises(
        MissingExtraError, match=r"no_such_module is not installed.*dedupkit-vision\[notebook\]"
    ) as seen:
        import_optional("no_such_module", "notebook")
    declared = [line.partition(";")[0].strip() for line in metadata.requires("dedupkit-vision") if "notebook" in line]
    assert all(f"'{requirement}'" in str(seen.value) for requirement in declared if "[" not in requirement)


def test_everything_that_an_extra_brings_is_pinned_for_the_checks():
    """Also what the named packages need in turn; nothing else of the environment counts."""

    def normal(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    left = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    needed: set[str] = set()
    while left:
        name = normal(left.pop())
        if name in needed or name == normal(project["name"]):
            continue
        needed.add(name)
        try:
            further = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of an extra that is not installed here, or for another platform
            continue
        left += [line for line in further if "extra ==" not in line and "sys_platform == " not in line]
    pinned = {normal(line) for line in (ROOT / "constraints.txt").read_text("utf-8").split("\n") if "==" in line}
    missing = {name for name in needed - pinned if _installed(name)}
    assert missing <= {"setuptools", "pip"}, f"constraints.txt does not pin {sorted(missing)}"


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
