"""The main job on a real sshd: a password guesser is banned, whoever is logged in is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.clients import Client
from lab.dns import Dns
from lab.namespaces import Namespaces
from lab.nftban import Nftban, eventually
from lab.sshd import Sshd
from lab.syslog import Syslog

LISTED, CLEAN, ADMIN = "203.0.113.200", "203.0.113.201", "203.0.113.202"


@pytest.fixture
def nftban(machines: Namespaces, folder: Path, dns: Dns, syslog: Syslog, sshd: Sshd) -> Iterator[Nftban]:
    settings = f"""
[dns]
servers = ["127.0.0.1"]
[jail.postfix]
enabled = false
[jail.sshd]
logpath = "{syslog.auth.path}"
"""
    with Nftban(machines.server, folder / "nftban", settings) as running:
        yield running


def test_a_password_guesser_is_banned(machines: Namespaces, nftban: Nftban, dns: Dns) -> None:
    dns.relist("bl.blocklist.de", {LISTED: ["127.0.0.14"]})
    listed, clean = Client(machines, LISTED, timeout=3), Client(machines, CLEAN, timeout=3)
    for n in (1, 2):
        clean.ssh_guess(user="nobody-here")
        eventually(lambda n=n: nftban.score(CLEAN) == (n, n), f"{n} guesses")  # type: ignore[misc]
        listed.ssh_guess()
    nftban.await_ban(LISTED)
    assert not nftban.banned(CLEAN)
    with pytest.raises(TimeoutError):
        listed.connect(22)
    clean.connect(22).close()
    (entry,) = nftban.json("query", LISTED)["entries"]
    assert entry["set"] == "ban4_ssh"
    clean.ssh_guess(tries=3)
    eventually(lambda: nftban.score(CLEAN) == (5, 5), "each guess of one connection counts")
    clean.ssh_guess()
    nftban.await_ban(CLEAN)


def test_whoever_is_logged_in_is_never_banned(machines: Namespaces, nftban: Nftban) -> None:
    admin = Client(machines, ADMIN, timeout=5)
    session = admin.ssh_session()
    try:
        refused = nftban.cli("ban", ADMIN)
        assert refused.returncode == 1
        assert "live SSH session" in refused.stderr + refused.stdout
        wide = nftban.cli("ban", "203.0.113.0/24")
        assert wide.returncode == 1, "the test is on the whole prefix"
        assert session.stdin is not None and session.stdout is not None
        session.stdin.write("still here\n")
        assert session.stdout.readline() == "still here\n"
    finally:
        session.kill()
        session.communicate()


def test_a_successful_login_spares(machines: Namespaces, nftban: Nftban, syslog: Syslog) -> None:
    client = Client(machines, CLEAN, timeout=3)
    assert client.ssh_login() == 0
    syslog.auth.wait_for(rf"Accepted password for \w+ from {CLEAN}")
    for _ in range(7):
        client.ssh_guess()
    nftban.log.wait_for(f"{CLEAN} spared in jail sshd")
    assert not nftban.banned(CLEAN)
    client.connect(22).close()
