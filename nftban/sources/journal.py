"""Log lines from systemd's journal.

Takes a spec, `journal` or `journal:DIRECTORY` with matches behind it, and where to begin; gives Chunk after Chunk, each
line with the Cursor behind it, by way of `journalctl --follow` as a child process, started from a list of words.
Goes on exactly behind a cursor.  One whose entry is gone (vacuumed, or the journal is another) is reported, and reading
goes on with the next entry there is.  A child that ends is reported and started anew behind the last line given, after
1, 2, 4 ... 60 seconds.
Guarantees: no entry twice and none left out, over restarts of the child and of us, as long as the journal has it; at
most one read and one entry in memory; the child ends with us.
Of the machine's journal only system services are read, not users' own journals: anybody may write there.
Two of journalctl's ways are walked around (systemd 252): `--after-cursor` swallows the first matching entry where the
cursor's own does not match, so `--cursor` is used; `--follow` alone shows nothing of earlier boots and fails where this
one has no entry, so all that is there is read without it first.
Does not: read journals of other name spaces, machines or containers, unless DIRECTORY names them.
Source: journalctl(1), systemd.journal-fields(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from nftban.records import Cursor
from nftban.sources.chunks import Chunk
from nftban.sources.composed import composed
from nftban.sources.entries import FIELDS, Entries, Entry
from nftban.sources.file import CHUNK, Status

WORD = "journal"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
SETTLED = 5.0
"""Seconds after which a child that still runs is well."""

_MATCH = re.compile(r"[A-Z_][A-Z0-9_]{0,63}=.+", re.DOTALL)
_IS_JOURNAL = re.compile(r"journal(?:[: ]|\Z)|'journal:")  # quoted, as shlex does, where the directory has blanks
_DIRECTORY = re.compile(r"/[^\0\n]*")
_OPTIONS = ("--quiet", "--no-pager", "--output=export", f"--output-fields={','.join(FIELDS)}")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/local/bin", "LC_ALL": "C", "TZ": "UTC"}


def is_journal(spec: str) -> bool:
    """Does a log path name the journal?"""
    return _IS_JOURNAL.match(spec) is not None


def spec(where: str, matches: Sequence[str]) -> str:
    """The spec of a journal (`journal` or `journal:DIRECTORY`) and matches as fail2ban's `journalmatch` has them: each
    any number of FIELD=value that all must hold, `+` between alternatives; several are alternatives too.

    Raises ValueError with what is wrong.
    """
    directory = where.partition(":")[2]
    if where != WORD and not _DIRECTORY.fullmatch(directory):
        raise ValueError(f"{where!r} is no journal: write journal, or journal:/DIRECTORY")
    words: list[str] = []
    for match in matches:
        split = shlex.split(match)
        for word in split:
            if word != "+" and not _MATCH.fullmatch(word):
                raise ValueError(f"{word!r} is no match: write FIELD=value, with + between alternatives")
        if split:
            words += [*(["+"] if words else []), *split]
    return shlex.join([where, *words])


class JournalSource:
    """One journal, seen through its matches.  `chunks()` is for one reader."""

    def __init__(
        self,
        path: str,
        *,
        cursor: Cursor | None = None,
        from_beginning: bool = False,
        report: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """path: as `spec` made it; cursor: as a line had it, go on behind it; report: is told what an admin must know.

        Without a cursor the entries that are there already are passed over, unless `from_beginning`.
        """
        self.path = path
        self.status = Status(path)
        self.begun = asyncio.Event()
        """Set once it is decided where reading begins: what is written from then on is a new line."""
        where, *self._matches = shlex.split(path)
        directory = where.partition(":")[2]
        # --merge: entries of all machines and boots, which a chosen directory is meant to have.
        self._place = (f"--directory={directory}", "--merge") if directory else ("--system",)
        self._cursor = cursor
        self._from_beginning = from_beginning
        self._report = report
        self._clock = clock
        self._behind: Cursor | None = None  # where journalctl was told to begin: shown again, and given already
        self._by_time = False
        self.start = cursor
        """Behind which entry reading begins; None: with the first there is."""
        self._in_hand = False  # the reader has a chunk and has not come back for the next

    def is_behind(self) -> bool:
        """Is there a chunk that its reader has not finished with?"""
        return self._in_hand

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The entries, without end; closing the iterator (or cancelling its reader) ends the child."""
        pause, told = FIRST_PAUSE, ""
        while True:
            before = self.status.lines
            try:
                async with aclosing(self._all()) as chunks:
                    async for chunk in chunks:
                        self._in_hand = True
                        yield chunk
                        self._in_hand = False
                why = "it ended"
            except _EndedError as e:
                why = str(e)
            except OSError as e:
                why = e.strerror or str(e)
            self.begun.set()
            self.status.exists = False
            pause = FIRST_PAUSE if self.status.lines > before else pause
            self.status.error = f"journalctl: {why}; started again in {pause:.0f} s"
            if why != told or self.status.lines > before:
                self._report(f"{self.path}: {self.status.error}")
            told = why
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _begin(self) -> list[str]:
        """The options that make journalctl begin at the right entry, which may be the last one given."""
        if self._cursor is None and not self._from_beginning:
            last = await self._first("--lines=1")
            self._cursor = None if last is None else _cursor(last)
        self._from_beginning = True
        self.start = self._cursor
        self.begun.set()
        self._behind, self._by_time = self._cursor, False
        if self._cursor is None:
            return []
        begin = f"--cursor={self._cursor.fingerprint}"
        try:
            found = await self._first(begin)
        except _EndedError:  # not a cursor that this journalctl takes
            self._by_time = True
            begin = f"--since=@{self._cursor.offset // 1_000_000}.{self._cursor.offset % 1_000_000:06d}"
            found = await self._first(begin)
        if found is None or found.cursor != self._cursor.fingerprint:
            self._report(
                f"{self.path}: the entry at which reading stopped ({_when(self._cursor.offset)}) is gone; "
                + (f"reading goes on at {_when(found.time)}" if found else "nothing was written since")
            )
        return [begin]

    async def _all(self) -> AsyncGenerator[Chunk, None]:
        """What there is, then what comes; ends, or raises _EndedError, with the child that follows."""
        follow = ("--follow", "--no-tail")
        begin = await self._begin()
        while "--merge" not in self._place:
            async with aclosing(self._shown(*begin)) as chunks:
                async for chunk in chunks:
                    yield chunk
            if self._cursor is not self._behind and self._cursor is not None:
                self._behind, self._by_time = self._cursor, False
                begin = [f"--cursor={self._cursor.fingerprint}"]
            last = await self._first("--lines=1")
            if last is not None and last.fields.get(b"_BOOT_ID") == _this_boot():
                break
            await asyncio.sleep(FIRST_PAUSE)
        async with aclosing(self._shown(*follow, *begin)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _first(self, option: str) -> Entry | None:
        """The first entry that journalctl shows then, whatever it is of; raises _EndedError with its complaint."""
        async with _child([*self._place, option]) as child:
            entries = Entries()
            while data := await child.read():
                if found := entries.read(data):
                    return found[0]
            await child.end()
            return None

    async def _shown(self, *options: str) -> AsyncGenerator[Chunk, None]:
        """What journalctl shows then, until it ends; raises _EndedError with its complaint."""
        entries = Entries()
        async with _child([*self._place, *options, "--", *self._matches]) as child:
            self.status.exists = True
            while True:
                try:
                    async with asyncio.timeout(SETTLED if self.status.error else None):
                        data = await child.read()
                except TimeoutError:
                    self.status.error = ""
                    continue
                if not data:
                    await child.end()
                    return
                self.status.bytes += len(data)
                if chunk := self._chunk(entries.read(data)):
                    yield chunk

    def _chunk(self, found: list[Entry]) -> Chunk | None:
        lines = []
        for entry in found:
            if self._is_old(entry):
                continue
            self._cursor = _cursor(entry)
            if (text := entry.line()) is not None:
                lines.append((text, self._cursor, entry.lacking))
        if not lines:
            return None
        chunk = composed(self.path, lines)
        self.status.error = ""
        self.status.lines += len(lines)
        self.status.oversized += chunk.oversized
        self.status.last = self._clock()
        return chunk

    def _is_old(self, entry: Entry) -> bool:
        if self._behind is None:
            return False
        return entry.time <= self._behind.offset if self._by_time else entry.cursor == self._behind.fingerprint


class _EndedError(Exception):
    """journalctl ended by itself; in words."""


class _Child:
    """A running journalctl: its output, and its last words."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._said = b""
        self._listening = asyncio.create_task(self._listen())

    async def read(self) -> bytes:
        """What it wrote; empty when it has ended."""
        assert self.process.stdout is not None  # noqa: S101 - it was started with a pipe
        return await self.process.stdout.read(CHUNK)

    async def end(self) -> None:
        """Raises _EndedError where it did not end well, as one that follows never should."""
        status = await self.process.wait()
        await self._listening
        if status:
            said = self._said.decode(errors="backslashreplace").strip().replace("\n", "; ")
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            raise _EndedError(f"{said} ({how})" if said else how)

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        stdout = self.process.stdout
        while stdout is not None and await stdout.read(CHUNK):
            pass  # wait() returns only when the pipes have ended
        await self.process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self.process.stderr is not None  # noqa: S101 - it was started with a pipe
        while words := await self.process.stderr.read(4096):
            self._said = (self._said + words)[-1000:]


@contextlib.asynccontextmanager
async def _child(options: Sequence[str]) -> AsyncGenerator[_Child, None]:
    process = await asyncio.create_subprocess_exec(
        *("journalctl", *_OPTIONS, *options),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        limit=CHUNK,
        env=_ENVIRONMENT,
    )
    child = _Child(process)
    try:
        yield child
    finally:
        await child.close()


def _this_boot() -> bytes:
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip().replace(b"-", b"")


def _cursor(entry: Entry) -> Cursor:
    """A journal has no inode: its cursor is the time (microseconds) and the journal's own words for the place."""
    return Cursor(0, entry.time, entry.cursor)


def _when(microseconds: int) -> str:
    try:
        return datetime.fromtimestamp(microseconds / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"@{microseconds / 1_000_000}"
