"""fail2ban's sessions, names in an address's place, passwords tried again.  Ours (F-ONCE) are in test_matcher.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.records import Login, LogLine, Offence

NOW = 1795552000.0
SESSION = r"""
prefregex = ^ <F-MLFID>h p\[\d+\]:</F-MLFID> <F-CONTENT>.+</F-CONTENT>$
failregex = ^bad <HOST> as <F-USER>\w*</F-USER>$
            ^broken$
            ^<F-NOFAIL>from</F-NOFAIL> <HOST>(?: as <F-USER>\w+</F-USER>| was <F-ALT_USER>\w+</F-ALT_USER>)?$
            ^<F-NOFAIL><F-MLFFORGET>bye</F-MLFFORGET></F-NOFAIL> <HOST>$
            ^<F-MLFGAINED>in</F-MLFGAINED> <HOST> as <F-USER>\w+</F-USER>$
            ^(?:<F-NOFAIL>key</F-NOFAIL>|\w+) of <HOST>$
"""


def matcher(tmp_path: Path, definition: str, said: list[str] | None = None) -> Matcher:
    (tmp_path / "f.conf").write_text("[Definition]\n" + definition)
    loaded = filterfile.load("f", [tmp_path])
    assert isinstance(loaded, Filter), loaded
    return Matcher(loaded, report=(said if said is not None else []).append)


def told(m: Matcher, *lines: str) -> list[str]:
    """Each line's address and user, with L for a login, or -."""
    out = []
    for number, line in enumerate(lines):
        found = m.match(LogLine("log", f"{int(NOW) - 100 + number} h p[1]: {line}"), NOW)
        if isinstance(found, Login):
            out.append(f"L {found.prefix} {found.user}".rstrip())
        elif isinstance(found, Offence):
            out.append(f"{found.prefix} {dict(found.facts).get('user', '')}".rstrip())
        else:
            out.append("-")
    return out


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["bad 192.0.2.1 as x", "bad 192.0.2.1 as x"], ["192.0.2.1 x", "192.0.2.1 x"]),
        # What has no address waits for a line that brings it, which then counts once.
        (["broken", "from 192.0.2.1 as x", "bye 192.0.2.1"], ["-", "192.0.2.1 x", "-"]),
        (["broken", "bad 192.0.2.1 as x", "bye 192.0.2.1"], ["-", "192.0.2.1 x", "-"]),
        (["broken", "bye 192.0.2.1", "bye 192.0.2.1"], ["-", "192.0.2.1", "-"]),
        (["from 192.0.2.1 as x", "broken", "broken"], ["-", "192.0.2.1 x", "192.0.2.1 x"]),
        # A login forgives what waits, and nothing that several users tried.
        (["broken", "in 192.0.2.1 as x", "bye 192.0.2.1"], ["-", "L 192.0.2.1 x", "-"]),
        (["bad 192.0.2.1 as x", "in 192.0.2.1 as x"], ["192.0.2.1 x", "L 192.0.2.1 x"]),
        (["bad 192.0.2.1 as x", "in 192.0.2.1 as y"], ["192.0.2.1 x", "192.0.2.1 y"]),
        (["from 192.0.2.1 as x", "from 192.0.2.1 was y"], ["-", "192.0.2.1 y"]),
        (["bad 192.0.2.1 as x", "bye 192.0.2.1", "in 192.0.2.1 as y"], ["192.0.2.1 x", "-", "L 192.0.2.1 y"]),
        # F-NOFAIL counts only where its part of the expression matched.
        (["key of 192.0.2.1", "lock of 192.0.2.1"], ["-", "192.0.2.1"]),
        (["bad 192.0.2.1 as "], ["192.0.2.1"]),
        # Another client under the same process id is another session.
        (["bad 192.0.2.1 as x", "in 192.0.2.2 as y"], ["192.0.2.1 x", "L 192.0.2.2 y"]),
    ],
)
def test_sessions(tmp_path: Path, lines: list[str], expected: list[str]) -> None:
    assert told(matcher(tmp_path, SESSION), *lines) == expected


def test_a_name_is_counted_said_once_an_hour_and_no_offence(tmp_path: Path) -> None:
    said: list[str] = []
    m = matcher(tmp_path, SESSION, said)
    lines = ("bad host.example.org as x", "from other.example.org", "broken", "bye other.example.org")
    assert told(m, *lines) == ["-"] * 4
    assert (m.counts.unresolved, m.counts.last_name, m.counts.offences) == (2, "other.example.org", 0)
    assert len(said) == 1 and "'host.example.org' where the client's address should be" in said[0]


def test_usedns_no_takes_no_names(tmp_path: Path) -> None:
    m = matcher(tmp_path, "usedns = no\nfailregex = ^ (?:bad|worse) <HOST>\n")
    for text, matched in (("bad host.example.org", 0), ("bad 192.0.2.1", 1)):
        m.match(LogLine("log", f"{int(NOW)} {text}"), NOW)
        assert m.counts.matched == matched


DOVECOT = (
    r"failregex = ^ dovecot: auth: [a-z-]+\(<F-USER>[^,]*</F-USER>,<HOST>(?:,<[^>]*>)?\): Password mismatch"
    r"(?: \(SHA1 of given password: <F-PASSWORD>[0-9a-f]{6,40}</F-PASSWORD>\))?$"
)


def test_the_same_wrong_password_again_is_one_offence(tmp_path: Path) -> None:
    m = matcher(tmp_path, DOVECOT)

    def counts(user: str, address: str, password: str, second: int = 0) -> bool:
        given = f" (SHA1 of given password: {password})" if password else ""
        text = f"{int(NOW) - 9000 + second} dovecot: auth: sql({user},{address},<x>): Password mismatch{given}"
        found = m.match(LogLine("log", text), NOW)
        assert found is None or "password" not in dict(found.facts)  # type: ignore[union-attr]
        return found is not None

    assert counts("a", "192.0.2.1", "0beec7")
    assert not counts("a", "192.0.2.1", "0beec7", 60)
    assert counts("a", "192.0.2.1", "62cdb7", 61)
    assert counts("b", "192.0.2.1", "0beec7", 62)
    assert counts("a", "192.0.2.2", "0beec7", 63)
    assert not counts("a", "192.0.2.1", "0beec7", 3600)  # an hour after the last time, not the first
    assert counts("a", "192.0.2.1", "0beec7", 7300)
    assert counts("a", "192.0.2.1", "", 7301) and counts("a", "192.0.2.1", "", 7302)
    assert (m.counts.repeated, m.counts.offences) == (2, 7)


def test_a_program_with_an_old_password_counts_once_whatever_its_sessions_end_with() -> None:
    shipped = Path(__file__).parents[3] / "rules" / "filters"
    loaded = filterfile.load("dovecot", [shipped])
    assert isinstance(loaded, Filter), loaded
    m = Matcher(loaded)
    found = []
    for number in range(5):
        date, session = f"2026-11-24T19:{number:02d}:00Z mail dovecot:", f"<s{number}>"
        for text in (
            f"auth: passwd-file(alice,192.0.2.1,{session}): Password mismatch (SHA1 of given password: a4b48a)",
            "imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 2 secs): user=<alice>, "
            f"method=PLAIN, rip=192.0.2.1, lip=192.0.2.2, session={session}",
        ):
            found.append(m.match(LogLine("log", f"{date} {text}"), NOW))
    assert isinstance(found[0], Offence) and found[1:] == [None] * 9


def test_a_tuple_joins_an_id_and_alternatives_need_a_value(tmp_path: Path) -> None:
    m = matcher(
        tmp_path,
        r"failregex = ^ a <F-TUPLE_NAME_1>\w+</F-TUPLE_NAME_1> <F-TUPLE_NAME_2>\w+</F-TUPLE_NAME_2> <ADDR>$",
    )
    found = m.match(LogLine("log", f"{int(NOW)} a b c 192.0.2.1"), NOW)
    assert isinstance(found, Offence) and found.facts == (("name", "b c"),)
