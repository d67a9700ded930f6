"""What is known of the connections that a log tells of in several lines.

Takes a key (the log's host and the F-MLFID text), the line's time and the client's address; gives the live Session,
which the matcher reads and writes.
A session ends with `forget`, when another client's address comes up under the same key, when the line says that one
begins, or 15 minutes of the log's time after its last line: process ids come round again.
Guarantees: bounded memory; of too many, the longest untouched go.
Who keeps them elsewhere sets `touched` to a set and empties it from time to time: keys whose session may be another
now, or gone; `get` and `put` are for him.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nftban.prefixes import Prefix
from nftban.records import Offence

SESSION_SECONDS = 900.0
_TEXT = 300
_USERS = 16

Key = tuple[str, str]


@dataclass(slots=True)
class Session:
    """last: time of its latest line; name: what its lines have instead of an address; counted: an offence of it was
    counted; waiting: an offence whose address is still to come; facts: what its lines gave, the later over the
    earlier; users: the names that were tried."""

    last: float
    prefix: Prefix | None = None
    name: str = ""
    counted: bool = False
    waiting: Offence | None = None
    facts: dict[str, str] = field(default_factory=dict)
    users: set[str] = field(default_factory=set)

    def learn(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Takes what a line gave; returns all that is known now."""
        self.facts.update({name: text[:_TEXT] for name, text in facts.items()})
        user = facts.get("user")
        if user and len(self.users) < _USERS:
            self.users.add(user[:_TEXT])
        return dict(self.facts)


class Sessions:
    """The sessions of one log."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sessions: OrderedDict[Key, Session] = OrderedDict()
        self.touched: set[Key] | None = None
        self.begun: set[str] = set()
        """What the F-MLFID texts of sessions begin with, up to their first colon and space: of those that live, and
        of many that are over."""
        self.untold = False
        """Whether one has no colon and space in it."""

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._sessions)

    def __contains__(self, key: Key | None) -> bool:
        return key in self._sessions

    def live(self, key: Key | None, time: float, prefix: Prefix | None, *, begins: bool) -> Session | None:
        """The session of this key, if it is still this client's."""
        session = self._sessions.get(key) if key is not None else None
        if key is None or session is None:
            return None
        if self.touched is not None:
            self.touched.add(key)
        foreign = prefix is not None and session.prefix is not None and session.prefix != prefix
        if begins or foreign or time - session.last > SESSION_SECONDS:
            del self._sessions[key]
            return None
        return session

    def keep(self, key: Key, session: Session | None, time: float, prefix: Prefix | None) -> Session:
        """The session, made where there is none, as touched by a line."""
        sessions = self._sessions
        if session is None:
            session = Session(time)
            self._note_begun(key[1])
            # The longest untouched go first: those that are over, and one more where the table is full.
            while sessions and (
                len(sessions) >= self._limit or time - sessions[next(iter(sessions))].last > SESSION_SECONDS
            ):
                old, _ = sessions.popitem(last=False)
                if self.touched is not None:
                    self.touched.add(old)
        if self.touched is not None:
            self.touched.add(key)
        sessions[key] = session
        sessions.move_to_end(key)
        session.last = max(session.last, time)
        session.prefix = prefix or session.prefix
        return session

    def _note_begun(self, name: str) -> None:
        end = name.find(": ") + 2
        self.untold = self.untold or end < 2
        if len(self.begun) > 4 * self._limit:
            self.begun = {name[: name.find(": ") + 2] for _, name in self._sessions}
        self.begun.add(name[:end])

    def tried(self, key: Key, time: float, prefix: Prefix, user: str, *, offends: bool, ends: bool) -> bool | None:
        """All that a line of fail2ban's way changes, but for facts; returns whether it counts.

        offends: it counts by itself; ends: the session ends with it.  None, and nothing is changed, where an offence
        waits for its address.
        """
        sessions = self._sessions
        session = sessions.get(key)
        if session is not None:
            known = session.prefix
            if session.waiting is not None:
                return None
            if time - session.last > SESSION_SECONDS or (known is not prefix and known is not None and known != prefix):
                self.forget(key)
                session = None
        if session is None:
            if ends:
                return offends
            session = self.keep(key, None, time, prefix)
        elif ends:
            self.forget(key)
        else:
            sessions.move_to_end(key)
            if session.last < time:
                session.last = time
            session.prefix = prefix
            if self.touched is not None:
                self.touched.add(key)
        users = session.users
        if user and user not in users and len(users) < _USERS:
            users.add(user[:_TEXT])
        if offends or len(users) > 1:
            session.counted = True
            return True
        return False

    def forget(self, key: Key | None) -> None:
        if key is not None and self._sessions.pop(key, None) is not None and self.touched is not None:
            self.touched.add(key)

    def get(self, key: Key) -> Session | None:
        """As it is, whatever its age."""
        return self._sessions.get(key)

    def put(self, key: Key, session: Session) -> None:
        """One that was kept elsewhere: the last touched."""
        self._sessions[key] = session
        self._note_begun(key[1])
        if len(self._sessions) > self._limit:
            self._sessions.popitem(last=False)
