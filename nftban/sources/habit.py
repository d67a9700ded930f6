"""Is a source as it always was?  Says when one goes silent against its own habit, or when nothing of it can be read.

Takes, at every look, the time and how many lines were read so far, and of some lines whether they had a date; gives
the alert in words, empty where all is well.
Silent: for longer than ten minutes and longer than three times the longest silence known.  During the first day nothing
is known; during the first week the longest silence of all counts, from then on the longest of the hours of the day
over which this one reaches, so that a night without mail is no alert and a noon without mail is one.
What is known fades by a tenth a day, so that a week-end is remembered over the week.  A silence that was an alert is
learned only up to what would have been none: a source that was dead does not make its own death a habit, and one that
has become quieter is taken as it is after some days.
Time in which nobody looked (suspend, a clock that jumps, no daemon) is no silence.
Does not: read a clock, know what kind of source it is.
"""

from __future__ import annotations

from typing import Any

DAY = 86400.0
SHORTEST = 600.0
TIMES = 3.0
FADING = 0.9
LONGEST_LOOK = 60.0
"""Seconds between two looks beyond which nobody looked."""

UNREADABLE = 20
"""So many lines looked at in a row without a date."""


class Habit:
    """Of one source."""

    def __init__(self) -> None:
        self._hours = [0.0] * 24  # the longest silence that reached into this hour (UTC), fading
        self._observed = 0.0
        self._day = 0
        self._looked: float | None = None
        self._lines = 0
        self._silence = 0.0
        self._reached: set[int] = set()
        self._undated = 0

    def look(self, now: float, lines: int) -> None:
        """now: epoch seconds; lines: read so far."""
        if self._looked is None:
            self._looked, self._lines, self._day = now, lines, int(now // DAY)
        passed = now - self._looked
        passed = passed if 0 <= passed <= LONGEST_LOOK else 0.0
        self._looked = now
        self._observed += passed
        self._silence += passed
        self._reached.add(int(now % DAY // 3600))
        if int(now // DAY) != self._day:
            self._day = int(now // DAY)
            self._hours = [longest * FADING for longest in self._hours]
        if lines != self._lines:
            self._lines = lines
            learned = self._silence if self._observed < DAY else min(self._silence, self._bearable())
            for hour in self._reached:
                self._hours[hour] = max(self._hours[hour], learned)
            self._silence, self._reached = 0.0, {int(now % DAY // 3600)}

    def line(self, dated: bool) -> None:
        """One line was looked at."""
        self._undated = 0 if dated else self._undated + 1

    def alert(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        if self._undated >= UNREADABLE:
            return f"no date can be read in the last {self._undated} lines looked at: another format, or another file?"
        if self._observed >= DAY and self._silence > self._bearable():
            usual = self._bearable() / TIMES
            return f"silent for {_span(self._silence)}; at this time of day never more than {_span(usual)} so far"
        return ""

    def _bearable(self) -> float:
        known = self._hours if self._observed < 7 * DAY else [self._hours[hour] for hour in self._reached]
        return max(SHORTEST, TIMES * max(known, default=0.0))

    def export(self) -> dict[str, Any]:
        """What has been learned, for `restore`, as JSON takes it."""
        return {"hours": [round(longest, 1) for longest in self._hours], "observed": round(self._observed)}

    def restore(self, saved: object) -> None:
        """Goes on with what an earlier one had learned; what is not of that shape is left out."""
        if not isinstance(saved, dict):
            return
        hours, observed = saved.get("hours"), saved.get("observed")
        if not isinstance(hours, list) or len(hours) != 24 or not isinstance(observed, int | float):
            return
        if all(isinstance(longest, int | float) for longest in hours):
            self._hours, self._observed = [float(longest) for longest in hours], float(observed)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
