"""Sliding windows: what counts, what does not, and what is held."""

from __future__ import annotations

from nftban.detect.windows import Windows
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
