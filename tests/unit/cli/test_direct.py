"""Without a daemon the commands work on store and kernel themselves: on the real kernel, in a network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="makes a network namespace"
)

# Runs the commands one after the other in the namespace it was started in.
_RUN_ALL = """
import json, subprocess, sys
ended = []
for arguments in json.loads(sys.argv[2]):
    command = [sys.executable, "-m", "nftban", "-c", sys.argv[1], *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    ended.append([done.returncode, done.stdout, done.stderr])
print(json.dumps(ended))
"""


def in_a_namespace(config: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", _RUN_ALL, str(config), json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "nftban.toml"
    file.write_text(
        f'[daemon]\nsocket = "{tmp_path}/control.sock"\nstate = "{tmp_path}/state.db"\n'
        '[dns]\nservers = "127.0.0.1:9"\n[dnsbl]\nenabled = false\n[scopes]\nsmtp = [25]\n'
    )
    return file


def test_a_bans_life_without_a_daemon(config: Path) -> None:
    ended = in_a_namespace(
        config,
        ["ban", "203.0.113.7", "127.0.0.1", "--for", "1h", "--scope", "smtp", "--reason", "spam", "--json"],
        ["query", "203.0.113.7", "--json"],
        ["list"],
        ["why", "203.0.113.7"],
        ["unban", "203.0.113.7"],
        ["query", "203.0.113.7"],
    )
    assert [code for code, _, _ in ended] == [1, 0, 0, 0, 0, 1]
    made: dict[str, Any] = json.loads(ended[0][1])
    assert [ban["prefix"] for ban in made["banned"]] == ["203.0.113.7"]
    assert [ban["prefix"] for ban in made["refused"]] == ["127.0.0.1"]
    found = json.loads(ended[1][1])
    assert found["banned"] is True
    assert 3500 < found["entries"][0]["until"] - made["banned"][0]["since"] <= 3601
    assert ended[2][1].splitlines()[1].split()[:2] == ["203.0.113.7", "smtp"]
    assert "not in the kernel" not in ended[2][1]
    assert "Ban by hand, scope smtp" in ended[3][1]
    assert "the daemon does not run" in ended[3][1]
    assert ended[4][1] == "203.0.113.7 is no longer banned (scope smtp)\n"
    assert ended[5][1] == "203.0.113.7 is not banned\n"


def test_status_says_that_no_daemon_runs(config: Path) -> None:
    ((code, out, err),) = in_a_namespace(config, ["status"])
    assert (code, err) == (69, "")
    assert "no daemon runs; bans in the kernel stand and time out" in out
    assert "there is no table inet nftban" in out
