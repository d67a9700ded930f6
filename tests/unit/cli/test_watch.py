"""nftban watch and history against a daemon's socket: pieces, restarts, and a reader that goes away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nftban.cli.app import main
from tests.unit.cli.recorded import BAN, HOSTILE, NOW
from tests.unit.control.serving import listening


class Daemon:
    """A history of its own and events that come when a test puts them there."""

    def __init__(self, pieces: list[list[dict[str, Any]]]) -> None:
        self.pieces = pieces
        self.asked: list[dict[str, Any]] = []
        self.begun = threading.Event()
        self.events: list[dict[str, Any]] = []

    async def call(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(args)
        self.begun.set()
        if op == "events":
            after = len(self.events) if args["after"] is None else args["after"]
            return {"events": self.events[after:], "last": max(after, len(self.events))}
        number = 0 if args["before"] is None else int(args["before"][1])
        more = number + 1 < len(self.pieces)
        return {"bans": self.pieces[number], "before": [0.0, number + 1] if more else None}


def ban(number: int) -> dict[str, Any]:
    return {**BAN, "reason": f"number {number} {HOSTILE}", "ended": {"time": NOW - number, "how": "expired"}}


@pytest.fixture
def daemon() -> Daemon:
    # A piece may be empty and still have a next one.
    return Daemon([[ban(n) for n in range(3)], [], [ban(n) for n in range(3, 5)]])


@pytest.fixture
def config(tmp_path: Path, daemon: Daemon) -> Iterator[str]:
    file = tmp_path / "nftban.toml"
    file.write_text(f'[daemon]\nsocket = "{tmp_path}/control.sock"\nstate = "{tmp_path}/state.db"\n')
    with listening(tmp_path / "control.sock", daemon.call):
        yield str(file)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert err == "" or ended.value.code
    return int(ended.value.code or 0), out + err


def test_history_reads_every_piece(config: str, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "-c", config, "history", "203.0.113.7", "--jail", "postfix")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 6)
    assert lines[0].split() == ["ended", "address", "scope", "lasted", "how", "by", "reason"]
    assert [line.partition("number ")[2][0] for line in lines[1:]] == list("01234")
    assert all(c.isprintable() or c == "\n" for c in out)
    assert {(a["address"], a["jail"], a["since"]) for a in daemon.asked} == {("203.0.113.7", "postfix", 0.0)}
    code, out = run(capsys, "-c", config, "history", "--json")
    assert [b["ended"]["time"] for b in json.loads(out)["bans"]] == [NOW - n for n in range(5)]


def test_history_stops_at_its_limit(config: str, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys, "-c", config, "history", "--limit", "2")
    assert out.splitlines()[-1] == "and earlier ones: --limit 0 shows all of them, --limit 4 more"
    assert len(daemon.asked) == 1, "what is not shown is not asked for"
    _, out = run(capsys, "-c", config, "history", "--limit", "2", "--json")
    told = json.loads(out)
    assert (len(told["bans"]), told["more"]) == (2, True)


def test_history_since(
    config: str, daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    run(capsys, "-c", config, "history", "--since", "1d12h")
    assert daemon.asked[0]["since"] == NOW - 129_600
    code, out = run(capsys, "-c", config, "history", "--since", "soon")
    assert code == 2 and "--since: 'soon' is not a duration" in out
    daemon.pieces = [[]]
    assert run(capsys, "-c", config, "history", "--since", "1d") == (0, "no such past ban is known\n")
    assert run(capsys, "-c", config, "history") == (0, "no past ban is known\n")


def event(number: int) -> dict[str, Any]:
    return {"id": number, "time": NOW, "kind": "zone", "text": f"event {number} {HOSTILE}", "prefix": None, "ban": None}


def watching(config: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nftban", "-c", config, "watch", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )


def line(stream: Any) -> str:
    return str(stream.readline())


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_watch_goes_on_where_it_was_when_the_daemon_comes_back(tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text(f'[daemon]\nsocket = "{tmp_path}/control.sock"\nstate = "{tmp_path}/state.db"\n')
    daemon = Daemon([])
    with listening(tmp_path / "control.sock", daemon.call):
        process = watching(str(file), *options)
        assert daemon.begun.wait(20)
        daemon.events.append(event(1))
        first = line(process.stdout)
    assert process.stderr is not None
    assert line(process.stderr) == "nftban: the daemon is away; waiting for it\n"
    daemon.asked.clear()
    with listening(tmp_path / "control.sock", daemon.call):
        assert line(process.stderr) == "nftban: the daemon answers again\n"
        assert daemon.asked[0]["wait"] == 0, "that it is back is no news that is waited for"
        daemon.events.append(event(2))
        second = line(process.stdout)
        # Whoever reads it goes away: it ends quietly with its next word.
        assert process.stdout is not None
        process.stdout.close()
        daemon.events.append(event(3))
        assert process.wait(20) == 141
        assert process.stderr.read() == ""
    if options:
        assert [json.loads(text)["id"] for text in (first, second)] == [1, 2]
    else:
        assert "zone" in first and "event 1 \\x1b]0;owned" in first and "event 2 " in second


def test_watch_without_a_daemon_ends_with_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text(f'[daemon]\nsocket = "{tmp_path}/control.sock"\nstate = "{tmp_path}/state.db"\n')
    for command in ("watch", "metrics"):
        code, words = run(capsys, "-c", str(file), command)
        assert code == 69 and "no daemon listens" in words


def test_metrics_are_printed_as_they_are(config: str, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    async def call(op: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"text": "nftban_lines_total 5\n# EOF\n"}

    daemon.call = call  # type: ignore[method-assign]
    with listening(Path(config).with_name("other.sock"), call):
        Path(config).write_text(Path(config).read_text().replace("control.sock", "other.sock"))
        assert run(capsys, "-c", config, "metrics") == (0, "nftban_lines_total 5\n# EOF\n")
