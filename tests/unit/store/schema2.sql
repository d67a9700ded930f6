-- The tables of schema 2, with one ban, as that version left them.
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
INSERT INTO ban VALUES (7, 4, x'c0000207', x'c0000207', 32, 'smtp', 100.0, 900.0, 'log', 'postfix', 'pregreeting', 6, 5, 0,
    '{"verdict": null, "evidence": null, "offences": []}', NULL, NULL);
PRAGMA user_version = 2;
