"""Notifications of a daemon on its stage: real events, a real store, a real program that keeps what it is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nftban.daemon.notices import QUIET
from nftban.daemon.notify import WAITING, Notifications
from nftban.daemon.outward import Outward
from nftban.records import Event
from tests.unit.daemon.stage import JAIL, Stage, on_stage

HOOK = "[notify]\nhook = ['/bin/sh', '-c', 'cat >>{told}']\n"
QUIET_DNS = "[dnsbl]\nenabled = false\nreverse = false\n"


class Told:
    """What the program was told."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "told"

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def settings(self, more: str = "") -> str:
        return HOOK.format(told=self.path) + more + QUIET_DNS + JAIL


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def notifications(stage: Stage) -> Notifications:
    made = Notifications(stage.house.loaded.settings.notify, stage.house.store, stage.daemon.report, stage.clock)
    made.start()
    return made


def report(stage: Stage, kind: str, text: str) -> None:
    stage.daemon.report(Event(stage.now, kind, text))


def test_events_are_told_at_once_together_and_in_the_digest(told: Told, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        sender = notifications(stage)
        report(stage, "zone", "zen is blocked now")
        report(stage, "zone", "bl is dead now")
        await stage.offend("203.0.113.7", 6)
        await stage.offend("203.0.113.8", 6)
        await stage.call("ban", prefixes=["198.51.100.9"])
        await sender.run()
        await sender.settle()
        assert [t["title"] for t in told()] == ["zone: zen is blocked now"]
        stage.wait(QUIET)
        await sender.run()
        await sender.settle()
        assert told()[1]["title"] == "zone: bl is dead now"
        stage.wait(3600 - QUIET)
        await sender.run()
        await sender.settle()
        digest = told()[2]
        assert (digest["kind"], digest["title"]) == ("digest", "3 bans and 2 events in 60 minutes")
        assert digest["text"].splitlines() == [
            "jail postfix: 2 bans",
            "by hand: 1 ban",
            "most from: 203.0.113.0/24 2",
            "events: zone 2",
        ]
        stage.wait(3600)
        await sender.run()
        await sender.settle()
        assert len(told()) == 3, "nothing happened"
        assert sender.status() == {"sent": 3, "failed": 0, "dropped": 0, "waiting": 0, "failing": []}
        await sender.stop()

    on_stage(tmp_path, told.settings(), play)


def test_a_restart_repeats_nothing_and_loses_no_count(told: Told, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        sender = notifications(stage)
        report(stage, "source", "mail.log: does not exist")
        await sender.settle()
        await stage.offend("203.0.113.7", 6)
        await sender.stop()
        report(stage, "zone", "while it was stopped")
        stage.wait(1800)
        sender = notifications(stage)
        report(stage, "source", "mail.log: does not exist")
        await stage.offend("203.0.113.8", 6)
        await sender.run()
        await sender.settle()
        assert [t["title"] for t in told()] == ["source: mail.log: does not exist"]
        stage.wait(1800)
        await sender.run()
        await sender.settle()
        assert [t["title"] for t in told()[1:]] == ["2 bans and 2 events in 60 minutes"]
        await sender.stop()

    on_stage(tmp_path, told.settings(), play)


def test_a_receiver_that_fails_is_told_of_once_and_again_when_it_works(told: Told, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    settings = f"[notify]\nhook = '{hook}'\n" + QUIET_DNS + JAIL

    async def play(stage: Stage) -> None:
        sender = notifications(stage)
        for kind in ("zone", "drift", "feed"):
            report(stage, kind, "something happened")
        await sender.settle()
        why = f"notifications do not reach {hook}: cannot be started: No such file or directory"
        assert stage.events("notify") == [why]
        assert (sender.status()["failed"], sender.status()["failing"]) == (3, [str(hook)])
        hook.write_text(f"#!/bin/sh\ncat >>{told.path}\n")
        hook.chmod(0o755)
        report(stage, "source", "mail.log is silent")
        await sender.settle()
        assert stage.events("notify") == [f"notifications reach {hook} again", why]
        assert [t["kind"] for t in told()] == ["source"]
        await sender.stop()

    on_stage(tmp_path, settings, play)


def test_nobody_waits_for_a_slow_receiver_and_what_piles_up_is_bounded(told: Told, tmp_path: Path) -> None:
    """The program waits for a word that comes when everything was reported."""
    gate = tmp_path / "gate"
    hook = f"[notify]\nhook = ['/bin/sh', '-c', 'read _ <{gate}; cat >>{told.path}']\nat_once = 'zone'\n"

    async def play(stage: Stage) -> None:
        os.mkfifo(gate)
        sender = notifications(stage)
        for n in range(WAITING + 10):
            report(stage, "zone", f"event {n}")
            stage.wait(QUIET)
        assert sender.status()["waiting"] == WAITING
        assert sender.status()["dropped"] == 10
        # Open for reading and writing: every program that comes finds a line.
        held = os.open(gate, os.O_RDWR)
        try:
            os.write(held, b"\n" * (WAITING + 10))
            await sender.settle()
        finally:
            os.close(held)
        titles = [t["title"] for t in told()]
        assert len(titles) == WAITING and titles[-1] == f"zone: event {WAITING + 9}"
        await sender.stop()

    on_stage(tmp_path, hook + QUIET_DNS + JAIL, play)


def test_a_full_disk_keeps_no_notice_back(told: Told, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        sender = notifications(stage)
        with stage.house.store.reading() as db:
            db.execute("PRAGMA query_only = TRUE")  # every write fails, as on a disk that is full or read-only
        report(stage, "ban-failed", "203.0.113.7 is banned until a restart only")
        await sender.settle()
        assert [t["kind"] for t in told()] == ["ban-failed"]
        with stage.house.store.reading() as db:
            db.execute("PRAGMA query_only = FALSE")
        await sender.stop()

    on_stage(tmp_path, told.settings(), play)


def test_a_damaged_store_keeps_no_notice_back(told: Told, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        with stage.house.store.reading() as db:
            db.execute("DROP TABLE state")
        sender = notifications(stage)
        report(stage, "store", "the store was damaged")
        await sender.settle()
        assert [t["kind"] for t in told()] == ["store"]
        await sender.stop()
        with stage.house.store.reading() as db:
            db.execute("CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")

    on_stage(tmp_path, told.settings(), play)


def test_status_and_metrics_say_how_many_arrived(told: Told, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        outward = Outward(stage.house, stage.daemon.report)
        outward.start(stage.daemon._jobs)
        assert [row["id"] for row in stage.daemon._jobs.status()] == ["notifications"]
        report(stage, "zone", "zen is blocked now")
        await outward._notify.settle()
        assert (await stage.call("status"))["notify"]["sent"] == 1
        assert 'nftban_notifications_total{result="sent"} 1\n' in (await stage.call("metrics"))["text"]
        await outward.stop()

    on_stage(tmp_path, told.settings(), play)


def test_without_receivers_nothing_is_heard(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        listeners = len(stage.house.store.listeners)
        outward = Outward(stage.house, stage.daemon.report)
        outward.start(stage.daemon._jobs)
        assert len(stage.house.store.listeners) == listeners
        assert {row["id"] for row in stage.daemon._jobs.status()} == set()
        await outward.stop()

    on_stage(tmp_path, QUIET_DNS + JAIL, play)


def test_notify_test_tells_every_receiver(told: Told, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        assert await stage.call("notify_test") == {"sent": [{"receiver": "/bin/sh", "failure": None}]}
        assert [t["kind"] for t in told()] == ["test"]

    on_stage(tmp_path, told.settings(), play)
