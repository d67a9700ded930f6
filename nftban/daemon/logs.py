"""Which log file feeds which jails.

Takes the jails with their log paths (shell patterns allowed); opens one FileSource per file and hands each line to
`take` together with the jails that read it.  Guarantees: a file named by several jails is read once; a file that is
not there is waited for; what a pattern matches later is found by `look_for_files`; cursors go to the store and
reading goes on there after a restart.  A reader that fails is reported in `status` and started again by
`look_for_files`.  Does not: look at what is in a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import logging
import re
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nftban.daemon.assemble import JailSetup
from nftban.records import Cursor, LogLine
from nftban.sources.file import FileSource
from nftban.store.sqlite import Store

log = logging.getLogger(__name__)

# As logrotate(8) names them: numbered or with `dateext`, compressed or not.
_ROTATED = re.compile(r"[.-]\d{1,12}(?:\.(?:gz|bz2|xz|zst|Z))?$")

Take = Callable[[Iterable[JailSetup], LogLine], None]


@dataclass(slots=True)
class _Reader:
    """cursor: behind the last line taken; new: the file appeared while the daemon ran."""

    source: FileSource
    cursor: Cursor | None
    new: bool
    jails: list[JailSetup] = field(default_factory=list)
    saved: Cursor | None = None
    task: asyncio.Task[None] | None = None


class Logs:
    """All log files and their readers."""

    def __init__(self, jails: Iterable[JailSetup], take: Take, store: Store) -> None:
        self._jails = tuple(jails)
        self._take = take
        self._store = store
        self._readers: dict[str, _Reader] = {}

    async def start(self) -> None:
        """Reads what there is and waits for what there is not; returns when all that is written from now on is seen."""
        await self.look_for_files(at_start=True)
        for reader in self._readers.values():
            await reader.source.begun.wait()

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
                        source = FileSource(Path(path), cursor=cursor, from_beginning=not at_start)
                        reader = self._readers[path] = _Reader(source, cursor, new=not at_start)
                    if jail not in reader.jails:
                        reader.jails.append(jail)
        for reader in self._readers.values():
            if reader.task is None or reader.task.done():
                if reader.task is not None:
                    reader.source = FileSource(reader.source.path, cursor=reader.cursor, from_beginning=reader.new)
                reader.task = asyncio.create_task(self._read(reader), name=f"log {reader.source.path}")

    async def stop(self) -> None:
        """Ends the readers; the cursors stay until they are saved."""
        tasks = [r.task for r in self._readers.values() if r.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def save_cursors(self) -> None:
        """Notes how far each file was read, where that has changed."""
        moved = [(path, r.cursor) for path, r in self._readers.items() if r.cursor is not None and r.cursor != r.saved]
        if moved:
            self._store.set_cursors(moved)
            for path, cursor in moved:
                self._readers[path].saved = cursor

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
            }
            for path, r in sorted(self._readers.items())
        ]

    async def _read(self, reader: _Reader) -> None:
        try:
            async with contextlib.aclosing(reader.source.lines()) as lines:
                async for line in lines:
                    self._take(reader.jails, line)
                    reader.cursor = line.cursor
        except Exception as e:
            log.exception("reading %s failed", reader.source.path)
            reader.source.status.error = f"reading failed: {e}; tried again in a few seconds"
            reader.source.begun.set()


def _files(pattern: str, known: Container[str]) -> list[str]:
    """The files a pattern matches now; a path without wildcards is itself, whether it exists or not.

    What a log that is there, or `known`, was renamed to (mail.log.1, mail.log-20261124.gz), which `mail.log*` matches
    too, is left out: it would be read a second time, since a renamed log is followed to its end.
    """
    if not glob.has_magic(pattern):
        return [pattern]
    found = set(glob.glob(pattern))  # noqa: PTH207 - the pattern may begin at the root
    logs = {path: _ROTATED.sub("", path) for path in found}
    return sorted(path for path, of in logs.items() if of == path or not (of in found or of in known))
