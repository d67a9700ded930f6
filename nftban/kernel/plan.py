"""Which elements the kernel should hold, and what is missing to that.

Takes the ends of all bans, the allow list and what the kernel holds; gives elements and a Delta.
Guarantees: ranges that overlap are cut into disjoint pieces, each with the latest end of the bans that cover it, so
that no address is let go early and the kernel, which refuses overlapping intervals, takes them all.
`difference` names only what differs: applied to `present` it gives `desired`, and then it is empty.
Does not: read a clock, talk to the kernel.  Ports belong to the layout, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from math import inf
from operator import attrgetter

from nftban.kernel import Desired
from nftban.kernel.columns import Columns
from nftban.kernel.layout import Kind, Layout
from nftban.prefixes import BITS, Prefix, PrefixSet
from nftban.records import Delta, Element

Ends = Mapping[tuple[str, int, int], Mapping[int, float]]
"""When each ban ends: by scope, family and prefix length, then by first address; epoch seconds, inf: never."""

# Expiries this close are the same: the kernel counts in ticks, and time passes between its clock and ours.
TOLERANCE = 1.0

# What says which element it is: set, first and last address.  Comparing elements themselves takes ten times as long.
PLACE = attrgetter("set", "first", "last")

_BEHIND_ALL = (1 << 128, 1 << 128, 0.0)


def desired(ends: Ends, allow: PrefixSet, layout: Layout) -> Desired:
    """The elements for these bans and this allow list; UsageError for a scope that the layout lacks.

    What is over may still be among them.
    """
    found: dict[str, Sequence[Element]] = {}
    ranges: dict[str, list[tuple[int, int, float]]] = {}
    for (scope, family, length), held in ends.items():
        name = layout.place(Prefix(family, 0, length), scope).set
        if layout.address_sets[name].interval:
            size = 1 << BITS[family] - length
            ranges.setdefault(name, []).extend((first, first + size - 1, end) for first, end in held.items())
        else:
            found[name] = Columns.of(name, held)
    for name, spans in ranges.items():
        found[name] = list(_flattened(name, sorted(spans)))
    for spec in layout.sets:
        if spec.kind is Kind.ALLOW:
            found[spec.name] = [Element(spec.name, first, last) for first, last in allow.ranges(spec.family)]
    return found


def grouped(elements: Iterable[Element]) -> dict[str, list[Element]]:
    """By set, in the order in which they come."""
    found: dict[str, list[Element]] = {}
    for element in elements:
        found.setdefault(element.set, []).append(element)
    return found


def difference(desired: Iterable[Element], present: Iterable[Element], now: float) -> Delta:
    """What turns `present` into `desired`."""
    wanted = {PLACE(e): e for e in desired if e.until is None or e.until > now}
    there = {PLACE(e): e for e in present}
    if not there:
        return Delta(add=tuple(sorted(wanted.values(), key=PLACE)))
    add, refresh = [], []
    for place, element in wanted.items():
        stands = there.get(place)
        if stands is None:
            add.append(element)
        elif not same_end(element.until, _end(stands.until)):
            refresh.append(element)
    # An element whose time has come leaves by itself.
    delete = [e for place, e in there.items() if place not in wanted and _end(e.until) > now]
    for elements in (add, delete, refresh):
        elements.sort(key=PLACE)
    return Delta(tuple(add), tuple(delete), tuple(refresh))


def same_end(until: float | None, end: float) -> bool:
    """Is the intended end (None: never) what the kernel says (inf: never)?"""
    return end == inf if until is None else abs(until - end) <= TOLERANCE


def _end(until: float | None) -> float:
    return inf if until is None else until


def _until(end: float) -> float | None:
    return None if end == inf else end


def _flattened(name: str, ranges: Iterable[tuple[int, int, float]]) -> Iterator[Element]:
    """Disjoint pieces of ranges (first, last, end; ascending), neighbours of the same end joined."""
    joined: Element | None = None
    for first, last, end in _pieces(ranges):
        if joined is not None and joined.last + 1 == first and _end(joined.until) == end:
            joined = Element(name, joined.first, last, joined.until)
            continue
        if joined is not None:
            yield joined
        joined = Element(name, first, last, _until(end))
    if joined is not None:
        yield joined


def _pieces(ranges: Iterable[tuple[int, int, float]]) -> Iterator[tuple[int, int, float]]:
    """A sweep from the lowest address to the highest; `covering` holds the ranges met so far that may still cover
    the place, the latest end on top."""
    covering: list[tuple[float, int]] = []
    place = 0
    for first, last, end in [*ranges, _BEHIND_ALL]:
        while covering and place < first:
            negative_end, top_last = covering[0]
            if top_last < place:
                heappop(covering)
                continue
            stop = min(top_last, first - 1)
            yield place, stop, -negative_end
            place = stop + 1
        place = first
        heappush(covering, (-end, last))
