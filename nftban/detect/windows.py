"""Offences per prefix inside a sliding window.

Takes a jail's offences; gives, for each, the Suspect: the offences of that prefix that lie within `findtime`,
oldest first.  Prefixes are single addresses for IPv4 and /64 for IPv6, or of the lengths given.
Time is the log's: the window ends at the newest offence of the prefix, or at `now` where that is later, so a log
read long after it was written counts nobody.  Lines may come out of order.
Guarantees: bounded memory.  Of one prefix the newest `kept` offences count, of prefixes the `prefixes` last seen;
what was dropped for want of room is in `evictions`.  Of `lines` offences at most the lines and facts are held, those
of the prefixes last seen; of the others only when and how much, about 130 bytes a prefix: they count all the same,
and come back as Offences that say so.  No call takes long because much is held: what is over is dropped piece by piece.
Who keeps it elsewhere sets `changes` to a list and empties it from time to time; `export` and `restore` are the whole.
Does not: know weights, thresholds or bans.  Whoever bans calls `forget`.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from nftban.prefixes import BITS, Prefix
from nftban.records import Offence, Suspect

PRUNED = 5_000
"""Prefixes that one call of `prune` looks at, at most."""

FORGOTTEN = "offence whose line is no longer held"

# A stamp in an integer: weight, and time in 1/64 s; the newest is lowest.  Seconds since the epoch fit until 2242.
_TIME, _WEIGHT, _PER_SECOND = 39, 17, 64
_STAMP = _TIME + _WEIGHT
_V6 = 1 << 128
_SHARDS = 64
_NOBODY = Prefix(4, 0, 32)


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
        prefixes: int = 1_000_000,
        lines: int = 20_000,
        kept: int | None = None,
    ) -> None:
        """findtime: seconds; kept: offences counted per prefix, by default enough for `maxretry` twice over."""
        self.jail = jail
        self.findtime = findtime
        self.evictions = 0
        self._lengths = {4: count4, 6: count6}
        self._prefixes = prefixes
        self._lines = lines
        self._kept = kept if kept is not None else max(2 * maxretry, 20)
        self._windows: OrderedDict[Prefix, list[Offence]] = OrderedDict()  # the last seen, with all that is known
        self._held = 0  # offences in them
        # The others: stamps by address, in many small tables: none is ever long in growing or in being looked through.
        self._shards: list[dict[int, int]] = [{} for _ in range(_SHARDS)]
        self._older = 0  # prefixes in them
        self._next_shard = 0
        self._salt = id(self)  # whose addresses meet in one table is not for them to choose
        self.changes: list[tuple[Prefix, Offence | None]] | None = None
        """What was added since it was emptied, in order; None: that prefix begins anew."""

    def __len__(self) -> int:
        return len(self._windows) + self._older

    def inherit(self, earlier: Windows) -> None:
        """Goes on with what another has counted, where both count by the same prefixes."""
        if self._lengths == earlier._lengths:
            self._windows, self._held = earlier._windows, earlier._held
            self._shards, self._older, self._salt = earlier._shards, earlier._older, earlier._salt

    def add(self, offence: Offence, now: float | None = None) -> Suspect | None:
        """The suspect this offence makes; None where it is too old to count."""
        prefix = self.counted(offence.prefix)
        window = self._windows.get(prefix)
        if window is None and (window := self._recalled(prefix)):
            self._windows[prefix] = window
            self._held += len(window)
        newest = max(offence.time, window[-1].time if window else offence.time)
        if now is not None:
            newest = max(newest, now)
        if newest - offence.time > self.findtime:
            return None
        if not window:
            window = self._windows[prefix] = []
        self._windows.move_to_end(prefix)
        before = len(window)
        insort(window, offence, key=_time)
        first = 0
        while newest - window[first].time > self.findtime:
            first += 1
        del window[: max(first, len(window) - self._kept)]
        self._held += len(window) - before
        if self.changes is not None:
            self.changes.append((prefix, offence))
        self._make_room()
        return Suspect(prefix, self.jail, tuple(window))

    def suspect(self, prefix: Prefix, now: float) -> Suspect | None:
        """What is held against a prefix now; None where nothing is."""
        key = self.counted(prefix)
        window = self._windows.get(key)
        if window is None:
            packed, shard = self._place(key)
            window = self._unpacked(key, shard.get(packed, 0))
        held = tuple(o for o in window if now - o.time <= self.findtime)
        return Suspect(key, self.jail, held) if held else None

    def counted(self, prefix: Prefix) -> Prefix:
        """The prefix under which an address is counted."""
        return prefix.widened(self._lengths[prefix.family])

    def forget(self, prefix: Prefix) -> None:
        """Begins anew with this prefix."""
        key = self.counted(prefix)
        self._held -= len(self._windows.pop(key, ()))
        packed, shard = self._place(key)
        if shard.pop(packed, None) is not None:
            self._older -= 1
        if self.changes is not None:
            self.changes.append((key, None))

    @property
    def kept(self) -> int:
        """The most offences of one prefix that are held."""
        return self._kept

    @property
    def counts_by(self) -> str:
        """The lengths of the prefixes under which is counted."""
        return f"/{self._lengths[4]} /{self._lengths[6]}"

    def is_full(self, prefix: Prefix) -> bool:
        """Are as many offences of the prefix held as ever are?"""
        return len(self._windows.get(prefix, ())) >= self._kept

    def export(self) -> Iterator[tuple[Prefix, list[Offence]]]:
        """All that is held, by prefix, the last seen last; not to be changed meanwhile."""
        for shard in self._shards:
            for packed, stamps in shard.items():
                family = 6 if packed & _V6 else 4
                prefix = Prefix(family, packed & ~_V6, self._lengths[family])
                yield prefix, self._unpacked(prefix, stamps)
        yield from self._windows.items()

    def restore(self, offences: Iterable[Offence], now: float) -> None:
        """Counts what was counted once before, as far as it is not over; is no change."""
        changes, self.changes = self.changes, None
        for offence in offences:
            self.add(offence, now)
        self.changes = changes

    def hold_to(self, now: float) -> None:
        """The clock was put back: nothing held is from later than now, or it would outweigh all that comes."""
        for prefix, window in self._windows.items():
            if window[-1].time > now:
                self._windows[prefix] = [replace(o, time=min(o.time, now)) for o in window]
        for shard in self._shards:
            for packed, stamps in shard.items():
                if _newest(stamps) > now:
                    held = self._unpacked(_NOBODY, stamps)
                    shard[packed] = _packed([replace(o, time=min(o.time, now)) for o in held])

    def prune(self, now: float) -> int:
        """Drops what is over, of the prefixes seen longest ago and of some of those whose lines are not held; the next
        call goes on where this one stopped.  Returns how many were dropped."""
        dropped = 0
        over = (p for p, window in self._windows.items() if now - window[-1].time > self.findtime)
        for prefix in list(islice(over, PRUNED // 10)):  # these take longer: their lines go too
            self._held -= len(self._windows.pop(prefix))
            dropped += 1
        looked_at = 0
        limit, newest = (now - self.findtime) * _PER_SECOND, (1 << _TIME) - 1
        for _ in range(_SHARDS):
            shard = self._shards[self._next_shard]
            if looked_at and looked_at + len(shard) > PRUNED:
                break
            looked_at += len(shard)
            ended = [packed for packed, stamps in shard.items() if stamps & newest < limit]
            for packed in ended:
                del shard[packed]
            self._older -= len(ended)
            dropped += len(ended)
            self._next_shard = (self._next_shard + 1) % _SHARDS
        return dropped

    def _make_room(self) -> None:
        """Lines of the prefixes seen longest ago go, then prefixes."""
        while self._held > self._lines and len(self._windows) > 1:
            prefix, window = self._windows.popitem(last=False)
            self._held -= len(window)
            packed, shard = self._place(prefix)
            shard[packed] = _packed(window)
            self._older += 1
        while len(self) > self._prefixes:
            self.evictions += 1
            if not self._older:
                self._held -= len(self._windows.popitem(last=False)[1])
                continue
            shard = max(self._shards, key=len)
            del shard[next(iter(shard))]  # the first of a table is the one that came into it first
            self._older -= 1

    def _recalled(self, prefix: Prefix) -> list[Offence]:
        packed, shard = self._place(prefix)
        stamps = shard.pop(packed, 0)
        if stamps:
            self._older -= 1
        return self._unpacked(prefix, stamps)

    def _place(self, prefix: Prefix) -> tuple[int, dict[int, int]]:
        packed = prefix.first if prefix.family == 4 else prefix.first | _V6
        return packed, self._shards[hash((packed, self._salt)) % _SHARDS]

    def _unpacked(self, prefix: Prefix, stamps: int) -> list[Offence]:
        """As Offences of which nothing but the time and the weight is known."""
        out: list[Offence] = []
        while stamps:
            time, weight = _newest(stamps), stamps >> _TIME & (1 << _WEIGHT) - 1
            address = Prefix(prefix.family, prefix.first, BITS[prefix.family])
            out.append(Offence(self.jail, FORGOTTEN, address, time, weight))
            stamps >>= _STAMP
        return out[::-1]


def _packed(window: list[Offence]) -> int:
    stamps = 0
    for offence in window:
        time = min(max(int(offence.time * _PER_SECOND), 0), (1 << _TIME) - 1)
        stamps = stamps << _STAMP | min(offence.weight, (1 << _WEIGHT) - 1) << _TIME | time
    return stamps


def _newest(stamps: int) -> float:
    return (stamps & (1 << _TIME) - 1) / _PER_SECOND


def _time(offence: Offence) -> float:
    return offence.time
