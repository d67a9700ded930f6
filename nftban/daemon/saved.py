"""What jails have counted and the sessions under way, kept in the store with the cursors they belong to.

Takes the store, the jails and the logs; is the store's `along`: with each ban, and by `save`, the store writes in one
transaction what changed since the last time.  `restore` puts it back into new jails.
Guarantees: a line is counted once, over restarts and kills: what lies behind the cursor on disk has left nothing there
(a line's cursor moves before the line is taken, and nothing is written until all its jails have counted it).  What the
store could not take is given again.  The work of one call is bounded: `save_if_many` is called between lines.
Does not: know why something changed.  That a rule is suspended, or what DNS said, is found out anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol
from zlib import crc32

from nftban.daemon.assemble import JailSetup
from nftban.detect.matcher import Matcher
from nftban.detect.memory import Memory
from nftban.errors import StoreError
from nftban.prefixes import Prefix
from nftban.records import Cursor, Offence
from nftban.store.damage import DamagedStoreError
from nftban.store.progress import Progress
from nftban.store.sqlite import Store

log = logging.getLogger(__name__)

MANY = 300
"""Changes from which they are written at once: 5 ms."""

TOO_MANY = 50_000
"""Changes of one jail that the store did not take, from which on they are not held one by one: all is written anew."""

PIECE = 500
"""Offences restored without a pause."""

_FILTER = "filter"  # kind of the row that says what the others were made with


class Logs(Protocol):
    """How far the logs were read since that was last noted as saved."""

    def moved(self) -> list[tuple[str, Cursor]]: ...

    def note_saved(self, moved: Iterable[tuple[str, Cursor]]) -> None: ...

    def forget_saved(self) -> None: ...


class Saved:
    """clock: epoch seconds; unwritten: how many bans are not in the store."""

    def __init__(
        self,
        store: Store,
        jails: Iterable[JailSetup],
        logs: Logs,
        clock: Callable[[], float],
        unwritten: Callable[[], int],
    ) -> None:
        self._store = store
        self._unwritten = unwritten
        self._jails = tuple(jails)
        self._logs = logs
        self._clock = clock
        self._memories: dict[tuple[str, str], tuple[Matcher, Memory]] = {}
        self._anew: set[str] = set()
        # What is not on disk yet, by jail and for matchers by row.
        self._counted: dict[str, list[tuple[Prefix, Offence | None]]] = {}
        self._rows: dict[tuple[str, str, str, str], str | None] = {}
        self._moved: list[tuple[str, Cursor]] = []

    async def restore(self) -> int:
        """Puts back what was written, where jails know nothing yet, and follows them from then on; returns how many
        offences came back.  Other things have their turn meanwhile."""
        count = 0
        for jail in self._jails:
            try:
                count += await self._restore(jail)
            except DamagedStoreError as e:
                # What can be read comes back; the next save finds the damage and makes a new store.
                log.error("jail %s: not all that was counted can be read: %s", jail.name, e)
                self._anew.add(jail.name)
            jail.windows.changes = []
        self._store.along = self
        return count

    async def _restore(self, jail: JailSetup) -> int:
        made_with = _made_with(jail)
        rows = self._store.remembered(jail.name)
        before = next((value for _, kind, _, value in rows if kind == _FILTER), None)
        if before != made_with:
            self._anew.add(jail.name)
        elif not jail.matchers:
            for source in {source for source, *_ in rows if source}:
                matcher = jail.matchers[source] = jail.matcher()
                memory = Memory(matcher)
                if bad := memory.restore(row[1:] for row in rows if row[0] == source):
                    log.warning("jail %s: %d remembered things of %s cannot be read", jail.name, bad, source)
                memory.changes()
                self._memories[jail.name, source] = matcher, memory
                await asyncio.sleep(0)
        return 0 if len(jail.windows) else await self._restore_offences(jail)

    async def _restore_offences(self, jail: JailSetup) -> int:
        count = 0
        piece: list[Offence] = []
        for offence in self._store.offences(jail.name):
            # One from later than now, before the clock was put back, would outweigh all that comes.
            piece.append(replace(offence, time=min(offence.time, self._clock())))
            count += 1
            if len(piece) == PIECE:
                jail.windows.restore(piece, self._clock())
                piece.clear()
                await asyncio.sleep(0)
        jail.windows.restore(piece, self._clock())
        return count

    def inherit(self, earlier: Saved) -> None:
        """Goes on with what an earlier one could not write."""
        names = {jail.name for jail in self._jails}
        self._memories = dict(earlier._memories)
        self._anew |= {name for name, changes in earlier._counted.items() if changes and name in names}
        self._anew |= {name for name, *_ in earlier._rows if name in names}

    def start_anew(self) -> None:
        """The store was lost: the next save writes everything."""
        self._anew |= {jail.name for jail in self._jails}
        self._logs.forget_saved()

    def save(self) -> None:
        """Writes what changed; raises StoreError."""
        if self._anew or len(self) or self._logs.moved():
            self._store.save()

    def save_if_many(self) -> None:
        """The same, where there is much of it; a store that fails is told of by whoever saves from time to time."""
        if len(self) >= MANY:
            with contextlib.suppress(StoreError):
                self._store.save()

    def __len__(self) -> int:
        """How many changes are not on disk."""
        held = sum(len(jail.windows.changes or ()) for jail in self._jails) + len(self._rows)
        held += sum(map(len, self._counted.values()))
        known = self._memories
        for jail in self._jails:
            for source in jail.matchers:
                held += len(known[jail.name, source][1]) if (jail.name, source) in known else 1
        return held

    def collect(self, writing: int) -> Progress | None:
        """What is not on disk; None while there are bans that are not: the lines that led to them must be read again
        by whoever comes after a kill.  writing: bans that are being written."""
        if self._unwritten() > writing:
            return None
        for jail in self._jails:
            self._collect_counted(jail)
            self._collect_remembered(jail)
        self._moved = self._logs.moved()
        progress = Progress(self._clock(), self._moved, anew=list(self._anew))
        for jail in self._jails:
            self._put_offences(jail, progress)
        progress.remembered = [(*key, value) for key, value in self._rows.items()]
        return progress

    def written(self) -> None:
        """It is on disk now."""
        self._anew.clear()
        self._counted.clear()
        self._rows.clear()
        self._logs.note_saved(self._moved)
        self._moved = []

    def _collect_counted(self, jail: JailSetup) -> None:
        changes = jail.windows.changes
        if not changes:
            return
        held = self._counted.setdefault(jail.name, [])
        held += changes
        jail.windows.changes = []
        if len(held) > TOO_MANY:
            held.clear()
            self._anew.add(jail.name)

    def _collect_remembered(self, jail: JailSetup) -> None:
        if jail.name in self._anew or len(self._rows) > TOO_MANY:
            self._anew.add(jail.name)
            self._rows = {row: value for row, value in self._rows.items() if row[0] != jail.name}
            self._memories = {key: held for key, held in self._memories.items() if key[0] != jail.name}
            self._rows[jail.name, "", _FILTER, ""] = _made_with(jail)
        for source, matcher in jail.matchers.items():
            known, memory = self._memories.get((jail.name, source), (None, None))
            if memory is None or known is not matcher:
                memory = Memory(matcher)
                self._memories[jail.name, source] = matcher, memory
            for kind, key, value in memory.changes():
                self._rows[jail.name, source, kind, key] = value

    def _put_offences(self, jail: JailSetup, progress: Progress) -> None:
        if jail.name in self._anew:
            progress.offences += ((jail.name, str(p), o) for p, window in jail.windows.export() for o in window)
            return
        by_prefix: dict[Prefix, list[Offence]] = {}
        for prefix, offence in self._counted.get(jail.name, ()):
            if offence is None:
                by_prefix[prefix] = []
                progress.forgotten.append((jail.name, str(prefix)))
            else:
                by_prefix.setdefault(prefix, []).append(offence)
        for prefix, offences in by_prefix.items():
            text = str(prefix)
            progress.offences += ((jail.name, text, offence) for offence in offences)
            if offences and jail.windows.is_full(prefix):
                progress.full.append((jail.name, text, jail.windows.kept))


def _made_with(jail: JailSetup) -> str:
    """Tells filters apart, and ways to count."""
    patterns = [(rule.number, rule.pattern.pattern) for rule in jail.compiled.rules]
    return f"{crc32(repr(patterns).encode(errors='backslashreplace')):08x} {jail.windows.counts_by}"
