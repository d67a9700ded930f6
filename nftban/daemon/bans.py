"""The live bans: store, kernel and memory held together.

Takes bans to place and to lift; gives what the kernel refused.  Kernel first, then store, in one go: the packets stop
before anything is written to a disk, and where the store cannot take a ban it holds all the same until a restart.
Should we be killed between the two, the next start takes the entry that nobody can explain out of the kernel.
Guarantees: after `reconcile` the kernel's sets hold exactly the live bans and the allow list (expiry within a
second).  Does not: ask whether a ban may be (the callers ask lockout.py first), judge.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf

from nftban.errors import KernelError
from nftban.kernel import Desired, Kernel, plan
from nftban.kernel.columns import Columns, RangeColumns
from nftban.kernel.layout import NETWORK_LENGTH, Kind, Layout
from nftban.prefixes import BITS, Prefix, PrefixSet
from nftban.protect.protected import Protected
from nftban.records import Ban, Delta, Element, Refused
from nftban.store.sqlite import Store, StoredBan

log = logging.getLogger(__name__)

Key = tuple[Prefix, str]
Group = tuple[str, int, int]

LINGER = 120.0
"""Seconds after which the kernel has collected what timed out: twice the sets' gc-interval."""


PIECE = 1000
"""Elements that are compared without a pause, which takes 3 ms."""

FEED_PIECES = 20
"""Pieces of a feed's set that one check compares; the next goes on from there.  The monitor tells of changes."""


class Bans:
    """All bans that hold now.  allow, feeds: what the kernel's other sets are to hold; whoever knows sets it anew.

    In memory are when they end, which takes some hundred bytes each; the rest is the store's.
    """

    def __init__(self, store: Store, kernel: Kernel, layout: Layout, allow: PrefixSet) -> None:
        self._store = store
        self._kernel = kernel
        self._layout = layout
        # By scope, family and prefix length, the ends by first address; inf: never.
        self._ends: dict[Group, dict[int, float]] = {}
        self._unwritten: dict[Key, Ban] = {}
        self.allow = allow
        # By set.  Of a feed that is not here yet what a start finds in the kernel is left alone.
        self.feeds: dict[str, Sequence[Element]] = {}
        self._places: dict[str, int] = {}
        self._over: deque[tuple[float, str]] = deque()

    def load(self, now: float) -> int:
        """Takes the live bans from the store; returns how many."""
        self._store.expire(now)
        scopes = {scope.name for scope in self._layout.scopes}
        self._ends = self._store.live_ends(now)
        for scope, family, length in [group for group in self._ends if group[0] not in scopes]:
            # They stay in the store until their time is over: the scope may come back.
            for first in self._ends.pop((scope, family, length)):
                prefix = Prefix(family, first, length)
                log.warning("%s is not banned: there is no scope %r in the settings any more", prefix, scope)
        return len(self)

    def __len__(self) -> int:
        return sum(map(len, self._ends.values()))

    def __iter__(self) -> Iterator[Key]:
        """Prefix and scope of each, as they are now."""
        return iter(
            [
                (Prefix(family, first, length), scope)
                for (scope, family, length), ends in self._ends.items()
                for first in ends
            ]
        )

    def __contains__(self, key: Key) -> bool:
        prefix, scope = key
        return prefix.first in self._ends.get((scope, prefix.family, prefix.length), ())

    def get(self, prefix: Prefix, scope: str) -> StoredBan | None:
        """The live ban of exactly this prefix and scope."""
        if (prefix, scope) not in self:
            return None
        if (unwritten := self._unwritten.get((prefix, scope))) is not None:
            return StoredBan.unwritten(unwritten)
        return self._store.live_ban(prefix, scope)

    def all(self, now: float) -> list[StoredBan]:
        """Every live ban, oldest first."""
        written = [
            s
            for s in self._store.live_bans(now)
            if (key := (s.ban.prefix, s.ban.scope)) in self and key not in self._unwritten
        ]
        return [*written, *map(StoredBan.unwritten, self._unwritten.values())]

    def covering(self, prefix: Prefix) -> list[StoredBan]:
        """The live bans whose prefix contains this one, the widest first."""
        return [s for key in self._covering(prefix) if (s := self.get(*key)) is not None]

    def covers(self, prefix: Prefix, scope: str, now: float) -> bool:
        """Is the prefix banned already, in this scope or in all?"""
        return any(self._end(key) > now for key in self._covering(prefix) if key[1] in (scope, "all"))

    def overlapping(self, prefix: Prefix) -> list[Key]:
        """Prefix and scope of the live bans that contain the prefix, or lie in it, the widest first."""
        found = self._covering(prefix)
        for (scope, family, length), ends in self._ends.items():
            if family == prefix.family and length > prefix.length:
                step = 1 << prefix.bits - length
                if (prefix.last - prefix.first) // step < len(ends):
                    firsts = [first for first in range(prefix.first, prefix.last + 1, step) if first in ends]
                else:
                    firsts = [first for first in ends if prefix.first <= first <= prefix.last]
                found += [(Prefix(family, first, length), scope) for first in firsts]
        return found

    def objectionable(self, protected: Protected) -> list[Key]:
        """Prefix and scope of the live bans that must not be."""
        allowed = list(protected.allow.prefixes())
        near = [key for prefix in allowed for key in self.overlapping(prefix)]
        wide = [
            (Prefix(family, first, length), scope)
            for (scope, family, length), ends in self._ends.items()
            if protected.is_wide(family, length)
            for first in ends
        ]
        return list(dict.fromkeys((*wide, *near)))

    def _covering(self, prefix: Prefix) -> list[Key]:
        found = []
        for (scope, family, length), ends in self._ends.items():
            if family == prefix.family and length <= prefix.length:
                shift = prefix.bits - length
                if (first := prefix.first >> shift << shift) in ends:
                    found.append((Prefix(family, first, length), scope))
        return sorted(found, key=lambda key: key[0].length)

    def _end(self, key: Key) -> float:
        prefix, scope = key
        return self._ends[scope, prefix.family, prefix.length][prefix.first]

    def place(self, ban: Ban, now: float) -> list[Refused]:
        """Makes a ban hold: in the kernel, then in the store; a live one of the same prefix and scope is replaced.

        Raises StoreError where the store did not take it (the kernel has it), KernelError where the kernel is out of
        reach (the store has it, and the next reconcile brings it there).
        """
        prefix, key = ban.prefix, (ban.prefix, ban.scope)
        element = self._layout.place(prefix, ban.scope, ban.until)
        ends = self._ends.setdefault((ban.scope, prefix.family, prefix.length), {})
        earlier = prefix.first in ends
        # Remembered before the kernel is asked: should our table be gone, it is put back with this ban in it.
        ends[prefix.first] = inf if ban.until is None else ban.until
        self._unwritten[key] = ban
        try:
            if self._layout.address_sets[element.set].interval:
                return self._match_set(element.set, now)
            return self._apply(Delta(refresh=(element,)) if earlier else Delta(add=(element,)), now)
        finally:
            self._store.add_ban(ban, now)
            del self._unwritten[key]

    def unwritten(self) -> int:
        """How many bans are not in the store, with one that is being placed."""
        return len(self._unwritten)

    def write_missing(self, now: float) -> int:
        """Writes the bans that the store could not take when they were placed; returns how many; raises StoreError."""
        missing = [(key, ban) for key, ban in self._unwritten.items() if ban.holds(now)]
        for key, ban in missing:
            self._store.add_ban(ban, now)
            del self._unwritten[key]
        return len(missing)

    def lift(self, prefix: Prefix, scope: str, now: float, how: str) -> bool:
        """Ends the ban of exactly this prefix and scope, in the kernel too; False where there is none.

        Raises as `place` does: what could be reached of kernel and store has ended it.
        """
        if (prefix, scope) not in self:
            return self._store.end_ban(prefix, scope, now, how)
        self._drop((prefix, scope))
        element = self._layout.place(prefix, scope)
        try:
            if self._layout.address_sets[element.set].interval:
                self._match_set(element.set, now)
            else:
                self._apply(Delta(delete=(element,)), now)
        finally:
            self._store.end_ban(prefix, scope, now, how)
        return True

    def _drop(self, key: Key) -> None:
        prefix, scope = key
        group = (scope, prefix.family, prefix.length)
        ends = self._ends[group]
        del ends[prefix.first]
        if not ends:
            del self._ends[group]
        self._unwritten.pop(key, None)

    def split(self, wide: StoredBan, hole: Prefix, now: float) -> list[StoredBan]:
        """Lets `hole` out of a wider ban: what is left of it goes on as bans of its own, to the same end.

        The pieces are in the kernel before the wide one is taken out: no packet of theirs passes meanwhile.
        """
        whole = self._store.detail(wide.id) if wide.id else wide.ban
        end = inf if wide.ban.until is None else wide.ban.until
        pieces = []
        for prefix in PrefixSet([wide.ban.prefix]).minus(PrefixSet([hole])).prefixes():
            key = (prefix, wide.ban.scope)
            if key not in self or self._end(key) <= end:
                self.place(replace(whole, prefix=prefix), now)
                pieces.append(key)
        self.lift(wide.ban.prefix, wide.ban.scope, now, "split")
        return [s for key in pieces if (s := self.get(*key)) is not None]

    def expire(self, now: float) -> int:
        """Notes the end of the bans whose time is over (the kernel has dropped them by itself)."""
        over = [
            (Prefix(family, first, length), scope)
            for (scope, family, length), ends in self._ends.items()
            for first, end in ends.items()
            if end <= now
        ]
        for key in over:
            self._drop(key)
            self._over.append((now, self._layout.place(*key).set))
        if over:
            self._store.expire(now)
        return len(over)

    def reconcile(self, allow: PrefixSet, now: float) -> tuple[Delta, list[Refused]]:
        """Makes the kernel equal to the intent; returns what had to be changed and what was refused."""
        self.allow = allow
        self.expire(now)
        self._kernel.create()
        delta = self.difference(now)
        return delta, self._kernel.apply(delta, now) if delta else []

    def difference(self, now: float, exact: bool = False, sets: Collection[str] | None = None) -> Delta:
        """What the kernel's sets lack, hold too much or let end at another time; changes nothing.

        What ends within a second is left alone: the kernel's clock and ours may differ by that.  exact: big sets are
        listed, which may take long, where else an unwanted element could hide behind others that just timed out.
        sets: only these; None: all, of feeds those whose number of elements is wrong.
        """
        lingering = None if exact else self._lingering(now)
        names = self._known(sets)
        if sets is None and not exact:
            names = self._without_whole_feeds(names, now)
        return self._worth(self._kernel.compare(self.desired(), now, lingering, names), now)

    def _without_whole_feeds(self, names: list[str], now: float) -> list[str]:
        """Without the feeds' sets that hold as many elements as they should, where the kernel says how many: asking
        for each of a million takes ten seconds."""
        if not self.feeds:
            return names
        counts = self._kernel.counts()
        return [n for n in names if n not in self.feeds or counts.get(n) != _standing(self.feeds[n], now)]

    def in_doubt(self, now: float) -> set[str]:
        """The sets for which `difference` has to be asked; for the others `pieces` do."""
        return self._kernel.in_doubt(self.desired(), now, self._lingering(now)) & set(self._known(None))

    def _known(self, sets: Collection[str] | None) -> list[str]:
        """Those of the sets, or of all, of which it is known what they should hold."""
        return [
            name
            for name, spec in self._layout.address_sets.items()
            if (spec.kind is not Kind.FEED or name in self.feeds) and (sets is None or name in sets)
        ]

    def pieces(self, sets: Collection[str]) -> Iterator[Callable[[float], Delta]]:
        """The difference of these sets without what is unwanted in them, a piece after another: each call takes `now`
        and some milliseconds, and goes by what is banned when it is called."""
        for name, elements in self.desired().items():
            first, last = 0, len(elements) if name in sets else 0
            if name in self.feeds and name in sets:
                first = self._places.get(name, 0)
                last = min(first + FEED_PIECES * PIECE, last)
                self._places[name] = last if last < len(elements) else 0
            for place in range(first, last, PIECE):
                yield partial(self._lacking, name, elements[place : place + PIECE])

    def _lacking(self, name: str, elements: Sequence[Element], now: float) -> Delta:
        spec = self._layout.address_sets[name]
        if not spec.interval:
            length = BITS[spec.family] if spec.kind is Kind.ADDRESS else NETWORK_LENGTH[spec.family]
            ends = self._ends.get((spec.scope, spec.family, length), {})
            held = {e.first: ends[e.first] for e in elements if ends.get(e.first, now) > now}
            elements = Columns.of(name, held)
        delta = self._kernel.lacking(elements, now)
        return self.difference(now, sets={name}) if delta is None else self._worth(delta, now)

    @staticmethod
    def _worth(delta: Delta, now: float) -> Delta:
        soon = now + plan.TOLERANCE
        return Delta(
            tuple(e for e in delta.add if e.until is None or e.until > soon),
            tuple(e for e in delta.delete if e.until is None or e.until > soon),
            delta.refresh,
            delta.fill,
        )

    def difference_at(self, keys: Iterable[tuple[str, int]], now: float) -> Delta | None:
        """The same for these keys of these sets only, in microseconds; None where one of them is a set of ranges or
        not one of ours, so that all has to be looked at."""
        desired, present = [], []
        for name, key in dict.fromkeys(keys):
            spec = self._layout.address_sets.get(name)
            if spec is None or spec.interval:
                return None
            (prefix,) = self._layout.prefixes(Element(name, key, key))
            if (prefix, spec.scope) in self and (end := self._end((prefix, spec.scope))) > now:
                desired.append(self._layout.place(prefix, spec.scope, None if end == inf else end))
            present += [f.element for f in self._kernel.find(prefix, now) if f.element.set == name]
        return self._worth(plan.difference(desired, present, now), now)

    def desired(self) -> Desired:
        """The elements that the kernel should hold, as far as that is known."""
        return {**plan.desired(self._ends, self.allow, self._layout), **self.feeds}

    def _lingering(self, now: float) -> Counter[str]:
        """By set, how many elements timed out lately: the kernel may still count them."""
        while self._over and self._over[0][0] < now - LINGER:
            self._over.popleft()
        return Counter(name for _, name in self._over)

    def _apply(self, delta: Delta, now: float) -> list[Refused]:
        """Applies a difference; where somebody took our table away, everything is put back instead."""
        try:
            return self._kernel.apply(delta, now)
        except KernelError as e:
            if e.errno != errno.ENOENT:
                raise
            return self.reconcile(self.allow, now)[1]

    def _match_set(self, name: str, now: float) -> list[Refused]:
        """Brings one interval set to its intent: its elements depend on each other (they may not overlap)."""
        spec = self._layout.address_sets[name]
        ranges = {group: ends for group, ends in self._ends.items() if group[:2] == (spec.scope, spec.family)}
        desired = plan.desired(ranges, PrefixSet(), self._layout).get(name, ())
        present = self._kernel.present(now, {name})
        return self._apply(plan.difference(desired, present, now), now)


def _standing(elements: Sequence[Element], now: float) -> int:
    """How many are not over."""
    if isinstance(elements, RangeColumns):
        return len(elements.standing(now))
    return sum(e.until is None or e.until > now for e in elements)
