"""How far the logs were read, and what had been made of them by then: written together, or not at all.

Takes an open connection inside a transaction and a `Progress`; gives back what was kept.
Guarantees: no more than `kept` offences of one prefix in one jail; a value that cannot be read is left out.
Does not: begin or end transactions, know windows or matchers (daemon/saved.py does).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nftban.plain import from_plain
from nftban.prefixes import BITS, Prefix
from nftban.records import Cursor, Offence, Service

DETAILED = 20_000
"""Offences kept with their lines, the newest; of the others only when, who and how much."""

Remembered = tuple[str, str, str, str, str | None]
"""Of a matcher: jail, source, kind, key and value, which is None where there is none any more."""


@dataclass(slots=True)
class Progress:
    """What changed since the last one.

    anew: jails whose offences are all given here; forgotten: (jail, prefix) of whom nothing counts that was written
    before; offences: (jail, prefix under which it is counted, offence); full: (jail, prefix, kept) that hold as many as
    ever count.
    """

    now: float
    cursors: list[tuple[str, Cursor]] = field(default_factory=list)
    anew: list[str] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    offences: list[tuple[str, str, Offence]] = field(default_factory=list)
    full: list[tuple[str, str, int]] = field(default_factory=list)
    remembered: list[Remembered] = field(default_factory=list)


def write(db: sqlite3.Connection, progress: Progress) -> None:
    """Must be called inside a transaction."""
    if progress.anew:
        db.executemany("DELETE FROM offence WHERE jail = ?", [(jail,) for jail in progress.anew])
        db.executemany("DELETE FROM memory WHERE jail = ?", [(jail,) for jail in progress.anew])
    if progress.forgotten:
        db.executemany("DELETE FROM offence WHERE jail = ? AND prefix = ?", progress.forgotten)
    if progress.offences:
        db.executemany(
            "INSERT INTO offence (jail, prefix, time, weight, detail) VALUES (?,?,?,?,?)",
            [(jail, prefix, o.time, o.weight, _detail(o)) for jail, prefix, o in progress.offences],
        )
    if progress.full:
        db.executemany(
            "DELETE FROM offence WHERE jail = ?1 AND prefix = ?2 AND id NOT IN"
            " (SELECT id FROM offence WHERE jail = ?1 AND prefix = ?2 ORDER BY time DESC, id DESC LIMIT ?3)",
            progress.full,
        )
    if progress.remembered:
        db.executemany(
            "DELETE FROM memory WHERE jail = ? AND source = ? AND kind = ? AND key = ?",
            [row[:4] for row in progress.remembered if row[4] is None],
        )
        db.executemany(
            "INSERT OR REPLACE INTO memory VALUES (?,?,?,?,?,?)",
            [(*row, progress.now) for row in progress.remembered if row[4] is not None],
        )
    write_cursors(db, progress.cursors)


def write_cursors(db: sqlite3.Connection, cursors: Iterable[tuple[str, Cursor]]) -> None:
    # An inode is text there: it has 64 bits without a sign (overlayfs sets the highest), SQLite's integers have 63.
    db.executemany(
        "INSERT OR REPLACE INTO cursor VALUES (?,?,?,?)",
        [(source, str(c.inode), c.offset, c.fingerprint) for source, c in cursors],
    )


def offences(db: sqlite3.Connection, jail: str) -> Iterator[Offence]:
    """What the jail had counted, in the order of counting; of the older only the time and the weight."""
    rows = db.execute("SELECT prefix, time, weight, detail FROM offence WHERE jail = ? ORDER BY id", (jail,))
    for prefix, time, weight, detail in rows:
        try:
            yield _offence(jail, prefix, time, weight, detail)
        except (ValueError, TypeError):
            continue


def remembered(db: sqlite3.Connection, jail: str) -> Iterator[tuple[str, str, str, str]]:
    """(source, kind, key, value) of the jail's matchers."""
    return iter(db.execute("SELECT source, kind, key, value FROM memory WHERE jail = ?", (jail,)))


def _detail(o: Offence) -> str:
    return json.dumps([o.filter, o.rule, str(o.prefix), o.service.value, o.facts, o.listed, o.line, o.source])


def _offence(jail: str, prefix: str, time: float, weight: int, detail: str | None) -> Offence:
    if detail is None:
        network = Prefix.parse(prefix)
        address = Prefix(network.family, network.first, BITS[network.family])
        return Offence(jail, "offence whose line is no longer held", address, float(time), int(weight))
    filter, rule, address, service, facts, listed, line, source = json.loads(detail)
    return Offence(
        str(filter),
        str(rule),
        Prefix.parse(address),
        float(time),
        int(weight),
        Service(service),
        from_plain(tuple[tuple[str, str], ...], facts),
        from_plain(tuple[tuple[str, str], ...], listed),
        str(line),
        str(source),
    )
