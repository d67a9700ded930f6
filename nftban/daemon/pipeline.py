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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from nftban.daemon.assemble import JailSetup
from nftban.daemon.bans import Bans
from nftban.daemon.known import Known, remember
from nftban.daemon.lockout import Lockout
from nftban.daemon.storm import StormGuard
from nftban.daemon.tripped import lift_tripped
from nftban.detect.budget import WATCH
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
from nftban.verify.health import Transition
from nftban.verify.verify import Verifier

log = logging.getLogger(__name__)

MAX_ASKED = 500
"""Verifications under way at once; beyond them the offences alone decide, so that a storm cannot fill memory."""

STOP_WITHIN = 10.0
"""Seconds that the verifications under way have when the daemon stops."""

UNDECIDED = 60.0
"""Seconds after an offence in which a verification may still have been under way when a daemon was killed."""

TESTED_WITHIN = 60.0
"""Seconds within which a zone must have passed a test to get somebody banned."""

KEPT_OFFENCES = 50
"""Offences stored with a ban at least, the newest; so many that re-verification can judge by them."""


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
        lists: Callable[[Prefix, float], tuple[Listing, ...]] | None = None,
    ) -> None:
        """verifier: None where nobody is to be asked; report: takes what an admin should be able to see later; lists:
        gives the feeds that hold an address."""
        self.jails = tuple(jails)
        self.counters: Counter[str] = Counter()
        self.guards = {jail.name: StormGuard(jail.storm) for jail in self.jails}
        self._bans = bans
        self._store = store
        self._lockout = lockout
        self._verifier = verifier
        self._report = report
        self._clock = clock
        self._known = Known(verifier, lists)
        self._asked: dict[tuple[str, Prefix], asyncio.Task[None]] = {}
        self._spared: OrderedDict[tuple[str, Prefix], float] = OrderedDict()
        WATCH.start()
        for jail in self.jails:
            jail.report = self._note_filter
        if verifier is not None:
            verifier.listen(self._zone_changed)

    def _note_filter(self, text: str) -> None:
        self._report(Event(self._clock(), "filter", text))

    def passed(self, lines: int) -> None:
        """So many lines were read that no jail's filter can match."""
        self.counters["lines"] += lines

    def take(self, jails: Iterable[JailSetup], line: LogLine, rules: Sequence[tuple[int, ...]] | None = None) -> None:
        """One line of a log that these jails read; must be called inside the event loop.

        rules: for each of the jails, those of its filter's rules that can match, where that is known.
        """
        self.counters["lines"] += 1
        now = self._clock()
        suspects: list[tuple[JailSetup, Suspect]] = []
        for number, jail in enumerate(jails):
            try:
                found = jail.match(line, now, None if rules is None else rules[number])
                if isinstance(found, Offence):
                    if (suspect := self._offence(jail, found, now)) is not None:
                        suspects.append((jail, suspect))
                elif isinstance(found, Login):
                    self._login(jail, found, now)
                elif isinstance(found, Logged):
                    self._known.note_logged(found.prefix, found.listed, now)
            except Exception:
                self.counters["errors"] += 1
                log.exception(
                    "jail %s could not take a line of %s: %.200r", jail.name, line.source, jail.hide(line.text)
                )
        # Only now: with a ban is written what has been counted, and by then all jails have counted this line.
        for place, (jail, suspect) in enumerate(suspects):
            try:
                if place and self._bans.covers(suspect.prefix, jail.rules.scope, now):
                    # A jail before it has banned for the same line, which answers it for this one too.
                    self.counters["offences while banned"] += 1
                    jail.windows.forget(suspect.prefix)
                    continue
                self._consider(jail, suspect, now)
            except Exception:
                self.counters["errors"] += 1
                log.exception("jail %s could not decide about %s", jail.name, suspect.prefix)

    async def resume(self) -> None:
        """Decides about those whom jails have counted and who were not decided about when the daemon before ended."""
        for jail in self.jails:
            for place, (prefix, held) in enumerate(list(jail.windows.export())):
                if place % 100 == 0:
                    await asyncio.sleep(0)
                now = self._clock()
                weight = sum(o.weight for o in held)
                undecided = weight >= jail.rules.maxretry or now - held[-1].time < UNDECIDED
                suspect = jail.windows.suspect(prefix, now) if undecided else None
                if suspect is not None and not self._bans.covers(prefix, jail.rules.scope, now):
                    try:
                        self._consider(jail, suspect, now)
                    except Exception:
                        self.counters["errors"] += 1
                        log.exception("jail %s could not decide about %s", jail.name, prefix)

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
                evidence = self._about(jail, suspect, now)
                found.append(Judged(suspect, evidence, self._judged(jail, suspect, evidence, now)))
        return found

    def _login(self, jail: JailSetup, login: Login, now: float) -> None:
        self.counters["logins"] += 1
        # A log's clock that is ahead must not spare anybody for longer.
        login = replace(login, time=min(login.time, now))
        # Of an IPv6 /64 the next connection may come from another address: what is counted together is spared together.
        for prefix in {login.prefix, jail.windows.counted(login.prefix)}:
            self._store.set_login(replace(login, prefix=prefix))

    def _offence(self, jail: JailSetup, offence: Offence, now: float) -> Suspect | None:
        """Counts it; the suspect about whom is to be decided now, if any."""
        if jail.ignore.contains(offence.prefix):
            self.counters["ignored"] += 1
            return None
        self.counters["offences"] += 1
        jail.offences += 1
        if offence.listed:
            self._known.note_logged(offence.prefix, offence.listed, now, recalled=True)
        if self._bans.covers(jail.windows.counted(offence.prefix), jail.rules.scope, now):
            # Lines of its last session, or another door: the ban is the answer to them already.
            self.counters["offences while banned"] += 1
            return None
        if offence.time > now:
            # A log's clock that is ahead, or ours was put back: one from later than now would outweigh all that comes.
            offence = replace(offence, time=now)
        suspect = jail.windows.add(offence, now)
        if suspect is None:
            self.counters["late offences"] += 1
            return None
        self._lockout.look_soon()
        return suspect

    def _consider(self, jail: JailSetup, suspect: Suspect, now: float) -> None:
        key = (jail.name, suspect.prefix)
        if key in self._asked:
            return
        if (verifier := self._to_ask(jail, suspect, now)) is not None:
            self._asked[key] = asyncio.create_task(self._decide(jail, suspect, verifier))
            return
        evidence = self._about(jail, suspect, now)
        verdict = self._judged(jail, suspect, evidence, now)
        if verdict.action is Action.BAN:
            sure = not verdict.needs_listing
            if sure and (protected := self._lockout.at_once(verdict.prefix)) is not None:
                self._place(jail, suspect, evidence, verdict, protected, now)
                return
            # Whether the ban may be is asked of the zones that it needs, and of the system, in a thread: the same
            # one-at-a-time slot holds it.
            self._asked[key] = asyncio.create_task(self._decide(jail, suspect, None))
        elif verdict.score >= jail.rules.maxretry:
            self._note_spared(key, f"{suspect.prefix} spared in jail {jail.name}: {verdict.rule}", now)

    def _note_spared(self, key: tuple[str, Prefix], text: str, now: float) -> None:
        """Says once an hour, not at every line, that somebody is spared."""
        if now - self._spared.get(key, float("-inf")) > 3600:
            remember(self._spared, key, now)
            self._report(Event(now, "spared", text, key[1]))

    def _to_ask(self, jail: JailSetup, suspect: Suspect, now: float) -> Verifier | None:
        """The verifier, where this suspect is to be asked about now."""
        if self._verifier is None or not jail.dnsbl or suspect.weight < jail.verify_at:
            return None
        if len(self._asked) >= MAX_ASKED:
            self.counters["verifications skipped"] += 1
            return None
        return self._verifier if self._known.is_due(suspect, jail.rules.maxretry, now) else None

    async def _decide(self, jail: JailSetup, suspect: Suspect, verifier: Verifier | None) -> None:
        """Asks where there is somebody to ask, then judges what the window holds by then."""
        key = (jail.name, suspect.prefix)
        try:
            if verifier is not None:
                self.counters["verifications"] += 1
                address, now = suspect.offences[-1].prefix, self._clock()
                self._known.note(address, await verifier.evidence(address, now, self._known.told(suspect, now)))
            now = self._clock()
            latest = jail.windows.suspect(suspect.prefix, now)
            if latest is None or self._bans.covers(latest.prefix, jail.rules.scope, now):
                return
            evidence = self._about(jail, latest, now)
            verdict = self._judged(jail, latest, evidence, now)
            if verdict.action is Action.BAN and verdict.needs_listing and evidence is not None:
                evidence, now = await self._believed(jail, latest, evidence, now)
                verdict = self._judged(jail, latest, evidence, now)
            if verdict.action is Action.BAN:
                await self._ban(jail, latest, evidence, verdict)
            elif verdict.score >= jail.rules.maxretry:
                self._note_spared(key, f"{latest.prefix} spared in jail {jail.name}: {verdict.rule}", now)
        except Exception:
            self.counters["errors"] += 1
            log.exception("jail %s could not decide about %s", jail.name, suspect.prefix)
        finally:
            del self._asked[key]

    async def _believed(
        self, jail: JailSetup, suspect: Suspect, evidence: Evidence, now: float
    ) -> tuple[Evidence | None, float]:
        """What may be held against the suspect once the zones that list it have passed a test within TESTED_WITHIN: one
        that lists everybody since is found out before it gets anybody banned."""
        if self._verifier is None:
            return evidence, now
        listing = {e.zone for e in evidence.listings if e.answer is Answer.LISTED and e.points > 0}
        await self._verifier.confirmed(listing, now - TESTED_WITHIN, now)
        now = self._clock()
        return self._about(jail, suspect, now), now

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
        if not self._allowed(jail, now):
            return
        # Before: written with the ban is that nothing counts against it any more.
        jail.windows.forget(suspect.prefix)
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
        jail.bans += 1
        self._report(Event(now, "ban", f"{ban.prefix} banned in scope {ban.scope}: {ban.reason}", ban.prefix))

    def _allowed(self, jail: JailSetup, now: float) -> bool:
        """May the jail ban now, as far as its storm guard goes?  It is told when that changes."""
        guard = self.guards[jail.name]
        before, allowed = guard.stopped, guard.allows(now)
        if not allowed:
            self.counters["bans held back"] += 1
        if allowed is before:
            text = f"jail {jail.name} bans again"
            if not allowed:
                text = (
                    f"jail {jail.name} would ban more than {jail.storm} addresses within a minute (storm): it bans "
                    "nobody until a minute has fewer; look at what it matches (nftban why, nftban filter test)"
                )
            self._report(Event(now, "storm", text))
        return allowed

    def _judged(self, jail: JailSetup, suspect: Suspect, evidence: Evidence | None, now: float) -> Verdict:
        login = self._store.login(suspect.prefix)
        history = History(self._store.earlier_bans(suspect.prefix, now), login.time if login else None)
        return judge(suspect, evidence, history, jail.rules, now)

    def _about(self, jail: JailSetup, suspect: Suspect, now: float) -> Evidence | None:
        return self._known.about(suspect, now, jail.dnsbl)

    def _zone_changed(self, change: Transition) -> None:
        """What a zone said while it listed everybody is void, and so are the bans that needed it."""
        self._known.void(change)
        try:
            rules = {jail.name: jail.rules for jail in self.jails}
            lifted = lift_tripped(self._bans, self._store, rules, change, self._report, self._clock())
            self.counters["bans void"] += lifted
        except Exception:
            self.counters["errors"] += 1
            log.exception("bans that rest on %s could not be looked at", change.zone)
