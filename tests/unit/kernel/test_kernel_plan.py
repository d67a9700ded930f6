from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nftban.kernel.layout import ALL, Kind, Layout, Scope
from nftban.kernel.memory import MemoryKernel
from nftban.kernel.plan import TOLERANCE, difference
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, Element, Origin
from tests.intent import desired

LAYOUT = Layout(scopes=(Scope("ssh", (22,)),))
NOW = 1000.0
NOBODY = PrefixSet()


def ban(text: str, until: float | None, scope: str = ALL) -> Ban:
    return Ban(Prefix.parse(text), scope, 0.0, until, Origin.MANUAL)


def shown(elements: list[Element]) -> list[tuple[str, str, float | None]]:
    """(set, first-last, until), addresses as text."""
    rows = []
    for e in elements:
        family = LAYOUT.address_sets[e.set].family
        bits = 32 if family == 4 else 128
        ends = [Prefix(family, end, bits).address for end in (e.first, e.last)]
        rows.append((e.set, "-".join(dict.fromkeys(ends)), e.until))
    return rows


def test_the_later_end_wins_and_permanent_over_all() -> None:
    bans = [
        ban("192.0.2.7", 2000.0),
        ban("192.0.2.7", 3000.0),
        ban("192.0.2.7", 1500.0),
        ban("192.0.2.7", 1500.0, "ssh"),
    ]
    assert shown(desired(bans, NOBODY, LAYOUT, NOW)) == [
        ("ban4_all", "192.0.2.7", 3000.0),
        ("ban4_ssh", "192.0.2.7", 1500.0),
    ]
    assert shown(desired([*bans, ban("192.0.2.7", None)], NOBODY, LAYOUT, NOW))[0] == ("ban4_all", "192.0.2.7", None)


def test_what_is_over_is_not_desired() -> None:
    assert desired([ban("192.0.2.7", NOW), ban("10.0.0.0/8", NOW - 1)], NOBODY, LAYOUT, NOW) == []


def test_nested_ranges_are_cut_so_that_each_address_has_its_latest_end() -> None:
    bans = [
        ban("10.0.0.0/8", 2000.0),
        ban("10.16.0.0/12", 3000.0),
        ban("10.16.0.0/16", 1500.0),
        ban("10.31.0.0/16", None),
    ]
    assert shown(desired(bans, NOBODY, LAYOUT, NOW)) == [
        ("ban4range_all", "10.0.0.0-10.15.255.255", 2000.0),
        ("ban4range_all", "10.16.0.0-10.30.255.255", 3000.0),
        ("ban4range_all", "10.31.0.0-10.31.255.255", None),
        ("ban4range_all", "10.32.0.0-10.255.255.255", 2000.0),
    ]


def test_neighbours_are_joined_only_with_the_same_end() -> None:
    bans = [
        ban("10.0.0.0/16", 2000.0),
        ban("10.1.0.0/16", 2000.0),
        ban("10.2.0.0/16", 2000.5),
        ban("10.4.0.0/16", 2000.5),
    ]
    assert shown(desired(bans, NOBODY, LAYOUT, NOW)) == [
        ("ban4range_all", "10.0.0.0-10.1.255.255", 2000.0),
        ("ban4range_all", "10.2.0.0-10.2.255.255", 2000.5),
        ("ban4range_all", "10.4.0.0-10.4.255.255", 2000.5),
    ]


def test_the_allow_list_is_merged_and_permanent() -> None:
    allow = PrefixSet(map(Prefix.parse, ("192.0.2.0/25", "192.0.2.128/25", "192.0.2.7", "::1")))
    assert shown(desired([], allow, LAYOUT, NOW)) == [
        ("allow4", "192.0.2.0-192.0.2.255", None),
        ("allow6", "::1", None),
    ]


def test_only_what_differs_is_in_the_difference() -> None:
    present = [
        Element("ban4_all", n, n, until) for n, until in ((1, 2000.0), (2, 2000.0), (3, None), (4, 2000.0), (6, NOW))
    ]
    wanted = [
        Element("ban4_all", n, n, until) for n, until in ((1, 2000.9), (2, 2001.1), (3, 2000.0), (5, None), (7, NOW))
    ]
    delta = difference(wanted, present, NOW)
    assert [e.first for e in delta.add] == [5]
    assert [(e.first, e.until) for e in delta.refresh] == [(2, 2001.1), (3, 2000.0)]
    assert [e.first for e in delta.delete] == [4]
    assert not difference(wanted, wanted, NOW)


BANS = st.lists(
    st.builds(
        lambda family, bits, length, scope, until: Ban(
            Prefix(family, bits << (24 if family == 4 else 60), length), scope, 0.0, until, Origin.MANUAL
        ),
        st.sampled_from([4, 6]),
        st.integers(0, 15),
        st.integers(0, 32),
        st.sampled_from([ALL, "ssh"]),
        st.one_of(st.none(), st.floats(NOW - 10, NOW + 1000)),
    ),
    max_size=15,
)


@given(BANS, BANS, st.lists(st.integers(0, 300), max_size=5))
def test_the_difference_applied_gives_what_is_desired(before: list[Ban], after: list[Ban], allowed: list[int]) -> None:
    kernel = MemoryKernel(LAYOUT, lambda: NOW)
    kernel.create()
    for bans in (before, after):
        wanted = desired(bans, PrefixSet(Prefix(4, n << 8, 24) for n in allowed), LAYOUT, NOW)
        assert kernel.apply(difference(wanted, kernel.present(NOW), NOW), NOW) == []
        present = kernel.present(NOW)
        assert present == wanted
        for have, want in zip(present, wanted, strict=True):
            assert have.until == want.until or abs((have.until or 0) - (want.until or 0)) <= TOLERANCE
        assert not difference(wanted, present, NOW)


@given(BANS)
def test_every_address_has_the_latest_end_of_the_ranges_that_cover_it(bans: list[Ban]) -> None:
    elements = desired(bans, NOBODY, LAYOUT, NOW)
    spots = {p for b in bans for p in (b.prefix.first, b.prefix.last, b.prefix.first - 1, b.prefix.last + 1)}
    for spec in LAYOUT.address_sets.values():
        if spec.kind is not Kind.RANGE:
            continue
        pieces = [e for e in elements if e.set == spec.name]
        assert all(a.last < b.first for a, b in pairwise(pieces))
        ranges = [b for b in bans if b.holds(NOW) and LAYOUT.place(b.prefix, b.scope).set == spec.name]
        for spot in spots:
            ends = [b.until for b in ranges if b.prefix.first <= spot <= b.prefix.last]
            held = [e.until for e in pieces if e.first <= spot <= e.last]
            lasting = None if None in ends else max((u for u in ends if u is not None), default=None)
            assert held == ([lasting] if ends else [])
