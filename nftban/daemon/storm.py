"""A guard for those who want one: a jail that bans too many too fast may be wrong about what it sees.

Takes a jail's limit and each ban it is about to make; says whether it may.
Guarantees: within any minute a jail makes no more bans than its limit; once it would have, it makes none until a whole
minute passed in which it wanted fewer than the limit.  Who was not banned is considered again at his next offence.
Does not: run unless it is set.  Whoever has many addresses can set it off, and is not banned from then on.
"""

from __future__ import annotations

from collections import deque

MINUTE = 60.0


class StormGuard:
    """One jail's; limit: bans a minute, None: any number."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._wanted: deque[float] = deque()  # the last minute's, made or not; of many the newest
        self.stopped = False

    def allows(self, now: float) -> bool:
        """May a ban be made now?  Must be asked once for each."""
        if self._limit is None:
            return True
        while self._wanted and not 0 <= now - self._wanted[0] <= MINUTE:
            self._wanted.popleft()
        if self.stopped and len(self._wanted) < self._limit:
            self.stopped = False
        self._wanted.append(now)
        if len(self._wanted) > self._limit:
            self._wanted.popleft()
            self.stopped = True
        return not self.stopped
