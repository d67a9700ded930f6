"""The parts of a syslog line.

Takes one line of a log file and `now`; gives the time, host, program, process id and message that syslogd wrote,
and `content`: the line with the date cut out, which is what fail2ban's expressions are matched against (a date
in brackets leaves `[]`).
Host, program and pid are the empty string where the line has none; the message is then all that is left.
`program` is the whole syslog tag: `postfix/submission/smtpd`, `sshd-session`.
Does not: decide anything from the text.  Everything behind the first colon may be an attacker's.
Source: RFC 3164, and rsyslog's two default file formats.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from nftban.detect.timestamps import Timestamps
from nftban.records import Service

_HEAD = re.compile(
    r"(?:\[\])?\s*(?:(?P<host>[^\s:\[\]]{1,255}|[0-9A-Fa-f.:]{2,45})\s+)?"
    r"(?P<program>[A-Za-z][\w./@+-]{0,127})(?:\((?P<module>\w{1,64})\))?(?:\[(?P<pid>\d{1,10})\])?:(?:\s|$)",
    re.ASCII,
)
_SUBMISSION = re.compile(r"(?:.*[-_])?(?:submissions?|smtps|465|587)(?:[-_].*)?")
_SCREENS = ("postscreen", "dnsblog", "tlsproxy")


class Envelope(NamedTuple):
    """What syslogd wrote around a message; `time` is None where the line has no date."""

    time: float | None
    host: str
    program: str
    pid: str
    message: str
    content: str


def content(text: str, timestamps: Timestamps, now: float) -> tuple[float | None, str]:
    """The time and the line with its date cut out."""
    stamp = timestamps.read(text, now)
    if stamp is None:
        return None, text
    return stamp.time, text[: stamp.start] + text[stamp.end :]


def envelope(text: str, timestamps: Timestamps, now: float) -> Envelope:
    """All parts of a line."""
    return around(*content(text, timestamps, now))


def around(time: float | None, rest: str) -> Envelope:
    """The parts of a line whose date has been cut out."""
    head = _HEAD.match(rest)
    if head is None:
        return Envelope(time, "", "", "", rest.lstrip(), rest)
    return Envelope(time, head["host"] or "", head["program"], head["pid"] or "", rest[head.end() :], rest)


@lru_cache(maxsize=1024)
def service(program: str) -> Service:
    """The door a client came through, as far as the program's name tells.

    Postfix's own master.cf names the services behind ports 587 and 465 in their syslog name.
    """
    parts = program.split("/")
    if parts[0] in ("sshd", "sshd-session", "sshd-auth"):
        return Service.SSH
    if parts[0] == "dovecot":
        return Service.IMAP
    if parts[-1] in _SCREENS:
        return Service.SMTP
    if any(_SUBMISSION.fullmatch(part) for part in parts):
        return Service.SUBMISSION
    # Of OpenSMTPD, whose whole tag is smtpd, all ports log alike: customers too.
    return Service.SMTP if parts[-1] == "smtpd" and len(parts) > 1 else Service.OTHER
