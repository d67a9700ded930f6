"""What a format gives, and how it is gathered.

A format takes an iterable of byte chunks (cut anywhere) and gives `Parsed`.
Guarantees of every format: it never raises, whatever the bytes; each line is an entry, a BadLine with its number and
the reason, or nothing; the last line counts with or without a newline; memory is that of the ranges, not of the text.
Does not: judge whether the list is to be believed (guards.py does), clear addresses that must stay reachable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from nftban.ranges import DTYPE, Keys, Ranges, Spans

LONGEST_LINE = 1 << 16
BLOCK = 1 << 18
SHOWN_BAD = 20
# Entries wider than these are kept one by one, so that a guard can name them; no guard asks about narrower ones.
WIDE = {4: 24, 6: 48}


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no entry of its format.  position: its number, from 1; why: in words."""

    position: int
    why: str


@dataclass(frozen=True)
class Parsed:
    """A list as it was written.

    ranges: every address on it, exclusions applied; count: its entries; wide: those wider than WIDE, as written;
    codes: by A record where the format has them, each with its addresses; bad: the first SHOWN_BAD of bad_count;
    says: the number of entries that its own metadata gives; made, expires: epoch seconds by its own word; about:
    copyright and terms by its own word; newline: does it end with one; cut: is its last line bad;
    markup: does it begin with "<", as web pages do.
    """

    ranges: Ranges
    count: int
    wide: Ranges = field(default_factory=Ranges)
    codes: Mapping[str, Ranges] = field(default_factory=dict)
    bad: tuple[BadLine, ...] = ()
    bad_count: int = 0
    says: int | None = None
    made: float | None = None
    expires: float | None = None
    about: str = ""
    newline: bool = True
    cut: bool = False
    markup: bool = False


class Lines:
    """Chunks cut into blocks of whole lines, each with the number of its first line; every block ends in a newline."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._begins = True
        self.newline = True
        self.markup = False
        self.count = 0
        self.overlong: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        skipping, rest = False, b""
        for chunk in self._pieces():
            rest += chunk
            end = rest.rfind(b"\n") + 1
            if end and skipping:
                start = rest.find(b"\n") + 1
                rest, end, skipping = rest[start:], end - start, False
                self.count += 1
            if end:
                block, rest = self._begun(rest[:end]), rest[end:]
                yield self.count + 1, block
                self.count += block.count(b"\n")
            if len(rest) > LONGEST_LINE:
                if not skipping:
                    self._begun(rest)
                    self.overlong.append(self.count + 1)
                rest, skipping = b"", True
        self.newline = not rest and not skipping
        if rest and not skipping:
            yield self.count + 1, self._begun(rest) + b"\n"
        self.count += not self.newline

    def _begun(self, text: bytes) -> bytes:
        """Looks at the beginning of the whole, where it is."""
        if self._begins:
            if not self.count:
                text = text.removeprefix(b"\xef\xbb\xbf")
            self.markup = text.lstrip()[:1] == b"<"
            self._begins = not text.strip()
        return text

    def _pieces(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            for start in range(0, len(chunk), BLOCK):
                yield chunk[start : start + BLOCK]


class Tally:
    """Gathers what the lines of a list say, in blocks; `parsed` ends it."""

    def __init__(self) -> None:
        self.count = 0
        self.bad_lines: list[BadLine] = []
        self.bad_count = 0
        self.last_bad = 0
        self.spans: dict[int, list[Spans]] = {4: [], 6: []}
        self._wide: dict[int, list[Spans]] = {4: [], 6: []}

    def bad(self, position: int, why: str) -> None:
        self.bad_count += 1
        self.last_bad = max(self.last_bad, position)
        if len(self.bad_lines) < SHOWN_BAD:
            self.bad_lines.append(BadLine(position, why))

    def add(self, family: int, first: Keys, last: Keys) -> None:
        """Entries, one range each."""
        self.keep(family, Spans(first, last))
        self.spans[family].append(Spans(first, last))

    def keep(self, family: int, entries: Spans) -> None:
        """Counts them and remembers the wide ones."""
        self.count += len(entries)
        wide = _is_wide(family, entries)
        if wide.any():
            self._wide[family].append(entries[wide])

    def ranges(self) -> Ranges:
        return Ranges.merged(*(_joined(family, self.spans[family]) for family in (4, 6)))

    def parsed(self, lines: Lines, ranges: Ranges, codes: Mapping[str, Ranges] | None = None, **more: object) -> Parsed:
        """more: the fields of Parsed that the format knows besides."""
        for position in lines.overlong:
            self.bad(position, f"the line is longer than {LONGEST_LINE} bytes")
        return Parsed(
            ranges,
            self.count,
            Ranges(*(_joined(family, self._wide[family]) for family in (4, 6))),
            codes or {},
            tuple(sorted(self.bad_lines, key=lambda b: b.position)),
            self.bad_count,
            newline=lines.newline,
            cut=self.last_bad == lines.count and lines.count > 0,
            markup=lines.markup,
            **more,  # type: ignore[arg-type]  # each format gives them their type
        )


def _joined(family: int, spans: list[Spans]) -> Spans:
    joined = Spans.joined([Spans(np.empty(0, DTYPE[family]), np.empty(0, DTYPE[family])), *spans])
    spans.clear()
    return joined


def _is_wide(family: int, entries: Spans) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if family == 4:
        wide: np.ndarray[tuple[int], np.dtype[np.bool_]] = entries.last - entries.first >= 1 << (32 - WIDE[4])
        return wide
    # 48 bits are the first three 16-bit words: a wide entry has others at its end than at its beginning.
    words = [
        np.ascontiguousarray(a).view(np.uint8).reshape(-1, 16)[:, : WIDE[6] // 8] for a in (entries.first, entries.last)
    ]
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (words[0] != words[1]).any(axis=1)
    return found
