"""The feeds of a running daemon: fetched when they are due, enforced, asked about offenders.

Takes the feeds in use, their Sync and what must stay reachable; gives Listings for the judgement, A records for zones
whose data are here, rows for `status`, and events where a list was refused, could not be had, or is let go.
Guarantees: what a restart needs is read from the copies before the first log line; lists are read and fetched in
threads, one at a time, and when the daemon stops nobody waits for a slow server; a list that is refused changes
nothing.  What must stay reachable is cut out anew whenever it changes.
Does not: judge lists (feeds/guards.py), write to the kernel itself (enforced.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from nftban.config.load import Loaded
from nftban.daemon.bans import Bans
from nftban.daemon.enforced import Enforced
from nftban.daemon.feeds import FeedInUse, chosen, feed_row, feed_sync, outcome_row
from nftban.daemon.lockout import Lockout
from nftban.errors import TryAgainError
from nftban.feeds.lookup import feeds_with, records
from nftban.feeds.sync import Outcome, Result, Sync
from nftban.kernel import Kernel
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Answer, Event, Listing

log = logging.getLogger(__name__)

T = TypeVar("T")

HOLDS = 300
"""Seconds for which what a list says of an address may be used."""

LISTED = "127.0.0.2"
"""What a zone answers whose data have no codes (RFC 5782 2.1)."""


def subscribed(
    loaded: Loaded,
    uses: Collection[FeedInUse],
    lockout: Lockout,
    bans: Bans,
    kernel: Kernel,
    reader: NetlinkKernel | None,
    report: Callable[[Event], None],
    clock: Callable[[], float],
) -> Subscriptions:
    """The feeds in use of these settings; reader: as `Enforced` wants it."""
    sync = feed_sync(loaded, [use.feed for use in uses])

    async def protected() -> PrefixSet:
        return (await lockout.current()).allow

    return Subscriptions(uses, sync, Enforced(uses, bans, kernel, reader, clock), protected, report, clock)


class Stopped(TryAgainError):
    """The daemon ends, or another takes its place: so does the transfer under way, without a word about the feed."""

    def __init__(self) -> None:
        super().__init__("the daemon ends or reads its settings anew", "try again in a moment")


class Subscriptions:
    """protected: what must stay reachable at this moment; report: takes events; clock: epoch seconds."""

    def __init__(
        self,
        uses: Collection[FeedInUse],
        sync: Sync,
        enforced: Enforced,
        protected: Callable[[], Awaitable[PrefixSet]],
        report: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._uses = {use.feed.name: use for use in uses}
        self._zones = {use.feed.zone: use.feed.name for use in uses if use.feed.zone}
        self._sync, self._enforced, self._protected = sync, enforced, protected
        self._report, self._clock = report, clock
        self._until: dict[str, float] = {}
        self._allow: PrefixSet | None = None
        self._said: dict[str, str] = {}
        self._one = asyncio.Lock()
        # After an attempt of which nothing could be written down, not even when the next is due.
        self._not_before: dict[str, float] = {}
        self._started = self._restored = self._stopped = False
        self._waiting: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Reads the copies; from now on lists are evidence.  The kernel follows with the first `run`."""
        await self._restore()
        self._started = True

    async def _restore(self) -> None:
        try:
            outcomes = await self._apart(lambda: self._sync.restore(self._clock()))
        except OSError as e:
            # A folder that cannot be written is no reason not to start; `run` tries again.
            for name in self._sync.feeds:
                self._tell(Outcome(name, Result.FAILED, f"{e.filename}: {e.strerror}"), "its copy is not used")
            return
        for outcome in outcomes:
            self._tell(outcome, "its copy is not used")
        self._until = await self._apart(self._ends)
        self._restored = True

    def abandon(self) -> None:
        """Whoever waits for a list gets Stopped."""
        self._stopped = True
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_exception(Stopped())

    async def stop(self) -> None:
        """After this nothing is written to the kernel any more."""
        self.abandon()
        await self._enforced.close()

    async def run(self) -> None:
        """The job: fetches what is due, lets go what nobody confirmed, and makes the kernel follow."""
        with suppress(Stopped):
            if not self._restored:
                await self._restore()
            await self.enforce()
            now = self._clock()
            names = await self._apart(lambda: self._sync.due(now))
            await self._attempt([name for name in names if self._not_before.get(name, 0.0) <= now], accept=False)

    async def sync(self, names: Collection[str] | None, accept: bool) -> list[dict[str, Any]]:
        """Fetches these feeds, or those that are due, now; a row for each.  Raises UsageError, OSError."""
        if names is None:
            wanted = await self._apart(lambda: self._sync.due(self._clock()))
        else:
            wanted = chosen(self._sync, names, names)
        return [outcome_row(outcome) for outcome in await self._attempt(wanted, accept)]

    async def follow(self, allow: PrefixSet) -> None:
        """What must stay reachable, as of now."""
        if self._started and allow != self._allow:
            await self._enforce(allow)

    async def enforce(self) -> None:
        """Makes the kernel hold what the lists say now, but for who is logged in at this moment and the like."""
        await self._enforce(await self._protected())

    async def _enforce(self, allow: PrefixSet) -> None:
        self._allow = allow
        for name in self._sync.expire(self._clock()):
            text = f"feed {name}: nobody has confirmed its list for too long, and it is let go"
            self._report(Event(self._clock(), "feed", text))
        for r in await self._enforced.hold(dict(self._sync.ranges), self._until, allow):
            text = f"the kernel refused an element of {r.element.set}: {r.reason}"
            self._report(Event(self._clock(), "ban-failed", text))

    def rows(self) -> list[dict[str, Any]]:
        """The feeds in use, for `status`."""
        now = self._clock()
        return [feed_row(use.feed, use, self._sync, now) for use in self._uses.values()]

    def listings(self, prefix: Prefix, now: float) -> tuple[Listing, ...]:
        """Each feed with points that holds the whole prefix."""
        return tuple(e for e in self._said_of(prefix, now) if e.answer is Answer.LISTED)

    def again(self, names: Collection[str], prefix: Prefix, now: float) -> tuple[Listing, ...]:
        """What those of these (the names that listings have) say now, also where it is that it is not listed."""
        return tuple(e for e in self._said_of(prefix, now) if e.zone in names)

    def _said_of(self, prefix: Prefix, now: float) -> Iterator[Listing]:
        for name, use in self._uses.items():
            if not use.points:
                continue
            zone, held = f"feed {name}", self._sync.ranges.get(name)
            if held is None:
                yield Listing(zone, Answer.UNKNOWN, reason="there is no good copy of it", asked=now)
            elif held.contains(prefix):
                about = use.feed.about[:200]
                yield Listing(zone, Answer.LISTED, points=use.points, reason=about, asked=now, ttl=HOLDS)
            else:
                yield Listing(zone, Answer.CLEAR, asked=now, ttl=HOLDS)

    def holding(self, prefix: Prefix) -> list[str]:
        """The feeds that hold the whole prefix, whatever they are used for."""
        lists = {name: held for name, held in self._sync.ranges.items() if not self._uses[name].feed.clean}
        return list(feeds_with(lists, [prefix])[0])

    def answer(self, zone: str, prefix: Prefix) -> tuple[str, ...] | None:
        """The A records of a DNSBL whose data are here, none where the address is not listed; None: they are not."""
        name = self._zones.get(zone)
        ranges = self._sync.ranges.get(name) if name else None
        if name is None or ranges is None:
            return None
        codes = self._sync.codes.get(name)
        return records(codes or {LISTED: ranges}, prefix)

    async def _attempt(self, names: Collection[str], accept: bool) -> list[Outcome]:
        outcomes = []
        for name in names:
            async with self._one:
                try:
                    outcome = await self._apart(
                        lambda name=name: self._sync.attempt(  # type: ignore[misc]  # mypy knows no default of a lambda
                            name, self._clock(), accept=accept, progress=self._go_on
                        )
                    )
                except OSError as e:
                    outcome = Outcome(name, Result.FAILED, f"its copy cannot be written: {e.strerror or e}")
                    self._not_before[name] = self._clock() + self._sync.feeds[name].interval
                self._until = await self._apart(self._ends)
            self._tell(outcome, "the last good list stays")
            outcomes.append(outcome)
            if outcome.result in (Result.UPDATED, Result.UNCHANGED):
                await self.enforce()
        return outcomes

    def _ends(self) -> dict[str, float]:
        return {name: self._sync.until(name) for name in self._sync.feeds}

    def _tell(self, outcome: Outcome, so: str) -> None:
        """An event where there is something new to say, not at every attempt."""
        name, before = outcome.name, self._said.get(outcome.name, "")
        self._said[name] = why = outcome.why
        if why and why != before:
            self._report(Event(self._clock(), "feed", f"feed {name} {outcome.result}: {why}; {so}"))
        elif before and not why:
            self._report(Event(self._clock(), "feed", f"feed {name} is well again: {outcome.count:,} entries"))
        if outcome.result is Result.UPDATED:
            log.info("feed %s: %d entries, before %d", name, outcome.count, outcome.before)

    def _go_on(self, *_: object) -> None:
        if self._stopped:
            raise Stopped

    async def _apart(self, work: Callable[[], T]) -> T:
        """Its result, from a thread for which nobody waits when the process ends: a server may take minutes."""
        if self._stopped:
            raise Stopped
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.add(done)
        done.add_done_callback(self._waiting.discard)

        def settle(result: T | None, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # without an error there is one

        def run() -> None:
            try:
                outcome: tuple[T | None, BaseException | None] = (work(), None)
            except BaseException as e:  # noqa: BLE001 - it is raised where the result is awaited
                outcome = (None, e)
            try:
                loop.call_soon_threadsafe(settle, *outcome)
            except RuntimeError:
                log.debug("a feed was done with after the daemon's end")

        threading.Thread(target=run, name="feeds", daemon=True).start()
        return await done
