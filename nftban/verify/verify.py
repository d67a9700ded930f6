"""Evidence about an address: all DNSBL zones, reverse DNS, HELO and SPF, asked at once, within one deadline.

Takes a prefix and what a log told of it; gives an Evidence with one Listing per configured zone, in the
configuration's order, a ReverseDNS, and Helo and Spf where a HELO name is known.  Keeps zone health and quota informed,
and reports every change of a zone's state to `changed` and to those that `listen`.
Guarantees: an answer within `deadline` seconds; what is late is UNKNOWN and `complete` is False.  A zone that is not
usable or out of budget is not asked and is UNKNOWN with the reason.  Addresses that no public list can know (private,
loopback, link-local, and those given as `skip`) are never asked about.  A test that changes a zone's state drops
what is cached of it: a zone comes back without the errors it gave, and one found dead leaves no answers behind.
Does not: judge, repeat, read the wall clock: `now` is epoch seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Answer, Evidence, Listing, ReverseDNS
from nftban.verify.generic import NO_WORDS, NameWords
from nftban.verify.health import Health, PointResult, State, Transition
from nftban.verify.helo import helo_fault
from nftban.verify.helo import judged as judged_helo
from nftban.verify.outcomes import Failed, Missing, Outcome, Records
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.reverse import logged_name, reverse_dns
from nftban.verify.spf import spf_helo
from nftban.verify.zones import Zone, alarm_in, interpret, only_code, packed_address, packed_query_name, unknown

NOT_PUBLIC = PrefixSet(
    map(
        Prefix.parse,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.168.0.0/16", "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8"),
        ),
    )
)
"""RFC 6890 without the documentation and benchmarking networks, which tests use as if they were public."""

MODEST_SHARE = 0.5
"""The part of a zone's budget that asking again about live bans may use up."""


LOCAL_TTL = 300
"""Seconds for which an answer out of data on this machine may be used."""


@dataclass(frozen=True, slots=True)
class ZoneStatus:
    """One line of `nftban status`: times are epoch seconds (tested: its last test that passed); queries and budget
    are those of this UTC day."""

    zone: str
    notation: str
    state: str
    why: str
    since: float
    usable: bool
    queries: int
    budget: int
    tested: float | None


@dataclass(frozen=True, slots=True)
class Told:
    """What the server's log says of a client already.  helo: the name it gave itself; ptr: its name, which the mail
    server confirmed; listed: (zone, code) pairs that it got from DNSBLs, the code may be empty."""

    helo: str = ""
    ptr: str = ""
    listed: tuple[tuple[str, str], ...] = ()


def _is_address(text: str) -> bool:
    try:
        packed_address(text)
    except ValueError:  # a log's text is not ours to trust
        return False
    return True


def _ignore(_: Transition) -> None:
    """Nobody wants to know."""


class Verifier:
    """reverse: also ask for names (PTR, HELO, SPF); skip: further addresses never to ask about (own ones); words: how
    networks name what is theirs; own_names: what this machine is called; changed: called with every transition."""

    def __init__(
        self,
        zones: Sequence[Zone],
        resolver: Resolver,
        health: Health,
        quota: Quota,
        *,
        reverse: bool = True,
        deadline: float = 3.0,
        skip: PrefixSet | None = None,
        words: NameWords = NO_WORDS,
        own_names: Collection[str] = (),
        changed: Callable[[Transition], None] = _ignore,
    ) -> None:
        self.zones = tuple(zones)
        self._resolver, self._health, self._quota = resolver, health, quota
        self._reverse, self._deadline = reverse, deadline
        self._words, self._own_names = words, frozenset(name.lower().removesuffix(".") for name in own_names)
        self._listeners = [changed]
        self._testing: dict[str, asyncio.Task[Transition | None]] = {}
        self._local: Callable[[str, Prefix], tuple[str, ...] | None] = lambda _zone, _prefix: None
        self._lists: Callable[[Collection[str], Prefix, float], tuple[Listing, ...]] = lambda *_: ()
        self._skip = NOT_PUBLIC.union(skip) if skip is not None else NOT_PUBLIC

    def dns_counts(self) -> dict[str, int]:
        """Queries sent, questions that failed, datagrams that answered nothing; since the start."""
        return {"queries": self._resolver.sent, "failures": self._resolver.failures, "strays": self._resolver.strays}

    def listen(self, listener: Callable[[Transition], None]) -> None:
        """Tell this one, too, of every change of a zone's state."""
        self._listeners.append(listener)

    def answer_locally(
        self,
        records: Callable[[str, Prefix], tuple[str, ...] | None],
        lists: Callable[[Collection[str], Prefix, float], tuple[Listing, ...]],
    ) -> None:
        """From now on a zone (display name) for which `records` gives A records, or none, is not asked: its data are
        here.  None: they are not.  lists: what lists that are no zones say, for who asks `only` those again."""
        self._local, self._lists = records, lists

    async def evidence(
        self,
        prefix: Prefix,
        now: float,
        told: Told | None = None,
        *,
        only: Collection[str] | None = None,
        modest: bool = False,
    ) -> Evidence:
        """Ask everybody about the prefix: a single address, or an IPv6 /64 (which has no reverse DNS).

        told: what a log says of the client already; a zone whose answer is there is not asked.  only: ask no zones and
        lists but these (display names), the others have no Listing.  modest: leave half of each zone's budget to
        others.
        """
        told = told or Told()
        zones = [zone for zone in self.zones if only is None or zone.display in only]
        reason = self._unaskable(prefix)
        if reason:
            listings = tuple(unknown(zone, reason, now) for zone in zones)
            return Evidence(prefix, listings, ReverseDNS(reason=reason, asked=now))
        known = {e.zone: e for e in self.logged(told.listed, now) if e.answer is Answer.LISTED}
        loop = asyncio.get_running_loop()
        asks = {z.display: loop.create_task(self._ask(z, prefix, now, modest)) for z in zones if z.display not in known}
        names = [loop.create_task(ask) for ask in self._name_asks(prefix, told, now)]
        tasks: set[asyncio.Task[Any]] = {*asks.values(), *names}
        try:
            late = (await asyncio.wait(tasks, timeout=self._deadline))[1] if tasks else set()
        finally:
            for task in tasks:
                task.cancel()
        why = f"no answer within {self._deadline:.1f} s"
        listings = tuple(
            known.get(zone.display)
            or (unknown(zone, why, now) if (ask := asks[zone.display]) in late else ask.result())
            for zone in zones
        )
        # Another's answer may have shown meanwhile that the zone lists everybody.
        listings = tuple(
            unknown(zone, self._health.status(zone.display).why, now)
            if e.answer is Answer.LISTED and self._health.status(zone.display).state is State.LISTS_WORLD
            else e
            for zone, e in zip(zones, listings, strict=True)
        )
        listings += self._lists(only or (), prefix, now)
        found = [None if ask in late else ask.result() for ask in names]
        return replace(self._named(prefix, told, found, why, now), listings=listings, complete=not late)

    def _name_asks(self, prefix: Prefix, told: Told, now: float) -> list[Coroutine[Any, Any, Any]]:
        """Reverse DNS, what the HELO name leads to, and SPF, in this order; nothing that is known already."""
        if not self._reverse:
            return []
        asks: list[Coroutine[Any, Any, Any]] = []
        if not told.ptr:
            asks.append(reverse_dns(prefix, self._resolver, self._words, now))
        if self._askable_helo(prefix, told.helo):
            asks.append(self._forward(told.helo))
            asks.append(spf_helo(told.helo, prefix, self._resolver, now))
        return asks

    def _named(self, prefix: Prefix, told: Told, found: list[Any], why: str, now: float) -> Evidence:
        """What those asks came to; None stands for a late one."""
        if not self._reverse:
            return Evidence(prefix, (), ReverseDNS(reason="not asked", asked=now))
        if told.ptr:
            reverse = logged_name(prefix, told.ptr, self._words, now)
        else:
            reverse = found.pop(0) or ReverseDNS(reason=why, asked=now)
        if not told.helo or not prefix.is_single:
            return Evidence(prefix, (), reverse)
        forward, spf = found or (None, None)
        said = judged_helo(told.helo, prefix, self._own_names, forward, reverse, now)
        return Evidence(prefix, (), reverse, helo=said, spf=spf)

    def _askable_helo(self, prefix: Prefix, helo: str) -> bool:
        asked = helo and prefix.is_single and not helo.startswith("[")
        return bool(asked) and not helo_fault(helo, prefix, self._own_names)

    async def _forward(self, name: str) -> tuple[Outcome, Outcome]:
        return await asyncio.gather(
            self._resolver.lookup(name, "A", minor=True), self._resolver.lookup(name, "AAAA", minor=True)
        )

    async def test_zones(
        self, now: float, *, every: bool = False, only: Collection[str] | None = None
    ) -> tuple[Transition, ...]:
        """Ask the test points of the zones that are due, or of every zone that is not blocked right now; of those named
        in `only` at most.  Returns the changes, which were also given to those who listen."""
        due = set(self._health.due(now))
        wanted = [
            zone
            for zone in self.zones
            if (only is None or zone.display in only) and (zone.display in due or (every and not self._held(zone, now)))
        ]
        changes = await asyncio.gather(*(self._test(zone, now) for zone in wanted))
        return tuple(change for change in changes if change is not None)

    def logged(self, listed: Iterable[tuple[str, str]], now: float) -> tuple[Listing, ...]:
        """Listings that the mail server itself logged, from (zone, code) pairs.

        Zones not configured here count nothing, nor does one that lists the world; an error code there says nothing
        about the zone as we ask it.  A line without a code ("blocked using") is taken for a zone with one code only.
        """
        codes: dict[str, list[str]] = {}
        for name, code in listed:
            codes.setdefault(name.lower(), []).append(code)
        found = []
        for zone in self.zones:
            own = [c for c in codes.get(zone.name, codes.get(zone.display, [])) if _is_address(c)]
            if not own and (zone.name in codes or zone.display in codes):
                own = [code] if (code := only_code(zone)) else []
            if own and self._health.status(zone.display).state is not State.LISTS_WORLD:
                found.append(replace(interpret(zone, own, now, 0), logged=True))
        return tuple(found)

    def status(self, now: float) -> tuple[ZoneStatus, ...]:
        """All zones in the configuration's order."""
        lines = []
        for zone in self.zones:
            name = zone.display
            status = self._health.status(name)
            usable = self._health.usable(name, now)
            used, budget = self._quota.used(name, now), self._quota.budget(name)
            lines.append(
                ZoneStatus(
                    name, zone.notation, status.state, status.why, status.since, usable, used, budget, status.good
                )
            )
        return tuple(lines)

    def export(self) -> dict[str, object]:
        """What must survive a restart (zones' health, the day's queries), as JSON values."""
        return {"health": self._health.export(), "quota": self._quota.export()}

    def restore(self, state: Mapping[str, object], now: float) -> None:
        """Take an exported state; one that makes no sense is ignored."""
        health, quota = state.get("health"), state.get("quota")
        if isinstance(health, Mapping):
            self._health.restore(health, now)
        if isinstance(quota, Mapping):
            self._quota.restore(quota)

    async def close(self) -> None:
        """Close the resolver's sockets; questions under way fail."""
        await self._resolver.close()

    def _unaskable(self, prefix: Prefix) -> str:
        if self._skip.overlaps(prefix):
            return "not a public address"
        if not prefix.is_single and (prefix.family == 4 or prefix.length < 64):
            return "a prefix, which no DNSBL can be asked about"
        return ""

    def _held(self, zone: Zone, now: float) -> bool:
        status = self._health.status(zone.display)
        return status.state is State.BLOCKED and status.due > now

    async def confirmed(self, zones: Collection[str], since: float, now: float) -> bool:
        """Has each of these (display names) passed a test at `since` or after?  Who has not is tested now.

        Whoever wants to act on a "clear" must know this: a zone that was emptied, or that a resolver hides, says it of
        everybody.
        """
        for zone in self.zones:
            good = self._health.status(zone.display).good
            if zone.display in zones and (good is None or good < since):
                await self._shared_test(zone, now)
        goods = [self._health.status(z.display).good for z in self.zones if z.display in zones]
        return all(good is not None and good >= since for good in goods)

    async def _first_test(self, zone: Zone, now: float) -> None:
        """A zone is tested before its first use."""
        status = self._health.status(zone.display)
        if status.state is State.UNTESTED and status.due <= now:
            await self._shared_test(zone, now)

    async def _shared_test(self, zone: Zone, now: float) -> None:
        """All who want the zone tested meanwhile wait for the same test."""
        test = self._testing.get(zone.display)
        if test is None:
            test = self._testing[zone.display] = asyncio.get_running_loop().create_task(self._test(zone, now))
            test.add_done_callback(lambda _: self._testing.pop(zone.display))
        # Whoever waits may be cancelled at its deadline; the test goes on for the others.
        await asyncio.shield(test)

    def _changed(self, change: Transition) -> None:
        for listener in self._listeners:
            listener(change)

    async def _ask(self, zone: Zone, prefix: Prefix, now: float, modest: bool = False) -> Listing:
        await self._first_test(zone, now)
        reason = self._health.why_not(zone.display, now, prefix.family)
        if reason:
            return unknown(zone, reason, now)
        name = zone.query_name(prefix)
        outcome = self._known_here(zone, prefix) or self._resolver.cached(name, "A")
        if outcome is None:
            if modest and self._quota.used(zone.display, now) >= self._quota.budget(zone.display) * MODEST_SHARE:
                return unknown(zone, "the rest of today's budget is kept for new suspects", now)
            if not self._quota.allow(zone.display, now):
                return unknown(zone, f"today's budget of {self._quota.budget(zone.display)} queries is used up", now)
            outcome = await self._resolver.lookup(name, "A", zone=zone.display)
        if isinstance(outcome, Failed):
            return unknown(zone, outcome.reason, now, outcome.ttl)
        addresses = outcome.values if isinstance(outcome, Records) else ()
        listing = interpret(zone, addresses, now, outcome.ttl)
        change = self._health.answered(zone.display, listing, alarm_in(zone, addresses), now)
        if change is not None:
            self._changed(change)
        return listing

    def _known_here(self, zone: Zone, prefix: Prefix) -> Records | Missing | None:
        found = self._local(zone.display, prefix)
        if found is None:
            return None
        return Records(found, LOCAL_TTL) if found else Missing(LOCAL_TTL)

    async def _test_point(self, zone: Zone, address: bytes, now: float) -> Outcome:
        if (known := self._known_here(zone, Prefix.from_packed(address))) is not None:
            return known
        self._quota.count(zone.display, now)
        return await self._resolver.lookup(packed_query_name(address, zone.name), "A", fresh=True)

    async def _test(self, zone: Zone, now: float) -> Transition | None:
        points = [
            *((address, True) for address in zone.provider.test_listed),
            *((address, False) for address in zone.provider.test_clear),
        ]
        outcomes = await asyncio.gather(*(self._test_point(zone, address, now) for address, _ in points))
        results = [
            PointResult(address, must, outcome) for (address, must), outcome in zip(points, outcomes, strict=True)
        ]
        change = self._health.tested(zone.display, results, now)
        if change is not None:
            if change.after is not State.DEGRADED:
                self._resolver.forget(zone.name)  # what it said in its former state is no longer to be believed
            self._changed(change)
        return change
