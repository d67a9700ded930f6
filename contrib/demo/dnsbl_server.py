"""A small real DNS server with DNSBL zones and reverse names, for the demonstration and the tests.

Takes DNSBL zones as {zone: {address or prefix: codes}} and names with their records; answers over UDP and TCP on one
port like a recursive resolver that knows nothing else: A and TXT for listed addresses (RFC 5782, with the test entries
127.0.0.2 and ::ffff:127.0.0.2), PTR, A and AAAA for names, NXDOMAIN or NODATA with an SOA record for the rest.  The
data may change while it runs.  Per zone or domain it can be told to misbehave (`Mode`).
Guarantees: every query is in `log` before its answer goes out.  Does not: recurse, cache, speak EDNS.

As a program: `python -m demo.dnsbl_server --listen 127.0.0.1:5353 FILE`, FILE being JSON
{"zones": {"zen.spamhaus.org": {"192.0.2.7": ["127.0.0.4"]}}, "reverse": {"192.0.2.7": "mail.example.com"}};
SIGHUP reads it again, SIGTERM ends it; loading and every query are lines on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
UDP_LIMIT = 512
TEST_ENTRIES = {"127.0.0.2": ["127.0.0.2"], "::ffff:127.0.0.2": ["127.0.0.2"]}


class Mode(StrEnum):
    """How to answer for a zone or domain."""

    ANSWER = "answer"
    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    DROP = "drop"
    TRUNCATE = "truncate"  # UDP answers are empty with TC set; TCP answers are complete
    WRONG_ID = "wrong id"
    WRONG_QUESTION = "wrong question"
    GARBAGE = "garbage"  # right ID and question, then noise
    REFERRAL = "referral"
    LIST_WORLD = "list the world"  # 127.0.0.2 for every address
    PARKED = "parked"  # a web server's address for every name


@dataclass(frozen=True)
class Query:
    """One query as it came in: the name in small letters without the final dot."""

    name: str
    type: str
    protocol: str


@dataclass
class Behaviour:
    mode: Mode = Mode.ANSWER
    delay: float = 0.0


@dataclass
class ListZone:
    """One DNSBL zone: what it lists, and the TTLs (seconds) of its answers."""

    listed: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, tuple[tuple[str, ...], str]] = field(
        default_factory=dict
    )
    ttl: int = 300
    negative_ttl: int = 300

    def add(self, address: str, codes: Iterable[str], text: str = "") -> None:
        network = ipaddress.ip_network(address)
        self.listed[network] = (tuple(codes), text or f"{network.network_address} is listed here")

    def remove(self, address: str) -> None:
        del self.listed[ipaddress.ip_network(address)]

    def find(self, address: Address) -> tuple[tuple[str, ...], str] | None:
        return next((entry for network, entry in self.listed.items() if address in network), None)


class DnsblServer:
    """Use as `async with DnsblServer(zones) as server`; `server.address` is ADDRESS:PORT."""

    def __init__(
        self, zones: Mapping[str, Mapping[str, Iterable[str]]] | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.host, self.port = host, port
        self.zones: dict[str, ListZone] = {}
        self.records: dict[tuple[str, str], tuple[str, ...]] = {}
        self.log: list[Query] = []
        self._behaviours: dict[str, Behaviour] = {}
        self._queried = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        for zone, entries in (zones or {}).items():
            self.add_zone(zone, entries)

    # what it knows

    def add_zone(self, zone: str, entries: Mapping[str, Iterable[str]] = {}) -> ListZone:
        """A DNSBL zone with the RFC 5782 test entries and these; replaces one of that name."""
        made = self.zones[zone.lower()] = ListZone()
        for address, codes in {**TEST_ENTRIES, **entries}.items():
            made.add(address, codes)
        return made

    def add_name(self, name: str, rdtype: str, *values: str) -> None:
        """The records of this type that a name has; without values it has none."""
        self.records[name.lower(), rdtype] = values

    def add_reverse(self, address: str, name: str, *, forward: bool = True) -> None:
        """PTR for the address, and with `forward` the name's A or AAAA record back to it."""
        pointer = ipaddress.ip_address(address)
        self.add_name(pointer.reverse_pointer, "PTR", name)
        if forward:
            self.add_name(name, "A" if pointer.version == 4 else "AAAA", address)

    def behave(self, domain: str, mode: Mode = Mode.ANSWER, delay: float = 0.0) -> None:
        """From now on answer for this zone or domain (the longest that fits counts) like this, `delay` s late."""
        self._behaviours[domain.lower()] = Behaviour(mode, delay)

    def count(self, domain: str = "", rdtype: str = "", protocol: str = "") -> int:
        """How many queries came in for names in this domain, of this type, over this protocol."""
        return sum(
            _inside(q.name, domain) and rdtype in ("", q.type) and protocol in ("", q.protocol) for q in self.log
        )

    async def wait_for(self, queries: int, domain: str = "") -> None:
        """Until that many queries for the domain are in."""
        while self.count(domain) < queries:
            self._queried.clear()
            await self._queried.wait()

    # the server

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Bind UDP and TCP on the same port; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        while True:
            self._tcp = await asyncio.start_server(self._serve_tcp, self.host, self.port)
            port = self._tcp.sockets[0].getsockname()[1]
            udp = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            try:
                udp.bind((self.host, port))
            except OSError:
                udp.close()
                self._tcp.close()
                if self.port:
                    raise
                continue  # another program has this UDP port: take another pair
            self.port = port
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
            return

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._udp:
            self._udp.close()
        if self._tcp:
            self._tcp.close()
            await self._tcp.wait_closed()

    async def __aenter__(self) -> DnsblServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def datagram(self, wire: bytes, source: tuple[str, int]) -> None:
        """Answer one UDP query, now or when its delay is over."""
        heard = self._hear(wire, "udp")
        if heard is None:
            return
        query, behaviour = heard

        def send() -> None:
            for answer in self._answers(query, behaviour.mode, UDP_LIMIT):
                if self._udp and not self._udp.is_closing():
                    self._udp.sendto(answer, source)

        if behaviour.delay:
            asyncio.get_running_loop().call_later(behaviour.delay, send)
        else:
            send()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                heard = self._hear(await reader.readexactly(length), "tcp")
                if heard is None:
                    break
                query, behaviour = heard
                await asyncio.sleep(behaviour.delay)
                for answer in self._answers(query, behaviour.mode, 65535):
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        writer.close()

    def _hear(self, wire: bytes, protocol: str) -> tuple[dns.message.Message, Behaviour] | None:
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError, ValueError):
            return None
        name = question.name.to_text(omit_final_dot=True).lower()
        self.log.append(Query(name, dns.rdatatype.to_text(question.rdtype), protocol))
        self._queried.set()
        fitting = [domain for domain in self._behaviours if _inside(name, domain)]
        return query, self._behaviours[max(fitting, key=len)] if fitting else Behaviour()

    def _answers(self, query: dns.message.Message, mode: Mode, limit: int) -> Iterable[bytes]:
        """The datagrams or TCP messages that answer this query."""
        question = query.question[0]
        response = dns.message.make_response(query, recursion_available=True)
        if mode is Mode.DROP:
            return []
        if mode in (Mode.SERVFAIL, Mode.REFUSED):
            response.set_rcode(dns.rcode.from_text(mode.value))
            return [response.to_wire()]
        if mode is Mode.GARBAGE:
            return [response.to_wire()[:6] + b"\xff\xff" * 3 + response.to_wire()[12:] + os.urandom(40)]
        if mode is Mode.TRUNCATE and limit == UDP_LIMIT:
            response.flags |= dns.flags.TC
            return [response.to_wire()]
        if mode is Mode.REFERRAL:
            response.authority.append(dns.rrset.from_text(question.name.parent(), 300, "IN", "NS", "ns.example.net."))
            return [response.to_wire()]
        name = question.name.to_text(omit_final_dot=True).lower()
        self._fill(response, name, dns.rdatatype.to_text(question.rdtype), mode)
        if mode is Mode.WRONG_ID:
            response.id = query.id ^ 0x5555
        if mode is Mode.WRONG_QUESTION:
            other = dns.name.from_text("another." + ".".join(name.split(".")[1:]))
            response.question = [dns.rrset.RRset(other, question.rdclass, question.rdtype)]
        try:
            return [response.to_wire(max_size=limit)]
        except dns.exception.TooBig:
            short = dns.message.make_response(query, recursion_available=True)
            short.flags |= dns.flags.TC
            return [short.to_wire()]

    def _fill(self, response: dns.message.Message, name: str, rdtype: str, mode: Mode) -> None:
        """Answer section and rcode from what is known."""
        zone_name = max((zone for zone in self.zones if _inside(name, zone)), key=len, default="")
        zone = self.zones.get(zone_name, ListZone())
        known = {kind: values for (own, kind), values in self.records.items() if own == name}
        address = _address(name.removesuffix("." + zone_name)) if zone_name else None
        if address is not None:
            entry = (("127.0.0.2",), "the world") if mode is Mode.LIST_WORLD else zone.find(address)
            if entry:
                known = {"A": entry[0], "TXT": (json.dumps(entry[1]),)}
        if mode is Mode.PARKED:
            known = {"A": ("198.51.100.80",)}
        values = known.get(rdtype, ())
        if values:
            texts = [v + "." if rdtype in ("PTR", "CNAME") else v for v in values]
            response.answer.append(dns.rrset.from_text(name + ".", zone.ttl, "IN", rdtype, *texts))
            return
        if not known and name != zone_name:
            response.set_rcode(dns.rcode.NXDOMAIN)
        soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {zone.negative_ttl}"
        response.authority.append(dns.rrset.from_text(zone_name + ".", zone.negative_ttl, "IN", "SOA", soa))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsblServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)


def _inside(name: str, domain: str) -> bool:
    return not domain or name == domain.lower() or name.endswith("." + domain.lower())


def _address(reversed_labels: str) -> Address | None:
    """`7.2.0.192` or 32 nibbles, in reverse order."""
    labels = reversed_labels.split(".")[::-1]
    with suppress(ValueError):
        if len(labels) == 4:
            return ipaddress.IPv4Address(".".join(labels))
        if len(labels) == 32:
            return ipaddress.IPv6Address(int("".join(labels), 16))
    return None


def load(server: DnsblServer, path: Path) -> None:
    """Replace what the server knows by the file's data; on a file that is no good it keeps what it has."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        print(f"not loaded: {e}", flush=True)
        return
    server.zones.clear()
    server.records.clear()
    for zone, entries in data.get("zones", {}).items():
        server.add_zone(zone, entries)
    for address, name in data.get("reverse", {}).items():
        server.add_reverse(address, name)
    print(f"loaded {path}", flush=True)


async def run(host: str, port: int, path: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = DnsblServer(host=host, port=port)
    load(server, path)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, load, server, path)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server:
        print(f"listening on {server.address}", flush=True)
        shown = 0
        ended = asyncio.ensure_future(stop.wait())
        while not ended.done():
            more = asyncio.ensure_future(server.wait_for(shown + 1))
            await asyncio.wait((ended, more), return_when=asyncio.FIRST_COMPLETED)
            more.cancel()
            for query in server.log[shown:]:
                print(query.type, query.name, flush=True)
            shown = len(server.log)


def main() -> None:
    parser = argparse.ArgumentParser(description="a small DNSBL server")
    parser.add_argument("--listen", default="127.0.0.1:5353", help="ADDRESS:PORT, UDP and TCP")
    parser.add_argument("file", type=Path, help="JSON: zones and reverse names")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    asyncio.run(run(host.strip("[]"), int(port), arguments.file))


if __name__ == "__main__":
    main()
