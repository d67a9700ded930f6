"""Jails on the journal, as nftban.toml and fail2ban's jail.local write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.daemon.assemble import checked
from nftban.errors import ConfigError


def logpaths(folder: Path, jail: str, *, local: str = "") -> tuple[str, ...]:
    (folder / "filter.d").mkdir()
    (folder / "filter.d" / "own.conf").write_text(
        "[Definition]\nfailregex = ^x <HOST>$\njournalmatch = _SYSTEMD_UNIT=own.service + _COMM=own\n    _UID=0\n"
    )
    (folder / "filter.d" / "silent.conf").write_text("[Definition]\nfailregex = ^x <HOST>$\n")
    written = f"[jail.one]\n{jail}" if jail else ""
    (folder / "nftban.toml").write_text(f"[dnsbl]\nenabled = false\n{written}")
    if local:
        (folder / "jail.local").write_text(local)
    (setup,) = checked(folder / "nftban.toml").jails
    return setup.logpaths


@pytest.mark.parametrize(
    ("jail", "expected"),
    [
        ('filter = "own"\nlogpath = "journal"', ("journal _SYSTEMD_UNIT=own.service + _COMM=own + _UID=0",)),
        ('filter = "own"\nlogpath = "journal"\njournalmatch = "A=1 B=2"', ("journal A=1 B=2",)),
        ('filter = "silent"\njournalmatch = ["A=1", "B=2"]', ("journal A=1 + B=2",)),
        (
            'filter = "own"\nlogpath = ["/var/log/x", "journal:/var/log/journal/remote"]',
            ("/var/log/x", "journal:/var/log/journal/remote _SYSTEMD_UNIT=own.service + _COMM=own + _UID=0"),
        ),
        (
            'filter = "sshd"\nlogpath = "journal"',
            ("journal _SYSTEMD_UNIT=ssh.service + _SYSTEMD_UNIT=sshd.service + _COMM=sshd + _COMM=sshd-session",),
        ),
    ],
)
def test_what_is_read_of_the_journal(tmp_path: Path, jail: str, expected: tuple[str, ...]) -> None:
    assert logpaths(tmp_path, jail) == expected


@pytest.mark.parametrize(
    ("jail", "line", "what"),
    [
        ('filter = "silent"\nlogpath = "journal"', 5, "the filter silent does not say what it reads of the journal"),
        ('filter = "own"\nlogpath = "/x"\njournalmatch = "A=1"', 6, "logpath does not name the journal"),
        ('filter = "own"\njournalmatch = "--file=/etc/shadow"', 5, "'--file=/etc/shadow' is no match"),
        ('filter = "own"\nlogpath = "journal:x"', 5, "'journal:x' is no journal"),
    ],
)
def test_what_cannot_be_read_of_it_is_a_fault(tmp_path: Path, jail: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        logpaths(tmp_path, jail)
    (fault,) = raised.value.faults
    assert what in fault.what and fault.line == line


def test_fail2ban_s_systemd_backend(tmp_path: Path) -> None:
    local = "[own]\nenabled = true\nbackend = systemd\nlogpath = /var/log/auth.log\n"
    assert logpaths(tmp_path, "", local=local) == ("journal _SYSTEMD_UNIT=own.service + _COMM=own + _UID=0",)


def test_and_a_jail_s_own_matches(tmp_path: Path) -> None:
    local = "[own]\nenabled = true\nbackend = systemd\njournalmatch = _COMM=mine\n"
    assert logpaths(tmp_path, "", local=local) == ("journal _COMM=mine",)
