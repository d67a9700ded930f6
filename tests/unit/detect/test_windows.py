"""Sliding windows: what counts, what does not, and what is held."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

from nftban.detect.windows import FORGOTTEN, Windows
from nftban.prefixes import Prefix
from nftban.records import Offence, Suspect


def offence(address: str, time: float, weight: int = 1) -> Offence:
    return Offence("postfix", "1", Prefix.parse(address), time, weight)


def times(suspect: Suspect | None) -> list[float]:
    return [o.time for o in suspect.offences] if suspect else []


def test_the_window_slides() -> None:
    windows = Windows("postfix", 600, 5)
    assert times(windows.add(offence("192.0.2.7", 0))) == [0]
    assert times(windows.add(offence("192.0.2.7", 300))) == [0, 300]
    assert times(windows.add(offence("192.0.2.7", 600))) == [0, 300, 600]
    suspect = windows.add(offence("192.0.2.7", 901, weight=3))
    assert times(suspect) == [600, 901]
    assert suspect is not None
    assert (suspect.jail, str(suspect.prefix), suspect.weight) == ("postfix", "192.0.2.7", 4)


def test_lines_out_of_order_count_and_stay_in_order() -> None:
    windows = Windows("postfix", 600, 5)
    windows.add(offence("192.0.2.7", 1000))
    assert times(windows.add(offence("192.0.2.7", 900))) == [900, 1000]
    assert windows.add(offence("192.0.2.7", 399)) is None
    assert times(windows.suspect(Prefix.parse("192.0.2.7"), 1000)) == [900, 1000]


def test_old_lines_count_nobody() -> None:
    windows = Windows("postfix", 600, 5)
    assert windows.add(offence("192.0.2.7", 1000), now=1601) is None
    assert len(windows) == 0
    assert times(windows.add(offence("192.0.2.7", 1001), now=1601)) == [1001]


def test_ipv6_counts_by_64_and_ipv4_by_address_unless_told() -> None:
    windows = Windows("ssh", 600, 5)
    windows.add(offence("2001:db8:0:1::1", 0))
    suspect = windows.add(offence("2001:db8:0:1:ffff::2", 1))
    assert suspect is not None and str(suspect.prefix) == "2001:db8:0:1::/64" and len(suspect.offences) == 2
    assert len(times(windows.add(offence("2001:db8:0:2::1", 1)))) == 1
    windows.add(offence("192.0.2.7", 0))
    assert len(times(windows.add(offence("192.0.2.8", 0)))) == 1
    wide = Windows("ssh", 600, 5, count4=24, count6=48)
    wide.add(offence("192.0.2.7", 0))
    suspect = wide.add(offence("192.0.2.8", 0))
    assert suspect is not None and str(suspect.prefix) == "192.0.2.0/24" and len(suspect.offences) == 2


def test_memory_is_bounded_per_prefix_and_over_prefixes() -> None:
    windows = Windows("ssh", 600, 5, prefixes=100, kept=10)
    for second in range(50):
        suspect = windows.add(offence("192.0.2.7", second))
    assert times(suspect) == list(range(40, 50))
    for n in range(250):
        windows.add(offence(f"198.51.100.{n}", 50))
        windows.add(offence("192.0.2.7", 51))  # the busy one stays
    assert len(windows) == 100
    assert windows.evictions == 151
    assert len(times(windows.suspect(Prefix.parse("192.0.2.7"), 51))) == 10


def test_enough_is_kept_for_the_threshold() -> None:
    windows = Windows("ssh", 600, 100)
    for second in range(150):
        suspect = windows.add(offence("192.0.2.7", second))
    assert len(times(suspect)) == 150


def test_prune_and_forget() -> None:
    windows = Windows("ssh", 600, 5)
    windows.add(offence("192.0.2.7", 0))
    windows.add(offence("192.0.2.8", 500))
    assert windows.suspect(Prefix.parse("192.0.2.7"), 601) is None
    assert windows.prune(601) == 1
    assert len(windows) == 1
    windows.forget(Prefix.parse("192.0.2.8"))
    assert len(windows) == 0
    assert times(windows.add(offence("192.0.2.8", 501))) == [501]


def test_what_counts_goes_on_counting_when_its_lines_are_no_longer_held() -> None:
    windows = Windows("ssh", 600, 5, lines=3)
    windows.add(replace(offence("192.0.2.7", 1000.5, weight=3), line="first"))
    windows.add(replace(offence("192.0.2.7", 1001), line="second"))
    windows.add(offence("2001:db8::1", 1002, weight=2))
    windows.add(offence("198.51.100.1", 1003))
    windows.add(offence("198.51.100.2", 1004))
    assert len(windows) == 4
    for now in (1005, 1600):
        held = windows.suspect(Prefix.parse("192.0.2.7"), now)
        assert held is not None and times(held) == [1000.5, 1001] and held.weight == 4
        assert {o.rule for o in held.offences} == {FORGOTTEN} and {o.line for o in held.offences} == {""}
    suspect = windows.add(replace(offence("192.0.2.7", 1600.25), line="third"))
    assert suspect is not None and (suspect.weight, times(suspect)) == (5, [1000.5, 1001, 1600.25])
    assert [o.line for o in suspect.offences] == ["", "", "third"]
    assert times(windows.add(offence("192.0.2.7", 1601))) == [1001, 1600.25, 1601]
    assert (windows.suspect(Prefix.parse("2001:db8::ff"), 1005) or suspect).weight == 2
    windows.forget(Prefix.parse("2001:db8::ff"))
    windows.forget(Prefix.parse("192.0.2.7"))
    assert len(windows) == 2 and windows.suspect(Prefix.parse("2001:db8::ff"), 1005) is None


def test_windows_with_and_without_lines_count_the_same() -> None:
    chance = random.Random(5)
    whole, spare = Windows("ssh", 60, 5), Windows("ssh", 60, 5, lines=20)
    now = 1000.0
    for _ in range(5000):
        now += chance.choice((0, 0.25, 1))
        given = offence(
            f"192.0.2.{chance.randrange(200)}", now - chance.choice((0, 0, 5, 50)), chance.choice((1, 1, 4))
        )
        a, b = whole.add(given, now), spare.add(given, now)
        assert times(a) == times(b) and (a and a.weight) == (b and b.weight)
        if chance.random() < 0.01:
            whole.forget(given.prefix)
            spare.forget(given.prefix)
        assert times(whole.suspect(given.prefix, now)) == times(spare.suspect(given.prefix, now))
    for windows in (whole, spare):
        while windows.prune(now + 61):
            pass
        assert len(windows) == 0


def test_a_million_offenders_fit_and_nothing_takes_long() -> None:
    """In proportion: a tenth of them, their memory as the allocator sees it, and how much one call does."""
    windows = Windows("ssh", 600, 5, lines=100)
    line = "x" * 120
    windows.add(offence("192.0.2.7", 0))
    tracemalloc.start()
    try:
        for n in range(100_000):
            windows.add(Offence("ssh", "1", Prefix(4, (11 << 24) + 7919 * n, 32), n / 200, line=line + str(n)))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / 100_000 <= 150
    dropped = []
    while windows.prune(10_000.0):
        dropped.append(len(windows))
    assert dropped[-1] == 0 and len(dropped) >= 5
    assert windows.evictions == 0


def test_beyond_the_ceiling_the_longest_unseen_go_and_are_counted() -> None:
    windows = Windows("ssh", 600, 5, prefixes=1000, lines=10)
    for n in range(5000):
        windows.add(offence("192.0.2.7", n / 100))
        windows.add(Offence("ssh", "1", Prefix(4, (11 << 24) + n, 32), n / 100))
    assert len(windows) == 1000 and windows.evictions == 4001
    assert windows.suspect(Prefix(4, 11 << 24, 32), 50) is None
    assert windows.suspect(Prefix(4, (11 << 24) + 4999, 32), 50) is not None
    recent = [n for n in range(5000) if windows.suspect(Prefix(4, (11 << 24) + n, 32), 50) is not None]
    assert len(recent) == 999 and {*range(4800, 5000)} <= {*recent}
