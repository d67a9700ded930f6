"""A stub resolver for many short questions: asyncio, one flight per name, a cache, and an end to every wait.

Takes a name and a record type; gives Records, Missing or Failed (outcomes.py) and never raises for what the network
does.  What happens to one question is in flight.py, to its bytes in messages.py, to what came back in cache.py.
Guarantees: an outcome within `timeout` seconds of monotonic time, whatever servers do; at most `limit` questions on
the way; the same question asked twice at a time goes out once; nobody's slow servers take all of the `limit`.  Answers
are kept for their TTL within bounds, failures 30 s, also over a restart where a file is named.  Names, which may hold
account keys, are in no log, reason, repr or file.
No task or timer belongs to a question: one timer looks after all of them, and what has arrived is read in one go.
Does not: resolve by itself (the servers must be recursive or hold the data), validate DNSSEC.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import dns.exception

from nftban.verify import cache
from nftban.verify.cache import Cache, Key
from nftban.verify.flight import Flight, Ways
from nftban.verify.messages import query_message
from nftban.verify.outcomes import Failed, Outcome, RecordType
from nftban.verify.servers import Server, parse_server, system_servers

COARSE = 0.01
"""Seconds between two looks at the questions on the way, at least."""
SAVE_EVERY = 300.0
"""Seconds after which the cache's file is written again; killed, we forget what came since."""

_MINOR = "minor"


class _Share:
    """Questions that share a part of the slots.  most: how many of them may be on the way."""

    __slots__ = ("most", "under_way", "waiting")

    def __init__(self, most: int) -> None:
        self.most, self.under_way = most, 0
        self.waiting: deque[Flight] = deque()


class Resolver:
    """servers: `ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT`, empty for those of resolv.conf (ValueError for anything
    else); timeout: seconds; limit: questions on the way at a time; cache_size: outcomes kept; cache_file: where they
    outlast a restart; hidden: zones' names with an account key, and as they may be written into that file.

    failures: questions that got no answer, or one that is none."""

    def __init__(
        self,
        servers: Sequence[str] = (),
        *,
        timeout: float = 3.0,
        limit: int = 100,
        cache_size: int = 20_000,
        cache_file: Path | None = None,
        hidden: Mapping[str, str] | None = None,
    ) -> None:
        self.servers: tuple[Server, ...] = tuple(dict.fromkeys(map(parse_server, servers))) or system_servers()
        self._timeout, self._limit = timeout, limit
        self._ways = Ways(self.servers)
        self._flights: dict[Key, Flight] = {}
        self._under_way = 0
        self.failures = 0
        self._shares = {"": _Share(limit)}
        self._alarm: asyncio.TimerHandle | None = None
        self._cache = Cache(cache_size)
        self._cache_file, self._hidden = cache_file, dict(hidden or {})
        self._unread = cache_file is not None
        self._saving: asyncio.TimerHandle | None = None
        self._closed = False

    async def lookup(
        self, name: str, rdtype: RecordType, *, fresh: bool = False, minor: bool = False, zone: str = ""
    ) -> Outcome:
        """Ask, or answer from the cache unless `fresh`.  Cancelling the caller does not cancel the question.

        minor: this question shares half of the `limit` with its like.  Names that a suspect's own servers answer are
        such: by being slow these must not keep the questions to DNSBLs waiting.  zone: likewise for the questions to
        one DNSBL, whose dead servers must not keep the other DNSBLs waiting.
        """
        loop = asyncio.get_running_loop()
        key: Key = (name.lower(), rdtype)
        if not fresh and (known := self.cached(name, rdtype)) is not None:
            return known
        flight = self._flights.get(key)
        if flight is None:
            if self._closed:
                return Failed("the resolver was closed")
            try:
                query = query_message(*key)
            except (dns.exception.DNSException, UnicodeError):
                return Failed("not a domain name")
            share = _MINOR if minor else zone
            flight = Flight(key, query, share, self._ways, loop, self._timeout, self._landed)
            self._flights[key] = flight
            self._launch(flight)
        waiter: asyncio.Future[Outcome] = loop.create_future()
        flight.waiters.append(waiter)
        return await waiter

    def cached(self, name: str, rdtype: RecordType) -> Outcome | None:
        """What is known without asking, its TTL counted down."""
        now = asyncio.get_running_loop().time()
        if self._unread:
            self._load(now)
        return self._cache.get((name.lower(), rdtype), now)

    def forget(self, zone: str) -> None:
        """Drop what is cached for names in this zone."""
        if self._unread:
            self._load(asyncio.get_running_loop().time())
        self._cache.forget(zone)

    @property
    def sent(self) -> int:
        """Queries that went out, repeated ones included."""
        return self._ways.sent

    @property
    def strays(self) -> int:
        """Datagrams that answered nothing we had asked."""
        return self._ways.strays

    async def close(self) -> None:
        """End what is on the way, keep what is known, and close all sockets."""
        self._closed = True
        for share in self._shares.values():
            share.waiting.clear()
        for flight in list(self._flights.values()):
            self._landed(flight, Failed("the resolver was closed"))
        for timer in (self._alarm, self._saving):
            if timer is not None:
                timer.cancel()
        self._ways.close()
        if self._cache_file is not None and not self._unread:
            cache.write(self._cache_file, map(str, self.servers), self._rows())

    async def __aenter__(self) -> Resolver:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Who may go, and when to look after those who did

    def _launch(self, flight: Flight) -> None:
        share = self._shares.get(flight.share)
        if share is None:
            share = self._shares[flight.share] = _Share(max(1, self._limit // 2))
        if self._under_way < self._limit and share.under_way < share.most:
            self._begin(flight, share)
        else:
            share.waiting.append(flight)
            self._look_at(flight.due)

    def _begin(self, flight: Flight, share: _Share) -> None:
        self._under_way += 1
        share.under_way += 1
        flight.begin()
        self._look_at(flight.due)

    def _landed(self, flight: Flight, outcome: Outcome) -> None:
        """From the flight: it is over."""
        self.failures += isinstance(outcome, Failed) and not self._closed
        del self._flights[flight.key]
        if not self._closed:
            self._cache.put(flight.key, outcome, asyncio.get_running_loop().time())
        share = self._shares[flight.share]
        if flight.under_way:
            flight.under_way = False
            flight.close()
            self._under_way -= 1
            share.under_way -= 1
        elif not self._closed:
            share.waiting.remove(flight)
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(outcome)
        if len(self._flights) > self._under_way:
            self._launch_waiting()

    def _launch_waiting(self) -> None:
        """Fills the free slots, the shares taking turns; who has no time left for an answer is not sent any more."""
        worthwhile = asyncio.get_running_loop().time() + COARSE
        while self._under_way < self._limit:
            for name, share in self._shares.items():
                if share.waiting and share.under_way < share.most and share.waiting[0].due > worthwhile:
                    self._shares[name] = self._shares.pop(name)  # next time the others first
                    self._begin(share.waiting.popleft(), share)
                    break
            else:
                return

    def _look_at(self, due: float) -> None:
        """Sees to it that the questions are looked at by then."""
        if self._alarm is not None:
            if self._alarm.when() <= due + COARSE:
                return
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        self._alarm = None
        now = asyncio.get_running_loop().time()
        due = [f for f in self._flights.values() if f.due <= now]
        for flight in sorted(due, key=lambda f: f.under_way):  # those that wait in vain first: they take no slot
            if flight.due <= now and self._flights.get(flight.key) is flight:
                flight.look(now)
        if self._flights:
            self._look_at(max(now + COARSE, min(f.due for f in self._flights.values())))

    # What outlasts a restart

    def _load(self, now: float) -> None:
        self._unread = False
        if self._cache_file is not None:
            rows = cache.read(self._cache_file, map(str, self.servers))
            self._cache.take(rows, now, time.time(), self._hidden)
            self._save_later()

    def _save_later(self) -> None:
        self._saving = asyncio.get_running_loop().call_later(SAVE_EVERY, self._save)

    def _save(self) -> None:
        if self._cache_file is not None:
            # In a thread: a disk may be slow.
            written = (self._cache_file, [str(s) for s in self.servers], self._rows())
            asyncio.get_running_loop().run_in_executor(None, cache.write, *written)
        self._save_later()

    def _rows(self) -> list[cache.Row]:
        return self._cache.rows(asyncio.get_running_loop().time(), time.time(), self._hidden)
