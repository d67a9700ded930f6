"""Every command against a daemon's socket that answers recorded results: what is asked, printed, and the exit code."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nftban.cli.app import main
from nftban.errors import RefusedError, UsageError
from tests.unit.cli.recorded import HOSTILE, MANUAL, NOW, RESULTS
from tests.unit.control.serving import listening


class Daemon:
    """Answers what was recorded and keeps what it was asked."""

    def __init__(self) -> None:
        self.results = dict(RESULTS)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def call(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((op, args))
        if args.get("address") == "nonsense":
            raise UsageError("'nonsense' is not an IPv4 or IPv6 address or prefix", "write 192.0.2.7 or 2001:db8::7")
        if args.get("scope") == HOSTILE:
            raise RefusedError(f"there is no scope {HOSTILE}", "")
        return self.results[op]


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def config(tmp_path: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A configuration whose daemon runs."""
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    file = tmp_path / "nftban.toml"
    file.write_text(f'[daemon]\nsocket = "{tmp_path}/control.sock"\nstate = "{tmp_path}/state.db"\n')
    with listening(tmp_path / "control.sock", daemon.call):
        yield str(file)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process's zone is Berlin's, and it is 2026-11-24 20:30:00 UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


class Ended:
    """How a command ended and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], config: str) -> Any:
    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(["--config", config, *arguments])
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


COMMANDS = [
    (["status"], "status", {}, 0),
    (["list"], "list", {}, 0),
    (["query", "203.0.113.7"], "query", {"address": "203.0.113.7"}, 0),
    (["why", "203.0.113.7"], "why", {"address": "203.0.113.7"}, 0),
    (["check", "203.0.113.7"], "check", {"address": "203.0.113.7"}, 0),
    (["check", "203.0.113.7", "--helo", "a.example"], "check", {"address": "203.0.113.7", "helo": "a.example"}, 0),
    (["metrics"], "metrics", {}, 0),
    (["notify", "test"], "notify_test", {}, 1),
    (["zone", "list"], "zones", {}, 0),
    (["zone", "test"], "test_zones", {}, 1),
    (["zone", "test", "bl.spamcop.net"], "test_zones", {"zones": ["bl.spamcop.net"]}, 1),
    (["unban", "203.0.113.7", "203.0.113.9"], "unban", {"prefixes": ["203.0.113.7", "203.0.113.9"], "all": False}, 1),
    (["allow", "list"], "allow", {}, 0),
    (["allow", "add", "203.0.113.7", "x y"], "allow_add", {"entries": ["203.0.113.7", "x y"], "reason": ""}, 1),
    (["allow", "remove", "203.0.113.7"], "allow_remove", {"entries": ["203.0.113.7"]}, 0),
    (["unban", "--all"], "unban", {"prefixes": [], "all": True}, 1),
    (
        ["ban", "203.0.113.7", "192.0.2.1"],
        "ban",
        {
            "prefixes": ["203.0.113.7", "192.0.2.1"],
            "seconds": None,
            "permanent": False,
            "scope": "all",
            "reason": "",
            "client": None,
        },
        1,
    ),
]


def test_the_allow_list_in_words(run: Any, berlin: None) -> None:
    lines = run("allow", "list").out.splitlines()
    assert lines[0] == "192.0.2.0/24; in the settings"
    assert lines[1].startswith("home.example; leads to 198.51.100.7, 2001:db8::7; added 1d1h ago; ")
    assert "gone.example; leads to no address yet" in "".join(lines)
    ended = run("allow", "add", "203.0.113.7", "x y")
    assert ended.out == "203.0.113.7 is never banned from now on\n"
    assert ended.err.startswith("nftban: 'x y' is not an address, a prefix or a host name\n"), ended.err
    assert run("allow", "remove", "203.0.113.7").out == "203.0.113.7 may be banned again\n"


@pytest.mark.parametrize(("arguments", "op", "args", "code"), COMMANDS, ids=lambda value: str(value)[:30])
def test_json_is_the_result_and_nothing_else(
    arguments: list[str], op: str, args: dict[str, Any], code: int, run: Any, daemon: Daemon
) -> None:
    ended = run(*arguments, "--json")
    assert daemon.asked == [(op, args)]
    assert json.loads(ended.out) == RESULTS[op]
    assert (ended.code, ended.err) == (code, "")
    assert ended.out.isascii()


@pytest.mark.parametrize(("arguments", "op", "args", "code"), COMMANDS, ids=lambda value: str(value)[:30])
def test_text_holds_nothing_that_moves_a_cursor(
    arguments: list[str], op: str, args: dict[str, Any], code: int, run: Any, daemon: Daemon
) -> None:
    ended = run(*arguments)
    assert ended.code == code
    assert ended.out
    assert all(c.isprintable() or c == "\n" for c in ended.out + ended.err)
    assert not re.search(r"[ \t]$", ended.out, re.MULTILINE)


def test_ban_passes_length_scope_reason_and_where_it_was_typed(
    run: Any, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "fe80::2%eth0 50000 fe80::1%eth0 22")
    run("ban", "203.0.113.7", "--for", "1h30m", "--scope", "smtp", "--reason", "spam [bold]")
    assert daemon.asked[0][1] == {
        "prefixes": ["203.0.113.7"],
        "seconds": 5400.0,
        "permanent": False,
        "scope": "smtp",
        "reason": "spam [bold]",
        "client": "fe80::2",
    }


@pytest.mark.parametrize("words", [["--permanent"], ["--for", "permanent"]])
def test_for_ever_needs_the_word(words: list[str], run: Any, daemon: Daemon) -> None:
    run("ban", "203.0.113.7", *words)
    assert (daemon.asked[0][1]["seconds"], daemon.asked[0][1]["permanent"]) == (None, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ban", "203.0.113.7", "--for", "soon"], "--for: 'soon' is not a duration; write a duration such as"),
        (["ban", "203.0.113.7", "--for", "-1"], "-1 would ban for ever"),
        (["ban", "203.0.113.7", "--for", "1h", "--permanent"], "exclude each other"),
        (["unban"], "unban takes addresses, or --all"),
        (["unban", "203.0.113.7", "--all"], "unban takes addresses, or --all"),
        (["ban"], "Missing argument"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["list", "--yaml"], "No such option: --yaml"),
        (["query", "nonsense"], "is not an IPv4 or IPv6 address or prefix\n  write 192.0.2.7"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_ends_with_2(arguments: list[str], said: str, run: Any) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


def test_an_error_with_hostile_text_is_shown_escaped(run: Any) -> None:
    ended = run("ban", "203.0.113.7", "--scope", HOSTILE)
    assert ended.code == 1
    assert "\\x1b]0;owned\\x07[bold red]x[/bold red] \\u202egnp.exe\\r\\x9b2J" in ended.err
    assert all(c.isprintable() or c == "\n" for c in ended.err)


def test_query_of_a_clean_address_ends_with_1(run: Any, daemon: Daemon) -> None:
    daemon.results["query"] = {"address": "203.0.113.9", "banned": False, "entries": [], "protected": None}
    ended = run("query", "203.0.113.9")
    assert (ended.code, ended.out) == (1, "203.0.113.9 is not banned\n")
    daemon.results["query"] = {"address": "127.0.0.1", "banned": False, "entries": [], "protected": "loopback"}
    assert run("query", "127.0.0.1").out == "127.0.0.1 is never banned: loopback\n"


def test_what_was_done_goes_to_output_and_what_was_not_to_errors(run: Any, berlin: None) -> None:
    ended = run("ban", "203.0.113.7", "192.0.2.1")
    assert ended.out == "203.0.113.7 is banned until 2026-11-24 22:27:00 CET, 1h (scope mail)\n"
    assert ended.err == ("nftban: 192.0.2.1 is a gateway of this machine\n  bans never cover protected addresses\n")
    ended = run("unban", "203.0.113.7", "203.0.113.9")
    assert ended.out == (
        "203.0.113.7 is no longer banned (scope mail)\n"
        "the rest of 2001:db8:1234:5678::/64 stays banned (all ports), as 2 prefixes\n"
    )
    assert "nftban: 203.0.113.9 is not banned\n  it lies in 203.0.113.0/24\n" in ended.err


def test_all_done_ends_with_0(run: Any, daemon: Daemon) -> None:
    daemon.results["ban"] = {"banned": [MANUAL], "refused": []}
    ended = run("ban", "2001:db8:1234:5678::/64", "--permanent")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "2001:db8:1234:5678::/64 is banned permanently (all ports)\n"
    daemon.results["unban"] = {"unbanned": [], "not_banned": [], "split": []}
    ended = run("unban", "--all")
    assert (ended.code, ended.out) == (0, "nobody was banned\n")


def test_why_tells_everything(run: Any, berlin: None) -> None:
    out = run("why", "203.0.113.7").out
    for told in (
        "203.0.113.7 is BANNED until 2026-11-24 22:27:00 CET, for another 57m\n",
        "Last successful login 2026-11-15 15:16:40 CET as alice.",
        "Ban by jail postfix, scope mail  since 2026-11-24 21:27:00 CET, for 1h\n"
        "  7 points of the 6 needed: banned for 1h\n"
        "   +3  3 offences in 10m\n"
        "   +4  zen.spamhaus.org 127.0.0.4\n"
        "  ───\n"
        "    7  of 6 needed for a ban\n",
        "    zen.spamhaus.org  LISTED   +4  21:26:59  127.0.0.4 SBL/XBL: exploited host\n"
        "    bl.spamcop.net    clear        21:26:59\n"
        "    psbl.surriel.com  unknown      21:26:59  no answer within 4 s\n",
        "    does not lead back  21:26:59  host7.dyn.example.net",
        "    2026-11-24 21:26:30 CET  /var/log/mail.log  postfix rule 5 on smtp  +1  helo [203.0.113.7]\n"
        "      Nov 24 20:26:30 mx1 postfix/smtpd[1236]: too many errors after UNKNOWN from unknown[203.0.113.7]\n",
        "unknown[203.0.113.7]: \\x1b]0;owned\\x07[bold red]x[/bold red] \\u202egnp.exe\\r\\x9b2J\n",
        "Watched by jail sshd  2 of 6 points\n",
        "  ban4_mail  203.0.113.7  57m  2026-11-24 22:27:00 CET  12 packets, 720 B\n",
        "  2026-11-23 20:30:00 CET  1h  6/6  postfix  expired 1d ago\n",
    ):
        assert told in out


def test_why_of_an_unknown_address(run: Any, daemon: Daemon) -> None:
    daemon.results["why"] = {
        "address": "203.0.113.9",
        "banned": False,
        "protected": None,
        "login": None,
        "bans": [],
        "watched": [],
        "kernel": [],
        "note": "nothing is known about this address",
    }
    ended = run("why", "203.0.113.9")
    assert ended.code == 0
    assert ended.out == (
        "203.0.113.9 is not banned\n\nKernel  no set holds this address\n\nnothing is known about this address\n"
    )


def test_why_shows_the_last_lines_of_many_and_says_so(run: Any, daemon: Daemon) -> None:
    ban = RESULTS["why"]["bans"][0]
    offences = [{**ban["offences"][1], "line": f"line {n:04d}." + "x" * 3000} for n in range(40)]
    daemon.results["why"] = {**RESULTS["why"], "bans": [{**ban, "offences": offences}], "watched": []}
    out = run("why", "203.0.113.7").out
    assert "… 30 earlier ones: --json shows all" in out
    assert "line 0029." not in out
    assert "line 0030." in out
    assert "x… (2,010 more characters)" in out


def test_list_marks_what_the_kernel_lacks(run: Any, berlin: None) -> None:
    lines = run("list").out.splitlines()
    assert lines[0].split() == ["address", "scope", "until", "left", "by", "reason"]
    assert lines[1].split(None, 5)[:5] == ["203.0.113.7", "mail", "22:27:00", "57m", "postfix"]
    assert "not in the kernel spam run" in lines[2]
    assert lines[3] == "2 bans"


def test_status_shows_what_is_wrong(run: Any, berlin: None) -> None:
    out = run("status").out
    for told in (
        "nftban 0.1.0, process 4242, runs since 2026-11-24 19:26:40 CET (2h3m)",
        "2s ago   123,456 lines  22.4 MiB  1 too long, 3 not UTF-8",
        "missing  0 lines        0 B       no such file",
        "6 points in 10m → permanent",
        "blocked  3 of 80,000 today    127.255.255.254: asked through a public resolver, since 21:25:00",
        "table inet nftban: intact",
        "missed 2, database is locked",
        "Notifications  7 sent, 2 failed, 1 waiting\n  /bin/tell \\x1b]0;owned",
    ):
        assert told in out


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    "command", [["why", "203.0.113.7"], ["status"], ["list"], ["check", "203.0.113.7"], ["zone", "list"]]
)
def test_reports_fit_a_terminal(
    command: list[str], width: int, run: Any, berlin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run(*command).out.splitlines()
    assert max(map(len, lines)) <= width
    if command == ["list"]:
        assert len(lines) == 4, "a ban is a line"
    # Nothing is squeezed into a column so narrow that words fall apart.
    assert sum(len(line.strip()) == 1 for line in lines) == 0


@pytest.mark.parametrize("place", ["before", "behind"])
def test_config_may_stand_before_or_behind_the_command(
    place: str, config: str, daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-c", config, "list", "--json"] if place == "before" else ["list", "--json", "-c", config]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out) == RESULTS["list"]
