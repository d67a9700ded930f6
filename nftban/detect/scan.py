"""What the lines of whole chunks are: the quick way through screen, expressions and meaning.

Takes the matchers of one log and chunks of it; gives for each line that is something, in order, whose matcher found
it, where it stands, and what it is: a Brief (brief.py), which is a tuple, or the record.  It looks at bytes only: the
date by what stands left of its seconds, all rules that can match as one expression (together.py), an address through
a table of those seen.
What has something uncommon about it (another date, bytes that are not ASCII, a rule that took too long, an expression
that cannot be had over bytes) goes the matcher's own way, line by line.
Guarantees: the same as Matcher.match gives for each line, which tests/unit/detect/test_scan.py holds.
Does not: go on with a log in records that it began in briefs, whose sessions hold no facts; read files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from nftban.detect.brief import Brief, Briefly, Shape, shape
from nftban.detect.budget import WATCH, Overrun
from nftban.detect.matcher import LINE_LIMIT, Match, Matcher, completed
from nftban.detect.meaning import Logged
from nftban.detect.screen import SAMPLE, Screen
from nftban.detect.sessions import Sessions
from nftban.detect.timestamps import DAY, SECONDS
from nftban.detect.together import SEPARATORS, together
from nftban.records import Login, LogLine, Offence

OFTEN = 10
"""So many lines are tried rule by rule before these rules are made one expression, which takes milliseconds."""

_CACHED = 4096
_UNCOMMON = re.compile(rb"[\r\x1c-\x1f\x80-\xff]")
_SIGNS = (b"\r", *(SEPARATORS[n : n + 1] for n in range(len(SEPARATORS))))
_SPACE, _DOT, _COLON = b" .:"

Record = Offence | Login | Logged
Recorded = tuple[int, int, Record]
"""The number of a matcher, where in the chunk the line begins, and what it is."""


class Chunk(Protocol):
    """As sources/chunks.py has it: whole lines, of which `line` gives one as a record."""

    @property
    def data(self) -> bytes: ...
    @property
    def valid(self) -> bool: ...
    @property
    def cut(self) -> int: ...
    def line(self, start: int, end: int) -> LogLine: ...


class _Meant(NamedTuple):
    """rule: from 0; briefly: how it is told in short, by shape, or None."""

    rule: int
    groups: dict[str, int]
    briefly: Callable[..., bool] | None
    shape: Shape | None


class _Way(NamedTuple):
    """How a matcher tries its rules; match: all together, None where each is to be tried by itself; meant: of a
    match, by its lastindex; sessions: where the line can be nothing but the end of one of these."""

    number: int
    matcher: Matcher
    rules: tuple[int, ...]
    match: Callable[[bytes, int, int], re.Match[bytes] | None] | None
    meant: dict[int | None, _Meant]
    sessions: Sessions | None = None


class _Told(NamedTuple):
    """Where findings go, and whether in short."""

    add: Callable[[Any], None]
    briefly: bool

    def record(self, number: int, start: int, record: Record) -> None:
        if self.briefly:
            rule = int(record.rule.partition(":")[0]) if isinstance(record, Offence) else 0
            self.add((number, start, type(record), record.prefix, record.time, rule))
        else:
            self.add((number, start, record))


class Scan:
    """The matchers of one log."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self.matchers = tuple(matchers)
        self._briefly = [Briefly(each) for each in matchers]
        self._screen: Screen | None = None
        self._ways: dict[int, tuple[_Way, ...]] = {}  # by the screen's bits
        self._tried: dict[int, int] = {}
        self._minutes: dict[bytes, float] = {}  # by what stands left of the seconds, and right of them
        self._seconds: dict[bytes, float] = {}  # by `Nov 24 20:13:28 m`
        self._since, self._until = float("-inf"), float("inf")  # of `now`, where they hold
        self._dates = next((each.timestamps for each in matchers if each.timestamps.common), None)

    def briefs(self, chunk: Chunk, now: float) -> list[Brief]:
        """now: completes dates without a year, and is the time of lines without a date."""
        out: list[Brief] = []
        self._look(chunk, now, _Told(out.append, briefly=True))
        return out

    def records(self, chunk: Chunk, now: float) -> list[Recorded]:
        """The same as records."""
        out: list[Recorded] = []
        self._look(chunk, now, _Told(out.append, briefly=False))
        return out

    def _look(self, chunk: Chunk, now: float, told: _Told) -> None:
        data = chunk.data
        if not chunk.valid:
            self._each_line(chunk, now, told)
            return
        screen = self._screen_for(data)
        if not self._since <= now < self._until:
            self._minutes.clear()
            self._seconds.clear()
            self._since, self._until = float("-inf"), float("inf")
        common = data.isascii() and not any(sign in data for sign in _SIGNS)
        seconds, ways, watch, latest, (add, briefly) = self._seconds, self._ways, WATCH, now + DAY, told
        # The first line may lack its end; what its length would say is not known.
        first = data.find(b"\n") + 1 if chunk.cut else 0
        for start, end, bits, sure in screen.found(data):
            at, time = start + 15, seconds.get(data[start : start + 17])
            if time is None:
                at, time = self._date(data, start, end, now)
            if (
                time is None
                or time > latest
                or (not common and _UNCOMMON.search(data, start, end))
                or end - start > LINE_LIMIT
                or start < first
            ):
                for number, rules, _ in screen.wanted(bits):
                    self._singly(self.matchers[number], number, rules, chunk, start, end, now, told)
                continue
            if not sure:
                continue
            for number, matcher, rules, match, meant, sessions in ways.get(sure) or self._way(screen, sure):
                if (
                    sessions is not None
                    and not sessions.untold
                    # Whatever F-MLFID takes begins the line: what no session's name begins with ends none.
                    and data[at : data.find(b": ", at, end) + 2].decode() not in sessions.begun
                ):
                    continue
                if match is None or matcher.hindered:
                    self._singly(matcher, number, rules, chunk, start, end, now, told)
                    continue
                try:
                    watch.search = watch.next()
                    found = match(data, at, end + 1)
                    watch.search = 0
                except Overrun:
                    self._singly(matcher, number, rules, chunk, start, end, now, told)
                    continue
                if found is None:
                    continue
                rule, groups, brief, its_shape = meant[found.lastindex]
                if briefly and brief and brief(its_shape, found, data, at, end, time, (number, start), add):
                    continue
                named = {name: text.decode() for name, group in groups.items() if (text := found[group]) is not None}
                matched = Match(matcher.filter.rules[rule], completed(named), time, data[at:end].decode(), time)
                record = matcher.meaning(chunk.line(start, end), matched)
                if record is not None:
                    told.record(number, start, record)

    def _screen_for(self, data: bytes) -> Screen:
        if self._screen is None or (not self._screen.sampled and len(data) >= SAMPLE):
            self._screen = Screen([each.filter for each in self.matchers], data)
            self._ways.clear()
        return self._screen

    def _date(self, data: bytes, start: int, end: int, now: float) -> tuple[int, float | None]:
        """Where the date ends with which the line begins, and the time; None where it is not one of those told apart
        by their first letters alone."""
        minutes, seconds = self._minutes, self._seconds
        for known in (False, True):
            # Nov 24 20:13:28 m
            at = start + 15
            minute, second = minutes.get(data[start : start + 13]), SECONDS.get(data[start + 13 : at])
            if minute is not None and second is not None and data[at] == _SPACE and data[at + 1] > _COLON:
                if len(seconds) >= _CACHED:
                    seconds.clear()
                time = seconds[data[start : start + 17]] = minute + second
                return at, time
            # 2026-11-24T20:13:28.123456+00:00 m
            at = start + 32
            minute = minutes.get(data[start : start + 17] + data[start + 26 : at])
            second = SECONDS.get(data[start + 17 : start + 19])
            if minute is not None and second is not None and at + 1 < end and data[at] == _SPACE:
                fraction = data[start + 19 : start + 26]
                if fraction[0] == _DOT and fraction[1:].isdigit() and data[at + 1] > _COLON:
                    return at, minute + float(data[start + 17 : start + 26])
            if known or not self._learnt(data, start, end, now):
                break
        return start, None

    def _learnt(self, data: bytes, start: int, end: int, now: float) -> bool:
        """Notes the minute of a date, if it is one that is told by its first letters."""
        found = (
            self._dates.minute(data[start : min(end, start + 64)].decode(errors="replace"), now)
            if self._dates
            else None
        )
        if found is None:
            return False
        (minute, since, until), length = found
        if length == 15:
            key = data[start : start + 13]
        elif length == 32:
            key = data[start : start + 17] + data[start + 26 : start + 32]
        else:
            return False
        if len(self._minutes) >= _CACHED:
            self._minutes.clear()
        self._minutes[key] = minute
        self._since, self._until = max(self._since, since), min(self._until, until)
        return True

    def _way(self, screen: Screen, bits: int) -> tuple[_Way, ...]:
        """How the rules of these bits are tried; they are made one expression where that has been wanted often."""
        self._tried[bits] = tried = self._tried.get(bits, 0) + 1
        wanted = [(number, self.matchers[number], rules) for number, rules, _ in screen.wanted(bits)]
        if tried <= OFTEN:
            return tuple(_Way(*each, None, {}) for each in wanted)
        if len(self._ways) >= _CACHED:
            self._ways.clear()
        way = self._ways[bits] = tuple(_way(*each, self._briefly[each[0]]) for each in wanted)
        return way

    def _singly(
        self,
        matcher: Matcher,
        number: int,
        rules: tuple[int, ...],
        chunk: Chunk,
        start: int,
        end: int,
        now: float,
        told: _Told,
    ) -> None:
        """The matcher's own way."""
        line = chunk.line(start, end)
        matched = matcher.search(line.text, line.truncated, now, rules)
        record = None if matched is None else matcher.meaning(line, matched)
        if record is not None:
            told.record(number, start, record)

    def _each_line(self, chunk: Chunk, now: float, told: _Told) -> None:
        """What a line's text will be is not what its bytes are."""
        start = 0
        while (end := chunk.data.find(b"\n", start)) >= 0:
            line = chunk.line(start, end)
            for number, matcher in enumerate(self.matchers):
                if (record := matcher.match(line, now)) is not None:
                    told.record(number, start, record)
            start = end + 1


def _way(number: int, matcher: Matcher, rules: tuple[int, ...], briefly: Briefly) -> _Way:
    filter = matcher.filter
    tried = [filter.rules[rule] for rule in rules]
    prefix = filter.prefix.pattern if filter.prefix is not None else None
    whole = None
    if filter.maxlines == 1 and not filter.ignore and matcher.timestamps.common:
        whole = together(prefix, [rule.pattern for rule in tried])
    if whole is None:
        return _Way(number, matcher, rules, None, {})
    meant: dict[int | None, _Meant] = {}
    merges = not matcher.remembered.strict
    for last, (which, groups) in whole.rules.items():
        told = shape(tried[which].number, groups, whole.always[which], merges=merges)
        way = None if told is None else briefly.merged if told.session else briefly.plain
        meant[last] = _Meant(rules[which], groups, way, told)
    begins = prefix is not None and prefix.pattern.startswith("^(?P<mlfid>")
    only_ends = begins and all(each.shape is not None and each.shape.only_ends for each in meant.values())
    sessions = matcher.remembered.sessions if only_ends else None
    return _Way(number, matcher, rules, whole.pattern.match, meant, sessions)
