"""Bans that DNS decided, asked about again: lifted by a clear answer, made longer by a listing, by nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from demo.dnsbl_server import Mode

from nftban.prefixes import Prefix
from tests.unit.daemon.stage import JAIL, Stage, on_stage

ZEN, BL = "zen.spamhaus.org", "bl.blocklist.de"
SETTINGS = f"""
[dnsbl]
zones = ["{ZEN}=127.0.0.[2..9]*4", "{ZEN}=127.0.0.[10;11]*2", "{BL}*4"]
reverse = false
[defaults]
bantime = "10m"
bantime_max = "25m"
[reverify]
extend_within = "5m"
{JAIL}"""
BOT = "203.0.113.7"
CODE = {ZEN: "127.0.0.4", BL: "127.0.0.14"}


async def banned_by(stage: Stage, *zones: str, offences: int = 2) -> None:
    for zone in (ZEN, BL):
        stage.dns.add_zone(zone, {BOT: [CODE[zone]]} if zone in zones else {})
    await stage.offend(BOT, offences)
    assert await stage.banned(BOT)


def left(stage: Stage, address: str = BOT) -> float | None:
    (stored,) = stage.house.bans.covering(Prefix.parse(address))
    return None if stored.ban.until is None else stored.ban.until - stage.now


def delist(stage: Stage, *zones: str) -> None:
    for zone in zones:
        stage.dns.zones[zone].remove(BOT)


def test_a_delisting_lifts_what_needed_the_listing(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        delist(stage, ZEN)
        stage.wait(301)  # what the zone said is known for five minutes
        await stage.daemon.reverify()
        assert not await stage.banned(BOT)
        assert stage.events("lifted") == [f"{BOT}: ban lifted, it is no longer listed (2 of 6 points)"]
        # It was a mistake, not an end: the next ban is as short as a first one.
        await stage.offend(BOT, 6)
        assert left(stage) == 600

    on_stage(tmp_path, SETTINGS, play)


@pytest.mark.parametrize("mode", [Mode.SERVFAIL, Mode.REFUSED, Mode.DROP, Mode.GARBAGE, Mode.PARKED, Mode.LIST_WORLD])
def test_no_answer_and_no_believable_one_changes_nothing(tmp_path: Path, mode: Mode) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        delist(stage, ZEN)
        stage.dns.behave(ZEN, mode)
        stage.wait(301)
        await stage.house.verifier.test_zones(stage.now, every=True)
        for _ in range(2):
            await stage.daemon.reverify()
            assert left(stage) == 299

    on_stage(tmp_path, SETTINGS, play)


def test_one_zone_clear_and_the_other_silent(tmp_path: Path) -> None:
    """What the silent one said before still stands: two and four points are enough, two are not."""

    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN, BL)
        delist(stage, ZEN)
        stage.dns.behave(BL, Mode.SERVFAIL)
        stage.wait(301)
        await stage.daemon.reverify()
        assert left(stage) == 299
        stage.dns.behave(BL)
        delist(stage, BL)
        stage.wait(120)
        await stage.daemon.reverify()
        assert not await stage.banned(BOT)

    on_stage(tmp_path, SETTINGS, play)


def test_what_was_banned_for_its_offences_stays(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN, offences=6)
        delist(stage, ZEN)
        stage.wait(301)
        await stage.daemon.reverify()
        assert left(stage) == 299

    on_stage(tmp_path, SETTINGS, play)


def test_an_extension_ends_at_bantime_max(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        since = stage.now
        lengths = []
        for _ in range(40):
            stage.wait(60)
            await stage.daemon.reverify()
            found = stage.house.bans.covering(Prefix.parse(BOT))
            if not found or found[0].ban.until is None or not found[0].ban.holds(stage.now):
                break
            lengths.append(found[0].ban.until - since)
            assert (found[0].ban.since, await stage.banned(BOT)) == (since, True)
        assert sorted(set(lengths)) == [600, 1200, 1500]
        assert stage.now - since == 1500
        assert len(stage.events("extended")) == 2

    on_stage(tmp_path, SETTINGS, play)


def test_a_listing_that_is_policy_only_does_not_make_a_ban_longer(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.dns.add_zone(ZEN, {BOT: ["127.0.0.10"]})
        stage.dns.add_zone(BL)
        await stage.offend(BOT, 6)
        stage.wait(400)
        await stage.daemon.reverify()
        assert left(stage) == 200

    on_stage(tmp_path, SETTINGS, play)


def test_many_offences_and_a_listing(tmp_path: Path) -> None:
    """Not every offence is stored with its ban; those that are not count all the same."""

    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN, offences=76)
        stage.wait(301)
        await stage.daemon.reverify()
        assert await stage.banned(BOT), "it is still listed"
        delist(stage, ZEN)
        stage.wait(301)
        await stage.daemon.reverify()
        assert not await stage.banned(BOT)

    on_stage(tmp_path, SETTINGS + "maxretry = 80\n", play)


def test_bans_that_are_not_the_jails_are_left_alone(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.dns.add_zone(ZEN, {BOT: ["127.0.0.4"]})
        stage.place(BOT, 100)
        stage.place("203.0.113.8", 100, "mail", jail="gone")
        stage.place("203.0.113.9", 100, "mail", jail="postfix")
        await stage.daemon.reverify()
        assert [left(stage, a) for a in (BOT, "203.0.113.8", "203.0.113.9")] == [100] * 3
        assert stage.dns.count(ZEN) == 0

    on_stage(tmp_path, SETTINGS, play)


def test_what_an_admin_does_meanwhile_counts(tmp_path: Path) -> None:
    """A ban lifted, replaced or over while DNS is asked is not touched."""

    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        for act in ("unban", "ban", "end"):
            await stage.call("unban", all=True)
            stage.wait(301)
            await stage.offend(BOT, 2)
            assert await stage.banned(BOT)
            stage.wait(301)  # the answer is asked for again
            delist(stage, ZEN)
            stage.dns.log.clear()
            stage.dns.behave(ZEN, delay=0.2)
            asking = asyncio.ensure_future(stage.daemon.reverify())
            await stage.dns.wait_for(1, ZEN)
            if act == "unban":
                await stage.call("unban", prefixes=[BOT])
            elif act == "ban":
                await stage.call("ban", prefixes=[BOT], scope="mail", permanent=True)
            else:
                stage.wait(300)
            await asking
            stage.dns.behave(ZEN)
            stage.dns.zones[ZEN].add(BOT, ["127.0.0.4"])
            assert await stage.banned(BOT) is (act == "ban"), act
            assert stage.events("lifted") == []

    on_stage(tmp_path, SETTINGS, play)


def test_a_permanent_ban_that_needed_its_listing_is_lifted_too(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        (ban,) = stage.house.bans.covering(Prefix.parse(BOT))
        assert ban.ban.until is None
        await stage.daemon.reverify()
        assert await stage.banned(BOT), "it is listed still"
        stage.wait(86400)
        delist(stage, ZEN)
        await stage.daemon.reverify()
        assert not await stage.banned(BOT)

    on_stage(tmp_path, SETTINGS.replace('bantime = "10m"', 'bantime = "permanent"'), play)


def test_why_shows_that_a_ban_was_verified_again_and_kept(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await banned_by(stage, ZEN)
        (ban,) = (await stage.call("why", address=BOT))["bans"]
        assert ban["checked"] is None
        stage.wait(301)
        await stage.daemon.reverify()
        await stage.daemon.reverify()
        found = (await stage.call("why", address=BOT))["bans"]
        checked = [b["checked"] for b in found if b["ended"] is None]
        assert checked[0]["words"] == f"{ZEN} listed; 6 of 6 points", checked

    on_stage(tmp_path, SETTINGS.replace('extend_within = "5m"', 'extend_within = "1m"'), play)
