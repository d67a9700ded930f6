"""The way of a datum: log line -> offence -> suspect -> evidence -> verdict -> ban.

Takes LogLines; gives bans, through `Bans`, and events.  The stages are calls in this file, in that order.
Guarantees: one verification per suspect at a time, and a verdict waits for it no longer than its deadline; where
nothing can be asked (DNS off, too many asked already) the offences alone decide; a line that makes a stage fail is
counted and reported, and the next line is read.  Does not: read files, ask DNS or write to the kernel itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from nftban.daemon.assemble import JailSetup
from nftban.daemon.bans import Bans
from nftban.daemon.lockout import Lockout
from nftban.detect.matcher import Logged
from nftban.errors import NftbanError, StoreError
from nftban.judge import judge
from nftban.prefixes import Prefix
from nftban.protect.protected import Protected
from nftban.records import (
    Action,
    Answer,
    Ban,
    Event,
    Evidence,
    History,
    Listing,
    Login,
    LogLine,
    Offence,
    Origin,
    Suspect,
    Verdict,
)
from nftban.store.sqlite import Store
from nftban.verify.verify import Verifier

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

MAX_ASKED = 500
"""Verifications under way at once; beyond them the offences alone decide, so that a storm cannot fill memory."""

STOP_WITHIN = 10.0
"""Seconds that the verifications under way have when the daemon stops."""

MAX_REMEMBERED = 10_000
"""Addresses whose evidence and logged listings are remembered."""

KEPT_OFFENCES = 50
"""Offences stored with a ban at least, the newest; so many that re-verification can judge by them."""

EVIDENCE_AGE = 300.0
UNKNOWN_AGE = 30.0
"""Seconds for which what DNS said about an address holds, and it is not asked about again; fewer where an answer was
missing."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A suspect with all that speaks for and against it, as `why` shows it."""

    suspect: Suspect
    evidence: Evidence | None
    verdict: Verdict


class Pipeline:
    """All jails over all their logs."""

    def __init__(
        self,
        jails: Iterable[JailSetup],
        bans: Bans,
        store: Store,
        lockout: Lockout,
        verifier: Verifier | None,
        report: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        """verifier: None where nobody is to be asked; report: takes what an admin should be able to see later."""
        self.jails = tuple(jails)
        self.counters: Counter[str] = Counter()
        self._bans = bans
        self._store = store
        self._lockout = lockout
        self._verifier = verifier
        self._report = report
        self._clock = clock
        self._evidence: OrderedDict[Prefix, Evidence] = OrderedDict()
        self._logged: OrderedDict[Prefix, dict[tuple[str, str], float]] = OrderedDict()
        self._asked: dict[tuple[str, Prefix], asyncio.Task[None]] = {}
        self._spared: OrderedDict[tuple[str, Prefix], float] = OrderedDict()

    def take(self, jails: Iterable[JailSetup], line: LogLine) -> None:
        """One line of a log that these jails read; must be called inside the event loop."""
        self.counters["lines"] += 1
        now = self._clock()
        for jail in jails:
            try:
                found = jail.match(line, now)
                if isinstance(found, Offence):
                    self._offence(jail, found, now)
                elif isinstance(found, Login):
                    self._login(jail, found, now)
                elif isinstance(found, Logged):
                    self._remember_logged(found.prefix, found.listed, now)
            except Exception:
                self.counters["errors"] += 1
                log.exception("jail %s could not take a line of %s: %.200r", jail.name, line.source, line.text)

    async def settle(self) -> None:
        """Returns when no verification is under way."""
        while self._asked:
            await asyncio.wait(list(self._asked.values()))

    async def stop(self) -> None:
        """Lets the verifications under way end, which they do by their deadline: their lines are not read again."""
        tasks = list(self._asked.values())
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_WITHIN)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, prefix: Prefix) -> None:
        """An admin lifted its ban: what was counted against it is void, and the next offence is its first."""
        for jail in self.jails:
            jail.windows.forget(prefix)

    def watched(self, prefix: Prefix, now: float) -> list[Judged]:
        """What each jail holds against an address now, banned or not."""
        found = []
        for jail in self.jails:
            suspect = jail.windows.suspect(prefix, now)
            if suspect is not None:
                evidence = self._known(jail, suspect, now)
                found.append(Judged(suspect, evidence, self._judged(jail, suspect, evidence, now)))
        return found

    def _login(self, jail: JailSetup, login: Login, now: float) -> None:
        self.counters["logins"] += 1
        # A log's clock that is ahead must not spare anybody for longer.
        login = replace(login, time=min(login.time, now))
        # Of an IPv6 /64 the next connection may come from another address: what is counted together is spared together.
        for prefix in {login.prefix, jail.windows.counted(login.prefix)}:
            self._store.set_login(replace(login, prefix=prefix))

    def _offence(self, jail: JailSetup, offence: Offence, now: float) -> None:
        if jail.ignore.contains(offence.prefix):
            self.counters["ignored"] += 1
            return
        self.counters["offences"] += 1
        jail.offences += 1
        if offence.listed:
            self._remember_logged(offence.prefix, offence.listed, now)
        if self._bans.covers(jail.windows.counted(offence.prefix), jail.rules.scope, now):
            # Lines of its last session, or another door: the ban is the answer to them already.
            self.counters["offences while banned"] += 1
            return
        suspect = jail.windows.add(offence, now)
        if suspect is None:
            self.counters["late offences"] += 1
            return
        self._lockout.look_soon()
        self._consider(jail, suspect, now)

    def _consider(self, jail: JailSetup, suspect: Suspect, now: float) -> None:
        key = (jail.name, suspect.prefix)
        if key in self._asked:
            return
        if (verifier := self._to_ask(jail, suspect, now)) is not None:
            self._asked[key] = asyncio.create_task(self._decide(jail, suspect, verifier))
            return
        evidence = self._known(jail, suspect, now)
        verdict = self._judged(jail, suspect, evidence, now)
        if verdict.action is Action.BAN:
            if (protected := self._lockout.at_once(verdict.prefix)) is not None:
                self._place(jail, suspect, evidence, verdict, protected, now)
                return
            # Whether the ban may be is asked of the system, in a thread: the same one-at-a-time slot holds it.
            self._asked[key] = asyncio.create_task(self._decide(jail, suspect, None))
        elif verdict.action is Action.SPARE and suspect.weight >= jail.rules.maxretry:
            self._note_spared(key, f"{suspect.prefix} spared in jail {jail.name}: {verdict.rule}", now)

    def _note_spared(self, key: tuple[str, Prefix], text: str, now: float) -> None:
        """Says once an hour, not at every line, that somebody is spared."""
        if now - self._spared.get(key, float("-inf")) > 3600:
            _remember(self._spared, key, now)
            self._report(Event(now, "spared", text, key[1]))

    def _to_ask(self, jail: JailSetup, suspect: Suspect, now: float) -> Verifier | None:
        """The verifier, where this suspect is to be asked about now."""
        if self._verifier is None or not jail.dnsbl or suspect.weight < jail.verify_at:
            return None
        if len(self._asked) >= MAX_ASKED:
            self.counters["verifications skipped"] += 1
            return None
        known = self._evidence.get(suspect.offences[-1].prefix)
        return self._verifier if known is None or _is_old(known, now) else None

    async def _decide(self, jail: JailSetup, suspect: Suspect, verifier: Verifier | None) -> None:
        """Asks where there is somebody to ask, then judges what the window holds by then."""
        key = (jail.name, suspect.prefix)
        try:
            if verifier is not None:
                self.counters["verifications"] += 1
                address = suspect.offences[-1].prefix
                _remember(self._evidence, address, await verifier.evidence(address, self._clock()))
            now = self._clock()
            latest = jail.windows.suspect(suspect.prefix, now)
            if latest is None or self._bans.covers(latest.prefix, jail.rules.scope, now):
                return
            evidence = self._known(jail, latest, now)
            verdict = self._judged(jail, latest, evidence, now)
            if verdict.action is Action.BAN:
                await self._ban(jail, latest, evidence, verdict)
            elif verdict.action is Action.SPARE and latest.weight >= jail.rules.maxretry:
                self._note_spared(key, f"{latest.prefix} spared in jail {jail.name}: {verdict.rule}", now)
        except Exception:
            self.counters["errors"] += 1
            log.exception("jail %s could not decide about %s", jail.name, suspect.prefix)
        finally:
            del self._asked[key]

    async def _ban(self, jail: JailSetup, suspect: Suspect, evidence: Evidence | None, verdict: Verdict) -> None:
        protected = await self._lockout.current()
        now = self._clock()
        if not self._bans.covers(suspect.prefix, jail.rules.scope, now):  # nobody was faster
            self._place(jail, suspect, evidence, verdict, protected, now)

    def _place(
        self,
        jail: JailSetup,
        suspect: Suspect,
        evidence: Evidence | None,
        verdict: Verdict,
        protected: Protected,
        now: float,
    ) -> None:
        """Bans, unless that would cover somebody protected."""
        objection = protected.objection(verdict.prefix)
        if objection is not None:
            self.counters["bans refused"] += 1
            self._note_spared((jail.name, suspect.prefix), f"not banned: {objection}", now)
            return
        ban = Ban(
            verdict.prefix,
            verdict.scope,
            now,
            None if verdict.duration is None else now + verdict.duration,
            Origin.LOG,
            jail.name,
            verdict.rule,
            verdict,
            evidence,
            suspect.offences[-max(KEPT_OFFENCES, jail.rules.maxretry) :],
        )
        try:
            refused = self._bans.place(ban, now)
        except StoreError as e:
            refused = []
            self._report(Event(now, "ban-failed", f"{ban.prefix} is banned until a restart only: {e}", ban.prefix))
        except NftbanError as e:
            self._report(Event(now, "ban-failed", f"{ban.prefix} is noted but not in the kernel: {e}", ban.prefix))
            raise
        for r in refused:
            self._report(Event(now, "ban-failed", f"the kernel refused {ban.prefix}: {r.reason}", ban.prefix))
        self.counters["bans"] += 1
        jail.windows.forget(suspect.prefix)
        self._report(Event(now, "ban", f"{ban.prefix} banned in scope {ban.scope}: {ban.reason}", ban.prefix))

    def _judged(self, jail: JailSetup, suspect: Suspect, evidence: Evidence | None, now: float) -> Verdict:
        login = self._store.login(suspect.prefix)
        history = History(self._store.earlier_bans(suspect.prefix, now), login.time if login else None)
        return judge(suspect, evidence, history, jail.rules, now)

    def _known(self, jail: JailSetup, suspect: Suspect, now: float) -> Evidence | None:
        """What was asked, with what the server's own log said where the zone was not asked."""
        if not jail.dnsbl:
            return None
        # Of a network several addresses offend, and not each has been asked about: the last that was speaks for all.
        addresses = dict.fromkeys(o.prefix for o in reversed(suspect.offences))
        address = next((a for a in addresses if self._answered(a, now)), suspect.offences[-1].prefix)
        evidence = self._answered(address, now)
        logged = self._logged_listings(address, now)
        if not logged:
            return evidence
        base = evidence or Evidence(address)
        answered = {e.zone for e in base.listings if e.answer is not Answer.UNKNOWN}
        added = tuple(e for e in logged if e.zone not in answered)
        kept = tuple(e for e in base.listings if e.zone not in {a.zone for a in added})
        return replace(base, listings=(*kept, *added))

    def _answered(self, address: Prefix, now: float) -> Evidence | None:
        """What DNS said about the address, while that may still be held against it."""
        evidence = self._evidence.get(address)
        return evidence if evidence is not None and now - _asked(evidence) <= EVIDENCE_AGE else None

    def _remember_logged(self, prefix: Prefix, listed: Iterable[tuple[str, str]], now: float) -> None:
        codes = dict(self._logged.get(prefix, {}))
        codes.update(dict.fromkeys(listed, now))
        _remember(self._logged, prefix, codes)

    def _logged_listings(self, prefix: Prefix, now: float) -> tuple[Listing, ...]:
        if self._verifier is None:
            return ()
        fresh = [pair for pair, at in self._logged.get(prefix, {}).items() if now - at <= EVIDENCE_AGE]
        return self._verifier.logged(fresh, now)


def _asked(evidence: Evidence) -> float:
    return max([evidence.reverse.asked, *(e.asked for e in evidence.listings)])


def _is_old(evidence: Evidence, now: float) -> bool:
    certain = evidence.complete and all(e.answer is not Answer.UNKNOWN for e in evidence.listings)
    return now - _asked(evidence) > (EVIDENCE_AGE if certain else UNKNOWN_AGE)


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)
