"""Which lines of a chunk any of a log's filters could match.

Takes the filters that read a log, and chunks of it; gives, in order, each line that holds a text some rule needs
(literals.py) and which rules these are, as bits.  The other lines are passed over without being looked at: all texts
of all filters are searched in one go by Aho-Corasick automata (of at most 64 texts: they fit vector instructions).
Which of a rule's texts is searched for is chosen by how rare it is in the first chunk; that changes speed only.
Guarantees: a line that is not given is matched by no rule of any of the filters.  A filter that wants every line
(several lines at a time, a rule without a text) gets every line.
Does not: match anything, decode anything.  Chunks must be UTF-8, as sources/file.py decodes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import ahocorasick_rs

from nftban.detect import literals
from nftban.detect.datepattern import defaults
from nftban.detect.filterfile import Filter
from nftban.detect.literals import Survivors, Texts

SAMPLE = 64 * 1024
_AUTOMATON = 64
_PER_HIT = 1000.0  # what a text costs that is in every line, beside what it costs to be searched for at all

Rules = tuple[int, ...]


class Wanted(NamedTuple):
    """Who may want a line: the number of a filter, and those of its rules (from 0) that can match; texts: for each of
    the rules, one of these is in the line too if no date was cut out of its middle (empty: nothing is known)."""

    filter: int
    rules: Rules
    texts: tuple[Texts, ...]


class Line(NamedTuple):
    """data[start:end] is the line without its newline; bits: see Screen.wanted."""

    start: int
    end: int
    bits: int


@dataclass(frozen=True, slots=True)
class _Text:
    """bits: the rules that need it, or a text that is in it; hides: texts that may begin `offset` bytes into it and
    end behind it, and are then not found, with their bits."""

    bits: int
    hides: tuple[tuple[int, bytes, int], ...]


class Screen:
    """Over the filters of one log."""

    def __init__(self, filters: Sequence[Filter], sample: bytes = b"") -> None:
        """sample: some lines of the log, of which the first SAMPLE bytes are looked at."""
        self.sampled = len(sample) >= SAMPLE
        """Whether there was enough to choose by."""
        self._offsets: list[tuple[int, int]] = []  # of a filter's bits, and how many
        self._always = 0
        self._whole: list[Texts] = []  # by bit
        self._wanted: dict[int, tuple[Wanted, ...]] = {}
        needs = self._needs(filters, sample[:SAMPLE])
        known = sorted(needs)
        self._automata: list[tuple[ahocorasick_rs.BytesAhoCorasick, tuple[_Text, ...]]] = []
        for first in range(0, len(known), _AUTOMATON):
            group = known[first : first + _AUTOMATON]
            automaton = ahocorasick_rs.BytesAhoCorasick(group, matchkind=ahocorasick_rs.MatchKind.LeftmostLongest)
            self._automata.append((automaton, tuple(_text(each, group, needs) for each in group)))

    def lines(self, data: bytes) -> Iterator[Line]:
        """The lines that may matter, in order; data is whole lines, each with its newline."""
        return self._all(data) if self._always else self._found(data)

    def wanted(self, bits: int) -> tuple[Wanted, ...]:
        """For whom a line is."""
        wanted = self._wanted.get(bits)
        if wanted is None:
            if len(self._wanted) >= 4096:
                self._wanted.clear()
            wanted = self._wanted[bits] = tuple(
                Wanted(number, rules, tuple(self._whole[offset + rule] for rule in rules))
                for number, (offset, count) in enumerate(self._offsets)
                if (rules := tuple(rule for rule in range(count) if bits >> offset + rule & 1))
            )
        return wanted

    def _needs(self, filters: Sequence[Filter], sample: bytes) -> dict[bytes, int]:
        """Each text searched for, with the bits of the rules that need it."""
        cost = _costs(sample)
        needs: dict[bytes, int] = {}
        offset = 0
        for filter in filters:
            self._offsets.append((offset, len(filter.rules)))
            for bit, (texts, whole) in enumerate(_texts_of(filter, cost), offset):
                self._whole.append(tuple(sorted(whole or (), key=cost, reverse=True)))
                if texts is None:
                    self._always |= 1 << bit
                for text in texts or ():
                    needs[text.encode()] = needs.get(text.encode(), 0) | 1 << bit
            offset += len(filter.rules)
        return needs

    def _found(self, data: bytes) -> Iterator[Line]:
        find, rfind = data.find, data.rfind
        start, end, bits = 0, -1, 0
        for at, behind, text in self._hits(data):
            if at < end:
                bits |= text.bits
            else:
                if bits:
                    yield Line(start, end, bits)
                start = rfind(b"\n", max(end, 0), at) + 1 or max(end, 0)
                end = find(b"\n", behind)
                if end < 0:
                    end = len(data)
                bits = text.bits
            for offset, hidden, its_bits in text.hides:
                if data.startswith(hidden, at + offset):
                    bits |= its_bits
        if bits:
            yield Line(start, end, bits)

    def _hits(self, data: bytes) -> Iterable[tuple[int, int, _Text]]:
        if len(self._automata) == 1:
            automaton, texts = self._automata[0]
            return [(at, behind, texts[index]) for index, at, behind in automaton.find_matches_as_indexes(data)]
        hits = [
            (at, behind, texts[index])
            for automaton, texts in self._automata
            for index, at, behind in automaton.find_matches_as_indexes(data)
        ]
        hits.sort(key=itemgetter(0))
        return hits

    def _all(self, data: bytes) -> Iterator[Line]:
        """Every line, for the rules that want every line and those whose texts it holds."""
        at = 0
        for found in (*self._found(data), None):
            until = found.start if found else len(data)
            while at < until:
                end = data.find(b"\n", at)
                end = end if end >= 0 else len(data)
                yield Line(at, end, self._always)
                at = end + 1
            if found:
                yield Line(found.start, found.end, found.bits | self._always)
                at = found.end + 1


def _texts_of(filter: Filter, cost: literals.Cost) -> Iterator[tuple[Texts | None, Texts | None]]:
    """For each rule the texts of which a line that it matches holds one, None where it must see every line; and those
    for a line out of whose middle nothing was cut."""
    survivors = _survivors(filter)
    of_prefix = literals.requirements(filter.prefix.pattern) if filter.prefix else ()
    for rule in filter.rules:
        if filter.maxlines > 1:
            yield None, None
        else:
            required = (*literals.requirements(rule.pattern), *of_prefix)
            yield literals.chosen(required, cost, survivors), literals.chosen(required, cost)


def _survivors(filter: Filter) -> Survivors:
    """What a text is in the line, out of which a date was cut."""
    if all(date.kind == "none" for date in filter.dates) and filter.dates:
        return literals.whole
    # The known formats all end where a word ends.  Of an admin's own nothing is known.
    return literals.words if all(date in defaults() for date in filter.dates) else literals.halves


def _costs(sample: bytes) -> literals.Cost:
    """What it costs to search for a text: the more, the more often it is found, and the shorter it is."""
    lines = max(sample.count(b"\n"), 1)
    known: dict[str, float] = {}

    def cost(text: str) -> float:
        held = known.get(text)
        if held is None:
            found = sample.count(text.encode()) / lines
            held = known[text] = 1 + found * _PER_HIT + 8 / (len(text) - 1)
        return held

    return cost


def _text(text: bytes, group: Sequence[bytes], needs: dict[bytes, int]) -> _Text:
    bits = needs[text]
    hides = []
    for other in group:
        if other != text and other in text:
            bits |= needs[other]
        hides += [
            (offset, other, needs[other])
            for offset in range(1, len(text))
            if len(other) > len(text) - offset and other.startswith(text[offset:])
        ]
    return _Text(bits, tuple(hides))
