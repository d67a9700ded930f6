"""Evidence about an address: all DNSBL zones and reverse DNS, asked at once, within one deadline.

Takes a prefix; gives an Evidence with one Listing per configured zone, in the configuration's order, and a
ReverseDNS.  Keeps zone health and quota informed, and reports every change of a zone's state to `changed`.
Guarantees: an answer within `deadline` seconds; what is late is UNKNOWN and `complete` is False.  A zone that is not
usable or out of budget is not asked and is UNKNOWN with the reason.  Addresses that no public list can know (private,
loopback, link-local, and those given as `skip`) are never asked about.  A test that changes a zone's state drops
what is cached of it: a zone comes back without the errors it gave, and one found dead leaves no answers behind.
Does not: judge, repeat, read the wall clock: `now` is epoch seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Evidence, Listing, ReverseDNS
from nftban.verify.health import Health, PointResult, State, Transition
from nftban.verify.outcomes import Failed, Missing, Records
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.reverse import reverse_dns
from nftban.verify.zones import Zone, alarm_in, interpret, packed_address, packed_query_name, unknown

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


def _ignore(_: Transition) -> None:
    """Nobody wants to know."""


class Verifier:
    """skip: further addresses never to ask about (own ones); changed: called with every transition of a zone."""

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
        changed: Callable[[Transition], None] = _ignore,
    ) -> None:
        self.zones = tuple(zones)
        self._resolver, self._health, self._quota = resolver, health, quota
        self._reverse, self._deadline, self._changed = reverse, deadline, changed
        self._testing: dict[str, asyncio.Task[Transition | None]] = {}
        self._skip = NOT_PUBLIC.union(skip) if skip is not None else NOT_PUBLIC

    async def evidence(self, prefix: Prefix, now: float) -> Evidence:
        """Ask everybody about the prefix: a single address, or an IPv6 /64 (which has no reverse DNS)."""
        reason = self._unaskable(prefix)
        if reason:
            listings = tuple(unknown(zone, reason, now) for zone in self.zones)
            return Evidence(prefix, listings, ReverseDNS(reason=reason, asked=now))
        loop = asyncio.get_running_loop()
        asks = [loop.create_task(self._ask(zone, prefix, now)) for zone in self.zones]
        reverse = loop.create_task(reverse_dns(prefix, self._resolver, now)) if self._reverse else None
        tasks = {*asks, reverse} if reverse else set(asks)
        try:
            late = (await asyncio.wait(tasks, timeout=self._deadline))[1] if tasks else set()
        finally:
            for task in tasks:
                task.cancel()
        why = f"no answer within {self._deadline:.1f} s"
        listings = tuple(
            unknown(zone, why, now) if task in late else task.result()
            for zone, task in zip(self.zones, asks, strict=True)
        )
        names = ReverseDNS(reason="not asked", asked=now)
        if reverse:
            names = ReverseDNS(reason=why, asked=now) if reverse in late else reverse.result()
        return Evidence(prefix, listings, names, complete=not late)

    async def test_zones(self, now: float, *, every: bool = False) -> tuple[Transition, ...]:
        """Ask the test points of the zones that are due, or of every zone that is not blocked right now; returns
        the changes, which were also given to `changed`."""
        due = set(self._health.due(now))
        wanted = [zone for zone in self.zones if zone.display in due or (every and not self._held(zone, now))]
        changes = await asyncio.gather(*(self._test(zone, now) for zone in wanted))
        return tuple(change for change in changes if change is not None)

    def logged(self, listed: Iterable[tuple[str, str]], now: float) -> tuple[Listing, ...]:
        """Listings that the mail server itself logged, from (zone, code) pairs; zones not configured here count
        nothing, and an error code there says nothing about the zone as we ask it."""
        codes: dict[str, list[str]] = {}
        for name, code in listed:
            try:
                packed_address(code)
            except ValueError:  # "blocked using" lines have no code; and a log's text is not ours to trust
                continue
            codes.setdefault(name.lower(), []).append(code)
        found = []
        for zone in self.zones:
            own = codes.get(zone.name) or codes.get(zone.display)
            if own:
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

    async def _first_test(self, zone: Zone, now: float) -> None:
        """A zone is tested before its first use; all who want it meanwhile wait for the same test."""
        status = self._health.status(zone.display)
        if status.state is not State.UNTESTED or status.due > now:
            return
        test = self._testing.get(zone.display)
        if test is None:
            test = self._testing[zone.display] = asyncio.get_running_loop().create_task(self._test(zone, now))
            test.add_done_callback(lambda _: self._testing.pop(zone.display))
        # Whoever waits may be cancelled at its deadline; the test goes on for the others.
        await asyncio.shield(test)

    async def _ask(self, zone: Zone, prefix: Prefix, now: float) -> Listing:
        await self._first_test(zone, now)
        reason = self._health.why_not(zone.display, now, prefix.family)
        if reason:
            return unknown(zone, reason, now)
        name = zone.query_name(prefix)
        outcome = self._resolver.cached(name, "A")
        if outcome is None:
            if not self._quota.allow(zone.display, now):
                return unknown(zone, f"today's budget of {self._quota.budget(zone.display)} queries is used up", now)
            outcome = await self._resolver.lookup(name, "A")
        if isinstance(outcome, Failed):
            return unknown(zone, outcome.reason, now, outcome.ttl)
        addresses = outcome.values if isinstance(outcome, Records) else ()
        listing = interpret(zone, addresses, now, outcome.ttl)
        change = self._health.answered(zone.display, listing, alarm_in(zone, addresses), now)
        if change is not None:
            self._changed(change)
        return listing

    async def _test(self, zone: Zone, now: float) -> Transition | None:
        points = [
            *((address, True) for address in zone.provider.test_listed),
            *((address, False) for address in zone.provider.test_clear),
        ]
        asks: list[Coroutine[Any, Any, Records | Missing | Failed]] = []
        for address, _ in points:
            self._quota.count(zone.display, now)
            asks.append(self._resolver.lookup(packed_query_name(address, zone.name), "A", fresh=True))
        outcomes = await asyncio.gather(*asks)
        results = [
            PointResult(address, must, outcome) for (address, must), outcome in zip(points, outcomes, strict=True)
        ]
        change = self._health.tested(zone.display, results, now)
        if change is not None:
            if change.after is not State.DEGRADED:
                self._resolver.forget(zone.name)  # what it said in its former state is no longer to be believed
            self._changed(change)
        return change
