"""Jails as fail2ban writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.detect import jailfile
from nftban.detect.jailfile import JailEntry
from nftban.errors import Fault

SEED = """\
[postfix-502]
enabled = true
port = smtp,ssmtp,submission
filter = postfix-502
logpath = /var/log/mail.log
maxretry = 10
"""


def load(directory: Path, text: str, **others: str) -> tuple[tuple[JailEntry, ...], tuple[Fault, ...]]:
    for name, content in others.items():
        (directory / f"{name}.conf").write_text(content)
    file = directory / "jail.local"
    file.write_text(text)
    return jailfile.load([file], [directory])


def test_the_seed_jail_loads_as_it_is(tmp_path: Path) -> None:
    entries, faults = load(tmp_path, SEED)
    assert faults == ()
    assert entries == (
        JailEntry(
            "postfix-502",
            True,
            "postfix-502",
            "smtp,ssmtp,submission",
            ("/var/log/mail.log",),
            10,
            None,
            None,
            (),
            str(tmp_path / "jail.local"),
            2,
        ),
    )


def test_defaults_interpolation_and_includes(tmp_path: Path) -> None:
    text = """\
[INCLUDES]
before = paths.conf
[DEFAULT]
bantime = 1h
findtime = 10m
maxretry = 5
ignoreip = 127.0.0.1/8, ::1 192.0.2.0/24
mode = normal
filter = %(__name__)s[mode=%(mode)s]
[sshd]
enabled = yes
mode = aggressive
logpath = %(auth_log)s
bantime = 1d12h
[postfix]
enabled = true
logpath = /var/log/mail.log tail
          /var/log/mail/*.log
bantime = -1
"""
    entries, faults = load(tmp_path, text, paths="[DEFAULT]\nauth_log = /var/log/auth.log\n")
    assert faults == ()
    sshd, postfix = entries
    assert (sshd.filter, sshd.logpath, sshd.bantime) == ("sshd[mode=aggressive]", ("/var/log/auth.log",), 129600)
    assert (sshd.findtime, sshd.maxretry) == (600, 5)
    assert sshd.ignoreip == ("127.0.0.1/8", "::1", "192.0.2.0/24")
    assert (postfix.filter, postfix.bantime) == ("postfix[mode=normal]", -1)
    assert postfix.logpath == ("/var/log/mail.log", "/var/log/mail/*.log")


def test_a_later_file_overlays(tmp_path: Path) -> None:
    (tmp_path / "jail.conf").write_text("[DEFAULT]\nmaxretry = 5\n[sshd]\nlogpath = /a\nenabled = false\n")
    (tmp_path / "jail.local").write_text("[sshd]\nenabled = true\nmaxretry = 3\n")
    entries, faults = jailfile.load([tmp_path / "jail.conf", tmp_path / "jail.local"])
    assert faults == ()
    assert [(e.name, e.enabled, e.maxretry, e.logpath) for e in entries] == [("sshd", True, 3, ("/a",))]


def test_a_jail_that_is_off_is_named_and_nothing_of_it_is_judged(tmp_path: Path) -> None:
    entries, faults = load(tmp_path, "[x]\nlogpath = %(nowhere)s\nmaxretry = many\n")
    assert faults == ()
    assert [(e.name, e.enabled) for e in entries] == [("x", False)]


@pytest.mark.parametrize(
    ("option", "line", "what"),
    [
        ("maxretry = many", 4, "maxretry = 'many' is not a number"),
        ("maxretry = 0", 4, "not a number of offences"),
        ("findtime = 10 parsecs", 4, "findtime: '10 parsecs' is not a duration"),
        ("findtime = -1", 4, "is no span"),
        ("bantime = 1h x", 4, "bantime: '1h x'"),
        ("port = %(nowhere)s", 4, "%(nowhere)s"),
        ("enabled = perhaps", 2, "neither true nor false"),
        ("logpath =", 3, "has no logpath"),
    ],
)
def test_faults_name_the_line_and_leave_the_other_jails(tmp_path: Path, option: str, line: int, what: str) -> None:
    name = option.partition(" =")[0]
    options = {"enabled": "enabled = true", "logpath": "logpath = /a", name: option}
    entries, faults = load(
        tmp_path, "[bad]\n" + "\n".join(options.values()) + "\n[good]\nenabled = true\nlogpath = /b\n"
    )
    assert [entry.name for entry in entries] == ["good"]
    assert [(fault.line, what in fault.what) for fault in faults] == [(line, True)], faults


@pytest.mark.parametrize(
    ("backend", "logpath"),
    [
        ("systemd", "journal"),
        ("systemd[journalflags=1]", "journal"),
        ('systemd[journalflags=1, journalpath="/var/log/journal/remote"]', "journal:/var/log/journal/remote"),
        ("auto", "/var/log/auth.log"),
    ],
)
def test_a_jail_on_the_journal_reads_no_file(tmp_path: Path, backend: str, logpath: str) -> None:
    text = f"[sshd]\nenabled = true\nbackend = {backend}\nlogpath = /var/log/auth.log\njournalmatch = _COMM=sshd\n"
    entries, faults = load(tmp_path, text)
    assert faults == () and entries[0].logpath == (logpath,)
    assert entries[0].journalmatch == ("_COMM=sshd",)


def test_all_faults_of_several_jails_at_once(tmp_path: Path) -> None:
    text = "[a]\nenabled = true\nlogpath = /a\nmaxretry = x\nfindtime = y\n[b]\nenabled = true\nbantime = z\n"
    entries, faults = load(tmp_path, text)
    assert entries == ()
    assert [fault.line for fault in faults] == [4, 5, 7, 8]


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    entries, faults = jailfile.load([tmp_path / "gone"])
    assert entries == () and "cannot be read" in faults[0].what


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("600", 600),
        ("10m", 600),
        ("1h", 3600),
        ("1d12h", 129600),
        ("1h 30m", 5400),
        ("1hour+30min", 5400),
        ("1w", 604800),
        ("-1", -1),
        ("0", 0),
        ("1.5h", 5400),
        ("2 weeks", 1209600),
        ("1y", 31557600),
        ("1mo", 2629800),
    ],
)
def test_seconds(text: str, expected: float) -> None:
    assert jailfile.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "x", "10x", "1h x", "h", "--", "1d-2h", "__import__('os')"])
def test_not_seconds(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        jailfile.seconds(text)
