"""Events for those who watch: at once, waited for, never twice, and never in anybody's way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nftban.daemon.desk import Desk
from nftban.daemon.news import MOST, WATCHERS
from nftban.daemon.operations import Operations
from nftban.errors import TryAgainError
from nftban.records import Event
from tests.unit.daemon.stage import JAIL, Stage, on_stage

QUIET = "[dnsbl]\nenabled = false\nreverse = false\n" + JAIL


def report(stage: Stage, text: str) -> None:
    stage.daemon.report(Event(stage.now, "zone", text))


async def turns() -> None:
    """Everybody who can go on has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_watcher_sees_each_event_once_and_bans_with_all_about_them(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        report(stage, "before")
        first = await stage.call("events")
        assert first["events"] == []
        waiting = asyncio.create_task(stage.call("events", after=first["last"], wait=10))
        await turns()
        assert not waiting.done()
        await stage.offend("203.0.113.7", 6)
        seen = await waiting
        (event,) = seen["events"]
        assert (event["kind"], event["prefix"]) == ("ban", "203.0.113.7")
        assert (event["ban"]["jail"], event["ban"]["until"]) == ("postfix", stage.now + 3600)
        await stage.call("ban", prefixes=["198.51.100.0/24"], scope="smtp")
        await stage.call("unban", prefixes=["198.51.100.3", "203.0.113.7"])
        later = await stage.call("events", after=seen["last"], wait=10)
        assert [(e["kind"], e["text"]) for e in later["events"]] == [
            ("ban", "198.51.100.0/24 banned in scope smtp by hand"),
            ("unban", "198.51.100.3: let out of the ban of 198.51.100.0/24 by hand"),
            ("unban", "203.0.113.7: ban in scope mail lifted by hand"),
        ]
        assert [e["id"] for e in (await stage.call("events", after=first["last"]))["events"]] == [
            event["id"],
            *(e["id"] for e in later["events"]),
        ]

    on_stage(tmp_path, QUIET, play)


def test_a_slow_watcher_gets_everything_in_pieces(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        for n in range(MOST + 20):
            report(stage, f"event {n}")
        seen: list[str] = []
        last = 0
        while True:
            result = await stage.call("events", after=last)
            if not result["events"]:
                break
            assert len(result["events"]) <= MOST
            seen += [e["text"] for e in result["events"]]
            last = result["last"]
        assert seen == [f"event {n}" for n in range(MOST + 20)]
        assert len((await stage.call("events", after=0, limit=3))["events"]) == 3

    on_stage(tmp_path, QUIET, play)


def test_a_wait_ends_and_a_number_of_another_store_is_the_newest(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        report(stage, "one")
        waiting = asyncio.create_task(stage.call("events", after=1, wait=3000))
        await turns()
        stage.wait(11)
        assert await waiting == {"events": [], "last": 1}
        assert await stage.call("events", after=5000) == {"events": [], "last": 1}

    on_stage(tmp_path, QUIET, play)


def test_only_so_many_wait_at_once(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        waiting = [asyncio.create_task(stage.call("events", after=0, wait=10)) for _ in range(WATCHERS)]
        await turns()
        with pytest.raises(TryAgainError, match="watch already"):
            await stage.call("events", after=0, wait=10)
        report(stage, "one")
        assert [len(r["events"]) for r in await asyncio.gather(*waiting)] == [1] * WATCHERS

    on_stage(tmp_path, QUIET, play)


def test_who_watches_holds_up_neither_a_reload_nor_the_end(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        desk = Desk()
        desk.open(stage.operations)
        waiting = asyncio.create_task(desk.call("events", {"after": 0, "wait": 10}))
        await turns()
        await asyncio.wait_for(desk.drain(), 5)
        assert (await waiting)["events"] == []
        asked = asyncio.create_task(desk.call("events", {"after": 0, "wait": 10}))
        await turns()
        desk.open(Operations(stage.house))
        await turns()
        assert not asked.done(), "the new ones wait again"
        report(stage, "settings read anew")
        assert [e["text"] for e in (await asked)["events"]] == ["settings read anew"]
        waiting = asyncio.create_task(desk.call("events", {"after": 1, "wait": 10}))
        await turns()
        desk.close()
        assert (await asyncio.wait_for(waiting, 5))["events"] == []

    on_stage(tmp_path, QUIET, play)


def test_history_tells_how_each_ban_ended(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await stage.offend("203.0.113.7", 6)
        stage.wait(4000)
        await stage.daemon.expire()
        await stage.call("ban", prefixes=["203.0.113.8"])
        await stage.call("ban", prefixes=["203.0.113.8"], seconds=60)
        await stage.call("unban", prefixes=["203.0.113.8"])
        told = await stage.call("history")
        ended = {(b["prefix"], b["jail"], b["ended"]["how"]) for b in told["bans"]}
        assert ended == {
            ("203.0.113.7", "postfix", "expired"),
            ("203.0.113.8", "", "extended"),
            ("203.0.113.8", "", "unbanned"),
        }
        assert told["before"] is None
        assert [b["prefix"] for b in (await stage.call("history", address="203.0.113.7"))["bans"]] == ["203.0.113.7"]
        assert len((await stage.call("history", jail="postfix"))["bans"]) == 1
        assert len((await stage.call("history", since=stage.now - 300))["bans"]) == 2

    on_stage(tmp_path, QUIET, play)
