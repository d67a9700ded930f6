"""The quick way over whole chunks says of every line what Matcher.match says of it.

The oracle is a Matcher without any screen, line by line, as in test_screen.py, whose lines these are too.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench.logs import write_log

from nftban.detect import filterfile
from nftban.detect.budget import WATCH
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.detect.scan import OFTEN, Scan
from nftban.detect.together import together
from nftban.records import LogLine, Offence
from nftban.sources.chunks import Begun, Chunk, is_utf8
from tests.unit.detect.test_screen import CORPUS, FAIL2BAN, NOW, SHIPPED, SPECS, hostile, loaded, samples, texts_of

Told = tuple[object, ...]


def plain(filter: Filter, chunks: list[Chunk]) -> tuple[list[Told], Matcher]:
    """Every line against every rule: filter, chunk, and the record."""
    matcher = Matcher(replace(filter, words=()))
    found = [(n, matcher.match(line, NOW)) for n, chunk in enumerate(chunks) for line in chunk]
    return [(n, record) for n, record in found if record is not None], matcher


def brief(told: Told) -> Told:
    number, record = told
    rule = int(record.rule.partition(":")[0]) if isinstance(record, Offence) else 0
    return number, type(record), record.prefix, record.time, rule  # type: ignore[attr-defined]


def cut_up(data: bytes, chance: random.Random) -> list[Chunk]:
    """As a source gives it: pieces of any size."""
    begun, at, out = Begun(), 0, []
    while at < len(data):
        size = chance.choice((300, 3000, 60_000, 300_000))
        whole, cut = begun.lines(data[at : at + size])
        at += size
        if whole:
            out.append(Chunk("log", whole, is_utf8(whole), cut=cut))
    return out


def check(filters: list[Filter], data: bytes, chance: random.Random) -> int:
    """All filters in one scan, in short and as records; returns how many lines were something."""
    chunks = cut_up(data, chance)
    shortly, fully = Scan([Matcher(each) for each in filters]), Scan([Matcher(each) for each in filters])
    briefs = [(n, each) for n, chunk in enumerate(chunks) for each in shortly.briefs(chunk, NOW)]
    records = [(n, each) for n, chunk in enumerate(chunks) for each in fully.records(chunk, NOW)]
    for n, (_, start, *_) in briefs:
        assert start == 0 or chunks[n].data[start - 1 : start] == b"\n"
    total = 0
    for number, filter in enumerate(filters):
        expected, matcher = plain(filter, chunks)
        assert [(n, each[2]) for n, each in records if each[0] == number] == expected, filter.spec
        told = [(n, *each[2:]) for n, each in briefs if each[0] == number]
        wanted = list(map(brief, expected))
        assert told == wanted, (filter.spec, next((a, b) for a, b in zip(told, wanted, strict=False) if a != b))
        for scan in (shortly, fully):
            counts = scan.matchers[number].counts
            assert (counts.offences, counts.logins) == (matcher.counts.offences, matcher.counts.logins)
        total += len(expected)
    return total


def generated(folder: Path, kind: str, count: int, share: float, *, iso: bool = False) -> bytes:
    write_log(folder / "log", kind, count, share, iso=iso)
    return (folder / "log").read_bytes()


@pytest.mark.parametrize("iso", [False, True])
def test_generated_logs_are_told_as_line_by_line(tmp_path: Path, *, iso: bool) -> None:
    filters = [loaded(spec, SHIPPED) for spec in SPECS]
    if FAIL2BAN.is_dir():
        filters += [loaded(spec, FAIL2BAN) for spec in SPECS]
    assert check(filters, generated(tmp_path, "mixed", 6000, 0.4, iso=iso), random.Random(1)) > 3000


def test_hostile_lines_are_told_as_line_by_line(tmp_path: Path) -> None:
    filters = [loaded(spec, SHIPPED) for spec in SPECS]
    if FAIL2BAN.is_dir():
        filters += [loaded(spec, FAIL2BAN) for spec in SPECS]
    for seed in range(2):
        chance = random.Random(seed)
        base = samples() + generated(tmp_path, "mixed", 2000, 0.5).splitlines()
        lines = base + hostile(base, texts_of(filters), chance, 2000)
        # One sender's connection goes on under another's, bytes that are not UTF-8, a line over the limit, a CR.
        lines += [line.replace(b"sshd[", b"sshd[1", 1) for line in base[::7]]
        lines += [base[0] + b"\xff", base[1] + b"\r", base[2] + b"x" * 70_000, base[3] + b"\x1c"]
        chance.shuffle(lines)
        assert check(filters, b"\n".join([*lines, b""]), chance) > 500


@pytest.mark.skipif(not FAIL2BAN.is_dir(), reason="Debian's fail2ban is not installed")
def test_fail2ban_s_filters_are_told_as_line_by_line() -> None:
    chance = random.Random(5)
    found = [filterfile.load(name, [FAIL2BAN]) for name in filterfile.available([FAIL2BAN])]
    filters = [each for each in found if isinstance(each, Filter)]
    own = [file.read_bytes().splitlines() for file in sorted(CORPUS.glob("*")) if file.is_file()]
    base = [
        line for lines in own for line in lines if line and not line.startswith(b"#") and is_utf8(line)
    ] or samples()
    for first in range(0, len(filters), 12):
        lines = chance.choices(base, k=100) * (OFTEN + 2)
        check(filters[first : first + 12], b"\n".join([*lines, b""]), chance)


def test_a_line_that_means_nothing_but_the_end_of_an_unknown_session_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text(
        "[Definition]\n"
        r"prefregex = ^<F-MLFID>\s*\w+ d\[\d+\]: </F-MLFID><F-CONTENT>.+</F-CONTENT>$"
        "\nfailregex = ^wrong <F-USER>\\w+</F-USER> <ADDR>$\n"
        "            ^<F-NOFAIL>closed <F-MLFFORGET>now</F-MLFFORGET></F-NOFAIL> <ADDR>$\n"
    )
    lines = [f"Nov 24 20:13:{n % 60:02} h d[{n}]: closed now 192.0.2.{n % 250}" for n in range(200)]
    for n in range(100, 150):  # several users in one session: then its end counts too
        lines[n:n] = [f"Nov 24 20:13:00 h d[{n}]: wrong u{k} 192.0.2.{n}" for k in range(2)]
    assert check([loaded("a", tmp_path)], "\n".join([*lines, ""]).encode(), random.Random(2)) > 100


@pytest.fixture
def ticking() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not WATCH.start():
        pytest.skip("signals come to the main thread only")
    yield
    WATCH.stop()


@pytest.mark.usefixtures("ticking")
def test_a_line_that_costs_too_much_does_not_stop_the_scan(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text(
        "[Definition]\nfailregex = ^ h evil (?:a+)+b <ADDR>$\n            ^ h good <ADDR>$\n"
    )
    good = [f"Nov 24 20:13:28 h good 192.0.2.{n}" for n in range(40)]
    evil = [*(f"Nov 24 20:13:28 h evil aab 192.0.2.{n}" for n in range(40)), "Nov 24 20:13:28 h evil " + "a" * 60]
    data = "\n".join([*good, *evil, *good, ""]).encode()
    matcher = Matcher(loaded("a", tmp_path))
    found = Scan([matcher]).briefs(Chunk("log", data, valid=True), NOW)
    assert matcher.counts.overruns > 0
    assert len(found) == 120


@pytest.mark.parametrize(
    "expressions",
    [
        [r"^(?P<a>x)(?P=a)", r"^(?P<a>y)?(?(a)z|w)"],
        [r"^[(?P<a>x]+", r"^\(?P<(?P<a>\w)>"],
        [r"^a(?P<n>b)?", r"^a(?P<n>c)", r"^(?P<n>a)"],
        [r"^(?i:k)\s\b\d", r"^\S+(?=x)\S$"],
        [r"^(?P<a>x?)(?P<b>y)", r"^(?P<a>z*)w"],
    ],
)
def test_together_they_match_as_one_after_the_other(expressions: list[str]) -> None:
    patterns = [re.compile(each) for each in expressions]
    one = together(None, patterns)
    assert one is not None
    chance = random.Random(4)
    hits = 0
    for _ in range(20_000):
        text = "".join(chance.choice("abckwxyzK() <P?>[1\t") for _ in range(chance.randrange(8))) + "\n"
        first = next(((n, m) for n, each in enumerate(patterns) if (m := each.search(text))), None)
        found = one.pattern.match(b"--" + text.encode(), 2)
        assert (first is None) == (found is None), text
        if first and found:
            number, groups = one.rules[found.lastindex or 0]
            named = {name: None if (t := found[group]) is None else t.decode() for name, group in groups.items()}
            assert (number, named) == (first[0], first[1].groupdict())
            assert all(named[name] for name in one.always[number])
            hits += 1
    assert hits > 50


@pytest.mark.parametrize("expressions", [["a"], ["^a", "^b|^c"], ["(?i)^a"], ["^é"], [r"^(a)\1"], []])
def test_what_would_not_be_the_same_together_is_not_made(expressions: list[str]) -> None:
    assert together(None, [re.compile(each) for each in expressions]) is None


def test_lines_without_a_date_are_of_the_last_that_was_something(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("[Definition]\nfailregex = ^(?: h )?bad <ADDR>$\n")
    matcher = Matcher(loaded("a", tmp_path))
    dated = matcher.match(LogLine("log", "Nov 24 20:13:28 h bad 192.0.2.1"), NOW)
    assert isinstance(dated, Offence)
    data = b"Nov 24 20:13:29 h bad 192.0.2.1\n" * (OFTEN + 5) + b"Nov 24 20:13:31 h good\nbad 192.0.2.2\n"
    found = Scan([matcher]).briefs(Chunk("log", data, valid=True), dated.time + 30)
    assert [each[4] for each in found] == [dated.time + 1] * (OFTEN + 6)
