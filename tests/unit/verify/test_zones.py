"""What a zone's answers mean."""

from __future__ import annotations

import pytest

from nftban.prefixes import Prefix
from nftban.records import Answer, Listing
from nftban.verify.zones import (
    AlarmKind,
    Provider,
    Zone,
    alarm_in,
    configured_zones,
    interpret,
    only_code,
    packed_address,
    packed_query_name,
    query_name,
)

NOW = 1_790_000_000.0
KEY = "abcdefghijklmnopqrstuvwxyz"
ZEN = "zen.spamhaus.org=127.0.0.[2..9;30]*4 zen.spamhaus.org=127.0.0.[10..11]*2"
DNSWL = "list.dnswl.org=127.0.[2..20].[2..3]*-4"


def zone_of(text: str, providers: tuple[Provider, ...]) -> Zone:
    (zone,), faults = configured_zones([text], providers)
    assert not faults
    return zone


def ask(text: str, providers: tuple[Provider, ...], *codes: str) -> Listing:
    return interpret(zone_of(text, providers), codes, NOW, 300)


def test_query_names() -> None:
    assert query_name(Prefix.parse("192.0.2.7"), "zen.spamhaus.org") == "7.2.0.192.zen.spamhaus.org"
    nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    assert query_name(Prefix.parse("2001:db8::1"), "bl.example") == f"{nibbles}.bl.example"
    assert query_name(Prefix.parse("2001:db8::/64"), "bl.example") == "0" + nibbles[1:] + ".bl.example"
    for wide in ("192.0.2.0/24", "2001:db8::/48"):
        with pytest.raises(ValueError, match="wider"):
            query_name(Prefix.parse(wide), "bl.example")


def test_the_ipv6_test_point_is_not_folded_into_ipv4() -> None:
    name = packed_query_name(packed_address("::ffff:127.0.0.2"), "bl.example")
    assert name == "2.0.0.0.0.0.f.7.f.f.f.f." + "0." * 20 + "bl.example"


def test_no_address_is_clear(providers: tuple[Provider, ...]) -> None:
    assert ask(ZEN, providers) == Listing("zen.spamhaus.org", Answer.CLEAR, asked=NOW, ttl=300)


@pytest.mark.parametrize(
    ("codes", "points", "policy"),
    [
        (("127.0.0.2",), 4, 0),
        (("127.0.0.4",), 4, 0),
        (("127.0.0.2", "127.0.0.9"), 4, 0),  # one entry counts once
        (("127.0.0.10",), 0, 2),
        (("127.0.0.11",), 0, 2),
        (("127.0.0.4", "127.0.0.10"), 4, 2),
    ],
)
def test_points_and_policy_points(
    codes: tuple[str, ...], points: int, policy: int, providers: tuple[Provider, ...]
) -> None:
    listing = ask(ZEN, providers, *codes)
    assert listing.answer is Answer.LISTED
    assert (listing.codes, listing.points, listing.policy_points) == (codes, points, policy)
    assert listing.reason


def test_entries_for_one_zone_add_up(providers: tuple[Provider, ...]) -> None:
    text = "zen.spamhaus.org*1 zen.spamhaus.org=127.0.0.4*3"
    assert ask(text, providers, "127.0.0.4").points == 4
    assert ask(text, providers, "127.0.0.2").points == 1


def test_a_rule_for_mixed_codes_is_no_policy_rule(providers: tuple[Provider, ...]) -> None:
    text = "zen.spamhaus.org=127.0.0.[2..11]*3"
    assert ask(text, providers, "127.0.0.10").policy_points == 3
    both = ask(text, providers, "127.0.0.4", "127.0.0.10")
    assert (both.points, both.policy_points) == (3, 0)


def test_a_zone_without_codes_counts_what_its_data_file_knows(providers: tuple[Provider, ...]) -> None:
    assert ask("zen.spamhaus.org*3", providers, "127.0.0.4").points == 3
    assert ask("zen.spamhaus.org*3", providers, "127.0.0.10").policy_points == 3
    assert ask("list.dnswl.org*-3", providers, "127.0.5.3").points == -3
    low = ask("list.dnswl.org*-3", providers, "127.0.5.1")
    assert (low.answer, low.points) == (Answer.LISTED, 0)
    assert ask("hostkarma.junkemailfilter.com*3", providers, "127.0.0.1").points == 0


def test_an_unknown_zone_without_codes_counts_the_one_code_of_the_rfc() -> None:
    assert ask("bl.example.net*3", (), "127.0.0.2").points == 3
    other = ask("bl.example.net*3", (), "127.0.0.10")
    assert (other.answer, other.points, other.codes) == (Answer.UNKNOWN, 0, ())
    assert "127.0.0.10" in other.reason


def test_a_known_code_without_points_is_listed_and_counts_nothing(providers: tuple[Provider, ...]) -> None:
    listing = ask("zen.spamhaus.org=127.0.0.2*4", providers, "127.0.0.10")
    assert (listing.answer, listing.codes) == (Answer.LISTED, ("127.0.0.10",))
    assert (listing.points, listing.policy_points) == (0, 0)


def test_a_code_without_meaning_is_unknown_alone_and_ignored_beside_others(providers: tuple[Provider, ...]) -> None:
    assert ask(ZEN, providers, "127.0.0.77").answer is Answer.UNKNOWN
    assert ask(ZEN, providers, "127.0.0.77", "127.0.0.4").codes == ("127.0.0.4",)


def test_a_code_that_only_the_admin_knows_counts(providers: tuple[Provider, ...]) -> None:
    assert ask("zen.spamhaus.org=127.0.0.77*4", providers, "127.0.0.77").points == 4


@pytest.mark.parametrize("code", ["127.255.255.252", "127.255.255.254", "127.255.255.255", "127.255.255.0"])
@pytest.mark.parametrize("text", [ZEN, "bl.example.net", "bl.example.net=127.[0..255].[0..255].[0..255]*9"])
def test_error_codes_list_nobody_and_block_the_zone(code: str, text: str, providers: tuple[Provider, ...]) -> None:
    zone = zone_of(text, providers)
    for codes in ((code,), (code, "127.0.0.2")):
        listing = interpret(zone, codes, NOW, 300)
        assert (listing.answer, listing.points, listing.codes) == (Answer.UNKNOWN, 0, ())
        alarm = alarm_in(zone, codes)
        assert alarm is not None and alarm.kind is AlarmKind.BLOCKED
        assert alarm.reason == listing.reason and code in alarm.reason


def test_too_many_queries_is_backed_off_longer_than_a_public_resolver(providers: tuple[Provider, ...]) -> None:
    zone = zone_of(ZEN, providers)
    many, public = alarm_in(zone, ["127.255.255.255"]), alarm_in(zone, ["127.255.255.254"])
    assert many is not None and public is not None
    assert (many.backoff, public.backoff) == (4 * 3600, 3600)


@pytest.mark.parametrize("code", ["127.0.0.255", "127.0.10.1", "127.0.10.2", "127.0.10.3"])
def test_dnswl_over_its_limit_spares_nobody(code: str, providers: tuple[Provider, ...]) -> None:
    zone = zone_of(DNSWL, providers)
    assert interpret(zone, [code], NOW, 300).answer is Answer.UNKNOWN
    alarm = alarm_in(zone, [code])
    assert alarm is not None and alarm.kind is AlarmKind.BLOCKED


def test_dnswl_trusts_medium_and_high(providers: tuple[Provider, ...]) -> None:
    assert [ask(DNSWL, providers, f"127.0.5.{trust}").points for trust in range(4)] == [0, 0, -4, -4]
    assert alarm_in(zone_of(DNSWL, providers), ["127.0.10.0"]) is None  # what its test entry answers


@pytest.mark.parametrize("address", ["198.51.100.80", "126.255.255.255", "128.0.0.1"])
def test_an_address_outside_127_lists_nobody_and_trips_the_zone(address: str, providers: tuple[Provider, ...]) -> None:
    zone = zone_of(ZEN, providers)
    for codes in ([address], ["127.0.0.2", address], ["127.255.255.254", address]):
        assert interpret(zone, codes, NOW, 300).answer is Answer.UNKNOWN
        alarm = alarm_in(zone, codes)
        assert alarm is not None and alarm.kind is AlarmKind.LISTS_WORLD


def test_blocklist_de_knows_its_services(providers: tuple[Provider, ...]) -> None:
    for code, word in ((7, "IMAP"), (9, "mail"), (10, "POP3"), (13, "SASL"), (14, "SSH"), (21, "passwords")):
        assert word in ask("bl.blocklist.de", providers, f"127.0.0.{code}").reason


@pytest.mark.parametrize(
    "zone",
    [
        *("dnsbl.sorbs.net", "spam.dnsbl.sorbs.net", "ix.dnsbl.manitu.net", "list.dsbl.org", "dnsbl.ahbl.org"),
        *("relays.ordb.org", "dnsbl.njabl.org", "dnsbl.inps.de", "cbl.abuseat.org", "dnsbl-2.uceprotect.net"),
        *("dnsbl-3.uceprotect.net", "ips.backscatterer.org", "dbl.spamhaus.org"),
    ],
)
def test_dead_and_unsuitable_zones_are_refused_with_the_reason(zone: str, providers: tuple[Provider, ...]) -> None:
    zones, (fault,) = configured_zones(["bl.example.net", f"bl.example.org, {zone}*3"], providers)
    assert [z.display for z in zones] == ["bl.example.net", "bl.example.org"]
    assert (fault.entry, fault.position) == (1, 16)
    assert fault.what.startswith(f"{zone} cannot be used: ")


def test_a_key_is_asked_and_never_shown(providers: tuple[Provider, ...]) -> None:
    zone = zone_of(f"{KEY}.zen.dq.spamhaus.net=127.0.0.[2..9]*4", providers)
    assert zone.query_name(Prefix.parse("192.0.2.7")) == f"7.2.0.192.{KEY}.zen.dq.spamhaus.net"
    assert zone.keyed
    assert zone.display == "zen.dq.spamhaus.net"
    assert zone.notation == "zen.dq.spamhaus.net=127.0.0.[2..9]*4"
    seen = [interpret(zone, codes, NOW, 300) for codes in ([], ["127.0.0.4"], ["127.0.0.77"], ["127.255.255.254"])]
    assert KEY not in repr((zone, zone.notation, seen)) + str(zone) + str(alarm_in(zone, ["127.255.255.254"]))
    assert seen[1].points == 4 and "XBL" in seen[1].reason


def test_a_key_before_an_unknown_zone_is_hidden_by_its_length() -> None:
    zone = zone_of(f"{KEY}.combined.mail.example", ())
    assert (zone.display, zone.keyed) == ("combined.mail.example", True)
    assert not zone_of("short.bl.example", ()).keyed


def test_a_short_key_is_hidden_where_the_data_file_says_so(providers: tuple[Provider, ...]) -> None:
    assert zone_of("mykey.authbl.dq.spamhaus.net*4", providers).display == "authbl.dq.spamhaus.net"


def test_zones_with_keys_are_refused_without_one_and_with_two(providers: tuple[Provider, ...]) -> None:
    zones, (fault,) = configured_zones(["zen.dq.spamhaus.net"], providers)
    assert not zones and "needs an account key" in fault.what
    zones, (fault,) = configured_zones([f"{KEY}.zen.dq.spamhaus.net", f"x{KEY}.zen.dq.spamhaus.net"], providers)
    assert len(zones) == 1 and "two account keys" in fault.what
    assert KEY not in repr(fault)


@pytest.mark.parametrize(
    ("zone", "codes", "points", "policy"),
    [
        ("zen.spamhaus.org", ("127.0.0.2", "127.0.0.9"), 4, 0),
        ("zen.spamhaus.org", ("127.0.0.4", "127.0.0.10"), 4, 2),
        ("zen.spamhaus.org", ("127.0.0.11",), 0, 2),
        (f"{KEY}.zen.dq.spamhaus.net", ("127.0.0.3",), 4, 0),
        (f"{KEY}.authbl.dq.spamhaus.net", ("127.0.0.20",), 5, 0),
        ("bl.blocklist.de", ("127.0.0.7",), 4, 0),
        ("bl.blocklist.de", ("127.0.0.12",), 0, 0),
        ("bl.spamcop.net", ("127.0.0.2",), 2, 0),
        ("list.dnswl.org", ("127.0.5.1",), 0, 0),
        ("list.dnswl.org", ("127.0.5.2",), -4, 0),
        ("bl.unknown.example", ("127.0.0.2",), 1, 0),
        # Whoever writes codes or points means them.
        ("zen.spamhaus.org*1", ("127.0.0.4", "127.0.0.10"), 1, 0),
        ("zen.spamhaus.org=127.0.0.10", ("127.0.0.10",), 0, 1),
    ],
)
def test_a_name_alone_takes_the_points_of_the_data(
    zone: str, codes: tuple[str, ...], points: int, policy: int, providers: tuple[Provider, ...]
) -> None:
    listing = ask(zone, providers, *codes)
    assert (listing.answer, listing.points, listing.policy_points) == (Answer.LISTED, points, policy)


def test_the_shipped_data_tells_what_an_admin_must_know(providers: tuple[Provider, ...]) -> None:
    for provider in providers:
        if provider.refused:
            assert not provider.codes
            continue
        name = (provider.names or provider.keyed)[0]
        assert provider.terms, name
        assert any(code.counts for code in provider.codes), name
        signs = {code.points > 0 for code in provider.codes if code.counts}
        assert signs == {name != "list.dnswl.org"}, name
        assert all(0 < abs(code.points) <= 5 for code in provider.codes), name
        assert len(provider.test_listed) == len(provider.test_clear) > 0, name


@pytest.mark.parametrize(
    ("zone", "code"),
    [
        ("bl.spamcop.net", "127.0.0.2"),
        ("psbl.surriel.com", "127.0.0.2"),
        (f"{KEY}.authbl.dq.spamhaus.net", "127.0.0.20"),
        ("bl.unknown.example", "127.0.0.2"),
        ("zen.spamhaus.org", ""),
        ("xbl.spamhaus.org", ""),
        ("bl.blocklist.de", ""),
        ("list.dnswl.org", ""),
    ],
)
def test_zones_with_one_code(zone: str, code: str, providers: tuple[Provider, ...]) -> None:
    assert only_code(zone_of(zone, providers)) == code
