"""The shape of the package: no circles, names that are exported, examples that run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import dedupkit

PACKAGES = sorted(found.name for found in pkgutil.iter_modules(dedupkit.__path__) if found.name != "__main__")


def modules(package: str) -> Iterator[ModuleType]:
    """Every module of a room, imported; none needs an extra for that."""
    room = importlib.import_module(f"dedupkit.{package}")
    yield room
    for found in pkgutil.walk_packages(getattr(room, "__path__", []), f"{room.__name__}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def test_no_two_files_import_each_other_in_a_circle():
    """Imports within functions count, imports for the type checker do not."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("dedupkit", exclude_type_checking_imports=True, cache_dir=None)
    left = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while leaves := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in leaves:
            del left[name]
    # What remains are circles and whatever imports one of them.
    circles = {name: sorted(imported & left.keys()) for name, imported in left.items()}
    assert not circles


def test_a_circle_through_a_function_is_seen(tmp_path, monkeypatch):
    grimp = pytest.importorskip("grimp")
    package = tmp_path / "round"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("from round.b import y\nx = 1\n")
    (package / "b.py").write_text("y = 1\ndef late():\n    from round.a import x\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    graph = grimp.build_graph("round", exclude_type_checking_imports=True, cache_dir=None)
    assert graph.chain_exists("round.b", "round.a")


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_exactly_what_is_exported(package):
    for module in modules(package):
        named = getattr(module, "__all__", [])
        assert len(set(named)) == len(named), module.__name__
        assert all(hasattr(module, name) for name in named), module.__name__
        if hasattr(module, "__path__"):
            exported = {
                name
                for name, value in vars(module).items()
                if not name.startswith("_") and not isinstance(value, ModuleType)
            }
            extra = exported - set(named) - {"annotations", "TYPE_CHECKING", "lazy_names"}
            assert not extra, f"{module.__name__} exports {extra} besides its __all__"


def test_the_front_door_is_exactly_what_it_names():
    assert set(dir(dedupkit)) == set(dedupkit.__all__)
    for name in dedupkit.__all__:
        assert getattr(dedupkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_this_name'"):
        _ = dedupkit.nothing_of_this_name


@pytest.mark.parametrize("package", PACKAGES)
def test_every_error_is_below_one_base(package):
    for module in modules(package):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__:
                assert issubclass(value, dedupkit.DedupkitError) or name.startswith("_"), f"{module.__name__}.{name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_examples_in_docstrings_run(package):
    for module in modules(package):
        outcome = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        assert outcome.failed == 0, f"{module.__name__}: see the output above"
