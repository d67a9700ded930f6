"""Many elements of one hash set as two columns, keys and ends.

Takes keys and when they end; gives a sequence of Element records, made one by one as somebody asks for them.
Guarantees: in all else it is that sequence; a slice is again columns.  100,000 elements take 2 MB and a few
milliseconds, where as many records take 20 MB and a tenth of a second; bulk.py reads the columns directly.
Does not: hold ranges, or elements of several sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import overload

from nftban.records import Element


class Columns(Sequence[Element]):
    """set: its name; keys: addresses or networks; ends: epoch seconds, inf where an element never times out."""

    __slots__ = ("ends", "keys", "set")

    def __init__(self, set: str, keys: Sequence[int], ends: Sequence[float]) -> None:
        self.set = set
        self.keys = keys
        self.ends = ends

    @classmethod
    def of(cls, set: str, ends: Mapping[int, float]) -> Columns:
        """As they are now: later changes of the mapping are not seen."""
        return cls(set, tuple(ends), tuple(ends.values()))

    def standing(self, now: float) -> Columns:
        """Those that are not over."""
        if not self.ends or min(self.ends) > now:
            return self
        stand = [(key, end) for key, end in zip(self.keys, self.ends, strict=True) if end > now]
        return Columns(self.set, [key for key, _ in stand], [end for _, end in stand])

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Element: ...
    @overload
    def __getitem__(self, place: slice) -> Columns: ...
    def __getitem__(self, place: int | slice) -> Element | Columns:
        if isinstance(place, slice):
            return Columns(self.set, self.keys[place], self.ends[place])
        return _element(self.set, self.keys[place], self.ends[place])

    def __iter__(self) -> Iterator[Element]:
        return (_element(self.set, key, end) for key, end in zip(self.keys, self.ends, strict=True))


def _element(name: str, key: int, end: float) -> Element:
    return Element(name, key, key, None if end == inf else end)
