"""The kernel sets of the enforced feeds: brought to what the lists say, in turns.

Takes what each feed lists, until when that is good, and what must stay reachable; gives what the kernel refused.
Guarantees: a change of up to TURN elements is one transaction.  A bigger one is cut where neither the old nor the new
list has a range, so that no address that is on both is let through for a moment, and everybody else has a turn between
the parts, which take some tens of milliseconds.  What a start finds in the kernel stays but for what differs.
Healing (bans.py, heal.py) knows what the sets are to hold, but for a set that is in the middle of several parts.
Does not: fetch or judge lists (feeds/sync.py).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nftban.daemon.bans import Bans
from nftban.daemon.feeds import FeedInUse, feed_elements
from nftban.errors import KernelError
from nftban.kernel import Kernel
from nftban.kernel.columns import RangeColumns
from nftban.kernel.layout import FeedSets
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.plan import TOLERANCE
from nftban.prefixes import PrefixSet
from nftban.ranges import Ranges, Spans
from nftban.records import Delta, Element, Refused

TURN, TURNS = 10_000, 10
"""Elements changed without a pause, some tens of milliseconds, which another ban may have to wait; of a list that is so
big that more than so many parts would come of it, more: the kernel takes its time for each part by the set's size."""


@dataclass(frozen=True, slots=True)
class Change:
    """What turns one set into what it is to be; end: of what comes and of what is refreshed, epoch seconds."""

    set: str
    delete: Spans
    add: Spans
    refresh: Spans
    end: float

    @classmethod
    def between(cls, held: RangeColumns, wanted: RangeColumns) -> Change:
        """Found on arrays: of a list of 100,000 only what differs becomes records."""
        old, new = held.spans, wanted.spans
        add = new.besides(old)
        same_end = abs(held.end - wanted.end) <= TOLERANCE
        return cls(wanted.set, old.besides(new), add, new[:0] if same_end else new.besides(add), wanted.end)

    @classmethod
    def of(cls, delta: Delta, wanted: RangeColumns, family: int) -> Change:
        """From a comparison with the kernel."""

        def spans(elements: Iterable[Element]) -> Spans:
            return Spans.of(family, sorted((e.first, e.last) for e in elements))

        add = wanted.spans if delta.fill else spans(delta.add)
        return cls(wanted.set, spans(delta.delete), add, spans(delta.refresh), wanted.end)

    def turns(self, size: int) -> Iterator[Delta]:
        """In parts of about so many elements, each a transaction of its own."""
        for place in range(0, len(self.refresh), size):
            yield Delta(refresh=tuple(self._columns(self.refresh[place : place + size])))
        # Where neither an old nor a new range is, the list may be cut.
        pieces = Spans.joined([self.delete, self.add]).merged().first
        if not len(pieces):
            return
        gone, come = np.searchsorted(self.delete.first, pieces), np.searchsorted(self.add.first, pieces)
        gone, come = np.append(gone, len(self.delete)), np.append(come, len(self.add))
        before = gone + come
        start = 0
        while start < len(pieces):
            stop = max(int(np.searchsorted(before, before[start] + size, side="right")) - 1, start + 1)
            old, new = self.delete[gone[start] : gone[stop]], self.add[come[start] : come[stop]]
            yield Delta(delete=tuple(self._columns(old)), fill=(self._columns(new),) if len(new) else ())
            start = stop

    def _columns(self, spans: Spans) -> RangeColumns:
        return RangeColumns(self.set, spans, self.end)


def turn(wanted: RangeColumns) -> int:
    """How many elements of a set that is to become this are changed without a pause."""
    return max(TURN, len(wanted) // TURNS)


class Enforced:
    """The feeds that are enforced, and what their sets are to hold.

    reader: a kernel object of its own, by which sets are compared in a thread while bans go on; None: `kernel` is in
    memory and is asked itself.
    """

    def __init__(
        self,
        uses: Iterable[FeedInUse],
        bans: Bans,
        kernel: Kernel,
        reader: NetlinkKernel | None,
        clock: Callable[[], float],
    ) -> None:
        self._sets = [FeedSets(use.feed.name, use.scope) for use in uses if use.enforce]
        self._bans, self._kernel, self._reader, self._clock = bans, kernel, reader, clock
        self._held: dict[str, RangeColumns] = {}
        self._lock = asyncio.Lock()
        self._closing = False

    async def close(self) -> None:
        """Ends what is under way after its part; a list that is half there is brought to its end by the next start."""
        self._closing = True
        async with self._lock:
            if self._reader is not None:
                self._reader.close()

    async def hold(self, listed: Mapping[str, Ranges], until: Mapping[str, float], allow: PrefixSet) -> list[Refused]:
        """Brings every set to what is listed, but for what must stay reachable (`allow`).

        Raises KernelError where the kernel is out of reach; the next call then begins with what is there.
        """
        refused: list[Refused] = []
        async with self._lock:
            for sets in self._sets if not self._closing else ():
                ranges = listed.get(sets.name, Ranges())
                wanted = await asyncio.to_thread(feed_elements, sets, ranges, allow, until.get(sets.name, 0.0))
                for spec in sets.sets:
                    refused += await self._bring(wanted[spec.name], spec.family)
        return refused

    async def _bring(self, columns: RangeColumns, family: int) -> list[Refused]:
        now, name = self._clock(), columns.set
        wanted = columns.standing(now)
        held = self._held.pop(name, None)
        if held is None:
            change = Change.of(await self._compared(wanted, now), wanted, family)
        else:
            change = Change.between(held.standing(now), wanted)
        refused: list[Refused] = []
        # What the set holds between the parts is neither the old nor the new list: nobody is to mend it then.
        parts = list(change.turns(turn(wanted)))
        if len(parts) > 1:
            self._bans.feeds.pop(name, None)
        try:
            for number, delta in enumerate(parts):
                if self._closing:
                    break
                if number == len(parts) - 1:
                    self._bans.feeds[name] = wanted
                refused += self._kernel.apply(delta, self._clock())
                if number < len(parts) - 1:
                    await asyncio.sleep(0)
        except KernelError as e:
            if e.errno != errno.ENOENT:
                raise
            # Somebody took our table away: it is put back with all that belongs into it.
            self._bans.feeds[name] = wanted
            refused += self._bans.reconcile(self._bans.allow, self._clock())[1]
        finally:
            self._bans.feeds[name] = wanted
        self._held[name] = wanted
        return refused

    async def _compared(self, wanted: RangeColumns, now: float) -> Delta:
        by_set = {wanted.set: wanted}
        if self._reader is None:
            return self._kernel.compare(by_set, now, None, [wanted.set])
        return await asyncio.to_thread(self._reader.compare, by_set, now, None, [wanted.set])
