"""The main job on a real Dovecot: guessers are banned, a telephone with an old password and good clients are not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.clients import Client
from lab.dns import Dns
from lab.dovecot import IMAPS, PASSWORD, USER, Dovecot
from lab.namespaces import Namespaces
from lab.nftban import Nftban, eventually
from lab.syslog import Syslog

GUESSER, TELEPHONE, GOOD, PROBE = "203.0.113.200", "203.0.113.201", "203.0.113.202", "203.0.113.203"


@pytest.fixture
def dovecot(machines: Namespaces, folder: Path, syslog: Syslog) -> Iterator[Dovecot]:
    with Dovecot(machines.server, folder / "dovecot") as running:
        yield running


@pytest.fixture
def nftban(machines: Namespaces, folder: Path, dns: Dns, syslog: Syslog, dovecot: Dovecot) -> Iterator[Nftban]:
    settings = f"""
[dns]
servers = ["127.0.0.1"]
[jail.postfix]
enabled = false
[jail.sshd]
enabled = false
[jail.dovecot]
filter = "dovecot"
port = "mail"
logpath = "{syslog.mail.path}"
"""
    with Nftban(machines.server, folder / "nftban", settings) as running:
        yield running


def test_each_guess_counts_and_the_sixth_bans(machines: Namespaces, nftban: Nftban) -> None:
    guesser = Client(machines, GUESSER, timeout=3)
    replies = guesser.imap(*[f'LOGIN {USER} "guess {n}"' for n in range(3)])
    assert all(reply.startswith(b"NO") for reply in replies)
    eventually(lambda: nftban.score(GUESSER) == (3, 3), "three guesses of one connection, and not its end")
    assert not guesser.imap_login("nobody@example.net", "x", port=IMAPS)
    eventually(lambda: nftban.score(GUESSER) == (4, 4), "an unknown user, over TLS")
    guesser.imap_login(USER, "guess 5")
    with contextlib.suppress(TimeoutError):  # the ban is faster than Dovecot's answer
        guesser.imap_login(USER, "guess 6")
    nftban.await_ban(GUESSER)
    with pytest.raises(TimeoutError):
        guesser.connect(143)
    (entry,) = nftban.json("query", GUESSER)["entries"]
    assert entry["set"] == "ban4_mail"


def test_the_same_wrong_password_again_is_one_offence(machines: Namespaces, nftban: Nftban, syslog: Syslog) -> None:
    telephone, probe = Client(machines, TELEPHONE), Client(machines, PROBE)
    telephone.imap(*[f'LOGIN {USER} "last year\'s"'] * 4)
    telephone.imap_login(USER, "last year's")
    hashes = {
        line.partition("given password: ")[2] for line in syslog.mail.wait_for(f"{TELEPHONE}.*password: ", count=5)
    }
    assert len(hashes) == 1
    probe.imap_login(USER, "x")
    # The log is read in order: when the later line was counted, the earlier ones were seen.
    eventually(lambda: nftban.score(PROBE) == (1, 1), "a later guess of another client")
    assert nftban.score(TELEPHONE) == (1, 1)


def test_a_successful_login_spares(machines: Namespaces, nftban: Nftban, syslog: Syslog) -> None:
    client = Client(machines, GOOD, timeout=3)
    assert client.imap_login(USER, PASSWORD)
    syslog.mail.wait_for(rf"imap-login: .*rip={GOOD}, .*mpid=")
    for n in range(7):
        client.imap_login(USER, f"guess {n}")
    nftban.log.wait_for(f"{GOOD} spared in jail dovecot")
    assert not nftban.banned(GOOD)
    client.connect(143).close()
