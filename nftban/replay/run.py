"""Logs through settings: reads, shares out, decides.

Takes assembled settings (one, or two to compare) and log files; gives a `Decider` for each, with its bans and what they
would have stopped.
The logs are read twice: first what the filters find in them is decided on, in the order of time over all logs; then
what the addresses found did altogether is counted.  Both are done a chunk at a time by as many processes as there are
cores; sessions, windows and verdicts in this one, in the log's order.
Guarantees: a few chunks are in memory at a time; small logs need no other process.  A log is read by the jails whose
logpath names it, by path or by its last part; one that no jail names is read by all jails.
Does not: ask DNS (answers.py), write anything.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import reduce
from heapq import merge
from math import inf
from operator import itemgetter
from pathlib import Path

from nftban.daemon.assemble import Assembly, JailSetup
from nftban.detect.filterfile import Filter
from nftban.prefixes import Prefix
from nftban.replay.decide import Decider, Good
from nftban.replay.logs import Series, chunks
from nftban.replay.search import Found, Meanings, Search, Searched
from nftban.replay.traffic import Mail, Span, Traffic
from nftban.replay.workers import Workers, workers
from nftban.sources import docker
from nftban.sources.chunks import Chunk
from nftban.sources.journal import is_journal

CLOCK_SET_BACK = 3600.0
"""Of a line that is older than the one before by more than this it is believed that the clock was wrong before."""

_MAIL_PORTS = {25, 465, 587}


@dataclass(slots=True)
class Progress:
    """What a replay has done.  bytes: of those on the disk, each counted twice; changed: is called now and then; notes:
    what an admin should know."""

    total: int
    changed: Callable[[Progress], None] = lambda _: None
    bytes: int = 0
    lines: int = 0
    notes: list[str] = field(default_factory=list)

    def read(self, count: int) -> None:
        self.bytes += count
        self.changed(self)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, slots=True)
class Reading:
    """A log, the filters over it, and for each of these who wants what it finds: number of the settings, jail.  named:
    is the log one of the settings'; hide: takes account keys out of its lines."""

    series: Series
    filters: tuple[Filter, ...]
    wanted: tuple[tuple[tuple[int, JailSetup], ...], ...]
    named: bool
    hide: Callable[[str], str]


@dataclass(slots=True)
class Times:
    """The first and the last time something was found, and how many lines each log has."""

    first: float = inf
    last: float = -inf
    lines: dict[str, int] = field(default_factory=dict)


def readings(assemblies: Sequence[Assembly], series: Iterable[Series]) -> list[Reading]:
    """Who reads which log."""

    def hide(text: str) -> str:
        return reduce(lambda so_far, assembly: assembly.masked(so_far), assemblies, text)

    found = []
    for each in series:
        filters: list[Filter] = []
        wanted: list[list[tuple[int, JailSetup]]] = []
        named = False
        for number, assembly in enumerate(assemblies):
            own = [jail for jail in assembly.jails if any(_names(path, each.name) for path in jail.logpaths)]
            named = named or bool(own)
            for jail in own or assembly.jails:
                if jail.compiled not in filters:
                    filters.append(jail.compiled)
                    wanted.append([])
                wanted[filters.index(jail.compiled)].append((number, jail))
        found.append(Reading(each, tuple(filters), tuple(map(tuple, wanted)), named, hide))
    return found


def _names(logpath: str, log: str) -> bool:
    if is_journal(logpath):
        return False
    if logpath == log or (glob.has_magic(logpath) and fnmatch(log, logpath)):
        return True
    return fnmatch(Path(log).name, Path(logpath).name) and Path(logpath).name.strip("*?.log") != ""


def decide(readings: Sequence[Reading], deciders: Sequence[Decider], progress: Progress) -> Times:
    """All logs, in the order of time, through all settings."""
    searches = [Search(each.filters, each.hide) for each in readings]
    times = Times()
    for decider in deciders:
        for jail in decider.jails:
            jail.report = progress.note
    with workers([search.chunk for search in searches], _size(readings)) as at_work:
        logs = [_found(number, each, at_work, progress, times) for number, each in enumerate(readings)]
        for now, number, found in merge(*logs, key=itemgetter(0)):
            times.first, times.last = min(times.first, now), max(times.last, now)
            if found.result is None:
                continue
            for settings, jail in readings[number].wanted[found.number]:
                deciders[settings].take(jail, found.result, now)
    return times


def _found(
    number: int, reading: Reading, at_work: Workers[Searched], progress: Progress, times: Times
) -> Iterator[tuple[float, int, Found]]:
    meanings = Meanings(reading.series.name, reading.filters)
    in_order = any(each.maxlines > 1 for each in reading.filters)
    now = 0.0
    lines = 0
    for searched in at_work.each(number, _chunks(reading.series, progress), in_order=in_order):
        lines += searched.lines
        progress.lines += searched.lines
        for found in meanings.found(searched):
            now = found.time if found.time < now - CLOCK_SET_BACK else max(now, found.time)
            yield now, number, found
    times.lines[reading.series.name] = lines


def count_traffic(readings: Sequence[Reading], deciders: Sequence[Decider], progress: Progress) -> dict[Prefix, int]:
    """Counts what the offenders' lines and mails were; gives the lines of each prefix."""
    numbered: dict[Prefix, Prefix] = {}  # an address, and the prefix under which it is counted
    for decider in deciders:
        for prefix, addresses in decider.addresses.items():
            if prefix in decider.offences:
                numbered.update((address, prefix) for address in addresses)
    if not numbered:
        progress.read(_size(readings))
        return {}
    prefixes = list(numbered.values())
    spans: list[dict[int, list[Span]]] = []
    for decider in deciders:
        bans: dict[Prefix, list[Span]] = {}
        for would in decider.bans:
            until = inf if would.ban.until is None else would.ban.until
            bans.setdefault(would.ban.prefix, []).append((would.ban.since, until))
        spans.append({n: bans[prefix] for n, prefix in enumerate(prefixes) if prefix in bans})
    traffic = Traffic([str(address) for address in numbered], spans)
    lines: dict[Prefix, int] = {}
    counts = [_Counts(decider) for decider in deciders]
    with workers([traffic.chunk], _size(readings)) as at_work:
        for reading in readings:
            mail = Mail()
            for seen in at_work.each(0, _chunks(reading.series, progress)):
                for number, count in seen.lines.items():
                    lines[prefixes[number]] = lines.get(prefixes[number], 0) + count
                accepted = [(prefixes[each.client], each.time) for each in mail.accepted(seen)]
                for each, stopped in zip(counts, seen.stopped, strict=True):
                    each.add([(prefixes[n], ban, count) for (n, ban), count in stopped.items()], accepted)
    return lines


class _Counts:
    """Puts what was seen to the bans of one set of settings."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._bans: dict[Prefix, list[int]] = {}
        for number, would in enumerate(decider.bans):
            self._bans.setdefault(would.ban.prefix, []).append(number)

    def add(self, stopped: Iterable[tuple[Prefix, int, int]], mails: Iterable[tuple[Prefix, float]]) -> None:
        bans = self._decider.bans
        for prefix, ban, count in stopped:
            bans[self._bans[prefix][ban]].lines += count
        for prefix, time in mails:
            self._decider.good.setdefault(prefix, Good()).mails += 1
            for number in self._bans.get(prefix, ()):
                if bans[number].holds(time) and _keeps_mail_out(bans[number].ban.scope, self._decider.scopes):
                    bans[number].mails += 1
                    break


def _keeps_mail_out(scope: str, scopes: Mapping[str, Iterable[int]]) -> bool:
    return scope == "all" or bool(_MAIL_PORTS & set(scopes.get(scope, ())))


def _size(readings: Iterable[Reading]) -> int:
    return sum(file.size for reading in readings for file in reading.series.files)


def _chunks(series: Series, progress: Progress) -> Iterator[tuple[Chunk, float]]:
    for file in series.files:
        for chunk in chunks(file, series.name, progress.read, progress.note):
            yield docker.decoded(chunk) if docker.is_docker(series.name) else chunk, file.now
