"""Invariants of feeds: whatever the bytes, a format gives entries and bad lines with their numbers, and never raises;
what passes the guards holds no bogon and no canary."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.feeds.definitions import parse_feeds
from nftban.feeds.formats import FORMATS
from nftban.feeds.guards import BOGONS, CANARIES, Limits, Refusal, examined
from nftban.prefixes import PrefixSet
from nftban.ranges import Ranges

piece = st.sampled_from([
    b"10.0.0.1", b"45.0.0.0/24", b"0.0.0.0/0", b"8.8.8.8", b"2a00::1", b"2a00::/32", b"::/0", b"1.2.3", b"1-2", b"!",
    b":2:x", b":", b"$", b"#", b";", b"$TIMESTAMP 2026", b"$TIMESTAMP 9999-12-31 +999999999w", b"$MAXRANGE4 /",
    b"$DATASET ip4set x", b"$DATASET ip6trie", b"\n", b"\n", b"\r\n", b" ", b"\t", b"/", b"-", b".", b"\xff", b"\x00",
    b"<", b"{", b'{"cidr":"45.0.0.0/8"}', b'{"type":"metadata","records":1e999}', b'"', b"@ IN A 127.0.0.2",
    b"$ORIGIN a.", b"* IN TXT x", b"IN SOA a. b. 1 1 1 1 1", b"32.1.0.0.10.rpz-ip CNAME .", b"(", b"01",
    b"999999999999999999999", b"\xef\xbb\xbf",
])  # fmt: skip
text = st.one_of(st.lists(piece, max_size=40).map(b"".join), st.binary(max_size=200))


@pytest.mark.parametrize("kind", sorted(FORMATS))
@given(text, st.integers(1, 50))
@settings(max_examples=250, deadline=None)
def test_a_format_never_raises_and_names_lines_that_are_there(kind: str, data: bytes, size: int) -> None:
    parsed = FORMATS[kind](data[i : i + size] for i in range(0, len(data), size))
    assert parsed == FORMATS[kind]([data])
    lines = data.count(b"\n") + 1
    assert all(1 <= bad.position <= lines and bad.why for bad in parsed.bad)
    assert [bad.position for bad in parsed.bad] == sorted(bad.position for bad in parsed.bad)
    assert len(parsed.bad) == min(parsed.bad_count, 20) and 0 <= parsed.count <= lines * 3
    for held in (parsed.ranges, *parsed.codes.values()):
        pairs = [held.family(family).pairs() for family in (4, 6)]
        for ranges in pairs:
            assert all(first <= last for first, last in ranges)
            assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
    if parsed.codes:
        assert Ranges.union(parsed.codes.values()) == parsed.ranges


@pytest.mark.parametrize("kind", sorted(FORMATS))
@given(text)
@settings(max_examples=100, deadline=None)
def test_what_passes_the_guards_is_clean(kind: str, data: bytes) -> None:
    found = examined(FORMATS[kind]([data]), Limits(), None, CANARIES, Ranges.of(BOGONS), 1_800_000_000.0)
    if isinstance(found, Refusal):
        assert found.guard and found.why
    else:
        assert not found.common(Ranges.of(BOGONS))
        assert not found.common(Ranges.of(PrefixSet(CANARIES)))
        assert found.addresses4 <= 0.005 * (1 << 32)


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_definitions_are_feeds_or_faults(written: str) -> None:
    feeds, faults = parse_feeds(f'[[feed]]\nname = "x"\nformat = "netset"\n{written}', "own.toml")
    assert len(feeds) + len(faults) >= 1
