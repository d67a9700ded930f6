"""Keeps the store whole and written, and bans to their time when the clock is put.

Takes the daemon's parts; its functions are called by the daemon: `take_up` at the start, the others from time to time.
Guarantees: what was counted goes to disk with the cursors it belongs to (saved.py); a damaged store is set aside and
made anew (rebuild.py), whenever that is noticed; a ban lasts as long as it was meant to, whatever the clock says
(docs/decisions/clock.md); the store does not grow with noise.
Does not: decide about bans.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from nftban.daemon.assemble import Assembly
from nftban.daemon.bans import Bans
from nftban.daemon.rebuild import rebuild
from nftban.daemon.saved import Saved
from nftban.daemon.steps import Steps
from nftban.kernel import Kernel
from nftban.records import Event
from nftban.store.damage import DamagedStoreError
from nftban.store.sqlite import Store

log = logging.getLogger(__name__)


class Upkeep:
    """aside: where the damaged store is in whose place this one was made, or None."""

    def __init__(
        self,
        store: Store,
        aside: Path | None,
        saved: Saved,
        bans: Bans,
        kernel: Kernel,
        assembly: Assembly,
        report: Callable[[Event], None],
        steps: Steps,
    ) -> None:
        self._store = store
        self._aside = aside
        self._saved = saved
        self._bans = bans
        self._kernel = kernel
        self._layout = assembly.layout
        self._jails = assembly.jails
        self._report = report
        self._clock = steps.now
        self.steps = steps

    def take_up(self) -> int:
        """The bans, out of the store or, where that is lost or damaged, out of the kernel; returns how many."""
        self.follow_clock()
        try:
            if self._store.new:
                count = rebuild(self._store, self._kernel, self._layout, self._clock())
                if count or self._aside is not None:
                    self._tell_rebuilt(self._aside, count)
            return self._bans.load(self._clock())
        except DamagedStoreError as e:
            return self._renew(e)

    def save_progress(self) -> bool:
        """Writes what has been counted, and how far the logs were read for that; says whether that took a new store.
        Raises StoreError."""
        try:
            if self._store.damaged:
                raise DamagedStoreError(f"the store {self._store.path} is damaged")
            self._bans.write_missing(self._clock())
            self._saved.save()
        except DamagedStoreError as e:
            self._renew(e)
            self._saved.save()
            return True
        return False

    async def save_state(self) -> None:
        """What is known of the clock; and all that was written survives a power loss from now on."""
        self._store.set_state("clock", self.steps.kept())
        await asyncio.to_thread(self._store.sync)

    async def check(self) -> None:
        """Reads the whole store; the next save makes a new one where it is damaged."""
        try:
            await asyncio.to_thread(self._store.check)
        except DamagedStoreError as e:
            log.error("%s", e)

    async def prune(self) -> None:
        """Forgets what is old or too much, piece by piece."""
        findtimes = {jail.name: jail.rules.findtime for jail in self._jails}
        while self._store.prune(self._clock(), findtimes=findtimes):  # noqa: ASYNC110 - a turn for others, no wait
            await asyncio.sleep(0)

    def follow_clock(self) -> float:
        """Where the clock was put, moves the ends of bans along; returns by how many seconds, 0.0 where it was not.
        Raises StoreError, and then does it when called again."""
        before = self.steps.offset
        if not (step := self.steps.step()):
            return 0.0
        try:
            moved = self._store.shift(step, self.steps.moved_from(), self.steps.kept())
        except Exception:
            self.steps.offset = before
            raise
        now = self._clock()
        self._bans.load(now)
        if step < 0:
            for jail in self._jails:
                jail.windows.hold_to(now)
        way = "forward" if step > 0 else "back"
        text = f"the clock was put {way} by {abs(step):,.0f} s; the ends of {moved:,} bans were moved along"
        self._report(Event(now, "clock", text))
        return step

    def _renew(self, fault: DamagedStoreError) -> int:
        log.error("%s", fault)
        aside = self._store.set_aside(self._clock())
        self._saved.start_anew()
        count = rebuild(self._store, self._kernel, self._layout, self._clock())
        self._tell_rebuilt(aside, count)
        return self._bans.load(self._clock())

    def _tell_rebuilt(self, aside: Path | None, count: int) -> None:
        what = "lost" if aside is None else f"damaged (it is kept as {aside})"
        text = (
            f"the store was {what}; a new one was made, with {count:,} bans taken from the kernel's sets: why they "
            "were made, and what was before, is not known any more"
        )
        self._report(Event(self._clock(), "store", text))
