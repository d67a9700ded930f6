"""What Postfix, postscreen, Dovecot and sshd write about one session.

Takes who the client is and what it does; gives a `Session`: port, log and the lines with their delays in seconds.  A
line has program and process id in front; date and host come later.
The shapes are those of rules/filters/*.samples, written by Postfix 3.7 behind postscreen, Dovecot 2.3 with its default
logging and OpenSSH 9.2.  Names and addresses of recipients are examples.  Does not: decide who does what, or when.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

HERE = "192.0.2.1"
DOMAIN = "example.com"

Said = list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Session:
    """log: "mail" or "auth"; said: seconds after the one before, and the text."""

    port: int
    log: str
    said: Said


@dataclass(frozen=True, slots=True)
class Peer:
    """A client as a server sees it.  name: its confirmed PTR name, empty where it has none."""

    address: str
    name: str = ""
    helo: str = "localhost"

    @property
    def shown(self) -> str:
        return f"{self.name or 'unknown'}[{self.address}]"


def _pid(chance: random.Random) -> int:
    return chance.randrange(1000, 4_000_000)


def _queue(chance: random.Random) -> str:
    return f"{chance.getrandbits(44):011X}"


def _wait(chance: random.Random, mean: float = 0.2) -> float:
    return chance.expovariate(1 / mean)


def _smtp(chance: random.Random, peer: Peer, middle: list[str], end: str, *, early: str = "") -> Session:
    """A session on port 25: postscreen lets it through, smtpd has the rest."""
    screen = f"postfix/postscreen[{1000 + sum(peer.address.encode())}]: "
    where = f"[{peer.address}]:{chance.randrange(1024, 65536)}"
    smtpd = f"postfix/smtpd[{_pid(chance)}]: "
    said = [(0.0, f"{screen}CONNECT from {where} to [{HERE}]:25")]
    if early:
        said.append(
            (0.1, f"{screen}PREGREET {len(early) + 2} after 0.{chance.randrange(10, 99)} from {where}: {early}\\r\\n")
        )
    said.append((0.1 if not early else 6.0, f"{screen}PASS {'NEW' if early else 'OLD'} {where}"))
    said.append((0.01, f"{smtpd}connect from {peer.shown}"))
    said += [(_wait(chance), smtpd + text) for text in middle]
    said.append((_wait(chance), f"{smtpd}disconnect from {peer.shown} {end}"))
    return Session(25, "mail", said)


# Port 25


def lone_dot(chance: random.Random, peer: Peer) -> Session:
    text = f"warning: non-SMTP command from {peer.shown}: ."
    return _smtp(chance, peer, [text], "unknown=0/1 commands=0/1")


def pipelined(chance: random.Random, peer: Peer) -> Session:
    """Commands ahead of the replies, or what is not SMTP at all."""
    kind = chance.randrange(4)
    if kind == 0:
        to = f"{user(chance)}@example.org"
        return _smtp(
            chance,
            peer,
            [
                f"improper command pipelining after EHLO from {peer.shown}: "
                f"MAIL FROM:<a@{peer.helo}>\\r\\nRCPT TO:<{to}>\\r\\nDATA\\r\\n",
                _rejected(peer, f"a@{peer.helo}", to, f"554 5.7.1 <{to}>: Relay access denied"),
                f"lost connection after DATA from {peer.shown}",
            ],
            "ehlo=1 mail=1 rcpt=0/1 data=0/1 commands=2/4",
            early=f"EHLO {peer.helo}",
        )
    if kind == 1:
        return _smtp(
            chance, peer, [f"warning: non-SMTP command from {peer.shown}: GET / HTTP/1.1"], "unknown=0/1 commands=0/1"
        )
    if kind == 2:
        return _smtp(chance, peer, [f"lost connection after UNKNOWN from {peer.shown}"], "unknown=0/1 commands=0/1")
    return _smtp(chance, peer, [f"too many errors after UNKNOWN from {peer.shown}"], "unknown=0/20 commands=0/20")


def unknown_users(chance: random.Random, peer: Peer, count: int) -> Session:
    """Mail for users there are none of, as a spammer or a newsletter with an old list sends it."""
    sender = f"{user(chance)}@{peer.helo}"
    to = [f"{user(chance)}{chance.randrange(1000)}@{DOMAIN}" for _ in range(count)]
    reason = "Recipient address rejected: User unknown in virtual mailbox table"
    middle = [_rejected(peer, sender, t, f"550 5.1.1 <{t}>: {reason}") for t in to]
    return _smtp(chance, peer, middle, f"ehlo=1 mail=1 rcpt=0/{count} rset=1 quit=1 commands=4/{4 + count}")


def relay_attempt(chance: random.Random, peer: Peer) -> Session:
    to = f"{user(chance)}@example.org"
    middle = [_rejected(peer, f"test@{peer.helo}", to, f"554 5.7.1 <{to}>: Relay access denied")]
    return _smtp(chance, peer, middle, "ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4")


def _rejected(peer: Peer, sender: str, to: str, why: str) -> str:
    return f"NOQUEUE: reject: RCPT from {peer.shown}: {why}; from=<{sender}> to=<{to}> proto=ESMTP helo=<{peer.helo}>"


def delivery(chance: random.Random, peer: Peer, stale: int = 0) -> Session:
    """Mail that is taken; stale: so many more of its recipients are unknown."""
    queue, to = _queue(chance), f"{user(chance)}@{DOMAIN}"
    sender = f"{user(chance)}@{peer.helo}"
    why = "Recipient address rejected: User unknown in virtual mailbox table"
    gone = [f"{user(chance)}.old{chance.randrange(500)}@{DOMAIN}" for _ in range(stale)]
    middle = [_rejected(peer, sender, t, f"550 5.1.1 <{t}>: {why}") for t in gone]
    middle.append(f"{queue}: client={peer.shown}")
    rcpt = f"rcpt=1/{1 + stale}" if stale else "rcpt=1"
    done = _smtp(chance, peer, middle, f"ehlo=2 starttls=1 mail=1 {rcpt} data=1 quit=1 commands=7")
    return Session(25, "mail", [*done.said, *_queued(chance, queue, sender, to)])


def _queued(chance: random.Random, queue: str, sender: str, to: str) -> Said:
    size = chance.randrange(900, 90_000)
    return [
        (0.01, f"postfix/cleanup[{_pid(chance)}]: {queue}: message-id=<{chance.getrandbits(64):x}@{DOMAIN}>"),
        (
            0.01,
            f"postfix/qmgr[812]: {queue}: from=<{sender}>, size={size}, nrcpt=1 (queue active)",
        ),
        (
            0.2,
            f"postfix/lmtp[{_pid(chance)}]: {queue}: to=<{to}>, relay=mail[private/dovecot-lmtp], delay=0.4, "
            f"delays=0.2/0.01/0.01/0.18, dsn=2.0.0, status=sent (250 2.0.0 <{to}> {chance.getrandbits(64):x} Saved)",
        ),
        (0.01, f"postfix/qmgr[812]: {queue}: removed"),
    ]


def hang_up(chance: random.Random, peer: Peer) -> Session:
    """Connected, and gone: a probe, a scanner."""
    return _smtp(chance, peer, [f"lost connection after CONNECT from {peer.shown}"], "commands=0/0")


def polite_probe(chance: random.Random, peer: Peer) -> Session:
    return _smtp(chance, peer, [], "ehlo=1 quit=1 commands=2")


# Submission


def submission(chance: random.Random, peer: Peer, who: str) -> Session:
    queue = _queue(chance)
    smtpd = f"postfix/submission/smtpd[{_pid(chance)}]: "
    return Session(
        587,
        "mail",
        [
            (0.0, f"{smtpd}connect from {peer.shown}"),
            (_wait(chance), f"{smtpd}{queue}: client={peer.shown}, sasl_method=PLAIN, sasl_username={who}"),
            (
                _wait(chance),
                f"{smtpd}disconnect from {peer.shown} ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8",
            ),
            *_queued(chance, queue, who, f"{user(chance)}@example.org"),
        ],
    )


def submission_refused(chance: random.Random, peer: Peer, who: str, tries: int = 1) -> Session:
    """Wrong passwords on port 587."""
    smtpd = f"postfix/submission/smtpd[{_pid(chance)}]: "
    method = chance.choice(("LOGIN", "PLAIN"))
    failed = "authentication failed: authentication failure"
    wrong = f"{smtpd}warning: {peer.shown}: SASL {method} {failed}, sasl_username={who}"
    return Session(
        587,
        "mail",
        [
            (0.0, f"{smtpd}connect from {peer.shown}"),
            *[(_wait(chance, 2.0), wrong)] * tries,
            (
                _wait(chance),
                f"{smtpd}disconnect from {peer.shown} ehlo=2 starttls=1 auth=0/{tries} quit=1 commands=4/{4 + tries}",
            ),
        ],
    )


# Dovecot


def imap(chance: random.Random, peer: Peer, who: str) -> Session:
    text = (
        f"dovecot: imap-login: Login: user=<{who}>, method=PLAIN, rip={peer.address}, lip={HERE}, "
        f"mpid={_pid(chance)}, TLS, session=<{_token(chance)}>"
    )
    return Session(993, "mail", [(0.0, text)])


def imap_refused(chance: random.Random, peer: Peer, who: str, tries: int = 1) -> Session:
    """Wrong passwords on port 993: one line when the session ends."""
    how = chance.choice(("Connection closed", "Aborted login by logging out"))
    text = (
        f"dovecot: imap-login: Disconnected: {how} (auth failed, {tries} attempts in {2 * tries} secs): user=<{who}>, "
        f"method=PLAIN, rip={peer.address}, lip={HERE}, TLS, session=<{_token(chance)}>"
    )
    return Session(993, "mail", [(2.0 * tries, text)])


def imap_nothing(chance: random.Random, peer: Peer) -> Session:
    text = (
        f"dovecot: imap-login: Disconnected: Connection closed (no auth attempts in 0 secs): user=<>, "
        f"rip={peer.address}, lip={HERE}, TLS, session=<{_token(chance)}>"
    )
    return Session(993, "mail", [(0.0, text)])


def _token(chance: random.Random) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(chance.choices(letters, k=16))


# SSH


def shell(chance: random.Random, peer: Peer, who: str, mistakes: int = 0) -> Session:
    """A login by password, after so many mistyped ones in the same connection."""
    sshd, port = f"sshd[{_pid(chance)}]: ", chance.randrange(1024, 65536)
    said: Said = [(_wait(chance, 3.0), t) for t in _wrong(sshd, peer, who, port, mistakes, known=True)]
    return Session(
        22,
        "auth",
        [
            *said,
            (3.0, f"{sshd}Accepted password for {who} from {peer.address} port {port} ssh2"),
            (0.1, f"{sshd}pam_unix(sshd:session): session opened for user {who}(uid=1000) by (uid=0)"),
            (
                _wait(chance, 900.0),
                f"{sshd}Received disconnect from {peer.address} port {port}:11: disconnected by user",
            ),
            (0.01, f"{sshd}Disconnected from user {who} {peer.address} port {port}"),
            (0.01, f"{sshd}pam_unix(sshd:session): session closed for user {who}"),
        ],
    )


def shell_refused(chance: random.Random, peer: Peer, who: str, tries: int = 1, *, known: bool = False) -> Session:
    """Guesses, and the end before a login; known: there is such a user."""
    sshd, port = f"sshd[{_pid(chance)}]: ", chance.randrange(1024, 65536)
    called = "authenticating" if known else "invalid"
    texts = _wrong(sshd, peer, who, port, tries, known=known)
    texts.append(f"{sshd}Connection closed by {called} user {who} {peer.address} port {port} [preauth]")
    return Session(22, "auth", [(0.0, texts[0]), *((_wait(chance, 1.0), t) for t in texts[1:])])


def _wrong(sshd: str, peer: Peer, who: str, port: int, tries: int, *, known: bool) -> list[str]:
    if not tries:
        return []
    pam = (
        f"{sshd}pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={peer.address} "
    )
    failed = f"{sshd}Failed password for {'' if known else 'invalid user '}{who} from {peer.address} port {port} ssh2"
    first = (
        [f"{pam} user={who}"]
        if known
        else [
            f"{sshd}Invalid user {who} from {peer.address} port {port}",
            f"{sshd}pam_unix(sshd:auth): check pass; user unknown",
            pam,
        ]
    )
    return [*first, *[failed] * tries]


def not_ssh(chance: random.Random, peer: Peer) -> Session:
    sshd, port = f"sshd[{_pid(chance)}]: ", chance.randrange(1024, 65536)
    return Session(
        22,
        "auth",
        [
            (
                0.0,
                f'{sshd}error: kex_exchange_identification: client sent invalid protocol identifier "GET / HTTP/1.1"',
            ),
            (0.0, f"{sshd}banner exchange: Connection from {peer.address} port {port}: invalid format"),
        ],
    )


def ssh_nothing(chance: random.Random, peer: Peer) -> Session:
    sshd, port = f"sshd[{_pid(chance)}]: ", chance.randrange(1024, 65536)
    return Session(
        22,
        "auth",
        [
            (0.0, f"{sshd}error: kex_exchange_identification: Connection closed by remote host"),
            (0.0, f"{sshd}Connection closed by {peer.address} port {port}"),
        ],
    )


NAMES = (
    "info", "admin", "sales", "support", "office", "contact", "test", "scan", "billing", "webmaster", "john", "mary",
    "peter", "anna", "thomas", "maria", "postmaster", "service", "backup", "user", "mail", "jobs", "hr", "marketing",
)  # fmt: skip
LOGINS = ("root", "admin", "ubuntu", "test", "oracle", "postgres", "git", "user", "pi", "deploy", "ftpuser", "hadoop")


def user(chance: random.Random) -> str:
    return chance.choice(NAMES)
