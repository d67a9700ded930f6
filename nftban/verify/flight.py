"""One question on its way through the servers: what to send next, and when it is over.

Takes a query, what arrives from the servers, and the time; gives its outcome to `landed`, once.
Guarantees: an unanswered query is repeated after 0.6 s and also goes to the next server, the pause doubling after each
round through all of them; the first good answer from any of them counts; a server that refuses or fails is out of the
race, and when all are, or the time is over, that is the outcome, with every server's reason and never the name asked.
A truncated answer is fetched over TCP from the server that gave it.
Does not: wait or set timers: `due` says when `look` is to be called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from nftban.verify.cache import Key
from nftban.verify.channel import Channel, Ticket
from nftban.verify.messages import read_response
from nftban.verify.outcomes import Failed, Outcome
from nftban.verify.servers import Server, ServerMemory

FIRST_PATIENCE = 0.6
"""Seconds until a question is repeated; doubled after each round through all servers."""


class Ways:
    """To every server one channel; and what is remembered of each.  sent: queries that went out."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.memory = ServerMemory(servers)
        self.sent = 0
        self._channels: dict[Server, Channel] = {}

    def to(self, server: Server) -> Channel:
        channel = self._channels.get(server)
        if channel is None:
            channel = self._channels[server] = Channel(server, asyncio.get_running_loop())
        return channel

    @property
    def strays(self) -> int:
        return sum(channel.strays for channel in self._channels.values())

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()


class Flight:
    """deadline: loop time at which it ends in any case; share: whose part of the slots it takes."""

    __slots__ = (
        *("due", "key", "share", "under_way", "waiters"),
        *("_current", "_deadline", "_failures", "_landed", "_loop", "_order", "_query", "_rounds", "_started"),
        *("_tcp", "_tickets", "_ways"),
    )

    def __init__(
        self,
        key: Key,
        query: bytes,
        share: str,
        ways: Ways,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        landed: Callable[[Flight, Outcome], None],
    ) -> None:
        self.key, self.share = key, share
        self.waiters: list[asyncio.Future[Outcome]] = []
        self.under_way = False
        self._started = loop.time()
        self.due = self._deadline = self._started + timeout
        self._query, self._ways, self._loop, self._landed = query, ways, loop, landed
        self._order: tuple[Server, ...] = ()
        self._rounds = 0
        self._current: Server | None = None
        self._failures: dict[Server, str] = {}
        self._tickets: dict[Server, Ticket] = {}
        self._tcp: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The first query goes out."""
        self.under_way = True
        now = self._loop.time()
        self._order = self._ways.memory.order(now)
        self._next(now)

    def look(self, now: float) -> None:
        """It is `due`: the next query goes out, or the time is over."""
        if now >= self._deadline:
            silent = [str(server) for server in self._tickets if server not in self._failures]
            waited = f"no answer from {', '.join(silent) or 'any server'} within {self._deadline - self._started:g} s"
            self._landed(self, Failed(", ".join([*self._failures.values(), waited])))
            return
        if self._current is not None:
            self._ways.memory.silent(self._current, now)
        self._next(now)

    def close(self) -> None:
        """Nothing of it stays on the way."""
        for ticket in self._tickets.values():
            ticket.cancel()
        self._tickets.clear()  # they know us: as a circle they would wait for the garbage collector
        if self._tcp is not None:
            self._tcp.cancel()

    def _next(self, now: float) -> None:
        """To the next server that is still in the race."""
        order, failures = self._order, self._failures
        while True:
            turn, at = divmod(self._rounds, len(order))
            server = order[at]
            self._rounds += 1
            if not failures or server not in failures:
                break
        self._current = server
        self.due = min(now + FIRST_PATIENCE * (1 << turn), self._deadline)
        self._ways.sent += 1
        if self._tickets and server in self._tickets:
            self._tickets[server].again()
            return
        ticket = self._ways.to(server).ask(self._query, self._arrived)
        if ticket is None:
            self._loop.call_soon(self._arrived, server, None)
        else:
            self._tickets[server] = ticket

    def _arrived(self, server: Server, message: bytes | None) -> None:
        """From the channel: an answer, or that there is no way to the server."""
        if not self.under_way or (self._failures and server in self._failures):
            return
        if message is None:
            self._ways.memory.closed(server, self._loop.time())
            self._failed(server, f"{server} cannot be reached")
            return
        self._ways.memory.answered(server)
        if not message[2] & 0x02:  # TC
            self._read(server, message)
        elif self._tcp is None:
            self._tcp = self._loop.create_task(self._fetch(server), name="dns tcp")

    async def _fetch(self, server: Server) -> None:
        try:
            message = await self._ways.to(server).ask_tcp(self._query)
        except (OSError, EOFError, ValueError):
            message = b""
        self._tcp = None
        if not self.under_way:
            return
        if message:
            self._read(server, message)
        else:
            self._failed(server, f"{server} gave only a truncated answer")

    def _read(self, server: Server, message: bytes) -> None:
        outcome = read_response(message, self._query)
        if isinstance(outcome, Failed):
            self._failed(server, f"{outcome.reason} from {server}")
        else:
            self._landed(self, outcome)

    def _failed(self, server: Server, why: str) -> None:
        self._failures[server] = why
        if len(self._failures) == len(self._order):
            self._landed(self, Failed(", ".join(self._failures.values())))
        elif server == self._current:
            self._next(self._loop.time())
