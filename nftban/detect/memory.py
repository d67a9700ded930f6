"""What a matcher remembers from line to line, as rows of text that can be kept elsewhere.

Takes a Matcher, whose sessions, listings, tried passwords, last date and held lines it follows from then on; gives
rows (kind, key, value), value None where there is none any more, and puts such rows into a new Matcher.
Guarantees: `changes` gives what became another since it was called last, at first all; a matcher that has been given
all rows goes on as the one they came from; rows that do not fit (another version wrote them) are left out.
Does not: write them anywhere, know files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from nftban.detect.matcher import Matcher
from nftban.detect.sessions import Session
from nftban.plain import from_plain, to_plain
from nftban.prefixes import Prefix
from nftban.records import Offence

Row = tuple[str, str, str | None]

SESSION, LISTED, TRIED, REST = "session", "listed", "tried", "rest"


class Memory:
    """One matcher's."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._meaning = matcher.remembered
        self._rest = ""
        self.everything()

    def everything(self) -> None:
        """`changes` gives all that there is, once more."""
        self._meaning.sessions.touched = set(self._meaning.sessions)
        self._meaning.touched = {*self._meaning.listed, *self._meaning.tried}
        self._rest = ""

    def __len__(self) -> int:
        """How many rows may have changed."""
        return len(self._meaning.sessions.touched or ()) + len(self._meaning.touched or ())

    def changes(self) -> list[Row]:
        """In no order; of each key one row."""
        rows: list[Row] = []
        sessions = self._meaning.sessions
        for name in sessions.touched or ():
            session = sessions.get(name)
            rows.append((SESSION, json.dumps(name), None if session is None else _session(session)))
        for key in self._meaning.touched or ():
            if isinstance(key, Prefix):
                listed = self._meaning.listed.get(key)
                rows.append((LISTED, str(key), None if listed is None else json.dumps(listed)))
            else:
                tried = self._meaning.tried.get(key)
                rows.append((TRIED, json.dumps([str(key[0]), *key[1:]]), None if tried is None else json.dumps(tried)))
        rest = json.dumps(self._matcher.held)
        if rest != self._rest:
            self._rest = rest
            rows.append((REST, "", rest))
        sessions.touched, self._meaning.touched = set(), set()
        return rows

    def restore(self, rows: Iterable[tuple[str, str, str]]) -> int:
        """Takes what was kept; it is no change.  Returns how many rows did not fit."""
        bad = 0
        sessions: list[tuple[tuple[str, str], Session]] = []
        for kind, key, value in rows:
            try:
                if kind == SESSION:
                    host, name = json.loads(key)
                    sessions.append(((str(host), str(name)), _read(json.loads(value))))
                elif kind == LISTED:
                    time, pairs = json.loads(value)
                    known = tuple((str(zone), str(code)) for zone, code in pairs)
                    self._meaning.listed[Prefix.parse(key)] = (float(time), known)
                elif kind == TRIED:
                    prefix, user, password = json.loads(key)
                    self._meaning.tried[Prefix.parse(prefix), str(user), str(password)] = float(json.loads(value))
                elif kind == REST:
                    self._matcher.held = json.loads(value)
                    self._rest = value
            except (ValueError, TypeError, KeyError):
                bad += 1
        for name, session in sorted(sessions, key=lambda pair: pair[1].last):
            self._meaning.sessions.put(name, session)
        return bad


def _session(session: Session) -> str:
    prefix = None if session.prefix is None else str(session.prefix)
    waiting = to_plain(session.waiting)
    return json.dumps(
        [session.last, prefix, session.name, session.counted, waiting, session.facts, sorted(session.users)]
    )


def _read(plain: Any) -> Session:
    last, prefix, name, counted, waiting, facts, users = plain
    return Session(
        float(last),
        None if prefix is None else Prefix.parse(prefix),
        str(name),
        bool(counted),
        None if waiting is None else from_plain(Offence, waiting),
        {str(k): str(v) for k, v in facts.items()},
        {str(user) for user in users},
    )
