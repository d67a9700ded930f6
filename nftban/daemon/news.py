"""What happens, for whoever watches: events from the store, waited for.

Takes the store; gives the events behind a number, at once where there are any, else as soon as there is one or the wait
is over.
Guarantees: numbers go on over restarts, so that who asks with the last one it saw misses nothing and sees nothing
twice, however slow it is; nothing is held for anybody.  At most WATCHERS wait at a time, WAIT seconds each: the control
socket has few places.  `release` ends every wait, for a daemon that is to stop.
Does not: know what an event means.
"""

from __future__ import annotations

import asyncio
import contextlib

from nftban.daemon.answers import ban_row
from nftban.daemon.arguments import whole_number
from nftban.daemon.house import Json
from nftban.errors import TryAgainError, UsageError
from nftban.records import Event
from nftban.store import history
from nftban.store.sqlite import Store

WAIT = 10.0
"""The longest wait in seconds.  Who goes away while it waits is noticed only then."""

WATCHERS = 16

MOST = 500
"""Events in one answer."""

MADE = ("ban", "extended")
"""Kinds of events that are about a ban that was made then."""


class News:
    """Of one store, for as long as it is open."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: set[asyncio.Future[None]] = set()
        self._released = False
        store.listeners.append(lambda _: self._wake())

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def release(self) -> None:
        """Nobody waits any more, now or later."""
        self._released = True
        self._wake()

    async def events(self, after: object, wait: object, limit: object) -> Json:
        """after: the last number seen, None for those from now on; wait: seconds; limit: the most events.

        A number that is not there yet (another store) counts as the newest there is.
        """
        seconds, most = _wait(wait), whole_number(limit, "limit", 1, MOST)
        newest = history.last_event(self._store)
        number = newest if after is None else min(whole_number(after, "after", 0, 1 << 62), newest)
        found = history.events_after(self._store, number, most)
        if not found and seconds and not self._released:
            await self._wait(seconds)
            found = history.events_after(self._store, number, most)
        return {"events": [self._row(n, event) for n, event in found], "last": found[-1][0] if found else number}

    async def _wait(self, seconds: float) -> None:
        if len(self._waiting) >= WATCHERS:
            raise TryAgainError(f"{WATCHERS} others watch already", "end one of them, or ask without waiting")
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiting, seconds)
        finally:
            self._waiting.discard(waiting)

    def _row(self, number: int, event: Event) -> Json:
        ban = None
        if event.kind in MADE and event.prefix is not None:
            made = history.ban_made(self._store, event.prefix, event.time)
            ban = None if made is None else ban_row(made)
        return {
            "id": number,
            "time": event.time,
            "kind": event.kind,
            "text": event.text,
            "prefix": None if event.prefix is None else str(event.prefix),
            "ban": ban,
        }


def _wait(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise UsageError(f"wait: {value!r:.80} is not a duration", f"give seconds, 0 to 3600; it ends after {WAIT:g}")
    return min(float(value), WAIT)
