"""Whole lines out of bytes as they are read.

Takes pieces of a log as they come; gives Chunks of whole lines, and of each line, when it is wanted, the LogLine with
its Cursor.  Most lines never are: a screen finds those that matter in the chunk's bytes.
A line over LINE_LIMIT is cut and counted, NULs at its front (holes that copytruncate leaves) are dropped, a carriage
return at its end too, bytes that are not UTF-8 become \\xNN.
Guarantees: never more than LINE_LIMIT bytes of a line that has no end yet are kept.
Does not: read anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from nftban.records import Cursor, LogLine

LINE_LIMIT = 64 * 1024
FINGERPRINT = 256


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file a chunk begins.  head: the file's first bytes as far as lines of them were given, at most
    FINGERPRINT, and their fingerprint."""

    offset: int
    inode: int
    head: bytes
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines as they came one after the other.

    data: their bytes, each with its newline; valid: they are UTF-8, so that a line's text is nothing but its bytes;
    place: None where it is not from a file; cut: bytes of the first line that are not in `data`; ends_open: the last
    line had no newline, its file came to an end.
    """

    source: str
    data: bytes
    valid: bool
    place: Place | None = None
    cut: int = 0
    ends_open: bool = False

    @property
    def lines(self) -> int:
        """How many."""
        return self.data.count(b"\n")

    @property
    def oversized(self) -> int:
        """How many of them are cut short."""
        if not self.cut and not _may_be_long(self.data):
            return 0
        return sum(end - start > LINE_LIMIT or (start == 0 and self.cut > 0) for start, end in self.spans())

    @property
    def undecodable(self) -> int:
        """How many of them are not UTF-8."""
        return 0 if self.valid else sum(not is_utf8(self.data[start:end]) for start, end in self.spans())

    def text(self, start: int, end: int) -> tuple[str, int]:
        """The text of the line data[start:end], which is given without its newline, and how many bytes it lacks."""
        cut = max(0, end - start - LINE_LIMIT) + (0 if start else self.cut)
        data = self.data[start : min(end, start + LINE_LIMIT)].lstrip(b"\0").removesuffix(b"\r")
        return data.decode(errors="backslashreplace"), cut

    def plain(self, start: int, end: int) -> str | None:
        """The text with its newline, if it is nothing but the line's bytes."""
        text = self.data[start : end + 1].decode()
        return None if text[0] == "\0" or text[-2:-1] == "\r" or end - start > LINE_LIMIT or self.cut else text

    def line(self, start: int, end: int) -> LogLine:
        """The same line as a record."""
        text, cut = self.text(start, end)
        return LogLine(self.source, text, self.cursor(end), cut)

    def cursor(self, end: int) -> Cursor | None:
        """Behind the line that ends there."""
        place = self.place
        if place is None:
            return None
        offset = place.offset + end + self.cut + (not (self.ends_open and end + 1 == len(self.data)))
        whole = offset >= len(place.head)
        return Cursor(place.inode, offset, place.fingerprint if whole else fingerprint(place.head[:offset]))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each line begins and ends."""
        start = 0
        while (end := self.data.find(b"\n", start)) >= 0:
            yield start, end
            start = end + 1

    def __iter__(self) -> Iterator[LogLine]:
        return (self.line(start, end) for start, end in self.spans())


class Begun:
    """A line that has no newline yet: its first LINE_LIMIT bytes, and how many more there were."""

    __slots__ = ("cut", "rest")

    def __init__(self) -> None:
        self.rest = b""
        self.cut = 0

    @property
    def size(self) -> int:
        return len(self.rest) + self.cut

    def lines(self, data: bytes) -> tuple[bytes, int]:
        """What is whole with these bytes, which may be nothing, and how many bytes its first line lacks."""
        end = data.rfind(b"\n") + 1
        whole, cut = b"", 0
        if end:
            first = data.find(b"\n")
            over = max(0, len(self.rest) + first - LINE_LIMIT) if self.rest else 0
            whole = self.rest + data[: first - over] + data[first:end] if over else self.rest + data[:end]
            cut = self.cut + over
            self.rest, self.cut = b"", 0
        part = data[end:]
        room = LINE_LIMIT - len(self.rest)
        self.cut += max(0, len(part) - room)
        self.rest += part[:room]
        return whole, cut


def fingerprint(head: bytes) -> str:
    """Of a file's first bytes, hex."""
    return blake2b(head, digest_size=8).hexdigest()


def is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_be_long(data: bytes) -> bool:
    """May a line be longer than LINE_LIMIT?  It would fill one of the halves looked at."""
    half = LINE_LIMIT // 2
    return any(data.find(b"\n", at, at + half) < 0 for at in range(0, len(data), half))
