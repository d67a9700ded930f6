"""What was counted outlasts restart and kill, a damaged store is made anew, and the clock may be put."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from demo.dnsbl_server import DnsblServer

from nftban.daemon.jobs import Jobs
from nftban.daemon.steps import Steps
from nftban.errors import StoreError
from nftban.prefixes import Prefix
from nftban.records import LogLine
from nftban.store.retention import Limits
from tests.unit.daemon.stage import JAIL, Stage, SteppedLoop, on_stage
from tests.unit.daemon.tiny import Disk, on_small_disk
from tests.unit.store.test_progress import DAMAGES, damage

QUIET = "[dnsbl]\nenabled = false\nreverse = false\n"
SETTINGS = QUIET + JAIL
BOT, OTHER, THIRD = "203.0.113.7", "203.0.113.8", "203.0.113.9"


def play(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(test())


async def risen(folder: Path, dns: DnsblServer, before: Stage | None = None) -> Stage:
    """A daemon on the store that is there, as after a kill -9: the one before is not stopped, only no longer asked."""
    stage = Stage(folder, {"nftban.toml": SETTINGS}, dns)
    if before is not None:
        before.house.store.close()
        stage.clock.now, stage._pid = before.now, before._pid
    stage.daemon.upkeep.take_up()
    await stage.daemon.reconcile()
    await stage.daemon._saved.restore()
    return stage


def held(stage: Stage, address: str) -> int:
    judged = stage.pipeline.watched(Prefix.parse(address), stage.now)
    return sum(len(j.suspect.offences) for j in judged)


def test_what_was_counted_is_there_after_a_kill_as_far_as_it_was_saved(tmp_path: Path) -> None:
    async def test() -> None:
        async with DnsblServer() as dns:
            stage = await risen(tmp_path, dns)
            stage.lone_dot(BOT, 3)
            stage.lone_dot(OTHER, 2)
            await stage.daemon.save_progress()
            stage.lone_dot(OTHER, 1)  # is read again: the cursor on disk is before it
            again = await risen(tmp_path, dns, stage)
            assert (held(again, BOT), held(again, OTHER)) == (3, 2)
            after, before = (s.assembly.jails[0].windows.suspect(Prefix.parse(BOT), s.now) for s in (again, stage))
            assert after == before is not None, "with lines and all"
            again.lone_dot(BOT, 3)
            await again.pipeline.settle()
            assert await again.banned(BOT)

    play(test)


def test_a_ban_saves_what_was_counted_and_forgets_its_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with DnsblServer() as dns:
            stage = await risen(tmp_path, dns)
            stage.lone_dot(OTHER, 2)
            stage.lone_dot(BOT, 6)
            await stage.pipeline.settle()
            assert await stage.banned(BOT)
            again = await risen(tmp_path, dns, stage)
            assert (held(again, BOT), held(again, OTHER)) == (0, 2)
            assert await again.banned(BOT)

    play(test)


def test_a_session_under_way_counts_once_over_a_kill(tmp_path: Path) -> None:
    async def test() -> None:
        async with DnsblServer() as dns:
            stage = await risen(tmp_path, dns)
            stage.log(f"postfix/smtpd[9]: warning: non-SMTP command from unknown[{BOT}]: .")
            await stage.daemon.save_progress()
            again = await risen(tmp_path, dns, stage)
            again.log(f"postfix/smtpd[9]: disconnect from unknown[{BOT}] unknown=0/1 commands=0/1")
            assert held(again, BOT) == 1
            again.log(f"postfix/smtpd[10]: disconnect from unknown[{BOT}] unknown=0/1 commands=0/1")
            assert held(again, BOT) == 2, "what is another session counts"

    play(test)


def test_who_was_not_decided_about_at_a_kill_is_decided_about_at_the_start(tmp_path: Path) -> None:
    async def test() -> None:
        async with DnsblServer() as dns:
            stage = await risen(tmp_path, dns)
            jail = stage.assembly.jails[0]
            stage.lone_dot(BOT, 5)
            (judged,) = stage.pipeline.watched(Prefix.parse(BOT), stage.now)
            # As when it is killed between counting and deciding.
            jail.windows.add(replace(judged.suspect.offences[-1]), stage.now)
            await stage.daemon.save_progress()
            again = await risen(tmp_path, dns, stage)
            assert not await again.banned(BOT)
            await again.pipeline.resume()
            await again.pipeline.settle()
            assert await again.banned(BOT)

    play(test)


def test_another_filter_does_not_go_on_with_sessions_of_the_one_before(tmp_path: Path) -> None:
    async def test() -> None:
        async with DnsblServer() as dns:
            stage = await risen(tmp_path, dns)
            stage.log(f"postfix/smtpd[9]: warning: non-SMTP command from unknown[{BOT}]: .")
            await stage.daemon.save_progress()
            stage.house.store.close()
            files = {"nftban.toml": SETTINGS.replace('"postfix"', '"postfix[mode=aggressive]"', 1)}
            again = Stage(tmp_path, files, dns)
            again.daemon.upkeep.take_up()
            await again.daemon._saved.restore()
            assert held(again, BOT) == 1
            assert again.assembly.jails[0].matchers == {}
            await again.daemon.save_progress()
            kinds = {kind for _, kind, _, _ in again.house.store.remembered("postfix")}
            assert kinds == {"filter"}, "they are gone from the store too"
            await again.daemon.stop()

    play(test)


def test_what_a_full_disk_kept_back_is_written_when_there_is_room(tmp_path: Path) -> None:
    def test(disk: Disk) -> None:
        async def go() -> None:
            async with DnsblServer() as dns:
                stage = await risen(tmp_path, dns)
                stage.lone_dot(BOT, 2)
                disk.fill()
                stage.lone_dot(BOT, 1)
                for n in range(1, 60):
                    stage.lone_dot(f"198.51.100.{n}", 3)
                with pytest.raises(StoreError):
                    for _ in range(50):
                        await stage.daemon.save_progress()
                        stage.lone_dot(OTHER, 1)
                disk.make_room()
                await stage.daemon.save_progress()
                counts = [held(stage, f"198.51.100.{n}") for n in range(1, 60)]
                again = await risen(tmp_path, dns, stage)
                assert held(again, BOT) == 3
                assert [held(again, f"198.51.100.{n}") for n in range(1, 60)] == counts == [3] * 59

        play(go)

    on_small_disk(tmp_path, test)


def test_no_line_is_behind_the_cursor_while_its_ban_is_not_on_disk(tmp_path: Path) -> None:
    """A ban that a full disk kept out, then room, another ban, and a kill: the lines of the first are read again."""

    def test(disk: Disk) -> None:
        async def go() -> None:
            async with DnsblServer() as dns:
                stage = await risen(tmp_path, dns)
                store = stage.house.store
                stage.lone_dot(BOT, 5)
                await stage.daemon.save_progress()
                disk.fill()
                # The log that is written ahead may have room of its own.
                for n in range(1, 250):
                    stage.lone_dot(f"198.51.100.{n}", 6)
                    await stage.pipeline.settle()
                    if store.live_ban(Prefix.parse(f"198.51.100.{n}"), "mail") is None:
                        break
                stage.lone_dot(BOT, 1)
                await stage.pipeline.settle()
                assert await stage.banned(BOT), "in the kernel"
                assert store.live_ban(Prefix.parse(BOT), "mail") is None
                disk.make_room()
                stage.lone_dot(OTHER, 6)
                await stage.pipeline.settle()
                assert store.live_ban(Prefix.parse(OTHER), "mail") is not None
                counted = [o for o in store.offences("postfix") if o.prefix == Prefix.parse(BOT)]
                assert len(counted) == 5, "as it was when the cursor on disk was taken"
                await stage.daemon.save_progress()
                assert store.live_ban(Prefix.parse(BOT), "mail") is not None
                assert [o for o in store.offences("postfix") if o.prefix == Prefix.parse(BOT)] == []

        play(go)

    on_small_disk(tmp_path, test)


def test_too_much_that_cannot_be_written_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nftban.daemon.saved.TOO_MANY", 5)

    async def test() -> None:
        async with DnsblServer() as dns:
            stage = await risen(tmp_path, dns)
            stage.lone_dot(BOT, 2)
            await stage.daemon.save_progress()
            for n in range(1, 20):
                stage.lone_dot(f"198.51.100.{n}", 1)
            await stage.daemon.save_progress()
            again = await risen(tmp_path, dns, stage)
            assert held(again, BOT) == 2
            assert [held(again, f"198.51.100.{n}") for n in range(1, 20)] == [1] * 19

    play(test)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_store_is_set_aside_at_the_start_and_bans_stand(tmp_path: Path, how: str) -> None:
    """The kernel's sets are those of a daemon that observes, which are in memory: handed on, as the real ones stay."""

    async def test() -> None:
        async with DnsblServer() as dns:
            stage = await risen(tmp_path, dns)
            for n in range(200):
                stage.place(f"198.51.{n}.1", seconds=5000)
                stage.house.store.set_state(f"s{n}", "x" * 100)
            stage.place("2001:db8:7::/64", seconds=None)
            stage.place("192.0.2.128/26", seconds=600, scope="smtp")
            before = sorted((str(s.ban.prefix), s.ban.scope, s.ban.until) for s in stage.house.bans.all(stage.now))
            assert len(before) == 202
            stage.house.store.close()
            damage(tmp_path / "observe.db", how)
            again = Stage(tmp_path, {"nftban.toml": SETTINGS}, dns)
            again.daemon.upkeep._kernel = again.house.kernel = stage.house.kernel
            again.house.bans._kernel = again.daemon._healing._kernel = stage.house.kernel
            again.daemon.upkeep.take_up()
            await again.daemon.reconcile()
            await again.daemon.upkeep.check()
            await again.daemon.save_progress()
            after = sorted((str(s.ban.prefix), s.ban.scope, s.ban.until) for s in again.house.bans.all(again.now))
            assert after == before
            aside = list(tmp_path.glob("observe.db.damaged-*Z"))
            assert len(aside) == 1
            (told,) = again.events("store")
            assert str(aside[0]) in told and "202 bans taken from the kernel's sets" in told
            again.house.store.check()
            assert not again.drift()
            await again.daemon.stop()

    play(test)


def test_a_store_found_damaged_while_it_runs_is_made_anew_with_all_that_is_known(tmp_path: Path) -> None:
    async def play_(stage: Stage) -> None:
        stage.place("198.51.100.1", seconds=5000)
        stage.lone_dot(BOT, 2)
        store = stage.house.store
        store.sync()
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        whole = (tmp_path / "observe.db").read_bytes()
        (tmp_path / "observe.db").write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
        await stage.daemon.upkeep.check()
        await stage.daemon.save_progress()
        assert len(list(tmp_path.glob("observe.db.damaged-*Z"))) == 1
        assert await stage.banned("198.51.100.1")
        assert len(list(store.offences("postfix"))) == 2, "what was counted is written anew"
        assert len(stage.events("store")) == 1
        stage.lone_dot(BOT, 4)
        await stage.pipeline.settle()
        assert await stage.banned(BOT)

    on_stage(tmp_path, SETTINGS, play_)


@pytest.mark.parametrize("step", [3600.0, -3600.0, 100_000.0])
def test_a_ban_lasts_as_long_as_it_was_meant_to_when_the_clock_is_put(tmp_path: Path, step: float) -> None:
    async def play_(stage: Stage) -> None:
        stage.place(BOT, seconds=600)
        stage.place(OTHER, seconds=None)
        stage.put_clock(step)
        await stage.daemon.expire()
        assert await stage.banned(BOT), "nobody has looked at the clock yet"
        stage.daemon.look_at_clock()
        await stage.daemon.reconcile()  # comes by itself, a moment later
        (told,) = stage.events("clock")
        assert f"by {abs(step):,.0f} s" in told and "the ends of 2 bans" in told
        stage.wait(599)
        await stage.daemon.expire()
        assert await stage.banned(BOT)
        stage.wait(2)
        await stage.daemon.expire()
        assert not await stage.banned(BOT) and await stage.banned(OTHER)

    on_stage(tmp_path, SETTINGS, play_)


def test_the_clock_put_back_blinds_no_jail(tmp_path: Path) -> None:
    async def play_(stage: Stage) -> None:
        stage.lone_dot(BOT, 5)
        stage.put_clock(-7200.0)
        stage.daemon.look_at_clock()
        stage.lone_dot(BOT, 1)
        await stage.pipeline.settle()
        assert await stage.banned(BOT)

    on_stage(tmp_path, SETTINGS, play_)


def test_a_line_from_later_than_now_blinds_no_jail(tmp_path: Path) -> None:
    """As when lines are read again after a kill, and the clock was put back meanwhile."""

    async def play_(stage: Stage) -> None:
        date = datetime.fromtimestamp(stage.now + 7200, UTC).isoformat()
        for n in range(901, 906):
            line = f"{date} mail postfix/smtpd[{n}]: warning: non-SMTP command from unknown[{THIRD}]: ."
            stage.pipeline.take(stage.assembly.jails, LogLine("mail.log", line))
        stage.lone_dot(THIRD, 1)
        await stage.pipeline.settle()
        assert await stage.banned(THIRD)

    on_stage(tmp_path, SETTINGS, play_)


def test_a_step_that_could_not_be_followed_is_followed_later(tmp_path: Path) -> None:
    async def play_(stage: Stage) -> None:
        stage.place(BOT, seconds=600)
        stage.put_clock(5000.0)
        stage.house.store._db.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError):
            stage.daemon.look_at_clock()
        stage.house.store._db.execute("PRAGMA query_only = 0")
        assert await stage.banned(BOT)
        stage.daemon.look_at_clock()
        await stage.daemon.reconcile()
        stage.wait(599)
        await stage.daemon.expire()
        assert await stage.banned(BOT)

    on_stage(tmp_path, SETTINGS, play_)


class Clocks:
    def __init__(self) -> None:
        self.wall, self.up = 1_000_000.0, 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds

    def steps(self, boot: str = "one", earlier: object = None) -> Steps:
        return Steps(lambda: self.wall, lambda: self.up, boot, earlier)


def test_a_slow_correction_is_no_step_and_time_goes_on() -> None:
    clocks = Clocks()
    steps = clocks.steps()
    for _ in range(5000):
        clocks.pass_(1.0)
        clocks.wall += 0.0005
        assert steps.step() == 0.0
    assert abs(steps.now() - clocks.wall) < 0.01


def test_a_step_while_no_daemon_ran_is_found_within_one_boot_only() -> None:
    clocks = Clocks()
    kept = clocks.steps().kept()
    clocks.pass_(100.0)
    assert clocks.steps(earlier=kept).step() == 0.0
    clocks.wall += 3600.0
    later = clocks.steps(earlier=kept)
    assert abs(later.step() - 3600.0) < 1e-6 and later.step() == 0.0
    clocks.up = 1.0
    assert clocks.steps("two", kept).step() == 0.0, "of another boot nothing can be said"


def test_a_clock_that_was_behind_at_the_boot_moves_only_what_was_made_since() -> None:
    """No battery: at the boot it is 1970.  The ends of bans from before are right; the step makes the clock so."""
    clocks = Clocks()
    kept = clocks.steps().kept()
    clocks.wall, clocks.up = 100.0, 1.0
    steps = clocks.steps("two", kept)
    assert steps.own_from == 100.0
    clocks.wall = 1_000_500.0
    assert steps.step() > 1_000_000
    assert steps.moved_from() == 100.0
    assert steps.moved_from() == float("-inf"), "from now on it is believed"


def test_garbage_about_the_clock_is_no_harm() -> None:
    given: tuple[Any, ...] = (None, [], {}, {"offset": "x", "now": 1, "own_from": 2, "boot": "one"}, 7)
    for garbage in given:
        assert Clocks().steps(earlier=garbage).step() == 0.0


def test_jobs_go_on_when_the_clock_was_put_back() -> None:
    async def test() -> None:
        ran = asyncio.Event()

        async def job() -> None:
            ran.set()

        jobs = Jobs()
        jobs.add("often", 0.05, job)
        jobs.start()
        await asyncio.wait_for(ran.wait(), 5)
        # As it looks when the clock goes back by an hour: the next run is in an hour.
        jobs._scheduler.get_job("often").modify(next_run_time=datetime.now(UTC) + timedelta(hours=1))
        ran.clear()
        jobs.replan()
        await asyncio.wait_for(ran.wait(), 5)
        jobs.stop()

    asyncio.run(test())


def test_pruning_keeps_to_the_limits(tmp_path: Path) -> None:
    async def play_(stage: Stage) -> None:
        for n in range(1, 50):
            stage.lone_dot(f"198.51.100.{n}", 1)
        await stage.daemon.save_progress()
        stage.wait(601)
        await stage.daemon.upkeep.prune()
        assert list(stage.house.store.offences("postfix")) == []
        assert Limits().offences >= 1_000_000

    on_stage(tmp_path, SETTINGS, play_)
