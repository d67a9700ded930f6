"""`why` about what nobody wrote down: why somebody is not banned, and what would change how it is.  What it foretells
is then made to happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from nftban.prefixes import Prefix
from nftban.records import Login
from nftban.report.why import why as report
from tests.unit.daemon.stage import JAIL, Stage, on_stage
from tests.unit.daemon.test_reverify import BOT, SETTINGS, ZEN, banned_by, delist

QUIET = f"[dnsbl]\nenabled = false\nreverse = false\n{JAIL}"
CUSTOMER = "203.0.113.8"


async def asked(stage: Stage, address: str = BOT) -> dict[str, Any]:
    return await stage.call("why", address=address)


def shown(result: dict[str, Any], now: float) -> str:
    console = Console(width=120, markup=False, no_color=True)
    with console.capture() as captured:
        console.print(report(result, now))
    return captured.get()


def test_points_that_are_missing_are_those_that_ban(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await stage.offend(BOT, 4)
        stage.wait(60)
        why = await asked(stage)
        assert why["reason"] == "watched: 4 of 6 points in jail postfix"
        assert why["changes"] == [
            "jail postfix: 2 more points ban it",
            "jail postfix: its oldest offence no longer counts in 9m",
        ]
        out = shown(why, stage.now)
        assert "Why not: watched: 4 of 6 points in jail postfix\n" in out
        assert "4 offences in a window of 10m: first" in out
        await stage.offend(BOT, 1)
        assert not await stage.banned(BOT)
        await stage.offend(BOT, 1)
        assert await stage.banned(BOT)

    on_stage(tmp_path, QUIET, play)


def test_offences_count_until_the_time_that_is_told(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await stage.offend(BOT, 4)
        stage.wait(541)
        assert "jail postfix: its oldest offence no longer counts in 59s" in (await asked(stage))["changes"]
        stage.wait(61)
        why = await asked(stage)
        assert why["reason"] == "never seen: no ban, and no offence in any jail's window"
        assert why["changes"] == []

    on_stage(tmp_path, QUIET, play)


def test_a_login_spares_until_the_time_that_is_told(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.house.store.set_login(Login(Prefix.parse(CUSTOMER), stage.now - 86300, "bob"))
        await stage.offend(CUSTOMER, 7)
        why = await asked(stage, CUSTOMER)
        assert why["reason"].startswith("spared: a successful login 23h58m ago spares this address")
        assert why["changes"][0] == "jail postfix: its login spares it for another 1m40s"
        assert why["watched"][0]["action"] == "spare"
        assert "Spared by jail postfix  7 of 6 points\n" in shown(why, stage.now)
        stage.wait(101)
        await stage.offend(CUSTOMER)
        assert await stage.banned(CUSTOMER)

    on_stage(tmp_path, QUIET, play)


def test_a_jail_that_ignores_it_is_named(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await stage.offend(CUSTOMER, 9)
        why = await asked(stage, CUSTOMER)
        assert why["ignored"] == ["postfix"]
        assert why["reason"] == "ignored by postfix: what it does there is not counted"

    on_stage(tmp_path, QUIET.replace("[jail.postfix]", f'[jail.postfix]\nignore = ["{CUSTOMER}"]'), play)


def test_who_is_protected_is_told_so(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        why = await asked(stage, CUSTOMER)
        assert why["reason"].startswith("protected: ")
        assert why["changes"] == ["as long as it is protected, no jail and no command bans it"]

    on_stage(tmp_path, f'[allow]\nprefixes = ["{CUSTOMER}"]\n{QUIET}', play)


def test_a_ban_that_a_listing_decided_ends_as_foretold(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        why = await asked(stage)
        assert why["reason"] is None
        assert why["changes"] == [
            "the ban in scope mail ends by itself in 10m",
            f"it ends early if {ZEN} no longer lists it: without that, at most 2 of 6 points are left; "
            "asked again every 15m",
            "it is made longer if it is still listed 5m before its end",
            f"nftban unban {BOT} ends it now; nftban allow add {BOT} keeps it from coming back",
        ]
        delist(stage, ZEN)
        stage.wait(301)
        await stage.daemon.reverify()
        assert not await stage.banned(BOT)
        why = await asked(stage)
        assert why["reason"] == "its last ban has ended (delisted), and it did nothing since that counts"
        assert [event["kind"] for event in why["events"]] == ["lifted", "ban"]
        assert "Reported of it\n" in shown(why, stage.now)

    on_stage(tmp_path, SETTINGS, play)


def test_what_asking_again_found_is_told(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        stage.wait(301)
        await stage.daemon.reverify()
        why = await asked(stage)
        assert [event["kind"] for event in why["events"]] == ["extended", "ban"]
        (live,) = (ban for ban in why["bans"] if ban["ended"] is None)
        assert [e["asked"] for e in live["listings"] if e["zone"] == ZEN] == [stage.now]
        assert "still listed, ban made longer" in shown(why, stage.now)

    on_stage(tmp_path, SETTINGS, play)


def test_the_next_ban_is_as_long_as_told(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        for earlier, length in ((0, 3600), (1, 7200), (2, 14400)):
            why = await asked(stage)
            assert (why["earlier"], why["next"]) == (earlier, {"postfix": length})
            ran = "1 earlier ban" if earlier == 1 else f"{earlier} earlier bans"
            assert f"for {length // 3600}h (postfix); {ran} of it ran out" in shown(why, stage.now)
            await stage.offend(BOT, 6)
            (live,) = (ban for ban in (await asked(stage))["bans"] if ban["ended"] is None)
            assert live["duration"] == length
            stage.wait(length + 1)

    on_stage(tmp_path, QUIET, play)
