"""The wheel that a user installs: what is in it, and that it works with the declared dependencies alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from helpers import ROOT, encode, write_tar

NAME = re.compile(r"[A-Za-z0-9._-]+")


def call(*command: object, cwd: Path) -> str:
    """Run a program, which must succeed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built with this environment's back end, so that nothing is downloaded."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    call(*pip, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def declared(requirements: list[str], seen: set[str]) -> set[str]:
    """The distributions that are required, and those that these require, without extras."""
    for line in requirements:
        needed = NAME.match(line)[0]
        if "extra ==" not in line and needed.lower() not in seen:
            try:
                further = metadata.requires(needed) or []
            except metadata.PackageNotFoundError:  # for another platform or another Python
                continue
            seen.add(needed.lower())
            declared(further, seen)
    return seen


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in names if ".dist-info/" not in name}
    files = [path for path in (ROOT / "dedupkit").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert package == {path.relative_to(ROOT).as_posix() for path in files}
    assert "dedupkit/py.typed" in package
    assert any(name.endswith(".html.j2") for name in package)


def test_the_installed_wheel_works_with_its_declared_dependencies_alone(wheel, tmp_path, photos):
    """A clean environment: pip installs the wheel, and links stand in for a download of what it declares."""
    call(sys.executable, "-m", "venv", "--without-pip", "new", cwd=tmp_path)
    python = tmp_path / "new" / "bin" / "python"
    (site,) = (tmp_path / "new" / "lib").glob("python*/site-packages")
    install = ["pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    call(sys.executable, "-m", *install, cwd=tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        facts = message_from_bytes(archive.read(path))
    for name in declared(facts.get_all("Requires-Dist"), set()):
        distribution = metadata.distribution(name)
        for top in {path.parts[0] for path in distribution.files or [] if path.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))

    program = tmp_path / "new" / "bin" / "dedupkit"
    for command in ([program], [python, "-m", "dedupkit"]):
        assert call(*command, "--version", cwd=tmp_path).strip() == f"dedupkit {facts['Version']}"
    image = photos["coffee"].resize((300, 200))
    write_tar(tmp_path / "in.tar", [("a.png", encode(image, "PNG")), ("b.png", encode(image, "PNG", compress_level=1))])
    assert "removed as duplicates" in call(program, "run", "in.tar", "--out", "out", "--workers", "1", cwd=tmp_path)
    assert "wrote 1 samples" in call(program, "apply", "out", "--to", "clean", cwd=tmp_path)
    assert call(program, "report", "out", cwd=tmp_path).startswith("wrote ")
    where = "import dedupkit, sys; print(dedupkit.__file__)"
    assert str(site) in call(python, "-c", where, cwd=tmp_path)
