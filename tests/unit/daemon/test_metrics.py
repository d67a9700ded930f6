"""The metrics of a daemon on its stage, and their file."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nftban.daemon.outward import Outward
from nftban.errors import NoDaemonError
from tests.unit.daemon.stage import JAIL, Stage, on_stage

SETTINGS = '[dnsbl]\nzones = ["bl.spamcop.net"]\nreverse = false\n' + JAIL


def value(text: str, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"{sample} is not in\n{text}"
    return float(found[1])


def test_what_happened_is_counted(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.dns.add_zone("bl.spamcop.net")
        await stage.offend("203.0.113.7", 6)
        await stage.offend("203.0.113.8", 2)
        await stage.call("ban", prefixes=["198.51.100.9"])
        text = (await stage.call("metrics"))["text"]
        for sample, expected in (
            ("nftban_lines_total", 8),
            ("nftban_offences_total", 8),
            ('nftban_jail_offences_total{jail="postfix"}', 8),
            ('nftban_jail_bans_total{jail="postfix"}', 1),
            ('nftban_jail_live_bans{jail="postfix"}', 1),
            ("nftban_live_bans", 2),
            ('nftban_kernel_elements{set="ban4_mail"}', 1),
            ("nftban_kernel_intact", 1),
            ('nftban_events_total{kind="ban"}', 2),
            ('nftban_zone_state{zone="bl.spamcop.net",state="ok"}', 1),
            ('nftban_zone_usable{zone="bl.spamcop.net"}', 1),
            ("nftban_dns_failures_total", 0),
        ):
            assert value(text, sample) == expected, sample
        assert value(text, "nftban_dns_queries_total") >= 4
        assert value(text, "nftban_verifications_total") >= 2
        for address in ("203.0.113", "198.51.100"):
            assert address not in text
        stage.house.kernel.remove()
        assert value((await stage.call("metrics"))["text"], "nftban_kernel_intact") == 0
        await stage.daemon.reconcile()

    on_stage(tmp_path, SETTINGS, play)


def test_a_question_that_fails_is_counted(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.dns.add_zone("bl.spamcop.net")
        await stage.offend("203.0.113.8", 2)
        before = value((await stage.call("metrics"))["text"], "nftban_dns_failures_total")
        await stage.dns.stop()
        await stage.offend("203.0.113.9", 2)
        after = value((await stage.call("metrics"))["text"], "nftban_dns_failures_total")
        assert (before, after > 0) == (0, True)

    on_stage(tmp_path, SETTINGS, play)


def test_without_a_daemon_nobody_counts(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.house.status = None
        with pytest.raises(NoDaemonError):
            await stage.call("metrics")

    on_stage(tmp_path, SETTINGS, play)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


def test_the_file_is_whole_readable_and_follows(tmp_path: Path) -> None:
    file = tmp_path / "nftban.prom"

    async def play(stage: Stage) -> None:
        outward = Outward(stage.house, stage.daemon.report)
        outward.start(stage.daemon._jobs)
        await stage.offend("203.0.113.7", 6)
        stage.daemon._jobs.start()
        await _until(file.exists)
        assert value(file.read_text(), 'nftban_jail_bans_total{jail="postfix"}') == 1
        assert (file.stat().st_mode & 0o777, os.listdir(tmp_path).count("nftban.prom")) == (0o644, 1)
        assert [name for name in os.listdir(tmp_path) if name.startswith(".nftban.prom")] == []
        if shutil.which("promtool"):
            subprocess.run(["promtool", "check", "metrics"], input=file.read_bytes(), check=True, timeout=60)
        await stage.offend("203.0.113.8", 6)
        await outward._write()
        assert value(file.read_text(), 'nftban_jail_bans_total{jail="postfix"}') == 2
        await outward.stop()

    on_stage(tmp_path, {"conf.d/a.toml": f'[daemon]\nmetrics = "{file}"\n', "nftban.toml": SETTINGS}, play)


def test_a_file_that_cannot_be_written_is_told_of_once(tmp_path: Path) -> None:
    folder = tmp_path / "missing"

    async def play(stage: Stage) -> None:
        outward = Outward(stage.house, stage.daemon.report)
        for _ in range(3):
            await outward._write()
        why = f"the metrics cannot be written to {folder}/nftban.prom: No such file or directory"
        assert stage.events("metrics") == [why]
        folder.mkdir()
        await outward._write()
        assert os.listdir(folder) == ["nftban.prom"]

    on_stage(
        tmp_path, {"conf.d/a.toml": f'[daemon]\nmetrics = "{folder}/nftban.prom"\n', "nftban.toml": SETTINGS}, play
    )
