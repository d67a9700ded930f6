"""Reverse DNS: does an address have names, and do they lead back to it (FCrDNS)?

Takes an address; gives a ReverseDNS, asked through a Resolver or judged from outcomes already there (`judged`, pure).
Guarantees: "no name" only on NXDOMAIN or NODATA; an error or timeout is None, no evidence.  Confirmed if any of the
first 10 names has the address among its A or AAAA records, IPv4-mapped IPv6 being IPv4; not confirmed only if all
of these answered; an address without a name is not confirmed.  Names are hostile text: dnspython escapes what is
not printable ASCII.  A name that the mail server confirmed itself (`logged_name`) is not asked for again.
Does not: judge.  Source: RFC 1035 3.5, RFC 3596 2.5, RFC 8601 2.7.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from nftban.prefixes import Prefix
from nftban.records import ReverseDNS
from nftban.verify.generic import NameWords, kind_of
from nftban.verify.outcomes import Failed, Missing, Outcome, Records, RecordType
from nftban.verify.resolver import Resolver
from nftban.verify.zones import packed_query_name

MOST_NAMES = 10
_ADDRESSES: tuple[RecordType, ...] = ("A", "AAAA")

Forward = Mapping[str, tuple[Outcome, Outcome]]
"""Per name the outcomes for A and AAAA."""


def reverse_name(prefix: Prefix) -> str:
    """`7.2.0.192.in-addr.arpa`; ValueError for anything but a single address."""
    if not prefix.is_single:
        raise ValueError(f"{prefix}: only a single address has a reverse name")
    return packed_query_name(prefix.packed, "in-addr.arpa" if prefix.family == 4 else "ip6.arpa")


def candidates(ptr: Outcome) -> tuple[str, ...]:
    """The names to ask forward: distinct, at most 10, without those that cannot be host names' roots."""
    if not isinstance(ptr, Records):
        return ()
    return tuple(dict.fromkeys(name for name in ptr.values if name.strip(".")))[:MOST_NAMES]


def judged(prefix: Prefix, ptr: Outcome, forward: Forward, now: float) -> ReverseDNS:
    """What these outcomes say about the address.  now: epoch seconds."""
    if isinstance(ptr, Failed):
        return ReverseDNS(reason=f"PTR: {ptr.reason}", asked=now, ttl=ptr.ttl)
    names = candidates(ptr)
    if isinstance(ptr, Missing) or not names:
        return ReverseDNS(has_name=False, confirmed=False, reason="no PTR record", asked=now, ttl=ptr.ttl)
    outcomes = [outcome for name in names for outcome in forward[name]]
    ttl = min(ptr.ttl, *(outcome.ttl for outcome in outcomes))
    for name in names:
        if any(_leads_to(outcome, prefix) for outcome in forward[name]):
            return ReverseDNS(names, True, True, f"{name} leads back to the address", now, ttl)
    failures = dict.fromkeys(outcome.reason for outcome in outcomes if isinstance(outcome, Failed))
    if failures:
        return ReverseDNS(names, True, None, f"forward: {'; '.join(failures)}", now, ttl)
    return ReverseDNS(names, True, False, "no PTR name leads back to the address", now, ttl)


def logged_name(prefix: Prefix, name: str, words: NameWords, now: float) -> ReverseDNS:
    """The PTR name that Postfix wrote beside the address: it does so only after asking back itself."""
    kind = kind_of([name], prefix, words)
    return ReverseDNS((name,), True, True, "confirmed by the mail server", now, 0, kind, logged=True)


async def reverse_dns(prefix: Prefix, resolver: Resolver, words: NameWords, now: float) -> ReverseDNS:
    """Ask for PTR, then for the A and AAAA of all its names at once."""
    if not prefix.is_single:
        return ReverseDNS(reason="a prefix has no reverse name", asked=now)
    ptr = await resolver.lookup(reverse_name(prefix), "PTR", minor=True)
    names = candidates(ptr)
    asks = (resolver.lookup(name, kind, minor=True) for name in names for kind in _ADDRESSES)
    outcomes = await asyncio.gather(*asks)
    forward = {name: (outcomes[2 * i], outcomes[2 * i + 1]) for i, name in enumerate(names)}
    found = judged(prefix, ptr, forward, now)
    return replace(found, kind=kind_of(names, prefix, words))


def _leads_to(outcome: Outcome, prefix: Prefix) -> bool:
    return isinstance(outcome, Records) and any(Prefix.parse(address) == prefix for address in outcome.values)
