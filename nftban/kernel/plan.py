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
from itertools import groupby
from math import inf

from nftban.kernel.layout import Kind, Layout
from nftban.prefixes import PrefixSet
from nftban.records import Ban, Delta, Element

# Expiries this close are the same: the kernel counts in ticks, and time passes between its clock and ours.
TOLERANCE = 1.0

_BEHIND_ALL = (1 << 128, 1 << 128, 0.0)


def desired(bans: Iterable[Ban], allow: PrefixSet, layout: Layout, now: float) -> list[Element]:
    """The elements for these bans and this allow list, ascending; UsageError for a scope that the layout lacks."""
    latest: dict[Element, float] = {}
    for ban in bans:
        if ban.holds(now):
            element = layout.place(ban.prefix, ban.scope)
            latest[element] = max(latest.get(element, now), _end(ban.until))
    elements: list[Element] = []
    for name, group in groupby(sorted(latest), key=lambda element: element.set):
        if layout.address_sets[name].kind is Kind.RANGE:
            elements += _flattened(name, [(e.first, e.last, latest[e]) for e in group])
        else:
            elements += (Element(name, e.first, e.last, _until(latest[e])) for e in group)
    for spec in layout.sets:
        if spec.kind is Kind.ALLOW:
            elements += (Element(spec.name, first, last) for first, last in allow.ranges(spec.family))
    return sorted(elements)


def difference(desired: Iterable[Element], present: Iterable[Element], now: float) -> Delta:
    """What turns `present` into `desired`."""
    wanted = {e: e for e in desired if _end(e.until) > now}
    there = {e: e for e in present}
    refresh = []
    for element in wanted.keys() & there.keys():
        want, have = _end(wanted[element].until), _end(there[element].until)
        if want != have and abs(want - have) > TOLERANCE:
            refresh.append(wanted[element])
    return Delta(
        add=tuple(sorted(wanted.keys() - there.keys())),
        # An element whose time has come leaves by itself.
        delete=tuple(sorted(e for e in there.keys() - wanted.keys() if _end(there[e].until) > now)),
        refresh=tuple(sorted(refresh)),
    )


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
