"""A DNSBL began to list everybody: the bans it led to since its last good test are lifted.

Takes a zone's Transition; judges again, without that zone's word, each live ban that needed a listing.
Guarantees: a ban that stands without the zone is left alone, as is one that rests on what the zone said before its
last test that passed; the admin is told of each that is lifted.  Does not: ask anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nftban.daemon.bans import Bans
from nftban.judge import Rules, judge
from nftban.records import Action, Event, History, Suspect
from nftban.store.sqlite import Store
from nftban.verify.health import Transition, voided


def lift_tripped(
    bans: Bans,
    store: Store,
    rules: Mapping[str, Rules],
    change: Transition,
    report: Callable[[Event], None],
    now: float,
) -> int:
    """rules: by jail; returns how many bans were lifted."""
    lifted = 0
    for stored in store.bans_to_verify(now, 0.0) if change.is_trip else ():
        if stored.ban.jail not in rules:
            continue
        ban = store.detail(stored.id)
        if ban.evidence is None or (evidence := voided(ban.evidence, change)) == ban.evidence:
            continue
        verdict = judge(Suspect(ban.prefix, ban.jail, ban.offences), evidence, History(), rules[ban.jail], now)
        if verdict.action is not Action.BAN and bans.lift(ban.prefix, ban.scope, now, "listing void"):
            lifted += 1
            why = f"{change.zone} {change.after} ({verdict.rule} without it)"
            report(Event(now, "lifted", f"{ban.prefix}: ban lifted, its listing is void: {why}", ban.prefix))
    return lifted
