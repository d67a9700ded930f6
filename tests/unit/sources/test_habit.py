"""A source against its own habit, on a clock of the test's: no minute passes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nftban.sources.habit import UNREADABLE, Habit

MONDAY = 1_699_833_600.0  # 2023-11-13 00:00 UTC
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def by_day(at: float) -> float:
    """A mail server's seconds between two lines: one minute by day, forty at night; six on Sundays."""
    if (at - MONDAY) % (7 * DAY) >= 6 * DAY:
        return 6 * MINUTE
    return MINUTE if 7 * HOUR <= at % DAY < 22 * HOUR else 40 * MINUTE


class Life:
    """A source that gets a line every `between(now)` seconds, looked at every ten seconds."""

    def __init__(self, between: Callable[[float], float], start: float = MONDAY) -> None:
        self.habit, self.now, self.lines = Habit(), start, 0
        self.between, self.next = between, start
        self.alerts: list[float] = []

    def run(self, until: float, *, alive: bool = True) -> Life:
        while self.now < until:
            self.now += 10
            if alive and self.now >= self.next:
                self.lines += 1
                self.next = self.now + self.between(self.now)
            self.habit.look(self.now, self.lines)
            if self.habit.alert():
                self.alerts.append(self.now)
        return self


def test_an_ordinary_month_has_no_alert() -> None:
    assert Life(by_day).run(MONDAY + 30 * DAY).alerts == []


@pytest.mark.parametrize(
    ("hour", "within", "not_within"),
    [(12, 18 * MINUTE, 12 * MINUTE), (3, 2.2 * HOUR, 1 * HOUR)],
)
def test_silence_is_told_when_it_is_unusual_for_the_hour(hour: int, within: float, not_within: float) -> None:
    life = Life(by_day).run(MONDAY + 8 * DAY + hour * HOUR)
    dead = life.now
    life.run(dead + not_within, alive=False)
    assert life.alerts == []
    life.run(dead + within, alive=False)
    assert life.alerts and "silent for" in life.habit.alert()
    life.next = life.now
    life.run(life.now + 10)
    assert life.habit.alert() == "", "it is well again with its next line"


def test_in_the_first_week_the_longest_silence_of_all_counts() -> None:
    life = Life(by_day).run(MONDAY + 2 * DAY + 12 * HOUR)
    life.run(life.now + HOUR, alive=False)
    assert life.alerts == [], "the nights had forty minutes: hours of noon are not known well enough yet"
    life.run(life.now + 1.5 * HOUR, alive=False)
    assert life.alerts


def test_on_the_first_day_nothing_is_known() -> None:
    life = Life(by_day).run(MONDAY + 8 * HOUR)
    assert life.run(MONDAY + 23 * HOUR, alive=False).alerts == []


def test_a_dead_day_does_not_become_the_habit() -> None:
    life = Life(by_day).run(MONDAY + 8 * DAY + 10 * HOUR)
    life.run(life.now + 8 * HOUR, alive=False)
    life.next = life.now
    life.run(MONDAY + 9 * DAY + 12 * HOUR)
    life.alerts.clear()
    dead = life.now
    life.run(dead + 55 * MINUTE, alive=False)
    assert life.alerts, "it would have to be three times the eight hours, had they been learned"


def test_a_source_that_has_become_quieter_is_taken_as_it_is() -> None:
    life = Life(by_day).run(MONDAY + 8 * DAY)
    life.between = lambda at: 3 * HOUR
    life.run(MONDAY + 15 * DAY)
    assert life.alerts
    life.alerts.clear()
    assert life.run(MONDAY + 25 * DAY).alerts == []


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    life = Life(by_day).run(MONDAY + 8 * DAY + 12 * HOUR)
    for jump in (10 * HOUR, -5 * HOUR, 365 * DAY):
        life.now += jump
        life.next = life.now + 5 * MINUTE
        life.run(life.now + 20 * MINUTE)
    assert life.alerts == []


def test_what_was_learned_survives_a_restart() -> None:
    life = Life(by_day).run(MONDAY + 8 * DAY + 12 * HOUR)
    saved = json.loads(json.dumps(life.habit.export()))
    life.habit = Habit()
    life.habit.restore(saved)
    dead = life.now
    life.run(dead + 14 * MINUTE, alive=False)
    assert life.alerts == []
    life.run(dead + 18 * MINUTE, alive=False)
    assert life.alerts


@pytest.mark.parametrize("saved", [None, [], {}, {"hours": [1], "observed": 1}, {"hours": ["x"] * 24, "observed": 1e9}])
def test_what_cannot_have_been_saved_teaches_nothing(saved: object) -> None:
    habit = Habit()
    habit.restore(saved)
    assert habit.export() == Habit().export()


def test_lines_without_dates() -> None:
    habit = Habit()
    for _ in range(UNREADABLE - 1):
        habit.line(dated=False)
    assert habit.alert() == ""
    habit.line(dated=False)
    assert "no date can be read in the last 20 lines" in habit.alert()
    habit.line(dated=True)
    assert habit.alert() == ""
