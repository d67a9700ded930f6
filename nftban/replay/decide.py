"""Which bans some settings would have made of what was found in logs.

Takes Offence, Login and Logged records in the order of the log's time, with the jail that counts them; gives `WouldBan`
after `WouldBan`, and of each prefix what the sweep over thresholds needs.
The stages are the daemon's: ignore lists, the ban that covers it already, windows, what is known, judge, escalation,
what must never be banned.
Guarantees: no clock and no I/O; `now` is the newest time the logs had so far; the same records give the same bans.
Does not: lift bans (a delisting or an unban that would have come), look at SSH sessions of that time, resolve the allow
list's host names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from nftban.detect.matcher import Logged
from nftban.judge import judge
from nftban.prefixes import Prefix
from nftban.protect.protected import Protected
from nftban.records import Action, Ban, Evidence, History, Login, Offence, Origin, Service, Suspect, Verdict
from nftban.verify.verify import Told

if TYPE_CHECKING:
    from nftban.daemon.assemble import JailSetup
    from nftban.daemon.known import Known

KEPT_LINES = 3
"""Offences kept with a ban to be shown, the newest."""

SAME_LOGIN = 10.0
"""Seconds within which an address's logins are one: a server may log one in several lines."""

Answers = Callable[[Suspect, Told, float], Evidence | None]
"""What DNS said of a suspect's last address, told as if it were asked now; None where nobody knows."""


class Counted(NamedTuple):
    """An offence, as little of it as a sweep needs.  time: the newest that the logs had; logged: the line's own; jail:
    its number; evidence: what was known of the address."""

    time: float
    logged: float
    jail: int
    weight: int
    service: Service
    evidence: Evidence | None


@dataclass(slots=True)
class WouldBan:
    """A ban that would have been.

    begun: the prefix's first offence, since an earlier ban if there was one; counted: offences in the window; stopped:
    offences while it held, lines: lines of the logs that name the address then, logins, mails: good ones among them.
    """

    ban: Ban
    begun: float
    counted: int
    stopped: int = 0
    lines: int = 0
    logins: int = 0
    mails: int = 0

    def holds(self, time: float) -> bool:
        return self.ban.since <= time and (self.ban.until is None or time < self.ban.until)


@dataclass(slots=True)
class Good:
    """The good that a prefix did: successful logins, users (a few), mail that was accepted."""

    logins: int = 0
    mails: int = 0
    users: set[str] = field(default_factory=set)


class Decider:
    """One set of settings over all logs."""

    def __init__(
        self,
        jails: Sequence[JailSetup],
        scopes: Mapping[str, Sequence[int]],
        protected: Protected,
        known: Known,
        answers: Answers,
    ) -> None:
        """scopes: their ports; known: takes the answers; answers: asked where the daemon would ask DNS."""
        self.jails = tuple(jails)
        self.scopes = scopes
        self.bans: list[WouldBan] = []
        self.offences: dict[Prefix, list[Counted]] = {}
        self.addresses: dict[Prefix, set[Prefix]] = {}
        """Prefix as counted -> the addresses of it that offended or logged in."""
        self.good: dict[Prefix, Good] = {}
        self.spared: Counter[Prefix] = Counter()
        self.refused: dict[Prefix, str] = {}
        self.counters: Counter[str] = Counter()
        self._numbers = {jail.name: number for number, jail in enumerate(self.jails)}
        self._protected = protected
        self._known = known
        self._answers = answers
        self._live: dict[tuple[Prefix, str], tuple[float, WouldBan]] = {}
        self._earlier: dict[Prefix, list[float]] = {}  # when its bans end
        self._begun: dict[Prefix, float] = {}
        self.logins: dict[Prefix, list[float]] = {}

    def take(self, jail: JailSetup, result: Offence | Login | Logged, now: float) -> None:
        if isinstance(result, Offence):
            self._offence(jail, result, now)
        elif isinstance(result, Login):
            self._login(jail, result, now)
        else:
            self._known.note_logged(result.prefix, result.listed, now)

    def covering(self, prefix: Prefix, scope: str, now: float) -> WouldBan | None:
        """The ban that holds for this prefix as it is counted, in this scope or in all."""
        for each in (scope, "all"):
            held = self._live.get((prefix, each))
            if held is not None and held[0] > now:
                return held[1]
        return None

    def _login(self, jail: JailSetup, login: Login, now: float) -> None:
        prefix = jail.windows.counted(login.prefix)
        self.counters["logins"] += 1
        good = self.good.setdefault(prefix, Good())
        before = self.logins.setdefault(prefix, [])
        once = not before or login.time - before[-1] >= SAME_LOGIN
        good.logins += once
        if login.user and len(good.users) < 5:
            good.users.add(login.user)
        self.addresses.setdefault(prefix, set()).add(login.prefix)
        before.append(min(login.time, now))
        if once and (ban := self.covering(prefix, jail.rules.scope, now)) is not None:
            ban.logins += 1

    def _offence(self, jail: JailSetup, offence: Offence, now: float) -> None:
        if jail.ignore.contains(offence.prefix):
            self.counters["ignored"] += 1
            return
        self.counters["offences"] += 1
        prefix = jail.windows.counted(offence.prefix)
        self.addresses.setdefault(prefix, set()).add(offence.prefix)
        number = self._numbers[jail.name]
        if offence.listed:
            self._known.note_logged(offence.prefix, offence.listed, now, recalled=True)
        evidence = None
        if (ban := self.covering(prefix, jail.rules.scope, now)) is not None:
            ban.stopped += 1
            self.counters["stopped"] += 1
        elif (suspect := jail.windows.add(offence, now)) is None:
            self.counters["late"] += 1
        else:
            self._begun.setdefault(prefix, offence.time)
            evidence = self._evidence(jail, suspect, now)
            self._consider(jail, suspect, evidence, now)
        counted = Counted(now, offence.time, number, offence.weight, offence.service, evidence)
        self.offences.setdefault(prefix, []).append(counted)

    def _evidence(self, jail: JailSetup, suspect: Suspect, now: float) -> Evidence | None:
        if not jail.dnsbl:
            return None
        if suspect.weight >= jail.verify_at and self._known.is_due(suspect, jail.rules.maxretry, now):
            answer = self._answers(suspect, self._known.told(suspect, now), now)
            if answer is not None:
                self._known.note(suspect.offences[-1].prefix, answer)
        return self._known.about(suspect, now)

    def _consider(self, jail: JailSetup, suspect: Suspect, evidence: Evidence | None, now: float) -> None:
        if evidence is None and suspect.weight < jail.rules.maxretry:
            return  # as the judgement would say
        prefix = suspect.prefix
        verdict = judge(suspect, evidence, self._history(prefix, now), jail.rules, now)
        if verdict.action is Action.SPARE and verdict.score >= jail.rules.maxretry:
            self.spared[prefix] += 1
        if verdict.action is not Action.BAN:
            return
        if (objection := self._protected.objection(prefix)) is not None:
            self.refused[prefix] = objection
            return
        self._place(suspect, evidence, verdict, now)
        jail.windows.forget(prefix)

    def _place(self, suspect: Suspect, evidence: Evidence | None, verdict: Verdict, now: float) -> None:
        prefix = verdict.prefix
        until = None if verdict.duration is None else now + verdict.duration
        lines = suspect.offences[-KEPT_LINES:]
        ban = Ban(prefix, verdict.scope, now, until, Origin.LOG, verdict.jail, verdict.rule, verdict, evidence, lines)
        would = WouldBan(ban, self._begun.pop(prefix, suspect.first), len(suspect.offences))
        end = inf if until is None else until
        self.bans.append(would)
        self._live[prefix, ban.scope] = (end, would)
        self._earlier.setdefault(prefix, []).append(end)

    def _history(self, prefix: Prefix, now: float) -> History:
        earlier = sum(end <= now for end in self._earlier.get(prefix, ()))
        logins = self.logins.get(prefix)
        return History(earlier, logins[-1] if logins else None)
