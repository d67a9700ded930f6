"""Evidence from real servers: zones, reverse names, deadlines, health and budgets together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from demo.dnsbl_server import DnsblServer, Mode

from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Answer, Evidence, Listing, SpfResult
from nftban.verify.health import Health, State, Transition
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.verify import Told, Verifier
from nftban.verify.zones import Provider, configured_zones

NOW = 1_790_000_000.0
BOT, HOME, CLEAN = Prefix.parse("198.51.100.7"), Prefix.parse("198.51.100.8"), Prefix.parse("198.51.100.9")
BOT6 = Prefix.parse("2001:db8:1:2::/64")
ZEN, BL, WL = "zen.spamhaus.org", "bl.blocklist.de", "list.dnswl.org"
KEY = "abcdefghijklmnopqrstuvwxyz"
SITES = (f"{ZEN}=127.0.0.[2..9]*4, {ZEN}=127.0.0.[10..11]*2", f"{BL}*3", f"{WL}=127.0.[2..20].[2..3]*-4")


class House:
    """A server, and a verifier that asks it."""

    def __init__(self, server: DnsblServer, resolver: Resolver, verifier: Verifier, changes: list[Transition]) -> None:
        self.server, self.resolver, self.verifier, self.changes = server, resolver, verifier, changes

    async def ask(self, prefix: Prefix, now: float = NOW) -> dict[str, Listing]:
        return {listing.zone: listing for listing in (await self.verifier.evidence(prefix, now)).listings}

    def state(self, zone: str) -> str:
        return next(s.state for s in self.verifier.status(NOW) if s.zone == zone)


def in_house(
    test: Callable[[House], Awaitable[None]],
    providers: tuple[Provider, ...],
    *,
    sites: Sequence[str] = SITES,
    budget: int = 1000,
    deadline: float = 3.0,
    skip: PrefixSet | None = None,
    tested: bool = True,
) -> None:
    async def run() -> None:
        data = {
            ZEN: {str(BOT): ["127.0.0.4"], str(HOME): ["127.0.0.10"], str(BOT6): ["127.0.0.3"]},
            BL: {str(BOT): ["127.0.0.13", "127.0.0.14"]},
            WL: {"198.51.100.10": ["127.0.5.3"]},
            f"{KEY}.zen.dq.spamhaus.net": {str(BOT): ["127.0.0.4"]},
        }
        zones, faults = configured_zones(sites, providers)
        assert not faults
        changes: list[Transition] = []
        async with DnsblServer(data) as server, Resolver([server.address], timeout=deadline + 0.5) as resolver:
            server.add_reverse(str(BOT), "bot.example.net")
            verifier = Verifier(
                zones,
                resolver,
                Health(zones),
                Quota(zones, budget),
                deadline=deadline,
                skip=skip,
                changed=changes.append,
            )
            if tested:
                await verifier.test_zones(NOW)
                changes.clear()
                server.log.clear()
            await test(House(server, resolver, verifier, changes))

    asyncio.run(run())


def test_evidence_from_all_zones_and_reverse_dns(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        evidence = await house.verifier.evidence(BOT, NOW)
        assert evidence.complete and evidence.prefix == BOT
        assert [(listing.zone, listing.answer, listing.points) for listing in evidence.listings] == [
            (ZEN, Answer.LISTED, 4),
            (BL, Answer.LISTED, 3),
            (WL, Answer.CLEAR, 0),
        ]
        assert evidence.listings[1].codes == ("127.0.0.13", "127.0.0.14")
        assert (evidence.reverse.names, evidence.reverse.confirmed) == (("bot.example.net",), True)
        assert house.server.count(ZEN) == 1, "several entries for one zone are one query"
        home = (await house.ask(HOME))[ZEN]
        assert (home.points, home.policy_points) == (0, 2)
        assert (await house.ask(Prefix.parse("198.51.100.10")))[WL].points == -4
        clean = await house.verifier.evidence(CLEAN, NOW)
        assert {listing.answer for listing in clean.listings} == {Answer.CLEAR}
        assert clean.reverse.has_name is False

    in_house(test, providers)


def test_an_ipv6_network_is_asked_as_one_and_has_no_reverse_name(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        evidence = await house.verifier.evidence(BOT6, NOW)
        assert (evidence.listings[0].answer, evidence.listings[0].codes) == (Answer.LISTED, ("127.0.0.3",))
        assert (evidence.reverse.has_name, evidence.complete) == (None, True)
        assert house.server.count("ip6.arpa") == 0

    in_house(test, providers)


def test_zones_are_tested_before_their_first_use(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        both = await asyncio.gather(house.ask(BOT), house.ask(CLEAN))
        assert both[0][ZEN].points == 4 and both[1][ZEN].answer is Answer.CLEAR
        assert {(c.zone, c.after) for c in house.changes} == {(zone, State.OK) for zone in (ZEN, BL, WL)}
        assert house.server.count(ZEN) == 4 + 2, "one test for both, then a question each"
        assert await house.verifier.test_zones(NOW + 60) == ()
        before = house.server.count(ZEN)
        await house.verifier.test_zones(NOW + 60, every=True)
        assert house.server.count(ZEN) == before + 4

    in_house(test, providers, tested=False)


def test_a_zone_that_fails_its_first_test_is_not_asked(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        house.server.behave(ZEN, Mode.SERVFAIL)
        assert "untested" in (await house.ask(BOT))[ZEN].reason
        asked = house.server.count(ZEN)
        listing = (await house.ask(BOT, NOW + 1))[ZEN]
        assert listing.answer is Answer.UNKNOWN
        assert house.server.count(ZEN) == asked, "neither asked nor tested again before its time"
        house.server.behave(ZEN)
        assert (await house.ask(BOT, NOW + 120))[ZEN].points == 4

    in_house(test, providers, tested=False)


@pytest.mark.parametrize("mode", [Mode.SERVFAIL, Mode.REFUSED, Mode.GARBAGE])
def test_errors_are_unknown_for_this_zone_alone(mode: Mode, providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        house.server.behave(ZEN, mode)
        listings = await house.ask(BOT)
        assert (listings[ZEN].answer, listings[ZEN].points) == (Answer.UNKNOWN, 0)
        assert listings[BL].points == 3
        assert house.state(ZEN) == State.OK and not house.changes

    in_house(test, providers)


def test_the_deadline_holds_and_late_zones_are_unknown(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        house.server.behave(ZEN, Mode.DROP)
        house.server.behave("in-addr.arpa", delay=2.0)
        loop = asyncio.get_running_loop()
        before = loop.time()
        evidence = await house.verifier.evidence(BOT, NOW)
        assert 0.3 <= loop.time() - before < 2.0
        assert not evidence.complete
        assert evidence.listings[0] == Listing(ZEN, Answer.UNKNOWN, reason="no answer within 0.3 s", asked=NOW)
        assert evidence.listings[1].points == 3
        assert (evidence.reverse.has_name, evidence.reverse.reason) == (None, "no answer within 0.3 s")

    in_house(test, providers, deadline=0.3)


@pytest.mark.parametrize("code", ["127.255.255.252", "127.255.255.254", "127.255.255.255"])
def test_an_error_code_blocks_the_zone_and_is_forgotten_by_the_cache(
    code: str, providers: tuple[Provider, ...]
) -> None:
    async def test(house: House) -> None:
        house.server.zones[ZEN].add(str(CLEAN), [code])
        assert (await house.ask(CLEAN))[ZEN].answer is Answer.UNKNOWN
        (change,) = house.changes
        assert (change.zone, change.after, change.good) == (ZEN, State.BLOCKED, NOW)
        assert house.state(ZEN) == State.BLOCKED
        asked = house.server.count(ZEN)
        assert "zone is blocked" in (await house.ask(BOT))[ZEN].reason
        await house.verifier.test_zones(NOW + 60, every=True)
        assert house.server.count(ZEN) == asked, "a blocked zone is not asked at all"
        house.server.zones[ZEN].remove(str(CLEAN))
        later = NOW + 4 * 3600
        assert [(c.zone, c.after) for c in await house.verifier.test_zones(later)] == [(ZEN, State.OK)]
        assert (await house.ask(CLEAN, later))[ZEN].answer is Answer.CLEAR

    in_house(test, providers)


def test_a_parked_zone_lists_nobody(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        house.server.behave(ZEN, Mode.PARKED)
        assert (await house.ask(CLEAN))[ZEN].answer is Answer.UNKNOWN
        assert [(c.zone, c.after) for c in house.changes] == [(ZEN, State.LISTS_WORLD)]

    in_house(test, providers)


def test_a_zone_that_lists_the_world_is_found_by_the_next_test(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        house.server.behave(ZEN, Mode.LIST_WORLD)
        assert (await house.ask(CLEAN))[ZEN].points == 4
        (change,) = await house.verifier.test_zones(NOW + 1800)
        assert (change.after, change.good) == (State.LISTS_WORLD, NOW)
        assert (await house.ask(CLEAN, NOW + 1801))[ZEN].answer is Answer.UNKNOWN

    in_house(test, providers)


def test_an_emptied_zone_is_dead_and_its_old_answers_are_forgotten(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        assert (await house.ask(BOT))[ZEN].points == 4
        house.server.zones[ZEN].listed.clear()
        (change,) = await house.verifier.test_zones(NOW + 1800)
        assert change.after is State.DEAD
        assert house.resolver.cached(f"7.100.51.198.{ZEN}", "A") is None
        assert (await house.ask(BOT, NOW + 1801))[ZEN].answer is Answer.UNKNOWN

    in_house(test, providers)


def test_clear_is_confirmed_by_a_test_that_came_after_it(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        assert (await house.ask(CLEAN, NOW + 10))[ZEN].answer is Answer.CLEAR
        before = house.server.count(ZEN)
        both = (house.verifier.confirmed({ZEN}, NOW + 10, NOW + 11) for _ in range(2))
        assert await asyncio.gather(*both) == [True, True]
        assert house.server.count(ZEN) == before + 4, "one test for both"
        assert await house.verifier.confirmed({ZEN}, NOW + 10, NOW + 12)
        assert house.server.count(ZEN) == before + 4, "and none for who comes later"
        house.server.zones[ZEN].listed.clear()
        assert not await house.verifier.confirmed({ZEN, BL}, NOW + 20, NOW + 21), "it was emptied"
        house.server.behave(BL, Mode.SERVFAIL)
        assert not await house.verifier.confirmed({BL}, NOW + 30, NOW + 31), "it says nothing"
        assert await house.verifier.confirmed(set(), NOW + 30, NOW + 31)

    in_house(test, providers)


def test_a_spent_budget_stops_the_asking_but_not_the_cache(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        assert (await house.ask(BOT))[ZEN].points == 4
        refused = (await house.ask(HOME))[ZEN]
        assert refused.answer is Answer.UNKNOWN and "budget of 5 queries" in refused.reason
        assert house.server.count(ZEN) == 1
        assert (await house.ask(BOT))[ZEN].points == 4
        (zen, *_) = house.verifier.status(NOW)
        assert (zen.queries, zen.budget, zen.usable) == (5, 5, True)  # four test points and one address
        assert house.state(ZEN) == State.OK
        assert (await house.ask(HOME, NOW + 86400))[ZEN].answer is Answer.LISTED

    in_house(test, providers, sites=[SITES[0]], budget=5)


@pytest.mark.parametrize(
    "text",
    ["10.1.2.3", "172.31.0.1", "192.168.1.1", "127.0.0.2", "169.254.1.1", "::1", "fe80::1", "fd00::/64", "203.0.113.1"],
)
def test_private_and_own_addresses_are_never_asked_about(text: str, providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        evidence = await house.verifier.evidence(Prefix.parse(text), NOW)
        assert {(listing.answer, listing.reason) for listing in evidence.listings} == {
            (Answer.UNKNOWN, "not a public address")
        }
        assert evidence.reverse.has_name is None
        assert not house.server.log

    in_house(test, providers, skip=PrefixSet([Prefix.parse("203.0.113.1")]))


def test_wide_prefixes_are_never_asked_about(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        for text in ("198.51.100.0/24", "2001:db8::/48"):
            evidence = await house.verifier.evidence(Prefix.parse(text), NOW)
            assert {listing.answer for listing in evidence.listings} == {Answer.UNKNOWN}
        assert not house.server.log

    in_house(test, providers)


def test_a_key_is_in_the_queries_and_nowhere_else(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        evidence = await house.verifier.evidence(BOT, NOW)
        assert evidence.listings[0].points == 4
        assert house.server.count(f"{KEY}.zen.dq.spamhaus.net") == 1
        house.server.behave("dq.spamhaus.net", Mode.SERVFAIL)
        failed = await house.verifier.evidence(CLEAN, NOW)
        house.server.behave("dq.spamhaus.net", Mode.PARKED)
        await house.verifier.evidence(HOME, NOW)
        assert house.changes
        shown = repr((evidence, failed, house.changes, house.verifier.status(NOW), house.verifier.zones))
        assert KEY not in shown and "zen.dq.spamhaus.net" in shown

    in_house(test, providers, sites=[f"{KEY}.zen.dq.spamhaus.net=127.0.0.[2..9]*4"])


def test_listings_from_the_servers_own_log(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        pairs = [
            (ZEN, "127.0.0.4"),
            (ZEN, ""),
            ("other.example", "127.0.0.2"),
            (BL, "127.255.255.254"),
            (WL, "spoofed"),
        ]
        zen, bl = house.verifier.logged(pairs, NOW)
        assert (zen.zone, zen.points, zen.codes, zen.logged) == (ZEN, 4, ("127.0.0.4",), True)
        assert (bl.answer, bl.logged) == (Answer.UNKNOWN, True)
        assert house.state(BL) == State.OK and not house.server.log

    in_house(test, providers)


def test_status_says_what_an_admin_wants_to_know(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        await house.ask(BOT)
        zen, bl, wl = house.verifier.status(NOW)
        assert zen.notation == f"{ZEN}=127.0.0.[2..9]*4, {ZEN}=127.0.0.[10..11]*2"
        assert (zen.state, zen.since, zen.usable, zen.queries, zen.budget) == ("ok", NOW, True, 5, 1000)
        assert (bl.notation, wl.notation) == (f"{BL}*3", f"{WL}=127.0.[2..20].[2..3]*-4")

    in_house(test, providers)


def test_without_zones_there_is_still_reverse_dns(providers: tuple[Provider, ...]) -> None:
    async def test(house: House) -> None:
        evidence: Evidence = await house.verifier.evidence(BOT, NOW)
        assert (evidence.listings, evidence.reverse.confirmed, evidence.complete) == ((), True, True)

    in_house(test, providers, sites=[])


HELO_ADDRESS = Prefix.parse("198.51.100.30")


def test_what_the_log_told_is_not_asked(providers: tuple[Provider, ...]) -> None:
    async def play(house: House) -> None:
        told = Told(
            ptr="dyn-198-51-100-30.isp.example", listed=((ZEN, "127.0.0.4"), (BL, ""), ("other.example", "127.0.0.2"))
        )
        found = await house.verifier.evidence(HELO_ADDRESS, NOW, told)
        first, second, _ = found.listings
        assert (first.answer, first.points, first.logged) == (Answer.LISTED, 4, True)
        assert (second.answer, second.logged) == (Answer.CLEAR, False), "it has many codes, so it is asked"
        assert (found.reverse.names, found.reverse.confirmed, found.reverse.logged) == ((told.ptr,), True, True)
        assert {q.type for q in house.server.log} == {"A"}
        assert house.server.count(ZEN) == 0

    in_house(play, providers)


def test_helo_and_spf_are_asked_where_a_name_is_known(providers: tuple[Provider, ...]) -> None:
    async def play(house: House) -> None:
        house.server.add_reverse(str(HELO_ADDRESS), "out.company.example")
        house.server.add_name("mx.company.example", "A", "198.51.100.31")
        house.server.add_name("mx.company.example", "TXT", '"v=spf1 ip4:198.51.100.30 -all"')
        found = await house.verifier.evidence(HELO_ADDRESS, NOW, Told(helo="mx.company.example"))
        assert found.helo is not None and found.spf is not None
        assert (found.helo.forward, found.helo.same_organisation) == (False, True)
        assert (found.spf.result, found.spf.reason) == (SpfResult.PASS, "ip4:198.51.100.30 of mx.company.example")
        house.server.log.clear()
        faulty = await house.verifier.evidence(HELO_ADDRESS, NOW, Told(helo="localhost"))
        assert faulty.helo is not None and faulty.helo.fault and faulty.spf is None
        without = await house.verifier.evidence(HELO_ADDRESS, NOW)
        assert (without.helo, without.spf) == (None, None)

    in_house(play, providers)


def test_a_slow_helo_domain_is_unknown_and_keeps_nobody_waiting(providers: tuple[Provider, ...]) -> None:
    async def play(house: House) -> None:
        house.server.behave("slow.example", Mode.DROP)
        found = await house.verifier.evidence(BOT, NOW, Told(helo="mx.slow.example"))
        assert found.helo is not None and found.helo.forward is None
        assert found.spf is None or found.spf.result is SpfResult.TEMPERROR
        assert [e.answer for e in found.listings] == [Answer.LISTED, Answer.LISTED, Answer.CLEAR]

    in_house(play, providers, deadline=0.3)


def test_only_these_zones_and_half_of_the_budget(providers: tuple[Provider, ...]) -> None:
    async def play(house: House) -> None:
        used = next(z.queries for z in house.verifier.status(NOW) if z.zone == ZEN)
        asks = 0
        for last in range(30, 60):
            address = Prefix.parse(f"198.51.100.{last}")
            found = await house.verifier.evidence(address, NOW, only={ZEN}, modest=True)
            (listing,) = found.listings
            asks += listing.answer is Answer.CLEAR
        assert asks == 20 - used
        assert listing.reason == "the rest of today's budget is kept for new suspects"
        assert (await house.ask(BOT))[ZEN].answer is Answer.LISTED

    in_house(play, providers, budget=40)


def test_logged_listings(providers: tuple[Provider, ...]) -> None:
    async def play(house: House) -> None:
        def logged(*pairs: tuple[str, str]) -> list[tuple[str, tuple[str, ...]]]:
            return [(e.zone, e.codes) for e in house.verifier.logged(pairs, NOW) if e.answer is Answer.LISTED]

        assert logged((ZEN.upper(), "127.0.0.4"), (ZEN, "127.0.0.10")) == [(ZEN, ("127.0.0.4", "127.0.0.10"))]
        assert logged((ZEN, "")) == [], "which of its codes?"
        assert logged(("bl.spamcop.net", "")) == [("bl.spamcop.net", ("127.0.0.2",))]
        assert logged((ZEN, "127.255.255.254"), (ZEN, "rubbish"), ("bl.unknown.example", "127.0.0.2")) == []
        house.server.behave(ZEN, Mode.LIST_WORLD)
        await house.verifier.test_zones(NOW, every=True)
        assert logged((ZEN, "127.0.0.4")) == [], "it lists everybody, to others too"

    in_house(play, providers, sites=(*SITES, "bl.spamcop.net*2"))


def test_who_listens_hears_of_every_change(providers: tuple[Provider, ...]) -> None:
    async def play(house: House) -> None:
        heard: list[Transition] = []
        house.verifier.listen(heard.append)
        house.server.behave(ZEN, Mode.PARKED)
        assert (await house.ask(HOME))[ZEN].answer is Answer.UNKNOWN
        assert [(t.zone, t.after, t.is_trip, t.good) for t in heard] == [(ZEN, State.LISTS_WORLD, True, NOW)]
        assert heard == house.changes

    in_house(play, providers)
