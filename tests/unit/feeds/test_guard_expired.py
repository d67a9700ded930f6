"""Zone data beyond the time at which they expire by their own word."""

from __future__ import annotations

from collections.abc import Callable

from nftban.feeds.guards import Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


# NOW is 2027-01-15 08:00 UTC.


def test_expired_data_are_refused(judged: Judged) -> None:
    for stamp in ("2027-01-14 2027-01-15-07:59:59", "2027-01-10 +5d", "0 2026-12-31"):
        found = judged(f"$TIMESTAMP {stamp}\n45.0.0.1\n", "ip4set")
        assert isinstance(found, Refusal) and found.guard == "expired", stamp


def test_data_from_the_future_are_refused(judged: Judged) -> None:
    found = judged("$TIMESTAMP 2027-01-20\n45.0.0.1\n", "ip4set")
    assert isinstance(found, Refusal) and found.guard == "expired"


def test_fresh_data_stand(judged: Judged) -> None:
    for stamp in ("2027-01-15-07:00 +2h", "2027-01-10", "2027-01-15 2027-01-15-08:00:01", "- -"):
        assert len(ok(judged(f"$TIMESTAMP {stamp}\n45.0.0.1\n", "ip4set"))) == 1
