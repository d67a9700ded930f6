"""Addresses that nobody has on the internet, and those that must stay reachable, are cut out."""

from __future__ import annotations

from collections.abc import Callable

from nftban.daemon.feeds import feed_elements
from nftban.feeds.guards import Refusal
from nftban.kernel.layout import FeedSets
from nftban.prefixes import Prefix, PrefixSet
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


def test_special_addresses_are_cut_out(judged: Judged) -> None:
    entries = (
        "9.255.128.0-10.0.0.5",
        "10.1.2.3",
        "172.15.255.0-172.16.0.9",
        "2001:db8::1",
        "fe80::1",
        "::1",
        "2a00::1",
    )
    text = "\n".join((*entries, "::ffff:10.0.0.1"))
    assert [str(p) for p in ok(judged(text)).prefixes()] == ["9.255.128.0/17", "172.15.255.0/24", "2a00::1"]


def test_protected_addresses_split_the_ranges_that_hold_them() -> None:
    listed = Ranges.of(PrefixSet(map(Prefix.parse, ["45.0.0.0/24", "2a00::/64"])))
    protected = PrefixSet(map(Prefix.parse, ["45.0.0.7", "45.0.0.250/31", "2a00::1", "46.0.0.1"]))
    sets = feed_elements(FeedSets("own", "all"), listed, protected, 7.0)
    left = Ranges(sets["feed4_own"].spans, sets["feed6_own"].spans)
    assert left.prefix_set() == listed.prefix_set().minus(protected)
    assert [str(p) for p in left.prefixes()][:4] == ["45.0.0.0/30", "45.0.0.4/31", "45.0.0.6", "45.0.0.8/29"]
    assert len(left.v4) == 3 and sets["feed4_own"].end == 7.0
