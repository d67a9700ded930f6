"""Which lines of a chunk the filters match: the part of a replay that needs no order, and so may use all cores.

Takes chunks of a log and the filters that read it; gives, for each chunk, what the screen and the matchers of the
daemon find: rule, groups and time of each line that matches, small enough to go from one process to another.
`found` turns that into Offence, Login or Logged, which depends on the lines before (sessions, repeated passwords) and
so has to be called in the log's order, with one set of matchers a log.
Guarantees: the same as the daemon's own reading, but for two things: a line without a date is of the time of the last
line before it that matched, and a rule that takes too long is suspended in one process only.  Filters that look at
several lines at once (maxlines) must see all chunks in order, in one Search.
Does not: read files, count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Match, Matcher
from nftban.detect.meaning import Result
from nftban.detect.screen import SAMPLE, Screen
from nftban.records import LogLine
from nftban.sources.chunks import Chunk

Hit = tuple[int, int, dict[str, str], float, str | int, str, int]
"""A line that matches: number of the filter, of its rule from 0, groups, time, what is left without the date (or how
many characters at the line's end that is), the line, bytes cut off."""


class Searched(NamedTuple):
    """What is in a chunk; now: the time by which its dates were completed; lines: how many there were."""

    hits: list[Hit]
    lines: int
    now: float


class Search:
    """The filters of one log, in one process."""

    def __init__(self, filters: Sequence[Filter], hide: Callable[[str], str] = str) -> None:
        """hide: takes account keys out of a line before anything keeps it."""
        self._filters = tuple(filters)
        self._matchers = [Matcher(each) for each in filters]
        self._hide = hide
        self._screen: Screen | None = None

    def chunk(self, chunk: Chunk, now: float) -> Searched:
        """now: by which dates without a year are completed."""
        return Searched(list(self._hits(chunk, now)), chunk.lines, now)

    def _hits(self, chunk: Chunk, now: float) -> Iterator[Hit]:
        if not chunk.valid:
            for start, end in chunk.spans():
                for number in range(len(self._matchers)):
                    yield from self._whole(number, *chunk.text(start, end), now, None)
            return
        data = chunk.data
        if self._screen is None or (not self._screen.sampled and len(data) >= SAMPLE):
            self._screen = Screen(self._filters, data)
        wanted = self._screen.wanted
        whole = data.decode()
        clean = self._hide(whole) == whole  # then it has nothing to hide in any of its lines
        for start, end, bits in self._screen.lines(data):
            plain = chunk.plain(start, end)
            for number, rules, texts in wanted(bits):
                if plain is None or not clean:
                    yield from self._whole(number, *chunk.text(start, end), now, rules)
                elif (match := self._matchers[number].look(plain, now, rules, texts)) is not None:
                    yield _hit(number, match, plain[:-1], 0)

    def _whole(self, number: int, text: str, cut: int, now: float, rules: tuple[int, ...] | None) -> Iterator[Hit]:
        hidden = self._hide(text)
        match = self._matchers[number].search(hidden, cut, now, rules if hidden == text else None)
        if match is not None:
            yield _hit(number, match, hidden, cut)


def _hit(number: int, match: Match, text: str, cut: int) -> Hit:
    rest: str | int = len(match.rest) if text.endswith(match.rest) else match.rest
    return number, match.rule.number - 1, match.groups, match.time, rest, text, cut


class Found(NamedTuple):
    """What a line is; number: of the filter whose line it is."""

    number: int
    time: float
    result: Result


class Meanings:
    """The matchers of one log, in the log's order."""

    def __init__(self, source: str, filters: Sequence[Filter]) -> None:
        self._source = source
        self._rules = [each.rules for each in filters]
        self._matchers = [Matcher(each) for each in filters]
        self._last = 0.0

    def found(self, searched: Searched) -> Iterator[Found]:
        """What the lines of the next chunk are, in order."""
        for number, rule, groups, time, rest, text, cut in searched.hits:
            if time == searched.now:  # no date of its own
                time = self._last or time
            self._last = time
            left = rest if isinstance(rest, str) else text[len(text) - rest :]
            line = LogLine(self._source, text, None, cut)
            match = Match(self._rules[number][rule], groups, time, left)
            if (result := self._matchers[number].meaning(line, match)) is not None:
                yield Found(number, time, result)
