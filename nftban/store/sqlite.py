"""What must survive a restart: bans with all that explains them, logins, cursors, quotas, events.

Takes and gives the records of records.py; `now` is always an argument.  One SQLite file in WAL mode.
Guarantees: a ban has left the process before `add_ban` returns, so that no crash or kill -9 of ours loses it; after
`sync` it also survives a power loss (which empties the kernel's sets anyway); of one prefix and scope at most one ban
is live; how far the logs were read is written in one transaction with what was made of them (progress.py), with each
ban too; a store written by a newer version is refused, not guessed at; a damaged one can be set aside and made anew.
Does not: decide anything, know the kernel.  One process writes; others may read meanwhile.
Source: https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Protocol

from nftban.errors import NftbanError, PermissionNeededError, StoreError, TryAgainError
from nftban.plain import from_plain, to_plain
from nftban.prefixes import BITS, Prefix
from nftban.records import Ban, Cursor, Event, Evidence, Login, Offence, Origin, Verdict
from nftban.store import damage, progress, retention
from nftban.store.damage import DamagedStoreError, is_damage, move_aside
from nftban.store.progress import Progress
from nftban.store.retention import Limits
from nftban.store.schema import NAMES, SCHEMA, statements

_PATIENCE = 5.0  # seconds to wait for another process's lock

_NOTHING = '{"verdict": null, "evidence": null, "offences": []}'

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


class Along(Protocol):
    """What is written in one transaction with each ban: `collect` gives it, `written` is called when it is on disk;
    until then it is to be given again.  writing: how many bans are written with it; None: not now."""

    def collect(self, writing: int) -> Progress | None: ...

    def written(self) -> None: ...


class Store:
    """One open store.  new: it was made by opening it; damaged: what was read or written last showed damage."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it; raises NftbanError with advice where that cannot be."""
        self.path = path
        self.along: Along | None = None
        # Whoever wants to hear of each event, and how many there were by kind; also those that could not be written.
        self.listeners: list[Callable[[Event], None]] = []
        self.reported: Counter[str] = Counter()
        self.damaged = False
        self._shortened = 0
        self._open()

    def _open(self) -> None:
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._db = sqlite3.connect(path.resolve().as_uri(), uri=True, isolation_level=None, timeout=_PATIENCE)
            self._write_ahead()
            # No fsync per ban: that would hold up the next one for as long as the disk takes.
            self._db.execute("PRAGMA synchronous = NORMAL")
            # Checkpoints sync the disk: `sync` does them, in a thread, and a commit only if that does not come.
            self._db.execute("PRAGMA wal_autocheckpoint = 2000")
            self._db.execute("PRAGMA journal_size_limit = 16777216")
            version = self._version()
            self.new = version == 0
            if version < SCHEMA:
                with self._transaction():
                    # Another process may have made the tables while this one waited for the lock.
                    version = self._version()
                    for statement in statements(version):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {max(version, SCHEMA)}")
            if version <= SCHEMA and (lacking := NAMES - self._tables()):
                raise sqlite3.DatabaseError(f"it has no table {min(lacking)}")
        except (sqlite3.OperationalError, OSError) as e:
            if isinstance(e, sqlite3.OperationalError) and is_damage(e):
                raise self._is_damaged(e) from None
            if isinstance(e, sqlite3.OperationalError) and "locked" in str(e):
                raise TryAgainError(f"the store {path} is busy: {e}", "try again in a moment") from None
            raise PermissionNeededError(
                f"the store {path} cannot be opened: {e}", "run as root or as the user the daemon runs as"
            ) from None
        except sqlite3.DatabaseError as e:
            raise self._is_damaged(e) from None
        if version > SCHEMA:
            raise NftbanError(
                f"the store {path} was written by a newer nftban (schema {version}, this one knows {SCHEMA})",
                "install that version again, or name another file as daemon.state",
            )

    def _is_damaged(self, e: Exception) -> DamagedStoreError:
        self._db.close()
        advice = f"move it away (mv {self.path} {self.path}.bad); a new one is made at start"
        return DamagedStoreError(f"the store {self.path} is damaged: {e}", advice)

    def probe(self) -> None:
        """Reads the small tables; raises DamagedStoreError where they cannot be."""
        for table in ("state", "cursor"):
            for _ in self._all(f"SELECT * FROM {table}"):  # noqa: S608 constants
                pass

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _tables(self) -> set[str]:
        return {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def sync(self) -> None:
        """What was written until now survives a power loss (a checkpoint syncs the log, then the file).  May be called
        in another thread, since it waits for the disk."""
        with self._in_words(), contextlib.closing(sqlite3.connect(self.path, timeout=0.1)) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def check(self) -> None:
        """Reads the whole file; raises DamagedStoreError where it is not sound.  May be called in another thread."""
        with self._in_words():
            found = damage.found(self.path, _PATIENCE)
        if found:
            self.damaged = True
            raise DamagedStoreError(f"the store {self.path} is damaged: {found}")

    def set_aside(self, now: float) -> Path:
        """Renames the file (and what SQLite keeps beside it) and opens a new one; returns its new name."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        aside = move_aside(self.path, now)
        self._open()
        self.damaged = False
        self.salvage(aside)
        return aside

    def _write_ahead(self) -> None:
        """Turns WAL on; while two programs make the store at once SQLite refuses that instead of waiting."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA busy_timeout = 0")
                self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # holds for a new file only, before WAL does
                self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")
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
            if is_damage(e):
                self.damaged = True
                raise DamagedStoreError(f"the store {self.path} is damaged: {e}") from e
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

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For the questions of history.py."""
        with self._in_words():
            yield self._db

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
        with self._with_progress(1):
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

    def add_bans(self, bans: Iterable[Ban]) -> int:
        """Writes many at once, without what led to them, into a store that has no live ban; returns how many."""
        rows = [(*_key(b.prefix), b.scope, b.since, b.until, b.origin.value, b.jail, b.reason, _NOTHING) for b in bans]
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO ban (family, first, last, length, scope, since, until, origin, jail, reason,"
                " needs_listing, detail) VALUES (?,?,?,?,?,?,?,?,?,?,0,?)",
                rows,
            )
        return len(rows)

    def salvage(self, damaged: Path) -> None:
        """Takes from a damaged store what can be read of cursors, logins and named state."""
        with self._transaction():
            damage.salvage(damaged, self._db)

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

    def shift(self, seconds: float, since: float, clock: Any) -> int:
        """The clock was put by so much: live bans that began from `since` on end as much later (earlier where
        negative); clock: what is to be known of it from now on, as `state("clock")`.  Returns how many."""
        with self._transaction():
            moved = self._db.execute(
                "UPDATE ban SET since = since + ?1, until = until + ?1 WHERE ended IS NULL AND since >= ?2",
                (seconds, since),
            ).rowcount
            self._db.execute("INSERT OR REPLACE INTO state VALUES ('clock', ?)", (json.dumps(clock),))
        return moved

    # how far the logs were read, and what jails know by then

    def save(self) -> None:
        """Writes what `along` has, in one transaction; raises StoreError."""
        with self._with_progress(0):
            pass

    @contextmanager
    def _with_progress(self, writing: int) -> Iterator[None]:
        changed = None if self.along is None else self.along.collect(writing)
        with self._transaction():
            if changed is not None:
                progress.write(self._db, changed)
            yield
        if self.along is not None and changed is not None:
            self.along.written()

    def offences(self, jail: str) -> Iterator[Offence]:
        """What the jail had counted, in the order of counting."""
        with self._in_words():
            yield from progress.offences(self._db, jail)

    def remembered(self, jail: str) -> list[tuple[str, str, str, str]]:
        """What the jail's matchers remembered: (source, kind, key, value)."""
        with self._in_words():
            return list(progress.remembered(self._db, jail))

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

    def set_cursors(self, cursors: Iterable[tuple[str, Cursor]]) -> None:
        with self._transaction():
            progress.write_cursors(self._db, cursors)

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
        """Writes it, then tells the listeners, also where it could not be written (StoreError)."""
        try:
            self._one(
                "INSERT INTO event (time, kind, text, prefix) VALUES (?,?,?,?)",
                (event.time, event.kind, event.text, str(event.prefix) if event.prefix else None),
            )
        finally:
            self.reported[event.kind] += 1
            for listener in self.listeners:
                listener(event)

    def events(self, limit: int = 20) -> list[Event]:
        """The newest first."""
        rows = self._all("SELECT time, kind, text, prefix FROM event ORDER BY id DESC LIMIT ?", (limit,))
        return [Event(t, kind, text, Prefix.parse(prefix) if prefix else None) for t, kind, text, prefix in rows]

    def prune(self, now: float, limits: Limits | None = None, findtimes: Mapping[str, float] | None = None) -> int:
        """Forgets a piece of what is beyond the limits, and of offences that are over (findtimes: seconds by jail);
        returns how many rows went: 0 when nothing is left to do."""
        limits = limits or Limits()
        with self._transaction():
            gone = retention.prune(self._db, now, limits, max((findtimes or {}).values(), default=0.0))
            for jail, seconds in (findtimes or {}).items():
                gone += retention.forget_over(self._db, jail, now - seconds)
            before, self._shortened = self._shortened, retention.shorten(self._db, self._shortened, limits)
        with self._in_words():  # execute() would give back one page: the statement has no columns, and is stepped once
            self._db.executescript(f"PRAGMA incremental_vacuum({retention.PIECE})")
        return gone + self._shortened - before


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
