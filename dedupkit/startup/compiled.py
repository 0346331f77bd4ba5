"""Compiled functions without the compiler.

numba takes 0.4 s of every process to import and to find its own cache. Where a process shall not pay that, a function
is compiled once, as an ``@cfunc`` of a module that only the first process imports, and its object code is kept on disk
for llvmlite to load, in a twentieth of the time.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dedupkit.store import atomic_path

__all__ = ["compiled_function"]

_ENTRY = "dedupkit_entry"
_PROVIDED = ("llvm.", "mem")  # what the process or LLVM itself has: memset and memcpy


@cache
def compiled_function(module: str, name: str, arguments: int) -> Any:
    """A compiled function, as ``ctypes`` calls it with pointers.

    Args:
        module: that defines it with ``numba.cfunc``; it must raise nothing and allocate nothing.
        name: of the function in it; it takes pointers and returns nothing.
        arguments: how many pointers.
    """
    import ctypes

    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(_object_code(module, name, machine, cpu + features)))
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
    function = prototype(engine.get_function_address(_ENTRY))
    function.engine = engine  # type: ignore[attr-defined]  # it owns the code
    return function


def _object_code(module: str, name: str, machine: Any, processor: str) -> bytes:
    """The code, from the cache or compiled now."""
    from llvmlite import __version__ as version

    source = getattr(find_spec(module), "origin", None)
    if source is None:
        raise ModuleNotFoundError(module, name=module)
    digest = hashlib.sha256(f"{version} {processor} {name} ".encode())
    for path in sorted(Path(source).parent.glob("*.py")):
        digest.update(path.read_bytes())
    file = f"{Path(source).stem}.{name}.{digest.hexdigest()[:16]}.o"
    folders = _cache_folders(Path(source).parent)
    for folder in folders:
        with suppress(OSError):
            return (folder / file).read_bytes()
    code = _compile(getattr(import_module(module), name), machine)
    for folder in folders:
        with suppress(OSError), atomic_path(folder / file) as temporary:
            temporary.write_bytes(code)
            break
    return code


def _cache_folders(beside: Path) -> list[Path]:
    """Where numba would cache it: ``NUMBA_CACHE_DIR``, else beside the source, else the user's cache."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dedupkit"
    return [Path(named)] if named else [beside / "__pycache__", user]


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
