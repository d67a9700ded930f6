"""A store that is damaged: how that is noticed, and how it is put out of the way.

Takes SQLite's errors and the file; gives whether they mean damage, what a look at the whole file finds, and the new
name of one that was set aside.  Guarantees: nothing is deleted: whoever wants to may still look into it.
What of it can be read of small tables is `salvage`d; whoever reads them checks each value.
Does not: repair.  What must not be lost is in the kernel's sets as well (daemon/rebuild.py).
Source: https://www.sqlite.org/rescode.html, https://www.sqlite.org/howtocorrupt.html
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from nftban.errors import NftbanError, StoreError


class DamagedStoreError(StoreError):
    """The file is no store, or not all of it."""

    exit_code = NftbanError.exit_code


def move_aside(path: Path, now: float) -> Path:
    """Renames a store with what SQLite keeps beside it; returns the new name, which has the date."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S.%fZ}")
    for ending in ("-wal", "-shm", ""):
        beside = path.with_name(path.name + ending)
        with contextlib.suppress(FileNotFoundError):
            beside.rename(aside.with_name(aside.name + ending))
    return aside


def is_damage(e: sqlite3.Error) -> bool:
    code = getattr(e, "sqlite_errorcode", None)  # of errors that this module raises itself there is none
    lacks = isinstance(e, sqlite3.OperationalError) and str(e).startswith(("no such table", "no such index"))
    return lacks or (code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


def found(path: Path, patience: float) -> str:
    """What is wrong with the file, in words, after reading all of it; empty: nothing.  Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path, timeout=patience)) as db:
        (words,) = db.execute("PRAGMA quick_check(1)").fetchone()
    return "" if words == "ok" else " ".join(str(words).split())


def salvage(path: Path, into: sqlite3.Connection) -> None:
    """Copies what can be read of cursors, logins and named state; inside a transaction of `into`."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as db:
        db.text_factory = lambda octets: octets.decode(errors="strict")
        for table, columns in (("cursor", 4), ("login", 5), ("state", 2)):
            marks = ",".join("?" * columns)
            with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
                for row in db.execute(f"SELECT * FROM {table}"):  # noqa: S608 constants
                    if len(row) == columns and (table != "state" or _is_json(row[1])):
                        into.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608


def _is_json(text: object) -> bool:
    try:
        json.loads(str(text))
    except ValueError:
        return False
    return True
