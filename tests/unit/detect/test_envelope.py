"""The parts of a syslog line."""

from __future__ import annotations

import pytest

from nftban.detect.envelope import envelope, service
from nftban.detect.timestamps import Timestamps
from nftban.records import Service

NOW = 1795552000.0
DATES = ("Nov 24 20:13:28", "2026-11-24T20:13:28.123456+00:00", "[2026-11-24 20:13:28]")


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize(
    ("rest", "host", "program", "pid", "message"),
    [
        (
            "mail postfix/submission/smtpd[12]: connect from x[192.0.2.7]",
            "mail",
            "postfix/submission/smtpd",
            "12",
            "connect from x[192.0.2.7]",
        ),
        ("mail.example.net sshd-session[7]: x", "mail.example.net", "sshd-session", "7", "x"),
        ("2001:db8::1 kernel: x: y", "2001:db8::1", "kernel", "", "x: y"),
        ("mail CRON[3]: (root) CMD (x)", "mail", "CRON", "3", "(root) CMD (x)"),
        ("mail pop(pam_unix)[3]: x", "mail", "pop", "3", "x"),
        ("postfix/smtpd[1]: x", "", "postfix/smtpd", "1", "x"),
        ("mail sshd[1]:", "mail", "sshd", "1", ""),
        ("no colon here", "", "", "", "no colon here"),
    ],
)
def test_parts(date: str, rest: str, host: str, program: str, pid: str, message: str) -> None:
    parts = envelope(f"{date} {rest}", Timestamps(), NOW)
    assert parts.time is not None
    assert (parts.host, parts.program, parts.pid, parts.message.removeprefix("[] ")) == (host, program, pid, message)
    assert parts.content == ("[] " if date.startswith("[") else " ") + rest


def test_a_line_without_a_date() -> None:
    parts = envelope("mail sshd[1]: x", Timestamps(), NOW)
    assert parts.time is None
    assert (parts.host, parts.program, parts.content) == ("mail", "sshd", "mail sshd[1]: x")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("postfix/smtpd", Service.SMTP),
        ("postfix-in/smtpd", Service.SMTP),
        ("postfix/postscreen", Service.SMTP),
        ("postfix/dnsblog", Service.SMTP),
        ("postfix/submission/smtpd", Service.SUBMISSION),
        ("postfix/submissions/smtpd", Service.SUBMISSION),
        ("postfix/smtps/smtpd", Service.SUBMISSION),
        ("postfix-submission/smtpd", Service.SUBMISSION),
        ("postfix/587/smtpd", Service.SUBMISSION),
        ("mail-465/smtpd", Service.SUBMISSION),
        ("sshd", Service.SSH),
        ("sshd-session", Service.SSH),
        ("dovecot", Service.IMAP),
        ("postfix/qmgr", Service.OTHER),
        ("", Service.OTHER),
    ],
)
def test_service(program: str, expected: Service) -> None:
    assert service(program) is expected
