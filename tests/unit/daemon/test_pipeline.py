"""The pipeline where steps overlap: what comes in while DNS is asked, while somebody else bans, while the disk is full.

What it decides from line to ban is in tests/scenarios; here the order of events is the subject.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
from pathlib import Path

import pytest
from demo.dnsbl_server import Mode

from nftban.prefixes import Prefix
from nftban.records import Cursor
from tests.contract.test_kernel_backends import fresh_network
from tests.unit.daemon.stage import JAIL, Stage, on_stage
from tests.unit.daemon.tiny import Disk, on_small_disk

ZEN = "zen.spamhaus.org"
ASKING = f'[dnsbl]\nzones = ["{ZEN}=127.0.0.[2..9]*4"]\nreverse = false\n' + JAIL
SILENT = "[dnsbl]\nenabled = false\nreverse = false\n" + JAIL
BOT, OTHER = "203.0.113.7", "203.0.113.8"


def slow(stage: Stage, delay: float = 0.3) -> None:
    """The zone, tested and good, answers late from now on, and lists BOT."""
    stage.dns.zones[ZEN].add(BOT, ["127.0.0.4"])
    stage.dns.behave(ZEN, delay=delay)


async def asked_before(stage: Stage) -> None:
    stage.dns.add_zone(ZEN)
    await stage.house.verifier.test_zones(stage.now)
    stage.dns.log.clear()


def test_what_comes_in_while_dns_is_asked_is_judged_and_nobody_is_asked_twice(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await asked_before(stage)
        slow(stage)
        stage.lone_dot(BOT, 2)
        await stage.dns.wait_for(1, ZEN)
        stage.lone_dot(BOT, 3)
        assert not await stage.banned(BOT)
        stage.wait(0.4)
        await stage.pipeline.settle()
        (ban,) = (await stage.call("why", address=BOT))["bans"]
        assert (ban["score"], len(ban["offences"])) == (9, 5)
        assert stage.pipeline.counters["verifications"] == 1
        assert stage.dns.count(ZEN) == 1

    on_stage(tmp_path, ASKING, play)


def test_a_silent_zone_holds_a_verdict_up_until_the_deadline_and_no_longer(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await asked_before(stage)
        stage.dns.behave(ZEN, Mode.DROP)
        began = asyncio.get_running_loop().time()
        stage.lone_dot(OTHER, 6)
        await stage.pipeline.settle()
        assert asyncio.get_running_loop().time() - began < 1.5, "dns.deadline is a second"
        (ban,) = (await stage.call("why", address=OTHER))["bans"]
        assert [e["answer"] for e in ban["listings"]] == ["unknown"]

    on_stage(tmp_path, ASKING, play)


def test_what_an_admin_does_while_dns_is_asked_counts(tmp_path: Path) -> None:
    """A ban by hand is not replaced by a shorter one; what an unban forgave is not judged."""

    async def play(stage: Stage) -> None:
        await asked_before(stage)
        slow(stage)
        stage.lone_dot(BOT, 2)
        await stage.dns.wait_for(1, ZEN)
        await stage.call("ban", prefixes=[BOT], permanent=True, scope="mail", reason="by hand")
        stage.wait(0.4)
        await stage.pipeline.settle()
        (ban,) = (await stage.call("list"))["bans"]
        assert (ban["origin"], ban["until"]) == ("manual", None)

        slow(stage)
        stage.dns.zones[ZEN].add(OTHER, ["127.0.0.4"])
        stage.dns.log.clear()
        await stage.call("ban", prefixes=[OTHER], scope="smtp")
        stage.lone_dot(OTHER, 2)
        await stage.dns.wait_for(1, ZEN)
        await stage.call("unban", prefixes=[OTHER])
        stage.wait(0.4)
        await stage.pipeline.settle()
        assert not await stage.banned(OTHER)
        assert stage.pipeline.watched(Prefix.parse(OTHER), stage.now) == []

    on_stage(tmp_path, ASKING, play)


def test_a_ban_placed_while_this_machine_is_looked_at_is_not_replaced(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.wait(60)  # the last look is too old to ban by
        stage.lone_dot(BOT, 6)
        await asyncio.sleep(0)  # the look has begun
        stage.place(BOT, None, "mail")
        await stage.pipeline.settle()
        (ban,) = (await stage.call("list"))["bans"]
        assert (ban["origin"], ban["until"]) == ("manual", None)
        assert stage.pipeline.counters["bans"] == 0

    on_stage(tmp_path, SILENT, play)


def test_verifications_under_way_are_ended_before_the_daemon_is(tmp_path: Path) -> None:
    """Their lines are behind the cursor: the next start would not read them again."""

    async def play(stage: Stage) -> None:
        await asked_before(stage)
        slow(stage, 0.2)
        stage.lone_dot(BOT, 2)
        await stage.dns.wait_for(1, ZEN)
        await stage.pipeline.stop()
        assert await stage.banned(BOT)

    on_stage(tmp_path, ASKING, play)


def test_lines_of_any_kind_are_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play(stage: Stage) -> None:
        for text in (
            "",
            "\0" * 5000,
            "postfix/smtpd[1]: warning: non-SMTP command from unknown[999.1.1.1]: .",
            "postfix/smtpd[2]: warning: non-SMTP command from unknown[203.0.113.07]: .",
            "postfix/smtpd[3]: warning: non-SMTP command from unknown[fe80::1%eth0]: .",
            "postfix/smtpd[4]: warning: non-SMTP command from unknown[203.0.113.7/8]: .",
            "postfix/smtpd[5]: warning: non-SMTP command from unknown[203.0.113.9]: \\xff\x1b[2J\u202e '; DROP TABLE",
            "postfix/dnsblog[6]: addr 203.0.113.7 listed by domain zen.spamhaus.org as 999.999.999.999",
            "postfix/dnsblog[7]: addr 203.0.113.7 listed by domain ../../etc/passwd as 127.0.0.4",
        ):
            stage.log(text)
        await stage.pipeline.settle()
        assert stage.pipeline.counters["lines"] == 9
        assert stage.pipeline.counters["errors"] == 0
        assert stage.pipeline.counters["offences"] == 2
        assert await stage.call("list") == {"bans": []}

    on_stage(tmp_path, ASKING, play)
    # That there was something in the place of an address is told, once.
    assert [r.name for r in caplog.records] == ["nftban"] and "does not count" in caplog.records[0].getMessage()


def test_a_full_disk_does_not_let_anybody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel bans, the journal says what is wrong, and with room the store takes up again."""

    async def play(stage: Stage, disk: Disk) -> None:
        disk.fill()
        for n in range(60):
            await stage.offend(f"198.18.1.{n}", 6)
            assert await stage.banned(f"198.18.1.{n}"), n
        said = [r.getMessage() for r in caplog.records]
        assert any("is banned until a restart only" in s and "full" in s for s in said), said[-5:]
        stage.log("postfix/smtpd[1]: 4AB17: client=unknown[203.0.113.5], sasl_method=PLAIN, sasl_username=anna")
        await stage.daemon.reconcile()
        await stage.daemon.expire()
        assert await stage.banned("198.18.1.59"), "a reconcile does not lift what the store could not take"
        disk.make_room()
        caplog.clear()
        await stage.offend("198.18.2.1", 6)
        stage.log("postfix/smtpd[2]: 4AB18: client=unknown[203.0.113.6], sasl_method=PLAIN, sasl_username=anna")
        assert stage.house.store.login(Prefix.parse("203.0.113.6")) is not None
        assert [s.ban for s in stage.house.store.bans_covering(Prefix.parse("198.18.2.1"))]
        assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
        # Cursors are written again too.
        stage.house.store.set_cursors([("mail.log", Cursor(1, 2, "ab"))])

    with caplog.at_level(logging.INFO):
        on_small_disk(tmp_path, lambda disk: on_stage(tmp_path, SILENT, lambda stage: play(stage, disk)))


def test_an_address_that_becomes_this_machines_own_is_let_out(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await stage.offend("198.51.100.9", 6)
        stage.place("198.51.100.0/24", None)
        stage.place("198.51.101.0/24", None)
        subprocess.run(["ip", "address", "add", "198.51.100.9/24", "dev", "lo"], check=True)
        stage.wait(6)
        await stage.daemon.reconcile()
        assert [b["prefix"] for b in (await stage.call("list"))["bans"]] == ["198.51.101.0/24"]
        assert len(stage.events("lifted")) == 2
        assert (await stage.call("query", address="198.51.100.9"))["protected"] is not None
        await stage.offend("198.51.100.9", 6)
        assert not await stage.banned("198.51.100.9")

    with fresh_network():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        on_stage(tmp_path, SILENT, play)


def test_what_filters_note_becomes_an_event_and_the_other_rules_go_on(tmp_path: Path) -> None:
    stubborn = r"""[Definition]
failregex = ^ mail f: (a+)+(?=b)c <HOST>$
            ^ mail f: a+c <HOST>$
            ^ mail f: named <HOST>$
"""
    settings = SILENT.replace('"postfix"', '"stubborn"')

    async def play(stage: Stage) -> None:
        for _ in range(6):
            stage.log(f"f: {'a' * 60}c {BOT}")
        stage.log("f: named host.example.org")
        await stage.pipeline.settle()
        assert await stage.banned(BOT)
        name, suspended = stage.events("filter")
        assert "stubborn.conf:2 took too long on a line and is suspended for 60 s" in suspended
        assert "'host.example.org' where the client's address should be" in name

    on_stage(tmp_path, {"nftban.toml": settings, "filter.d/stubborn.conf": stubborn}, play)
