"""A limit on what one line may cost.

Python's regular expressions backtrack: a line made for it can keep one busy for hours.  While `WATCH` runs, a timer
of the process's own CPU time ticks TICK seconds apart; a search that was under way at one tick and still is at the
next ends with Overrun.  (The engine looks for signals every few thousand steps, and a handler may raise.)
Guarantees: nothing is raised outside begin() ... end(); an idle process has no ticks.
Does not: work outside the main thread, where Python takes no signals (`start` says so); bound what the engine does
without looking for signals, which is quadratic in the line's length: matcher.py cuts lines at LINE_LIMIT.
See docs/decisions/linear-time.md.  Source: setitimer(2); Python's signal, and its engine's source.
"""

from __future__ import annotations

import atexit
import signal
import threading
from itertools import count
from types import FrameType

TICK = 0.05


class Overrun(Exception):
    """A search took longer than a tick."""


class Watch:
    """The timer and the search it watches."""

    __slots__ = ("_seen", "next", "search")

    def __init__(self) -> None:
        self.search = 0
        """Which search is under way, 0 for none.  Setting it is begin() and end() for who cannot afford the calls."""
        self.next = count(1).__next__
        """The number of a search that begins."""
        self._seen = 0

    def start(self) -> bool:
        """Starts ticking; False outside the main thread, where nothing can be interrupted."""
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(signal.SIGVTALRM, self._tick)
        # Python gives signals their default action back before it ends: this one's is to end the process.
        atexit.register(self.stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, TICK, TICK)
        return True

    def stop(self) -> None:
        """Ends what `start` began."""
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        # A last tick may be on its way.
        signal.signal(signal.SIGVTALRM, signal.SIG_IGN)
        atexit.unregister(self.stop)

    def begin(self) -> None:
        """A search begins; until `end`, or the exception itself, it may raise Overrun."""
        self.search = self.next()

    def end(self) -> None:
        self.search = 0

    def _tick(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.search:
            return
        if self._seen == self.search:
            self.search = 0
            raise Overrun
        self._seen = self.search


WATCH = Watch()
