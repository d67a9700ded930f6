"""Prefix and PrefixSet: what is an address, what is not, and what covers what."""

from __future__ import annotations

import pytest

from nftban.prefixes import Prefix, PrefixSet, range_prefixes

P = Prefix.parse
MAPPED = 0xFFFF << 32


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("255.255.255.255", "255.255.255.255"),
        ("  192.0.2.7\n", "192.0.2.7"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("2001:db8:ffff::/33", "2001:db8:8000::/33"),
        ("::", "::"),
        ("::/0", "::/0"),
        ("::1", "::1"),
        ("64:ff9b::192.0.2.7", "64:ff9b::c000:207"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207/128", "192.0.2.7"),
        ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.7/97", "128.0.0.0/1"),
        ("::ffff:192.0.2.7/96", "0.0.0.0/0"),
        ("::ffff:192.0.2.7/95", "::fffe:0:0/95"),
        ("::fffe:192.0.2.7/96", "::fffe:0:0/96"),
        ("::ffff:0:192.0.2.7", "::ffff:0:c000:207"),
        ("::1:ffff:192.0.2.7", "::1:ffff:c000:207"),
    ],
)
def test_parses_to_canonical_text(text: str, canonical: str) -> None:
    prefix = Prefix.parse(text)
    assert str(prefix) == canonical
    assert Prefix.parse(canonical) == prefix


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "/24",
        "localhost",
        "192.0.2",
        "192.0.2.",
        "192.0.2.7.8",
        "192.0.2.256",
        "192.0.02.7",
        "192.0.2.007",
        "0192.0.2.7",
        "0xc0.0.2.7",
        "3221225991",
        "192.168.1",
        "1",
        "-1.0.0.0",
        "+1.0.0.0",
        "192.0. 2.7",
        "192.0.2.7 192.0.2.8",
        "192.0.2.7\x00",
        "192.0.2.7/",
        "192.0.2.7/33",
        "192.0.2.7/-1",
        "192.0.2.7/+8",
        "192.0.2.7/ 8",
        "192.0.2.7 /8",
        "192.0.2.7/8/8",
        "192.0.2.7/08",
        "192.0.2.7/00",
        "192.0.2.7/0x8",
        "192.0.2.7/8.0",
        "192.0.2.7/1_0",
        "192.0.2.7/255.255.255.0",
        "192.0.2.7/²",
        "192.0.2.7/٨",
        "192.0.2.7/" + "9" * 5000,
        "١٩٢.0.2.7",
        "192\uff0e0\uff0e2\uff0e7",
        "192.0.2.7%eth0",
        "192.0.2.7:25",
        "[192.0.2.7]",
        "fe80::1%eth0",
        "fe80::1%eth0/64",
        "[2001:db8::1]",
        "2001:db8::1::",
        ":::",
        ":",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "2001:db8::12345",
        "2001:db8::g",
        "2001:db8::1/129",
        "2001:db8::1/064",
        "::ffff:192.0.2.256",
        "::ffff:192.0.02.7",
        "::192.0.2",
        "2001:db8::\udcff",
    ],
)
def test_refuses_what_is_not_strictly_an_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an IPv4 or IPv6 address|prefix length must be"):
        Prefix.parse(text)


def test_the_sentence_names_what_was_written_and_the_bound() -> None:
    with pytest.raises(ValueError, match="'2001:db8::/129': the prefix length must be a number from 0 to 128"):
        Prefix.parse("2001:db8::/129")


def test_mapped_addresses_equal_their_ipv4_form_however_they_are_made() -> None:
    plain = Prefix(4, 0xC0000207, 32)
    packed = bytes(10) + b"\xff\xff\xc0\x00\x02\x07"
    assert plain == Prefix(6, MAPPED | 0xC0000207, 128) == Prefix.from_packed(packed) == Prefix.parse("192.0.2.7")
    assert hash(plain) == hash(Prefix.from_packed(packed))
    assert Prefix.from_packed(packed, 96) == Prefix(4, 0, 0)
    assert Prefix.from_packed(packed, 95).family == 6
    assert plain.packed == b"\xc0\x00\x02\x07"


@pytest.mark.parametrize(
    ("family", "first", "length"),
    [(4, 0, 33), (4, 0, -1), (4, 1 << 32, 32), (4, -1, 32), (6, 0, 129), (6, 1 << 128, 128), (6, -1, 0)],
)
def test_the_constructor_refuses_what_does_not_exist(family: int, first: int, length: int) -> None:
    with pytest.raises(ValueError, match="no such prefix"):
        Prefix(family, first, length)


def test_host_bits_are_cleared_and_the_ends_are_right() -> None:
    prefix = Prefix(4, 0xC00002FF, 25)
    assert (prefix.first, prefix.last) == (0xC0000280, 0xC00002FF)
    assert prefix.address == "192.0.2.128"
    assert not prefix.is_single
    everything = Prefix.parse("::/0")
    assert (everything.first, everything.last) == (0, (1 << 128) - 1)


def test_widening_never_narrows() -> None:
    address = Prefix.parse("2001:db8:1:2:3::4")
    assert str(address.widened(64)) == "2001:db8:1:2::/64"
    assert address.widened(64).widened(128) == address.widened(64)
    assert Prefix.parse("192.0.2.0/24").widened(24) == Prefix.parse("192.0.2.0/24")
    assert str(Prefix.parse("192.0.2.200").widened(0)) == "0.0.0.0/0"


def test_containing_and_overlapping() -> None:
    wide, narrow, beside = P("192.0.2.0/24"), P("192.0.2.128/25"), P("192.0.3.0/24")
    assert wide.contains(narrow)
    assert wide.contains(wide)
    assert not narrow.contains(wide)
    assert wide.overlaps(narrow)
    assert narrow.overlaps(wide)
    assert not wide.overlaps(beside)
    assert not wide.contains(beside)


def test_families_never_meet() -> None:
    four, six = P("0.0.0.0/0"), P("::/0")
    assert not four.contains(six)
    assert not six.contains(P("192.0.2.7"))
    assert not six.overlaps(four)
    both = PrefixSet([six])
    assert not both.contains(P("192.0.2.7"))
    assert not both.overlaps(four)


def test_a_set_merges_what_overlaps_and_what_touches() -> None:
    made = PrefixSet(map(P, ["192.0.2.128/25", "192.0.2.0/25", "192.0.2.64/26", "192.0.4.0/24", "2001:db8::/32"]))
    assert made.ranges(4) == [(0xC0000200, 0xC00002FF), (0xC0000400, 0xC00004FF)]
    assert [str(p) for p in made.prefixes()] == ["192.0.2.0/24", "192.0.4.0/24", "2001:db8::/32"]
    assert made == PrefixSet(map(P, ["2001:db8::/32", "192.0.4.0/24", "192.0.2.0/24"]))
    assert hash(made) == hash(PrefixSet(made.prefixes()))
    assert repr(made) == "PrefixSet(192.0.2.0/24, 192.0.4.0/24, 2001:db8::/32)"


def test_a_prefix_over_two_ranges_overlaps_and_is_not_contained() -> None:
    made = PrefixSet(map(P, ["192.0.2.0/26", "192.0.2.128/25"]))
    assert made.overlaps(P("192.0.2.0/24"))
    assert not made.contains(P("192.0.2.0/24"))
    assert not made.overlaps(P("192.0.2.64/26"))
    assert made.contains(P("192.0.2.255"))
    assert not PrefixSet().overlaps(P("0.0.0.0/0"))
    assert not PrefixSet()


def test_subtracting_splits_and_keeps_the_last_address() -> None:
    left = PrefixSet([P("0.0.0.0/0")]).minus(PrefixSet([P("255.255.255.254/31"), P("0.0.0.0/8"), P("10.0.0.0")]))
    assert left.ranges(4) == [(1 << 24, (10 << 24) - 1), ((10 << 24) + 1, (1 << 32) - 3)]
    everything = PrefixSet([P("::/0")])
    assert everything.minus(PrefixSet([P("ffff::/16")])).ranges(6)[-1][1] == (0xFFFF << 112) - 1
    assert not everything.minus(everything)
    assert everything.minus(PrefixSet()) == everything


def test_range_ends_at_the_edges_of_the_universe() -> None:
    assert list(map(str, range_prefixes(4, 0, (1 << 32) - 1))) == ["0.0.0.0/0"]
    assert next(map(str, range_prefixes(6, (1 << 128) - 1, (1 << 128) - 1))).startswith("ffff:ffff")
    assert list(map(str, range_prefixes(4, 1, 2))) == ["0.0.0.1", "0.0.0.2"]
    assert list(range_prefixes(4, 2, 1)) == []
    assert len(list(range_prefixes(4, 1, (1 << 32) - 2))) == 62


def test_an_ipv6_range_never_turns_into_ipv4() -> None:
    """As a prefix ::ffff:0:0/96 is 0.0.0.0/0: an IPv6 feed with a hole beside it must not ban all of IPv4."""
    left = PrefixSet([P("::/0")]).minus(PrefixSet([P("::fffe:0:0/96")]))
    made = list(left.prefixes())
    assert {p.family for p in made} == {6}
    around = PrefixSet(made)
    assert around.ranges(6) == [(0, (0xFFFE << 32) - 1), (0x10000 << 32, (1 << 128) - 1)]
    assert list(range_prefixes(6, MAPPED + 5, MAPPED + 9)) == []


def test_order_is_by_family_then_address_then_width() -> None:
    texts = ["192.0.2.0/24", "192.0.2.0/25", "192.0.2.1", "::", "2001:db8::/32"]
    assert [str(p) for p in sorted(map(P, reversed(texts)))] == texts
