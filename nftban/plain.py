"""Records as plain JSON values, and back.

Takes a frozen dataclass of records.py; gives dicts, lists, strings and numbers: prefixes as their text, enumerations
as their value, pairs of facts as a list of pairs.  `from_plain` restores an equal record.
Guarantees: from_plain(type(r), to_plain(r)) == r for every record; a value that does not fit raises ValueError,
never builds half a record.  Does not: know any record by name.
"""

from __future__ import annotations

import dataclasses
import types
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nftban.prefixes import Prefix

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """The value as JSON's types."""
    if isinstance(value, Prefix):
        return str(value)
    if isinstance(value, StrEnum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value


def from_plain(kind: type[T], plain: Any) -> T:
    """The record of that kind; raises ValueError where the value does not fit."""
    made: T = _restored(kind, plain)
    return made


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _restored(kind: Any, plain: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if plain is None:
            return None
        (kind,) = [a for a in get_args(kind) if a is not type(None)]
        return _restored(kind, plain)
    if origin is tuple:
        if not isinstance(plain, list):
            raise ValueError(f"a list was expected, not {plain!r}")
        items = get_args(kind)
        if items[-1] is Ellipsis:
            return tuple(_restored(items[0], v) for v in plain)
        return tuple(_restored(item, v) for item, v in zip(items, plain, strict=True))
    if kind is Prefix:
        return Prefix.parse(str(plain))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(plain, dict):
            raise ValueError(f"{kind.__name__} was expected, not {plain!r}")
        hints = _hints(kind)
        try:
            return kind(**{name: _restored(hints[name], v) for name, v in plain.items()})
        except (KeyError, TypeError) as e:
            raise ValueError(f"{kind.__name__} cannot be made of {sorted(plain)}: {e}") from None
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(plain)
    if kind is float and isinstance(plain, int) and not isinstance(plain, bool):
        try:
            return float(plain)
        except OverflowError as e:
            raise ValueError(str(e)) from None
    # To isinstance() a bool is an int; to JSON it is not.
    if not isinstance(plain, kind) or (isinstance(plain, bool) and kind is not bool):
        raise ValueError(f"{kind.__name__} was expected, not {plain!r}")
    return plain
