"""Dataclasses to JSON and back: the class is the schema of the file."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["from_json", "to_json"]

Record = TypeVar("Record")


def to_json(value: Any) -> Any:
    """A dataclass, and everything in it, as dicts, lists and plain values.

    Args:
        value: An instance of a dataclass, or a tuple, list, dict or plain value of such.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[Record], value: Any) -> Record:
    """The dataclass that :func:`to_json` made this of.

    Args:
        kind: The dataclass. Its fields may be plain values, dataclasses, tuples or dicts of these, or any of them or
            None.
        value: What was read from JSON. Fields that the class does not have are ignored.

    Raises:
        ValueError: A field is missing or of another type.
    """
    result: Record = _read(kind, value, kind.__name__)
    return result


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _read(next(part for part in arguments if part is not type(None)), value, where)
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is no JSON object")
        missing = [name for name in _hints(kind) if name not in value]
        if missing:
            raise ValueError(f"{where} has no {missing[0]}")
        parts = {name: _read(hint, value[name], f"{where}.{name}") for name, hint in _hints(kind).items()}
        return kind(**parts)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (str, int, bool, float) and type(value) is kind:
        return value
    raise ValueError(f"{where} is {value!r}, and no {getattr(kind, '__name__', kind)}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    record: Any = kind
    return {field.name: hints[field.name] for field in fields(record)}
