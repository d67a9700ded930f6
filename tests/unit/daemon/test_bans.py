"""Bans held together in store, kernel and memory: what each holds after each step, on every kernel there is.

The netlink kernel is the real nf_tables of a network namespace of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nftban.daemon.bans import Bans
from nftban.errors import StoreError
from nftban.kernel import Kernel
from nftban.kernel.layout import FeedSets, Layout, Scope
from nftban.kernel.memory import MemoryKernel
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.plan import difference
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, Delta, Element, Origin
from nftban.store.sqlite import Store
from tests.contract.test_kernel_backends import fresh_network
from tests.intent import desired
from tests.unit.daemon.tiny import Disk, on_small_disk

LAYOUT = Layout(scopes=(Scope("smtp", (25,)),), feeds=(FeedSets("drop"),))
ALLOW = PrefixSet([Prefix.parse("203.0.113.1")])


class Trio:
    """Bans over one store and one kernel; `restart` begins anew with them."""

    def __init__(self, store: Store, kernel: Kernel) -> None:
        self.store, self.kernel, self.now = store, kernel, time.time()
        self.restart()

    def restart(self, layout: Layout = LAYOUT) -> None:
        self.layout = layout
        self.bans = Bans(self.store, self.kernel, layout, ALLOW)
        self.bans.load(self.now)
        self.bans.reconcile(ALLOW, self.now)

    def place(self, prefix: str, seconds: float | None = 3600, scope: str = "all") -> None:
        until = None if seconds is None else self.now + seconds
        assert self.bans.place(Ban(Prefix.parse(prefix), scope, self.now, until, Origin.MANUAL), self.now) == []

    def lift(self, prefix: str, scope: str = "all") -> bool:
        return self.bans.lift(Prefix.parse(prefix), scope, self.now, "unbanned")

    def left(self, address: str, scope: str = "all") -> float | None:
        """Seconds for which the kernel still bans it: 0 not at all, None for ever."""
        found = [f for f in self.kernel.find(Prefix.parse(address), self.now) if f.scope == scope]
        if not found:
            return 0
        untils = [f.element.until for f in found]
        return None if None in untils else round(max(u for u in untils if u is not None) - self.now)

    def live(self) -> list[str]:
        """The bans in memory, which must be those in the store and in the kernel."""
        in_store = {(s.ban.prefix, s.ban.scope, s.ban.until) for s in self.store.live_bans(self.now)}
        ends = {(s.ban.prefix, s.ban.scope, s.ban.until) for key in self.bans if (s := self.bans.get(*key))}
        assert ends == in_store
        wanted = desired((s.ban for s in self.bans.all(self.now)), ALLOW, self.layout, self.now)
        assert difference(wanted, self.kernel.present(self.now), self.now) == Delta()
        return sorted(str(prefix) for prefix, _ in self.bans)


@pytest.fixture(params=["memory", "netlink"])
def trio(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trio]:
    store = Store(tmp_path / "state.db")
    if request.param == "memory":
        yield Trio(store, MemoryKernel(LAYOUT, time.time))
    else:
        with fresh_network(), NetlinkKernel(LAYOUT) as kernel:
            yield Trio(store, kernel)
    store.close()


@pytest.mark.parametrize("prefix", ["203.0.113.7", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::7", "2001:db8::/64"])
def test_a_ban_from_its_beginning_to_its_end(trio: Trio, prefix: str) -> None:
    trio.place(prefix, 600, "smtp")
    address = prefix.partition("/")[0]
    assert trio.live() == [prefix]
    assert (trio.left(address, "smtp"), trio.left(address)) == (600, 0)
    assert not trio.lift(prefix), "another scope"
    assert trio.lift(prefix, "smtp")
    assert (trio.live(), trio.left(address, "smtp")) == ([], 0)
    assert not trio.lift(prefix, "smtp")


@pytest.mark.parametrize("prefix", ["203.0.113.7", "203.0.113.0/24", "198.18.0.0/15"])
def test_the_last_word_about_a_prefix_counts(trio: Trio, prefix: str) -> None:
    """Also where it shortens, and where a ban for ever becomes one with an end."""
    address = prefix.partition("/")[0]
    for seconds in (600.0, 3600.0, 60.0, None, 600.0):
        trio.place(prefix, seconds)
        assert trio.left(address) == seconds
        assert trio.live() == [prefix]
    ends = [s.how for s in trio.store.bans_covering(Prefix.parse(prefix))]
    assert ends == [None, *["extended"] * 4]


def test_a_ban_inside_another_begins_and_ends_alone(trio: Trio) -> None:
    for outer, inner in [
        ("203.0.112.0/22", "203.0.113.7"),
        ("203.0.112.0/22", "203.0.113.0/24"),
        ("203.0.112.0/22", "203.0.113.0/25"),
        ("203.0.113.0/24", "203.0.113.7"),
    ]:
        trio.place(outer, 600)
        trio.place(inner, 60)
        assert trio.live() == sorted([outer, inner])
        assert trio.left("203.0.113.7") == 600
        assert trio.lift(inner)
        assert (trio.live(), trio.left("203.0.113.7")) == ([outer], 600)
        trio.place(inner, 3600)
        assert trio.left("203.0.113.7") == 3600
        assert trio.lift(outer)
        assert (trio.live(), trio.left("203.0.113.7"), trio.left("203.0.112.1")) == ([inner], 3600, 0)
        assert trio.lift(inner)
        assert trio.live() == []


def test_of_overlapping_ranges_the_latest_end_counts(trio: Trio) -> None:
    trio.place("198.18.0.0/16", 600)
    trio.place("198.18.0.0/15", 60)
    trio.place("198.18.64.0/18", None)
    assert [trio.left(a) for a in ("198.18.0.1", "198.18.64.1", "198.18.128.1", "198.19.0.1")] == [600, None, 600, 60]
    trio.place("198.18.64.0/18", 30)
    assert [trio.left(a) for a in ("198.18.0.1", "198.18.64.1", "198.18.128.1", "198.19.0.1")] == [600, 600, 600, 60]
    assert trio.lift("198.18.0.0/16")
    assert [trio.left(a) for a in ("198.18.0.1", "198.18.64.1", "198.18.128.1", "198.19.0.1")] == [60] * 4
    assert trio.live() == ["198.18.0.0/15", "198.18.64.0/18"]


def test_after_a_restart_the_kernel_holds_the_bans_and_nothing_else(trio: Trio) -> None:
    for prefix, seconds in (("203.0.113.7", 600), ("203.0.113.0/24", None), ("198.18.0.0/15", 60), ("2001:db8::1", 9)):
        trio.place(prefix, seconds)
    strange = LAYOUT.place(Prefix.parse("203.0.113.99"), "smtp")
    trio.kernel.remove()
    trio.kernel.create()
    trio.kernel.apply(Delta(add=(strange,)), trio.now)
    trio.restart()
    assert trio.live() == ["198.18.0.0/15", "2001:db8::1", "203.0.113.0/24", "203.0.113.7"]
    assert trio.left("203.0.113.99", "smtp") == 0


@pytest.mark.parametrize("prefix", ["203.0.113.9", "198.51.100.0/22"])
def test_a_table_that_is_gone_comes_back_whole_with_the_next_step(trio: Trio, prefix: str) -> None:
    others = ["198.18.0.0/15", "203.0.113.7"]
    for other in others:
        trio.place(other)
    trio.kernel.remove()
    trio.place(prefix)
    assert trio.live() == sorted([*others, prefix])
    trio.kernel.remove()
    trio.place(prefix, 60)
    assert trio.live() == sorted([*others, prefix])
    trio.kernel.remove()
    assert trio.lift(prefix)
    trio.bans.reconcile(ALLOW, trio.now)
    assert trio.live() == others


def test_the_allow_list_follows(trio: Trio) -> None:
    trio.place("203.0.113.7")
    allow = PrefixSet([Prefix.parse("203.0.113.1"), Prefix.parse("2001:db8::/48")])
    delta, refused = trio.bans.reconcile(allow, trio.now)
    assert [e.set for e in delta.added()] == ["allow6"] and not delta.delete and not refused
    assert [f.scope for f in trio.kernel.find(Prefix.parse("2001:db8::99"), trio.now)] == [""]
    delta, _ = trio.bans.reconcile(ALLOW, trio.now)
    assert [e.set for e in delta.delete] == ["allow6"] and not delta.add
    assert trio.live() == ["203.0.113.7"]


def test_what_is_over_is_over_everywhere(tmp_path: Path) -> None:
    start = time.time()
    clock = [start]
    store = Store(tmp_path / "state.db")
    trio = Trio(store, MemoryKernel(LAYOUT, lambda: clock[0]))
    for prefix in ("203.0.113.7", "203.0.113.0/24", "198.18.0.0/16"):
        trio.place(prefix, trio.now + 60 - start)
    trio.place("198.18.0.0/15", 600)
    trio.now = clock[0] = start + 61
    assert not trio.bans.covers(Prefix.parse("203.0.113.7"), "all", trio.now), "before its end was noted"
    assert trio.left("203.0.113.7") == 0
    assert trio.left("198.18.0.1") == 539
    trio.place("203.0.113.7", 600)
    assert trio.left("203.0.113.7") == 600
    assert trio.bans.expire(trio.now) == 2
    assert trio.bans.expire(trio.now) == 0
    assert trio.live() == ["198.18.0.0/15", "203.0.113.7"]
    assert [s.how for s in store.bans_covering(Prefix.parse("203.0.113.7"))] == [None, "expired", "expired"]


def test_a_scope_that_the_settings_no_longer_have(trio: Trio, caplog: pytest.LogCaptureFixture) -> None:
    """Its bans are not in force, and the daemon starts all the same; they come back with the scope."""
    trio.place("203.0.113.7", 600, "smtp")
    trio.place("203.0.113.8", 600)
    trio.restart(Layout(scopes=(Scope("mail", (25, 587)),)))
    assert [str(prefix) for prefix, _ in trio.bans] == ["203.0.113.8"]
    assert "203.0.113.7" in caplog.text and "smtp" in caplog.text
    trio.restart()
    assert trio.live() == ["203.0.113.7", "203.0.113.8"]


def test_what_covers_what(trio: Trio) -> None:
    trio.place("203.0.113.0/24", 600, "smtp")
    trio.place("198.18.0.0/15", None)

    def covered(text: str, scope: str, later: float = 0) -> bool:
        return trio.bans.covers(Prefix.parse(text), scope, trio.now + later)

    assert covered("203.0.113.7", "smtp") and covered("203.0.113.128/25", "smtp") and covered("203.0.113.0/24", "smtp")
    assert not covered("203.0.113.7", "all") and not covered("203.0.112.0/23", "smtp")
    assert covered("198.18.3.4", "smtp") and covered("198.18.3.4", "all")
    assert covered("203.0.113.7", "smtp", 599) and not covered("203.0.113.7", "smtp", 600)
    assert [str(s.ban.prefix) for s in trio.bans.covering(Prefix.parse("203.0.113.7"))] == ["203.0.113.0/24"]


def test_a_full_disk_keeps_nobody_in_or_out(tmp_path: Path) -> None:
    """The kernel bans and lifts, and the caller hears that it will not survive a restart."""

    def test(disk: Disk) -> None:
        store = Store(tmp_path / "state.db")
        trio = Trio(store, MemoryKernel(LAYOUT, time.time))
        trio.place("203.0.113.7")
        disk.fill()
        for n in range(100):
            until = trio.now + 600
            ban = Ban(Prefix.parse(f"198.18.0.{n}"), "all", trio.now, until, Origin.LOG, reason="x" * 1000)
            try:
                trio.bans.place(ban, trio.now)
            except StoreError as e:
                assert "full" in str(e)
                assert trio.left(f"198.18.0.{n}") == 600
                break
        else:
            raise AssertionError("the disk is not full")
        with pytest.raises(StoreError):
            trio.lift("203.0.113.7")
        assert trio.left("203.0.113.7") == 0
        with pytest.raises(StoreError):
            trio.bans.write_missing(trio.now)
        disk.make_room()
        assert trio.bans.write_missing(trio.now) == 1, "what was not written is written when there is room"
        assert trio.bans.write_missing(trio.now) == 0
        assert [s.ban.reason for s in store.bans_covering(ban.prefix)] == ["x" * 1000]
        assert trio.lift(f"198.18.0.{n}")
        trio.place("203.0.113.8")
        assert trio.lift("203.0.113.8")
        store.close()

    on_small_disk(tmp_path, test)


def test_a_feed_is_left_alone_until_it_is_known_what_it_should_hold(trio: Trio) -> None:
    """At a start the kernel still has it; its copy is read later."""
    held = [Element("feed4_drop", n << 8, (n << 8) + 255, trio.now + 900) for n in (100, 102, 104)]
    assert trio.kernel.apply(Delta(add=tuple(held)), trio.now) == []
    assert trio.bans.in_doubt(trio.now).isdisjoint({"feed4_drop"})
    assert not trio.bans.difference(trio.now)
    trio.bans.feeds["feed4_drop"] = [replace(held[0], until=trio.now + 1800), held[1]]
    delta = trio.bans.difference(trio.now)
    assert (delta.add, delta.delete, delta.refresh) == ((), (held[2],), (held[0],))
    assert not trio.bans.difference(trio.now, sets={"ban4_all"})
    assert trio.kernel.apply(delta, trio.now) == []
    assert not trio.bans.difference(trio.now)
    trio.kernel.remove()
    trio.place("203.0.113.7", 600)
    assert trio.kernel.present(trio.now, {"feed4_drop"}) == held[:2], "a table put back has the feeds too"
