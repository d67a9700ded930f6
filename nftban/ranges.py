"""Very many ranges of addresses, as sorted arrays: what feeds are held in and looked up in.

Takes first and last addresses (both included) as arrays, or a PrefixSet; gives `Ranges`: merged, minus others, asked
for one address or ten thousand at once.
Guarantees: within one family ranges are ascending, disjoint and not adjacent; an operation gives a new object; a
million IPv4 ranges take 8 MB, and ten thousand look-ups in them some milliseconds.  IPv6 addresses are kept as their
16 bytes, which numpy orders as it does text, so both families share each algorithm.
Does not: read text (feeds/formats does), do I/O.  Below some thousand ranges PrefixSet is as good.
Cost: importing numpy takes 80 ms and 16 MB once; whoever may not need it imports this module late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nftban.prefixes import BITS, Prefix, PrefixSet, Range, range_prefixes

Keys = NDArray[Any]
"""Addresses of one family: uint32, or 16 bytes in network order (dtype S16)."""

DTYPE: dict[int, Any] = {4: np.dtype(np.uint32), 6: np.dtype("S16")}
_FULL = 0xFFFFFFFFFFFFFFFF


def keys(family: int, numbers: Sequence[int]) -> Keys:
    """Addresses as an array of their family's type."""
    if family == 4:
        return np.array(numbers, np.uint32)
    return packed_keys(b"".join([n.to_bytes(16, "big") for n in numbers]))


def packed_keys(packed: bytes) -> Keys:
    """IPv6 addresses of 16 bytes each, one behind the other."""
    return np.frombuffer(packed, DTYPE[6])


def numbers(array: Keys) -> list[int]:
    """The same as integers."""
    if array.dtype == DTYPE[4]:
        plain: list[int] = array.tolist()
        return plain
    # Read from the bytes: numpy's own conversion drops zeros at the end.
    whole = np.ascontiguousarray(array).tobytes()
    return [int.from_bytes(whole[i : i + 16], "big") for i in range(0, len(whole), 16)]


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Ranges of one family in two arrays of one length; what is merged says so."""

    first: Keys
    last: Keys

    @classmethod
    def of(cls, family: int, pairs: Sequence[Range]) -> Spans:
        return cls(keys(family, [p[0] for p in pairs]), keys(family, [p[1] for p in pairs]))

    @classmethod
    def joined(cls, several: Sequence[Spans]) -> Spans:
        """All of these of one family, one behind the other; at least one."""
        if len(several) == 1:
            return several[0]
        return cls(np.concatenate([s.first for s in several]), np.concatenate([s.last for s in several]))

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, chosen: Any) -> Spans:
        return Spans(self.first[chosen], self.last[chosen])

    def pairs(self) -> list[Range]:
        return list(zip(numbers(self.first), numbers(self.last), strict=True))

    def addresses(self) -> int:
        """How many addresses these are; those in two ranges count twice."""
        if self.first.dtype == DTYPE[4]:
            return int((self.last.astype(np.int64) - self.first).sum()) + len(self)
        return sum(last - first + 1 for first, last in self.pairs())

    def merged(self) -> Spans:
        """Ascending, disjoint, not adjacent."""
        if len(self) < 2:
            return self
        ordered, reach = _ascending(self)
        # A range begins anew where what all before it reach neither covers nor adjoins it.
        starts = np.ones(len(ordered), np.bool_)
        later = ordered.first[1:]
        starts[1:] = (later > reach[:-1]) & (moved(later, -1) != reach[:-1])
        return Spans(ordered.first[starts], reach[np.append(starts[1:], True)])

    def minus(self, other: Spans) -> Spans:
        """What is in these and not in `other`; both merged."""
        if not len(other) or not len(self):
            return self
        return self.common(other._gaps())

    def common(self, other: Spans) -> Spans:
        """What is in both; both merged."""
        low = np.searchsorted(other.last, self.first)
        counts = np.searchsorted(other.first, self.last, side="right") - low
        counts[counts < 0] = 0
        mine = np.repeat(np.arange(len(self)), counts)
        ends = np.cumsum(counts)
        theirs = np.arange(len(mine)) - np.repeat(ends - counts, counts) + np.repeat(low, counts)
        a, b = self[mine], other[theirs]
        return Spans(np.where(a.first > b.first, a.first, b.first), np.where(a.last < b.last, a.last, b.last))

    def besides(self, other: Spans) -> Spans:
        """The ranges that `other` does not have just so, from the same first to the same last address; both merged."""
        if not len(other) or not len(self):
            return self
        place = np.searchsorted(other.first, self.first)
        place[place == len(other)] = 0
        return self[(other.first[place] != self.first) | (other.last[place] != self.last)]

    def _gaps(self) -> Spans:
        """Every address of the family that is not in these merged ranges."""
        family = 4 if self.first.dtype == DTYPE[4] else 6
        bottom, top = keys(family, [0]), keys(family, [(1 << BITS[family]) - 1])
        firsts, lasts = [], []
        if self.first[0] != bottom[0]:
            firsts.append(bottom)
            lasts.append(moved(self.first[:1], -1))
        firsts.append(moved(self.last[:-1], 1))
        lasts.append(moved(self.first[1:], -1))
        if self.last[-1] != top[0]:
            firsts.append(moved(self.last[-1:], 1))
            lasts.append(top)
        return Spans(np.concatenate(firsts), np.concatenate(lasts))

    def holding(self, first: Keys, last: Keys) -> NDArray[np.bool_]:
        """Does one of these merged ranges hold all addresses first..last?  An answer for each."""
        if not len(self):
            return np.zeros(len(first), np.bool_)
        place = np.searchsorted(self.first, first, side="right") - 1
        found: NDArray[np.bool_] = (place >= 0) & (last <= self.last[place])
        return found


def _ascending(spans: Spans) -> tuple[Spans, Keys]:
    """Ordered by the first address, and how far each and all before it reach."""
    if spans.first.dtype == DTYPE[4]:
        # Both ends in one number: sorting that is five times as fast as sorting places.
        both = spans.first.astype(np.uint64)
        both <<= np.uint64(32)
        both |= spans.last
        both.sort()
        last = both.astype(np.uint32)
        both >>= np.uint64(32)
        return Spans(both.astype(np.uint32), last), np.maximum.accumulate(last)
    order = np.argsort(spans.first, kind="stable")
    ordered = spans[order]
    # numpy finds no running maximum of bytes: of their ranks it does.
    by_last = np.argsort(ordered.last, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[by_last] = np.arange(len(order))
    return ordered, ordered.last[by_last[np.maximum.accumulate(rank)]]


def moved(array: Keys, step: int) -> Keys:
    """Each address plus 1 or -1, around the ends of the family."""
    if array.dtype == DTYPE[4]:
        sums: Keys = array + np.uint32(step % (1 << 32))
        return sums
    halves = np.ascontiguousarray(array).view(">u8").reshape(-1, 2).astype(np.uint64)
    carry = halves[:, 1] == (_FULL if step > 0 else 0)
    halves[:, 1] += np.uint64(step % (1 << 64))
    halves[carry, 0] += np.uint64(step % (1 << 64))
    packed: Keys = halves.astype(">u8").view(DTYPE[6]).reshape(-1)
    return packed


_NONE = {family: Spans(np.empty(0, DTYPE[family]), np.empty(0, DTYPE[family])) for family in (4, 6)}


@dataclass(frozen=True, eq=False)
class Ranges:
    """A set of addresses of both families."""

    v4: Spans = _NONE[4]
    v6: Spans = _NONE[6]

    @classmethod
    def merged(cls, v4: Spans = _NONE[4], v6: Spans = _NONE[6]) -> Ranges:
        """From ranges in any order, overlapping or not."""
        return cls(v4.merged(), v6.merged())

    @classmethod
    def of(cls, prefixes: PrefixSet) -> Ranges:
        return cls(Spans.of(4, prefixes.ranges(4)), Spans.of(6, prefixes.ranges(6)))

    @classmethod
    def union(cls, several: Iterable[Ranges]) -> Ranges:
        every = list(several)
        if len(every) < 2:
            return every[0] if every else cls()
        return cls.merged(Spans.joined([r.v4 for r in every]), Spans.joined([r.v6 for r in every]))

    def family(self, family: int) -> Spans:
        return self.v4 if family == 4 else self.v6

    def minus(self, other: Ranges) -> Ranges:
        """Without the other's addresses; ranges are split where they must be."""
        return Ranges(self.v4.minus(other.v4), self.v6.minus(other.v6))

    def common(self, other: Ranges) -> Ranges:
        """The addresses that are in both."""
        return Ranges(self.v4.common(other.v4), self.v6.common(other.v6))

    def contains(self, prefix: Prefix) -> bool:
        """Is every address of the prefix in here?"""
        return self.contains_each([prefix])[0]

    def contains_each(self, prefixes: Sequence[Prefix]) -> list[bool]:
        """The same for many at once, one answer each, in their order."""
        found = np.zeros(len(prefixes), np.bool_)
        for family in (4, 6):
            places = [i for i, p in enumerate(prefixes) if p.family == family]
            if not places:
                continue
            first = last = keys(family, [prefixes[i].first for i in places])
            if any(prefixes[i].length < BITS[family] for i in places):
                last = keys(family, [prefixes[i].last for i in places])
            found[places] = self.family(family).holding(first, last)
        answers: list[bool] = found.tolist()
        return answers

    def prefix_set(self) -> PrefixSet:
        """The same as ordinary prefixes."""
        return PrefixSet(self.prefixes())

    def prefixes(self) -> Iterator[Prefix]:
        """The fewest prefixes that cover exactly these addresses, IPv4 first."""
        for family in (4, 6):
            for first, last in self.family(family).pairs():
                yield from range_prefixes(family, first, last)

    @cached_property
    def addresses4(self) -> int:
        """How many IPv4 addresses it covers."""
        return self.v4.addresses()

    @cached_property
    def addresses6(self) -> int:
        return self.v6.addresses()

    def __len__(self) -> int:
        """How many ranges."""
        return len(self.v4) + len(self.v6)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and all(
            np.array_equal(a, b)
            for mine, its in ((self.v4, other.v4), (self.v6, other.v6))
            for a, b in ((mine.first, its.first), (mine.last, its.last))
        )

    __hash__ = None  # type: ignore[assignment]
