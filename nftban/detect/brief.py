"""What a line that matched means, in short: whether it is an offence or a login, whose, and by which rule.

Takes a rule's groups by number, as together.py gives them; gives a `Shape`, by which `Briefly` says of a match what
meaning.py would have made of it, without its facts, and with the same memory.  For who counts and needs no records.
No shape where a rule has something that only meaning.py knows (F-ONCE, F-DNSBL, F-PASSWORD, host names, ...).
Guarantees: the same as Meaning.of, line by line (tests/unit/detect/test_scan.py holds it); where a line has to be given
to that, nothing was changed.
Does not: keep facts in sessions: who asks here gets no records of the same log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from nftban.detect.expressions import ADDRESSES
from nftban.detect.matcher import Matcher
from nftban.detect.meaning import SESSION_GROUPS, Logged
from nftban.prefixes import Prefix
from nftban.records import Login, Offence

NEVER, ALWAYS = 0, -1
_KNOWN = 65_536
_ADDRESSES = (*ADDRESSES, "dns")
_MERGED = frozenset(("mlfid", "mlfforget", "mlfgained", "nofail"))

Kind = type[Offence] | type[Login] | type[Logged]
Brief = tuple[int, int, Kind, Prefix, float, int]
"""The number of a matcher, where in a chunk the line begins, what it is, whose, when, by which rule (from 1; only an
offence has one)."""


class Shape(NamedTuple):
    """rule: its number (from 1); the others are groups: where an address may be, the session's name (0: it has none),
    where a user's name may be, and what says that a line is no offence, is a login, ends the session (NEVER, ALWAYS, or
    the group that says so where it took something)."""

    rule: int
    addresses: tuple[int, ...]
    session: int
    users: tuple[int, ...]
    nofail: int
    gained: int
    forgets: int

    @property
    def only_ends(self) -> bool:
        """It means nothing but that a session ends, if there is one."""
        return (self.nofail, self.gained, self.forgets) == (ALWAYS, NEVER, ALWAYS)


def shape(rule: int, groups: Mapping[str, int], always: frozenset[str], *, merges: bool) -> Shape | None:
    """always: the groups that take something in every match; merges: sessions are fail2ban's; see Meaning."""
    names = set(groups)
    session = names & SESSION_GROUPS
    if "cidr" in names or not names & {*_ADDRESSES}:
        return None
    if session and (not merges or "mlfid" not in names or session - _MERGED or "ptr" in names):
        return None
    users = [groups["user"]] if "user" in names else []
    for name in sorted(names):
        kind, _, rest = name.partition("_")
        stands_for = re.sub(r"_\d+$", "", rest)
        if kind in ("alt", "tuple") and rest:
            if kind == "alt" and stands_for == "user":
                users.append(groups[name])
            elif stands_for in ("user", "id", "port", "cidr", "ptr", *_ADDRESSES, *SESSION_GROUPS):
                return None
    where = tuple(groups[name] for name in _ADDRESSES if name in names)
    of_session = (
        ALWAYS if name in always else groups.get(name, NEVER) for name in ("nofail", "mlfgained", "mlfforget")
    )
    return Shape(rule, where, groups.get("mlfid", 0), tuple(users), *of_session)


class Briefly:
    """What lines of one log mean.  Its methods add a Brief where there is one, and say whether they knew; each takes

    place: matcher and line, as in a Brief; data[at:end]: the line behind its date, which begins with a space.
    """

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._meaning = matcher.remembered
        self._tried = matcher.remembered.sessions.tried
        self._prefixes: dict[bytes | None, Prefix] = {}
        self._hosts: dict[bytes, str] = {}

    def plain(
        self,
        shape: Shape,
        match: re.Match[bytes],
        data: bytes,  # noqa: ARG002 - both are called alike
        at: int,  # noqa: ARG002
        end: int,  # noqa: ARG002
        time: float,
        place: tuple[int, int],
        add: Callable[[Brief], None],
    ) -> bool:
        """Of a rule that knows no sessions."""
        prefix = self._prefixes.get(match[shape.addresses[0]]) or self._prefix(match, shape.addresses)
        if prefix is None or self._meaning.listed:
            return False
        self._meaning.counts.offences += 1
        self._matcher.last = time
        add((*place, Offence, prefix, time, shape.rule))
        return True

    def merged(
        self,
        shape: Shape,
        match: re.Match[bytes],
        data: bytes,
        at: int,
        end: int,
        time: float,
        place: tuple[int, int],
        add: Callable[[Brief], None],
    ) -> bool:
        """Of a rule with sessions in fail2ban's way."""
        rule, addresses, named, users, nofail, gained, forgets = shape
        prefix = self._prefixes.get(match[addresses[0]]) or self._prefix(match, addresses)
        text = data[at + 1 : data.find(b" ", at + 1, end)]
        host, name = self._hosts.get(text) or self._host(text), match[named]
        if prefix is None or host is None or name is None:
            return False
        user = b""
        for group in users:
            if found := match[group]:
                user = found
                break
        login = gained and (gained < 0 or match[gained])
        offends = not (login or (nofail and (nofail < 0 or match[nofail])))
        ends = bool(forgets and (forgets < 0 or match[forgets] is not None))
        key = host, name.decode()
        counts = self._tried(key, time, prefix, user.decode(), offends=offends, ends=ends)
        if counts is None:
            return False
        if counts:
            self._matcher.last = time
            self._meaning.counts.offences += 1
            add((*place, Offence, prefix, time, rule))
        elif login:
            self._matcher.last = time
            self._meaning.counts.logins += 1
            add((*place, Login, prefix, time, 0))
        return True

    def _prefix(self, match: re.Match[bytes], addresses: tuple[int, ...]) -> Prefix | None:
        text = next((text for group in addresses if (text := match[group])), None)
        if text is None or (known := self._prefixes.get(text)) is not None:
            return None if text is None else known
        try:
            prefix = Prefix.parse(text.decode())
        except ValueError:
            return None
        if len(self._prefixes) >= _KNOWN:
            self._prefixes.clear()
        self._prefixes[text] = prefix
        return prefix

    def _host(self, text: bytes) -> str | None:
        if text.split() != [text]:
            return None
        if len(self._hosts) >= _KNOWN:
            self._hosts.clear()
        self._hosts[text] = text.decode()
        return self._hosts[text]
