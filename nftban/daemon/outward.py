"""What leaves the daemon by itself: notifications, and the file of metrics.

Takes the house and the jobs; `start` before anything is reported, `stop` before the store is closed.
Guarantees: neither costs anything where the settings do not ask for it, and no failure of either stops the daemon.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nftban.daemon import notify
from nftban.daemon.house import House
from nftban.daemon.jobs import Jobs
from nftban.daemon.metrics import EVERY, MetricsFile
from nftban.daemon.notify import Notifications
from nftban.records import Event


class Outward:
    """Of one daemon; report: takes an event."""

    def __init__(self, house: House, report: Callable[[Event], None]) -> None:
        settings = house.loaded.settings
        self._house = house
        house.notify = self._notify = Notifications(settings.notify, house.store, report, house.clock)
        self._file = MetricsFile(Path(settings.daemon.metrics), report) if settings.daemon.metrics else None

    def start(self, jobs: Jobs) -> None:
        """Hears from now on; needs a running event loop."""
        self._notify.start()
        if self._notify.wanted:
            jobs.add("notifications", notify.EVERY, self._notify.run)
        if self._file is not None:
            jobs.add("metrics", EVERY, self._write, at_once=True)

    async def stop(self) -> None:
        """What is being sent has a moment to arrive."""
        await self._notify.stop()

    async def _write(self) -> None:
        assert self._file is not None  # noqa: S101 - without a file there is no such job
        await self._file.write(self._house)
