"""The resolver against a real DNS server on this machine, well-behaved and not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from demo.dnsbl_server import DnsblServer, Mode

from nftban.verify.channel import QUERIES_PER_SOCKET, answers
from nftban.verify.messages import parsed, query_message
from nftban.verify.outcomes import Failed, Missing, Outcome, Records
from nftban.verify.resolver import Resolver
from nftban.verify.servers import SILENCES

ZONE = "bl.example.net"
LISTED, CLEAR = f"7.2.0.192.{ZONE}", f"8.2.0.192.{ZONE}"
ENTRIES = {"192.0.2.7": ["127.0.0.4", "127.0.0.10"], "192.0.2.128/25": ["127.0.0.2"]}


def with_server(test: Callable[[DnsblServer, Resolver], Awaitable[None]], *, timeout: float = 3.0, **more: Any) -> None:
    """Run the test with a server and a resolver that asks it."""

    async def run() -> None:
        async with (
            DnsblServer({ZONE: ENTRIES}) as server,
            Resolver([server.address], timeout=timeout, **more) as resolver,
        ):
            await test(server, resolver)

    asyncio.run(run())


def test_records_and_absence() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        assert await resolver.lookup(LISTED, "A") == Records(("127.0.0.10", "127.0.0.4"), 300)
        assert await resolver.lookup(LISTED, "TXT") == Records(("192.0.2.7 is listed here",), 300)
        assert await resolver.lookup(CLEAR, "A") == Missing(300, name_exists=False)
        assert await resolver.lookup(LISTED, "AAAA") == Missing(300, name_exists=True)

    with_server(test)


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        (Mode.SERVFAIL, "SERVFAIL"),
        (Mode.REFUSED, "REFUSED"),
        (Mode.GARBAGE, "cannot be parsed"),
        (Mode.REFERRAL, "referral"),
        (Mode.DROP, "no answer"),
        (Mode.WRONG_ID, "no answer"),
        (Mode.WRONG_QUESTION, "no answer"),
    ],
)
def test_what_is_no_answer_is_failed_and_names_the_server_alone(mode: Mode, word: str) -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, mode)
        outcome = await resolver.lookup(LISTED, "A")
        assert isinstance(outcome, Failed)
        assert word in outcome.reason and server.address in outcome.reason
        assert ZONE not in outcome.reason
        assert (resolver.strays > 0) == (mode in (Mode.WRONG_ID, Mode.WRONG_QUESTION))
        server.behave(ZONE)
        assert isinstance(await resolver.lookup(CLEAR, "A"), Missing)

    with_server(test, timeout=0.3)


def test_a_truncated_answer_is_fetched_over_tcp() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, Mode.TRUNCATE)
        assert await resolver.lookup(LISTED, "A") == Records(("127.0.0.10", "127.0.0.4"), 300)
        assert (server.count(protocol="udp"), server.count(protocol="tcp")) == (1, 1)
        server.zones[ZONE].add("192.0.2.9", [f"127.0.1.{n}" for n in range(100)])
        server.behave(ZONE)
        outcome = await resolver.lookup(f"9.2.0.192.{ZONE}", "A")
        assert isinstance(outcome, Records) and len(outcome.values) == 100
        assert server.count(protocol="tcp") == 2

    with_server(test)


def test_truncated_and_tcp_silent_ends_in_time() -> None:
    async def run() -> Outcome:
        tcp_closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp_closed.bind(("127.0.0.1", 0))
        tcp_closed.setblocking(False)
        loop = asyncio.get_running_loop()
        async with Resolver([f"127.0.0.1:{tcp_closed.getsockname()[1]}"], timeout=1) as resolver:
            asked = asyncio.ensure_future(resolver.lookup(LISTED, "A"))
            query, source = await loop.sock_recvfrom(tcp_closed, 512)
            await loop.sock_sendto(tcp_closed, query[:2] + b"\x82" + query[3:], source)
            outcome = await asked
        tcp_closed.close()
        return outcome

    outcome = asyncio.run(run())
    assert isinstance(outcome, Failed) and "truncated" in outcome.reason


def test_a_lost_query_is_repeated() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, Mode.DROP)
        asked = asyncio.ensure_future(resolver.lookup(LISTED, "A"))
        await server.wait_for(1)
        server.behave(ZONE)
        assert isinstance(await asked, Records)
        assert server.count() == 2 and resolver.sent == 2

    with_server(test)


def test_a_late_answer_from_the_first_server_still_counts() -> None:
    async def run() -> None:
        async with DnsblServer({ZONE: ENTRIES}) as slow, DnsblServer({ZONE: ENTRIES}) as silent:
            slow.behave(ZONE, delay=0.9)
            silent.behave(ZONE, Mode.DROP)
            async with Resolver([slow.address, silent.address]) as resolver:
                assert isinstance(await resolver.lookup(LISTED, "A"), Records)
            assert silent.count() == 1

    asyncio.run(run())


def test_refusals_go_to_the_next_server_at_once() -> None:
    async def run() -> None:
        async with (
            DnsblServer({ZONE: ENTRIES}) as first,
            DnsblServer({ZONE: ENTRIES}) as second,
            Resolver([first.address, second.address]) as resolver,
        ):
            loop = asyncio.get_running_loop()
            for number, mode in enumerate((Mode.SERVFAIL, Mode.REFUSED, Mode.GARBAGE)):
                first.behave(ZONE, mode)
                before = loop.time()
                assert isinstance(await resolver.lookup(f"{200 + number}.2.0.192.{ZONE}", "A"), Records)
                assert loop.time() - before < 0.5
            second.behave(ZONE, Mode.SERVFAIL)
            outcome = await resolver.lookup(CLEAR, "A")
            assert isinstance(outcome, Failed)
            assert first.address in outcome.reason and second.address in outcome.reason

    asyncio.run(run())


def test_a_silent_server_is_left_alone() -> None:
    async def run() -> None:
        async with DnsblServer() as silent, DnsblServer({ZONE: ENTRIES}) as good:
            silent.behave("", Mode.DROP)
            async with Resolver([silent.address, good.address]) as resolver:
                first = await asyncio.gather(*(resolver.lookup(f"{n}.2.0.192.{ZONE}", "A") for n in range(SILENCES)))
                assert not any(isinstance(outcome, Failed) for outcome in first)
                assert silent.count() == SILENCES
                more = await asyncio.gather(*(resolver.lookup(f"{n}.2.0.192.{ZONE}", "A") for n in range(200, 250)))
                assert all(isinstance(outcome, Records) for outcome in more)
                assert silent.count() == SILENCES

    asyncio.run(run())


def test_a_dead_zone_does_not_make_its_resolver_look_dead() -> None:
    async def run() -> None:
        async with (
            DnsblServer({ZONE: ENTRIES}) as first,
            DnsblServer({ZONE: ENTRIES}) as second,
            Resolver([first.address, second.address]) as resolver,
        ):
            first.behave("dead.example", Mode.DROP)
            for turn in range(2):
                await asyncio.gather(
                    *(resolver.lookup(f"{turn}.{n}.dead.example", "A") for n in range(SILENCES - 1)),
                )
                assert isinstance(await resolver.lookup(f"{200 + turn}.2.0.192.{ZONE}", "A"), Records)
            assert (first.count(ZONE), second.count(ZONE)) == (2, 0)

    asyncio.run(run())


def test_a_closed_port_fails_at_once() -> None:
    async def run() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        async with DnsblServer({ZONE: ENTRIES}) as good:
            closed = f"127.0.0.1:{port}"
            before = asyncio.get_running_loop().time()
            async with Resolver([closed]) as resolver:
                outcome = await resolver.lookup(LISTED, "A")
                assert isinstance(outcome, Failed) and "cannot be reached" in outcome.reason
            async with Resolver([closed]) as resolver:
                names = [f"{n}.2.0.192.{ZONE}" for n in range(10)]
                many = await asyncio.gather(*(resolver.lookup(name, "A") for name in names))
                assert all(isinstance(outcome, Failed) for outcome in many)
            async with Resolver([closed, good.address]) as resolver:
                assert isinstance(await resolver.lookup(LISTED, "A"), Records)
            assert asyncio.get_running_loop().time() - before < 0.5

    asyncio.run(run())


def test_the_same_question_goes_out_once() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, delay=0.05)
        outcomes = await asyncio.gather(*(resolver.lookup(name, "A") for name in [LISTED, LISTED.upper()] * 25))
        assert {type(outcome) for outcome in outcomes} == {Records}
        assert server.count() == 1

    with_server(test)


def test_a_cancelled_caller_does_not_cancel_the_question() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, delay=0.05)
        first = asyncio.ensure_future(resolver.lookup(LISTED, "A"))
        await server.wait_for(1)
        second = asyncio.ensure_future(resolver.lookup(LISTED, "A"))
        first.cancel()
        assert isinstance(await second, Records)
        assert server.count() == 1

    with_server(test)


def test_the_cache_answers_until_it_is_told_to_forget() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        for _ in range(2):
            assert isinstance(await resolver.lookup(LISTED, "A"), Records)
            assert isinstance(await resolver.lookup(CLEAR, "A"), Missing)
        assert server.count() == 2
        server.zones[ZONE].remove("192.0.2.7")
        assert isinstance(await resolver.lookup(LISTED, "A", fresh=True), Missing)
        assert isinstance(resolver.cached(LISTED, "A"), Missing)
        resolver.forget("other.net")
        assert resolver.cached(LISTED, "A") is not None
        resolver.forget(ZONE)
        assert resolver.cached(LISTED, "A") is None

    with_server(test)


def test_failures_are_remembered_for_half_a_minute() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, Mode.SERVFAIL)
        await resolver.lookup(LISTED, "A")
        server.behave(ZONE)
        again = await resolver.lookup(LISTED, "A")
        assert isinstance(again, Failed) and again.ttl <= 30
        assert server.count() == 1

    with_server(test)


@pytest.mark.parametrize(
    ("ttl", "negative", "listed_for", "clear_for"), [(0, 0, 60, 60), (500, 400, 500, 400), (10**6, 10**6, 86400, 3600)]
)
def test_ttls_are_kept_within_bounds(ttl: int, negative: int, listed_for: int, clear_for: int) -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.zones[ZONE].ttl, server.zones[ZONE].negative_ttl = ttl, negative
        assert (await resolver.lookup(LISTED, "A")).ttl == listed_for
        assert (await resolver.lookup(CLEAR, "A")).ttl == clear_for

    with_server(test)


def test_the_cache_is_bounded() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        names = [f"{n}.2.0.192.{ZONE}" for n in range(10)]
        for name in names:
            await resolver.lookup(name, "A")
        assert [resolver.cached(name, "A") is not None for name in names] == [False] * 6 + [True] * 4

    with_server(test, cache_size=4)


def test_only_so_many_questions_are_on_the_way() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, Mode.DROP)
        names = [f"{n}.2.0.192.{ZONE}" for n in range(200, 230)]
        asked = asyncio.gather(*(resolver.lookup(name, "A") for name in names))
        await server.wait_for(10 + 1)  # the eleventh is the first repetition
        assert len({query.name for query in server.log}) == 10
        server.behave(ZONE)
        assert all(isinstance(outcome, Records) for outcome in await asked)

    with_server(test, limit=10)


def test_slow_names_do_not_keep_dnsbls_waiting() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave("slow.example", Mode.DROP)
        slow = [asyncio.ensure_future(resolver.lookup(f"{n}.slow.example", "PTR", minor=True)) for n in range(20)]
        await server.wait_for(2, "slow.example")
        assert isinstance(await resolver.lookup(LISTED, "A"), Records)
        assert not any(task.done() for task in slow)
        assert len({query.name for query in server.log}) == 3

    with_server(test, limit=4)


def test_a_dead_zone_does_not_keep_other_zones_waiting() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave("dead.example", Mode.DROP)
        names = [f"{n}.dead.example" for n in range(50)]
        dead = [asyncio.ensure_future(resolver.lookup(name, "A", zone="dead.example")) for name in names]
        await server.wait_for(2, "dead.example")
        found = await asyncio.gather(*(resolver.lookup(f"{n}.2.0.192.{ZONE}", "A", zone=ZONE) for n in range(200, 220)))
        assert all(isinstance(outcome, Records) for outcome in found)
        assert not any(task.done() for task in dead)
        assert len({query.name for query in server.log if "dead" in query.name}) == 2, "half of the four"

    with_server(test, limit=4)


def test_what_waits_for_its_turn_ends_in_time_too() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, Mode.DROP)
        before = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(*(resolver.lookup(f"{n}.2.0.192.{ZONE}", "A") for n in range(20)))
        assert {outcome.reason for outcome in outcomes if isinstance(outcome, Failed)} == {
            f"no answer from {server.address} within 0.4 s",
            "no answer from any server within 0.4 s",
        }
        assert asyncio.get_running_loop().time() - before < 0.6
        assert len({query.name for query in server.log}) == 3

    with_server(test, timeout=0.4, limit=3)


def test_a_closed_resolver_answers_everybody_and_asks_nobody() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        server.behave(ZONE, Mode.DROP)
        asked = [asyncio.ensure_future(resolver.lookup(f"{n}.2.0.192.{ZONE}", "A")) for n in range(5)]
        await server.wait_for(2)
        await resolver.close()
        assert {await task for task in asked} == {Failed("the resolver was closed")}
        assert await resolver.lookup(CLEAR, "A") == Failed("the resolver was closed")
        assert server.count() == 2

    with_server(test, limit=2)


def test_a_long_text_comes_whole() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        parts = [f"v=spf1 {' '.join(f'ip4:192.0.{n}.0/24' for n in range(10))} ", *("ip4:198.51.100.0/24 " * 8,) * 3]
        server.add_name("spf.example", "TXT", " ".join(f'"{part}"' for part in parts))
        server.add_name("spf.example", "MX", "10 mail.example.")
        assert await resolver.lookup("spf.example", "TXT") == Records(("".join(parts),), 300)
        assert server.count(protocol="tcp") == 1
        assert await resolver.lookup("spf.example", "MX") == Records(("10 mail.example.",), 300)

    with_server(test)


def test_a_refusal_and_a_silence_are_both_told() -> None:
    async def run() -> None:
        async with (
            DnsblServer() as refusing,
            DnsblServer() as silent,
            Resolver([refusing.address, silent.address], timeout=0.9) as resolver,
        ):
            refusing.behave("", Mode.REFUSED)
            silent.behave("", Mode.DROP)
            outcome = await resolver.lookup(LISTED, "A")
            assert isinstance(outcome, Failed)
            assert f"REFUSED from {refusing.address}, no answer from {silent.address}" in outcome.reason
            assert (refusing.count(), silent.count()) == (1, 2), "a refusal is not asked again"

    asyncio.run(run())


def test_a_server_without_a_way_to_it_fails_at_once() -> None:
    async def run() -> None:
        async with Resolver(["fe80::1%nowhere0"]) as resolver:
            outcome = await resolver.lookup(LISTED, "A")
            assert isinstance(outcome, Failed) and "cannot be reached" in outcome.reason

    asyncio.run(run())


def test_what_is_cached_expires() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        await resolver.lookup(LISTED, "A")
        loop = asyncio.get_running_loop()
        clock, start = loop.time, loop.time()
        loop.time = lambda: start + 240  # type: ignore[method-assign]
        left = resolver.cached(LISTED, "A")
        assert left is not None and 59 <= left.ttl <= 60
        loop.time = lambda: start + 301  # type: ignore[method-assign]
        assert resolver.cached(LISTED, "A") is None
        loop.time = clock  # type: ignore[method-assign]
        await resolver.lookup(LISTED, "A")
        assert server.count() == 2

    with_server(test)


def test_many_questions_take_several_sockets_and_lose_nothing() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        names = [f"{n % 256}.{n // 256}.0.192.{ZONE}" for n in range(3 * QUERIES_PER_SOCKET)]
        await resolver.lookup(f"1.1.1.1.{ZONE}", "A")
        files = len(os.listdir("/proc/self/fd"))
        outcomes = await asyncio.gather(*(resolver.lookup(name, "A") for name in names))
        assert not any(isinstance(outcome, Failed) for outcome in outcomes)
        assert server.count() >= len(names) + 1
        assert len(os.listdir("/proc/self/fd")) == files, "used-up sockets are closed"

    with_server(test)


def test_names_that_are_none() -> None:
    async def test(server: DnsblServer, resolver: Resolver) -> None:
        for name in ("a" * 64 + ".example", "a..b", "x" * 300, "\ud800.example", r"\999.example"):
            assert await resolver.lookup(name, "A") == Failed("not a domain name", 30), name
        assert server.count() == 0

    with_server(test)


def test_bad_servers_are_told() -> None:
    with pytest.raises(ValueError, match="is not a DNS server"):
        Resolver(["dns.example"])


def test_an_answer_must_repeat_id_and_question() -> None:
    query = b"\x12\x34" + query_message("Bl.Example.NET", "A")[2:]
    good = query[:2] + b"\x81\x80" + query[4:]
    assert answers(good, query) and answers(good.upper(), query)
    assert not answers(b"\x12\x35" + good[2:], query)
    assert not answers(query, query), "a query is no answer"
    assert not answers(good[:4] + b"\0\2" + good[6:], query)
    assert not answers(good.replace(b"xample", b"xampel"), query)
    assert not answers(good[:20], query) and not answers(b"", query)


def test_cname_chains_are_followed_within_the_message() -> None:
    import dns.message
    import dns.rrset

    response = dns.message.make_response(dns.message.make_query(LISTED, "A"))
    response.answer.append(dns.rrset.from_text(LISTED + ".", 200, "IN", "CNAME", "real.example."))
    response.answer.append(dns.rrset.from_text("real.example.", 900, "IN", "A", "127.0.0.2"))
    assert parsed(response.to_wire()) == Records(("127.0.0.2",), 200)
    loop = dns.message.make_response(dns.message.make_query(LISTED, "A"))
    loop.answer.append(dns.rrset.from_text(LISTED + ".", 200, "IN", "CNAME", LISTED + "."))
    assert isinstance(parsed(loop.to_wire()), Failed)


def test_absence_without_an_soa_record_is_believed_for_a_minute() -> None:
    import dns.message
    import dns.rcode

    response = dns.message.make_response(dns.message.make_query(LISTED, "A"))
    response.set_rcode(dns.rcode.NXDOMAIN)
    assert parsed(response.to_wire()) == Missing(60)
