"""The store's tables, and what turns those of an earlier version into them.

Guarantees: a store that was brought up to date has the same tables and indexes as a new one (a test compares them).
"""

from __future__ import annotations

SCHEMA = 3

_PROGRESS = """
CREATE TABLE offence (id INTEGER PRIMARY KEY, jail TEXT NOT NULL, prefix TEXT NOT NULL, time REAL NOT NULL,
    weight INTEGER NOT NULL, detail TEXT);
CREATE INDEX offence_prefix ON offence (jail, prefix);
CREATE INDEX offence_time ON offence (time);
CREATE TABLE memory (jail TEXT NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, saved REAL NOT NULL, PRIMARY KEY (jail, source, kind, key)) WITHOUT ROWID;
CREATE INDEX login_time ON login (time);
CREATE INDEX ban_jail ON ban (jail) WHERE ended IS NULL;
"""

TABLES = f"""
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
{_PROGRESS}"""

# 2: ban_end holds all that a start needs: from it 100,000 bans come into memory in a tenth of a second, without a look
# at what explains them.  3: what jails have counted and the sessions under way, with the cursors they belong to;
# ban_jail counts the live bans of each jail in 8 ms for 100,000.
_MIGRATIONS = {
    1: "CREATE INDEX ban_end ON ban (until, scope, family, length, first) WHERE ended IS NULL",
    2: _PROGRESS,
}

NAMES = frozenset({"ban", "login", "cursor", "state", "event", "offence", "memory"})
"""Of the tables: a file of this version without one of them is damaged."""


def statements(version: int) -> list[str]:
    """What makes this version's tables out of that one's; 0: out of nothing."""
    texts = [TABLES] if version == 0 else [_MIGRATIONS[old] for old in range(version, SCHEMA)]
    return [each for text in texts for each in text.split(";\n") if each.strip()]
