"""Which log file feeds which jails.

Takes the jails with their log paths (shell patterns allowed); opens one FileSource per file and hands each line that
a jail's filter could match (screen.py) to `take`, with those jails and rules; `passed` is told how many others there
were.  Guarantees: a file named by several jails is read once; a file that is not there is waited for; what a pattern
matches later is found by `look_for_files`; cursors go to the store and reading goes on there after a restart.  A
reader that fails is reported in `status` and started again by `look_for_files`; a log that is silent against its habit
or of which nothing can be read is an event.  `journal` in a path's place is systemd's; a log whose name ends in
-json.log is Docker's.  Does not: look at what is in a line, but for a date in one now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import logging
import re
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from nftban.daemon.assemble import JailSetup
from nftban.daemon.watchfulness import Watchfulness
from nftban.detect.screen import SAMPLE, Screen
from nftban.detect.timestamps import Timestamps
from nftban.errors import StoreError
from nftban.records import Cursor, Event, LogLine
from nftban.sources import docker
from nftban.sources.chunks import Chunk
from nftban.sources.file import FileSource
from nftban.sources.journal import JournalSource, is_journal
from nftban.store.sqlite import Store

log = logging.getLogger(__name__)

SLICE = 0.005
"""Seconds for which lines are taken without a turn for others."""

# As logrotate(8) names them: numbered or with `dateext`, compressed or not.
_ROTATED = re.compile(r"[.-]\d{1,12}(?:\.(?:gz|bz2|xz|zst|Z))?$")


class Take(Protocol):
    """Takes a line, the jails it may matter to, and of each the filter's rules that can match, where that is known."""

    def __call__(
        self, jails: Sequence[JailSetup], line: LogLine, rules: Sequence[tuple[int, ...]] | None = None
    ) -> None: ...


Source = FileSource | JournalSource


@dataclass(slots=True)
class _Reader:
    """cursor: behind the last line taken; new: the file appeared while the daemon ran."""

    source: Source
    cursor: Cursor | None
    new: bool
    jails: list[JailSetup] = field(default_factory=list)
    saved: Cursor | None = None
    waiting: tuple[Source, int] | None = None
    task: asyncio.Task[None] | None = None
    screen: Screen | None = None
    screened: int = 0
    dates: list[Timestamps] = field(default_factory=list)

    def screen_for(self, data: bytes) -> Screen:
        """The screen of its jails; what it looks for is chosen by what the log holds, once there is enough of it."""
        more = self.screen is not None and not self.screen.sampled and len(data) >= SAMPLE
        if self.screen is None or more or self.screened != len(self.jails):
            self.screen = Screen([jail.compiled for jail in self.jails], data)
            self.screened = len(self.jails)
        return self.screen


class Logs:
    """All log files and their readers."""

    def __init__(
        self,
        jails: Iterable[JailSetup],
        take: Take,
        store: Store,
        passed: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """passed: is told how many lines were read that mean nothing to any jail; clock: epoch seconds; between: is
        called when lines have been taken for SLICE."""
        self._jails = tuple(jails)
        self._take = take
        self._passed = passed
        self._store = store
        self._readers: dict[str, _Reader] = {}
        self._clock = clock
        self._between = between
        self._breath = 0.0
        self._watchfulness = Watchfulness(store, self._report)

    async def start(self) -> None:
        """Reads what there is and waits for what there is not; returns when all that is written from now on is seen."""
        await self.look_for_files(at_start=True)
        for reader in self._readers.values():
            await reader.source.begun.wait()
            # Of a log that was never read before it is noted where reading began: who is killed before the first line
            # would not know what to pass over.
            reader.cursor = reader.cursor or reader.source.start

    async def look_for_files(self, at_start: bool = False) -> None:
        """Finds files that a pattern matches now; starts readers that ended.

        A file that a pattern matches for the first time while the daemon runs is new: it is read from its beginning.
        """
        for jail in self._jails:
            for pattern in jail.logpaths:
                for path in _files(pattern, self._readers):
                    reader = self._readers.get(path)
                    if reader is None:
                        cursor = self._store.cursor(path)
                        source = self._source(path, cursor, new=not at_start)
                        reader = self._readers[path] = _Reader(source, cursor, new=not at_start)
                    if jail not in reader.jails:
                        reader.jails.append(jail)
                        reader.dates.append(Timestamps(jail.compiled.dates))
        for reader in self._readers.values():
            if reader.task is None or reader.task.done():
                if reader.task is not None:
                    reader.source = self._source(str(reader.source.path), reader.cursor, reader.new)
                reader.task = asyncio.create_task(self._read(reader), name=f"log {reader.source.path}")
            self._watchfulness.look(reader.source.status, self._clock())

    def _source(self, path: str, cursor: Cursor | None, new: bool) -> Source:
        if is_journal(path):
            tell = lambda text: self._report(text, self._clock())  # noqa: E731
            return JournalSource(path, cursor=cursor, from_beginning=new, report=tell, clock=self._clock)
        return FileSource(Path(path), cursor=cursor, from_beginning=new, clock=self._clock)

    def _report(self, text: str, now: float) -> None:
        log.warning("%s", text)
        with contextlib.suppress(StoreError):
            self._store.add_event(Event(now, "source", text))

    async def stop(self) -> None:
        """Ends the readers; the cursors stay until they are saved."""
        tasks = [r.task for r in self._readers.values() if r.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def save_cursors(self) -> None:
        """Notes how far each file was read, where that has changed."""
        if moved := self.moved():
            self._store.set_cursors(moved)
            self.note_saved(moved)

    def moved(self) -> list[tuple[str, Cursor]]:
        """How far each log was read, where that has changed since it was noted as saved."""
        return [(path, r.cursor) for path, r in self._readers.items() if r.cursor is not None and r.cursor != r.saved]

    def forget_saved(self) -> None:
        """The store was lost: nothing is in it any more."""
        for reader in self._readers.values():
            reader.saved = None

    def note_saved(self, moved: Iterable[tuple[str, Cursor]]) -> None:
        """These are in the store."""
        for path, cursor in moved:
            self._readers[path].saved = cursor

    def stalled(self) -> list[str]:
        """The logs of which nothing was read since the last call, although there was something to read then and is."""
        found = []
        for path, r in self._readers.items():
            waiting = (r.source, r.source.status.bytes) if r.source.is_behind() else None
            if waiting is not None and waiting == r.waiting:
                found.append(path)
            r.waiting = waiting
        return found

    def status(self) -> list[dict[str, Any]]:
        """A row per file for `status`."""
        return [
            {
                "path": path,
                "exists": r.source.status.exists,
                "lines": r.source.status.lines,
                "last_line": r.source.status.last,
                "bytes": r.source.status.bytes,
                "oversized": r.source.status.oversized,
                "undecodable": r.source.status.undecodable,
                "error": r.source.status.error or None,
                "alert": self._watchfulness.alert(path) or None,
            }
            for path, r in sorted(self._readers.items())
        ]

    async def _read(self, reader: _Reader) -> None:
        try:
            async with contextlib.aclosing(reader.source.chunks()) as chunks:
                async for chunk in chunks:
                    await self._give(reader, chunk)
        except Exception as e:
            log.exception("reading %s failed", reader.source.path)
            reader.source.status.error = f"reading failed: {e}; tried again in a few seconds"
            reader.source.begun.set()

    async def _give(self, reader: _Reader, chunk: Chunk) -> None:
        """The lines of a chunk, with turns for others in between."""
        if docker.is_docker(chunk.source):
            chunk = docker.decoded(chunk)
        self._look_for_a_date(reader, chunk)
        if not chunk.valid:  # what a line's text will be is not what its bytes are
            for line in chunk:
                self._take_one(reader, reader.jails, line)
                await self._breathe()
            return
        taken = 0
        screen = reader.screen_for(chunk.data)
        for start, end, bits in screen.lines(chunk.data):
            wanted = screen.wanted(bits)
            line = chunk.line(start, end)
            jails = [reader.jails[each.filter] for each in wanted]
            self._take_one(reader, jails, line, [each.rules for each in wanted])
            taken += 1
            if perf_counter() > self._breath:
                await self._breathe()
        reader.cursor = chunk.cursor(len(chunk.data) - 1)
        self._passed(chunk.lines - taken)

    def _take_one(
        self, reader: _Reader, jails: list[JailSetup], line: LogLine, rules: list[tuple[int, ...]] | None = None
    ) -> None:
        """The cursor moves before: what is written while the line is taken belongs to it."""
        before, reader.cursor = reader.cursor, line.cursor
        try:
            self._take(jails, line, rules)
        except BaseException:
            reader.cursor = before
            raise

    async def _breathe(self) -> None:
        """A turn for others, where lines have taken SLICE since the last."""
        if perf_counter() > self._breath:
            self._between()
            await asyncio.sleep(0)
            self._breath = perf_counter() + SLICE

    def _look_for_a_date(self, reader: _Reader, chunk: Chunk) -> None:
        """In the chunk's last line: one that is enough to see whether the log is one that the jails can read."""
        end = len(chunk.data) - 1
        text, _ = chunk.text(chunk.data.rfind(b"\n", 0, end) + 1, end)
        now = self._clock()
        self._watchfulness.line(chunk.source, any(dates.read(text, now) is not None for dates in reader.dates))


def _files(pattern: str, known: Container[str]) -> list[str]:
    """The files a pattern matches now; a path without wildcards is itself, whether it exists or not.

    What a log that is there, or `known`, was renamed to (mail.log.1, mail.log-20261124.gz), which `mail.log*` matches
    too, is left out: it would be read a second time, since a renamed log is followed to its end.
    """
    if is_journal(pattern) or not glob.has_magic(pattern):
        return [pattern]
    found = set(glob.glob(pattern))  # noqa: PTH207 - the pattern may begin at the root
    logs = {path: _ROTATED.sub("", path) for path in found}
    return sorted(path for path, of in logs.items() if of == path or not (of in found or of in known))
