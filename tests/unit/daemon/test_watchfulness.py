"""Logs that are not read as they should be, as `status` and the events tell it: real files, a clock of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from nftban.daemon.assemble import JailSetup, checked
from nftban.daemon.logs import Logs
from nftban.daemon.watchfulness import STATE
from nftban.records import LogLine
from nftban.report.status import status as shown_status
from nftban.sources.habit import UNREADABLE
from nftban.store.sqlite import Store

START = 1_699_833_600.0
HOUR = 3600.0


class Desk:
    """Logs over one file, looked at every ten seconds of the test's own time."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.path = folder / "mail.log"
        (folder / "filter.d").mkdir(exist_ok=True)
        (folder / "filter.d" / "every.conf").write_text("[Definition]\nfailregex = ^ offence <HOST>$\n")
        config = folder / "nftban.toml"
        config.write_text(f'[dnsbl]\nenabled = false\n[jail.one]\nfilter = "every"\nlogpath = "{self.path}"\n')
        self.now = START
        self.store = store or Store(folder / "state.db")
        self.logs = Logs(checked(config).jails, self._take, self.store, clock=lambda: self.now)

    def _take(self, jails: Sequence[JailSetup], line: LogLine, rules: Sequence[tuple[int, ...]] | None = None) -> None:
        pass

    @property
    def alert(self) -> str:
        (row,) = self.logs.status()
        return row["alert"] or ""

    @property
    def events(self) -> list[str]:
        return [event.text for event in reversed(self.store.events(1000)) if event.kind == "source"]

    async def write(self, *lines: str) -> None:
        """And waits until they are read."""
        (row,) = self.logs.status()
        with self.path.open("a") as out:
            out.writelines(f"{line}\n" for line in lines)
        async with asyncio.timeout(10):
            while self.logs.status()[0]["lines"] < row["lines"] + len(lines):
                await asyncio.sleep(0.001)

    async def pass_time(self, seconds: float, every: float | None = None) -> None:
        """every: seconds between two lines; None: there is none."""
        end = self.now + seconds
        while self.now < end:
            self.now += 10
            if every and (self.now - START) % every < 10:
                await self.write("2023-11-14T00:00:00+00:00 m x: something")
            await self.logs.look_for_files()


def test_a_log_that_goes_silent_is_told_once_and_when_it_is_back(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path)
        desk.path.touch()
        await desk.logs.start()
        await desk.pass_time(25 * HOUR, every=300)
        assert desk.alert == "" and desk.events == []
        await desk.pass_time(0.5 * HOUR)
        assert desk.alert.startswith("silent for ")
        assert [event.partition(": ")[2][:10] for event in desk.events] == ["silent for"]
        await desk.write("2023-11-14T00:00:00+00:00 m x: something")
        await desk.pass_time(10)
        assert desk.alert == ""
        assert desk.events[1:] == [f"{desk.path} is read as usual again"]
        await desk.logs.stop()
        # What was learned is there after a restart, without another day.
        later = Desk(tmp_path, desk.store)
        later.now = desk.now
        await later.logs.start()
        await later.pass_time(HOUR)
        assert later.alert.startswith("silent for ")
        await later.logs.stop()

    asyncio.run(work())


def test_a_log_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path)
        desk.path.touch()
        await desk.logs.start()
        for n in range(UNREADABLE):
            assert desk.alert == ""
            await desk.write(f"what is {n} this")
        assert desk.alert.startswith("no date can be read in the last 20 lines")
        await desk.pass_time(20)
        assert len(desk.events) == 1
        await desk.write("2023-11-14T00:00:00+00:00 m x: something")
        await desk.pass_time(10)
        assert desk.alert == "" and desk.events[-1].endswith("is read as usual again")
        await desk.logs.stop()

    asyncio.run(work())


def test_an_error_is_told_when_it_lasts(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path)
        desk.path.touch()
        await desk.logs.start()
        await desk.pass_time(10)
        desk.path.unlink()
        desk.path.mkdir()
        async with asyncio.timeout(10):
            while not desk.logs.status()[0]["error"]:
                await asyncio.sleep(0.001)
        await desk.pass_time(10)
        assert desk.events == [], "between two rotations there may be none for a moment"
        await desk.pass_time(10)
        assert desk.events == [f"{desk.path}: is a directory"]
        await desk.pass_time(100)
        assert len(desk.events) == 1
        await desk.logs.stop()

    asyncio.run(work())


@pytest.mark.parametrize("saved", [[], "x", {"other": {}, "mail.log": 7}])
def test_a_state_of_another_shape_is_no_obstacle(tmp_path: Path, saved: object) -> None:
    async def work() -> None:
        store = Store(tmp_path / "state.db")
        store.set_state(STATE, saved)
        desk = Desk(tmp_path, store)
        await desk.logs.start()
        await desk.pass_time(20)
        await desk.logs.stop()

    asyncio.run(work())


def test_status_shows_the_alert() -> None:
    from rich.console import Console

    row = {"path": "/l", "exists": True, "last_line": START, "lines": 1, "bytes": 1, "error": None}
    result = {
        "config": [], "version": "1", "pid": 1, "started": START, "zones": [], "events": [],
        "dns": {"servers": [], "note": None}, "kernel": {"intact": True, "table": "t", "elements": {}},
        "sources": [{**row, "alert": "silent for 15 min"}],
    }  # fmt: skip
    console = Console(width=200)
    with console.capture() as capture:
        console.print(shown_status(result, START + 10, True))
    assert "silent for 15 min" in capture.get()
