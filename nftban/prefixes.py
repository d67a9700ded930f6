"""Addresses and prefixes as numbers.

Takes text in strict notation (inet_pton: no leading zeros, no short forms, no zone index) or packed bytes; gives
`Prefix`, always with its host bits cleared, IPv4-mapped IPv6 (RFC 4291 2.5.5.2) turned into IPv4, and
`PrefixSet`, a set of addresses held as disjoint ascending ranges.
Guarantees: two prefixes are equal iff they cover the same addresses; a PrefixSet's ranges are sorted, disjoint and
not adjacent.  Does not: resolve names, know what an address is for.
"""

from __future__ import annotations

import re
import socket
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BITS = {4: 32, 6: 128}
_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")


def range_prefixes(family: int, first: int, last: int) -> Iterator[Prefix]:
    """The fewest prefixes that together cover first..last (both included), in ascending order.

    Of an IPv6 range the IPv4-mapped block is left out: as prefixes its addresses would be IPv4's.
    """
    bits = BITS[family]
    while first <= last:
        size = (first & -first).bit_length() - 1 if first else bits
        while (1 << size) > last - first + 1:
            size -= 1
        prefix = Prefix(family, first, bits - size)
        if prefix.family == family:
            yield prefix
        first += 1 << size


def parse_range(text: str) -> list[Prefix]:
    """`192.0.2.0/24`, or `192.0.2.5-192.0.2.20` as the fewest prefixes; raises ValueError that says what is wrong."""
    first_text, dash, last_text = text.partition("-")
    first = Prefix.parse(first_text)
    if not dash:
        return [first]
    last = Prefix.parse(last_text)
    if not (first.is_single and last.is_single and first.family == last.family):
        raise ValueError(f"{text!r} is not a range: write FIRST-LAST, two addresses of one family")
    if first.first > last.first:
        raise ValueError(f"{text!r}: the range ends before it begins")
    return list(range_prefixes(first.family, first.first, last.first))


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """A block of addresses.

    family: 4 or 6; first: its lowest address as an integer; length: 0..32 or 0..128.  The constructor clears
    host bits and turns ::ffff:0:0/96 and longer into IPv4.
    """

    family: int
    first: int
    length: int

    def __post_init__(self) -> None:
        family, first, length = self.family, self.first, self.length
        if family == 6 and length >= 96 and first >> 32 == 0xFFFF:
            family, first, length = 4, first & 0xFFFFFFFF, length - 96
        bits = BITS[family]
        if not 0 <= length <= bits or not 0 <= first < 1 << bits:
            raise ValueError(f"no such prefix: family {family}, {first:#x}/{length}")
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "first", first >> (bits - length) << (bits - length))

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """`192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`; raises ValueError that says what is wrong.

        Host bits may be set and are cleared: `192.0.2.7/24` is 192.0.2.0/24.
        """
        address, slash, length_text = text.strip().partition("/")
        family = 6 if ":" in address else 4
        try:
            packed = socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, address)
        except (OSError, ValueError):
            raise ValueError(f"{text!r} is not an IPv4 or IPv6 address or prefix") from None
        bits = BITS[family]
        length = bits
        if slash:
            if not _LENGTH.fullmatch(length_text) or int(length_text) > bits:
                raise ValueError(f"{text!r}: the prefix length must be a number from 0 to {bits}")
            length = int(length_text)
        return cls(family, int.from_bytes(packed, "big"), length)

    @classmethod
    def from_packed(cls, packed: bytes, length: int | None = None) -> Prefix:
        """From 4 or 16 bytes in network order; length defaults to the single address."""
        family = 4 if len(packed) == 4 else 6
        return cls(family, int.from_bytes(packed, "big"), BITS[family] if length is None else length)

    @property
    def bits(self) -> int:
        return BITS[self.family]

    @property
    def last(self) -> int:
        """The highest address as an integer."""
        return self.first + (1 << (self.bits - self.length)) - 1

    @property
    def is_single(self) -> bool:
        return self.length == self.bits

    @property
    def packed(self) -> bytes:
        """The first address, 4 or 16 bytes in network order."""
        return self.first.to_bytes(self.bits // 8, "big")

    @property
    def address(self) -> str:
        """The first address in canonical text (RFC 5952)."""
        return socket.inet_ntop(socket.AF_INET if self.family == 4 else socket.AF_INET6, self.packed)

    def widened(self, length: int) -> Prefix:
        """The enclosing prefix of that length; itself where it is that wide already."""
        return self if length >= self.length else Prefix(self.family, self.first, length)

    def contains(self, other: Prefix) -> bool:
        return self.family == other.family and self.first <= other.first and other.last <= self.last

    def overlaps(self, other: Prefix) -> bool:
        return self.family == other.family and self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        return self.address if self.is_single else f"{self.address}/{self.length}"


Range = tuple[int, int]


class PrefixSet:
    """A set of addresses of both families as disjoint ascending ranges (first, last), both ends included."""

    __slots__ = ("_ranges",)

    def __init__(self, prefixes: Iterable[Prefix] = ()) -> None:
        spans: dict[int, list[Range]] = {4: [], 6: []}
        for p in prefixes:
            spans[p.family].append((p.first, p.last))
        self._ranges = {family: _merged(ranges) for family, ranges in spans.items()}

    @classmethod
    def _of(cls, ranges: dict[int, list[Range]]) -> PrefixSet:
        made = cls()
        made._ranges = ranges
        return made

    def ranges(self, family: int) -> list[Range]:
        """The ranges of one family, ascending (a copy)."""
        return list(self._ranges[family])

    def prefixes(self) -> Iterator[Prefix]:
        """The same addresses as the fewest prefixes, IPv4 first."""
        for family in (4, 6):
            for first, last in self._ranges[family]:
                yield from range_prefixes(family, first, last)

    def contains(self, prefix: Prefix) -> bool:
        """Is every address of the prefix in the set?"""
        ranges = self._ranges[prefix.family]
        i = bisect_right(ranges, (prefix.first, 1 << 128)) - 1
        return i >= 0 and prefix.last <= ranges[i][1]

    def overlaps(self, prefix: Prefix) -> bool:
        """Is any address of the prefix in the set?"""
        ranges = self._ranges[prefix.family]
        i = bisect_right(ranges, (prefix.last, 1 << 128)) - 1
        return i >= 0 and prefix.first <= ranges[i][1]

    def union(self, other: PrefixSet) -> PrefixSet:
        return PrefixSet._of({f: _merged(self._ranges[f] + other._ranges[f]) for f in (4, 6)})

    def minus(self, other: PrefixSet) -> PrefixSet:
        """What is in this set and not in the other; ranges are split where they must be."""
        return PrefixSet._of({f: _subtracted(self._ranges[f], other._ranges[f]) for f in (4, 6)})

    def __bool__(self) -> bool:
        return any(self._ranges.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrefixSet) and self._ranges == other._ranges

    def __hash__(self) -> int:
        return hash(tuple(tuple(self._ranges[f]) for f in (4, 6)))

    def __repr__(self) -> str:
        return f"PrefixSet({', '.join(map(str, self.prefixes()))})"


def _merged(ranges: list[Range]) -> list[Range]:
    out: list[Range] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            if last > out[-1][1]:
                out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


def _subtracted(ranges: list[Range], holes: list[Range]) -> list[Range]:
    out: list[Range] = []
    i = 0
    for first, last in ranges:
        while i < len(holes) and holes[i][1] < first:
            i += 1
        j = i
        while j < len(holes) and holes[j][0] <= last:
            if holes[j][0] > first:
                out.append((first, holes[j][0] - 1))
            first = holes[j][1] + 1
            j += 1
        if first <= last:
            out.append((first, last))
    return out
