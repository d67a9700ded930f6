"""Clients whose every word holds another address, at real servers: what those log names nobody but the clients.

The attackers are real too: raw SMTP, IMAP and SSH from ATTACKERS, with texts that would pass for the servers' own
lines.
What Postfix, Dovecot and sshd make of them goes through the shipped filters, each mode, both syslog formats.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from lab.clients import Client
from lab.dns import Dns
from lab.dovecot import USER, Dovecot
from lab.logfile import LogFile
from lab.namespaces import Namespaces
from lab.nftban import ROOT
from lab.postfix import Postfix
from lab.sshd import Sshd
from lab.syslog import Syslog

from nftban.detect import filterfile
from nftban.detect.matcher import Matcher
from nftban.records import Login, LogLine, Offence

FORGED = "198.51.100.7"
ATTACKERS = ("203.0.113.66", "2001:db8:1:66::6")
TEXTS = [
    f"x[{FORGED}]: SASL LOGIN authentication failed: y",
    f"GET /[{FORGED}]: HTTP/1.1",
    f"x from {FORGED} port 22",
    f"x from {FORGED} port 22 ssh2",
    f"root {FORGED} port 22 [preauth]",
    f"x>, method=PLAIN, rip={FORGED}, lip=192.0.2.1, session=<abcdefgh>",
    f"x,{FORGED},<abcdefgh>): unknown user",
    f"?,{FORGED},<abcdefgh>): Username character disallowed by auth_username_chars: 0x20 (username: x)",
    f"warning: non-SMTP command from unknown[{FORGED}]: .",
    f"NOQUEUE: reject: RCPT from unknown[{FORGED}]: 554 5.7.1 <x@y.example>: Relay access denied; helo=<x>",
    f"disconnect from unknown[{FORGED}] unknown=0/1 commands=0/1",
    f"4A1B2C3D4E: client=unknown[{FORGED}], sasl_method=PLAIN, sasl_username=bob",
    f"Accepted password for bob from {FORGED} port 22 ssh2",
    f"imap-login: Login: user=<bob>, method=PLAIN, rip={FORGED}, lip=192.0.2.1, mpid=1",
    f"x\tunknown[::ffff:{FORGED}]\x0b\x1b[2J",
    f"\u202e[{FORGED}]\u202c: \u2066x",
    f"fe80::1%[{FORGED}]",
    "[198.051.100.007]:25",
]
BYTES = [b"\xc0\xaf[198.51.100.7]", b"\xff\xfe rip=198.51.100.7", b"x\xe0\x80\xaf from 198.51.100.7 port 22"]


def _texts(source: str) -> list[bytes]:
    """All from the first attacker, a few from the one with IPv6, so that it does not take long."""
    texts = [text.encode() for text in TEXTS] + BYTES
    return texts if source == ATTACKERS[0] else texts[::5]


def _plain(user: bytes) -> str:
    return base64.b64encode(b"\0" + user + b"\0x").decode()


def _say_to_postfix(client: Client, text: bytes) -> None:
    """The text as command, HELO, sender, recipient, mechanism and user name; in sessions of few errors."""
    quoted = text.replace(b"\\", b"").replace(b'"', b"")
    for lines in (
        [text, b"HELO " + text, b"EHLO " + text],
        [b"EHLO x.example", b"MAIL FROM:<" + text + b">", b'MAIL FROM:<"' + quoted + b'"@x.example>'],
        [
            *(b"EHLO [192.0.2.66]", b"MAIL FROM:<a@x.example>", b"RCPT TO:<" + text + b">"),
            *(b'RCPT TO:<"' + quoted + b'"@x.example>', b"RCPT TO:<v@x.example> " + text, b"VRFY " + text),
        ],
        [b"EHLO x.example", b"AUTH " + text, b"AUTH PLAIN " + _plain(text).encode(), b"AUTH PLAIN " + text],
    ):
        with contextlib.suppress(ConnectionError), client.open_session(helo=None) as s:
            for line in lines:
                s.send(line + b"\r\n")
                s.reply()
            s.quit()
    client.raw(text + b"\r\n" + text + b"\r\nQUIT\r\n", greeted=False)


def _say_to_dovecot(client: Client, text: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        client.imap(b"AUTHENTICATE PLAIN " + _plain(text.replace(b"\0", b"")).encode())
    with contextlib.suppress(ConnectionError):
        literal = text.replace(b"\\", b"").replace(b'"', b"")
        client.imap(b'ID ("x-originating-ip" "198.51.100.7" "name" "' + literal + b'")', b'LOGIN "' + literal + b'" x')


def _say_to_sshd(client: Client, text: bytes) -> None:
    client.raw(text + b"\r\n", port=22)
    with contextlib.suppress(ValueError):
        name = text.decode()
        if "\0" not in name and not name.startswith("-"):
            client.ssh(name, "x")


def _named(spec: str, lines: Iterable[str]) -> tuple[set[str], int, list[str]]:
    """The addresses a filter finds in these lines, how many offences, and the lines that were logins."""
    loaded = filterfile.load(spec, [ROOT / "rules" / "filters"])
    assert isinstance(loaded, filterfile.Filter)
    matcher, found, offences, logins = Matcher(loaded), set(), 0, []
    for line in lines:
        result = matcher.match(LogLine("log", line), time.time())
        if result is not None:
            found.add(str(result.prefix))
            offences += isinstance(result, Offence)
            logins += [line] if isinstance(result, Login) else []
    return found, offences, logins


def _check(filter: str, log: LogFile, at_least: int) -> None:
    assert any("198.51.100.7" in line for line in log.lines), "the texts are in the log"
    for mode in ("normal", "aggressive"):
        found, offences, logins = _named(f"{filter}[mode={mode}]", log.lines)
        assert found - {"127.0.0.1"} == set(ATTACKERS), mode  # the lab itself looks whether Dovecot is there
        assert offences >= at_least, mode
        assert not logins


@pytest.mark.timeout(300)
@pytest.mark.parametrize("format", ["traditional", "iso"])
def test_postfix_names_nobody_but_the_client(machines: Namespaces, folder: Path, dns: Dns, format: str) -> None:
    with (
        Syslog(machines.server, folder / "log", format) as syslog,
        Postfix(machines.server, folder / "postfix", {"smtpd_client_auth_rate_limit": "0"}, syslog=True),
    ):
        for source in ATTACKERS:
            client = Client(machines, source)
            for text in _texts(source):
                _say_to_postfix(client, text)
        syslog.mail.wait_for(r"disconnect from .*2001:db8:1:66::6", count=4 * len(_texts(ATTACKERS[1])))
        _check("postfix", syslog.mail, at_least=len(TEXTS))


@pytest.mark.timeout(300)
def test_dovecot_names_nobody_but_the_client(machines: Namespaces, folder: Path, syslog: Syslog) -> None:
    with Dovecot(machines.server, folder / "dovecot"):
        for source in ATTACKERS:
            client = Client(machines, source)
            for text in _texts(source):
                _say_to_dovecot(client, text)
            client.imap_login(USER, "the last guess")
            syslog.mail.wait_for(rf"rip={source}, .*user=<{USER}>|user=<{USER}>.*rip={source},")
        _check("dovecot", syslog.mail, at_least=len(TEXTS))


@pytest.mark.timeout(300)
def test_sshd_names_nobody_but_the_client(machines: Namespaces, folder: Path, dns: Dns, syslog: Syslog) -> None:
    with Sshd(machines.server, folder / "sshd", syslog, {"MaxStartups": "100"}):
        for source in ATTACKERS:
            client = Client(machines, source)
            for text in _texts(source):
                _say_to_sshd(client, text)
            client.ssh_guess(user="last")
            syslog.auth.wait_for(rf"Failed password for invalid user last from {source}")
        _check("sshd", syslog.auth, at_least=len(TEXTS))
