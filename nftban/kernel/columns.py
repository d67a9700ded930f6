"""Many elements of one set as columns: keys and ends, or the arrays of a feed's ranges and one end for all.

Takes these; gives a sequence of Element records, made one by one as somebody asks for them.
Guarantees: in all else it is that sequence; a slice is again columns.  100,000 elements take 2 MB and a few
milliseconds, where as many records take 20 MB and a tenth of a second; bulk.py reads the columns directly.
Does not: hold elements of several sets, put ranges in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, overload

from nftban.records import Element

if TYPE_CHECKING:
    from nftban.ranges import Spans  # imports numpy, which a daemon without feeds and with few bans never needs


class Columns(Sequence[Element]):
    """Of a hash set.  set: its name; keys: addresses or networks; ends: epoch seconds, inf where it never times out."""

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


class RangeColumns(Sequence[Element]):
    """Of a set of ranges.  set: its name; spans: merged; end: of all of them, epoch seconds."""

    __slots__ = ("end", "set", "spans")

    def __init__(self, set: str, spans: Spans, end: float) -> None:
        self.set = set
        self.spans = spans
        self.end = end

    def standing(self, now: float) -> RangeColumns:
        """Those that are not over."""
        return self if self.end > now else self[:0]

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, place: int) -> Element: ...
    @overload
    def __getitem__(self, place: slice) -> RangeColumns: ...
    def __getitem__(self, place: int | slice) -> Element | RangeColumns:
        if isinstance(place, slice):
            return RangeColumns(self.set, self.spans[place], self.end)
        ((first, last),) = self.spans[[place]].pairs()
        return Element(self.set, first, last, self.end)

    def __iter__(self) -> Iterator[Element]:
        return (Element(self.set, first, last, self.end) for first, last in self.spans.pairs())


def _element(name: str, key: int, end: float) -> Element:
    return Element(name, key, key, None if end == inf else end)
