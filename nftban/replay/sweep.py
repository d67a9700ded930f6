"""How many bans, and how many good clients among them, other thresholds would have made.

Takes what a Decider counted of each prefix, and which prefixes are good clients; gives a row per threshold: the bans
with every jail's maxretry set to it and everything else as it is.
A prefix's bans depend on its own offences and logins only, and one that never had so many points at once has none:
so of each only its own short list is gone through, not the logs.
Guarantees: at the threshold that is configured, and without evidence, the same bans as the Decider's; what DNS is known
to have said of an address is held against it from the time it was known on.  No I/O, no clock.
Does not: know what it would have asked DNS at another threshold; drop prefixes for want of memory, as windows do.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter

from nftban.judge import Rules, ban_length, judge
from nftban.prefixes import Prefix
from nftban.records import Action, Evidence, History, Offence, Suspect
from nftban.replay.decide import Counted

THRESHOLDS = range(1, 21)

_logged = attrgetter("logged")


@dataclass(frozen=True, slots=True)
class Swept:
    """bans, addresses: how many, of how many prefixes; good: good clients among these; stopped: offences."""

    maxretry: int
    bans: int
    addresses: int
    good: int
    stopped: int


def sweep(
    offences: Mapping[Prefix, Sequence[Counted]],
    logins: Mapping[Prefix, Sequence[float]],
    good: Collection[Prefix],
    rules: Sequence[Rules],
    unbannable: Collection[Prefix] = (),
    thresholds: Iterable[int] = THRESHOLDS,
) -> list[Swept]:
    """rules: of the jails by number; unbannable: prefixes that are protected."""
    at = {k: [replace(each, maxretry=k) for each in rules] for k in thresholds}
    totals = {k: [0, 0, 0, 0] for k in at}
    for prefix, counted in offences.items():
        if prefix in unbannable:
            continue
        heaviest = _heaviest(counted, rules)
        for k, changed in at.items():
            if heaviest < k:
                continue
            bans, stopped = _bans(prefix, counted, logins.get(prefix, ()), changed)
            if bans:
                total = totals[k]
                total[0] += bans
                total[1] += 1
                total[2] += prefix in good
                total[3] += stopped
    return [Swept(k, *total) for k, total in totals.items()]


def _heaviest(counted: Sequence[Counted], rules: Sequence[Rules]) -> float:
    """The most points that were ever in a jail's window, if nothing was banned; no bound where DNS adds to it."""
    windows: list[list[Counted]] = [[] for _ in rules]
    weights = [0] * len(rules)
    most = 0
    for offence in counted:
        if offence.evidence is not None:
            return inf
        window = windows[offence.jail]
        insort(window, offence, key=_logged)
        weights[offence.jail] += offence.weight
        while offence.time - window[0].logged > rules[offence.jail].findtime:
            weights[offence.jail] -= window.pop(0).weight
            if not window:
                break
        most = max(most, weights[offence.jail])
    return most


def _bans(
    prefix: Prefix, counted: Sequence[Counted], logins: Sequence[float], rules: Sequence[Rules]
) -> tuple[int, int]:
    """How many bans these offences make, and how many of them these would have stopped."""
    windows: list[list[Counted]] = [[] for _ in rules]
    weights = [0] * len(rules)
    live: dict[str, float] = {}
    ends: list[float] = []
    evidence: Evidence | None = None
    stopped = 0
    for offence in counted:
        jail, now = offence.jail, offence.time
        own = rules[jail]
        evidence = offence.evidence or evidence
        if live.get(own.scope, 0) > now or live.get("all", 0) > now:
            stopped += 1
            continue
        if now - offence.logged > own.findtime:
            continue
        window = windows[jail]
        insort(window, offence, key=_logged)
        weights[jail] += offence.weight
        while now - window[0].logged > own.findtime:
            weights[jail] -= window.pop(0).weight
        if evidence is None and weights[jail] < own.maxretry:
            continue
        before = bisect_right(logins, now)
        login = logins[before - 1] if before else None
        history = History(sum(end <= now for end in ends), login)
        if evidence is None:
            spared = login is not None and now - login < own.spare_login
            length = ban_length(history.bans, own)
        else:
            verdict = judge(_suspect(prefix, own.jail, window), evidence, history, own, now)
            spared, length = verdict.action is not Action.BAN, verdict.duration
        if not spared:
            end = inf if length is None else now + length
            ends.append(end)
            live[own.scope] = end
            windows[jail], weights[jail] = [], 0
    return len(ends), stopped


def _suspect(prefix: Prefix, jail: str, window: Sequence[Counted]) -> Suspect:
    return Suspect(
        prefix, jail, tuple(Offence("", "", prefix, each.logged, each.weight, each.service) for each in window)
    )
