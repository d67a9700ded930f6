"""Log lines from a growing file.

Takes a path and where to begin; gives Chunk after Chunk of whole lines, or LogLine after LogLine, each with the Cursor
behind it, for as long as it is asked.  Woken by inotify; looks every second only where the kernel refuses a watch.
Follows the path, not the inode: renamed and made anew (the old file is read to its end first and until the new one
has a line), truncated in place (read anew from 0), removed, not yet there (the nearest directory that exists is
watched), forbidden and later allowed.  A last line without its newline waits for it.
A line over 64 KiB is cut and counted, NULs at its front (holes that copytruncate leaves) are dropped, bytes that are
not UTF-8 become \\xNN.
Guarantees: never more than two chunks and one line in memory; yields to the event loop after each chunk; no line is
given twice after a cursor.  Does not: see a truncation and regrowth past the old offset between two looks unless the
file's first 256 bytes changed; write or lock anything.
"""

from __future__ import annotations

import asyncio
import glob
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from nftban.records import Cursor, LogLine
from nftban.sources import inotify
from nftban.sources.chunks import FINGERPRINT, LINE_LIMIT, Begun, Chunk, Place, fingerprint, is_utf8
from nftban.sources.inotify import Inotify

CHUNK = 256 * 1024
POLL_SECONDS = 1.0

_ON_FILE = inotify.MODIFY | inotify.ATTRIB | inotify.MOVE_SELF | inotify.DELETE_SELF
_ON_DIRECTORY = (
    inotify.CREATE
    | inotify.MOVED_TO
    | inotify.MOVED_FROM
    | inotify.DELETE
    | inotify.ATTRIB
    | inotify.DELETE_SELF
    | inotify.MOVE_SELF
    | inotify.ONLYDIR
)


@dataclass(slots=True)
class Status:
    """What there is to say of a source.

    last: when its last line was read (epoch seconds); error: in words, empty where all is well.
    """

    path: str
    exists: bool = False
    last: float | None = None
    lines: int = 0
    bytes: int = 0
    oversized: int = 0
    undecodable: int = 0
    error: str = ""


class _Open:
    """One open file: the bytes after the last whole line, and where that line ended."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)
        self.offset = 0  # behind the last line given
        self.begun = Begun()
        self.head = b""  # the beginning, as far as lines of it were given and at most FINGERPRINT
        self.fingerprint = fingerprint(b"")

    @property
    def position(self) -> int:
        """Where to read next."""
        return self.offset + self.begun.size

    def seek(self, offset: int) -> None:
        self.begun = Begun()
        self._reach(offset)

    def changed(self) -> bool:
        """Is this no longer the file whose lines were read?  Shorter, or its beginning is another."""
        if os.fstat(self.fd).st_size < self.position:
            return True
        return os.pread(self.fd, len(self.head), 0) != self.head

    def given(self, size: int) -> None:
        """So many bytes more were given as lines."""
        if len(self.head) < FINGERPRINT:
            self._reach(self.offset + size)
        else:
            self.offset += size

    def _reach(self, offset: int) -> None:
        self.offset = offset
        self.head = os.pread(self.fd, min(offset, FINGERPRINT), 0)
        self.fingerprint = fingerprint(self.head)


class FileSource:
    """One log file.  `chunks()` or `lines()` is for one reader."""

    def __init__(
        self,
        path: Path,
        *,
        cursor: Cursor | None = None,
        from_beginning: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """cursor: go on there if the file is still that file, else read it from its beginning.

        Without a cursor the lines that are there already are passed over, unless `from_beginning`; a file that
        appears later is always read from its beginning.
        """
        self.path = path
        self.status = Status(str(path))
        self.begun = asyncio.Event()
        """Set once it is decided where reading begins: what is written from then on is a new line."""
        self.start: Cursor | None = None
        """Where reading begins: behind what was passed over, or before all that a file not yet there will have."""
        self._clock = clock
        self._cursor = cursor
        self._looked = from_beginning
        self._passed: tuple[tuple[int, int], int] | None = None  # the file found at first, and its size then
        self._file: _Open | None = None
        self._old: list[_Open] = []  # renamed or removed, and perhaps still written to; oldest first
        self._inotify: Inotify | None = None
        self._watched: set[int] = set()
        self._changed = asyncio.Event()
        self._moved = True  # more than growth may have happened
        self._trouble = ""
        self._blind = False  # inotify does not cover everything: look by the clock too

    def is_behind(self) -> bool:
        """Was something written to the file that has not been read yet?"""
        return self._file is not None and os.fstat(self._file.fd).st_size > self._file.position

    async def lines(self) -> AsyncGenerator[LogLine, None]:
        """The lines, without end; closing the iterator (or cancelling its reader) closes the files."""
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                for line in chunk:
                    yield line

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The same, as they are read."""
        loop = asyncio.get_running_loop()
        try:
            try:
                self._inotify = Inotify()
                loop.add_reader(self._inotify.fd, self._woken)
            except OSError as error:
                self._blind = True
                self._trouble = f"no inotify, looking every second instead: {error.strerror}"
            while True:
                self._changed.clear()
                if self._moved or self._blind:
                    self._moved = False
                    watches = self._watch()
                    self._follow()
                    self._unwatch_all_but(watches)
                    self.start = self.start or self._cursor or Cursor(0, 0, fingerprint(b""))
                    self.begun.set()
                while (chunks := self._next()) is not None:
                    for chunk in chunks:
                        yield chunk
                    await asyncio.sleep(0)
                await self._wait()
        finally:
            if self._inotify is not None:
                loop.remove_reader(self._inotify.fd)
                self._inotify.close()
                self._inotify = None
            for opened in (*self._old, self._file):
                if opened is not None:
                    os.close(opened.fd)
            self._old, self._file = [], None

    async def _wait(self) -> None:
        if self._moved:
            await asyncio.sleep(0)
            return
        if not self._blind:
            await self._changed.wait()
            return
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            self._moved = True

    def _woken(self) -> None:
        assert self._inotify is not None  # noqa: S101 - the reader is removed before it is closed
        for event in self._inotify.events():
            if event.mask & ~inotify.MODIFY:
                self._moved = True
        self._changed.set()

    def _watch(self) -> set[int]:
        """Sets the watches anew, before anything is looked at, so that no change falls between."""
        wanted: set[int] = set()
        if self._inotify is None:
            return wanted
        self._blind = False
        directories = {_nearest(self.path.parent), _nearest(_target(self.path).parent)}
        for path, mask in [(self.path, _ON_FILE), *((each, _ON_DIRECTORY) for each in directories)]:
            try:
                wanted.add(self._inotify.watch(path, mask))
            except (FileNotFoundError, NotADirectoryError):
                # A file not there yet shows in its directory; a directory just gone, in the next look.
                self._moved = self._moved or path != self.path
            except PermissionError:
                # For a file its directory tells when that changes; for a directory nothing does.
                self._blind = self._blind or path != self.path
            except OSError:
                self._blind = True
        self._watched |= wanted
        return wanted

    def _unwatch_all_but(self, wanted: set[int]) -> None:
        """Ends what is watched no longer; while an old file may still grow, all stays."""
        if self._inotify is not None and not self._old:
            for watch in self._watched - wanted:
                self._inotify.unwatch(watch)
            self._watched = wanted

    def _follow(self) -> None:
        """Opens what the path names now, if that is another file than before."""
        looked, self._looked = self._looked, True
        try:
            there = self.path.stat()
            identity = (there.st_dev, there.st_ino)
            if not looked and stat.S_ISREG(there.st_mode):
                self._passed = identity, there.st_size
            if self._file is not None and identity == self._file.identity:
                self.status.exists = True
                return
            opened = _opened(self.path)
        except OSError as error:
            self.status.exists = not isinstance(error, FileNotFoundError | NotADirectoryError)
            self.status.error = _in_words(error)
            return
        self.status.exists, self.status.error = True, self._trouble
        if self._file is not None:
            self._old.append(self._file)
        self._file = opened
        self._begin(opened)

    def _begin(self, opened: _Open) -> None:
        cursor, self._cursor = self._cursor, None
        if cursor is not None and _is_at(opened, cursor):
            opened.seek(cursor.offset)
        elif cursor is not None:
            # Rotated while nobody read: what was left of the old file comes first.
            self._old += _rotated(self.path, cursor)
            opened.seek(0)
        elif self._passed is not None and self._passed[0] == opened.identity:
            opened.seek(_line_start(opened.fd, self._passed[1]))
        else:
            opened.seek(0)
        if cursor is None:
            self.start = self.start or Cursor(opened.identity[1], opened.offset, opened.fingerprint)
        self._passed = None

    def _next(self) -> list[Chunk] | None:
        """The next lines, of an old file before the new; None where there is nothing to read now."""
        for old in self._old:
            chunks = self._read(old)
            if chunks is not None:
                return chunks
        chunks = self._read(self._file) if self._file is not None else None
        if chunks and self._old:
            # The writer has moved on.  What it wrote to the old file in between comes first.
            chunks = [chunk for old in self._old for chunk in self._closed(old)] + chunks
            self._old = []
            self._moved = True
        return chunks

    def _closed(self, old: _Open) -> list[Chunk]:
        """The rest of a file that nobody writes any more, its last line even without a newline."""
        chunks: list[Chunk] = []
        while (more := self._read(old)) is not None:
            chunks += more
        if old.begun.rest:
            chunks.append(self._chunk(old, old.begun.rest + b"\n", old.begun.cut, ends_open=True))
        os.close(old.fd)
        return chunks

    def _read(self, file: _Open) -> list[Chunk] | None:
        """The whole lines of one read, which may be none; None at the end of the file."""
        try:
            if file.changed():
                file.seek(0)
            data = os.pread(file.fd, CHUNK, file.position)
        except OSError as error:
            self.status.error = _in_words(error)
            return None
        self.status.bytes += len(data)
        if not data:
            return None
        whole, cut = file.begun.lines(data)
        return [self._chunk(file, whole, cut)] if whole else []

    def _chunk(self, file: _Open, data: bytes, cut: int, *, ends_open: bool = False) -> Chunk:
        offset, status = file.offset, self.status
        try:
            file.given(len(data) + cut - ends_open)
        except OSError as error:
            status.error = _in_words(error)
        place = Place(offset, file.identity[1], file.head, file.fingerprint)
        chunk = Chunk(status.path, data, is_utf8(data), place, cut, ends_open)
        status.lines += chunk.lines
        status.last = self._clock()
        status.oversized += chunk.oversized
        status.undecodable += chunk.undecodable
        return chunk


def _opened(path: Path) -> _Open:
    """Opens a regular file; a pipe in its place must not block us."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise OSError(0, "is a directory" if stat.S_ISDIR(mode) else "is not a regular file")
    return _Open(fd)


def _line_start(fd: int, size: int) -> int:
    """Where the line begins that is being written at `size`: there, if none is."""
    back = min(size, LINE_LIMIT)
    tail = os.pread(fd, back, size - back)
    found = tail.rfind(b"\n")
    return size - back + found + 1 if found >= 0 else size if back < size else 0


def _is_at(opened: _Open, cursor: Cursor) -> bool:
    """Is this the file the cursor was taken from, and still that long?"""
    long_enough = cursor.offset <= os.fstat(opened.fd).st_size
    same = cursor.inode == opened.identity[1]
    head = os.pread(opened.fd, min(cursor.offset, FINGERPRINT), 0)
    return long_enough and same and fingerprint(head) == cursor.fingerprint


def _rotated(path: Path, cursor: Cursor) -> list[_Open]:
    """The file the cursor was taken from under its new name (`mail.log.1`, `mail.log-20261124`), if it is there."""
    for each in sorted(path.parent.glob(glob.escape(path.name) + "?*")):
        try:
            opened = _opened(each)
        except OSError:
            continue
        if _is_at(opened, cursor):
            opened.seek(cursor.offset)
            return [opened]
        os.close(opened.fd)
    return []


def _target(path: Path) -> Path:
    """Where symbolic links lead: a link's file is rotated in its own directory."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _nearest(directory: Path) -> Path:
    """The directory, or the closest one above it that exists."""
    for each in (directory, *directory.parents):
        try:
            if each.is_dir():
                return each
        except OSError:
            continue
    return Path("/")


def _in_words(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied: the daemon's user may not read it"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return error.strerror or str(error)
