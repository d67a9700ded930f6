"""Invariants of verification: hostile or senseless input ends in a value, and lists nobody by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.records import Answer
from nftban.verify.channel import answers
from nftban.verify.messages import parsed, query_message, read_response
from nftban.verify.notation import parse_sites
from nftban.verify.outcomes import Failed, Missing, Records
from nftban.verify.providers import load_providers, parse_providers
from nftban.verify.servers import parse_server
from nftban.verify.zones import configured_zones, interpret

PROVIDERS, _ = load_providers([Path(__file__).parents[2] / "rules" / "dnsbl"])
KEY = "abcdefghijklmnopqrstuvwxyz"
EVERYTHING = "=127.[0..255].[0..255].[0..255]*9"

piece = st.sampled_from(
    ["127", "0", "255", "256", ".", "..", "[", "]", ";", "=", "*", "-", "+", ",", " ", "a.b", "zen"]
)
octets = st.integers(0, 255)
code = st.builds("{}.{}.{}.{}".format, st.one_of(st.just(127), octets), octets, octets, octets)


@given(st.one_of(st.text(max_size=60), st.lists(piece, max_size=20).map("".join)))
@settings(max_examples=300, deadline=None)
def test_every_entry_becomes_a_rule_or_a_fault(text: str) -> None:
    rules, faults = parse_sites(text)
    entries = [part for part in text.replace(",", " ").split() if part]
    assert len(rules) + len(faults) == len(entries)
    for fault in faults:
        assert 0 <= fault.position <= len(text)
    for rule in rules:
        again, none = parse_sites(rule.zone + rule.filter_text)
        assert not none and [(r.zone, r.pattern, r.weight) for r in again] == [(rule.zone, rule.pattern, rule.weight)]


@given(st.lists(piece, max_size=12).map("".join))
@settings(max_examples=200, deadline=None)
def test_a_key_stays_hidden_whatever_stands_around_it(tail: str) -> None:
    zones, faults = configured_zones([f"{KEY}.zen.dq.spamhaus.net{tail}"], PROVIDERS)
    assert KEY not in repr((zones, faults)) + "".join(zone.notation for zone in zones)


@given(st.sampled_from(["zen.spamhaus.org", "list.dnswl.org", "bl.example.net"]), st.lists(code, max_size=6))
@settings(max_examples=300, deadline=None)
def test_errors_and_foreign_addresses_never_list(name: str, codes: list[str]) -> None:
    (zone,), _ = configured_zones([name + EVERYTHING], PROVIDERS)
    listing = interpret(zone, codes, 0.0, 60)
    bad = [c for c in codes if not c.startswith("127.") or c.startswith("127.255.255.")]
    if not codes:
        assert listing.answer is Answer.CLEAR
    if bad:
        assert (listing.answer, listing.points, listing.policy_points) == (Answer.UNKNOWN, 0, 0)
    assert listing.points == 0 or listing.answer is Answer.LISTED


def _response() -> bytes:
    response = dns.message.make_response(dns.message.make_query("7.2.0.192.bl.example.net", "A"))
    response.answer.append(dns.rrset.from_text("7.2.0.192.bl.example.net.", 60, "IN", "A", "127.0.0.2", "127.0.0.4"))
    response.authority.append(dns.rrset.from_text("bl.example.net.", 60, "IN", "SOA", "a. b. 1 2 3 4 5"))
    return response.to_wire()


RESPONSE = _response()


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_become_an_outcome(message: bytes) -> None:
    assert isinstance(parsed(message), Records | Missing | Failed)
    assert not answers(message, query_message("bl.example.net", "A")) or len(message) >= 12


@given(st.lists(st.tuples(st.integers(0, len(RESPONSE) - 1), octets), max_size=6), st.integers(0, len(RESPONSE)))
@settings(max_examples=1000, deadline=None)
def test_a_damaged_response_becomes_an_outcome(changes: list[tuple[int, int]], length: int) -> None:
    message = bytearray(RESPONSE)
    for position, value in changes:
        message[position] = value
    for wire in (bytes(message), bytes(message[:length])):
        outcome = parsed(wire)
        if isinstance(outcome, Records | Missing):
            assert 60 <= outcome.ttl <= 86400
        if isinstance(outcome, Records):
            assert all(value.isascii() and value.isprintable() for value in outcome.values)


label = st.one_of(
    st.integers(0, 300).map(str),
    st.text(alphabet="aB-_9*\\@. \u00e9", max_size=5),
    st.sampled_from(["x" * 63, "x" * 64, ""]),
)


@given(st.lists(label, max_size=8).map(".".join), st.sampled_from(["A", "PTR", "MX"]))
@settings(max_examples=1000, deadline=None)
def test_a_query_built_by_hand_is_what_dnspython_builds(name: str, rdtype: Any) -> None:
    try:
        expected = dns.message.make_query(dns.name.from_text(name), rdtype, id=0).to_wire()
    except (dns.exception.DNSException, UnicodeError):
        with pytest.raises((dns.exception.DNSException, UnicodeError)):
            query_message(name, rdtype)
    else:
        assert query_message(name, rdtype) == expected


NAMES = ("7.2.0.192.bl.example.net", "0.0.0.0.a", "10.200.51.198.zen.spamhaus.org")
ZONES_OF = {NAMES[0]: "bl.example.net.", NAMES[1]: "a.", NAMES[2]: "org."}


@given(
    st.sampled_from(NAMES),
    st.lists(st.tuples(octets, octets), max_size=4),
    st.sampled_from([0, 1, 59, 300, 86401, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]),
    st.sampled_from(["none", "SOA", "NS", "both"]),
    st.lists(st.tuples(st.integers(0, 400), octets), max_size=3),
    st.one_of(st.none(), st.integers(0, 300)),
    st.binary(max_size=3),
)
@settings(max_examples=3000, deadline=None)
def test_both_readers_agree_on_every_message(
    name: str,
    codes: list[tuple[int, int]],
    ttl: int,
    authority: str,
    damage: list[tuple[int, int]],
    length: int | None,
    tail: bytes,
) -> None:
    query = query_message(name, "A")
    response = dns.message.make_response(dns.message.from_wire(query))
    for n, (a, b) in enumerate(codes):
        record = dns.rrset.from_text(name + ".", 60 + n, "IN", "A", f"127.0.{a}.{b}")
        response.answer.append(record)
    if not codes:
        response.set_rcode(dns.rcode.NXDOMAIN)
    zone = ZONES_OF[name]
    if authority in ("SOA", "both"):
        response.authority.append(dns.rrset.from_text(zone, 60, "IN", "SOA", f"ns.{zone} h.x. 1 2 3 4 77777"))
    if authority in ("NS", "both"):
        response.authority.append(dns.rrset.from_text(zone, 60, "IN", "NS", f"ns.{zone}"))
    message = bytearray(response.to_wire())
    message = bytearray(bytes(message).replace((60).to_bytes(4, "big"), ttl.to_bytes(4, "big")))
    for position, value in damage:
        if position < len(message):
            message[position] = value
    wire = bytes(message[:length]) + tail
    if answers(wire, query):
        assert read_response(wire, query) == parsed(wire)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_servers_are_parsed_or_refused(text: str) -> None:
    try:
        server = parse_server(text)
    except ValueError as e:
        assert "is not a DNS server" in str(e)
    else:
        assert parse_server(str(server)) == server


@given(
    st.one_of(
        st.text(max_size=80),
        st.builds(
            '[[zone]]\nnames = ["a.b"]\n{} = {}'.format,
            st.sampled_from(["codes", "errors", "keyed", "limit", "test_listed", "ipv6", "refused", "names", "x"]),
            st.sampled_from(
                ["1", "-1", "true", '"x"', "[]", "[1]", '["x"]', "[{}]", "[{code = 1}]", "[[]]", "1.5", "{}"]
            ),
        ),
    )
)
@settings(max_examples=200, deadline=None)
def test_data_files_are_parsed_or_faulted(text: str) -> None:
    found, faults = parse_providers(text, "x.toml")
    assert isinstance(found, tuple) and all(str(fault) for fault in faults)
