"""DNSBL zones: what to ask, and what an answer means.

Takes the admin's rules (notation.py) and what is known of each zone (`Provider`, read from rules/dnsbl/*.toml);
gives the name to ask for an address (RFC 5782 2.1 and 2.4) and turns A records into a `Listing`.
Guarantees: only a code that has a meaning lists anyone.  An address outside 127.0.0.0/8 or an error code is an
`Alarm` about the zone, never evidence about the client, whatever the admin's pattern covers.  The account key in a
zone's name never appears in `display`, a repr or a Listing.
Decisions: a rule without `=codes` counts the codes in the zone's data file that are marked to count, and without a
weight with the points given there; for a zone without a data file it counts 127.0.0.2 alone, the one value that
RFC 5782 gives a meaning.  A known code for which no rule has points is LISTED with 0 points: it is what the zone said,
and it moves no score.  A code without a
meaning is UNKNOWN; beside known ones it is ignored.  Each rule counts at most once, as in postscreen(8), and as
policy points if every code it matched is a policy code (dynamic ranges).
Does not: ask, keep state, read files or clocks.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nftban.prefixes import Prefix
from nftban.records import Answer, Listing
from nftban.verify.notation import CodePattern, ZoneFault, ZoneRule, parse_codes, parse_sites

HOUR = 3600.0
KEY_LENGTH = 20
"""A zone's first label of this length or longer is taken for an account key even where no data file says so."""
SHOWN_CODES = 16


@dataclass(frozen=True, slots=True)
class Code:
    """A code's meaning.  policy: counts on port 25 only; counts: also for rules without `=codes`; points: what it
    counts for a rule that gives neither codes nor points."""

    pattern: CodePattern
    meaning: str
    policy: bool = False
    counts: bool = True
    points: int = 1


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """An answer about the asker, not about the address; backoff: seconds until the zone may be asked again."""

    pattern: CodePattern
    meaning: str
    backoff: float = HOUR


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known of the zones of these names.

    keyed: names that need an account key as the label before them; limit: queries a day its operator allows, None
    where unlimited or unknown; ipv6: whether IPv6 addresses may be listed; refused: why nobody should ask it, empty
    where one may; test_listed, test_clear: RFC 5782 5 test addresses, packed; about, terms, home: for the reader: what
    it lists, who may ask it, where to read more.
    """

    names: tuple[str, ...]
    keyed: tuple[str, ...] = ()
    codes: tuple[Code, ...] = ()
    errors: tuple[ErrorCode, ...] = ()
    limit: int | None = None
    ipv6: bool = True
    refused: str = ""
    test_listed: tuple[bytes, ...] = ()
    test_clear: tuple[bytes, ...] = ()
    about: str = ""
    terms: str = ""
    home: str = ""


def packed_address(text: str) -> bytes:
    """4 or 16 bytes, IPv4-mapped IPv6 kept as it is (the IPv6 test points are such); raises ValueError."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not an address") from None


TEST_LISTED = (packed_address("127.0.0.2"), packed_address("::ffff:127.0.0.2"))
TEST_CLEAR = (packed_address("127.0.0.1"), packed_address("::ffff:127.0.0.1"))

ERRORS_EVERYWHERE = (
    ErrorCode(parse_codes("127.255.255.252"), "the zone's name is mistyped", 4 * HOUR),
    ErrorCode(
        parse_codes("127.255.255.254"),
        "asked through a public or unattributable resolver: use a resolver of your own or an account key",
    ),
    ErrorCode(parse_codes("127.255.255.255"), "too many queries", 4 * HOUR),
    ErrorCode(parse_codes("127.255.255.[0..255]"), "the zone refuses to answer"),
)
"""Spamhaus' codes, which others took over; first match wins.  No zone lists anyone with 127.255.255.0/24."""

_UNKNOWN_CODES = (Code(parse_codes("127.0.0.2"), "listed"),)


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone to ask.  name: with the key if any, only for query names; display: for everybody's eyes."""

    name: str = field(repr=False)
    display: str
    rules: tuple[ZoneRule, ...]
    provider: Provider = field(repr=False)

    @property
    def keyed(self) -> bool:
        """Is it asked with an account key (and so through any resolver)?"""
        return self.name != self.display

    @property
    def notation(self) -> str:
        """Its rules in Postfix's notation, without the key."""
        return ", ".join(self.display + rule.filter_text for rule in self.rules)

    def query_name(self, prefix: Prefix) -> str:
        return query_name(prefix, self.name)


class AlarmKind(StrEnum):
    BLOCKED = "blocked"
    LISTS_WORLD = "lists the world"


@dataclass(frozen=True, slots=True)
class Alarm:
    """An answer that says something about the zone; backoff: seconds in which it must not be used."""

    kind: AlarmKind
    reason: str
    backoff: float


def query_name(prefix: Prefix, zone: str) -> str:
    """The name whose A records say whether the address is listed.

    An IPv4 prefix must be a single address.  An IPv6 prefix of /64 or longer is asked by its first address, since
    lists hold whole /64s; ValueError for anything wider.
    """
    if not prefix.is_single and (prefix.family == 4 or prefix.length < 64):
        raise ValueError(f"{prefix}: a DNSBL can be asked about one address or a /64, not about a wider prefix")
    return packed_query_name(prefix.packed, zone)


def packed_query_name(address: bytes, zone: str) -> str:
    """Octets (IPv4) or nibbles (IPv6) in reverse order before the zone's name."""
    if len(address) == 4:
        return ".".join(str(octet) for octet in reversed(address)) + f".{zone}"
    return ".".join(reversed(address.hex())) + f".{zone}"


def configured_zones(
    sites: Sequence[str], providers: Sequence[Provider]
) -> tuple[tuple[Zone, ...], tuple[ZoneFault, ...]]:
    """The zones of a configuration, in its order, one per name with all of its rules; and what is wrong with it.

    Zones that are dead or unsuitable are left out and reported with the reason.
    """
    rules: dict[str, list[ZoneRule]] = {}
    where: dict[str, tuple[int, int]] = {}
    faults: list[ZoneFault] = []
    for entry, text in enumerate(sites):
        found, bad = parse_sites(text, entry)
        faults += bad
        for rule in found:
            rules.setdefault(rule.zone, []).append(rule)
            where.setdefault(rule.zone, (entry, rule.position))
    zones: dict[str, Zone] = {}
    for name, own in rules.items():
        provider, display = _known(name, providers)
        fault = _unsuitable(name, display, provider)
        if not fault and display in zones:
            fault = (f"{display} is there with two account keys", "keep one of them")
        if fault:
            faults.append(ZoneFault(*where[name], *fault))
        else:
            zones[display] = Zone(name, display, tuple(own), provider)
    return tuple(zones.values()), tuple(faults)


def _known(name: str, providers: Sequence[Provider]) -> tuple[Provider, str]:
    """What is known of the zone, and its name without a key."""
    first, _, rest = name.partition(".")
    for provider in providers:
        if provider.refused:
            if any(name == bad or name.endswith(f".{bad}") for bad in provider.names):
                return provider, name
        elif name in provider.names or name in provider.keyed:
            return provider, name
        elif rest in provider.keyed:
            return provider, rest
    display = rest if len(first) >= KEY_LENGTH and "." in rest else name
    return Provider((display,), codes=_UNKNOWN_CODES, test_listed=TEST_LISTED, test_clear=TEST_CLEAR), display


def _unsuitable(name: str, display: str, provider: Provider) -> tuple[str, str] | None:
    if provider.refused:
        return f"{display} cannot be used: {provider.refused}", "remove it"
    if display in provider.keyed and name == display:
        return f"{display} needs an account key", f"write KEY.{display}, with the key from your account"
    return None


def alarm_in(zone: Zone, addresses: Iterable[str]) -> Alarm | None:
    """Do these A records say that the zone is not to be believed or refuses to answer?"""
    codes = _codes(addresses)
    for code, packed in codes:
        if packed[0] != 127:
            reason = (
                f"answered {code}, which no DNSBL does: the zone is gone and lists everybody, "
                "or the resolver rewrites NXDOMAIN"
            )
            return Alarm(AlarmKind.LISTS_WORLD, reason, 4 * HOUR)
    for code, packed in codes:
        for error in (*zone.provider.errors, *ERRORS_EVERYWHERE):
            if error.pattern.matches(packed):
                return Alarm(AlarmKind.BLOCKED, f"answered {code}: {error.meaning}", error.backoff)
    return None


def interpret(zone: Zone, addresses: Iterable[str], now: float, ttl: int) -> Listing:
    """What the zone said about an address; no addresses (NXDOMAIN, NODATA) is CLEAR.

    addresses: the A records as text; now: epoch seconds; ttl: seconds the answer may be used.
    """
    codes = _codes(addresses)
    if not codes:
        return Listing(zone.display, Answer.CLEAR, asked=now, ttl=ttl)
    alarm = alarm_in(zone, [code for code, _ in codes])
    if alarm:
        return unknown(zone, alarm.reason, now, ttl)
    meanings = {code: _meaning(zone, packed) for code, packed in codes}
    known = [(code, packed) for code, packed in codes if meanings[code] or _configured(zone, packed)]
    if not known:
        shown = ", ".join(code for code, _ in codes[:SHOWN_CODES])
        return unknown(zone, f"answered {shown}, which has no known meaning", now, ttl)
    points = policy_points = 0
    for rule in zone.rules:
        matched = [meanings[code] for code, packed in known if _counts(rule, packed, meanings[code])]
        if rule.bare:
            points += _weightiest(m.points for m in matched if m and not m.policy)
            policy_points += _weightiest(m.points for m in matched if m and m.policy)
        elif matched and all(m is not None and m.policy for m in matched):
            policy_points += rule.weight
        elif matched:
            points += rule.weight
    reasons = dict.fromkeys(m.meaning for code, _ in known if (m := meanings[code]))
    return Listing(
        zone.display,
        Answer.LISTED,
        codes=tuple(code for code, _ in known[:SHOWN_CODES]),
        points=points,
        policy_points=policy_points,
        reason="; ".join(reasons),
        asked=now,
        ttl=ttl,
    )


def _weightiest(points: Iterable[int]) -> int:
    return max(points, key=abs, default=0)


def unknown(zone: Zone, reason: str, now: float, ttl: int = 0) -> Listing:
    """Nobody knows: it neither scores nor clears."""
    return Listing(zone.display, Answer.UNKNOWN, reason=reason, asked=now, ttl=ttl)


def counts_nothing(zone: Zone, addresses: Iterable[str]) -> bool:
    """Are all of these codes known ones that are no listing (an allow list's, a "white" answer)?"""
    found = [_meaning(zone, packed) for _, packed in _codes(addresses)]
    return all(m is not None and not m.counts for m in found)


def only_code(zone: Zone) -> str:
    """The one code with which the zone lists; empty where there are several."""
    counted = [code.pattern for code in zone.provider.codes if code.counts]
    if len(counted) != 1 or any(low != high for field in counted[0].fields for low, high in field):
        return ""
    return (
        ".".join(str(field[0][0]) for field in counted[0].fields) if all(len(f) == 1 for f in counted[0].fields) else ""
    )


def _codes(addresses: Iterable[str]) -> list[tuple[str, bytes]]:
    """Distinct codes, ascending."""
    found = {packed_address(text): text for text in addresses}
    return [(found[packed], packed) for packed in sorted(found)]


def _meaning(zone: Zone, code: bytes) -> Code | None:
    return next((c for c in zone.provider.codes if c.pattern.matches(code)), None)


def _configured(zone: Zone, code: bytes) -> bool:
    return any(rule.pattern is not None and rule.pattern.matches(code) for rule in zone.rules)


def _counts(rule: ZoneRule, code: bytes, meaning: Code | None) -> bool:
    if rule.pattern is not None:
        return rule.pattern.matches(code)
    return meaning is not None and meaning.counts
