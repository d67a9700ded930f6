"""Offences per prefix inside a sliding window.

Takes a jail's offences; gives, for each, the Suspect: the offences of that prefix that lie within `findtime`,
oldest first.  Prefixes are single addresses for IPv4 and /64 for IPv6, or of the lengths given.
Time is the log's: the window ends at the newest offence of the prefix, or at `now` where that is later, so a log
read long after it was written counts nobody.  Lines may come out of order.
Guarantees: bounded memory.  Of one prefix the newest `kept` offences are held, of prefixes the `prefixes` last
seen; what was dropped for want of room is in `evictions`.
Does not: know weights, thresholds or bans.  Whoever bans calls `forget`.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict

from nftban.prefixes import Prefix
from nftban.records import Offence, Suspect


class Windows:
    """The windows of one jail."""

    def __init__(
        self,
        jail: str,
        findtime: float,
        maxretry: int,
        *,
        count4: int = 32,
        count6: int = 64,
        prefixes: int = 100_000,
        kept: int | None = None,
    ) -> None:
        """findtime: seconds; kept: offences held per prefix, by default enough for `maxretry` twice over."""
        self.jail = jail
        self.findtime = findtime
        self.evictions = 0
        self._lengths = {4: count4, 6: count6}
        self._prefixes = prefixes
        self._kept = kept if kept is not None else max(2 * maxretry, 20)
        self._windows: OrderedDict[Prefix, list[Offence]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def inherit(self, earlier: Windows) -> None:
        """Goes on with what those have counted; nothing where they count other addresses together."""
        if self._lengths == earlier._lengths:
            self._windows = earlier._windows

    def add(self, offence: Offence, now: float | None = None) -> Suspect | None:
        """The suspect this offence makes; None where it is too old to count."""
        prefix = self.counted(offence.prefix)
        window = self._windows.get(prefix)
        newest = max(offence.time, window[-1].time if window else offence.time)
        if now is not None:
            newest = max(newest, now)
        if newest - offence.time > self.findtime:
            return None
        if window is None:
            window = self._windows[prefix] = []
            if len(self._windows) > self._prefixes:
                self._windows.popitem(last=False)
                self.evictions += 1
        self._windows.move_to_end(prefix)
        insort(window, offence, key=_time)
        self._expire(window, newest)
        if len(window) > self._kept:
            del window[0]
        return Suspect(prefix, self.jail, tuple(window))

    def suspect(self, prefix: Prefix, now: float) -> Suspect | None:
        """What is held against a prefix now; None where nothing is."""
        key = self.counted(prefix)
        held = tuple(o for o in self._windows.get(key, ()) if now - o.time <= self.findtime)
        return Suspect(key, self.jail, held) if held else None

    def counted(self, prefix: Prefix) -> Prefix:
        """The prefix under which an address is counted."""
        return prefix.widened(self._lengths[prefix.family])

    def forget(self, prefix: Prefix) -> None:
        """Begins anew with this prefix."""
        self._windows.pop(self.counted(prefix), None)

    def prune(self, now: float) -> int:
        """Drops what is over; returns how many prefixes were."""
        over = [p for p, window in self._windows.items() if now - window[-1].time > self.findtime]
        for prefix in over:
            del self._windows[prefix]
        return len(over)

    def _expire(self, window: list[Offence], newest: float) -> None:
        first = 0
        while newest - window[first].time > self.findtime:
            first += 1
        del window[:first]


def _time(offence: Offence) -> float:
    return offence.time
