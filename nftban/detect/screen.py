"""Which lines of a chunk any of a log's filters could match.

Takes the filters that read a log, and chunks of it; gives, in order, each line that holds a text some rule needs
(literals.py) and which rules these are, as bits.  The other lines are passed over without being looked at: all texts
of all filters are searched in one go by Aho-Corasick automata (of at most 64 texts: they fit vector instructions).
Which of a rule's texts is searched for is chosen by how rare it is in the first chunk; that changes speed only.
Of a text only a word is searched for, because a date may have been cut out of the line within it; `found` also says
which rules the line could be for if its date is at its beginning, where it tears no text.
Guarantees: a line that is not given is matched by no rule of any of the filters.  A filter that wants every line
(several lines at a time, a rule without a text) gets every line.
Does not: match anything, decode anything.  Chunks must be UTF-8, as sources/file.py decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import ahocorasick_rs

from nftban.detect import literals
from nftban.detect.datepattern import defaults
from nftban.detect.filterfile import Filter
from nftban.detect.literals import Survivors, Texts

SAMPLE = 64 * 1024
_AUTOMATON = 64
_LOOKED_AT = 4  # stretches around a text
_PER_HIT = 1000.0  # what a text costs that is in every line, beside what it costs to be searched for at all

Rules = tuple[int, ...]
_Needs = dict[bytes, dict[bytes, int]]


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


Place = tuple[int, int, int, int]
"""A Line, and its bits if the date in it is at its beginning, of which there may be none."""


class _Text(NamedTuple):
    """bits: the rules that need it, or a text that is in it; sure: those of them for which it is all that is needed;
    wholes: for the others, how many bytes before it one of these begins; hides: texts that may begin `offset` bytes
    into it and end behind it, and are then not found, with their bits."""

    bits: int
    sure: int
    wholes: tuple[tuple[int, tuple[bytes, ...], int], ...]
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
        self._automata: list[ahocorasick_rs.BytesAhoCorasick] = []
        self._texts: list[_Text] = []  # of all of them, one after the other
        for first in range(0, len(known), _AUTOMATON):
            group = known[first : first + _AUTOMATON]
            kind = ahocorasick_rs.MatchKind.LeftmostLongest
            self._automata.append(ahocorasick_rs.BytesAhoCorasick(group, matchkind=kind))
            self._texts += [_text(each, group, needs) for each in group]

    def lines(self, data: bytes) -> Iterator[Line]:
        """The lines that may matter, in order; data is whole lines, each with its newline."""
        return (Line(start, end, bits) for start, end, bits, _ in self.found(data))

    def found(self, data: bytes) -> list[Place]:
        """The same, with what their bits are where the date is at the line's beginning."""
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

    def _needs(self, filters: Sequence[Filter], sample: bytes) -> _Needs:
        """Each text searched for, with the bits of the rules that need it, by the whole text that is meant."""
        cost = _costs(sample)
        needs: _Needs = {}
        offset = 0
        for filter in filters:
            self._offsets.append((offset, len(filter.rules)))
            for bit, (texts, whole) in enumerate(_texts_of(filter, cost), offset):
                self._whole.append(tuple(sorted(whole or (), key=cost, reverse=True)))
                if texts is None:
                    self._always |= 1 << bit
                for text, meant in (texts or {}).items():
                    wholes = needs.setdefault(text.encode(), {})
                    for each in meant:
                        wholes[each.encode()] = wholes.get(each.encode(), 0) | 1 << bit
            offset += len(filter.rules)
        return needs

    def _found(self, data: bytes) -> list[Place]:
        out: list[Place] = []
        find, rfind, startswith, add, texts = data.find, data.rfind, data.startswith, out.append, self._texts
        start, end, bits, sure = 0, -1, 0, 0
        for index, at, behind in self._hits(data):
            its_bits, its_sure, its_wholes, hides = texts[index]
            if at >= end:
                if bits:
                    add((start, end, bits, sure))
                start = rfind(b"\n", end if end > 0 else 0, at) + 1 or (end if end > 0 else 0)
                end = find(b"\n", behind)
                if end < 0:
                    end = len(data)
                bits, sure = its_bits, its_sure
            else:
                bits |= its_bits
                sure |= its_sure
            for before, wholes, of_wholes in its_wholes:
                if at >= before and startswith(wholes, at - before):
                    sure |= of_wholes
            for offset, hidden, of_hidden in hides:
                if startswith(hidden, at + offset):
                    bits |= of_hidden
                    sure |= of_hidden
        if bits:
            add((start, end, bits, sure))
        return out

    def _hits(self, data: bytes) -> list[tuple[int, int, int]]:
        """What is found where, by number, in order."""
        hits: list[tuple[int, int, int]] = []
        for number, automaton in enumerate(self._automata):
            found = automaton.find_matches_as_indexes(data)
            hits = [*hits, *((index + number * _AUTOMATON, at, end) for index, at, end in found)] if number else found
        if len(self._automata) > 1:
            hits.sort(key=itemgetter(1))
        return hits

    def _all(self, data: bytes) -> list[Place]:
        """Every line, for the rules that want every line and those whose texts it holds."""
        at, always = 0, self._always
        out: list[Place] = []
        for start, last, bits, sure in (*self._found(data), (len(data), 0, 0, 0)):
            while at < start:
                end = data.find(b"\n", at)
                end = end if end >= 0 else len(data)
                out.append((at, end, always, always))
                at = end + 1
            if bits:
                out.append((start, last, bits | always, sure | always))
                at = last + 1
        return out


def _texts_of(filter: Filter, cost: literals.Cost) -> Iterator[tuple[dict[str, frozenset[str]] | None, Texts | None]]:
    """For each rule the texts of which a line that it matches holds one, None where it must see every line; and those
    for a line out of whose middle nothing was cut."""
    survivors = _survivors(filter)
    of_prefix = literals.requirements(filter.prefix.pattern) if filter.prefix else ()
    for rule in filter.rules:
        if filter.maxlines > 1:
            yield None, None
        else:
            required = (*literals.requirements(rule.pattern), *of_prefix)
            yield literals.chosen(required, cost, survivors), tuple(literals.chosen(required, cost) or ())


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


def _text(text: bytes, group: Sequence[bytes], needs: _Needs) -> _Text:
    sure, bits = 0, _bits(needs[text])
    hides = []
    for other in group:
        if other != text and other in text:
            sure |= _bits(needs[other])
        hides += [
            (offset, other, _bits(needs[other]))
            for offset in range(1, len(text))
            if len(other) > len(text) - offset and other.startswith(text[offset:])
        ]
    wholes: dict[tuple[int, int], list[bytes]] = {}
    for each, its_bits in needs[text].items():
        places = [at for at in range(len(each)) if each.startswith(text, at)]
        if len(each) == len(text) or len(places) != 1:
            sure |= its_bits
        else:
            wholes.setdefault((places[0], its_bits), []).append(each)
    if len(wholes) > _LOOKED_AT:
        sure |= bits
    looked_at = () if len(wholes) > _LOOKED_AT else tuple((at, tuple(each), b) for (at, b), each in wholes.items())
    return _Text(bits | sure, sure, looked_at, tuple(hides))


def _bits(wholes: dict[bytes, int]) -> int:
    bits = 0
    for each in wholes.values():
        bits |= each
    return bits
