"""Lines put together out of another form (journal entries, Docker's JSON), as a chunk of their own.

Takes each line's bytes with the cursor behind it and how many bytes it lacks; gives a Chunk that the same screen and
the same reader take as one from a plain file.
Guarantees: one line in, one line out (a newline inside has to be written otherwise before); nothing here is over
LINE_LIMIT; the cursor of line n is the one given with it.  Does not: read or decode anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nftban.records import Cursor
from nftban.sources.chunks import LINE_LIMIT, Chunk, is_utf8


@dataclass(frozen=True, slots=True)
class Composed(Chunk):
    """ends: where each line ends, ascending; cursors: behind each; lacking: where a line ends -> bytes it lacks."""

    ends: tuple[int, ...] = ()
    cursors: tuple[Cursor | None, ...] = ()
    lacking: Mapping[int, int] = field(default_factory=dict)

    @property
    def oversized(self) -> int:
        """How many lines are cut short."""
        return len(self.lacking)

    def text(self, start: int, end: int) -> tuple[str, int]:
        """The text of a line, and how many bytes it lacks."""
        return Chunk.text(self, start, end)[0], self.lacking.get(end, 0)

    def cursor(self, end: int) -> Cursor | None:
        """Behind the line that ends there."""
        return self.cursors[bisect_left(self.ends, end)]


def composed(source: str, lines: Iterable[tuple[bytes, Cursor | None, int]]) -> Composed:
    """A chunk of these lines: bytes without a newline, the cursor behind them, and how many bytes they lack."""
    data, ends, cursors, lacking = bytearray(), [], [], {}
    for text, cursor, short in lines:
        over = max(0, len(text) - LINE_LIMIT)
        data += text[:LINE_LIMIT]
        if short + over:
            lacking[len(data)] = short + over
        ends.append(len(data))
        cursors.append(cursor)
        data += b"\n"
    whole = bytes(data)
    return Composed(source, whole, is_utf8(whole), ends=tuple(ends), cursors=tuple(cursors), lacking=lacking)
