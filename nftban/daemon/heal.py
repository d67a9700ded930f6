"""Keeps the kernel as intended: mends what others do to our table, and keeps book of it.

Takes the kernel, the live bans and, for the real kernel, a Monitor of what others change; gives events for the admin
and numbers for `status`.
Guarantees: what somebody else does to our table is mended a few milliseconds after the kernel told of it; `check`, the
periodic look, finds what was not told; an entry that times out is no drift.  Where the same is undone BOUTS times
within a minute, nobody wins by being quick: it is said loudly, and only `check` mends from then on, until it finds
everything whole for once.
Does not: decide who is banned, look at the allow list (the callers of `check` bring it).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from nftban.daemon.bans import Bans
from nftban.errors import NftbanError
from nftban.kernel import Kernel
from nftban.kernel.monitor import LOST, Change, Monitor
from nftban.prefixes import PrefixSet
from nftban.records import Delta, Event, Refused

log = logging.getLogger(__name__)

DEBOUNCE = 0.002
"""Seconds between the first word of a change and the mending: scripts do several things in a row."""

RETRY = 0.5
"""Seconds after which is tried again what the kernel did not let us mend."""

MOST = 100
"""Changes remembered until they are mended; beyond them all is looked at."""

BOUTS, WITHIN = 5, 60.0
"""The same drift so often within so many seconds is a fight."""

BULK = 2_000
"""Changes of elements from which on the kernel is not to tell us of our own: messages cost more than a second look."""

KINDS = ("table", "frame", "missing", "unwanted", "expiry")
"""Of drift: there was no table; table, chains, sets or rules were not ours; elements missing, unwanted, or with another
expiry."""

Kinds = tuple[str, ...]


class Healing:
    """report: takes events; clock: epoch seconds; monitor None: nobody tells (the kernel of --observe)."""

    def __init__(
        self,
        kernel: Kernel,
        bans: Bans,
        monitor: Monitor | None,
        report: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._kernel = kernel
        self._bans = bans
        self._monitor = monitor
        self._report = report
        self._clock = clock
        self._changes: list[Change] = []
        self._due: asyncio.TimerHandle | None = None
        self._begun = self._resting = False
        self._bouts: dict[Kinds, deque[float]] = {}
        self._counters = Counter({"drift_found": 0, "drift_healed": 0})
        self._by_kind: Counter[str] = Counter()
        self._last: float | None = None

    def start(self) -> None:
        """Listens from now on; needs a running event loop."""
        if self._monitor is not None:
            # The first look at a whole table takes a tenth of a second; later ones, when there is haste, do not.
            self._kernel.drift()
            asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._hear, self._monitor)

    def stop(self) -> None:
        if self._due is not None:
            self._due.cancel()
        if self._monitor is not None:
            with contextlib.suppress(ValueError):  # closed already
                asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()

    async def check(self, allow: PrefixSet) -> None:
        """Makes the kernel equal to the intent, whoever told what; raises NftbanError where that fails.

        allow: what the allow sets are to hold from now on.
        """
        if not self._begun:
            self._bans.allow = allow
        changes, self._changes = self._changes, []
        drifted = False
        if changes or not self._begun or not await self._is_whole():
            drifted = self._mend(changes, thorough=True)
        if self._resting and not drifted:
            self._resting = False
            self._bouts.clear()
            log.info("our table stayed whole: changes are mended at once again")
        if allow != self._bans.allow:
            # Not a drift: the intent itself has changed.
            self._bans.allow = allow
            now = self._clock()
            self._tell_refused(self._apply(self._bans.difference(now), now), now)

    async def _is_whole(self) -> bool:
        """Does the kernel hold what it should?  Big sets are looked at in pieces, between which others have a turn."""
        if self._kernel.drift():
            return False
        self._bans.expire(now := self._clock())
        names = self._bans.in_doubt(now)
        if self._bans.difference(now, sets=names):
            return False
        for piece in self._bans.pieces(set(self._bans.desired()) - names):
            await asyncio.sleep(0)
            if piece(self._clock()):
                return False
        return True

    def status(self) -> dict[str, Any]:
        """drift_found, drift_healed; last: when the latest was found, or None; by_kind: how often what; resting: is
        it left to the periodic check?"""
        return {
            **self._counters,
            "last": self._last,
            "by_kind": dict(self._by_kind),
            "resting": self._resting,
        }

    def _hear(self, monitor: Monitor) -> None:
        try:
            changes = monitor.read()
        except NftbanError as e:
            # Without ears there is still the periodic check.
            asyncio.get_running_loop().remove_reader(monitor.fileno())
            self._report(Event(self._clock(), "drift", f"changes of our table are noticed late from now on: {e}"))
            return
        if self._resting:
            return
        self._changes += changes
        if len(self._changes) > MOST:
            self._changes[MOST:] = [LOST]
        if changes:
            self._soon()

    def _soon(self, wait: float = DEBOUNCE) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(wait, self._mend_told)

    def _mend_told(self) -> None:
        self._due = None
        changes, self._changes = self._changes, []
        try:
            self._mend(changes, thorough=not changes)
        except Exception as e:
            now = self._clock()
            self._report(Event(now, "drift", f"our table was changed by {_who(changes)} and cannot be mended now: {e}"))
            if not isinstance(e, NftbanError):
                log.exception("mending failed; the next check tries again")
            self._count_bout(("failed",), changes, now)
            if not self._resting:
                self._soon(RETRY)

    def _mend(self, changes: list[Change], thorough: bool) -> bool:
        """Looks and mends; thorough: at the frame too, whatever was told.  Says whether there was drift."""
        began, now, first = time.monotonic(), self._clock(), not self._begun
        frame: list[str] = []
        self._bans.expire(now)
        keys = None if thorough else _keys(changes)
        delta = None if keys is None else self._bans.difference_at(keys, now)
        if delta is None:
            frame = self._kernel.drift()
            self._counters["drift_found"] += bool(frame) and not first
            if frame:
                self._kernel.create()
            delta = self._bans.difference(now)
        self._counters["drift_found"] += bool(delta) and not frame and not first
        refused = self._apply(delta, now)
        self._begun = True
        self._tell_refused(refused, now)
        if first:
            return False
        if frame or delta:
            self._note(changes, frame, delta, refused, time.monotonic() - began)
            return True
        if changes:
            log.info("our table was changed by %s (%s), and is as it should be", _who(changes), _done(changes))
        return False

    def _apply(self, delta: Delta, now: float) -> list[Refused]:
        many = len(delta) >= BULK
        if self._monitor is None or not many:
            return self._kernel.apply(delta, now)
        with self._monitor.away():
            refused = self._kernel.apply(delta, now)
        self._soon()
        return refused

    def _tell_refused(self, refused: list[Refused], now: float) -> None:
        for r in refused:
            self._report(Event(now, "ban-failed", f"the kernel refused an element of {r.element.set}: {r.reason}"))

    def _note(self, changes: list[Change], frame: list[str], delta: Delta, refused: list[Refused], took: float) -> None:
        now = self._clock()
        missing, unwanted, expiry = delta.missing, len(delta.delete), len(delta.refresh)
        gone = any(words.startswith("there is no table") for words in frame)
        counts = (gone, bool(frame) and not gone, missing, unwanted, expiry)
        kinds = tuple(kind for kind, count in zip(KINDS, counts, strict=True) if count)
        self._counters["drift_healed"] += not refused
        self._by_kind.update(kinds)
        self._last = now
        counted = ((missing, "put back"), (unwanted, "removed"), (expiry, "given their time again"))
        found = [*frame, *(f"{n:,} element{'' if n == 1 else 's'} {words}" for n, words in counted if n)]
        was = f"changed by {_who(changes)} ({_done(changes)})" if changes else "not as intended"
        whole = f"whole again but for {len(refused)} refused elements" if refused else "whole again"
        text = f"our table was {was} and is {whole} after {took * 1000:.0f} ms: {'; '.join(found)}"
        self._report(Event(now, "drift", text))
        if changes:
            self._count_bout(kinds, changes, now)

    def _count_bout(self, kinds: Kinds, changes: list[Change], now: float) -> None:
        bouts = self._bouts.setdefault(kinds, deque(maxlen=BOUTS))
        bouts.append(now)
        if len(bouts) == BOUTS and now - bouts[0] <= WITHIN and not self._resting:
            self._resting = True
            text = (
                f"{_who(changes)} has undone our table {BOUTS} times within a minute: from now on it is mended only "
                "every minute, and bans have gaps; stop that program, or give us another table ([kernel] table)"
            )
            self._report(Event(now, "drift", text))


def _keys(changes: Iterable[Change]) -> list[tuple[str, int]] | None:
    """Set and key of each element that was touched; None where that is not all that was."""
    keys: list[tuple[str, int]] = []
    for change in changes:
        if change.elements is None:
            return None
        keys += ((name, int.from_bytes(key, "big")) for name, key in change.elements)
    return keys


def _who(changes: Iterable[Change]) -> str:
    """`nft (process 4711)`, each once."""
    named = dict.fromkeys(f"{c.program} (process {c.pid})" for c in changes if c.pid)
    return " and ".join(named) or "somebody"


def _done(changes: Iterable[Change]) -> str:
    """What they did, the first few things."""
    words = list(dict.fromkeys(w for c in changes for w in c.words))
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
