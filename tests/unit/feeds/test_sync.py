"""When feeds are due and what becomes of them, on real files and a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nftban.feeds.copies import HEADER, Copies, State
from nftban.feeds.definitions import Feed
from nftban.feeds.guards import Limits
from nftban.feeds.sync import Result, Sync, good_until, next_due
from nftban.prefixes import Prefix

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0
FEED = Feed("own", "netset", "file", "/nowhere", interval=HOUR, keep=3 * DAY)


def listing(count: int, start: int = 0) -> str:
    return "".join(f"45.0.{n // 100}.{n % 100 * 2}\n" for n in range(start, start + count))


def made(folder: Path, *feeds: Feed) -> Sync:
    sync = Sync(feeds, Copies(folder / "cache"), chance=lambda: 0.5)
    assert sync.restore(NOW) == [] or feeds
    return sync


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list"
    path.write_text(listing(300))
    return path


@pytest.fixture
def feed(source: Path) -> Feed:
    return replace(FEED, address=str(source))


def test_after_success_an_interval_and_some_chance() -> None:
    for chance in (0.0, 0.3, 1.0):
        assert next_due(FEED, State(), NOW, chance) == NOW + HOUR * (1 + chance / 10)


def test_failures_wait_longer_and_longer_up_to_the_interval() -> None:
    day = replace(FEED, interval=DAY)
    waits = [next_due(day, State(failures=n), NOW, 0) - NOW for n in (1, 2, 3, 4, 9, 20, 10_000)]
    assert waits == [300, 600, 1200, 2400, 76800, DAY, DAY]


def test_a_copy_is_good_for_keep_and_half_as_much_at_most() -> None:
    for confirmed in (NOW, NOW + 1, NOW + 12345, NOW + DAY):
        until = good_until(FEED, State(confirmed=confirmed))
        assert confirmed + FEED.keep <= until <= confirmed + 1.5 * FEED.keep
        assert until - confirmed >= 2 * FEED.interval
    # Confirmed every hour, the end moves twice in `keep`, not seventy times.
    assert len({good_until(FEED, State(confirmed=NOW + n * HOUR)) for n in range(72)}) <= 3


def test_a_list_is_taken_and_stands_while_nothing_changes(feed: Feed, source: Path, tmp_path: Path) -> None:
    sync = made(tmp_path, feed)
    assert sync.due(NOW) == ["own"]
    outcome = sync.attempt("own", NOW)
    assert (outcome.result, outcome.count, outcome.before) == (Result.UPDATED, 300, 0)
    assert sync.ranges["own"].contains(Prefix.parse("45.0.2.198"))
    assert sync.due(NOW + HOUR) == [] and sync.due(NOW + 1.1 * HOUR) == ["own"]
    assert sync.attempt("own", NOW + 2 * HOUR).result is Result.UNCHANGED
    source.write_text(listing(300))
    # Other time stamp, same bytes.
    assert sync.attempt("own", NOW + 3 * HOUR).result is Result.UNCHANGED
    assert sync.state("own").confirmed == NOW + 3 * HOUR


def test_poison_changes_nothing_and_is_remembered(feed: Feed, source: Path, tmp_path: Path) -> None:
    sync = made(tmp_path, feed)
    sync.attempt("own", NOW)
    good = sync.ranges["own"]
    for poison in (
        "<html>",
        listing(100),
        listing(601),
        listing(300) + "8.8.8.8\n",
        listing(300) + "38.0.0.0/8\n",
        "",
        "45.0.",
    ):
        source.write_text(poison)
        outcome = sync.attempt("own", NOW + HOUR)
        assert outcome.result is Result.REFUSED and outcome.why, poison
        assert sync.ranges["own"] == good
        assert sync.state("own").refused == outcome.why and sync.state("own").confirmed == NOW
    assert sync.state("own").failures == 7
    # A restart has the last good one too.
    again = made(tmp_path, feed)
    assert again.ranges["own"] == good
    source.write_text(listing(310))
    assert again.attempt("own", NOW + 2 * HOUR).result is Result.UPDATED
    assert again.state("own") == State(NOW + 2 * HOUR, NOW + 2 * HOUR, NOW + 2 * HOUR + 1.05 * HOUR)


def test_an_admin_may_accept_a_change(feed: Feed, source: Path, tmp_path: Path) -> None:
    sync = made(tmp_path, feed)
    sync.attempt("own", NOW)
    source.write_text(listing(900))
    assert sync.attempt("own", NOW + HOUR).result is Result.REFUSED
    assert sync.attempt("own", NOW + HOUR, accept=True).result is Result.UPDATED
    source.write_text(listing(900) + "8.8.8.8\n")
    assert sync.attempt("own", NOW + HOUR, accept=True).result is Result.REFUSED


def test_a_server_away_for_a_day_and_then_for_good(feed: Feed, source: Path, tmp_path: Path) -> None:
    sync = made(tmp_path, feed)
    sync.attempt("own", NOW)
    source.unlink()
    for hour in range(1, 25):
        assert sync.attempt("own", NOW + hour * HOUR).result is Result.FAILED
        assert sync.expire(NOW + hour * HOUR) == []
    assert "own" in made(tmp_path, feed).ranges
    assert sync.state("own").failed and sync.until("own") > NOW + 2 * DAY
    over = sync.until("own")
    assert sync.expire(over) == ["own"] and sync.ranges == {}
    late = Sync([feed], Copies(tmp_path / "cache"))
    assert late.restore(over) == [] and late.ranges == {}
    # It comes back as it was: there is nothing to be unchanged from.
    source.write_text(listing(300))
    assert late.attempt("own", over + HOUR).result is Result.UPDATED


def test_a_copy_that_has_gone_bad_on_disk_is_not_used(feed: Feed, source: Path, tmp_path: Path) -> None:
    sync = made(tmp_path, feed)
    sync.attempt("own", NOW)
    path = tmp_path / "cache" / "own.copy"
    path.write_bytes(path.read_bytes()[:HEADER] + b"0.0.0.0/0\n")
    again = Sync([feed], Copies(tmp_path / "cache"))
    (refused,) = again.restore(NOW)
    assert refused.result is Result.REFUSED and again.ranges == {}
    assert again.attempt("own", NOW + HOUR).result is Result.UPDATED


def test_a_feed_that_now_comes_from_elsewhere_starts_anew(feed: Feed, source: Path, tmp_path: Path) -> None:
    made(tmp_path, feed).attempt("own", NOW)
    other = tmp_path / "other"
    other.write_text(listing(20))
    sync = made(tmp_path, replace(feed, address=str(other)))
    assert sync.ranges == {}
    assert sync.attempt("own", NOW).result is Result.UPDATED


def test_clean_feeds_are_taken_out_of_the_others(feed: Feed, tmp_path: Path) -> None:
    bogons = tmp_path / "bogons"
    bogons.write_text("45.0.0.0/24\n0.0.0.0/8\n")
    cleaner = replace(feed, name="bogons", address=str(bogons), clean=True, limits=Limits(widest4=3, share=0.3))
    sync = made(tmp_path, feed, cleaner)
    assert list(sync.feeds) == ["bogons", "own"]
    for name in sync.due(NOW):
        assert sync.attempt(name, NOW).result is Result.UPDATED
    assert not sync.ranges["own"].contains(Prefix.parse("45.0.0.2"))
    assert sync.ranges["own"].contains(Prefix.parse("45.0.1.2"))
    assert made(tmp_path, feed, cleaner).ranges["own"] == sync.ranges["own"]


def test_a_feed_of_one_family_gives_only_that(feed: Feed, source: Path, tmp_path: Path) -> None:
    source.write_text(listing(5) + "2a00::1\n")
    sync = made(tmp_path, replace(feed, family=6))
    sync.attempt("own", NOW)
    assert [str(p) for p in sync.ranges["own"].prefixes()] == ["2a00::1"]


def test_zone_data_answer_as_the_dnsbl_would(tmp_path: Path) -> None:
    data = tmp_path / "zone"
    data.write_text(":2:\n45.0.0.0/24\n45.0.0.7 :9:\n!45.0.0.8\n127.0.0.2\n")
    sync = made(tmp_path, replace(FEED, format="ip4set", address=str(data), zone="bl.example"))
    sync.attempt("own", NOW)
    from nftban.feeds.lookup import feeds_with, records

    codes = sync.codes["own"]
    assert records(codes, Prefix.parse("45.0.0.7")) == ("127.0.0.9",)
    assert records(codes, Prefix.parse("45.0.0.8")) == ()
    assert records(codes, Prefix.parse("45.0.0.9")) == records(codes, Prefix.parse("127.0.0.2")) == ("127.0.0.2",)
    asked = [Prefix.parse(text) for text in ("45.0.0.9", "45.0.0.8", "127.0.0.2")]
    assert feeds_with(sync.ranges, asked) == [("own",), (), ()]
