"""Object code kept on disk: verified before it is executed, rebuilt at any doubt, and done without where need be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import encode, environment, python
from PIL import Image

from dedupkit.startup import compiled

SCRIPT = (
    "import sys; from pathlib import Path; from dedupkit.hashing import pdq;"
    "print(pdq(Path(sys.argv[1]).read_bytes())[0].tobytes().hex(), 'numba' in sys.modules)"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "a.jpg"
    path.write_bytes(encode(Image.linear_gradient("L").rotate(30).resize((120, 90)), quality=90))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory, image) -> tuple[Path, str]:
    """A cache that three processes filled at once, one of them by compiling; and the hash that they found."""
    folder = tmp_path_factory.mktemp("cache")
    env = environment({"NUMBA_CACHE_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "user")})
    started = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(image)], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = sorted(process.communicate(timeout=120)[0].split() for process in started)
    assert all(process.returncode == 0 for process in started)
    assert len({hashed for hashed, _ in said}) == 1
    assert [loaded for _, loaded in said].count("True") == 1, "one process compiled, the others waited"
    (file,) = folder.rglob("*.o")
    return file, said[0][0]


def test_what_was_compiled_once_needs_no_compiler(built, image):
    file, hashed = built
    found = python("-c", SCRIPT, str(image), env={"NUMBA_CACHE_DIR": str(file.parents[1])})
    assert found.stdout.split() == [hashed, "False"]


def key_and_code(file: Path) -> tuple[bytes, bytes]:
    """The key that a file in the cache was built for, and its code."""
    import llvmlite.binding as llvm

    processor = llvm.get_host_cpu_name() + llvm.get_host_cpu_features().flatten()
    modules = ("dedupkit.images.jpeg.kernel", "dedupkit.images.jpeg.layout")
    key = compiled._key("decode_scans", processor, modules)
    code = compiled._read(file, key)
    assert code is not None and key.hex()[:16] in file.name
    return key, code


@pytest.mark.parametrize("damage", ["empty", "cut", "random", "a bit", "another key", "object code alone"])
def test_a_damaged_file_is_rebuilt_and_never_executed(built, tmp_path, monkeypatch, damage):
    key, code = key_and_code(built[0])
    whole = built[0].read_bytes()
    content = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "random": os.urandom(len(whole)),
        "a bit": whole[:999] + bytes([whole[999] ^ 1]) + whole[1000:],
        "another key": whole,
        "object code alone": code,
    }[damage]
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "_compile", lambda function, machine: code)
    folder = tmp_path / f"dedupkit-{os.geteuid()}"
    folder.mkdir()
    wanted = bytes(32) if damage == "another key" else key
    file = folder / f"layout.PADDING.{wanted.hex()[:16]}.o"
    file.write_bytes(content)
    assert compiled._read(file, wanted) is None
    assert compiled._object_code("dedupkit.images.jpeg.layout", "PADDING", None, wanted) == code
    assert compiled._read(file, wanted) == code, "repaired"
    assert not [left for left in folder.iterdir() if left.suffix == ".tmp"]


def test_a_file_or_folder_that_others_may_write_to_is_not_trusted(built, tmp_path, monkeypatch):
    key, code = key_and_code(built[0])
    folder = tmp_path / "cache"
    folder.mkdir()
    file = folder / "a.o"
    compiled._write(file, key, code)
    assert compiled._read(file, key) == code
    for path, mode in ((file, 0o666), (file, 0o664), (folder, 0o777), (folder, 0o1777)):
        before = path.stat().st_mode
        path.chmod(mode)
        assert compiled._read(file, key) is None
        assert path is file or not compiled._prepare(folder)
        path.chmod(before)
    link = folder / "b.o"
    link.symlink_to(file)
    assert compiled._read(link, key) is None
    os.mkfifo(folder / "c.o")
    assert compiled._read(folder / "c.o", key) is None
    monkeypatch.setattr(compiled, "_user", lambda: 12345)
    if os.geteuid() != 0:  # root's files are trusted by everyone
        assert compiled._read(file, key) is None
    else:
        os.chown(file, 54321, -1)
        assert compiled._read(file, key) is None


def test_an_umask_of_nothing_leaves_nothing_that_others_may_write_to(built, tmp_path):
    key, code = key_and_code(built[0])
    before = os.umask(0)
    try:
        folder = tmp_path / "cache"
        assert compiled._prepare(folder)
        compiled._write(folder / "a.o", key, code)
    finally:
        os.umask(before)
    assert compiled._read(folder / "a.o", key) == code
    assert (folder.stat().st_mode & 0o777, (folder / "a.o").stat().st_mode & 0o777) == (0o755, 0o644)


@pytest.mark.parametrize(
    "broken",
    [
        {"env": {"NUMBA_DISABLE_JIT": "1"}},
        {"before": "sys.modules['numba'] = None;"},
        {"before": "sys.modules['llvmlite'] = sys.modules['llvmlite.binding'] = None;"},
    ],
    ids=["disabled", "no numba", "no llvmlite"],
)
def test_without_a_compiler_libjpeg_reads_everything_and_one_warning_says_so(built, image, tmp_path, broken):
    script = "import sys;" + broken.get("before", "") + SCRIPT + ";pdq(Path(sys.argv[1]).read_bytes())"
    env = {"NUMBA_CACHE_DIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), **broken.get("env", {})}
    found = python("-c", script, str(image), env=env)
    assert found.returncode == 0, found.stderr
    hashed = bytes.fromhex(found.stdout.split()[0])
    away = int.from_bytes(hashed, "big") ^ int(built[1], 16)
    assert away.bit_count() <= 10
    assert found.stderr.count("JPEGs are read in a slower way") == 1 and "Traceback" not in found.stderr
