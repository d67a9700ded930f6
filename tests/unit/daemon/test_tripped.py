"""Bans that a zone led to while it listed everybody: lifted, whatever else is amiss; others are left alone."""

from __future__ import annotations

from pathlib import Path

from demo.dnsbl_server import Mode

from tests.unit.daemon.stage import JAIL, Stage, on_stage

ZEN = "zen.spamhaus.org"
BOT, OTHER = "203.0.113.7", "203.0.113.8"


def settings(bantime: str) -> str:
    return f'[dnsbl]\nzones = ["{ZEN}*4"]\nreverse = false\n[defaults]\nbantime = "{bantime}"\n{JAIL}'


async def tripped(stage: Stage) -> None:
    """The zone is good, then lists everybody, and somebody offends; then it is found out."""
    stage.dns.add_zone(ZEN, {})
    await stage.house.verifier.test_zones(stage.now)
    stage.wait(60)
    stage.dns.behave(ZEN, Mode.LIST_WORLD)
    await stage.offend(BOT, 2)
    await stage.offend(OTHER, 6)
    assert await stage.banned(BOT)
    assert await stage.banned(OTHER)
    await stage.house.verifier.test_zones(stage.now, every=True)


def test_a_permanent_ban_is_lifted_too(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await tripped(stage)
        assert not await stage.banned(BOT)
        assert await stage.banned(OTHER), "its offences were enough"
        why = f"{BOT}: ban lifted, its listing is void: {ZEN} lists the world (2 of 6 points without it)"
        assert stage.events("lifted") == [why]
        assert stage.pipeline.counters["bans void"] == 1
        watched = (await stage.call("why", address=BOT))["watched"]
        assert not watched or watched[0]["score"] < 6
        # It was never at fault: the next ban is a first one.
        stage.dns.behave(ZEN)
        await stage.offend(BOT, 6)
        assert await stage.banned(BOT)

    on_stage(tmp_path, settings("permanent"), play)


def test_a_zone_that_only_fails_lifts_nothing(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.dns.add_zone(ZEN, {BOT: ["127.0.0.4"]})
        await stage.offend(BOT, 2)
        for mode in (Mode.SERVFAIL, Mode.REFUSED, Mode.GARBAGE):
            stage.dns.behave(ZEN, mode)
            await stage.house.verifier.test_zones(stage.now, every=True)
            assert await stage.banned(BOT)
        stage.dns.behave(ZEN)
        stage.dns.zones[ZEN].add("127.0.0.2", ["127.255.255.255"])
        await stage.house.verifier.test_zones(stage.now, every=True)
        assert await stage.banned(BOT)
        assert stage.events("lifted") == []

    on_stage(tmp_path, settings("1h"), play)
