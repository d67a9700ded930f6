"""Dates at the start of a line, against the C library's own reading."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from nftban.detect.timestamps import Timestamps

NOW = datetime(2026, 11, 24, 20, 15, tzinfo=UTC).timestamp()


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def epoch(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "expected", "cut"),
    [
        ("Nov 24 20:13:28 host x", epoch(2026, 11, 24, 20, 13, 28), " host x"),
        ("Nov  4 20:13:28 host x", epoch(2026, 11, 4, 20, 13, 28), " host x"),
        ("Nov 24 20:13:28.5 host x", epoch(2026, 11, 24, 20, 13, 28) + 0.5, " host x"),
        ("2026-11-24T20:13:28.123456+00:00 host x", epoch(2026, 11, 24, 20, 13, 28) + 0.123456, " host x"),
        ("2026-11-24T20:13:28+0100 host x", epoch(2026, 11, 24, 19, 13, 28), " host x"),
        ("2026-11-24T20:13:28-05:30 host x", epoch(2026, 11, 25, 1, 43, 28), " host x"),
        ("2026-11-24T20:13:28Z host x", epoch(2026, 11, 24, 20, 13, 28), " host x"),
        ("2026-11-24 20:13:28,123 x", epoch(2026, 11, 24, 20, 13, 28) + 0.123, " x"),
        ("[2026-11-24 20:13:28] x", epoch(2026, 11, 24, 20, 13, 28), "[] x"),
        ("1764015208 x", 1764015208.0, " x"),
        ("1764015208.25 x", 1764015208.25, " x"),
        ("Feb 29 10:00:00 x", epoch(2024, 2, 29, 10), " x"),
    ],
)
def test_formats(zone: Callable[[str], None], text: str, expected: float, cut: str) -> None:
    zone("UTC")
    timestamps = Timestamps()
    for _ in range(2):  # the second reading comes from the cache
        stamp = timestamps.read(text, NOW)
        assert stamp is not None
        assert stamp.time == pytest.approx(expected, abs=1e-6)
        assert text[: stamp.start] + text[stamp.end :] == cut


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host postfix/smtpd[1]: x",
        "Nix 24 20:13:28 x",
        "2026-13-24T20:13:28 x",
        "Nov 24 20:13 x",
        "17640152081 x",
        "Nov 24 20:13:281 x",
        "2026-11-24T29:13:28Z x",
        "0000-01-01T00:00:00 x",
    ],
)
def test_no_date(zone: Callable[[str], None], text: str) -> None:
    zone("UTC")
    assert Timestamps().read(text, NOW) is None


def test_a_date_that_names_no_real_time_is_cut_out_all_the_same(zone: Callable[[str], None]) -> None:
    zone("UTC")
    assert Timestamps().read("Nov 31 20:13:28 x", NOW) == (None, 0, 15)


def test_a_date_without_a_year_is_never_more_than_a_day_ahead(zone: Callable[[str], None]) -> None:
    zone("UTC")
    timestamps = Timestamps()

    def read(now: float) -> float:
        stamp = timestamps.read("Jan  1 00:00:30 x", now)
        assert stamp is not None and stamp.time is not None
        return stamp.time

    assert read(epoch(2026, 12, 30, 23, 59)) == epoch(2026, 1, 1, 0, 0, 30)
    assert read(epoch(2026, 12, 31, 0, 1)) == epoch(2027, 1, 1, 0, 0, 30)
    assert read(epoch(2027, 6, 1)) == epoch(2027, 1, 1, 0, 0, 30)
    # And back, as a replay of older lines would ask.
    assert read(epoch(2026, 12, 30, 23, 59)) == epoch(2026, 1, 1, 0, 0, 30)


@pytest.mark.parametrize("name", ["CET-1CEST,M3.5.0,M10.5.0/3", "America/St_Johns", "Australia/Lord_Howe", "UTC"])
def test_every_hour_of_two_years_is_what_the_c_library_says(zone: Callable[[str], None], name: str) -> None:
    zone(name)
    timestamps = Timestamps()
    start = int(epoch(2025, 1, 1))
    for now in range(start, start + 2 * 366 * 86400, 1800):
        # What syslogd writes this second, read a second later.
        text = time.strftime("%b %e %H:%M:%S", time.localtime(now)) + " host x"
        stamp = timestamps.read(text, now + 1.0)
        assert stamp is not None and stamp.time == now, text
        stamp = timestamps.read(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now)) + " host x", now + 1.0)
        assert stamp is not None and stamp.time == now, text
        if not now % 21600 or time.localtime(now).tm_isdst != time.localtime(now + 7200).tm_isdst:
            for written in ("192.0.2.7 - - [%d/%b/%Y:%H:%M:%S] x", "%a %b %d %H:%M:%S %Y x", "%m/%d/%Y:%H:%M:%S x"):
                stamp = timestamps.read(time.strftime(written, time.localtime(now)), now + 1.0)
                assert stamp is not None and stamp.time == now, written


def test_a_clock_that_goes_back_is_believed_line_by_line(zone: Callable[[str], None]) -> None:
    zone("UTC")
    timestamps = Timestamps()
    for text, expected in (("20:13:28", 0), ("19:59:01", -867), ("20:13:28", 0), ("20:14:00", 32)):
        stamp = timestamps.read(f"Nov 24 {text} host x", NOW)
        assert stamp is not None and stamp.time == epoch(2026, 11, 24, 20, 13, 28) + expected


def test_the_repeated_hour_is_read_by_now(zone: Callable[[str], None]) -> None:
    zone("CET-1CEST,M3.5.0,M10.5.0/3")
    timestamps = Timestamps()
    first, second = epoch(2026, 10, 25, 0, 30), epoch(2026, 10, 25, 1, 30)
    for now, expected in ((first + 5, first), (second + 5, second), (second + 86400, second), (first + 5, first)):
        stamp = timestamps.read("Oct 25 02:30:00 host x", now)
        assert stamp is not None and stamp.time == expected


def test_the_cache_is_bounded(zone: Callable[[str], None]) -> None:
    zone("UTC")
    timestamps = Timestamps()
    for minute in range(20000):
        moment = datetime.fromtimestamp(NOW + 60 * minute, UTC)
        assert timestamps.read(moment.strftime("%Y-%m-%dT%H:%M:00Z x"), NOW) is not None
    assert len(timestamps._minutes) <= 4096
