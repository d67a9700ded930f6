"""What a log line means to a filter.

Takes a `Filter` and log lines one by one; gives an Offence, a Login, a Logged (something the server itself found
out about a client, no misdeed) or None.
The order is fail2ban's: the date is cut out, prefregex, failregex by search (the first that matches), ignoreregex.
An address counts only where Prefix.parse takes it; a host name is never resolved (`unresolved`).
Sessions: lines with the same log host and F-MLFID text, from one client, belong together until a line with
F-MLFFORGET, a line with F-MLFBEGIN, another client's address, or 15 minutes of log time.  Within one,
- a rule with F-ONCE counts only where nothing of the session has counted yet; other rules count every line;
- F-NOFAIL with F-ONCE counts nothing and lets nothing with F-ONCE count after it;
- a rule without an address waits for the address that an F-NOFAIL line brings, or takes the one already seen.
Guarantees: no line raises; memory is bounded; time is the log's, never the clock's.
Does not: count over time (windows.py), decide anything, read files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nftban.detect.envelope import around, content, service
from nftban.detect.expressions import ADDRESSES
from nftban.detect.filterfile import Filter, Rule
from nftban.detect.timestamps import DAY, Timestamps
from nftban.prefixes import Prefix
from nftban.records import Login, LogLine, Offence, Service

SESSION_SECONDS = 900.0
LISTING_SECONDS = 3600.0
EVIDENCE_LENGTH = 2000

# Groups with a meaning of their own; every other named group is a fact.
_SESSION = ("nofail", "once", "mlfid", "mlfforget", "mlfbegin", "mlfgained")
_FLAGS = frozenset((*_SESSION, *ADDRESSES, "content", "service", "dnsbl", "code", "dns", "cidr", "fport"))
_SERVICES = frozenset(Service)


@dataclass(frozen=True, slots=True)
class Logged:
    """Evidence from the server's own log that is no offence.

    listed: (zone, code) pairs it got from a DNSBL; facts: e.g. ("ptr", a name that does not resolve back).
    """

    prefix: Prefix
    time: float
    facts: tuple[tuple[str, str], ...] = ()
    listed: tuple[tuple[str, str], ...] = ()
    line: str = ""
    source: str = ""


@dataclass(slots=True)
class Counts:
    """How many lines came, were matched by a rule, excused by ignoreregex, named no address, were cut short."""

    lines: int = 0
    matched: int = 0
    ignored: int = 0
    unresolved: int = 0
    oversized: int = 0
    offences: int = 0
    logins: int = 0


@dataclass(slots=True)
class _Session:
    last: float
    prefix: Prefix | None = None
    counted: bool = False
    waiting: Offence | None = None  # with the null prefix; its address is still to come


_NOBODY = Prefix(6, 0, 128)


class Matcher:
    """One filter over one log; holds the sessions of that log, so each log wants its own."""

    def __init__(self, filter: Filter, *, sessions: int = 10_000) -> None:
        self.filter = filter
        self.counts = Counts()
        self._limit = sessions
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()
        self._listed: OrderedDict[Prefix, tuple[float, tuple[tuple[str, str], ...]]] = OrderedDict()
        self._timestamps = Timestamps()
        # Only rules that name no address need the addresses of harmless lines remembered.
        self._needs_address = any(not set(rule.pattern.groupindex) & {*ADDRESSES, "dns"} for rule in filter.rules)

    def match(self, line: LogLine, now: float) -> Offence | Login | Logged | None:
        """What this line is; `now` dates lines that have no date and completes those without a year."""
        self.counts.lines += 1
        if line.truncated:
            self.counts.oversized += 1
        text = line.text
        if not self._may_match(text):
            return None
        logged, rest = content(text, self._timestamps, now)
        found = self._search(rest)
        if found is None:
            return None
        rule, groups = found
        self.counts.matched += 1
        # A date from a clock far ahead would sit in every window for as long.
        time = now if logged is None or logged > now + DAY else logged
        return self._meaning(line, rule, groups, time, rest)

    def _may_match(self, text: str) -> bool:
        for word in self.filter.words:  # not any(): it would double the cost of a line that means nothing
            if word in text:
                return True
        return not self.filter.words

    def _search(self, rest: str) -> tuple[Rule, dict[str, str]] | None:
        groups: dict[str, str] = {}
        if self.filter.prefix is not None:
            prefixed = self.filter.prefix.pattern.search(rest)
            if prefixed is None:
                return None
            groups = {name: text for name, text in prefixed.groupdict().items() if text is not None}
            rest = groups.get("content") or rest
        for rule in self.filter.rules:
            found = rule.pattern.search(rest)
            if found is not None:
                if any(ignore.pattern.search(rest) for ignore in self.filter.ignore):
                    self.counts.ignored += 1
                    return None
                groups.update({name: text for name, text in found.groupdict().items() if text is not None})
                return rule, groups
        return None

    def _meaning(
        self, line: LogLine, rule: Rule, groups: dict[str, str], time: float, rest: str
    ) -> Offence | Login | Logged | None:
        key = _key(groups, rest)
        if key not in self._sessions and "nofail" in groups and "mlfgained" not in groups and _bounds(groups):
            return None  # most lines of a mail log: a session begins or ends of which nothing is known
        prefix = _prefix(groups)
        if prefix is None and any(name in groups for name in (*ADDRESSES, "dns")):
            self.counts.unresolved += 1
            return None
        session = self._session(key, time, prefix, begins="mlfbegin" in groups)
        if prefix is None and session is not None:
            prefix = session.prefix
        facts = _facts(groups)
        text = line.text[:EVIDENCE_LENGTH]
        listed = ((groups["dnsbl"], groups.get("code", "")),) if "dnsbl" in groups else ()
        forgets = "mlfforget" in groups

        if "mlfgained" in groups:
            if key and forgets:
                self._sessions.pop(key, None)
            if prefix is None:
                return None
            self.counts.logins += 1
            return Login(prefix, time, groups.get("user", ""), text, line.source)

        if "nofail" in groups:
            return self._harmless(
                key, session, groups, Logged(prefix or _NOBODY, time, facts, listed, text, line.source)
            )

        offence = Offence(
            filter=self.filter.name,
            rule=_named(rule, groups),
            prefix=prefix or _NOBODY,
            time=time,
            service=_service(groups, rest),
            facts=facts,
            listed=self._known_listings(prefix, time, listed),
            line=text,
            source=line.source,
        )
        return self._counted(key, session, offence, once="once" in groups, forgets=forgets)

    def _harmless(
        self, key: tuple[str, str] | None, session: _Session | None, groups: Mapping[str, str], logged: Logged
    ) -> Offence | Logged | None:
        """An F-NOFAIL line: it may bring the address an earlier line lacked, or excuse the session."""
        prefix = None if logged.prefix is _NOBODY else logged.prefix
        out: Offence | Logged | None = None
        if session is not None and session.waiting is not None and prefix is not None:
            out = replace(
                session.waiting, prefix=prefix, listed=self._known_listings(prefix, logged.time, session.waiting.listed)
            )
            session.waiting = None
            session.counted = True
            self.counts.offences += 1
        if key is not None and "mlfforget" in groups:
            self._sessions.pop(key, None)
        elif key is not None and ("once" in groups or (self._needs_address and prefix is not None)):
            self._keep(key, session, logged.time, prefix, counted="once" in groups)
        if out is None and prefix is not None and (logged.listed or "ptr" in groups):
            if logged.listed:
                self._remember(logged)
            out = logged
        return out

    def _counted(
        self, key: tuple[str, str] | None, session: _Session | None, offence: Offence, *, once: bool, forgets: bool
    ) -> Offence | None:
        """An offence, if its session lets it count."""
        if offence.prefix is _NOBODY:
            if key is None:
                self.counts.unresolved += 1
            elif not forgets:
                self._keep(key, session, offence.time, None, counted=False).waiting = offence
            return None
        counts = not (once and session is not None and session.counted)
        if key is not None:
            if forgets:
                self._sessions.pop(key, None)
            else:
                self._keep(key, session, offence.time, offence.prefix, counted=True)
        if not counts:
            return None
        self.counts.offences += 1
        return offence

    def _session(
        self, key: tuple[str, str] | None, time: float, prefix: Prefix | None, *, begins: bool
    ) -> _Session | None:
        """The live session of this key, if it is still this client's."""
        if key is None:
            return None
        session = self._sessions.get(key)
        if session is None:
            return None
        foreign = prefix is not None and session.prefix is not None and session.prefix != prefix
        if begins or foreign or time - session.last > SESSION_SECONDS:
            del self._sessions[key]
            return None
        return session

    def _keep(
        self, key: tuple[str, str], session: _Session | None, time: float, prefix: Prefix | None, *, counted: bool
    ) -> _Session:
        if session is None:
            session = self._sessions[key] = _Session(time)
            # The longest untouched go first: those that are over, and one more where the table is full.
            while self._sessions and (
                len(self._sessions) > self._limit or time - next(iter(self._sessions.values())).last > SESSION_SECONDS
            ):
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        session.last = max(session.last, time)
        session.prefix = prefix or session.prefix
        session.counted = session.counted or counted
        return session

    def _remember(self, logged: Logged) -> None:
        _, held = self._known(logged.prefix, logged.time)
        self._listed[logged.prefix] = (logged.time, tuple(dict.fromkeys(held + logged.listed))[-16:])
        self._listed.move_to_end(logged.prefix)
        if len(self._listed) > self._limit:
            self._listed.popitem(last=False)

    def _known(self, prefix: Prefix, time: float) -> tuple[float, tuple[tuple[str, str], ...]]:
        held = self._listed.get(prefix)
        return held if held is not None and time - held[0] <= LISTING_SECONDS else (time, ())

    def _known_listings(
        self, prefix: Prefix | None, time: float, own: tuple[tuple[str, str], ...]
    ) -> tuple[tuple[str, str], ...]:
        """What the line itself says, and what the server logged of this client in the hour before."""
        if prefix is None or not self._listed:
            return own
        held = self._known(prefix, time)[1]
        zones = {zone for zone, _ in held}
        return held + tuple(pair for pair in own if pair[0] not in zones)


def _prefix(groups: Mapping[str, str]) -> Prefix | None:
    for name in ADDRESSES:
        text = groups.get(name)
        if text:
            try:
                return Prefix.parse(f"{text}/{groups['cidr']}" if "cidr" in groups else text)
            except ValueError:
                return None
    return None


def _named(rule: Rule, groups: Mapping[str, str]) -> str:
    """The rule's number, and words by which a person knows it."""
    words = groups.get("once") or rule.words
    return f"{rule.number}: {words[:40]}" if words else str(rule.number)


def _facts(groups: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The remaining groups; fail2ban's `alt_user_1` is one more place for `user`."""
    facts: dict[str, str] = {}
    for name, text in groups.items():
        if name in _FLAGS or name.startswith("cond_"):
            continue
        if name.startswith("alt_"):
            name = name[4:].rstrip("0123456789").rstrip("_")
            facts.setdefault(name, text)
        else:
            facts[name] = text
    return tuple(facts.items())


def _key(groups: Mapping[str, str], rest: str) -> tuple[str, str] | None:
    """What names a session: the log's host, which is a line's first word, and the F-MLFID text."""
    return ((rest.split(None, 1) or [""])[0], groups["mlfid"]) if "mlfid" in groups else None


def _bounds(groups: Mapping[str, str]) -> bool:
    return "mlfbegin" in groups or "mlfforget" in groups


def _service(groups: Mapping[str, str], rest: str) -> Service:
    named = groups.get("service", "").lower()
    return Service(named) if named in _SERVICES else service(around(None, rest).program)
