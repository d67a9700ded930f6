"""Why an address stands as it does, and what would change that: the parts of `why` that nobody wrote down.

Takes the house, an address, and what is known of it; gives why it is not banned where it is not, how long its next ban
would be, what was reported of it (re-verification among that), and sentences that say what would change things.
Guarantees: decides nothing and changes nothing; what it says of points and times is computed as the judgement does.
Does not: ask DNS, look further back than EVENTS reported events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nftban.config.words import in_words
from nftban.daemon.house import House, Json
from nftban.daemon.pipeline import Judged
from nftban.judge import ban_length
from nftban.prefixes import Prefix
from nftban.records import Action, Answer, Ban
from nftban.store.sqlite import StoredBan

EVENTS = 2000
SHOWN = 20


def outlook(
    house: House,
    prefix: Prefix,
    stored: Sequence[StoredBan],
    judged: Sequence[Judged],
    protected: str | None,
    now: float,
) -> Json:
    """stored: bans that cover it, live and past; judged: what the jails hold against it; protected: why, if it is."""
    live = [house.store.detail(each.id) for each in stored if each.ended is None and each.ban.holds(now)]
    jails = house.assembly.jails
    ignored = [jail.name for jail in jails if jail.ignore.contains(prefix)]
    counted = {jail.windows.counted(prefix) for jail in jails}
    earlier = max((house.store.earlier_bans(each, now) for each in counted), default=0)
    return {
        "reason": None if live and protected is None else _reason(house, stored, judged, protected, ignored),
        "ignored": ignored,
        "earlier": earlier,
        "next": {jail.name: ban_length(earlier, jail.rules) for jail in jails},
        "events": [
            {"time": event.time, "kind": event.kind, "text": event.text}
            for event in house.store.events(EVENTS)
            if event.prefix is not None and event.prefix.overlaps(prefix)
        ][:SHOWN],
        "changes": [*_protection(protected), *_of_bans(house, live, now), *_of_suspects(house, judged, now)],
    }


def _reason(
    house: House, stored: Sequence[StoredBan], judged: Sequence[Judged], protected: str | None, ignored: Sequence[str]
) -> str:
    """Why it is not banned, in a sentence."""
    if protected is not None:
        return f"protected: {protected}"
    spared = [each.verdict.rule for each in judged if each.verdict.action is Action.SPARE]
    if spared:
        return f"spared: {spared[0]}"
    if judged:
        nearest = min(judged, key=lambda each: each.verdict.threshold - each.verdict.score).verdict
        return f"watched: {nearest.rule} in jail {nearest.jail}"
    if ignored:
        return f"ignored by {', '.join(ignored)}: what it does there is not counted"
    ended = [each for each in stored if each.ended is not None]
    if ended:
        return f"its last ban has ended ({ended[0].how}), and it did nothing since that counts"
    if house.pipeline is None:
        return "no ban is in the store"
    return "never seen: no ban, and no offence in any jail's window"


def _protection(protected: str | None) -> Iterator[str]:
    if protected is not None:
        yield "as long as it is protected, no jail and no command bans it"


def _of_bans(house: House, live: Sequence[Ban], now: float) -> Iterator[str]:
    settings = house.loaded.settings.reverify
    for ban in live:
        if ban.until is not None:
            yield f"the ban in scope {ban.scope} ends by itself in {in_words(round(ban.until - now))}"
        listings = ban.evidence.listings if ban.evidence is not None else ()
        zones = [e for e in listings if e.answer is Answer.LISTED and e.points + e.policy_points > 0]
        names = " and ".join(e.zone for e in zones)
        if ban.verdict is not None and ban.verdict.needs_listing and zones:
            rest = ban.verdict.score - sum(e.points for e in zones)
            yield (
                f"it ends early if {names} no longer {'list' if len(zones) > 1 else 'lists'} it: without that, at most "
                f"{rest} of {ban.verdict.threshold} points are left; asked again every {in_words(settings.every)}"
            )
        if zones and ban.until is not None:
            yield f"it is made longer if it is still listed {in_words(settings.extend_within)} before its end"
        yield f"nftban unban {ban.prefix} ends it now; nftban allow add {ban.prefix} keeps it from coming back"


def _of_suspects(house: House, judged: Sequence[Judged], now: float) -> Iterator[str]:
    jails = {jail.name: jail for jail in house.assembly.jails}
    for each in judged:
        verdict, jail = each.verdict, jails[each.verdict.jail]
        missing = verdict.threshold - verdict.score
        login = house.store.login(each.suspect.prefix)
        spared = verdict.action is Action.SPARE and login is not None
        if spared and login is not None:
            left = in_words(round(max(0.0, login.time + jail.rules.spare_login - now)))
            yield f"jail {jail.name}: its login spares it for another {left}"
        if missing > 0:
            yield f"jail {jail.name}: {missing} more point{'s' if missing != 1 else ''} ban it"
        elif not spared:
            yield f"jail {jail.name}: its next offence bans it"
        gone = each.suspect.first + jail.rules.findtime - now
        if gone > 0:
            yield f"jail {jail.name}: its oldest offence no longer counts in {in_words(round(gone))}"
        asks = house.assembly.zones or house.loaded.settings.dnsbl.reverse
        if jail.dnsbl and asks and each.evidence is None and each.suspect.weight < jail.verify_at:
            yield f"jail {jail.name}: DNS is asked about it at {jail.verify_at} points"
