"""What a line that matched means: an Offence, a Login, a Logged, or nothing yet.

Takes the rule, its groups by name, the time and the line; keeps what one line tells for a later one.
An address counts only where Prefix.parse takes it.  A host's name is never resolved: whoever owns a reverse zone would
choose the address, and the daemon would wait for his server; the line is counted (`unresolved`) and the name kept.
Sessions (sessions.py) are told apart by F-MLFID, in one of two ways.
In fail2ban's, a session's lines are merged: a rule without an address waits for a line that brings it, and counts with
that; F-NOFAIL counts nothing, F-MLFGAINED is a login and forgives what waits; but in a session that tried several
users every line counts.
A filter that uses <F-ONCE>, which is ours, has it stricter: such a rule counts only where nothing of the session has
counted yet, F-NOFAIL with F-ONCE lets nothing with F-ONCE count after it, and all other rules count each line.
The same F-PASSWORD (a hash, as Dovecot logs it) for the same user from the same address within an hour counts once: a
program with an old password is no guesser.
Guarantees: memory is bounded; time is the log's, never the clock's.
Does not: match, count over time (windows.py), look anything up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from nftban.detect.envelope import around, service
from nftban.detect.expressions import ADDRESSES
from nftban.detect.filterfile import Filter, Rule
from nftban.detect.sessions import Key, Session, Sessions
from nftban.prefixes import Prefix
from nftban.records import Login, LogLine, Offence, Service

LISTING_SECONDS = 3600.0
REPEATED_SECONDS = 3600.0
REPORTED_SECONDS = 3600.0
EVIDENCE_LENGTH = 2000

# Groups with a meaning of their own; every other named group is a fact.
_FLAGS = frozenset(
    {"nofail", "once", "mlfid", "mlfforget", "mlfbegin", "mlfgained", "content", "service", "dnsbl", "code", "password"}
    | {*ADDRESSES, "dns", "cidr", "fport"}
)
# Without any of these a match is an offence by itself.
SESSION_GROUPS = frozenset(("nofail", "once", "mlfid", "mlfforget", "mlfbegin", "mlfgained", "dnsbl", "password"))
_SERVICES = frozenset(Service)
_NOBODY = Prefix(6, 0, 128)


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


Result = Offence | Login | Logged | None


@dataclass(slots=True)
class Counts:
    """How many lines came, were matched by a rule, excused by ignoreregex, named no address (and the last host's name
    that stood in an address's place), were cut short, repeated a password, cost too much."""

    lines: int = 0
    matched: int = 0
    ignored: int = 0
    unresolved: int = 0
    oversized: int = 0
    offences: int = 0
    logins: int = 0
    repeated: int = 0
    overruns: int = 0
    last_name: str = ""


class Meaning:
    """The memory of one filter over one log."""

    def __init__(
        self, filter: Filter, counts: Counts, limit: int, report: Callable[[str], None] = lambda _: None
    ) -> None:
        """limit: sessions, listings and passwords held at once, of each; report: is told of names, once an hour."""
        self._report = report
        self._reported = float("-inf")
        self._filter = filter
        self.counts = counts
        self._limit = limit
        self.sessions = Sessions(limit)
        self.listed: OrderedDict[Prefix, tuple[float, tuple[tuple[str, str], ...]]] = OrderedDict()
        self.tried: OrderedDict[tuple[Prefix, str, str], float] = OrderedDict()
        self.touched: set[Prefix | tuple[Prefix, str, str]] | None = None
        """Where somebody keeps them elsewhere and empties it: keys of `listed` and `tried` that changed."""
        names = [set(rule.pattern.groupindex) for rule in filter.rules]
        self.strict = any("once" in each for each in names)
        of_prefix = set(filter.prefix.pattern.groupindex) if filter.prefix is not None else set()
        self._plain = {
            rule.number
            for rule, each in zip(filter.rules, names, strict=True)
            if not (each | of_prefix) & SESSION_GROUPS
        }
        # Where rules are strict, only those that name no address need the addresses of harmless lines remembered.
        self._needs_address = any(not each & {*ADDRESSES, "dns"} for each in names)

    def of(self, line: LogLine, rule: Rule, groups: dict[str, str], time: float, rest: str) -> Result:
        """groups: those that matched, by name; rest: the line without its date."""
        if rule.number in self._plain and not self.listed:
            return self._simple(line, rule, groups, time, rest)
        key = _key(groups, rest)
        gained, forgets = bool(groups.get("mlfgained")), "mlfforget" in groups
        nofail = gained or bool(groups.get("nofail"))
        if key not in self.sessions and nofail and not gained and (forgets or "mlfbegin" in groups):
            return None  # most lines of a mail log: a session begins or ends of which nothing is known
        prefix, name = _offender(groups)
        session = self.sessions.live(key, time, prefix, begins="mlfbegin" in groups)
        prefix = prefix or (session.prefix if session is not None else None)
        facts = _facts(groups)
        counts = False
        if not self.strict and key is not None:
            session, facts, counts = self._merged(key, session, facts, time, prefix, gained=gained, forgets=forgets)
            if session is not None:
                name = session.name = name or session.name
        text = line.text[:EVIDENCE_LENGTH]
        listed = ((groups["dnsbl"], groups.get("code", "")),) if "dnsbl" in groups else ()
        if gained and not counts:
            if forgets:
                self.sessions.forget(key)
            if prefix is None:
                return None
            self.counts.logins += 1
            return Login(prefix, time, facts.get("user", ""), text, line.source)
        if nofail and not counts:
            if not self.strict and not listed and "ptr" not in groups and (session is None or not session.waiting):
                return None  # in fail2ban's way `_merged` has done it all, but for evidence
            told = tuple(facts.items())
            logged = Logged(prefix or _NOBODY, time, told, listed, text, line.source)
            return self._harmless(key, session, groups, logged, forgets=forgets)
        told = tuple(facts.items())
        if prefix is None and name:
            self._note_name(name, time)
            return None
        offence = Offence(
            filter=self._filter.name,
            rule=_named(rule, groups),
            prefix=prefix or _NOBODY,
            time=time,
            service=_service(groups, rest),
            facts=told,
            listed=self._known_listings(prefix, time, listed),
            line=text,
            source=line.source,
        )
        if self._repeats(offence, groups.get("password", "")):
            self.counts.repeated += 1
            if forgets:
                self.sessions.forget(key)
            elif key is not None:  # its end is no offence either
                self.sessions.keep(key, session, time, prefix).counted = True
            return None
        return self._counted(key, session, offence, once="once" in groups, forgets=forgets)

    def _simple(self, line: LogLine, rule: Rule, groups: dict[str, str], time: float, rest: str) -> Offence | None:
        """What `of` makes of a rule that knows no sessions, logins or evidence."""
        prefix, name = _offender(groups)
        if prefix is None:
            if name:
                self._note_name(name, time)
            else:
                self.counts.unresolved += 1
            return None
        self.counts.offences += 1
        named, facts = _named(rule, groups), tuple(_facts(groups).items())
        text = line.text[:EVIDENCE_LENGTH]
        return Offence(self._filter.name, named, prefix, time, 1, _service(groups, rest), facts, (), text, line.source)

    def _note_name(self, name: str, time: float) -> None:
        self.counts.unresolved += 1
        self.counts.last_name = name = name[:254]
        if not 0 <= time - self._reported <= REPORTED_SECONDS:
            self._reported = time
            self._report(
                f"filter {self._filter.name}: a line has {name!r} where the client's address should be and does not "
                "count: names are not looked up; let the server log addresses (in sshd_config: UseDNS no)"
            )

    def _merged(
        self,
        key: Key,
        session: Session | None,
        facts: dict[str, str],
        time: float,
        prefix: Prefix | None,
        *,
        gained: bool,
        forgets: bool,
    ) -> tuple[Session | None, dict[str, str], bool]:
        """fail2ban's way: the session, all that its lines gave, and whether it counts even where the line does not."""
        if session is None and forgets:
            return None, facts, False
        session = self.sessions.keep(key, session, time, prefix)
        facts = session.learn(facts)
        if gained:
            session.waiting = None
        counts = session.waiting is not None or len(session.users) > 1
        if forgets:
            self.sessions.forget(key)
        return session, facts, counts

    def _harmless(
        self, key: Key | None, session: Session | None, groups: Mapping[str, str], logged: Logged, *, forgets: bool
    ) -> Offence | Logged | None:
        """An F-NOFAIL line: it may bring the address an earlier line lacked, or excuse the session."""
        prefix = None if logged.prefix is _NOBODY else logged.prefix
        out: Offence | Logged | None = None
        if session is not None and session.waiting is not None and prefix is not None:
            out = self._resolved(session.waiting, prefix, logged.time)
            session.waiting = None
            session.counted = True
        if forgets:
            self.sessions.forget(key)
        elif key is not None and ("once" in groups or (self._needs_address and prefix is not None)):
            session = self.sessions.keep(key, session, logged.time, prefix)
            session.counted = session.counted or "once" in groups
        if out is None and prefix is not None and (logged.listed or "ptr" in groups):
            if logged.listed:
                self._remember(logged)
            out = logged
        return out

    def _resolved(self, waiting: Offence, prefix: Prefix, time: float) -> Offence:
        self.counts.offences += 1
        return replace(waiting, prefix=prefix, time=time, listed=self._known_listings(prefix, time, waiting.listed))

    def _counted(
        self, key: Key | None, session: Session | None, offence: Offence, *, once: bool, forgets: bool
    ) -> Offence | None:
        """An offence, if its session lets it count."""
        waiting = session.waiting if session is not None and not self.strict else None
        if offence.prefix is _NOBODY:
            if key is None:
                self.counts.unresolved += 1
            elif not forgets:
                self.sessions.keep(key, session, offence.time, None).waiting = waiting or offence
            return None
        counts = not (once and session is not None and session.counted)
        if key is not None:
            if forgets:
                self.sessions.forget(key)
            else:
                session = self.sessions.keep(key, session, offence.time, offence.prefix)
                session.counted = True
        if waiting is not None and session is not None:
            session.waiting = None
            return self._resolved(replace(waiting, facts=offence.facts), offence.prefix, offence.time)
        if not counts:
            return None
        self.counts.offences += 1
        return offence

    def _repeats(self, offence: Offence, password: str) -> bool:
        """Whether this password was tried already, for this user from this address."""
        if not password or offence.prefix is _NOBODY:
            return False
        key = (offence.prefix, dict(offence.facts).get("user", "")[:300], password[:300])
        before = self.tried.get(key)
        self.tried[key] = offence.time if before is None else max(before, offence.time)
        self.tried.move_to_end(key)
        self._touch(key)
        if len(self.tried) > self._limit:
            self._touch(self.tried.popitem(last=False)[0])
        return before is not None and abs(offence.time - before) <= REPEATED_SECONDS

    def _remember(self, logged: Logged) -> None:
        _, held = self._known(logged.prefix, logged.time)
        self.listed[logged.prefix] = (logged.time, tuple(dict.fromkeys(held + logged.listed))[-16:])
        self.listed.move_to_end(logged.prefix)
        self._touch(logged.prefix)
        if len(self.listed) > self._limit:
            self._touch(self.listed.popitem(last=False)[0])

    def _touch(self, key: Prefix | tuple[Prefix, str, str]) -> None:
        if self.touched is not None:
            self.touched.add(key)

    def _known(self, prefix: Prefix, time: float) -> tuple[float, tuple[tuple[str, str], ...]]:
        held = self.listed.get(prefix)
        return held if held is not None and time - held[0] <= LISTING_SECONDS else (time, ())

    def _known_listings(
        self, prefix: Prefix | None, time: float, own: tuple[tuple[str, str], ...]
    ) -> tuple[tuple[str, str], ...]:
        """What the line itself says, and what the server logged of this client in the hour before."""
        if prefix is None or not self.listed:
            return own
        held = self._known(prefix, time)[1]
        zones = {zone for zone, _ in held}
        return held + tuple(pair for pair in own if pair[0] not in zones)


def _offender(groups: Mapping[str, str]) -> tuple[Prefix | None, str]:
    """The address, or the text in its place that is none."""
    for name in (*ADDRESSES, "dns"):
        text = groups.get(name)
        if text:
            try:
                return _prefix(f"{text}/{groups['cidr']}" if "cidr" in groups else text), ""
            except ValueError:
                return None, text
    return None, ""


# Who offends does so again, and many lines may name one address.
_prefix = lru_cache(maxsize=16_384)(Prefix.parse)


def _named(rule: Rule, groups: Mapping[str, str]) -> str:
    """The rule's number, and words by which a person knows it."""
    words = groups.get("once") or rule.words
    return f"{rule.number}: {words[:40]}" if words else str(rule.number)


def _facts(groups: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in groups.items() if _is_fact(name)}


@cache
def _is_fact(name: str) -> bool:
    return name not in _FLAGS and not name.startswith(_UNSAID)


_UNSAID = ("alt_", "tuple_", "cond_", "skiplines", "_")


def _key(groups: Mapping[str, str], rest: str) -> Key | None:
    """What names a session: the log's host, which is a line's first word, and the F-MLFID text."""
    return ((rest.split(None, 1) or [""])[0], groups["mlfid"]) if "mlfid" in groups else None


def _service(groups: Mapping[str, str], rest: str) -> Service:
    named = groups.get("service", "").lower()
    return Service(named) if named in _SERVICES else service(around(None, rest).program)
