"""Daily budgets."""

from __future__ import annotations

import json

from nftban.verify.quota import Quota
from nftban.verify.zones import Provider, configured_zones

MIDNIGHT = 20_000 * 86400.0
(LIMITED, FREE), _ = configured_zones(["limited.example", "free.example"], [Provider(("limited.example",), limit=10)])


def test_the_budget_is_the_admins_or_four_fifths_of_the_operators_limit() -> None:
    quota = Quota([LIMITED, FREE], 9)
    assert (quota.budget("limited.example"), quota.budget("free.example")) == (8, 9)
    assert Quota([LIMITED], 5).budget("limited.example") == 5


def test_a_day_is_a_utc_day() -> None:
    quota = Quota([FREE], 3)
    assert [quota.allow("free.example", MIDNIGHT + 86399) for _ in range(4)] == [True, True, True, False]
    assert quota.used("free.example", MIDNIGHT + 86399) == 3
    assert quota.allow("free.example", MIDNIGHT + 86400)
    assert quota.used("free.example", MIDNIGHT + 86400) == 1


def test_zones_have_separate_budgets_and_tests_count() -> None:
    quota = Quota([LIMITED, FREE], 1)
    quota.count("limited.example", MIDNIGHT)
    assert not quota.allow("limited.example", MIDNIGHT)
    assert quota.allow("free.example", MIDNIGHT)


def test_the_count_survives_a_restart() -> None:
    quota = Quota([FREE], 2)
    assert quota.allow("free.example", MIDNIGHT)
    again = Quota([FREE], 2)
    again.restore(json.loads(json.dumps(quota.export())))
    assert [again.allow("free.example", MIDNIGHT + 1) for _ in range(2)] == [True, False]


def test_a_clock_that_steps_back_gives_no_second_budget() -> None:
    quota = Quota([FREE], 1)
    assert quota.allow("free.example", MIDNIGHT)
    assert not quota.allow("free.example", MIDNIGHT - 10)


def test_a_day_from_a_wrong_clock_does_not_last_for_years() -> None:
    quota = Quota([FREE], 1)
    assert quota.allow("free.example", MIDNIGHT * 2)
    assert quota.allow("free.example", MIDNIGHT)


def test_senseless_state_is_ignored() -> None:
    quota = Quota([FREE], 1)
    for state in (
        {},
        {"day": "x", "used": {}},
        {"day": 20_000, "used": []},
        {"day": 20_000, "used": {"free.example": -5}},
    ):
        quota.restore(state)
    assert quota.allow("free.example", MIDNIGHT)
