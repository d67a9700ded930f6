"""One suite over every kernel backend: what nftban.kernel.Kernel promises holds for each.

The netlink backend runs on the real nf_tables of a fresh network namespace, which this thread enters and leaves.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nftban.errors import KernelError
from nftban.kernel import Kernel
from nftban.kernel.layout import ALL, Layout, Scope
from nftban.kernel.memory import MemoryKernel
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.plan import difference, grouped
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, Delta, Element, Origin
from tests.intent import desired

LAYOUT = Layout(scopes=(Scope("smtp", (25,)),))
CLONE_NEWNET = 0x40000000
TEXTS = ("192.0.2.7", "198.51.100.0/24", "10.0.0.0/9", "2001:db8::7", "2001:db8:1::/64", "2001:db8:8000::/33")


@contextmanager
def fresh_network() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip("a network namespace needs CAP_SYS_ADMIN")
        try:
            yield
        finally:
            assert libc.setns(outside, CLONE_NEWNET) == 0
    finally:
        os.close(outside)


@pytest.fixture(params=["memory", "netlink"])
def empty(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A backend whose table has not been made."""
    if request.param == "memory":
        yield MemoryKernel(LAYOUT, time.time)
    else:
        with fresh_network(), NetlinkKernel(LAYOUT) as kernel:
            yield kernel


@pytest.fixture
def kernel(empty: Kernel) -> Kernel:
    empty.create()
    return empty


def placed(texts: tuple[str, ...] = TEXTS, until: float | None = None, scope: str = ALL) -> tuple[Element, ...]:
    return tuple(sorted(LAYOUT.place(Prefix.parse(text), scope, until) for text in texts))


def test_no_table(empty: Kernel) -> None:
    now = time.time()
    assert empty.drift() == ["there is no table inet nftban"]
    assert empty.present(now) == []
    assert empty.find(Prefix.parse("192.0.2.7"), now) == []
    empty.remove()
    for delta in (Delta(add=placed()), Delta(refresh=placed())):
        with pytest.raises(KernelError) as caught:
            empty.apply(delta, now)
        assert caught.value.errno == errno.ENOENT
    assert empty.apply(Delta(add=placed(until=now - 1), refresh=placed(until=now - 1), delete=placed()), now) == []


def test_a_set_that_is_not_of_the_layout(kernel: Kernel) -> None:
    with pytest.raises(KernelError) as caught:
        kernel.apply(Delta(add=(Element("ban4_pop3", 1, 1),)), time.time())
    assert caught.value.errno == errno.ENOENT


def test_create_is_idempotent_and_remove_takes_all(kernel: Kernel) -> None:
    now = time.time()
    assert kernel.drift() == []
    assert kernel.apply(Delta(add=placed()), now) == []
    kernel.create()
    assert kernel.drift() == []
    assert kernel.present(now) == list(placed())
    kernel.remove()
    assert kernel.present(now) == []
    assert kernel.drift() != []


def test_add_refresh_delete(kernel: Kernel) -> None:
    now = time.time()
    allow = (Element("allow4", 5, 9), Element("allow6", 5, 9))
    assert kernel.apply(Delta(add=(*allow, *placed(until=now + 100))), now) == []
    assert kernel.present(now) == [*allow, *placed()]
    assert kernel.apply(Delta(refresh=placed(TEXTS[:4], now + 500), delete=placed(TEXTS[4:])), now) == []
    assert kernel.present(now) == [*allow, *placed(TEXTS[:4])]
    assert [e.until for e in kernel.present(now)[2:]] == [pytest.approx(now + 500, abs=30)] * 4
    assert kernel.apply(Delta(refresh=placed(TEXTS[:4])), now) == []
    assert {e.until for e in kernel.present(now)} == {None}
    assert kernel.apply(Delta(delete=(*allow, *placed(TEXTS[:4]))), now) == []
    assert kernel.present(now) == []
    assert kernel.apply(Delta(), now) == []


def test_deleting_and_refreshing_what_is_missing_fails_nothing(kernel: Kernel) -> None:
    now = time.time()
    delta = Delta(add=placed(TEXTS[:1]), refresh=placed(TEXTS[1:3], now + 100), delete=placed(TEXTS[3:]))
    assert kernel.apply(delta, now) == []
    assert kernel.present(now) == list(placed(TEXTS[:3]))


def test_what_is_over_is_not_added_and_a_refresh_to_it_deletes(kernel: Kernel) -> None:
    now = time.time()
    assert kernel.apply(Delta(add=placed(TEXTS[:3], now - 1)), now) == []
    assert kernel.present(now) == []
    assert kernel.apply(Delta(add=placed(until=now + 100)), now) == []
    assert kernel.apply(Delta(refresh=placed(TEXTS[:3], now)), now) == []
    assert kernel.present(now) == list(placed(TEXTS[3:]))


def test_an_element_leaves_when_its_time_has_come(kernel: Kernel) -> None:
    now = time.time()
    assert kernel.apply(Delta(add=placed(until=now + 0.5)), now) == []
    assert kernel.find(Prefix.parse("192.0.2.7"), now)
    while kernel.find(Prefix.parse("192.0.2.7"), time.time()) or kernel.present(time.time()):
        assert time.time() < now + 20
    # The kernel counts in ticks of up to 10 ms.
    assert time.time() > now + 0.48


def test_overlapping_ranges_are_refused_alone(kernel: Kernel) -> None:
    now = time.time()
    first, second, other = (LAYOUT.place(Prefix.parse(t), ALL) for t in ("10.0.0.0/9", "10.1.0.0/16", "192.0.2.7"))
    assert kernel.apply(Delta(add=(first,)), now) == []
    refused = kernel.apply(Delta(add=(second, other)), now)
    assert [(r.element, r.errno) for r in refused] == [(second, errno.EEXIST)]
    assert kernel.present(now) == sorted([first, other])
    # One makes room for the other in the same transaction.
    assert kernel.apply(Delta(delete=(first,), add=(second,)), now) == []
    assert kernel.present(now) == sorted([second, other])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("192.0.2.7", [("ban4_all", ALL)]),
        ("192.0.2.8", []),
        ("198.51.100.77", [("ban4net24_all", ALL)]),
        ("198.51.100.128/25", [("ban4net24_all", ALL)]),
        ("198.51.100.0/23", []),
        ("10.127.255.255", [("ban4range_all", ALL)]),
        ("10.0.0.0/9", [("ban4range_all", ALL)]),
        ("10.0.0.0/8", []),
        ("2001:db8::7", [("ban6_all", ALL)]),
        ("2001:db8:1::5", [("ban6net64_all", ALL), ("allow6", "")]),
        ("2001:db8:8000::/33", [("ban6range_all", ALL)]),
        ("2001:db8:7fff:ffff:ffff:ffff:ffff:ffff", []),
        # Two adjacent ranges with different ends cover it together; a gap does not.
        ("172.16.0.0/15", [("ban4range_smtp", "smtp"), ("ban4range_smtp", "smtp")]),
        ("172.16.0.0/14", []),
        ("::ffff:192.0.2.7", [("ban4_all", ALL)]),
        ("255.255.255.255", [("ban4range_smtp", "smtp")]),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", []),
    ],
)
def test_find(kernel: Kernel, asked: str, found: list[tuple[str, str]]) -> None:
    now = time.time()
    ends = {"172.16.0.0/16": now + 100, "172.17.0.0/16": None, "240.0.0.0/4": now + 100}
    smtp = [Ban(Prefix.parse(text), "smtp", now, until, Origin.LOG) for text, until in ends.items()]
    allow = PrefixSet([Prefix.parse("2001:db8:1::5")])
    elements = (*desired(smtp, allow, LAYOUT, now), *placed(until=now + 100))
    assert kernel.apply(Delta(add=elements), now) == []
    answer = kernel.find(Prefix.parse(asked), now)
    assert sorted((f.element.set, f.scope) for f in answer) == sorted(found)
    assert {f.element for f in answer} <= set(elements)
    assert all((f.packets, f.bytes) == (0, 0) for f in answer)


def test_reconciling_is_idempotent(kernel: Kernel) -> None:
    now = time.time()
    bans = [
        Ban(Prefix.parse(t), s, now, now + 100, Origin.LOG) for t in (*TEXTS, "10.64.0.0/10") for s in (ALL, "smtp")
    ]
    for wanted in (bans, bans[3:9], [], bans[:5]):
        elements = desired(wanted, PrefixSet(b.prefix for b in wanted[:2]), LAYOUT, now)
        assert kernel.apply(difference(elements, kernel.present(now), now), now) == []
        assert kernel.present(now) == elements
        assert not difference(elements, kernel.present(time.time()), time.time())


@pytest.mark.parametrize("count", [3, 600, 1500])
def test_comparing_is_the_difference(kernel: Kernel, count: int) -> None:
    now = time.time()
    steps = {"ban4_all": 1, "ban6net64_smtp": 1 << 64, "ban4range_smtp": 1 << 8, "ban6range_all": 1 << 70}
    wanted = [
        Element(name, i * step, i * step + (step >> 1 if "range" in name else 0), now + 900)
        for name, step in sorted(steps.items())
        for i in range(1, count + 1)
    ]
    everything = kernel.compare(grouped(wanted), now)
    assert (sorted(everything.added()), everything.delete, everything.refresh) == (wanted, (), ())
    assert kernel.apply(kernel.compare(grouped(wanted), now), now) == []
    assert not kernel.compare(grouped(wanted), now)
    assert [e.set for e in kernel.present(now, ["ban4range_smtp", "allow4"])] == ["ban4range_smtp"] * count
    strange = Element("ban4_all", 1 << 31, 1 << 31, now + 900)
    late = Element(wanted[0].set, wanted[0].first, wanted[0].last, now + 5000)
    assert kernel.apply(Delta(add=(strange,), delete=tuple(wanted[1::5]), refresh=(late,)), now) == []
    delta = kernel.compare(grouped(wanted), now)
    assert sorted(delta.add) == wanted[1::5]
    assert (delta.delete, delta.refresh) == ((strange,), (wanted[0],))
    assert kernel.apply(delta, now) == []
    assert kernel.present(now) == wanted
    by_set = grouped(wanted)
    assert kernel.in_doubt(by_set, now, {}) <= set(LAYOUT.address_sets)
    for elements in by_set.values():
        assert kernel.lacking(elements, now) == Delta() == kernel.lacking([], now)
        assert kernel.apply(Delta(delete=(elements[1],)), now) == []
        ranges = elements[0].first != elements[0].last
        assert kernel.lacking(elements, now) == (None if ranges else Delta(add=(elements[1],)))
        assert kernel.compare(by_set, now, sets={elements[0].set}) == Delta(add=(elements[1],))
        assert not kernel.compare(by_set, now, sets={"allow4"})
        assert kernel.apply(Delta(add=(elements[1],)), now) == []
    # What is over is not wanted, and nothing of it is left.
    over = [Element(e.set, e.first, e.last, now - 1) for e in wanted]
    assert kernel.compare(grouped(over), now).delete == tuple(wanted)


def test_comparing_where_there_is_no_table(empty: Kernel) -> None:
    now = time.time()
    everything = empty.compare(grouped(placed(until=now + 100)), now)
    assert (sorted(everything.added()), everything.delete, everything.refresh) == (sorted(placed()), (), ())
    assert empty.compare({}, now) == Delta()
    assert empty.present(now, ["ban4_all"]) == []


def test_counts_tell_how_many_each_set_holds(kernel: Kernel) -> None:
    """Where the kernel tells numbers at all; None elsewhere."""
    assert set(kernel.counts().values()) <= {0, None}
    now = time.time()
    kernel.apply(Delta(add=placed(("192.0.2.1", "192.0.2.2", "198.51.100.0/24"), until=now + 60)), now)
    held = {name: count for name, count in kernel.counts().items() if count}
    assert held in ({"ban4_all": 2, "ban4net24_all": 1}, {})
