"""A stub resolver for many short questions: asyncio, one flight per name, a cache, and an end to every wait.

Takes a name and a record type; gives Records, Missing or Failed (outcomes.py) and never raises for what the network
does.  Names and answers are encoded and parsed by dnspython.
Guarantees: an outcome within `timeout` seconds of monotonic time, whatever servers do; at most `limit` questions on
the way; the same question asked twice at a time goes out once; an unanswered question is repeated and also goes to
the next server, and the first good answer from any of them counts; a truncated answer is fetched over TCP.  Answers
are kept for their TTL within bounds: records 60 s to 1 day, absence 60 s to 1 h (RFC 2308: the lesser of the SOA's
TTL and minimum), failures 30 s.  Names, which may hold account keys, are in no log, reason or repr.
Does not: resolve by itself (the servers must be recursive or hold the data), validate DNSSEC, use EDNS, since
DNSBL answers are short.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.rdata import Rdata
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from nftban.verify.channel import Channel, Ticket
from nftban.verify.outcomes import Failed, Missing, Outcome, Records, RecordType
from nftban.verify.servers import Server, ServerMemory, parse_server, system_servers

FIRST_PATIENCE = 0.6
"""Seconds until a question is repeated; doubled after each round through all servers."""
SHORTEST_TTL = 60
LONGEST_RECORDS_TTL = 86400
LONGEST_MISSING_TTL = 3600
FAILED_TTL = 30
LONGEST_TEXT = 500

_Key = tuple[str, RecordType]


class Resolver:
    """servers: `ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT`, empty for those of resolv.conf (ValueError for anything
    else); timeout: seconds; limit: questions on the way at a time; cache_size: outcomes kept."""

    def __init__(
        self, servers: Sequence[str] = (), *, timeout: float = 3.0, limit: int = 100, cache_size: int = 20_000
    ) -> None:
        self.servers: tuple[Server, ...] = tuple(dict.fromkeys(map(parse_server, servers))) or system_servers()
        self.sent = 0
        self._timeout, self._cache_size = timeout, cache_size
        self._memory = ServerMemory(self.servers)
        self._channels: dict[Server, Channel] = {}
        self._slots = asyncio.Semaphore(limit)
        self._minor_slots = asyncio.Semaphore(max(1, limit // 2))
        self._flights: dict[_Key, asyncio.Task[Outcome]] = {}
        self._cache: dict[_Key, tuple[float, Outcome]] = {}

    async def lookup(self, name: str, rdtype: RecordType, *, fresh: bool = False, minor: bool = False) -> Outcome:
        """Ask, or answer from the cache unless `fresh`.  Cancelling the caller does not cancel the question.

        minor: this question shares half of the `limit` with its like.  Names that a suspect's own servers answer are
        such: by being slow these must not keep the questions to DNSBLs waiting.
        """
        key = (name.lower(), rdtype)
        if not fresh:
            known = self.cached(name, rdtype)
            if known is not None:
                return known
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._fly(key, minor), name="dns")
            self._flights[key] = flight
        return await asyncio.shield(flight)

    def cached(self, name: str, rdtype: RecordType) -> Outcome | None:
        """What is known without asking, its TTL counted down."""
        key = (name.lower(), rdtype)
        expires, outcome = self._cache.get(key, (0.0, None))
        if outcome is None:
            return None
        left = int(expires - asyncio.get_running_loop().time())
        if left <= 0:
            del self._cache[key]
            return None
        match outcome:
            case Records(values):
                return Records(values, left)
            case Missing(_, name_exists):
                return Missing(left, name_exists)
            case Failed(reason):
                return Failed(reason, left)

    def forget(self, zone: str) -> None:
        """Drop what is cached for names in this zone."""
        suffix = "." + zone.lower()
        for key in [key for key in self._cache if key[0].endswith(suffix)]:
            del self._cache[key]

    @property
    def strays(self) -> int:
        """Datagrams that answered nothing we had asked."""
        return sum(channel.strays for channel in self._channels.values())

    async def close(self) -> None:
        """Cancel what is on the way and close all sockets."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    async def __aenter__(self) -> Resolver:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _fly(self, key: _Key, minor: bool) -> Outcome:
        try:
            query = query_message(*key)
        except (dns.exception.DNSException, UnicodeError):
            outcome: Outcome = Failed("not a domain name", FAILED_TTL)
        else:
            question = _Question(self, query)
            try:
                own = self._minor_slots if minor else contextlib.nullcontext()
                async with asyncio.timeout(self._timeout), own, self._slots:
                    outcome = await question.asked()
            except TimeoutError:
                outcome = Failed(question.unanswered(self._timeout), FAILED_TTL)
            finally:
                question.close()
        finally:
            del self._flights[key]
        self._keep(key, outcome)
        return outcome

    def _keep(self, key: _Key, outcome: Outcome) -> None:
        self._cache.pop(key, None)
        while len(self._cache) >= self._cache_size:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = (asyncio.get_running_loop().time() + outcome.ttl, outcome)

    def _channel(self, server: Server) -> Channel:
        channel = self._channels.get(server)
        if channel is None:
            channel = self._channels[server] = Channel(server, asyncio.get_running_loop())
        return channel


class _Question:
    """One question on its way through the servers."""

    def __init__(self, resolver: Resolver, query: bytes) -> None:
        self._resolver, self._query = resolver, query
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[Server, bytes | None]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._tickets: dict[Server, Ticket] = {}
        self._failures: dict[Server, str] = {}

    async def asked(self) -> Outcome:
        """Until a server answers or all have refused; the caller limits the time."""
        order = self._resolver._memory.order(self._loop.time())
        sent = 0
        while len(self._failures) < len(order):
            server = order[sent % len(order)]
            patience = FIRST_PATIENCE * 2 ** (sent // len(order))
            sent += 1
            if server in self._failures:
                continue
            self._send(server)
            until = self._loop.time() + patience
            while not self._failures.get(server):
                if not await self._arrival(until):
                    self._resolver._memory.silent(server, self._loop.time())
                    break
                outcome = await self._read(*self._arrived.popleft())
                if outcome is not None:
                    return outcome
        return Failed(", ".join(self._failures.values()), FAILED_TTL)

    def unanswered(self, timeout: float) -> str:
        """Why there was no answer in time, in words."""
        silent = [str(server) for server in self._tickets if server not in self._failures]
        waited = [f"no answer from {', '.join(silent) or 'any server'} within {timeout:g} s"]
        return ", ".join([*self._failures.values(), *waited])

    def close(self) -> None:
        for ticket in self._tickets.values():
            ticket.cancel()

    def _send(self, server: Server) -> None:
        self._resolver.sent += 1
        ticket = self._tickets.get(server)
        if ticket is not None:
            ticket.again()
            return
        ticket = self._resolver._channel(server).ask(self._query, self._deliver)
        if ticket is None:
            self._deliver(server, None)
        else:
            self._tickets[server] = ticket

    def _deliver(self, server: Server, message: bytes | None) -> None:
        self._arrived.append((server, message))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _arrival(self, until: float) -> bool:
        """Wait for an answer; False where none came until then."""
        if not self._arrived:
            self._waiter = self._loop.create_future()
            timer = self._loop.call_at(until, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
        return bool(self._arrived)

    async def _read(self, server: Server, message: bytes | None) -> Outcome | None:
        """What a message came to; None where it is no answer and the server is out of the race."""
        memory = self._resolver._memory
        if message is None:
            memory.closed(server, self._loop.time())
            self._failures[server] = f"{server} cannot be reached"
            return None
        memory.answered(server)
        if message[2] & 0x02:  # TC
            try:
                message = await self._resolver._channel(server).ask_tcp(self._query)
            except (OSError, EOFError, ValueError):
                self._failures[server] = f"{server} gave only a truncated answer"
                return None
        outcome = parsed(message)
        if isinstance(outcome, Failed):
            self._failures[server] = f"{outcome.reason} from {server}"
            return None
        return outcome


def query_message(name: str, rdtype: RecordType) -> bytes:
    """A query in wire format with ID 0 and recursion desired; raises what dnspython raises for a name that is none.

    Put together by hand: dns.message.make_query(...).to_wire() costs as much as the rest of a look-up.
    """
    header = b"\0\0\1\0\0\1\0\0\0\0\0\0"
    labels = b"".join(bytes((len(label),)) + label for label in dns.name.from_text(name).labels)
    return header + labels + int(dns.rdatatype.from_text(rdtype)).to_bytes(2, "big") + b"\0\1"


def parsed(message: bytes) -> Outcome:
    """What a response in wire format says; Failed where it is none or says that the server does not know."""
    try:
        response = dns.message.from_wire(message)
        if not isinstance(response, dns.message.QueryMessage):
            return Failed("an answer that is none")
        rcode = response.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Failed(dns.rcode.to_text(rcode))
        chain = response.resolve_chaining()
    except (dns.exception.DNSException, ValueError, IndexError):
        return Failed("an answer that cannot be parsed")
    if chain.answer is not None:
        values = tuple(sorted(_text(rdata) for rdata in chain.answer))  # servers shuffle them; evidence should not
        return Records(values, max(SHORTEST_TTL, min(chain.minimum_ttl, LONGEST_RECORDS_TTL)))
    authority = {rrset.rdtype for rrset in response.authority}
    if dns.rdatatype.SOA in authority:
        ttl = max(SHORTEST_TTL, min(chain.minimum_ttl, LONGEST_MISSING_TTL))
    elif dns.rdatatype.NS in authority and rcode == dns.rcode.NOERROR:
        return Failed("a referral instead of an answer")  # asked a server that does not recurse
    else:
        ttl = SHORTEST_TTL
    return Missing(ttl, name_exists=rcode == dns.rcode.NOERROR)


def _text(rdata: Rdata) -> str:
    match rdata:
        case A() | AAAA():
            return str(rdata.address)
        case PTR():
            return str(rdata.target.to_text(omit_final_dot=True))
        case TXT():
            return b"".join(rdata.strings)[:LONGEST_TEXT].decode("ascii", "backslashreplace")
    return str(rdata.to_text())[:LONGEST_TEXT]
