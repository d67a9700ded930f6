"""Replays of real files through real settings, and beside the daemon itself on the same lines."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bench.logs import write_log
from demo.dnsbl_server import DnsblServer

from nftban.config.load import Loaded, load
from nftban.daemon.assemble import checked
from nftban.errors import UsageError
from nftban.prefixes import Prefix
from nftban.records import Answer, Ban, Evidence, Listing, LogLine, Origin, ReverseDNS
from nftban.replay import workers
from nftban.replay.sweep import sweep
from nftban.replay.whole import replay
from nftban.store.sqlite import Store
from tests.unit.daemon.stage import Stage, on_stage

SILENT = "[dnsbl]\nenabled = false\nreverse = false\n"
JAILS = """
[scopes]
mail = [25, 465, 587]
ssh = [22]
[jail.postfix]
filter = "postfix"
port = "mail"
logpath = "mail.log"
[jail.sshd]
filter = "sshd"
port = "ssh"
logpath = "auth.log"
"""
TIGHT = '[defaults]\nmaxretry = 3\nfindtime = "1h"\nbantime = "10m"\nspare_login = 0\n'
BOT, CUSTOMER = "203.0.113.7", "198.51.100.5"
START = datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp()


def settings(folder: Path, text: str = SILENT + JAILS, name: str = "nftban.toml") -> Loaded:
    file = folder / name
    file.write_text(f'[daemon]\nstate = "{folder}/state.db"\n{text}')
    return load(file)


def at(seconds: float, text: str) -> str:
    return f"{datetime.fromtimestamp(START + seconds, UTC).isoformat()} mail {text}\n"


def guess(seconds: float, address: str, pid: int = 1) -> str:
    failed = "SASL LOGIN authentication failed: authentication failure"
    return at(seconds, f"postfix/submission/smtpd[{pid}]: warning: unknown[{address}]: {failed}")


def accepted(seconds: float, address: str, queue: str) -> str:
    return at(seconds, f"postfix/smtpd[77]: {queue}: client=host.example[{address}]") + at(
        seconds + 1, f"postfix/qmgr[9]: {queue}: from=<a@b.example>, size=900, nrcpt=1 (queue active)"
    )


def write(folder: Path, *lines: str, name: str = "mail.log") -> Path:
    file = folder / name
    file.write_text("".join(lines))
    return file


def only(result: dict[str, Any]) -> dict[str, Any]:
    (found,) = result["settings"]
    return dict(found)


def test_who_would_have_been_banned_when_and_what_that_would_have_stopped(tmp_path: Path) -> None:
    log = write(
        tmp_path,
        *(guess(10 * n, BOT, n) for n in range(9)),
        at(100, f"postfix/smtpd[5]: connect from unknown[{BOT}]"),
        at(101, f"postfix/smtpd[5]: connect from unknown[{BOT}0]"),  # 203.0.113.70 is another
        guess(50 + 3600 + 1, BOT),  # the ban is over
    )
    found = only(replay([settings(tmp_path)], [log]))
    (ban,) = found["bans"]
    assert (ban["prefix"], ban["jail"], ban["scope"]) == (BOT, "postfix", "mail")
    assert (ban["begun"], ban["since"], ban["until"]) == (START, START + 50, START + 50 + 3600)
    assert (ban["score"], ban["threshold"], ban["offences"], ban["stopped"]) == (6, 6, 6, 3)
    assert (ban["lines"], ban["lines_stopped"]) == (11, 4)
    assert ban["rule"].partition(": ")[2] in ban["log"][-1]["line"]
    assert (found["offences"], found["stopped"], found["offenders"], found["good"]) == (10, 3, 1, [])
    assert sum(found["timeline"]["offences"]) == 10
    assert sum(found["timeline"]["bans"]) == sum(found["delays"]["bans"]) == 1


def test_good_clients_that_would_have_been_hit_are_named(tmp_path: Path) -> None:
    """A login spares; mail that was accepted without one does not."""
    log = write(
        tmp_path,
        accepted(0, CUSTOMER, "AAAAAAAAAA"),
        *(guess(10 + n, CUSTOMER) for n in range(6)),
        accepted(100, CUSTOMER, "BBBBBBBBBB"),
        at(110, f"postfix/smtpd[77]: CCCCCCCCCC: client=host.example[{CUSTOMER}]"),  # never got into the queue
        accepted(200, BOT, "DDDDDDDDDD"),  # a good client that did nothing
    )
    found = only(replay([settings(tmp_path)], [log]))
    (hit,) = found["good"]
    assert (hit["prefix"], hit["bans"], hit["mails"], hit["mails_stopped"], hit["logins"]) == (CUSTOMER, 1, 2, 1, 0)


def test_a_login_spares_and_is_told(tmp_path: Path) -> None:
    login = at(0, f"sshd[1]: Accepted password for bob from {CUSTOMER} port 4 ssh2")
    wrong = [at(5 + n, f"sshd[{n + 2}]: Failed password for bob from {CUSTOMER} port 5 ssh2") for n in range(7)]
    log = write(tmp_path, login, *wrong, name="auth.log")
    found = only(replay([settings(tmp_path)], [log]))
    assert found["bans"] == []
    assert [row["prefix"] for row in found["spared"]] == [CUSTOMER]
    found = only(replay([settings(tmp_path, SILENT + TIGHT + JAILS)], [log]))
    (hit,) = found["good"]
    assert (hit["prefix"], hit["logins"], hit["users"]) == (CUSTOMER, 1, ["bob"])


def test_the_allow_list_and_a_jails_ignore_hold(tmp_path: Path) -> None:
    log = write(tmp_path, *(guess(n, address) for n in range(8) for address in (BOT, CUSTOMER)))
    text = f'{SILENT}[allow]\nprefixes = ["{CUSTOMER}"]\n{JAILS}'.replace(
        'logpath = "mail.log"', f'logpath = "mail.log"\nignore = ["{BOT}"]'
    )
    found = only(replay([settings(tmp_path, text)], [log]))
    assert (found["bans"], found["ignored"]) == ([], 8)
    assert [row["prefix"] for row in found["refused"]] == [CUSTOMER]
    assert all(row["bans"] == 0 for row in found["sweep"])


def test_it_decides_as_the_daemon_does(tmp_path: Path) -> None:
    """Every line through the daemon, whose clock is the log's, and all at once through a replay."""
    for name, kind in (("mail.log", "postfix"), ("auth.log", "sshd")):
        write_log(tmp_path / name, kind, 3000, 0.4, iso=True)
    ours = only(replay([settings(tmp_path, SILENT + TIGHT + JAILS)], [tmp_path / "mail.log", tmp_path / "auth.log"]))
    lines = [
        (datetime.fromisoformat(line[:32]).timestamp(), name, line)
        for name in ("mail.log", "auth.log")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    bans: list[tuple[str, str, float]] = []
    own: set[str] = set()  # addresses of the machine that runs this, which its daemon never bans

    async def play(stage: Stage) -> None:
        for time, name, line in sorted(lines, key=lambda each: each[0]):
            stage.clock.now = time
            stage.pipeline.take([j for j in stage.assembly.jails if name in j.logpaths], LogLine(name, line))
            await stage.pipeline.settle()
        protected = await stage.house.lockout.current()
        own.update(ban["prefix"] for ban in ours["bans"] if protected.objection(Prefix.parse(ban["prefix"])))
        with sqlite3.connect(stage.house.store.path) as db:
            rows = db.execute("SELECT family, first, length, jail, since FROM ban").fetchall()
        prefixes = [Prefix(f, int.from_bytes(first, "big"), length) for f, first, length, _, _ in rows]
        bans.extend((str(p), row[3], row[4]) for p, row in zip(prefixes, rows, strict=True))

    (tmp_path / "daemon").mkdir()
    on_stage(tmp_path / "daemon", SILENT + TIGHT + JAILS, play)
    assert len(bans) > 50
    expected = [(ban["prefix"], ban["jail"], ban["since"]) for ban in ours["bans"] if ban["prefix"] not in own]
    assert sorted(bans) == sorted(expected)


def test_several_processes_find_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [tmp_path / "mail.log", tmp_path / "auth.log"]
    write_log(logs[0], "postfix", 30_000, 0.2)
    write_log(logs[1], "sshd", 10_000, 0.2)
    loaded = settings(tmp_path, SILENT + TIGHT + JAILS)
    alone = replay([loaded], logs)
    monkeypatch.setattr(workers, "SMALL", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2})
    together = replay([loaded], logs)
    alone["seconds"] = together["seconds"]
    assert together == alone
    assert together["lines"] == 40_000
    assert len(only(together)["good"]) > 3


def test_two_settings_are_compared(tmp_path: Path) -> None:
    log = write(
        tmp_path,
        *(guess(10 * n, BOT) for n in range(7)),
        accepted(0, CUSTOMER, "AAAAAAAAAA"),
        *(guess(100 + n, CUSTOMER) for n in range(4)),
    )
    tighter = settings(tmp_path, f"{SILENT}[defaults]\nmaxretry = 3\n{JAILS}", "other.toml")
    result = replay([settings(tmp_path), tighter], [log])
    found = result["difference"]
    assert found["only_first"] == []
    assert [ban["prefix"] for ban in found["only_second"]] == [CUSTOMER]
    assert found["earlier"] == [{"prefix": BOT, "first": START + 50, "second": START + 20}]
    assert (found["later"], found["both"]) == ([], 1)
    assert (found["good_only_first"], found["good_only_second"]) == ([], [CUSTOMER])
    other = replay([tighter, settings(tmp_path)], [log])["difference"]
    assert [row["prefix"] for row in other["later"]] == [BOT]


def test_a_sweep_bans_whom_a_replay_with_that_threshold_bans(tmp_path: Path) -> None:
    logs = [tmp_path / "mail.log", tmp_path / "auth.log"]
    write_log(logs[0], "postfix", 6000, 0.4)
    write_log(logs[1], "sshd", 6000, 0.4)
    text = SILENT + TIGHT + "bantime_factor = 3\n" + JAILS
    for spare in ("0", '"5m"'):
        changed = text.replace("spare_login = 0", f"spare_login = {spare}")
        swept = {row["maxretry"]: row for row in only(replay([settings(tmp_path, changed)], logs))["sweep"]}
        for threshold in (1, 2, 5, 8):
            exact = settings(tmp_path, changed.replace("maxretry = 3", f"maxretry = {threshold}"), "exact.toml")
            found = only(replay([exact], logs))
            row = swept[threshold]
            assert row["bans"] == len(found["bans"])
            assert row["addresses"] == len({ban["prefix"] for ban in found["bans"]})
            assert (row["good"], row["stopped"]) == (len(found["good"]), found["stopped"])
        assert swept[1]["bans"] > swept[8]["bans"]


def listed(address: str, asked: float, points: int) -> Evidence:
    zone = Listing("zen.spamhaus.org", Answer.LISTED, ("127.0.0.4",), points, asked=asked, ttl=60)
    return Evidence(Prefix.parse(address), (zone,), ReverseDNS(("x.example",), True, True, asked=asked))


def test_dns_is_taken_from_the_store_and_nobody_is_asked(tmp_path: Path) -> None:
    """The resolver is a closed port: a question would be an error in the result's time, an answer impossible."""
    text = f'[dns]\nservers = "127.0.0.1:9"\n[dnsbl]\nzones = ["zen.spamhaus.org=127.0.0.[2..9]*4"]\n{JAILS}'
    log = write(tmp_path, *(guess(10 * n, address) for n in range(3) for address in (BOT, CUSTOMER)))
    loaded = settings(tmp_path, text)
    nothing = replay([loaded], [log])
    assert only(nothing)["bans"] == []
    assert (nothing["dns"]["recorded"], nothing["dns"]["unknown"]) == (0, 2)
    store = Store(loaded.state_path)
    try:
        for points, asked in ((0, START - 86400), (4, START - 600)):
            evidence = listed(BOT, asked, points)
            store.add_ban(Ban(Prefix.parse(BOT), "all", asked, asked + 60, Origin.LOG, evidence=evidence))
    finally:
        store.close()
    result = replay([loaded], [log])
    (ban,) = only(result)["bans"]
    assert (ban["prefix"], ban["score"], ban["since"], ban["needs_listing"]) == (BOT, 6, START + 10, True)
    assert (result["dns"]["recorded"], result["dns"]["unknown"], result["dns"]["asked"]) == (1, 1, 0)
    assert result["dns"]["zones"]["names"] == ["zen.spamhaus.org"]


def test_dns_is_asked_where_that_is_wanted(tmp_path: Path) -> None:
    """What it answers bans earlier; of what is in the store nobody asks; a zone is asked once about an address."""
    log = write(tmp_path, *(guess(10 * n, address) for n in range(3) for address in (BOT, CUSTOMER)))

    async def main() -> dict[str, Any]:
        async with DnsblServer() as dns:
            dns.add_zone("zen.spamhaus.org", {BOT: ["127.0.0.4"]})
            text = (
                f'[dns]\nservers = "{dns.address}"\n[dnsbl]\nzones = ["zen.spamhaus.org=127.0.0.[2..9]*4"]\n'
                f"reverse = false\n{JAILS}"
            )
            result = await asyncio.to_thread(replay, [settings(tmp_path, text)], [log], ask=True)
            assert dns.count("zen.spamhaus.org") >= 2
            return result

    result = asyncio.run(main())
    (ban,) = only(result)["bans"]
    assert (ban["prefix"], ban["score"], ban["since"]) == (BOT, 6, START + 10)
    assert (result["dns"]["asked"], result["dns"]["unknown"], result["lines"]) == (2, 0, 6)


def test_a_log_is_read_by_the_jails_that_name_it_and_else_by_all(tmp_path: Path) -> None:
    lines = [guess(n, BOT) for n in range(6)]
    lines += [at(n, f"sshd[{n}]: Failed password for bob from {CUSTOMER} port 5 ssh2") for n in range(6)]
    named = replay([settings(tmp_path)], [write(tmp_path, *lines, name="auth.log.1")])
    assert [ban["prefix"] for ban in only(named)["bans"]] == [CUSTOMER]
    assert named["logs"][0]["named"]
    other = replay([settings(tmp_path)], [write(tmp_path, *lines, name="everything")])
    assert {ban["prefix"] for ban in only(other)["bans"]} == {BOT, CUSTOMER}
    assert not other["logs"][0]["named"]


def test_lines_without_a_date_are_of_the_time_of_those_around_them(tmp_path: Path) -> None:
    bare = guess(0, BOT).partition(" ")[2]
    log = write(tmp_path, guess(0, CUSTOMER), *([bare] * 6), guess(5, CUSTOMER))
    (ban,) = only(replay([settings(tmp_path)], [log]))["bans"]
    assert (ban["prefix"], ban["since"]) == (BOT, START)


def test_settings_without_a_jail_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no jail"):
        replay([settings(tmp_path, SILENT)], [write(tmp_path, guess(0, BOT))])


def test_a_replay_leaves_no_trace(tmp_path: Path) -> None:
    """No store is made, no file beside the log."""
    log = write(tmp_path, *(guess(n, BOT) for n in range(6)))
    loaded = settings(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert len(only(replay([loaded], [log]))["bans"]) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_swept_is_nothing(tmp_path: Path) -> None:
    rules = [jail.rules for jail in checked(settings(tmp_path).files[0]).jails]
    assert {row.bans for row in sweep({}, {}, (), rules)} == {0}
