"""A list feed's sets in the real kernel: made, filled, compared, changed while packets fly, gone with the feed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nftban.kernel.columns import RangeColumns
from nftban.kernel.layout import DEFAULT, FeedSets, Kind, ruleset_text
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import BITS, Prefix
from nftban.ranges import Spans
from nftban.records import Delta, Element

pytestmark = pytest.mark.usefixtures("netns")

LAYOUT = replace(DEFAULT, feeds=(FeedSets("drop"), FeedSets("bots-de", "smtp")))


@pytest.fixture
def kernel(netns: object) -> Iterator[NetlinkKernel]:
    with NetlinkKernel(LAYOUT) as made:
        made.create()
        yield made


def nft(*arguments: str, stdin: str = "") -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True, input=stdin).stdout


def spread(family: int, count: int, end: float, name: str = "drop") -> RangeColumns:
    """Ranges of 1 to 4 addresses all over the family's space, the last one up to its end."""
    step = (1 << BITS[family]) // count
    pairs = [(i * step + step - 1 - i % 4, i * step + step - 1) for i in range(count)]
    return RangeColumns(f"feed{family}_{name}", Spans.of(family, pairs), end)


def test_the_snippet_with_feeds_is_what_netlink_makes(kernel: NetlinkKernel) -> None:
    by_netlink = nft("-s", "list", "ruleset")
    nft("flush", "ruleset")
    nft("-f", "-", stdin=ruleset_text(LAYOUT))
    assert nft("-s", "list", "ruleset") == by_netlink
    assert kernel.drift() == []
    assert "flags interval,timeout" in by_netlink.partition("set feed4_drop")[2].partition("}")[0]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("count", [3, 700, 3000])
def test_a_feed_is_filled_compared_and_changed(kernel: NetlinkKernel, family: int, count: int) -> None:
    now = time.time()
    feed = spread(family, count, now + 3600)
    by_set = {feed.set: feed}
    everything = kernel.compare(by_set, now)
    assert everything.missing == count and not everything.add
    assert kernel.apply(everything, now) == []
    assert kernel.present(now, {feed.set}) == list(feed)
    assert not kernel.compare(by_set, now)
    assert kernel.lacking(feed[: count // 2], now) == Delta()
    assert (feed.set in kernel.in_doubt(by_set, now, {})) == (count <= 500)
    assert kernel.in_doubt({feed.set: feed[1:]}, now, {}) >= {feed.set}, "one more than there should be"
    # The feed changes: what differs is exchanged.
    newer = RangeColumns(feed.set, feed[1:].spans, now + 7200)
    delta = kernel.compare({feed.set: newer}, now)
    assert (delta.missing, delta.delete, len(delta.refresh)) == (0, (feed[0],), count - 1)
    assert kernel.apply(delta, now) == []
    assert not kernel.compare({feed.set: newer}, now)
    assert all(abs((e.until or 0) - now - 7200) < 1 for e in kernel.present(now, {feed.set}))
    # Somebody flushes the set, or takes one out.
    assert kernel.apply(Delta(delete=(newer[count // 2],)), now) == []
    assert list(kernel.compare({feed.set: newer}, now).added()) == [newer[count // 2]]
    assert kernel.lacking(newer, now) is None
    nft("flush", "set", "inet", "nftban", feed.set)
    assert kernel.compare({feed.set: newer}, now).missing == count - 1
    # Nobody confirmed it for too long: nothing of it is wanted any more.
    assert not kernel.compare({feed.set: newer}, now + 7201)


def test_what_covers_an_address_names_the_feed(kernel: NetlinkKernel) -> None:
    now = time.time()
    prefix = Prefix.parse("198.51.100.0/22")
    for name, scope in (("drop", "all"), ("bots-de", "smtp")):
        element = Element(f"feed4_{name}", prefix.first, prefix.last, now + 60)
        assert kernel.apply(Delta(add=(element,)), now) == []
        assert (f"feed4_{name}", scope) in [(f.element.set, f.scope) for f in kernel.find(prefix, now)]
    specs = [LAYOUT.address_sets[f.element.set] for f in kernel.find(Prefix.parse("198.51.100.7"), now)]
    assert [(s.kind, s.feed) for s in specs] == [(Kind.FEED, "drop"), (Kind.FEED, "bots-de")]


def test_a_feed_that_is_no_longer_enforced_leaves_the_table_and_no_ban_with_it(kernel: NetlinkKernel) -> None:
    now = time.time()
    ban = DEFAULT.place(Prefix.parse("192.0.2.7"), "all", now + 600)
    assert kernel.apply(Delta(add=(ban,), fill=(spread(4, 1000, now + 600),)), now) == []
    with NetlinkKernel(replace(LAYOUT, feeds=LAYOUT.feeds[1:])) as later:
        assert later.create()
        assert "feed4_drop" not in nft("list", "ruleset")
        assert [e.first for e in later.present(now)] == [ban.first]
    # And a new one comes in beside what is there.
    assert kernel.create()
    assert [e.first for e in kernel.present(now)] == [ban.first]
