"""The periodic jobs, on APScheduler, and what became of each.

Takes coroutine functions with an interval; gives their last run, last error and missed runs for `status`.
Guarantees: a job that fails is logged, counted and run again at its next time; a run that could not start in time
is run once, late, not dropped (misfire_grace_time=None, coalesce); a job never overlaps itself; times are UTC.
APScheduler 3.x drops late runs after one second by default and tells nobody: both are handled here.
Source: https://apscheduler.readthedocs.io/en/3.x/userguide.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobExecutionEvent,
)
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Record:
    """What became of one job: times in epoch seconds, None where it has not happened."""

    last: float | None = None
    last_error: str | None = None
    runs: int = 0
    errors: int = 0
    missed: int = 0


class Jobs:
    """The scheduler and its book."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._stopped = False
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._scheduler.add_listener(
            self._listen, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES
        )

    def add(self, name: str, every: float, job: Callable[[], Awaitable[None]], *, at_once: bool = False) -> None:
        """Runs `job` every so many seconds, the first time after one interval or, at_once, right at the start."""
        self._records[name] = Record()
        first = {"next_run_time": datetime.now(UTC)} if at_once else {}

        async def run() -> None:
            try:
                await job()
            except asyncio.CancelledError:
                if not self._stopped:
                    raise

        self._scheduler.add_job(run, IntervalTrigger(seconds=every, timezone=UTC), id=name, **first)

    def start(self) -> None:
        self._scheduler.start()

    def replan(self) -> None:
        """The clock was put back: the next run of each is one interval from now, not when the old time comes again."""
        for job in self._scheduler.get_jobs():
            self._scheduler.reschedule_job(
                job.id, trigger=IntervalTrigger(seconds=job.trigger.interval_length, timezone=UTC)
            )

    def stop(self) -> None:
        """Starts no further run; one under way is cancelled, which is no failure."""
        self._stopped = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def status(self) -> list[dict[str, object]]:
        """A row per job for `status`."""
        rows: list[dict[str, object]] = []
        for name, record in self._records.items():
            job = self._scheduler.get_job(name)
            # Before the start a job of APScheduler 3.x has no such attribute, after the stop there is no job.
            due = getattr(job, "next_run_time", None)
            rows.append(
                {
                    "id": name,
                    "next": due.timestamp() if due else None,
                    "last": record.last,
                    "last_error": record.last_error,
                    "runs": record.runs,
                    "errors": record.errors,
                    "missed": record.missed,
                }
            )
        return rows

    def _listen(self, event: JobExecutionEvent) -> None:
        record = self._records[event.job_id]
        if event.code in (EVENT_JOB_MISSED, EVENT_JOB_MAX_INSTANCES):
            record.missed += 1
            log.warning("job %s: a run was missed; the one before still runs", event.job_id)
            return
        record.last = datetime.now(UTC).timestamp()
        record.runs += 1
        if event.code == EVENT_JOB_ERROR:
            record.errors += 1
            record.last_error = f"{type(event.exception).__name__}: {event.exception}"
            log.error("job %s failed: %s", event.job_id, record.last_error, exc_info=event.exception)
        else:
            record.last_error = None
