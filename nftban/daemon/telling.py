"""Operations that tell what was, is and happens: `events`, `history`, `metrics`, and the trial of notifications.

Take the house and JSON values; give JSON values (docs/interface.md).  Does not: change anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nftban.daemon import past
from nftban.daemon.delivery import trial
from nftban.daemon.house import House, Json
from nftban.daemon.metrics import metrics_text
from nftban.daemon.news import News


class Telling:
    """by_name: the operations."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._news = News(house.store)
        self.by_name: dict[str, Callable[..., Awaitable[Json]]] = {
            "events": self.events,
            "history": self.history,
            "metrics": self.metrics,
            "notify_test": self.notify_test,
        }

    def release(self) -> None:
        """Whoever waits for events gets his answer now."""
        self._news.release()

    async def events(self, after: int | None = None, wait: float = 0, limit: int = 500) -> Json:
        """Events behind a number, as soon as there is one."""
        return await self._news.events(after, wait, limit)

    async def history(
        self,
        address: str | None = None,
        since: float = 0,
        jail: str | None = None,
        before: list[float] | None = None,
    ) -> Json:
        """A piece of the bans that ended."""
        return past.history(self._house, address, since, jail, before)

    async def metrics(self) -> Json:
        """What can be counted, as OpenMetrics text."""
        return {"text": await metrics_text(self._house, openmetrics=True)}

    async def notify_test(self) -> Json:
        """Sends one notification to every receiver now."""
        return await trial(self._house.loaded.settings.notify, self._house.clock())
