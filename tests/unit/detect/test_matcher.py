"""Sessions, evidence and counters of the matcher.  What the shipped filters find is in rules/filters/*.samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nftban.detect import filterfile
from nftban.detect.expressions import compiled, literals, screen
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Logged, Matcher
from nftban.records import Login, LogLine, Offence

SHIPPED = Path(__file__).parents[3] / "rules" / "filters"
NOW = 1795552000.0  # 2026-11-24 20:26:40 UTC


def matcher_of(tmp_path: Path, definition: str, sessions: int = 10_000) -> Matcher:
    (tmp_path / "f.conf").write_text("[Definition]\n" + definition)
    loaded = filterfile.load("f", [tmp_path])
    assert isinstance(loaded, Filter), loaded
    return Matcher(loaded, sessions=sessions)


def shipped(spec: str) -> Matcher:
    loaded = filterfile.load(spec, [SHIPPED])
    assert isinstance(loaded, Filter), loaded
    return Matcher(loaded)


def told(matcher: Matcher, *lines: str) -> list[str]:
    """Each line's result: the address, with L for a login and E for evidence, or -."""
    out = []
    for line in lines:
        result = matcher.match(LogLine("log", line), NOW)
        kind = {Login: "L ", Logged: "E "}.get(type(result), "")
        out.append(f"{kind}{result.prefix}" if result else "-")
    return out


def at(second: int, text: str) -> str:
    return f"{int(NOW) - 10000 + second} {text}"


SESSION = r"""
prefregex = ^ <F-MLFID>h p\[\d+\]:</F-MLFID> <F-CONTENT>.+</F-CONTENT>$
failregex = ^<F-ONCE>bad</F-ONCE> <ADDR>$
            ^worse <ADDR>$
            ^<F-ONCE><F-MLFFORGET>bye</F-MLFFORGET></F-ONCE> <ADDR> bad$
            ^<F-NOFAIL><F-MLFFORGET>bye</F-MLFFORGET></F-NOFAIL> <ADDR>$
            ^<F-NOFAIL><F-MLFBEGIN>hello</F-MLFBEGIN></F-NOFAIL> <ADDR>$
            ^<F-NOFAIL><F-ONCE>excuse</F-ONCE></F-NOFAIL> <ADDR>$
            ^<F-MLFGAINED>in</F-MLFGAINED> <ADDR> as <F-USER>\w+</F-USER>$
"""


def test_once_counts_once_until_the_session_ends(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, SESSION)
    lines = [f"h p[1]: {x} 192.0.2.1" for x in ("bad", "bad", "worse", "bad", "bye", "bad", "hello", "bad")]
    expected = ["192.0.2.1", "-", "192.0.2.1", "-", "-", "192.0.2.1", "-", "192.0.2.1"]
    assert told(m, *(at(i, line) for i, line in enumerate(lines))) == expected
    assert m.counts.offences == 4 and m.counts.matched == 8


def test_the_last_line_of_a_session_counts_if_nothing_else_did(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, SESSION)
    bye = at(1, "h p[1]: bye 192.0.2.1 bad")
    assert told(m, bye, at(1, "h p[1]: worse 192.0.2.1"), bye, bye) == ["192.0.2.1", "192.0.2.1", "-", "192.0.2.1"]


def test_other_processes_hosts_and_clients_are_other_sessions(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, SESSION.replace("h p", r"\w p"))
    lines = ("h p[1]: bad 192.0.2.1", "h p[2]: bad 192.0.2.1", "i p[1]: bad 192.0.2.1", "h p[1]: bad 192.0.2.2",
             "h p[1]: bad 192.0.2.1", "h p[1]: bad ::ffff:192.0.2.1")  # fmt: skip
    expected = ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1", "-"]
    assert told(m, *(at(1, line) for line in lines)) == expected


def test_an_excused_session_leaves_what_counts_each_time(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, SESSION)
    lines = [at(1, f"h p[1]: {x} 192.0.2.1") for x in ("excuse", "bad", "worse", "bye", "bad")]
    assert told(m, *lines) == ["-", "-", "192.0.2.1", "-", "192.0.2.1"]


def test_a_login_tells_its_user_and_leaves_the_session(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, SESSION)
    assert told(m, at(1, "h p[1]: bad 192.0.2.1")) == ["192.0.2.1"]
    login = m.match(LogLine("log", at(2, "h p[1]: in 192.0.2.1 as alice")), NOW)
    assert isinstance(login, Login)
    assert (str(login.prefix), login.user, login.time, login.source) == ("192.0.2.1", "alice", NOW - 9998, "log")
    assert told(m, at(3, "h p[1]: bad 192.0.2.1")) == ["-"]


def test_sessions_end_by_the_log_s_time_and_never_by_the_clock(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, SESSION)
    bad = "h p[1]: bad 192.0.2.1"
    assert told(m, at(0, bad), at(900, bad), at(1801, bad)) == ["192.0.2.1", "-", "192.0.2.1"]


def test_sessions_are_bounded_and_the_longest_untouched_go_first(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, SESSION, sessions=100)
    for pid in range(1000):
        assert told(m, at(1, f"h p[{pid}]: bad 192.0.2.1")) == ["192.0.2.1"]
        assert told(m, at(1, "h p[0]: bad 192.0.2.1")) == ["-"]
    assert len(m._meaning.sessions) == 100
    told(m, at(5000, "h p[7777]: bad 192.0.2.1"))
    assert len(m._meaning.sessions) == 1


WAITING = r"""
prefregex = ^ <F-MLFID>h p\[\d+\]:</F-MLFID> <F-CONTENT>.+</F-CONTENT>$
failregex = ^broken: <F-REASON>\w+</F-REASON>$
            ^<F-NOFAIL><F-MLFFORGET>closed</F-MLFFORGET></F-NOFAIL> <ADDR>$
            ^<F-NOFAIL>from</F-NOFAIL> <ADDR>$
"""


def test_a_rule_without_an_address_waits_for_it(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, WAITING)
    assert told(m, at(1, "h p[1]: broken: x"), at(2, "h p[2]: closed 192.0.2.2")) == ["-", "-"]
    offence = m.match(LogLine("log", at(3, "h p[1]: closed 192.0.2.1")), NOW)
    assert isinstance(offence, Offence)
    assert (str(offence.prefix), offence.rule, offence.facts) == ("192.0.2.1", "1: broken", (("reason", "x"),))
    assert offence.line.endswith("broken: x") and offence.time == NOW - 9997
    assert told(m, at(4, "h p[1]: closed 192.0.2.1")) == ["-"]


def test_or_takes_the_one_already_seen(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, WAITING)
    lines = ("from 192.0.2.1", "broken: x", "broken: y", "from 192.0.2.2", "broken: z")
    assert told(m, *(at(1, f"h p[1]: {line}") for line in lines)) == ["-", "192.0.2.1", "192.0.2.1", "-", "192.0.2.2"]


def test_a_rule_without_address_or_session_is_unresolved(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, "failregex = ^ broken$\n            ^ from <HOST>$\n")
    assert told(m, at(1, "broken"), at(1, "from mail.example.org"), at(1, "from 192.0.2.999")) == ["-", "-", "-"]
    assert m.counts.unresolved == 3 and m.counts.offences == 0


def test_ignoreregex_excuses_a_line_that_matched(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, "failregex = ^ bad <HOST> (.*)$\nignoreregex = nagios$\n")
    assert told(m, at(1, "bad 192.0.2.1 x"), at(1, "bad 192.0.2.1 nagios"), at(1, "nagios")) == ["192.0.2.1", "-", "-"]
    assert (m.counts.lines, m.counts.matched, m.counts.ignored) == (3, 1, 1)


def test_facts_are_the_named_groups_and_alternatives_fill_gaps(tmp_path: Path) -> None:
    m = matcher_of(
        tmp_path,
        r"failregex = ^ (?:a <F-USER>\w+</F-USER>|b <F-ALT_USER_1>\w+</F-ALT_USER_1>)"
        r" <F-SERVICE>\w+</F-SERVICE> <ADDR>$",
    )
    for letter in "ab":
        offence = m.match(LogLine("log", at(1, f"{letter} alice imap 192.0.2.1")), NOW)
        assert isinstance(offence, Offence)
        assert (offence.facts, offence.service.value, offence.filter) == ((("user", "alice"),), "imap", "f")


def test_what_the_server_s_dnsbl_look_up_gave_goes_with_the_next_offence_for_an_hour() -> None:
    m = shipped("postfix")
    listed = "mail postfix/dnsblog[7]: addr 192.0.2.1 listed by domain {} as 127.0.0.{}"
    rank = "mail postfix/postscreen[8]: DNSBL rank 6 for [192.0.2.{}]:{}"
    assert told(m, at(0, listed.format("zen.example", 4))) == ["E 192.0.2.1"]
    assert told(m, at(1, listed.format("zen.example", 10)), at(1, listed.format("bl.example", 2)))
    offences = [m.match(LogLine("log", at(t, rank.format(a, t + 9))), NOW) for t, a in ((2, 1), (2, 2), (3700, 1))]
    assert [o.listed for o in offences if isinstance(o, Offence)] == [
        (("zen.example", "127.0.0.4"), ("zen.example", "127.0.0.10"), ("bl.example", "127.0.0.2")),
        (),
        (),
    ]


def test_lines_without_a_date_or_with_one_far_ahead_are_dated_now() -> None:
    m = shipped("postfix")
    text = "mail postfix/smtpd[7]: warning: non-SMTP command from unknown[192.0.2.1]: ."
    for line in (text, f"2099-01-01T00:00:00Z {text.replace('[7]', '[8]')}"):
        offence = m.match(LogLine("log", line), NOW)
        assert isinstance(offence, Offence) and offence.time == NOW


def test_a_cut_line_is_counted_and_only_its_beginning_is_kept() -> None:
    m = shipped("postfix")
    text = "Nov 24 20:00:00 mail postfix/smtpd[7]: warning: non-SMTP command from unknown[192.0.2.1]: " + "x" * 65000
    offence = m.match(LogLine("log", text, truncated=1000), NOW)
    assert isinstance(offence, Offence)
    assert len(offence.line) == 2000 and m.counts.oversized == 1


@pytest.mark.parametrize(
    ("expression", "contained"),
    [
        ("^abc <HOST>$", {("abc ",)}),
        ("abc(?:def|gh)ij", {("abc",), ()}),
        ("(?:abc|defg) x", {("abc", "defg")}),
        ("(abc)?def", {("def",)}),
        ("(?:ab)+c", set()),
        ("(?i)abcdef", set()),
        ("(?i:abc)def", {("def",)}),
        ("a(bc)d", {("abcd",)}),
        (r"x \[\] abc", {("x [] abc",)}),
        ("abc(?=d)def", {("abcdef",)}),
        ("[abc]def", {("def",)}),
    ],
)
def test_literals(expression: str, contained: set[tuple[str, ...]]) -> None:
    found = set(literals(compiled(expression)))
    if expression == r"x \[\] abc":
        assert found == set()  # what is left of a cut-out date is not in the line
    elif () in contained:
        assert ("abc",) in found
    else:
        assert found == contained


def test_the_screen_lets_every_sample_through_that_matches_without_it() -> None:
    lines = [
        line
        for file in SHIPPED.glob("*.samples")
        for line in file.read_text().split("\n")
        if line and not line.startswith((" ", "#", "["))
    ]
    for spec in ("postfix[mode=aggressive]", "sshd[mode=aggressive]"):
        with_screen = shipped(spec)
        assert with_screen.filter.words
        without = Matcher(replace(with_screen.filter, words=()))
        assert told(with_screen, *lines) == told(without, *lines)
        assert with_screen.counts == without.counts


def test_a_rule_without_a_literal_turns_the_screen_off() -> None:
    assert screen([compiled("^abc <HOST>"), compiled(r"^\d+ <HOST>")]) == ()
    assert screen([compiled("^abc <HOST>"), compiled("xabcx <HOST>")]) == ("abc ", "xabcx ")


def test_a_blank_line_may_be_a_session_too(tmp_path: Path) -> None:
    m = matcher_of(tmp_path, "failregex = ^<F-MLFID>.*</F-MLFID>$\n            ^x<ADDR>$\n")
    assert told(m, "", "   ", "\x00", "x192.0.2.1") == ["-", "-", "-", "-"]
