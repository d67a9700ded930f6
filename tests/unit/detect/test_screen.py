"""The screen and the fused expressions change nothing but speed.

What a Matcher makes of every line, without any screen, is the oracle.  Lines are the samples of our filters, those that
come with Debian's fail2ban where it is installed, and what an attacker may make of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from bench.logs import write_log

from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.fused import fused
from nftban.detect.literals import chosen, halves, requirements, whole, words
from nftban.detect.matcher import Matcher
from nftban.detect.meaning import Result
from nftban.detect.screen import SAMPLE, Screen
from nftban.records import LogLine

NOW = 1_795_552_000.0
SHIPPED = Path(__file__).parents[3] / "rules" / "filters"
FAIL2BAN = Path("/etc/fail2ban/filter.d")
CORPUS = Path("/usr/lib/python3/dist-packages/fail2ban/tests/files/logs")
SPECS = ["postfix", "postfix[mode=aggressive]", "sshd", "sshd[mode=aggressive]"]
DATES = ("Nov 24 20:13:28", "2026-11-24T20:13:28.123456+00:00", "24/Nov/2026:20:13:28 +0000", "1795551208")


def loaded(spec: str, *directories: Path) -> Filter:
    found = filterfile.load(spec, directories)
    assert isinstance(found, Filter), found
    return found


def plain(filter: Filter, lines: Iterable[bytes]) -> list[Result]:
    """Every line against every rule, each expression by itself."""
    matcher = Matcher(replace(filter, words=()))
    return [matcher.match(LogLine("log", line.decode()), NOW) for line in lines]


def screened(filters: list[Filter], lines: list[bytes], chance: random.Random) -> list[list[Result]]:
    """The same of several filters, through one screen, in chunks of any size."""
    out: list[list[Result]] = [[None] * len(lines) for _ in filters]
    matchers = [Matcher(filter) for filter in filters]
    screen = Screen(filters, chance.choice((b"", b"\n".join(lines))))
    at = 0
    while at < len(lines):
        size = chance.choice((1, 2, 7, 100, 5000))
        data = b"".join(line + b"\n" for line in lines[at : at + size])
        for start, end, bits in screen.lines(data):
            assert data[end : end + 1] == b"\n" and b"\n" not in data[start:end]
            number = at + data.count(b"\n", 0, start)
            for which, rules, texts in screen.wanted(bits):
                line = LogLine("log", data[start:end].decode())
                if chance.random() < 0.5:
                    out[which][number] = matchers[which].match(line, NOW, rules)
                elif found := matchers[which].look(data[start : end + 1].decode(), NOW, rules, texts):
                    out[which][number] = matchers[which].meaning(line, found)
        at += size
    return out


def hostile(lines: list[bytes], texts: list[str], chance: random.Random, count: int) -> list[bytes]:
    """Lines put together of parts of others, with dates and what the rules look for in their middle, or without."""
    out = []
    for _ in range(count):
        line = chance.choice(lines)
        at, other = chance.randrange(len(line) + 1), chance.choice(lines)
        text, date = chance.choice(texts).encode(), chance.choice(DATES).encode()
        cut = chance.randrange(len(text) + 1)
        out.append(
            chance.choice((
                line[:at] + other[chance.randrange(len(other) + 1) :],
                line[:at] + text + line[at:],
                line[:at] + text[:cut] + date + text[cut:] + line[at:],
                line[16:],
                line[16 : 16 + at] + date + line[16 + at :],
                text[:cut] + date + text[cut:] + line[16:],
                line.swapcase(),
                line.replace(b" ", b"  ", 2),
                line + b" " + "é\u017f\u212a\u202e".encode() + other,
                line[:at] + b"\0\x1b\r" + line[at:],
                line * 3,
            )).replace(b"\n", b"")
        )  # fmt: skip
    return out


def samples(folder: Path = SHIPPED) -> list[bytes]:
    found = [line for file in folder.glob("*.samples") for line in file.read_bytes().splitlines()]
    return [line for line in found if line and not line.startswith((b"#", b" ", b"["))]


def texts_of(filters: Iterable[Filter]) -> list[str]:
    each = (requirements(rule.pattern) for filter in filters for rule in filter.rules)
    return [text for required in each for text in chosen(required, len) or ()] or ["x"]


def generated(folder: Path) -> list[bytes]:
    write_log(folder / "log", "mixed", 3000, 0.3)
    return (folder / "log").read_bytes().splitlines()


def test_shipped_filters_find_the_same_through_one_screen(tmp_path: Path) -> None:
    filters = [loaded(spec, SHIPPED) for spec in SPECS]
    base = samples() + generated(tmp_path)
    for seed in range(2):
        chance = random.Random(seed)
        lines = base + hostile(base, texts_of(filters), chance, 2500)
        found = screened(filters, lines, chance)
        for filter, ours in zip(filters, found, strict=True):
            expected = plain(filter, lines)
            wrong = [n for n in range(len(lines)) if ours[n] != expected[n]]
            assert not wrong, (filter.spec, lines[wrong[0]], expected[wrong[0]], ours[wrong[0]])
            assert sum(result is not None for result in expected) > 100


@pytest.mark.skipif(not FAIL2BAN.is_dir(), reason="Debian's fail2ban is not installed")
def test_fail2ban_s_filters_find_the_same_through_one_screen(tmp_path: Path) -> None:
    """All of them over their own samples, where those are there, each other's, and what is made of them."""
    chance = random.Random(7)
    found = [filterfile.load(name, [FAIL2BAN]) for name in filterfile.available([FAIL2BAN])]
    filters = [each for each in found if isinstance(each, Filter)]
    assert len(filters) > 80
    own = [file.read_bytes().splitlines() for file in sorted(CORPUS.glob("*")) if file.is_file()]
    base = [line for lines in own for line in lines if line and not line.startswith(b"#") and _is_utf8(line)]
    base = samples() + generated(tmp_path)[:500] + base
    chance.shuffle(base)
    for first in range(0, len(filters), 10):
        some = filters[first : first + 10]
        lines = base[:500] + hostile(base, texts_of(some), chance, 500)
        for filter, ours in zip(some, screened(some, lines, chance), strict=True):
            expected = plain(filter, lines)
            wrong = [n for n in range(len(lines)) if ours[n] != expected[n]]
            assert not wrong, (filter.spec, lines[wrong[0]], expected[wrong[0]], ours[wrong[0]])


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_one_text_does_not_hide_another(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("[Definition]\nfailregex = abcdef <ADDR>\n            def\n")
    (tmp_path / "b.conf").write_text("[Definition]\nfailregex = cdefgh <ADDR>\n            bcd\n")
    filters = [loaded("a", tmp_path), loaded("b", tmp_path)]
    screen = Screen(filters)

    def wanted(line: bytes) -> dict[str, tuple[int, ...]]:
        (found,) = screen.lines(line)
        return {filters[number].name: rules for number, rules, _ in screen.wanted(found.bits)}

    assert wanted(b"xabcdefgh\n") == {"a": (0, 1), "b": (0, 1)}
    assert wanted(b"abc def\n") == {"a": (1,)}
    assert [line.bits for line in screen.lines(b"ab cde fg\n")] == []


def test_the_rarer_text_is_searched_for(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("[Definition]\nfailregex = ^often seldom <ADDR>\n")
    screen = Screen([loaded("a", tmp_path)], b"often and often\n" * (SAMPLE // 16))
    assert screen.sampled
    assert [*screen.lines(b"often\nnever\n")] == []
    assert [line[:2] for line in screen.lines(b"often\nx seldom\n")] == [(6, 14)]


@pytest.mark.parametrize(
    ("expression", "needed"),
    [
        ("^foo(?:bar|baz)? qux", {" qux"}),
        ("^(?:one|three) user", {"one user", "three user"}),
        ("^(?:alpha|beta)$", {"alpha", "beta"}),
        ("^[Ll]ogin$", {"Login", "login"}),
        ("^disconnect(?= from .* unlikely=0/)", {" unlikely=0/"}),
        ("(?i)sk", None),
        ("(?i)x k", {x + k for x in ("x ", "X ") for k in "kK\u212a"}),
        (r"^\d+ \S+$", None),
        ("^a?b?c?$", None),
        ("(?:abc|d)", None),
        ("(?:abc){2,3}x", {"abc"}),
        (r"(?P<q>')?(?(q)inside|outside)", {"inside", "outside"}),
        ("abc(?!def)ghi", {"abcghi"}),
        ("(?<=xyz)abcd", {"abcd"}),
        ("(?<=vwxyz)abcd", {"vwxyz"}),
    ],
)  # fmt: skip
def test_what_every_match_contains(expression: str, needed: set[str] | None) -> None:
    pattern = re.compile(expression)
    found = chosen(requirements(pattern), lambda text: 100 / len(text))
    assert (None if found is None else set(found)) == needed


def test_what_is_left_of_a_text_behind_a_cut_out_date() -> None:
    assert whole("authentication failed:") == (("authentication failed:",),)
    assert words("]: SASL x") == ((" SASL",),)
    assert words("--") == ()
    assert halves("abcdefg") == (("abc", "defg"),)
    assert halves("abcde") == ()


@pytest.mark.parametrize(
    "expression",
    [
        "^a|^b",
        "^ab|^ac",
        "^a|b",
        "^(?:^|x)b",
        r"^\bfoo",
        r"^(?<=x)b",
        r"^(a)\1",
        "a",
        r"^\Aa",
        "^(?P<head>a)",
        "(?i)^a",
    ],
)
def test_what_cannot_be_fused_is_not(expression: str) -> None:
    assert fused(re.compile(r"^(?P<head>\w+): (?P<content>.+)$"), re.compile(expression)) is None


@pytest.mark.parametrize(
    "expression",
    [
        r"^\w+: (?P<content>.*)$",
        r"^\w+: (?P<content>.+) x$",
        r"\w+: (?P<content>.+)$",
        r"^a|^b: (?P<content>.+)$",
    ],
)
def test_a_prefix_that_does_not_leave_all_the_rest_is_not_fused(expression: str) -> None:
    assert fused(re.compile(expression), re.compile("^a")) is None


def test_fused_is_what_both_are_one_after_the_other() -> None:
    prefix = re.compile(r"^\s*(?:\w+ )?\w+: (?P<content>.+)$")
    rule = re.compile(r"^x\s*\b(?P<a>\w+ )?(?P<b>(?<=x)y|\S*)$")
    both = fused(prefix, rule)
    assert both is not None
    chance = random.Random(3)
    hits = 0
    for _ in range(20_000):
        text = "".join(chance.choice(("a", "b", "x", "y", " ", ": ", ":")) for _ in range(chance.randrange(12))) + "\n"
        first = prefix.search(text)
        second = rule.search(first["content"] + "\n") if first else None
        together = both.search(text)
        assert (second and second.groupdict()) == (together and {n: together[n] for n in ("a", "b")})
        hits += together is not None
    assert hits > 100
