"""Sudden growth and shrinkage, and lists with fewer or more entries than anybody expects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nftban.feeds.guards import Known, Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


def listing(count: int) -> str:
    return "".join(f"45.0.{n // 128}.{n % 128 * 2}\n" for n in range(count))


@pytest.mark.parametrize(("before", "after", "stands"), [
    (1000, 499, False), (1000, 500, True), (1000, 2000, True), (1000, 2001, False), (100, 1, True), (101, 1, False),
    (10, 200, True), (10, 201, False), (0, 200, True), (0, 201, False),
])  # fmt: skip
def test_between_half_and_double_with_a_floor_of_100(judged: Judged, before: int, after: int, stands: bool) -> None:
    found = judged(listing(after), known=Known(before, newline=True))
    if stands:
        assert ok(found)
    else:
        assert isinstance(found, Refusal) and found.guard == "change" and str(before) in found.why


def test_the_first_list_may_have_any_size(judged: Judged) -> None:
    assert ok(judged(listing(5000)))


def test_an_empty_list_is_an_error_unless_the_feed_may_be_empty(judged: Judged) -> None:
    found = judged("# nothing today\n")
    assert isinstance(found, Refusal) and found.guard == "count"
    assert len(ok(judged("# nothing today\n", fewest=0))) == 0


def test_bounds_hold_for_the_first_list_too(judged: Judged) -> None:
    for bounds in ({"fewest": 11}, {"most": 9}):
        found = judged(listing(10), **bounds)
        assert isinstance(found, Refusal) and found.guard == "count"
