"""What DNS says about everybody, at any moment of the simulated time.

Takes names and listings as the population makes them, and zones' bad hours; gives the answer to a question at a time:
codes of a DNSBL, PTR, A, AAAA and SPF records, or that the zone fails, refuses or lists everybody.
Guarantees: the same question at the same time has the same answer, whoever asks.  Does not: send packets (`resolver`
does), cache, judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from math import inf

SPAMHAUS = "zen.spamhaus.org"
BLOCKLIST = "bl.blocklist.de"
SPAMCOP = "bl.spamcop.net"
PSBL = "psbl.surriel.com"
DNSWL = "list.dnswl.org"
ZONES = (SPAMHAUS, BLOCKLIST, SPAMCOP, PSBL, DNSWL)
POLICY = frozenset({"127.0.0.10", "127.0.0.11"})
REFUSED = "127.255.255.254"
TEST_POINTS = ("127.0.0.2", str(IPv6Address("::ffff:127.0.0.2")))


class Fault(Enum):
    """What a zone does in a bad hour."""

    FAILS = "SERVFAIL"
    BLOCKS = "error code"
    LISTS_WORLD = "lists everybody"


class Failed(Exception):
    """The answer is SERVFAIL."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A listing from `since` to `until` (epoch seconds)."""

    code: str
    since: float = -inf
    until: float = inf


@dataclass(frozen=True, slots=True)
class BadHour:
    zone: str
    fault: Fault
    since: float
    until: float


@dataclass(slots=True)
class World:
    """listings: by zone and address; ptr: by address; forward: addresses by name; spf: policy by name."""

    listings: dict[str, dict[str, tuple[Entry, ...]]] = field(default_factory=lambda: {zone: {} for zone in ZONES})
    ptr: dict[str, str] = field(default_factory=dict)
    forward: dict[str, str] = field(default_factory=dict)
    spf: dict[str, str] = field(default_factory=dict)
    faults: tuple[BadHour, ...] = ()

    def list(self, zone: str, address: str, entry: Entry) -> None:
        known = self.listings[zone]
        known[address] = (*known.get(address, ()), entry)

    def codes(self, zone: str, address: str, now: float) -> tuple[str, ...]:
        """What the zone answers; raises Failed."""
        for bad in self.faults:
            if bad.zone == zone and bad.since <= now < bad.until:
                if bad.fault is Fault.FAILS:
                    raise Failed
                return (REFUSED,) if bad.fault is Fault.BLOCKS else ("127.0.0.2",)
        if address in TEST_POINTS:
            return ("127.0.0.2",)
        return tuple(e.code for e in self.listings[zone].get(address, ()) if e.since <= now < e.until)

    def answer(self, name: str, kind: str, now: float) -> tuple[str, ...]:
        """Records of a name (small letters, no dot at the end) as text; nothing where there are none; raises Failed."""
        for zone in ZONES:
            if name.endswith(f".{zone}"):
                address = _reversed(name.removesuffix(f".{zone}"))
                return self.codes(zone, address, now) if kind == "A" and address else ()
        if kind == "PTR":
            address = _reversed(name.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa"))
            return (self.ptr[address],) if address in self.ptr else ()
        if kind == "TXT":
            return (self.spf[name],) if name in self.spf else ()
        address = self.forward.get(name, "")
        return (address,) if address and (kind == "AAAA") == (":" in address) and kind in ("A", "AAAA") else ()


def _reversed(labels: str) -> str:
    """The address of a name's labels, as the population writes it; empty where they are none."""
    parts = labels.split(".")[::-1]
    try:
        if len(parts) == 4:
            return str(IPv4Address(".".join(parts)))
        return str(IPv6Address(int("".join(parts), 16))) if len(parts) == 32 else ""
    except ValueError:
        return ""
