"""Tells the admin when a log is not read as it should be: an error that lasts, silence against its habit, no dates.

Takes a look at every source from time to time; gives the alert of each, for `status`, and an event when one begins and
when it ends.  What is usual (sources/habit.py) goes to the store every five minutes and is taken up after a restart.
Guarantees: one event as long as the same is wrong, however its words change; an error is told when it is still there at
the next look, so that a log between two rotations is none.  A store that cannot write keeps no alert back.
Does not: read anything, judge what is usual.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from nftban.errors import StoreError
from nftban.sources.file import Status
from nftban.sources.habit import Habit
from nftban.store.sqlite import Store

STATE = "habits"
SAVED_EVERY = 300.0


@dataclass(slots=True)
class _Watched:
    """error: at the last look; told: what the admin was told is wrong, "error" or "habit"."""

    habit: Habit = field(default_factory=Habit)
    error: str = ""
    told: str = ""


class Watchfulness:
    """Over all sources, by their names."""

    def __init__(self, store: Store, report: Callable[[str, float], None]) -> None:
        """report: takes an event's text and its time."""
        self._store = store
        self._report = report
        self._saved = 0.0
        self._sources: dict[str, _Watched] = {}
        before = store.state(STATE)
        self._before: dict[str, object] = before if isinstance(before, dict) else {}

    def _of(self, name: str) -> _Watched:
        watched = self._sources.get(name)
        if watched is None:
            watched = self._sources[name] = _Watched()
            watched.habit.restore(self._before.get(name))
        return watched

    def line(self, name: str, dated: bool) -> None:
        """One line of a source was looked at: had it a date?"""
        self._of(name).habit.line(dated)

    def alert(self, name: str) -> str:
        """What is unusual with a source, in words; empty where nothing is."""
        return self._of(name).habit.alert()

    def look(self, status: Status, now: float) -> None:
        """How a source is now."""
        watched = self._of(status.path)
        watched.habit.look(now, status.lines)
        unusual = watched.habit.alert()
        lasts = bool(status.error) and bool(watched.error)
        watched.error = status.error
        wrong = "error" if lasts else "habit" if unusual else ""
        if wrong != watched.told and (wrong or not status.error):
            words = status.error if lasts else unusual
            self._report(f"{status.path}: {words}" if wrong else f"{status.path} is read as usual again", now)
            watched.told = wrong
        if now - self._saved >= SAVED_EVERY or now < self._saved:
            self._saved = now
            with contextlib.suppress(StoreError):
                self._store.set_state(STATE, self._before | {n: w.habit.export() for n, w in self._sources.items()})
