"""Logs as Postfix and sshd write them, made from a seed.

Takes the kind, how many lines and which share of them is an offence; writes sessions, several of them interleaved as a
busy server's are, with the date, host and process id that rsyslog writes.  The same arguments give the same bytes.
An offence is a line that fail2ban's own filters count; some sessions bring one, some three, most none.
The shapes are those of rules/filters/*.samples, taken from running servers; addresses are of the documentation's and
of private networks, a tenth of them IPv6.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Lines = list[tuple[str, bool]]  # program with its process id and message; is it an offence?
Session = Callable[[random.Random, int], Lines]

OPEN = 40  # sessions at one time
BEGIN = 1_790_000_000


def write_log(path: Path, kind: str, lines: int, share: float, *, seed: int = 1, iso: bool = False) -> int:
    """Writes the log (`kind`: postfix, sshd or mixed); returns how many of its lines are offences."""
    offences = 0
    with path.open("w", encoding="utf-8") as file:
        for text, bad in _lines(random.Random(seed), SESSIONS[kind], lines, share, iso):
            file.write(text)
            offences += bad
    return offences


def _lines(
    chance: random.Random, kinds: tuple[tuple[Session, ...], tuple[Session, ...]], count: int, share: float, iso: bool
) -> Iterator[tuple[str, bool]]:
    good, bad = kinds
    running: list[Lines] = []
    now, written, offences = float(BEGIN), 0, 0
    while written < count:
        while len(running) < OPEN:
            # Whichever is behind its share comes next.
            planned = offences + sum(each for session in running for _, each in session)
            due = written + sum(map(len, running))
            sessions = bad if planned < share * due else good
            running.append(chance.choice(sessions)(chance, chance.randrange(1000, 4_000_000)))
        at = chance.randrange(OPEN)
        text, is_bad = running[at].pop(0)
        if not running[at]:
            del running[at]
        now += chance.expovariate(20)
        written += 1
        offences += is_bad
        yield f"{_date(now, iso)} mx1 {text}\n", is_bad


def _date(now: float, iso: bool) -> str:
    if iso:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}+00:00"
    parts = time.gmtime(now)
    return time.strftime("%b ", parts) + f"{parts.tm_mday:2d} " + time.strftime("%H:%M:%S", parts)


def _address(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return f"2001:db8:{chance.randrange(4096):x}::{chance.randrange(1, 65536):x}"
    # Who offends does so more than once: few addresses are many lines.
    number = int(chance.paretovariate(0.7)) % 60_000
    return (
        f"{chance.choice(('192.0.2', '198.51.100', '203.0.113', '10.3.7'))}.{number % 254 + 1}"
        if (number < 900)
        else f"10.{number >> 8 & 255}.{number & 255}.{chance.randrange(1, 255)}"
    )


def _queue(chance: random.Random) -> str:
    return f"{chance.getrandbits(40):010X}"


def _name(chance: random.Random) -> str:
    return chance.choice(
        ("unknown", f"host{chance.randrange(5000)}.isp.example", f"mail{chance.randrange(90)}.example")
    )


def _user(chance: random.Random) -> str:
    return chance.choice(
        ("root", "admin", "test", "oracle", "info", "bob", "alice", "git", f"user{chance.randrange(500)}")
    )


def _delivery(chance: random.Random, pid: int) -> Lines:
    client, queue = f"{_name(chance)}[{_address(chance)}]", _queue(chance)
    smtpd, size = f"postfix/smtpd[{pid}]: ", chance.randrange(900, 90_000)
    to = f"{_user(chance)}@example.com"
    return [
        (f"{smtpd}connect from {client}", False),
        (f"{smtpd}{queue}: client={client}", False),
        (f"postfix/cleanup[{pid + 3}]: {queue}: message-id=<{chance.getrandbits(64):x}@mail.example>", False),
        (
            f"postfix/qmgr[1812]: {queue}: from=<{_user(chance)}@isp.example>, size={size}, nrcpt=1 (queue active)",
            False,
        ),
        (f"{smtpd}disconnect from {client} ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7", False),
        (
            f"postfix/lmtp[{pid + 9}]: {queue}: to=<{to}>, relay=mx1[private/dovecot-lmtp], delay=0.{pid % 90 + 10}, "
            f"delays=0.05/0.01/0.01/0.0{pid % 9}, dsn=2.0.0, "
            f"status=sent (250 2.0.0 <{to}> {chance.getrandbits(64):x} Saved)",
            False,
        ),
        (f"postfix/qmgr[1812]: {queue}: removed", False),
    ]


def _submission(chance: random.Random, pid: int) -> Lines:
    client, queue, user = f"{_name(chance)}[{_address(chance)}]", _queue(chance), _user(chance)
    smtpd = f"postfix/submission/smtpd[{pid}]: "
    return [
        (f"{smtpd}connect from {client}", False),
        (f"{smtpd}{queue}: client={client}, sasl_method=PLAIN, sasl_username={user}@example.com", False),
        (f"postfix/cleanup[{pid + 3}]: {queue}: message-id=<{chance.getrandbits(64):x}@example.com>", False),
        (f"{smtpd}disconnect from {client} ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8", False),
    ]


def _guess(chance: random.Random, pid: int) -> Lines:
    client = f"unknown[{_address(chance)}]"
    smtpd, guesses = f"postfix/submission/smtpd[{pid}]: ", chance.choice((1, 1, 1, 3))
    reason = chance.choice(("UGFzc3dvcmQ6", "authentication failure"))
    return [
        (f"{smtpd}connect from {client}", False),
        *[(f"{smtpd}warning: {client}: SASL LOGIN authentication failed: {reason}", True)] * guesses,
        (f"{smtpd}disconnect from {client} ehlo=1 auth=0/{guesses} quit=1 commands=2/{guesses + 2}", True),
    ]


def _rejected(chance: random.Random, pid: int) -> Lines:
    client, smtpd = f"{_name(chance)}[{_address(chance)}]", f"postfix/smtpd[{pid}]: "
    to, helo = f"{_user(chance)}@example.com", f"host{chance.randrange(99)}.example"
    return [
        (f"{smtpd}connect from {client}", False),
        (
            f"{smtpd}NOQUEUE: reject: RCPT from {client}: 554 5.7.1 <{to}>: Relay access denied; "
            f"from=<spam@{helo}> to=<{to}> proto=ESMTP helo=<{helo}>",
            True,
        ),
        (f"{smtpd}disconnect from {client} ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4", False),
    ]


def _hung_up(chance: random.Random, pid: int) -> Lines:
    client, smtpd = f"unknown[{_address(chance)}]", f"postfix/smtpd[{pid}]: "
    return [
        (f"{smtpd}connect from {client}", False),
        (f"{smtpd}lost connection after {chance.choice(('CONNECT', 'EHLO', 'STARTTLS', 'RCPT'))} from {client}", True),
        (f"{smtpd}disconnect from {client} ehlo=1 commands=1", False),
    ]


def _shell(chance: random.Random, pid: int) -> Lines:
    user, address, port = _user(chance), _address(chance), chance.randrange(1024, 65536)
    sshd, number = f"sshd[{pid}]: ", chance.randrange(10_000)
    return [
        (f"{sshd}Accepted publickey for {user} from {address} port {port} ssh2: ED25519 SHA256:{pid:043d}", False),
        (f"{sshd}pam_unix(sshd:session): session opened for user {user}(uid=1000) by (uid=0)", False),
        (f"systemd-logind[611]: New session {number} of user {user}.", False),
        (f"{sshd}Received disconnect from {address} port {port}:11: disconnected by user", False),
        (f"{sshd}Disconnected from user {user} {address} port {port}", False),
        (f"{sshd}pam_unix(sshd:session): session closed for user {user}", False),
        (f"systemd-logind[611]: Session {number} logged out. Waiting for processes to exit.", False),
        (f"systemd-logind[611]: Removed session {number}.", False),
    ]


def _job(chance: random.Random, pid: int) -> Lines:
    return [
        (f"CRON[{pid}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)", False),
        (f"CRON[{pid}]: pam_unix(cron:session): session closed for user root", False),
        (f"sudo: {_user(chance)} : TTY=pts/1 ; PWD=/home ; USER=root ; COMMAND=/usr/bin/apt update", False),
    ]


def _wrong_password(chance: random.Random, pid: int) -> Lines:
    user, address, port = _user(chance), _address(chance), chance.randrange(1024, 65536)
    sshd, guesses = f"sshd[{pid}]: ", chance.choice((1, 1, 2))
    pam = f"{sshd}pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={address}"
    return [
        (f"{pam}  user={user}", False),
        *[(f"{sshd}Failed password for {user} from {address} port {port} ssh2", True)] * guesses,
        (f"{sshd}Connection closed by authenticating user {user} {address} port {port} [preauth]", False),
    ]


def _invalid_user(chance: random.Random, pid: int) -> Lines:
    user, address, port = f"x{_user(chance)}", _address(chance), chance.randrange(1024, 65536)
    sshd = f"sshd[{pid}]: "
    return [
        (f"{sshd}Invalid user {user} from {address} port {port}", True),
        (f"{sshd}pam_unix(sshd:auth): check pass; user unknown", False),
        (f"{sshd}Failed password for invalid user {user} from {address} port {port} ssh2", True),
        (f"{sshd}Connection closed by invalid user {user} {address} port {port} [preauth]", False),
    ]


POSTFIX = (_delivery, _delivery, _submission), (_guess, _rejected, _hung_up)
SSHD = (_shell, _job), (_wrong_password, _invalid_user)
SESSIONS = {"postfix": POSTFIX, "sshd": SSHD, "mixed": (POSTFIX[0] + SSHD[0], POSTFIX[1] + SSHD[1])}
