"""The periodic jobs on the real scheduler: what fails is seen and runs again, what is late runs once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nftban.daemon.jobs import Jobs

SHORT = 0.05
LONG = 3600.0


@contextmanager
def running(jobs: Jobs) -> Iterator[None]:
    jobs.start()
    try:
        yield
    finally:
        jobs.stop()


def row(jobs: Jobs, name: str) -> dict[str, object]:
    (found,) = (r for r in jobs.status() if r["id"] == name)
    return found


async def within(future: asyncio.Future[None]) -> None:
    await asyncio.wait_for(future, 20)


def watch(jobs: Jobs, condition: Callable[[], bool], name: str = "watch") -> asyncio.Future[None]:
    """A job more, which looks at each of its runs; the future is done once the condition holds."""
    seen = asyncio.get_running_loop().create_future()

    async def look() -> None:
        if condition() and not seen.done():
            seen.set_result(None)

    jobs.add(name, SHORT, look)
    return seen


def test_a_job_runs_at_its_interval_and_its_row_tells() -> None:
    async def main() -> None:
        jobs, times = Jobs(), []

        async def job() -> None:
            times.append(time.time())

        began = time.time()
        jobs.add("job", SHORT, job)
        assert row(jobs, "job")["last"] is None
        seen = watch(jobs, lambda: len(times) >= 3)
        with running(jobs):
            await within(seen)
            told = row(jobs, "job")
        assert times[0] - began > SHORT * 0.9
        assert times[2] - began > 3 * SHORT * 0.9
        assert (told["errors"], told["missed"], told["last_error"]) == (0, 0, None)
        assert isinstance(told["runs"], int) and told["runs"] >= 2
        assert isinstance(told["last"], float) and began < told["last"] <= time.time()

    asyncio.run(main())


def test_a_failing_job_is_told_and_runs_again_and_a_good_run_clears_it(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        jobs, told = Jobs(), []
        third = asyncio.get_running_loop().create_future()

        async def job() -> None:
            told.append(row(jobs, "job"))
            if len(told) == 1:
                raise ValueError("no such zone")
            if len(told) == 3 and not third.done():
                third.set_result(None)

        jobs.add("job", SHORT, job)
        with running(jobs):
            await within(third)
        assert (told[1]["runs"], told[1]["errors"], told[1]["last_error"]) == (1, 1, "ValueError: no such zone")
        assert (told[2]["runs"], told[2]["errors"], told[2]["last_error"]) == (2, 1, None)

    with caplog.at_level(logging.ERROR, "nftban.daemon.jobs"):
        asyncio.run(main())
    (record,) = (r for r in caplog.records if r.name == "nftban.daemon.jobs")
    assert record.getMessage() == "job job failed: ValueError: no such zone"
    assert record.exc_info is not None and record.exc_info[2] is not None


def test_a_cancelled_job_is_an_error_and_runs_again() -> None:
    async def main() -> None:
        jobs, told = Jobs(), []
        second = asyncio.get_running_loop().create_future()

        async def job() -> None:
            told.append(row(jobs, "job"))
            if len(told) == 1:
                raise asyncio.CancelledError
            if not second.done():
                second.set_result(None)

        jobs.add("job", SHORT, job)
        with running(jobs):
            await within(second)
        assert (told[1]["errors"], str(told[1]["last_error"]).partition(":")[0]) == (1, "CancelledError")

    asyncio.run(main())


def test_a_job_never_overlaps_itself_and_what_it_sleeps_through_is_missed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        jobs, release = Jobs(), asyncio.Event()
        inside = most = runs = 0

        async def job() -> None:
            nonlocal inside, most, runs
            inside, runs = inside + 1, runs + 1
            most = max(most, inside)
            await release.wait()
            inside -= 1

        def missed() -> int:
            count = row(jobs, "slow")["missed"]
            assert isinstance(count, int)
            return count

        jobs.add("slow", SHORT, job)
        overrun = watch(jobs, lambda: missed() >= 3)
        with running(jobs):
            await within(overrun)
            told = row(jobs, "slow")
            assert (runs, told["runs"], told["last"]) == (1, 0, None)
            assert isinstance(told["next"], float)
            release.set()
            await within(watch(jobs, lambda: runs >= 3, "watch again"))
        assert most == 1

    with caplog.at_level(logging.WARNING, "nftban.daemon.jobs"):
        asyncio.run(main())
    assert "job slow: a run was missed; the one before still runs" in caplog.messages


def test_runs_that_a_busy_loop_delayed_are_made_up_for_once() -> None:
    async def main() -> None:
        jobs, times = Jobs(), []
        third = asyncio.get_running_loop().create_future()

        async def job() -> None:
            times.append(time.monotonic())
            if len(times) == 3 and not third.done():
                third.set_result(None)

        jobs.add("job", SHORT, job)
        with running(jobs):
            time.sleep(12 * SHORT)  # the loop itself is busy: eleven runs fall due meanwhile
            free = time.monotonic()
            await within(third)
            told = row(jobs, "job")
        # One late run at once, the second when it is due, the third an interval later.
        assert times[2] - free > SHORT * 0.9
        assert told["missed"] == 0

    asyncio.run(main())


def test_a_run_that_starts_late_is_not_dropped() -> None:
    """APScheduler drops what is later than a second unless told otherwise."""

    async def main() -> None:
        jobs, ran = Jobs(), asyncio.get_running_loop().create_future()

        async def job() -> None:
            ran.set_result(None)

        jobs.add("rare", LONG, job, at_once=True)
        with running(jobs):
            time.sleep(1.2)
            await within(ran)
        assert row(jobs, "rare")["missed"] == 0

    asyncio.run(main())


def test_at_once_means_at_once_and_otherwise_after_an_interval() -> None:
    async def main() -> None:
        jobs, ran = Jobs(), asyncio.get_running_loop().create_future()

        async def soon() -> None:
            ran.set_result(None)

        async def never() -> None:
            raise AssertionError("an hour too early")

        jobs.add("soon", LONG, soon, at_once=True)
        jobs.add("later", LONG, never)
        with running(jobs):
            await within(ran)
            later = row(jobs, "later")
        assert (later["runs"], later["errors"]) == (0, 0)
        assert [r["id"] for r in jobs.status()] == ["soon", "later"]

    asyncio.run(main())


def test_the_next_run_is_right_in_any_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        jobs = Jobs()

        async def job() -> None:
            return

        jobs.add("job", LONG, job)
        with running(jobs):
            following = row(jobs, "job")["next"]
        assert isinstance(following, float)
        assert abs(following - time.time() - LONG) < 60

    try:
        for zone in ("XXX-14", "XXX+12"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            asyncio.run(main())
    finally:
        monkeypatch.undo()
        time.tzset()


def test_after_stop_no_run_starts_and_the_book_stays_readable() -> None:
    async def main() -> None:
        jobs, count = Jobs(), 0
        second = asyncio.get_running_loop().create_future()

        async def job() -> None:
            nonlocal count
            count += 1
            if count == 2:
                jobs.stop()
                second.set_result(None)

        jobs.add("job", SHORT, job)
        jobs.start()
        await within(second)
        jobs.stop()
        others = Jobs()
        passed = watch(others, lambda: True)
        with running(others):
            await within(passed)
        assert count == 2
        told = row(jobs, "job")
        assert (told["runs"], told["next"]) == (2, None)

    asyncio.run(main())


def test_stopping_what_never_started_is_nothing() -> None:
    Jobs().stop()
