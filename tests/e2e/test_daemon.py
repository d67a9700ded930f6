"""The daemon on log lines as Postfix writes them: bad input, lost tables, delistings, and what must never be banned."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.dns import Dns
from lab.namespaces import GATEWAY4, SERVER4, Namespaces
from lab.nftban import Nftban, eventually

LISTED, CLEAN, OTHER = "203.0.113.200", "203.0.113.201", "203.0.113.202"

SETTINGS = """
[dns]
servers = ["127.0.0.1"]
deadline = 1
[jail.postfix]
logpath = "{folder}/mail.log"
[jail.sshd]
enabled = false
[allow]
prefixes = ["198.51.100.0/28"]
{more}
"""


def stamp() -> str:
    return time.strftime("%b %e %H:%M:%S")


class MailLog:
    """Writes what Postfix would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pid = 100

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def lone_dot(self, address: str, times: int = 1) -> None:
        for _ in range(times):
            self._pid += 1
            head = f"{stamp()} mail postfix/smtpd[{self._pid}]: "
            self.write(
                f"{head}connect from unknown[{address}]\n"
                f"{head}warning: non-SMTP command from unknown[{address}]: .\n"
                f"{head}disconnect from unknown[{address}] unknown=0/1 commands=0/1\n".encode()
            )


@pytest.fixture
def mail(folder: Path) -> MailLog:
    log = MailLog(folder / "mail.log")
    log.path.touch()
    return log


def started(machines: Namespaces, folder: Path, more: str = "") -> Nftban:
    return Nftban(machines.server, folder / "nftban", SETTINGS.format(folder=folder, more=more))


@pytest.fixture
def nftban(machines: Namespaces, folder: Path, dns: Dns, mail: MailLog) -> Iterator[Nftban]:
    with started(machines, folder) as running:
        yield running


def source(nftban: Nftban) -> dict[str, object]:
    (found,) = nftban.json("status")["sources"]
    return dict(found)


def test_hostile_lines_are_survived_and_counted(nftban: Nftban, mail: MailLog) -> None:
    mail.write(b"A" * (1 << 20) + b"\n")
    mail.write(b"\0" * 5000 + b"\n")
    mail.write(b"Nov 24 10:00:00 mail postfix/smtpd[1]: warning: non-SMTP command from unknown[\xff\xfe]: \x80\n")
    mail.write(b"\x1b]0;evil\x07 [bold]%s{0} ' ; DROP TABLE ban --\n")
    mail.lone_dot(CLEAN)
    eventually(lambda: nftban.score(CLEAN)[0] == 1, "the line behind them is counted")
    seen = source(nftban)
    assert (seen["oversized"], seen["undecodable"], seen["lines"]) == (1, 1, 7)
    assert nftban.json("status")["counters"].get("errors", 0) == 0
    assert nftban.process.poll() is None


def test_a_missing_log_is_reported_and_taken_up_when_it_appears(machines: Namespaces, folder: Path, dns: Dns) -> None:
    with started(machines, folder) as nftban:
        assert source(nftban)["exists"] is False
        assert source(nftban)["error"] == "does not exist"
        assert "does not exist" in nftban.cli("status").stdout
        mail = MailLog(folder / "mail.log")
        mail.lone_dot(CLEAN)
        eventually(lambda: nftban.score(CLEAN)[0] == 1, "its first lines are counted")
        assert source(nftban)["error"] is None


def test_ipv6_is_counted_and_banned_by_its_64(nftban: Nftban, mail: MailLog) -> None:
    for n in range(6):
        mail.lone_dot(f"2001:db8:1:7::{n:x}")
    nftban.await_ban("2001:db8:1:7::")
    (entry,) = nftban.json("query", "2001:db8:1:7:ffff::1")["entries"]
    assert (entry["set"], entry["prefix"]) == ("ban6net64_mail", "2001:db8:1:7::/64")
    assert not nftban.banned("2001:db8:1:8::1")


@pytest.mark.parametrize("address", ["127.0.0.1", SERVER4, GATEWAY4, "198.51.100.3", "fe80::1", "2001:db8::1"])
def test_what_must_not_be_banned_is_not(nftban: Nftban, mail: MailLog, address: str) -> None:
    mail.lone_dot(address, 7)
    nftban.log.wait_for("not banned: .* protected")
    assert nftban.json("list")["bans"] == []
    refused = nftban.cli("ban", address)
    assert refused.returncode == 1
    assert "protected" in refused.stdout + refused.stderr


def test_the_final_prefix_is_tested(nftban: Nftban) -> None:
    for wide in ("198.51.100.0/24", "192.0.2.0/24", "0.0.0.0/0", "10.0.0.0/8", "::/0"):
        assert nftban.cli("ban", wide).returncode == 1, wide
    assert nftban.json("list")["bans"] == []
    assert nftban.cli("ban", "203.0.113.0/24", "--for", "1m").returncode == 0
    assert nftban.banned("203.0.113.77")


def test_a_flushed_ruleset_comes_back_whole(machines: Namespaces, nftban: Nftban) -> None:
    prefixes = ("203.0.113.9", "2001:db8:9::/48", "198.18.0.0/24")
    nftban.cli("ban", *prefixes, "--for", "10m", check=True)
    machines.server.run(["nft", "flush", "ruleset"])
    for address in ("203.0.113.9", "2001:db8:9::1", "198.18.0.200"):
        eventually(lambda a=address: nftban.banned(a), f"{address} is banned again")  # type: ignore[misc]
    assert nftban.json("status")["kernel"]["intact"]


def test_a_delisted_address_is_let_in_and_a_listed_one_stays(
    machines: Namespaces, folder: Path, dns: Dns, mail: MailLog
) -> None:
    dns.relist("zen.spamhaus.org", {LISTED: ["127.0.0.4"], OTHER: ["127.0.0.4"]})
    more = '[reverify]\nevery = 1\nextend_within = "30s"\n[defaults]\nbantime = "20s"\n'
    with started(machines, folder, more) as nftban:
        for address in (LISTED, OTHER):
            mail.lone_dot(address, 2)
            nftban.await_ban(address)
        first = nftban.json("query", OTHER)["entries"][0]["until"]
        nftban.log.wait_for(f"{OTHER}: still listed, ban made longer")
        assert nftban.json("query", OTHER)["entries"][0]["until"] > first + 15
        dns.relist("zen.spamhaus.org", {OTHER: ["127.0.0.4"]})
        # Our own cache keeps a listing for a minute at least; what the zone says then is what counts.
        nftban.log.wait_for(f"{LISTED}: ban lifted, it is no longer listed", timeout=75)
        assert not nftban.banned(LISTED)
        assert nftban.json("why", LISTED)["bans"][0]["ended"]["how"] == "delisted"
        assert nftban.banned(OTHER)


def test_a_silent_resolver_delays_a_verdict_no_longer_than_the_deadline(
    machines: Namespaces, folder: Path, mail: MailLog
) -> None:
    # Nobody listens on port 53 here, and what is sent to the address below is answered by nobody.
    more = '[dnsbl]\nzones = ["zen.spamhaus.org*4"]\n'
    settings = SETTINGS.format(folder=folder, more=more).replace('"127.0.0.1"', '"192.0.2.99"')
    with Nftban(machines.server, folder / "nftban", settings) as nftban:
        began = time.monotonic()
        mail.lone_dot(CLEAN, 6)
        nftban.await_ban(CLEAN)
        assert time.monotonic() - began < 4, "deadline is 1 s"
        listings = nftban.json("why", CLEAN)["bans"][0]["listings"]
        assert [e["answer"] for e in listings] == ["unknown"]


def test_observing_decides_and_writes_nothing_to_the_kernel(
    machines: Namespaces, nftban: Nftban, mail: MailLog
) -> None:
    nftban.stop()
    machines.server.run(["nft", "flush", "ruleset"])
    nftban.start("--observe")
    mail.lone_dot(CLEAN, 6)
    nftban.await_ban(CLEAN)
    assert nftban.banned(CLEAN), "it would be"
    assert nftban.json("status")["observe"] is True
    verified = nftban.json("verify")
    assert verified["equal"] and verified["elements"] >= 1, "what it would hold is what it decided"
    assert machines.server.run(["nft", "list", "tables"]).stdout == ""
    nftban.stop()
    enforcing = time.time()
    nftban.start()
    # Whoever offended while nobody enforced is judged anew from the log, as after any other pause.
    assert all(ban["since"] >= enforcing for ban in nftban.json("list")["bans"])


def test_a_second_daemon_goes_away_and_does_no_harm(nftban: Nftban) -> None:
    second = nftban.cli("daemon")
    assert second.returncode == 75
    assert "another daemon runs" in second.stderr
    assert nftban.json("status")["kernel"]["intact"]


def test_a_public_resolver_is_not_asked(machines: Namespaces, folder: Path, mail: MailLog) -> None:
    settings = SETTINGS.format(folder=folder, more="").replace('"127.0.0.1"', '"9.9.9.9"')
    with Nftban(machines.server, folder / "nftban", settings) as nftban:
        status = nftban.json("status")
        assert status["zones"] == []
        assert "public resolver" in status["dns"]["note"] and "unbound" in status["dns"]["note"]


def test_unban_lets_in_at_once_and_forgets_what_was_counted(nftban: Nftban, mail: MailLog) -> None:
    mail.lone_dot(CLEAN, 6)
    nftban.await_ban(CLEAN)
    assert nftban.cli("unban", CLEAN).returncode == 0
    assert not nftban.banned(CLEAN)
    assert nftban.cli("unban", CLEAN).returncode == 1
    mail.lone_dot(CLEAN)
    eventually(lambda: nftban.score(CLEAN)[0] == 1, "its next offence is its first")


def test_without_net_admin_the_daemon_says_what_it_needs(machines: Namespaces, folder: Path, nftban: Nftban) -> None:
    nftban.stop()
    os.chmod(folder / "nftban", 0o777)
    ended = machines.server.run(
        ["setpriv", "--bounding-set=-net_admin", *nftban._argv("daemon")], check=False, env={**os.environ}
    )
    assert ended.returncode == 77, ended.stderr
    assert "CAP_NET_ADMIN" in ended.stderr


def test_net_admin_is_all_it_needs(machines: Namespaces, folder: Path, dns: Dns, mail: MailLog) -> None:
    only = ("setpriv", "--no-new-privs", "--bounding-set=-all,+net_admin", "--inh-caps=-all")
    with Nftban(machines.server, folder / "nftban", SETTINGS.format(folder=folder, more=""), under=only) as nftban:
        status = Path(f"/proc/{nftban.process.pid}/status").read_text()
        assert f"CapEff:\t{1 << 12:016x}\n" in status, "CAP_NET_ADMIN and nothing else (linux/capability.h)"
        mail.lone_dot(CLEAN, 6)
        nftban.await_ban(CLEAN)
        assert nftban.banned(CLEAN)
        shown = nftban.json("status")
        assert shown["kernel"]["intact"] and shown["lockout"] is None


def test_a_range_is_banned_and_an_address_let_out_of_a_wider_ban(nftban: Nftban) -> None:
    assert (
        nftban.cli("ban", "203.0.113.5-203.0.113.20", "198.18.0.0/20", "2001:db8:9::/48", "--for", "5m").returncode == 0
    )
    for address, banned in (
        ("203.0.113.4", False),
        ("203.0.113.5", True),
        ("203.0.113.20", True),
        ("203.0.113.21", False),
    ):
        assert nftban.banned(address) is banned, address
    done = nftban.cli("unban", "203.0.113.16", "198.18.3.4", "2001:db8:9:1::/64")
    assert done.returncode == 0, done.stderr
    assert "the rest of 198.18.0.0/20 stays banned" in done.stdout
    for address, banned in (
        ("203.0.113.16", False), ("203.0.113.17", True), ("198.18.3.4", False), ("198.18.3.5", True),
        ("198.18.15.255", True), ("2001:db8:9:1::77", False), ("2001:db8:9:2::1", True),
    ):  # fmt: skip
        assert nftban.banned(address) is banned, address
    assert nftban.json("status")["kernel"]["intact"]
    assert nftban.cli("unban", "198.18.0.0/16").returncode == 0, "what lies in it"
    assert not nftban.banned("198.18.3.5")
    ended = [b["ended"]["how"] for b in nftban.json("why", "198.18.3.5")["bans"]]
    assert sorted(ended) == ["split", "unbanned"]


def test_nothing_of_a_range_is_banned_where_a_part_must_not_be(nftban: Nftban) -> None:
    assert nftban.cli("ban", "198.51.99.250-198.51.100.9").returncode == 1
    assert nftban.json("list")["bans"] == []
    for wrong in ("203.0.113.9-203.0.113.1", "203.0.113.0/24-203.0.114.0", "203.0.113.1-2001:db8::1", "-", "1.2.3.4-"):
        assert nftban.cli("ban", "--", wrong).returncode == 1, wrong
