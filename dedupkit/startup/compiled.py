"""Compiled functions without the compiler.

numba takes 0.4 s of every process to import and to find its own cache. Where a process shall not pay that, a function
is compiled once, as an ``@cfunc`` of a module that only the first process imports, and its object code is kept on disk
for llvmlite to load, in a twentieth of the time.

Object code from a file is executed, and a damaged one ends the process. So a file begins with its own digest, is read
only where this user or root owns it and its folder and nobody else may write to them, and is built anew at any doubt.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["compiled_function"]

_log = logging.getLogger(__name__)
_ENTRY = "dedupkit_entry"
_PROVIDED = ("llvm.", "mem")  # what the process or LLVM itself has: memset and memcpy
_DIGEST = hashlib.sha256().digest_size
_PATIENCE = 120.0  # seconds to wait for another process that compiles


@cache
def compiled_function(module: str, name: str, arguments: int, sources: tuple[str, ...] = ()) -> Any:
    """Load a compiled function, or compile it first.

    Args:
        module: The module that defines it with ``numba.cfunc``; it must raise nothing and allocate nothing.
        name: The name of the function in it; it takes pointers and returns nothing.
        arguments: The number of pointers.
        sources: Modules whose constants are compiled into it.

    Returns:
        The function, as ``ctypes`` calls it with pointers; None, after a warning, where it cannot be compiled.
    """
    try:
        return _load(module, name, arguments, sources)
    except Exception as error:  # no numba, no llvmlite, one that is disabled, or one that does not take the code
        _log.warning(
            "JPEGs are read in a slower way, because numba cannot compile %s: %s: %s; is NUMBA_DISABLE_JIT set, or do "
            "the versions of numba and llvmlite not fit together?",
            name,
            type(error).__name__,
            " ".join(str(error).split())[:300],
        )
        return None


def _load(module: str, name: str, arguments: int, sources: tuple[str, ...]) -> Any:
    import ctypes

    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    key = _key(name, cpu + features, (module, *sources))
    engine.add_object_file(llvm.ObjectFileRef.from_data(_object_code(module, name, machine, key)))
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
    function = prototype(engine.get_function_address(_ENTRY))
    function.engine = engine  # type: ignore[attr-defined]  # it owns the code
    return function


def _key(name: str, processor: str, modules: tuple[str, ...]) -> bytes:
    """A digest of all that the code depends on: the compiler, the processor and the sources."""
    from llvmlite import __version__ as version

    digest = hashlib.sha256(f"{version} {processor} {name} ".encode())
    for module in modules:
        digest.update(_source(module).read_bytes())
    return digest.digest()


def _source(module: str) -> Path:
    source = getattr(find_spec(module), "origin", None)
    if source is None:
        raise ModuleNotFoundError(module, name=module)
    return Path(source)


def _object_code(module: str, name: str, machine: Any, key: bytes) -> bytes:
    """The code, from the cache or compiled now."""
    source = _source(module)
    files = [folder / f"{source.stem}.{name}.{key.hex()[:16]}.o" for folder in _cache_folders(source.parent)]
    for file in files:
        code = _read(file, key)
        if code is not None:
            return code
    usable = next((file for file in files if _prepare(file.parent)), None)
    if usable is None:
        return _compile(getattr(import_module(module), name), machine)
    with _one_at_a_time(usable):
        code = _read(usable, key)  # another process may have been faster
        if code is None:
            code = _compile(getattr(import_module(module), name), machine)
            with suppress(OSError):
                _write(usable, key, code)
    return code


def _cache_folders(beside: Path) -> list[Path]:
    """Folders for compiled code: this user's in ``NUMBA_CACHE_DIR``, else beside the source; then the user's cache."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dedupkit"
    if named:
        return [Path(named) / f"dedupkit-{_user()}", user]
    return [beside / "__pycache__", user]


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _is_ours(status: os.stat_result) -> bool:
    """Whether nobody but this user and root can have written there."""
    if not hasattr(os, "geteuid"):  # Windows: the folders are the user's own
        return True
    return status.st_uid in (0, _user()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _prepare(folder: Path) -> bool:
    """Make a folder to write to; whether it is there, and safe."""
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)  # whatever the umask says
    except FileExistsError:
        pass
    except OSError:
        return False
    with suppress(OSError):
        status = folder.lstat()
        return stat.S_ISDIR(status.st_mode) and _is_ours(status) and os.access(folder, os.W_OK)
    return False


def _read(file: Path, key: bytes) -> bytes | None:
    """The code in a file; None where it is missing, damaged, made for something else, or not ours."""
    try:
        if not _is_ours(file.parent.stat()):
            return None
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(file, flags), "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode) or not _is_ours(status):
                return None
            content = opened.read()
    except OSError:
        return None
    code = content[_DIGEST:]
    return code if code and content[:_DIGEST] == hashlib.sha256(key + code).digest() else None


def _write(file: Path, key: bytes, code: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(hashlib.sha256(key + code).digest() + code)
        temporary.chmod(0o644)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Hold a lock while compiling; without one where the system has none, or after some patience."""
    try:
        import fcntl

        lock = file.with_suffix(".lock").open("wb")
    except (ImportError, OSError):
        yield
        return
    with lock:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # a file system without locks
                break
        yield


def _compile(function: Any, machine: Any) -> bytes:
    import llvmlite.binding as llvm

    code = llvm.parse_assembly(function.inspect_llvm())
    # What numba calls when a function raises, which this one does not; without numba in the process it is not there.
    absent = [f.name for f in code.functions if f.is_declaration and not f.name.startswith(_PROVIDED)]
    absent_data = [v.name for v in code.global_variables if v.is_declaration]
    stubs = [f"define void @{name}() {{ unreachable }}" for name in absent]
    stubs += [f"@{name} = global i8 0" for name in absent_data]
    code.link_in(llvm.parse_assembly("\n".join(stubs)))
    code.get_function(function.native_name).name = _ENTRY
    code.verify()
    emitted: bytes = machine.emit_object(code)
    return emitted
