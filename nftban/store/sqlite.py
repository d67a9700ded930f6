"""What must survive a restart: bans with all that explains them, logins, cursors, quotas, events.

Takes and gives the records of records.py; `now` is always an argument.  One SQLite file in WAL mode.
Guarantees: a ban has left the process before `add_ban` returns, so that no crash or kill -9 of ours loses it; after
`sync` it also survives a power loss (which empties the kernel's sets anyway); of one prefix and scope at most one ban
is live; a store written by a newer version is refused, not guessed at.
Does not: decide anything, know the kernel.  One process writes; others may read meanwhile.
Source: https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from nftban.errors import NftbanError, PermissionNeededError, StoreError, TryAgainError
from nftban.plain import from_plain, to_plain
from nftban.prefixes import BITS, Prefix
from nftban.records import Ban, Cursor, Event, Evidence, Login, Offence, Origin, Verdict

SCHEMA = 2
_PATIENCE = 5.0  # seconds to wait for another process's lock

_TABLES = """
CREATE TABLE ban (
    id INTEGER PRIMARY KEY,
    family INTEGER NOT NULL, first BLOB NOT NULL, last BLOB NOT NULL, length INTEGER NOT NULL,
    scope TEXT NOT NULL, since REAL NOT NULL, until REAL, origin TEXT NOT NULL, jail TEXT NOT NULL,
    reason TEXT NOT NULL, score INTEGER, threshold INTEGER, needs_listing INTEGER NOT NULL,
    detail TEXT NOT NULL, ended REAL, how TEXT
);
CREATE UNIQUE INDEX ban_live ON ban (family, first, length, scope) WHERE ended IS NULL;
CREATE INDEX ban_first ON ban (family, first);
CREATE INDEX ban_ended ON ban (ended) WHERE ended IS NOT NULL;
CREATE INDEX ban_end ON ban (until, scope, family, length, first) WHERE ended IS NULL;
CREATE TABLE login (prefix TEXT PRIMARY KEY, time REAL NOT NULL, user TEXT NOT NULL, line TEXT NOT NULL,
    source TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cursor (source TEXT PRIMARY KEY, inode TEXT NOT NULL, offset INTEGER NOT NULL,
    fingerprint TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE event (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, prefix TEXT);
CREATE INDEX event_time ON event (time);
"""

# What turns a store of one version into the next.  ban_end holds all that a start needs: from it 100,000 bans come into
# memory in a tenth of a second, without a look at what explains them.
_MIGRATIONS = {1: ("CREATE INDEX ban_end ON ban (until, scope, family, length, first) WHERE ended IS NULL",)}

_COLUMNS = (
    "id, family, first, length, scope, since, until, origin, jail, reason, score, threshold, needs_listing, ended, how"
)


@dataclass(frozen=True, slots=True)
class StoredBan:
    """A ban as the store lists it: without its evidence, which `detail` fetches.  ended, how: None while it lives;
    else when and how it ended ("expired", "unbanned", "delisted", "extended")."""

    id: int
    ban: Ban
    score: int | None
    threshold: int | None
    needs_listing: bool
    ended: float | None
    how: str | None

    @classmethod
    def unwritten(cls, ban: Ban) -> StoredBan:
        """A ban that is not in the store yet: its id is 0, and it still has its evidence."""
        return cls(0, ban, *_points(ban), None, None)


class Store:
    """One open store."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it; raises NftbanError with advice where that cannot be."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._db = sqlite3.connect(path.resolve().as_uri(), uri=True, isolation_level=None, timeout=_PATIENCE)
            self._write_ahead()
            # No fsync per ban: that would hold up the next one for as long as the disk takes.
            self._db.execute("PRAGMA synchronous = NORMAL")
            version = self._version()
            if version < SCHEMA:
                with self._transaction():
                    # Another process may have made the tables while this one waited for the lock.
                    version = self._version()
                    for statement in _statements(version):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {max(version, SCHEMA)}")
        except (sqlite3.OperationalError, OSError) as e:
            if isinstance(e, sqlite3.OperationalError) and "locked" in str(e):
                raise TryAgainError(f"the store {path} is busy: {e}", "try again in a moment") from None
            raise PermissionNeededError(
                f"the store {path} cannot be opened: {e}", "run as root or as the user the daemon runs as"
            ) from None
        except sqlite3.DatabaseError as e:
            raise NftbanError(
                f"the store {path} is damaged: {e}", f"move it away (mv {path} {path}.bad); a new one is made at start"
            ) from None
        if version > SCHEMA:
            raise NftbanError(
                f"the store {path} was written by a newer nftban (schema {version}, this one knows {SCHEMA})",
                "install that version again, or name another file as daemon.state",
            )

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def sync(self) -> None:
        """What was written until now survives a power loss (a checkpoint syncs the log, then the file)."""
        self._one("PRAGMA wal_checkpoint(PASSIVE)")

    def _write_ahead(self) -> None:
        """Turns WAL on; while two programs make the store at once SQLite refuses that instead of waiting."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as e:
                if e.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._in_words():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            full = isinstance(e, sqlite3.OperationalError) and e.sqlite_errorcode == sqlite3.SQLITE_FULL
            advice = (
                "make room on its disk" if full else f"is {self.path} on a disk that is full, read-only or damaged?"
            )
            raise StoreError(f"the store {self.path} failed: {e}", advice) from e

    def _one(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        """The first row, or None; one statement, committed."""
        with self._in_words():
            return self._db.execute(statement, values).fetchone()

    def _all(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._in_words():
            return self._db.execute(statement, values).fetchall()

    # bans

    def add_ban(self, ban: Ban, now: float | None = None) -> StoredBan:
        """Writes a ban; a live one of the same prefix and scope ends as "extended".  now: ban.since if None."""
        detail = json.dumps(
            {
                "verdict": to_plain(ban.verdict),
                "evidence": to_plain(ban.evidence),
                "offences": to_plain(ban.offences),
            }
        )
        score, threshold, needs = _points(ban)
        with self._transaction():
            self._end(ban.prefix, ban.scope, ban.since if now is None else now, "extended")
            row = self._db.execute(
                "INSERT INTO ban (family, first, last, length, scope, since, until, origin, jail, reason, score,"
                " threshold, needs_listing, detail) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING id",
                (
                    *_key(ban.prefix), ban.scope, ban.since, ban.until, ban.origin.value, ban.jail, ban.reason,
                    score, threshold, needs, detail,
                ),
            ).fetchone()  # fmt: skip
        return StoredBan(row[0], _light(ban), score, threshold, needs, None, None)

    def end_ban(self, prefix: Prefix, scope: str, now: float, how: str) -> bool:
        """Ends the live ban of exactly that prefix and scope; False where there is none."""
        with self._transaction():
            return self._end(prefix, scope, now, how)

    def _end(self, prefix: Prefix, scope: str, now: float, how: str) -> bool:
        # One whose time was over already has expired, whatever comes now: escalation counts it.
        family, first, _, length = _key(prefix)
        done = self._db.execute(
            "UPDATE ban SET ended = min(?, coalesce(until, ?)), how = CASE WHEN until <= ? THEN 'expired' ELSE ? END"
            " WHERE family = ? AND first = ? AND length = ? AND scope = ? AND ended IS NULL RETURNING how",
            (now, now, now, how, family, first, length, scope),
        ).fetchall()
        return done == [(how,)]

    def expire(self, now: float) -> int:
        """Marks the bans whose time is over; returns how many."""
        with self._transaction():
            done = self._db.execute(
                "UPDATE ban SET ended = until, how = 'expired' WHERE ended IS NULL AND until <= ?", (now,)
            )
        return done.rowcount

    def live_bans(self, now: float) -> list[StoredBan]:
        """The bans that hold now, oldest first."""
        return self._held(now, "TRUE")

    def bans_to_verify(self, now: float, within: float) -> list[StoredBan]:
        """Those of them that a log led to and that need their listing, or end within so many seconds; oldest first."""
        return self._held(now, "origin = ? AND (needs_listing OR until < ?)", Origin.LOG.value, now + within)

    def _held(self, now: float, condition: str, *values: Any) -> list[StoredBan]:
        rows = self._all(
            f"SELECT {_COLUMNS} FROM ban WHERE ended IS NULL AND (until IS NULL OR until > ?) AND {condition}"  # noqa: S608 constants
            " ORDER BY since, id",
            (now, *values),
        )
        return [_stored(row) for row in rows]

    def live_ends(self, now: float) -> dict[tuple[str, int, int], dict[int, float]]:
        """When each ban that holds now ends: by scope, family and prefix length, then by first address; inf: never."""
        found: dict[tuple[str, int, int], dict[int, float]] = {}
        with self._in_words():
            rows = self._db.execute(
                "SELECT scope, family, length, first, coalesce(until, ?) FROM ban INDEXED BY ban_end"
                " WHERE ended IS NULL",
                (inf,),
            )
            for scope, family, length, first, end in rows:
                if end > now:
                    found.setdefault((scope, family, length), {})[int.from_bytes(first, "big")] = end
        return found

    def live_ban(self, prefix: Prefix, scope: str) -> StoredBan | None:
        """The ban of exactly this prefix and scope whose end has not been noted."""
        family, first, _, length = _key(prefix)
        row = self._one(
            f"SELECT {_COLUMNS} FROM ban"  # noqa: S608 a constant list of columns
            " WHERE family = ? AND first = ? AND length = ? AND scope = ? AND ended IS NULL",
            (family, first, length, scope),
        )
        return _stored(row) if row else None

    def live_by_jail(self) -> dict[str, int]:
        """How many bans whose end has not been noted each jail has made."""
        return dict(self._all("SELECT jail, count(*) FROM ban WHERE ended IS NULL GROUP BY jail"))

    def bans_covering(self, prefix: Prefix, limit: int = 20) -> list[StoredBan]:
        """Bans, live and past, whose prefix overlaps this one; newest first."""
        family, first, last, _ = _key(prefix)
        # Every enclosing prefix begins at one of these 33 or 129 addresses: an index look-up each, no scan.
        starts = {prefix.widened(n).packed for n in range(BITS[prefix.family] + 1)}
        marks = ",".join("?" * len(starts))
        rows = self._all(
            f"SELECT {_COLUMNS} FROM ban WHERE family = ? AND (first IN ({marks}) AND last >= ?"  # noqa: S608 marks only
            " OR first BETWEEN ? AND ?) ORDER BY since DESC, id DESC LIMIT ?",
            (family, *starts, last, first, last, limit),
        )
        return [_stored(row) for row in rows]

    def detail(self, ban_id: int) -> Ban:
        """The whole ban with verdict, evidence and offences; raises KeyError for an unknown id."""
        row = self._one(f"SELECT {_COLUMNS}, detail FROM ban WHERE id = ?", (ban_id,))  # noqa: S608 a constant list of columns
        if row is None:
            raise KeyError(ban_id)
        detail = json.loads(row[-1])
        return replace(
            _stored(row[:-1]).ban,
            verdict=from_plain(Verdict, detail["verdict"]) if detail["verdict"] else None,
            evidence=from_plain(Evidence, detail["evidence"]) if detail["evidence"] else None,
            offences=tuple(from_plain(Offence, o) for o in detail["offences"]),
        )

    def earlier_bans(self, prefix: Prefix, now: float) -> int:
        """How often exactly this prefix was banned because of logs, and the ban ran its time."""
        family, first, _, length = _key(prefix)
        row = self._one(
            "SELECT count(*) FROM ban WHERE family = ? AND first = ? AND length = ? AND origin = ?"
            " AND (how = 'expired' OR ended IS NULL AND until <= ?)",
            (family, first, length, Origin.LOG.value, now),
        )
        return int(row[0])

    # logins, cursors, named state, events

    def set_login(self, login: Login) -> None:
        self._one(
            "INSERT INTO login VALUES (?,?,?,?,?) ON CONFLICT (prefix) DO UPDATE SET time = excluded.time,"
            " user = excluded.user, line = excluded.line, source = excluded.source WHERE excluded.time >= time",
            (str(login.prefix), login.time, login.user, login.line, login.source),
        )

    def login(self, prefix: Prefix) -> Login | None:
        row = self._one("SELECT * FROM login WHERE prefix = ?", (str(prefix),))
        return Login(prefix, *row[1:]) if row else None

    # An inode is text there: it has 64 bits without a sign (overlayfs sets the highest), SQLite's integers have 63.
    def set_cursors(self, cursors: Iterable[tuple[str, Cursor]]) -> None:
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO cursor VALUES (?,?,?,?)",
                [(source, str(c.inode), c.offset, c.fingerprint) for source, c in cursors],
            )

    def cursor(self, source: str) -> Cursor | None:
        row = self._one("SELECT * FROM cursor WHERE source = ?", (source,))
        return Cursor(int(row[1]), row[2], row[3]) if row else None

    def set_state(self, name: str, value: Any) -> None:
        """Keeps a small JSON value under a name (quotas, zone health)."""
        self._one("INSERT OR REPLACE INTO state VALUES (?,?)", (name, json.dumps(value)))

    def state(self, name: str) -> Any:
        row = self._one("SELECT value FROM state WHERE name = ?", (name,))
        return json.loads(row[0]) if row else None

    def add_event(self, event: Event) -> None:
        self._one(
            "INSERT INTO event (time, kind, text, prefix) VALUES (?,?,?,?)",
            (event.time, event.kind, event.text, str(event.prefix) if event.prefix else None),
        )

    def events(self, limit: int = 20) -> list[Event]:
        """The newest first."""
        rows = self._all("SELECT time, kind, text, prefix FROM event ORDER BY id DESC LIMIT ?", (limit,))
        return [Event(t, kind, text, Prefix.parse(prefix) if prefix else None) for t, kind, text, prefix in rows]

    def prune(self, before: float) -> int:
        """Forgets ended bans, events and logins from before that time; returns how many rows went."""
        with self._transaction():
            gone = self._db.execute("DELETE FROM ban WHERE ended < ?", (before,)).rowcount
            gone += self._db.execute("DELETE FROM event WHERE time < ?", (before,)).rowcount
            gone += self._db.execute("DELETE FROM login WHERE time < ?", (before,)).rowcount
        return gone


def _statements(version: int) -> list[str]:
    """What makes this version's tables out of that one's; 0: out of nothing."""
    if version == 0:
        return _TABLES.split(";\n")
    return [statement for old in range(version, SCHEMA) for statement in _MIGRATIONS[old]]


def _key(prefix: Prefix) -> tuple[int, bytes, bytes, int]:
    return prefix.family, prefix.packed, prefix.last.to_bytes(prefix.bits // 8, "big"), prefix.length


def _points(ban: Ban) -> tuple[int | None, int | None, bool]:
    return (ban.verdict.score, ban.verdict.threshold, ban.verdict.needs_listing) if ban.verdict else (None, None, False)


def _light(ban: Ban) -> Ban:
    return replace(ban, verdict=None, evidence=None, offences=())


def _stored(row: tuple[Any, ...]) -> StoredBan:
    ban_id, family, first, length, scope, since, until, origin, jail, reason, score, threshold, needs, ended, how = row
    ban = Ban(
        Prefix(family, int.from_bytes(first, "big"), length), scope, since, until, Origin(origin), jail, reason
    )  # fmt: skip
    return StoredBan(ban_id, ban, score, threshold, bool(needs), ended, how)
