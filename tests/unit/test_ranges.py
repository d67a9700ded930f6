"""Arrays of ranges do what PrefixSet does."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.prefixes import BITS, Prefix, PrefixSet
from nftban.ranges import Ranges, Spans, keys, numbers


def _near_the_ends(family: int) -> st.SearchStrategy[Prefix]:
    """Prefixes close together, at the bottom and the top of the family and around a carry into the upper half."""
    top = (1 << BITS[family]) - 64
    base = st.sampled_from([0, top, (1 << 96) * 0x2001 + (1 << 64) - 32 if family == 6 else 0x0A000000])
    return st.builds(
        lambda at, offset, wider: Prefix(family, at + offset, BITS[family] - wider),
        base,
        st.integers(0, 63),
        st.integers(0, 6),
    )


prefixes = st.lists(st.one_of(_near_the_ends(4), _near_the_ends(6)), max_size=12)


def as_written(given: list[Prefix]) -> Ranges:
    """Unmerged, in the order given, made into Ranges."""
    return Ranges.merged(*(Spans.of(f, [(p.first, p.last) for p in given if p.family == f]) for f in (4, 6)))


@given(prefixes, prefixes, prefixes)
@settings(max_examples=300, deadline=None)
def test_the_same_as_prefix_sets(one: list[Prefix], other: list[Prefix], asked: list[Prefix]) -> None:
    a, b = as_written(one), as_written(other)
    plain_a, plain_b = PrefixSet(one), PrefixSet(other)
    assert a == Ranges.of(plain_a)
    assert a.minus(b) == Ranges.of(plain_a.minus(plain_b))
    assert a.common(b) == Ranges.of(plain_a.minus(plain_a.minus(plain_b)))
    assert Ranges.union([a, b, a]) == Ranges.of(plain_a.union(plain_b))
    assert a.prefix_set() == plain_a
    assert a.contains_each(asked) == [plain_a.contains(p) for p in asked]
    assert a.addresses4 == sum(last - first + 1 for first, last in plain_a.ranges(4))
    assert a.addresses6 == sum(last - first + 1 for first, last in plain_a.ranges(6))


def test_everything_minus_a_hole_is_two_ranges() -> None:
    for family, hole in ((4, "192.0.2.0/24"), (6, "2001:db8::/32")):
        whole = Ranges.of(PrefixSet([Prefix(family, 0, 0)]))
        prefix = Prefix.parse(hole)
        left = whole.minus(Ranges.of(PrefixSet([prefix])))
        assert left.family(family).pairs() == [(0, prefix.first - 1), (prefix.last + 1, (1 << BITS[family]) - 1)]
        assert len(whole.minus(whole)) == 0


def test_ipv6_addresses_that_end_in_zero_bytes_stay_what_they_are() -> None:
    written = [0, 1 << 127, 0x20010DB8 << 96, 255]
    assert numbers(keys(6, written)) == written


def test_no_range_holds_nothing() -> None:
    assert Ranges().contains_each([Prefix.parse("192.0.2.1"), Prefix.parse("2001:db8::1")]) == [False, False]
    assert len(Ranges().minus(Ranges())) == 0 and len(Ranges.union([])) == 0


def test_a_million_are_looked_up_like_a_few() -> None:
    chance = random.Random(4)
    addresses = sorted(chance.sample(range(1 << 32), 200_000))
    held = Ranges.merged(Spans(keys(4, addresses), keys(4, addresses)))
    asked = [Prefix(4, n, 32) for n in chance.sample(addresses, 500)] + [
        Prefix(4, chance.getrandbits(32), 32) for _ in range(500)
    ]
    listed = set(addresses)
    assert held.contains_each(asked) == [p.first in listed for p in asked]
