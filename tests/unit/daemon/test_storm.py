"""The storm guard: it stops a jail that bans too fast, says so, and lets go by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.daemon.storm import StormGuard
from nftban.errors import ConfigError
from tests.unit.daemon.stage import JAIL, Stage, on_stage

SETTINGS = "[dnsbl]\nenabled = false\nreverse = false\n[defaults]\nmaxretry = 1\n" + JAIL


def test_no_more_than_the_limit_within_any_minute_and_again_when_it_is_over() -> None:
    guard = StormGuard(3)
    made = [now for now in range(0, 400, 10) if guard.allows(float(now))]
    assert made == [0, 10, 20], "it goes on as fast: it stays stopped"
    assert guard.stopped
    made = [now for now in range(1000, 1200, 25) if guard.allows(float(now))]
    assert made == list(range(1000, 1200, 25)), "slower than that nobody minds"
    assert not guard.stopped


def test_without_a_limit_nothing_is_held_back() -> None:
    guard = StormGuard(None)
    assert all(guard.allows(0.0) for _ in range(10_000))


def test_a_stopped_jail_is_told_of_and_others_go_on(tmp_path: Path) -> None:
    other = '[jail.other]\nfilter = "postfix"\nport = "smtp"\nlogpath = "other.log"\nstorm = "off"\n'

    async def play(stage: Stage) -> None:
        for n in range(1, 11):
            await stage.offend(f"203.0.113.{n}")
        assert [await stage.banned(f"203.0.113.{n}") for n in range(1, 11)] == [True] * 4 + [False] * 6
        (told,) = stage.events("storm")
        assert told.startswith("jail postfix would ban more than 4 addresses within a minute")
        rows = {row["name"]: (row["storm"], row["stopped"]) for row in (await stage.call("status"))["jails"]}
        assert rows == {"postfix": (4, True), "other": (None, False)}
        assert stage.pipeline.counters["bans held back"] == 6
        for n in range(1, 11):
            stage.log(f"postfix/smtpd[{n}]: warning: non-SMTP command from unknown[198.18.0.{n}]: .", "other.log")
        await stage.pipeline.settle()
        assert await stage.banned("198.18.0.10")
        stage.wait(61)
        await stage.offend("203.0.113.10")
        assert await stage.banned("203.0.113.10"), "who was held back is banned by his next offence"
        assert stage.events("storm")[0] == "jail postfix bans again"

    on_stage(tmp_path, SETTINGS.replace("maxretry = 1\n", "maxretry = 1\nstorm = 4\n") + other, play)


@pytest.mark.parametrize("written", ["0", "-1", "true", '"many"', "1.5"])
def test_what_is_no_limit_is_refused(tmp_path: Path, written: str) -> None:
    from nftban.config.load import load

    (tmp_path / "nftban.toml").write_text(f"[defaults]\nstorm = {written}\n")
    with pytest.raises(ConfigError, match="storm"):
        load(tmp_path / "nftban.toml")
