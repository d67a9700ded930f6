"""PTR and its forward confirmation: the judgement, and asking a real server."""

from __future__ import annotations

import asyncio

import pytest
from demo.dnsbl_server import DnsblServer, Mode

from nftban.prefixes import Prefix
from nftban.records import ReverseDNS
from nftban.verify.generic import NO_WORDS
from nftban.verify.outcomes import Failed, Missing, Outcome, Records
from nftban.verify.resolver import Resolver
from nftban.verify.reverse import MOST_NAMES, Forward, judged, reverse_dns, reverse_name

NOW = 1_790_000_000.0
V4, V6 = Prefix.parse("192.0.2.7"), Prefix.parse("2001:db8::7")
NONE: tuple[Outcome, Outcome] = (Missing(100), Missing(100))


def test_reverse_names() -> None:
    assert reverse_name(V4) == "7.2.0.192.in-addr.arpa"
    assert reverse_name(V6) == "7." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
    with pytest.raises(ValueError, match="single address"):
        reverse_name(Prefix.parse("2001:db8::/64"))


def test_no_name_only_where_dns_says_so() -> None:
    for missing in (Missing(60), Missing(60, name_exists=True)):
        assert (judged(V4, missing, {}, NOW).has_name, judged(V4, missing, {}, NOW).confirmed) == (False, False)
    failed = judged(V4, Failed("SERVFAIL from 192.0.2.53"), {}, NOW)
    assert (failed.has_name, failed.confirmed) == (None, None)
    assert "SERVFAIL" in failed.reason
    assert judged(V4, Records((".",), 60), {}, NOW).has_name is False


def test_confirmed_by_any_name_and_either_type() -> None:
    ptr = Records(("a.example", "b.example"), 300)
    forward: Forward = {"a.example": NONE, "b.example": (Records(("192.0.2.1", "192.0.2.7"), 60), Missing(100))}
    found = judged(V4, ptr, forward, NOW)
    assert (found.names, found.has_name, found.confirmed, found.ttl) == (("a.example", "b.example"), True, True, 60)
    mapped: Forward = {"a.example": (Missing(100), Records(("::ffff:192.0.2.7",), 60)), "b.example": NONE}
    assert judged(V4, ptr, mapped, NOW).confirmed is True
    six: Forward = {"a.example": (Missing(100), Records(("2001:db8:0::7",), 60)), "b.example": NONE}
    assert judged(V6, ptr, six, NOW).confirmed is True


def test_not_confirmed_only_if_everybody_answered() -> None:
    ptr = Records(("a.example",), 300)
    other = Records(("192.0.2.8",), 60)
    assert judged(V4, ptr, {"a.example": (other, Missing(60))}, NOW).confirmed is False
    half = judged(V4, ptr, {"a.example": (other, Failed("REFUSED"))}, NOW)
    assert (half.has_name, half.confirmed) == (True, None)
    sure = judged(V4, ptr, {"a.example": (Records(("192.0.2.7",), 60), Failed("REFUSED"))}, NOW)
    assert sure.confirmed is True


def real(*, address: Prefix = V4, names: int = 1, mode: Mode = Mode.ANSWER, forward: bool = True) -> ReverseDNS:
    """Ask a real server that knows the address by so many names, only the last of which leads back."""

    async def asked() -> ReverseDNS:
        async with DnsblServer() as server, Resolver([server.address], timeout=0.5) as resolver:
            if names:
                given = [f"host{n}.example.com" for n in range(names)]
                server.add_reverse(str(address), given[-1], forward=forward)
                server.add_name(reverse_name(address), "PTR", *given)
            server.behave("example.com", mode)
            return await reverse_dns(address, resolver, NO_WORDS, NOW)

    return asyncio.run(asked())


def test_real_answers() -> None:
    for address in (V4, V6):
        found = real(address=address, names=2)
        assert (found.names, found.has_name, found.confirmed) == (
            ("host0.example.com", "host1.example.com"),
            True,
            True,
        )
        assert (real(address=address, names=0).has_name, real(address=address, forward=False).confirmed) == (
            False,
            False,
        )


def test_real_forward_errors_are_no_evidence() -> None:
    for mode in (Mode.SERVFAIL, Mode.REFUSED, Mode.DROP):
        found = real(mode=mode)
        assert (found.has_name, found.confirmed) == (True, None), mode


def test_at_most_ten_names_are_followed() -> None:
    assert real(names=MOST_NAMES).confirmed is True
    found = real(names=30)  # the answer is longer than 512 bytes and comes over TCP
    assert (len(found.names), found.confirmed) == (MOST_NAMES, False)


def test_hostile_names_are_escaped() -> None:
    async def asked() -> ReverseDNS:
        async with DnsblServer() as server, Resolver([server.address]) as resolver:
            server.add_name(reverse_name(V4), "PTR", r"\027[2J\010x.example.com")
            return await reverse_dns(V4, resolver, NO_WORDS, NOW)

    (name,) = asyncio.run(asked()).names
    assert name.isprintable() and name.isascii()
