"""Which elements the kernel should hold, and what is missing to that.

Takes bans, the allow list and what the kernel holds; gives elements and a Delta.
Guarantees: of bans on the same prefix and scope the one that ends last wins, a permanent one over all; ranges that
overlap are cut into disjoint pieces, each with the latest end of the bans that cover it, so that no address is
let go early and the kernel, which refuses overlapping intervals, takes them all; what is over is not desired.
`difference` names only what differs: applied to `present` it gives `desired`, and then it is empty.
Does not: read a clock, talk to the kernel.  Ports belong to the layout, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from math import inf
from operator import attrgetter

from nftban.kernel.layout import Kind, Layout
from nftban.prefixes import PrefixSet
from nftban.records import Ban, Delta, Element

# Expiries this close are the same: the kernel counts in ticks, and time passes between its clock and ours.
TOLERANCE = 1.0

# What says which element it is: set, first and last address.  Comparing elements themselves takes ten times as long.
PLACE = attrgetter("set", "first", "last")

_BEHIND_ALL = (1 << 128, 1 << 128, 0.0)


def desired(bans: Iterable[Ban], allow: PrefixSet, layout: Layout, now: float) -> list[Element]:
    """The elements for these bans and this allow list, ascending; UsageError for a scope that the layout lacks."""
    # By set: the latest end of each address or network, and of each range (first, last).
    points: dict[str, dict[int, float]] = {}
    ranges: dict[str, dict[tuple[int, int], float]] = {}
    # The set of a prefix depends on these alone, and asking the layout for each of 100,000 bans takes time.
    places: dict[tuple[str, int, int], tuple[dict[int, float], dict[tuple[int, int], float] | None]] = {}
    for ban in bans:
        until, prefix = ban.until, ban.prefix
        if until is not None and until <= now:
            continue
        end = inf if until is None else until
        kind = (ban.scope, prefix.family, prefix.length)
        if kind not in places:
            name = layout.place(prefix, ban.scope).set
            interval = layout.address_sets[name].interval
            places[kind] = ({}, ranges.setdefault(name, {})) if interval else (points.setdefault(name, {}), None)
        of_set, of_ranges = places[kind]
        first = prefix.first
        if of_ranges is None:
            if end > of_set.get(first, now):
                of_set[first] = end
        elif end > of_ranges.get(key := (first, prefix.last), now):
            of_ranges[key] = end
    found = {
        name: [Element(name, key, key, None if ends[key] == inf else ends[key]) for key in sorted(ends)]
        for name, ends in points.items()
    }
    for name, spans in ranges.items():
        found[name] = list(_flattened(name, [(*key, end) for key, end in sorted(spans.items())]))
    for spec in layout.sets:
        if spec.kind is Kind.ALLOW:
            found[spec.name] = [Element(spec.name, first, last) for first, last in allow.ranges(spec.family)]
    return [element for name in sorted(found) for element in found[name]]


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
