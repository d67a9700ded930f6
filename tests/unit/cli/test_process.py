"""The command as a process: terminals and pipes, signals, sockets that are not ours, and how quickly it starts."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nftban import __version__
from tests.unit.cli.recorded import RESULTS
from tests.unit.control.serving import listening

NFTBAN = [sys.executable, "-m", "nftban"]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


# What coverage starts in child processes writes files as whoever runs them, and imports what we look for.
NOT_PASSED_ON = ("NO_COLOR", "COLUMNS", "TERM", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in NOT_PASSED_ON}
    return {**kept, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **more}


@pytest.fixture
def asked() -> threading.Event:
    return threading.Event()


@pytest.fixture
def config(asked: threading.Event) -> Iterator[Path]:
    """Of a daemon that answers what was recorded, but never answers `check`."""
    go_on = threading.Event()

    async def call(op: str, args: dict[str, Any]) -> dict[str, Any]:
        asked.set()
        if op == "check":
            import asyncio

            await asyncio.get_running_loop().run_in_executor(None, go_on.wait, 60)
        if op == "list" and os.environ.get("NFTBAN_TEST_MANY"):
            return {"bans": RESULTS["list"]["bans"] * 20_000}
        return RESULTS[op]

    with tempfile.TemporaryDirectory(prefix="nftban-") as folder:
        os.chmod(folder, 0o755)
        file = Path(folder) / "nftban.toml"
        file.write_text(f'[daemon]\nsocket = "{folder}/control.sock"\nstate = "{folder}/state.db"\n')
        with listening(Path(folder) / "control.sock", call):
            yield file
            go_on.set()


def on_a_terminal(arguments: list[str], **variables: str) -> str:
    """What the command writes to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm-256color", **variables)
    )
    os.close(theirs)
    written = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # EIO: the last process has closed it
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    assert running.wait(10) == 0
    return written.decode()


def test_colour_is_for_terminals_that_want_it(config: Path) -> None:
    why = [*NFTBAN, "-c", str(config), "why", "203.0.113.7"]
    coloured = on_a_terminal(why, COLUMNS="100")
    assert "\x1b[1;31m BANNED\x1b[0m" in coloured.replace(" is BANNED", " BANNED")
    # Nothing of the client's reaches the terminal as a command to it: only rich's own colours are there.
    assert set(re.findall(r"\x1b.", coloured)) == {"\x1b["}
    assert all(sequence.endswith("m") for sequence in re.findall(r"\x1b\[[0-9;]*.", coloured))
    plain = on_a_terminal(why, COLUMNS="100", NO_COLOR="1")
    assert "[31m" not in plain
    piped = subprocess.run(why, env=environment(), capture_output=True, text=True, timeout=30, check=True)
    assert "\x1b" not in piped.stdout
    assert "is BANNED" in piped.stdout


def test_a_latin_terminal_gets_no_traceback(config: Path) -> None:
    why = [*NFTBAN, "-c", str(config), "status"]
    done = subprocess.run(why, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, timeout=30, check=True)
    assert done.stdout.isascii()
    assert done.stderr == b""


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_error(more: list[str], config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFTBAN_TEST_MANY", "1")
    running = subprocess.Popen(
        [*NFTBAN, "-c", str(config), "list", *more], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.read(100)
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(30) == 141


def test_ctrl_c_ends_quietly(config: Path, asked: threading.Event) -> None:
    running = subprocess.Popen(
        [*NFTBAN, "-c", str(config), "check", "203.0.113.7"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell's background job, which the test run may be, ignores it, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert asked.wait(30)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, b"")
    assert b"Traceback" not in err


_AS_ANOTHER = """
import contextlib, io, os, sys
import nftban.cli.app, nftban.config.load, nftban.report.text
# The help brings in what is imported late: other users may not be able to reach the interpreter and its modules.
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    nftban.cli.app.main([sys.argv[3], "--help"])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
nftban.cli.app.main(sys.argv[1:])
"""


@needs_root
@pytest.mark.parametrize("command", [["status"], ["ban", "203.0.113.7"], ["why", "203.0.113.7"]])
def test_a_socket_we_may_not_open_is_no_reason_to_go_around_it(command: list[str], config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AS_ANOTHER, "-c", str(config), *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (77, "")
    assert "control.sock may not be opened by this user\n  run the command as root" in done.stderr
    assert not (config.parent / "state.db").exists()


def test_version_is_quick() -> None:
    """No library that a command may need later is imported to say what this is."""
    code = (
        "import sys\nfrom nftban.cli.app import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "slow = {'pydantic', 'rich', 'dns', 'pyroute2', 'apscheduler', 'asyncio', 'sqlite3'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"nftban {__version__}\n", "")


def test_json_goes_through_a_pipe_whole(config: Path) -> None:
    done = subprocess.run(
        [*NFTBAN, "-c", str(config), "why", "203.0.113.7", "--json"], env=environment(), capture_output=True, timeout=30
    )
    assert json.loads(done.stdout) == RESULTS["why"]
