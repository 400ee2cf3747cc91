"""What values read from JSON must be, checked once, where they are read."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from experiment.errors import SettingsError

NUMBER = float  # JSON does not tell 1 from 1.0
MEASURED = float | None  # null for NaN
LARGEST = 2**63  # of integers, as NumPy has them


def fault(value: Any, kind: Any) -> str:
    """Where a value is not of a kind: "'epochs' in 'run'", or nothing.

    Args:
        value: What JSON has: objects are dictionaries.
        kind: A type hint, a dataclass for objects with its fields, `{key: kind}` for objects that
            have these keys and may have others (of the kind of the key `...`), `[kind]` for lists,
            or a function that tells whether a value is right.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (Any, object):
        return ""
    if isinstance(kind, dict):
        return _of_object(value, kind)
    if isinstance(kind, list):
        return _of_list(value, kind[0])
    if dataclasses.is_dataclass(kind):
        return _of_fields(value, kind)
    if origin in (types.UnionType, typing.Union):
        return "" if any(not fault(value, one) for one in arguments) else "a value"
    if origin in (list, tuple):
        return _of_list(value, arguments[0])
    if origin in (dict, Mapping):
        return _of_items(value.items(), arguments[1]) if isinstance(value, dict) else "an object"
    return "" if _is_one(value, kind) else "a value"


def _is_one(value: Any, kind: type | Callable[[Any], bool]) -> bool:
    if not isinstance(kind, type):
        return kind(value)
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int) and abs(value) >= LARGEST:
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _of_list(value: Any, kind: Any) -> str:
    return _of_items(enumerate(value), kind) if isinstance(value, list) else "a list"


def _of_items(items: Any, kind: Any) -> str:
    for key, item in items:
        if found := fault(item, kind):
            return _within(found, key)
    return ""


def _of_object(value: Any, kinds: Mapping[Any, Any]) -> str:
    if not isinstance(value, dict):
        return "an object"
    for key in kinds.keys() - {...}:
        if key not in value:
            return repr(key)
    for key, item in value.items():
        if found := fault(item, kinds.get(key, kinds.get(..., Any))):
            return _within(found, key)
    return ""


def _of_fields(value: Any, kind: Any) -> str:
    """As other objects, but with no other keys, and with values that the dataclass itself takes."""
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    if found := _of_object(value, hints):
        return found
    for field in fields:
        choices = field.metadata.get("choices")
        if choices and value[field.name] not in choices:
            return f"one of {', '.join(choices)} as {field.name!r}"
    if others := sorted(value.keys() - hints.keys()):
        return f"a place for {others[0]!r}"
    try:
        made(kind, value)
    except SettingsError as error:
        return f"values that go together ({error})"
    return ""


def made(kind: Any, value: Mapping[str, Any]) -> Any:
    """The dataclass with the values of an object that has no fault."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})


def _within(found: str, key: Any) -> str:
    """The place of what was found in an item."""
    if found in ("a value", "a list", "an object"):
        return repr(key)
    return f"{found} in {key!r}"
