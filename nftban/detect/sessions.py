"""What is known of the connections that a log tells of in several lines.

Takes a key (the log's host and the F-MLFID text), the line's time and the client's address; gives the live Session,
which the matcher reads and writes.
A session ends with `forget`, when another client's address comes up under the same key, when the line says that one
begins, or 15 minutes of the log's time after its last line: process ids come round again.
Guarantees: bounded memory; of too many, the longest untouched go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
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

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, key: Key | None) -> bool:
        return key in self._sessions

    def live(self, key: Key | None, time: float, prefix: Prefix | None, *, begins: bool) -> Session | None:
        """The session of this key, if it is still this client's."""
        session = self._sessions.get(key) if key is not None else None
        if key is None or session is None:
            return None
        foreign = prefix is not None and session.prefix is not None and session.prefix != prefix
        if begins or foreign or time - session.last > SESSION_SECONDS:
            del self._sessions[key]
            return None
        return session

    def keep(self, key: Key, session: Session | None, time: float, prefix: Prefix | None) -> Session:
        """The session, made where there is none, as touched by a line."""
        if session is None:
            session = self._sessions[key] = Session(time)
            # The longest untouched go first: those that are over, and one more where the table is full.
            while self._sessions and (
                len(self._sessions) > self._limit or time - next(iter(self._sessions.values())).last > SESSION_SECONDS
            ):
                self._sessions.popitem(last=False)
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        session.last = max(session.last, time)
        session.prefix = prefix or session.prefix
        return session

    def forget(self, key: Key | None) -> None:
        if key is not None:
            self._sessions.pop(key, None)
