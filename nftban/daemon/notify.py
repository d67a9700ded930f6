"""Notifications: what happens is heard, and told to whom the settings name.

Takes the events that the store is given, and the settings [notify]; sends Notices (notices.py) through delivery.py.
Guarantees: nobody who reports an event waits for a receiver; at most WAITING notices wait, the oldest go first and are
counted; what was told is remembered in the store, so that a restart repeats nothing.  That a receiver fails is told
once (an event, kind `notify`), and that it works again.  Without receivers it does nothing.
Does not: decide what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Any

from nftban.config.schema import Notify
from nftban.daemon.delivery import send
from nftban.daemon.notices import Notice, Notices
from nftban.errors import StoreError
from nftban.records import Event
from nftban.store.history import made_since
from nftban.store.sqlite import Store

log = logging.getLogger(__name__)

STATE = "notify"

WAITING = 50
"""Notices that wait for the one that is being sent."""

EVERY = 5.0
"""Seconds between two looks at what is due."""

STOP_WITHIN = 3.0
"""Seconds that the notice being sent has when the daemon stops."""


class Notifications:
    """clock: epoch seconds; report: takes an event."""

    def __init__(
        self, settings: Notify, store: Store, report: Callable[[Event], None], clock: Callable[[], float]
    ) -> None:
        self._settings, self._store, self._report, self._clock = settings, store, report, clock
        self.wanted = bool(settings.hook or settings.urls)
        self._notices = Notices(settings.at_once, settings.digest, settings.storm, clock())
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None
        self._failing: set[str] = set()
        self.counters = Counter({"sent": 0, "failed": 0, "dropped": 0})

    def start(self) -> None:
        """Hears from now on; needs a running event loop."""
        if not self.wanted:
            return
        with contextlib.suppress(StoreError):  # a damaged one is made anew, and that wants to be told
            self._notices.restore(self._store.state(STATE), self._clock())
        self._store.listeners.append(self._hear)
        self._task = asyncio.create_task(self._send_all(), name="notifications")

    async def stop(self) -> None:
        """Nothing is heard any more; what waits and was not sent is lost, and counted as told."""
        if self._task is None:
            return
        self._store.listeners.remove(self._hear)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.settle(), STOP_WITHIN)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._save()

    async def settle(self) -> None:
        """Returns when nothing waits to be sent."""
        await self._queue.join()

    async def run(self) -> None:
        """The job: what was held back and is due, and the digest."""
        if self._task is None:
            return
        now = self._clock()
        for notice in self._notices.due(now):
            self._post(notice)
        if self._notices.digest_due(now):
            try:
                made = await asyncio.to_thread(
                    made_since, self._store.path, self._notices.last_ban, self._notices.since
                )
            except sqlite3.Error as e:
                log.warning("the digest waits: the store cannot be read: %s", e)
                return
            if (digest := self._notices.digest(made, now)) is not None:
                self._post(digest)
            self._save()

    def status(self) -> dict[str, Any]:
        """sent, failed, dropped: notices, by receiver; waiting; failing: receivers that did not work last."""
        return {**self.counters, "waiting": self._queue.qsize(), "failing": sorted(self._failing)}

    def _hear(self, event: Event) -> None:
        if (notice := self._notices.hear(event, self._clock())) is not None:
            self._post(notice)

    def _post(self, notice: Notice) -> None:
        if self._queue.full():
            self._queue.get_nowait()
            self._queue.task_done()
            self.counters["dropped"] += 1
        self._queue.put_nowait(notice)
        self._save()

    def _save(self) -> None:
        with contextlib.suppress(StoreError):
            self._store.set_state(STATE, self._notices.export())

    async def _send_all(self) -> None:
        while True:
            notice = await self._queue.get()
            try:
                await self._send(notice)
            except Exception:
                self.counters["failed"] += 1
                log.exception("a notification could not be sent")
            finally:
                self._queue.task_done()

    async def _send(self, notice: Notice) -> None:
        for row in await send(self._settings, notice):
            receiver, failure = row["receiver"], row["failure"]
            self.counters["sent" if failure is None else "failed"] += 1
            if failure is not None and receiver not in self._failing:
                self._failing.add(receiver)
                self._report(Event(self._clock(), "notify", f"notifications do not reach {receiver}: {failure}"))
            elif failure is None and receiver in self._failing:
                self._failing.discard(receiver)
                self._report(Event(self._clock(), "notify", f"notifications reach {receiver} again"))
