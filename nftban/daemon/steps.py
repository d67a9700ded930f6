"""When the clock was put, and when the machine slept.

Takes the wall clock and clocks that nobody puts; gives the daemon's time, `now`, which is the wall clock's but for its
steps: they are in it from when `step` has told of them.  So nobody finds bans over in between.  docs/decisions/clock.md
says what follows.
Guarantees: a clock that is drawn slowly towards the right time (adjtime(3), at most half a millisecond a second) is no
step; a suspend is none either, since CLOCK_BOOTTIME counts it as the wall clock does; over a restart of the daemon a
step is found by what `kept` gave, within one boot.
Source: clock_gettime(2).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP = 1.0
"""Seconds from which on a difference is a step."""


def uptime() -> float:
    """Seconds since the boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Names this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Steps:
    """clock: epoch seconds; up: seconds since the boot with sleep; boot: this boot's name; earlier: what `kept` gave
    to a daemon before, or None.

    offset: of the wall clock to the other when that was looked at last; own_from: bans that began earlier do not move
    with the next step, since their ends are right: at this boot the clock was behind what was known.
    """

    def __init__(
        self, clock: Callable[[], float], up: Callable[[], float], name: str = "", earlier: Any = None
    ) -> None:
        self._clock = clock
        self._up = up
        self._name = name or boot()
        self.offset = clock() - up()
        self._awake = up() - time.monotonic()
        self._known = 0.0
        self.own_from = float("-inf")
        try:
            offset, known, own_from = (float(earlier[key]) for key in ("offset", "now", "own_from"))
            same = earlier["boot"] == self._name
        except (TypeError, KeyError, ValueError):
            return
        if same:
            self.offset, self.own_from = offset, own_from
        elif clock() < known - STEP:
            self.own_from = clock()
        self._known = known

    def now(self) -> float:
        """Epoch seconds."""
        return self._up() + self.offset

    def step(self) -> float:
        """By how many seconds the clock was put since the last call; 0.0: it was not."""
        offset = self._clock() - self._up()
        step, self.offset = offset - self.offset, offset
        return step if abs(step) >= STEP else 0.0

    def moved_from(self) -> float:
        """From when on bans must have begun whose ends move with a step; asked after each step."""
        since = self.own_from
        if self._clock() >= self._known:
            # The clock is past what was known when it was behind: from now on it is believed.
            self.own_from = float("-inf")
        return since

    def slept(self) -> bool:
        """Did the machine sleep since the last call?"""
        awake = self._up() - time.monotonic()
        slept, self._awake = awake - self._awake >= STEP, awake
        return slept

    def kept(self) -> dict[str, Any]:
        """What a daemon after this one wants to know."""
        return {
            "boot": self._name,
            "offset": self.offset,
            "now": max(self._clock(), self._known if self.own_from > float("-inf") else 0.0),
            "own_from": self.own_from,
        }
