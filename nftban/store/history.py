"""What has been: bans that ended and events, a piece at a time, however many there are.

Takes the store (or its file's path, for counts that take longer) and what is wanted; gives records.
Guarantees: one call looks at PIECE rows of the past at most, so that nobody waits for it long, and says where the next
goes on; what is pruned meanwhile is left out, nothing comes twice.  `made_since` reads by a connection of its own and
may be called in another thread.
Does not: write, know what the columns of a ban mean (sqlite.py does).
Source: https://www.sqlite.org/rowvalue.html, 2.2 (scrolling window queries).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nftban.prefixes import BITS, Prefix
from nftban.records import Event
from nftban.store.sqlite import _COLUMNS, Store, StoredBan, _stored

PIECE = 1000

CROWDED = 10
"""Networks (IPv4 /24, IPv6 /48) that are counted by name: those with the most bans."""

Key = tuple[float, int]
"""The place of an ended ban: when it ended, and its id."""


@dataclass(frozen=True, slots=True)
class Past:
    """Which ended bans: since: that ended then or later, epoch seconds; prefix: that overlap it; jail: that it made;
    before: those behind this place, the newest first."""

    since: float = 0.0
    prefix: Prefix | None = None
    jail: str | None = None
    before: Key | None = None


def past_bans(store: Store, past: Past) -> tuple[list[StoredBan], Key | None]:
    """One piece, the newest first, and where the next begins: None where there is none."""
    wanted, values = ["TRUE"], list[Any]()
    if past.jail is not None:
        wanted.append("jail = ?")
        values.append(past.jail)
    where = "ended >= ?"
    bounds: list[Any] = [past.since]
    if past.before is not None:
        where += " AND (ended, id) < (?, ?)"
        bounds += past.before
    if past.prefix is not None:
        family, first, last = past.prefix.family, past.prefix.packed, past.prefix.last
        end = last.to_bytes(BITS[family] // 8, "big")
        if past.prefix.length >= (32 if family == 4 else 64):
            # Few bans hold one address, and an index finds them: every prefix around it begins at one of these.
            starts = {past.prefix.widened(n).packed for n in range(BITS[family] + 1)}
            marks = ",".join("?" * len(starts))
            where += (
                f" AND id IN (SELECT id FROM ban WHERE family = ? AND first IN ({marks}) AND last >= ?"  # noqa: S608 marks
                " UNION SELECT id FROM ban WHERE family = ? AND first BETWEEN ? AND ?)"
            )
            bounds += [family, *starts, end, family, first, end]
        else:
            wanted.append("family = ? AND first <= ? AND last >= ?")
            values += [family, end, first]
    # Whether a row is wanted is a column, not a condition: the work is bounded by rows looked at, not by rows found.
    with store.reading() as db:
        rows = db.execute(
            f"SELECT {_COLUMNS}, {' AND '.join(wanted)} FROM ban WHERE ended IS NOT NULL AND {where}"  # noqa: S608 constants, marks
            " ORDER BY ended DESC, id DESC LIMIT ?",
            (*values, *bounds, PIECE),
        ).fetchall()
    found = [_stored(row[:-1]) for row in rows if row[-1]]
    oldest = _stored(rows[-1][:-1]) if len(rows) == PIECE else None
    return found, None if oldest is None or oldest.ended is None else (oldest.ended, oldest.id)


def ban_made(store: Store, prefix: Prefix, time: float) -> StoredBan | None:
    """The newest ban of exactly this prefix, in any scope, that began by then."""
    with store.reading() as db:
        row = db.execute(
            f"SELECT {_COLUMNS} FROM ban WHERE family = ? AND first = ? AND length = ? AND since <= ?"  # noqa: S608 constants
            " ORDER BY id DESC LIMIT 1",
            (prefix.family, prefix.packed, prefix.length, time),
        ).fetchone()
    return _stored(row) if row else None


def events_after(store: Store, number: int, limit: int) -> list[tuple[int, Event]]:
    """The events behind that number, each with its own, the oldest first."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT id, time, kind, text, prefix FROM event WHERE id > ? ORDER BY id LIMIT ?", (number, limit)
        ).fetchall()
    return [(n, Event(t, kind, text, Prefix.parse(p) if p else None)) for n, t, kind, text, p in rows]


def last_event(store: Store) -> int:
    """The number of the newest event; 0 where there is none."""
    with store.reading() as db:
        return int(db.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])


@dataclass(frozen=True, slots=True)
class Made:
    """Bans that were made: how many, by jail ("": by hand or otherwise), the networks that most came from; last: the id
    of the newest."""

    last: int = 0
    bans: int = 0
    jails: Counter[str] = field(default_factory=Counter)
    networks: Counter[Prefix] = field(default_factory=Counter)


def made_since(path: Path, number: int, time: float) -> Made:
    """The bans behind that id that begin at that time (epoch seconds) or later: one that was only made longer began
    before.  Raises sqlite3.Error."""
    new, values = "FROM ban WHERE id > ? AND since >= ?", [number, time]
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM ban").fetchone()
        if number > last:
            values[0] = 0  # the number is of another store
        jails = Counter(dict(db.execute(f"SELECT jail, count(*) {new} GROUP BY jail", values)))
        # By their first octets, in SQLite: it lets others run meanwhile.
        rows = db.execute(
            "SELECT family, substr(first, 1, CASE family WHEN 4 THEN 3 ELSE 6 END) AS octets,"
            f" min(length, CASE family WHEN 4 THEN 24 ELSE 48 END) AS network, count(*) AS bans {new}"
            " GROUP BY family, octets, network ORDER BY bans DESC LIMIT ?",
            (*values, CROWDED),
        )
        networks = Counter({_network(*row): count for *row, count in rows})
    return Made(last, jails.total(), jails, networks)


def _network(family: int, octets: bytes, length: int) -> Prefix:
    return Prefix(family, int.from_bytes(octets.ljust(BITS[family] // 8, b"\0"), "big"), length)
