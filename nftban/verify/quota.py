"""How many queries a zone gets in a day.

Takes the admin's daily budget and the operators' published limits; gives yes or no per query and counts.
A zone's budget is the admin's, or 80 % of what its operator allows if that is less: mail servers beside us ask
with the same address, and being over the limit gets all of them blocked.
Guarantees: in one UTC day `allow` says yes at most as often as the budget, also over restarts when the exported
state is restored; a clock that goes back over midnight gives no second budget.  Does not: read clocks or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nftban.verify.zones import Zone

DAY = 86400
SHARE = 0.8


class Quota:
    """Counts per zone, by display name, for the current UTC day."""

    def __init__(self, zones: Iterable[Zone], daily_budget: int) -> None:
        self._budget = {
            zone.display: min(daily_budget, int(zone.provider.limit * SHARE)) if zone.provider.limit else daily_budget
            for zone in zones
        }
        self._day = 0
        self._used: dict[str, int] = {}

    def allow(self, zone: str, now: float) -> bool:
        """May one more query go out?  If so it is counted.  now: epoch seconds."""
        self._turn(now)
        if self._used.get(zone, 0) >= self._budget[zone]:
            return False
        self.count(zone, now)
        return True

    def count(self, zone: str, now: float) -> None:
        """Count a query that goes out in any case (a zone's test points)."""
        self._turn(now)
        self._used[zone] = self._used.get(zone, 0) + 1

    def used(self, zone: str, now: float) -> int:
        self._turn(now)
        return self._used.get(zone, 0)

    def budget(self, zone: str) -> int:
        return self._budget[zone]

    def export(self) -> dict[str, object]:
        """The state as JSON values."""
        return {"day": self._day, "used": dict(self._used)}

    def restore(self, state: Mapping[str, object]) -> None:
        """Take an exported state; one that makes no sense is ignored."""
        day, used = state.get("day"), state.get("used")
        if isinstance(day, int) and isinstance(used, Mapping) and day >= self._day:
            self._day = day
            self._used = {str(zone): n for zone, n in used.items() if isinstance(n, int) and n >= 0}

    def _turn(self, now: float) -> None:
        day = int(now // DAY)
        if day > self._day or day < self._day - 1:  # far back: the day we have came from a wrong clock
            self._day = day
            self._used = {}
