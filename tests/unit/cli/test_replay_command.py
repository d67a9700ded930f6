"""nftban replay as a command: what it prints, writes and complains about."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_filter_command import run
from tests.unit.replay.test_whole import BOT, CUSTOMER, JAILS, SILENT, accepted, at, guess, settings, write

HOSTILE = "\x1b]0;owned\x07[bold red]x"


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(settings(tmp_path).files[0])


@pytest.fixture
def log(tmp_path: Path) -> str:
    lines = [guess(10 * n, BOT) for n in range(9)]
    lines += [accepted(0, CUSTOMER, "AAAAAAAAAA"), *(guess(100 + n, CUSTOMER) for n in range(6))]
    dot = "postfix/smtpd[9]: warning: non-SMTP command from unknown[203.0.113.9]: "
    return str(write(tmp_path, *lines, at(200, dot + HOSTILE)))


def test_a_summary_names_bans_and_good_clients(
    capsys: pytest.CaptureFixture[str], config: str, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    code, out, err = run(capsys, "replay", "--config", config, log)
    assert (code, err) == (0, "")
    assert "18 lines read" in out
    assert "2 bans of 2 of 3 offenders; 16 offences, of which they stop 3 (19%)" in out
    assert "1 good client would have been banned, 0 of them while they logged in or sent mail" in out
    row = next(line for line in out.splitlines() if line.split()[:1] == [BOT])
    assert "6/6 3 of 9 lines for 1h, scope mail; postfix, rule" in " ".join(row.split())
    assert "\x1b" not in out


def test_json_is_one_value_of_a_known_version(capsys: pytest.CaptureFixture[str], config: str, log: str) -> None:
    code, out, _ = run(capsys, "replay", "-c", config, "--json", log)
    result = json.loads(out)
    assert (code, result["version"], result["lines"], result["difference"]) == (0, 1, 18, None)
    assert [ban["prefix"] for ban in result["settings"][0]["bans"]] == [BOT, CUSTOMER]


def test_settings_are_compared(capsys: pytest.CaptureFixture[str], config: str, log: str, tmp_path: Path) -> None:
    other = settings(tmp_path, f"{SILENT}[defaults]\nmaxretry = 7\n{JAILS}", "other.toml").files[0]
    code, out, _ = run(capsys, "replay", "-c", config, "--against", str(other), log)
    assert code == 0
    for told in (
        f"A  {config}\n",
        f"B  {other}\n",
        "From A to B  1 banned by both\n",
        "1 banned by A only\n",
        "0 banned by B only\n",
        "1 later by B, in the middle by 10s\n",
        f"1 good client hit by A only: {CUSTOMER}\n",
    ):
        assert told in out


def test_a_page_is_written(capsys: pytest.CaptureFixture[str], config: str, log: str, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    assert run(capsys, "replay", "-c", config, "--report", str(page), log)[0] == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    code, _, err = run(capsys, "replay", "-c", config, "--report", str(tmp_path / "no" / "out.html"), log)
    assert code == 1
    assert "out.html cannot be written: No such file or directory" in err


def test_what_cannot_be_read_is_told(capsys: pytest.CaptureFixture[str], config: str, log: str, tmp_path: Path) -> None:
    code, _, err = run(capsys, "replay", "-c", config, str(tmp_path / "missing"))
    assert code == 2
    assert "missing does not exist" in err
    damaged = tmp_path / "mail.log.1.gz"
    damaged.write_bytes(gzip.compress(Path(log).read_bytes())[:-20])
    code, out, _ = run(capsys, "replay", "-c", config, str(damaged))
    assert code == 0
    assert "cannot be read to its end" in out


def test_a_terminal_sees_how_far_it_is(config: str, log: str) -> None:
    """On a pseudo-terminal, as standard error; standard output stays clean."""
    main, other = pty.openpty()
    command = [sys.executable, "-m", "nftban", "replay", "-c", config, "--json", log]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=other, timeout=60, check=True, env=environment)
    os.close(other)
    told = os.read(main, 100_000).decode()
    os.close(main)
    assert json.loads(done.stdout)["lines"] == 18
    assert "reading" in told
    assert "100%" in told
