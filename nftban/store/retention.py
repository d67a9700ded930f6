"""How much of the past is kept: by age, by number and by size, whatever the noise.

Takes an open connection and limits; gives how many rows went.  A call does one piece, PIECE rows of each kind, so that
nobody waits for it long; it is called again until nothing is left to do.
Guarantees: a live ban is never among what goes; the file shrinks with its contents (incremental vacuum).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

PIECE = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """seconds: how long ended bans, events and logins are kept; the most of each; octets: the most that everything may
    take before ended bans go for it; detailed: offences kept with their lines, offences: kept at all; idle: seconds for
    which what a matcher remembers is kept untouched."""

    seconds: float = 90 * 86400.0
    ended: int = 200_000
    events: int = 100_000
    logins: int = 200_000
    octets: int = 512 << 20
    detailed: int = 20_000
    offences: int = 1_000_000
    idle: float = 86400.0


def prune(db: sqlite3.Connection, now: float, limits: Limits, findtime: float) -> int:
    """One piece; how many rows went; 0: everything is within the limits.  findtime: the longest of any jail."""
    before = now - limits.seconds
    statements: list[tuple[str, tuple[float, ...]]] = [
        ("DELETE FROM ban WHERE id IN (SELECT id FROM ban WHERE ended < ? LIMIT ?)", (before, PIECE)),
        ("DELETE FROM event WHERE id IN (SELECT id FROM event WHERE time < ? LIMIT ?)", (before, PIECE)),
        ("DELETE FROM login WHERE prefix IN (SELECT prefix FROM login WHERE time < ? LIMIT ?)", (before, PIECE)),
        ("DELETE FROM memory WHERE (jail, source, kind, key) IN"
         " (SELECT jail, source, kind, key FROM memory WHERE saved < ? LIMIT ?)", (now - limits.idle, PIECE)),
        # Of a jail that is there no longer nobody says when its offences are over.
        ("DELETE FROM offence WHERE id IN (SELECT id FROM offence WHERE time < ? LIMIT ?)",
         (now - limits.idle - findtime, PIECE)),
        ("DELETE FROM event WHERE id IN (SELECT id FROM event WHERE id <= (SELECT max(id) FROM event) - ? LIMIT ?)",
         (limits.events, PIECE)),
        ("DELETE FROM offence WHERE id IN (SELECT id FROM offence WHERE id <= (SELECT max(id) FROM offence) - ?"
         " LIMIT ?)", (limits.offences, PIECE)),
    ]  # fmt: skip
    gone = sum(db.execute(*statement).rowcount for statement in statements)
    gone += _oldest(db, "ban", "id", "ended", "ended IS NOT NULL", limits.ended)
    gone += _oldest(db, "login", "prefix", "time", "TRUE", limits.logins)
    if octets(db) > limits.octets:
        gone += db.execute(
            "DELETE FROM ban WHERE id IN (SELECT id FROM ban WHERE ended IS NOT NULL ORDER BY ended LIMIT ?)", (PIECE,)
        ).rowcount
    return gone


def shorten(db: sqlite3.Connection, beyond: int, limits: Limits) -> int:
    """Takes the lines from offences that are not among the newest; returns up to which id it did so."""
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM offence").fetchone()
    until = min(int(newest) - limits.detailed, beyond + 5 * PIECE)
    if until > beyond:
        db.execute("UPDATE offence SET detail = NULL WHERE id > ? AND id <= ?", (beyond, until))
    return max(until, beyond)


def forget_over(db: sqlite3.Connection, jail: str, before: float) -> int:
    """Offences that no window holds any more, a piece of them."""
    return db.execute(
        "DELETE FROM offence WHERE id IN (SELECT id FROM offence WHERE time < ? AND jail = ? LIMIT ?)",
        (before, jail, PIECE),
    ).rowcount


def octets(db: sqlite3.Connection) -> int:
    """What the contents take; the file may be bigger by what is free in it."""
    ((pages,), (free,), (size,)) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _oldest(db: sqlite3.Connection, table: str, key: str, time: str, which: str, most: int) -> int:
    """Deletes a piece of those beyond the most."""
    (count,) = db.execute(f"SELECT count(*) FROM {table} WHERE {which}").fetchone()  # noqa: S608 constants
    if count <= most:
        return 0
    return db.execute(
        f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {which} ORDER BY {time} LIMIT ?)",  # noqa: S608
        (min(PIECE, count - most),),
    ).rowcount
