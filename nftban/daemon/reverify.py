"""Asks again about live bans that DNS evidence decided.

Takes the house and the jails; lifts a ban that would not be made today because the address is no longer listed, and
makes one longer that is about to end while the address is still listed.
Guarantees: UNKNOWN changes nothing: a ban is lifted only by zones that answered "clear" and passed a test since, and
made longer only by one that answered "listed".  The judgement is the same function as the first time, on the offences
that were stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from nftban.daemon.assemble import JailSetup
from nftban.daemon.house import House
from nftban.judge import ban_length, judge
from nftban.records import Action, Answer, Ban, Event, Evidence, History, SpfResult, Suspect
from nftban.store.checked import note_check
from nftban.store.sqlite import StoredBan
from nftban.verify.verify import Told

AT_ONCE = 50


async def reverify(house: House, jails: Iterable[JailSetup], report: Callable[[Event], None]) -> None:
    """One pass over the live bans that need their listing, or are about to end with one."""
    setups = {j.name: j for j in jails}
    within = house.loaded.settings.reverify.extend_within
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(stored: StoredBan, jail: JailSetup) -> None:
        async with limit:
            await _again(house, stored, jail, report)

    now = house.clock()
    wanted = [(s, setups[s.ban.jail]) for s in house.store.bans_to_verify(now, within) if s.ban.jail in setups]
    await asyncio.gather(*(one(s, jail) for s, jail in wanted))


async def _again(house: House, stored: StoredBan, jail: JailSetup, report: Callable[[Event], None]) -> None:
    ban = house.store.detail(stored.id)
    if ban.evidence is None or not ban.offences:
        return
    # Only who listed it can delist it; and new suspects need the zones' budget more than those already banned.
    listing = {e.zone for e in ban.evidence.listings if e.answer is Answer.LISTED and e.points >= 0} or None
    told = Told(helo=ban.evidence.helo.name if ban.evidence.helo else "")
    asked = house.clock()
    fresh = await house.verifier.evidence(ban.evidence.prefix, asked, told, only=listing, modest=True)
    clear = {e.zone for e in fresh.listings if e.answer is Answer.CLEAR}
    if stored.needs_listing and not await house.verifier.confirmed(clear, asked, house.clock()):
        # A zone that was emptied says "clear" of everybody.
        note_check(house.store, stored.id, house.clock(), f"{', '.join(sorted(clear))}: clear, but failed a test")
        return
    now = house.clock()
    current = house.bans.get(ban.prefix, ban.scope)
    if current is None or current.id != stored.id or not ban.holds(now):
        return
    suspect = Suspect(ban.prefix, ban.jail, ban.offences)
    evidence = _merged(ban.evidence, fresh)
    verdict = judge(suspect, evidence, History(), jail.rules, now)
    if stored.needs_listing and verdict.action is not Action.BAN:
        house.bans.lift(ban.prefix, ban.scope, now, "delisted")
        report(Event(now, "lifted", f"{ban.prefix}: ban lifted, it is no longer listed ({verdict.rule})", ban.prefix))
        return
    listed = any(e.answer is Answer.LISTED and e.points > 0 for e in fresh.listings)
    if listed and ban.until is not None and ban.until - now < house.loaded.settings.reverify.extend_within:
        _extend(house, ban, evidence, jail, now, report)
        return
    note_check(house.store, stored.id, now, f"{_told(fresh)}; {verdict.score} of {verdict.threshold} points")


def _told(evidence: Evidence) -> str:
    """Who said what, for `why`."""
    words = [f"{e.zone} {e.answer}" for e in evidence.listings]
    return ", ".join(words) or "no list was asked"


def _merged(before: Evidence, fresh: Evidence) -> Evidence:
    """Today's answers; where a zone gave none, what it said before still stands."""
    earlier = {e.zone: e for e in before.listings}
    listings = tuple(earlier.get(e.zone, e) if e.answer is Answer.UNKNOWN else e for e in fresh.listings)
    named = {e.zone for e in listings}
    kept = tuple(e for e in before.listings if e.zone not in named)
    reverse = before.reverse if fresh.reverse.has_name is None else fresh.reverse
    helo = before.helo if fresh.helo is None or (fresh.helo.forward is None and not fresh.helo.fault) else fresh.helo
    spf = before.spf if fresh.spf is None or fresh.spf.result is SpfResult.TEMPERROR else fresh.spf
    return replace(fresh, listings=(*listings, *kept), reverse=reverse, helo=helo, spf=spf)


def _extend(
    house: House, ban: Ban, evidence: Evidence, jail: JailSetup, now: float, report: Callable[[Event], None]
) -> None:
    length = ban_length(0, jail.rules)
    if length is None or ban.until is None:
        return
    # The whole of it, extensions included, is held to the jail's maximum.
    until = min(ban.until + length, max(ban.since + jail.rules.bantime_max, ban.until))
    if until - ban.until < 1:
        return
    rule = ban.verdict.rule if ban.verdict else ban.reason
    longer = replace(ban, until=until, reason=f"{rule}; still listed, made longer", evidence=evidence)
    house.bans.place(longer, now)
    report(Event(now, "extended", f"{ban.prefix}: still listed, ban made longer", ban.prefix))
