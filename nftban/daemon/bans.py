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
from collections.abc import Iterable, Iterator
from dataclasses import replace

from nftban.errors import KernelError
from nftban.kernel import Kernel, plan
from nftban.kernel.layout import Layout
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, Delta, Element, Refused
from nftban.store.sqlite import Store, StoredBan

log = logging.getLogger(__name__)

Key = tuple[Prefix, str]

LINGER = 120.0
"""Seconds after which the kernel has collected what timed out: twice the sets' gc-interval."""


class Bans:
    """All bans that hold now.  allow: what the kernel's allow sets are to hold; set anew with every look at it."""

    def __init__(self, store: Store, kernel: Kernel, layout: Layout, allow: PrefixSet) -> None:
        self._store = store
        self._kernel = kernel
        self._layout = layout
        self._live: dict[Key, StoredBan] = {}
        self.allow = allow
        self._over: deque[tuple[float, str]] = deque()

    def load(self, now: float) -> int:
        """Takes the live bans from the store; returns how many."""
        self._store.expire(now)
        stored = self._store.live_bans(now)
        scopes = {scope.name for scope in self._layout.scopes}
        self._live = {(s.ban.prefix, s.ban.scope): s for s in stored if s.ban.scope in scopes}
        for gone in (s.ban for s in stored if s.ban.scope not in scopes):
            # They stay in the store until their time is over: the scope may come back.
            log.warning("%s is not banned: there is no scope %r in the settings any more", gone.prefix, gone.scope)
        return len(self._live)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[StoredBan]:
        return iter(list(self._live.values()))

    def get(self, prefix: Prefix, scope: str) -> StoredBan | None:
        """The live ban of exactly this prefix and scope."""
        return self._live.get((prefix, scope))

    def covering(self, prefix: Prefix) -> list[StoredBan]:
        """The live bans whose prefix contains this one, the widest first."""
        found = []
        for length in range(prefix.length + 1):
            wider = prefix.widened(length)
            found += [s for scope in self._layout.scopes if (s := self._live.get((wider, scope.name)))]
        return found

    def covers(self, prefix: Prefix, scope: str, now: float) -> bool:
        """Is the prefix banned already, in this scope or in all?"""
        return any(s.ban.scope in (scope, "all") and s.ban.holds(now) for s in self.covering(prefix))

    def place(self, ban: Ban, now: float) -> list[Refused]:
        """Makes a ban hold: in the kernel, then in the store; a live one of the same prefix and scope is replaced.

        Raises StoreError where the store did not take it (the kernel has it), KernelError where the kernel is out of
        reach (the store has it, and the next reconcile brings it there).
        """
        earlier = self._live.get((ban.prefix, ban.scope))
        element = self._layout.place(ban.prefix, ban.scope, ban.until)
        # Remembered before the kernel is asked: should our table be gone, it is put back with this ban in it.
        self._live[ban.prefix, ban.scope] = StoredBan.unwritten(ban)
        try:
            if self._layout.address_sets[element.set].interval:
                return self._match_set(element.set, now)
            return self._apply(Delta(refresh=(element,)) if earlier else Delta(add=(element,)), now)
        finally:
            self._live[ban.prefix, ban.scope] = self._store.add_ban(ban, now)

    def write_missing(self, now: float) -> int:
        """Writes the bans that the store could not take when they were placed; returns how many; raises StoreError."""
        missing = [s.ban for s in self._live.values() if not s.id and s.ban.holds(now)]
        for ban in missing:
            self._live[ban.prefix, ban.scope] = self._store.add_ban(ban, now)
        return len(missing)

    def lift(self, prefix: Prefix, scope: str, now: float, how: str) -> bool:
        """Ends the ban of exactly this prefix and scope, in the kernel too; False where there is none.

        Raises as `place` does: what could be reached of kernel and store has ended it.
        """
        if self._live.pop((prefix, scope), None) is None:
            return self._store.end_ban(prefix, scope, now, how)
        element = self._layout.place(prefix, scope)
        try:
            if self._layout.address_sets[element.set].interval:
                self._match_set(element.set, now)
            else:
                self._apply(Delta(delete=(element,)), now)
        finally:
            self._store.end_ban(prefix, scope, now, how)
        return True

    def split(self, wide: StoredBan, hole: Prefix, now: float) -> list[StoredBan]:
        """Lets `hole` out of a wider ban: what is left of it goes on as bans of its own, to the same end.

        The pieces are in the kernel before the wide one is taken out: no packet of theirs passes meanwhile.
        """
        whole = self._store.detail(wide.id) if wide.id else wide.ban
        pieces = []
        for prefix in PrefixSet([wide.ban.prefix]).minus(PrefixSet([hole])).prefixes():
            stands = self.get(prefix, wide.ban.scope)
            if stands is None or not _ends_later(stands.ban.until, wide.ban.until):
                self.place(replace(whole, prefix=prefix), now)
                pieces.append(self._live[prefix, wide.ban.scope])
        self.lift(wide.ban.prefix, wide.ban.scope, now, "split")
        return pieces

    def expire(self, now: float) -> int:
        """Notes the end of the bans whose time is over (the kernel has dropped them by itself)."""
        over = [key for key, s in self._live.items() if not s.ban.holds(now)]
        for key in over:
            del self._live[key]
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

    def difference(self, now: float, exact: bool = False) -> Delta:
        """What the kernel's sets lack, hold too much or let end at another time; changes nothing.

        What ends within a second is left alone: the kernel's clock and ours may differ by that.  exact: big sets are
        listed, which may take long, where else an unwanted element could hide behind others that just timed out.
        """
        lingering = None if exact else self._lingering(now)
        return self._worth(self._kernel.compare(self.desired(now), now, lingering), now)

    @staticmethod
    def _worth(delta: Delta, now: float) -> Delta:
        soon = now + plan.TOLERANCE
        return Delta(
            tuple(e for e in delta.add if e.until is None or e.until > soon),
            tuple(e for e in delta.delete if e.until is None or e.until > soon),
            delta.refresh,
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
            if (stored := self._live.get((prefix, spec.scope))) is not None and stored.ban.holds(now):
                desired.append(self._layout.place(prefix, spec.scope, stored.ban.until))
            present += [f.element for f in self._kernel.find(prefix, now) if f.element.set == name]
        return self._worth(plan.difference(desired, present, now), now)

    def desired(self, now: float) -> list[Element]:
        """The elements that the kernel should hold."""
        return plan.desired((s.ban for s in self._live.values()), self.allow, self._layout, now)

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
        bans = (s.ban for s in self._live.values() if s.ban.scope == spec.scope)
        desired = [e for e in plan.desired(bans, PrefixSet(), self._layout, now) if e.set == name]
        present = self._kernel.present(now, {name})
        return self._apply(plan.difference(desired, present, now), now)


def _ends_later(one: float | None, other: float | None) -> bool:
    return other is not None and (one is None or one > other)
