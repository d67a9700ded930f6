"""Lists into kernel sets: whatever the old list and the new one, no address on both is out between the parts."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.daemon import enforced
from nftban.daemon.bans import Bans
from nftban.daemon.enforced import Change, Enforced
from nftban.daemon.feeds import FeedInUse
from nftban.feeds.definitions import Feed
from nftban.kernel.columns import RangeColumns
from nftban.kernel.layout import FeedSets, Layout
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix, PrefixSet
from nftban.ranges import Ranges, Spans
from nftban.records import Ban, Delta, Element, Origin
from nftban.store.sqlite import Store
from tests.contract.test_kernel_backends import fresh_network

FEED = Feed("own", "netset", "file", "/list")
LAYOUT = Layout(feeds=(FeedSets("own"),))
SET = "feed4_own"

prefix = st.builds(Prefix, st.just(4), st.integers(0, 120), st.integers(26, 32))
listed = st.lists(prefix, max_size=40).map(lambda prefixes: Ranges.of(PrefixSet(prefixes)).v4)


def addresses(elements: set[Element]) -> set[int]:
    return {address for e in elements for address in range(e.first, e.last + 1)}


@given(listed, listed, st.integers(1, 6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_address_of_both_lists_is_out_between_the_parts(old: Spans, new: Spans, size: int, later: bool) -> None:
    held, wanted = RangeColumns(SET, old, 100.0), RangeColumns(SET, new, 200.0 if later else 100.0)
    there: dict[Element, float | None] = {e: e.until for e in held}
    both = addresses(set(held)) & addresses(set(wanted))
    for delta in Change.between(held, wanted).turns(size):
        for element in delta.delete:
            del there[element]
        for element in delta.refresh:
            assert element in there
            there[element] = element.until
        for element in delta.added():
            assert element not in there
            there[element] = element.until
        assert both <= addresses(set(there))
        # The kernel refuses overlaps.
        assert len(addresses(set(there))) == sum(e.last - e.first + 1 for e in there)
    assert set(there) == set(wanted) and set(there.values()) <= {wanted.end}


def spread(count: int, width: int = 2) -> Ranges:
    """So many ranges of some addresses."""
    step = (1 << 31) // count
    return Ranges(Spans.of(4, [(first, first + width - 1) for first in range(1 << 24, (1 << 24) + count * step, step)]))


@dataclass
class Real:
    """The real kernel, bans, and the feed."""

    kernel: NetlinkKernel
    bans: Bans

    async def hold(self, enforced: Enforced, ranges: Ranges, end: float, allow: PrefixSet | None = None) -> None:
        assert await enforced.hold({"own": ranges}, {"own": end}, allow or PrefixSet()) == []
        assert Ranges.of(PrefixSet(p for e in self.present() for p in LAYOUT.prefixes(e))) == ranges.minus(
            Ranges.of(allow or PrefixSet())
        )
        assert not self.bans.difference(time.time(), exact=True)

    def present(self) -> list[Element]:
        return self.kernel.present(time.time(), [SET, "feed6_own"])


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    store = Store(tmp_path / "state.db")
    with fresh_network(), NetlinkKernel(LAYOUT) as kernel:
        kernel.create()
        bans = Bans(store, kernel, LAYOUT, PrefixSet())
        yield Real(kernel, bans)
    store.close()


@asynccontextmanager
async def enforcing(real: Real) -> AsyncIterator[Enforced]:
    """As a daemon begins: with a socket of its own for comparisons."""
    use = FeedInUse(FEED, True, "all", 0)
    made = Enforced([use], real.bans, real.kernel, NetlinkKernel(LAYOUT), time.time)
    try:
        yield made
    finally:
        await made.close()


def play(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_filled_changed_restarted_and_let_go(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforced, "TURN", 300)
    end = time.time() + 7200

    async def on() -> None:
        async with enforcing(real) as made:
            await real.hold(made, spread(5000), end)
            await real.hold(made, spread(5000, 3), end)
            await real.hold(made, spread(5000, 3), end + 3600)
            assert all(abs((e.until or 0) - end - 3600) < 1 for e in real.present())
            allowed = PrefixSet([Prefix(4, (1 << 24) + 1, 32)])
            await real.hold(made, spread(5000, 3), end + 3600, allowed)
            await real.hold(made, spread(4000), end + 3600)
        real.bans.feeds.clear()
        before = real.present()
        async with enforcing(real) as made:
            await real.hold(made, spread(4000), end + 3600)
            assert real.present() == before
        real.bans.feeds.clear()
        async with enforcing(real) as made:
            await real.hold(made, spread(4100, 5), end + 7200)
            await real.hold(made, Ranges(), end)
            assert real.present() == []

    play(on())


def test_others_have_a_turn_between_the_parts(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ban is in the kernel while the list is half there, and who looks then takes nothing for drift."""
    monkeypatch.setattr(enforced, "TURN", 300)
    seen: list[int] = []

    async def other() -> None:
        while not seen or seen[-1] < 4800:
            now = time.time()
            ban = Ban(Prefix(4, 0x01000100 + len(seen), 32), "all", now, now + 60, Origin.MANUAL)
            assert real.bans.place(ban, now) == []
            assert not real.bans.difference(now)
            count = real.kernel.counts()[SET]
            assert count is not None
            seen.append(count)
            await asyncio.sleep(0)

    async def on() -> None:
        async with enforcing(real) as made:
            task = asyncio.create_task(other())
            await real.hold(made, spread(5000), time.time() + 3600)
            await task

    play(on())
    assert len({count for count in seen if 0 < count < 5000}) >= 5


def test_a_table_that_is_taken_away_in_the_middle(real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforced, "TURN", 300)

    async def thief() -> None:
        while not (real.kernel.counts()[SET] or 0) > 1000:
            await asyncio.sleep(0)
        real.kernel.remove()

    async def on() -> None:
        async with enforcing(real) as made:
            task = asyncio.create_task(thief())
            await real.hold(made, spread(5000), time.time() + 3600)
            await task

    play(on())


def test_a_set_that_somebody_flushed_is_drift_and_one_that_is_whole_is_not_asked_for_each(real: Real) -> None:
    async def on() -> None:
        async with enforcing(real) as made:
            await real.hold(made, spread(3000), time.time() + 3600)
        subprocess.run(["nft", "flush", "set", "inet", "nftban", SET], check=True)
        delta = real.bans.difference(time.time())
        assert delta.missing == 3000
        assert real.kernel.apply(delta, time.time()) == []
        assert not real.bans.difference(time.time(), exact=True)
        # One taken and another put in its place: the number is right, and the next checks find it piece by piece.
        one = real.bans.feeds[SET][2500]
        stranger = Element(SET, one.first + 100, one.first + 101, one.until)
        assert real.kernel.apply(Delta(add=(stranger,), delete=(one,)), time.time()) == []
        assert not real.bans.difference(time.time())
        found = [piece(time.time()) for piece in real.bans.pieces({SET})]
        assert [(d.add, d.delete) for d in found if d] == [((one,), (stranger,))]

    play(on())
