"""Which DNS servers to ask, and which of them to leave alone for a while.

Takes servers as `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`, or the `nameserver` lines of
resolv.conf(5); gives `Server`s, the name of the public resolver behind an address, whom systemd-resolved asks, and the
order to ask in.
Guarantees: a server that stayed silent three times in a row, or on whose port nobody listens, is asked last for 30
seconds, doubling to 5 minutes; when that is over one query tries it, the others do not wait for it.  A silent zone
does not make its resolver look dead while the same resolver answers for others.
Does not: open sockets or read clocks; `now` is the event loop's monotonic time.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SILENCES = 3
FIRST_REST = 30.0
LONGEST_REST = 300.0

_PUBLIC = {
    "Google Public DNS": """
        8.8.8.8 8.8.4.4 2001:4860:4860::8888 2001:4860:4860::8844 2001:4860:4860::64 2001:4860:4860::6464""",
    "Cloudflare": """
        1.1.1.1 1.0.0.1 1.1.1.2 1.0.0.2 1.1.1.3 1.0.0.3 2606:4700:4700::1111 2606:4700:4700::1001
        2606:4700:4700::1112 2606:4700:4700::1002 2606:4700:4700::1113 2606:4700:4700::1003
        2606:4700:4700::64 2606:4700:4700::6400""",
    "Quad9": """
        9.9.9.9 149.112.112.112 9.9.9.10 149.112.112.10 9.9.9.11 149.112.112.11 9.9.9.12 149.112.112.12
        2620:fe::fe 2620:fe::9 2620:fe::10 2620:fe::fe:10 2620:fe::11 2620:fe::fe:11 2620:fe::12 2620:fe::fe:12""",
    "OpenDNS": """
        208.67.222.222 208.67.220.220 208.67.222.220 208.67.220.222 208.67.222.123 208.67.220.123
        208.67.222.2 208.67.220.2 2620:119:35::35 2620:119:53::53 2620:119:35::123 2620:119:53::123
        2620:0:ccc::2 2620:0:ccd::2""",
    "AdGuard DNS": """
        94.140.14.14 94.140.15.15 94.140.14.140 94.140.14.141 94.140.14.15 94.140.15.16 2a10:50c0::ad1:ff
        2a10:50c0::ad2:ff 2a10:50c0::1:ff 2a10:50c0::2:ff 2a10:50c0::bad1:ff 2a10:50c0::bad2:ff""",
    "Level 3": "4.2.2.1 4.2.2.2 4.2.2.3 4.2.2.4 4.2.2.5 4.2.2.6 209.244.0.3 209.244.0.4",
    "Verisign": "64.6.64.6 64.6.65.6 2620:74:1b::1:1 2620:74:1c::2:2",
    "CleanBrowsing": """
        185.228.168.9 185.228.169.9 185.228.168.10 185.228.169.11 185.228.168.168 185.228.169.168
        2a0d:2a00:1::2 2a0d:2a00:2::2 2a0d:2a00:1:: 2a0d:2a00:2:: 2a0d:2a00:1::1 2a0d:2a00:2::1""",
    "Yandex.DNS": """
        77.88.8.8 77.88.8.1 77.88.8.88 77.88.8.2 77.88.8.7 77.88.8.3 2a02:6b8::feed:ff 2a02:6b8:0:1::feed:ff""",
    "Control D": "76.76.2.0 76.76.10.0 2606:1a40:: 2606:1a40:1::",
    "DNS.SB": "185.222.222.222 45.11.45.11 2a09:: 2a11::",
    "Hurricane Electric": "74.82.42.42 2001:470:20::2",
    "AliDNS": "223.5.5.5 223.6.6.6 2400:3200::1 2400:3200:baba::1",
    "DNSPod": "119.29.29.29 1.12.12.12 2402:4e00::",
    "114DNS": "114.114.114.114 114.114.115.115",
}


_STUBS = ("127.0.0.53", "127.0.0.54")
"""systemd-resolved(8)'s addresses."""


def _packed(host: str) -> bytes:
    host = host.partition("%")[0]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return packed[12:] if packed[:12] == bytes(10) + b"\xff\xff" else packed


_PUBLIC_NAMES = {_packed(host): name for name, hosts in _PUBLIC.items() for host in hosts.split()}


@dataclass(frozen=True, slots=True)
class Server:
    """host: an address, IPv6 perhaps with %interface; port: UDP and TCP."""

    host: str
    port: int = 53

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        if self.port == 53:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server(text: str) -> Server:
    """Raises ValueError that says what is wrong."""
    host, port_text = text.strip(), ""
    if host.startswith("["):
        host, bracket, rest = host[1:].partition("]")
        if not bracket or rest[:1] not in ("", ":"):
            raise ValueError(f"{text!r} is not a DNS server: write [2001:db8::53]:53")
        port_text = rest[1:]
    elif host.count(":") == 1:
        host, _, port_text = host.partition(":")
    if port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise ValueError(f"{text!r} is not a DNS server: the port must be a number from 1 to 65535")
    try:
        _packed(host)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not a DNS server: write an address, or ADDRESS:PORT") from None
    return Server(host, int(port_text or 53))


def system_servers(resolv_conf: Path = Path("/etc/resolv.conf")) -> tuple[Server, ...]:
    """Its nameserver lines; without any, this machine, as resolv.conf(5) says."""
    try:
        text = resolv_conf.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found: list[Server] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            _packed(words[1])
        except (OSError, ValueError):
            continue
        found.append(Server(words[1]))
    return tuple(found) or (Server("127.0.0.1"),)


def public_resolver(server: str) -> str | None:
    """The name of the public resolver at this address (`ADDRESS` or `ADDRESS:PORT`), or None.

    DNSBL operators answer queries through these with an error, or with "not listed" for everybody.
    """
    return _PUBLIC_NAMES.get(_packed(parse_server(server).host))


def forwarded_to(server: Server, uplinks: Path = Path("/run/systemd/resolve/resolv.conf")) -> tuple[Server, ...]:
    """Whom a server on this machine asks in its turn, as far as a file tells: those of systemd-resolved's stub.

    It is what /etc/resolv.conf names on many machines, and says nothing of the resolver that is really used.
    """
    return system_servers(uplinks) if server.host in _STUBS and uplinks.exists() else ()


@dataclass(slots=True)
class _Record:
    silences: int = 0
    rest: float = FIRST_REST
    until: float = 0.0


class ServerMemory:
    """Which servers stayed silent lately."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._records = {server: _Record() for server in servers}
        self._all = tuple(self._records)
        self._troubled = False  # any of them: asked before every query, and almost always there is none

    def order(self, now: float) -> tuple[Server, ...]:
        """All servers, those at rest last.  One whose rest is over gets its place back for one query, as a trial."""
        if not self._troubled:
            return self._all
        awake: list[Server] = []
        resting: list[Server] = []
        for server, record in self._records.items():
            if record.until > now:
                resting.append(server)
                continue
            if record.until and not awake:
                self._send_to_rest(record, now)  # until this trial has an answer the others go elsewhere
            awake.append(server)
        return (*awake, *resting)

    def resting(self, server: Server, now: float) -> bool:
        return self._records[server].until > now

    def answered(self, server: Server) -> None:
        record = self._records[server]
        if record.silences or record.until:
            self._records[server] = _Record()
            self._troubled = any(record.until for record in self._records.values())

    def silent(self, server: Server, now: float) -> None:
        """A query to it got no answer in its time."""
        record = self._records[server]
        record.silences += 1
        if record.silences >= SILENCES:
            self._send_to_rest(record, now)

    def closed(self, server: Server, now: float) -> None:
        """Nobody listens there, or there is no way to it."""
        self._send_to_rest(self._records[server], now)

    def _send_to_rest(self, record: _Record, now: float) -> None:
        self._troubled = True
        if record.until <= now:
            record.until = now + record.rest
            record.rest = min(record.rest * 2, LONGEST_REST)
        record.silences = SILENCES
