"""What a replay found, as JSON values: bans, good clients, and the numbers behind each plot.

Takes a Decider that has seen all logs; gives dicts of JSON's types.  Log lines in them are hostile text.
Guarantees: no I/O, no clock; lists are in a fixed order: bans by time, the rest by weight and then by name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from nftban.config.load import Loaded
from nftban.daemon.assemble import JailSetup
from nftban.plain import to_plain
from nftban.prefixes import Prefix
from nftban.records import Answer, Evidence
from nftban.replay.decide import Decider, Good, WouldBan
from nftban.replay.sweep import sweep

STEPS = (60, 300, 900, 3600, 4 * 3600, 86400, 7 * 86400, 30 * 86400)
MOST_STEPS = 96
DELAYS = (1, 10, 60, 300, 900, 3600, 6 * 3600, 86400)
"""Seconds, the upper ends of the classes of time from the first offence to the ban."""

NETWORKS = 15
NETWORK_LENGTHS = {4: 24, 6: 64}
ZONES = 8

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """One set of settings over all logs.  lines: in which each offending prefix is named; first, last: times."""

    loaded: Loaded
    jails: tuple[JailSetup, ...]
    decider: Decider
    lines: Mapping[Prefix, int]
    first: float
    last: float


def settings_result(of: Replayed) -> Json:
    """Everything about one set of settings."""
    decider = of.decider
    hit = good_clients(decider)
    rules = [jail.rules for jail in of.jails]
    swept = sweep(decider.offences, decider.logins, decider.good, rules, decider.refused)
    by_jail = Counter(would.ban.jail for would in decider.bans)
    counted = Counter(rules[each.jail].jail for offences in decider.offences.values() for each in offences)
    lines = sum(of.lines.get(prefix, 0) for prefix in {would.ban.prefix for would in decider.bans})
    return {
        "config": [str(file) for file in of.loaded.files],
        "jails": [
            {
                "jail": jail.name,
                "maxretry": jail.rules.maxretry,
                "findtime": jail.rules.findtime,
                "offences": counted[jail.name],
                "bans": by_jail[jail.name],
            }
            for jail in of.jails
        ],
        "offences": decider.counters["offences"],
        "offenders": len(decider.offences),
        "ignored": decider.counters["ignored"],
        "stopped": decider.counters["stopped"],
        "lines": lines,
        "lines_stopped": sum(would.lines for would in decider.bans),
        "bans": [ban_json(would, of.lines) for would in decider.bans],
        "good": hit,
        "good_offenders": sum(prefix in decider.offences for prefix in decider.good),
        "spared": _spared(decider),
        "refused": [{"prefix": str(prefix), "reason": why} for prefix, why in sorted(decider.refused.items())],
        "timeline": timeline(of),
        "scores": sorted(Counter(w.ban.verdict.score for w in decider.bans if w.ban.verdict).items()),
        "delays": delays(decider.bans),
        "networks": networks(decider),
        "sweep": [to_plain(row) for row in swept],
    }


def ban_json(would: WouldBan, lines: Mapping[Prefix, int]) -> Json:
    """A ban with what it would have stopped."""
    ban, verdict = would.ban, would.ban.verdict
    return {
        "prefix": str(ban.prefix),
        "scope": ban.scope,
        "jail": ban.jail,
        "rule": ban.offences[-1].rule if ban.offences else "",
        "reason": ban.reason,
        "score": verdict.score if verdict else None,
        "threshold": verdict.threshold if verdict else None,
        "parts": to_plain(verdict.parts) if verdict else [],
        "needs_listing": bool(verdict and verdict.needs_listing),
        "begun": would.begun,
        "since": ban.since,
        "until": ban.until,
        "offences": would.counted,
        "stopped": would.stopped,
        "lines": lines.get(ban.prefix, 0),
        "lines_stopped": would.lines,
        "logins": would.logins,
        "mails": would.mails,
        "log": [{"time": o.time, "source": o.source, "line": o.line} for o in ban.offences],
    }


def good_clients(decider: Decider) -> list[Json]:
    """The good clients that would have been banned, those that would have lost most first."""
    bans: dict[Prefix, list[WouldBan]] = {}
    for would in decider.bans:
        if would.ban.prefix in decider.good:
            bans.setdefault(would.ban.prefix, []).append(would)

    def row(prefix: Prefix, good: Good, own: Sequence[WouldBan]) -> Json:
        return {
            "prefix": str(prefix),
            "logins": good.logins,
            "mails": good.mails,
            "users": sorted(good.users),
            "bans": len(own),
            "jails": sorted({would.ban.jail for would in own}),
            "since": own[0].ban.since,
            "offences": len(decider.offences.get(prefix, ())),
            "logins_stopped": sum(would.logins for would in own),
            "mails_stopped": sum(would.mails for would in own),
        }

    rows = [row(prefix, decider.good[prefix], own) for prefix, own in bans.items()]
    return sorted(
        rows, key=lambda r: (-r["logins_stopped"] - r["mails_stopped"], -r["logins"] - r["mails"], r["since"])
    )


def _spared(decider: Decider) -> list[Json]:
    """Who had points enough and was let be because of a login."""
    return [{"prefix": str(prefix), "offences": count} for prefix, count in decider.spared.most_common()]


def timeline(of: Replayed) -> Json:
    """Offences (those that bans stopped apart) and bans in steps of equal length."""
    if of.last < of.first:
        return {"start": None, "step": STEPS[0], "offences": [], "bans": []}
    step = next((s for s in STEPS if (of.last - of.first) / s < MOST_STEPS), STEPS[-1])
    start = of.first - of.first % step
    count = int((of.last - start) // step) + 1
    offences, bans = [0] * count, [0] * count
    for counted in of.decider.offences.values():
        for each in counted:
            offences[_step(each.time, start, step, count)] += 1
    for would in of.decider.bans:
        bans[_step(would.ban.since, start, step, count)] += 1
    return {"start": start, "step": step, "offences": offences, "bans": bans}


def _step(time: float, start: float, step: float, count: int) -> int:
    return min(max(int((time - start) // step), 0), count - 1)


def delays(bans: Iterable[WouldBan]) -> Json:
    """How many bans came within each of DELAYS after the first offence; the last number: later."""
    found = [0] * (len(DELAYS) + 1)
    for would in bans:
        found[bisect_right(DELAYS, would.ban.since - would.begun)] += 1
    return {"within": list(DELAYS), "bans": found}


def networks(decider: Decider) -> list[Json]:
    """The networks with most offences."""
    offences: Counter[Prefix] = Counter()
    addresses: Counter[Prefix] = Counter()
    bans: Counter[Prefix] = Counter()
    for prefix, counted in decider.offences.items():
        network = prefix.widened(NETWORK_LENGTHS[prefix.family])
        offences[network] += len(counted)
        addresses[network] += len(decider.addresses.get(prefix, ()))
    for would in decider.bans:
        bans[would.ban.prefix.widened(NETWORK_LENGTHS[would.ban.prefix.family])] += 1
    most = sorted(offences.items(), key=lambda item: (-item[1], item[0]))[:NETWORKS]
    return [
        {"prefix": str(network), "offences": count, "addresses": addresses[network], "bans": bans[network]}
        for network, count in most
    ]


def zones_agreement(evidence: Collection[Evidence]) -> Json:
    """How many addresses each zone lists, and each two of them; of the zones that list most."""
    listed = [
        frozenset(e.zone for e in each.listings if e.answer is Answer.LISTED and e.points >= 0) for each in evidence
    ]
    alone = Counter(zone for zones in listed for zone in zones)
    names = [zone for zone, _ in sorted(alone.items(), key=lambda item: (-item[1], item[0]))[:ZONES]]
    both = Counter(pair for zones in listed for pair in combinations(sorted(zones & set(names)), 2))
    return {
        "addresses": len(listed),
        "names": names,
        "listed": [alone[name] for name in names],
        "both": [[alone[a] if a == b else both[min(a, b), max(a, b)] for b in names] for a in names],
    }


def difference(first: Json, second: Json) -> Json:
    """What the second settings would have done otherwise: by address, of each its first ban."""
    one, other = _first_bans(first), _first_bans(second)
    moved = [
        {"prefix": prefix, "first": ban["since"], "second": other[prefix]["since"]}
        for prefix, ban in one.items()
        if prefix in other and ban["since"] != other[prefix]["since"]
    ]
    good_one, good_other = ({row["prefix"] for row in each["good"]} for each in (first, second))
    return {
        "only_first": [ban for prefix, ban in one.items() if prefix not in other],
        "only_second": [ban for prefix, ban in other.items() if prefix not in one],
        "both": sum(prefix in other for prefix in one),
        "earlier": [row for row in moved if row["second"] < row["first"]],
        "later": [row for row in moved if row["second"] > row["first"]],
        "good_only_first": sorted(good_one - good_other),
        "good_only_second": sorted(good_other - good_one),
    }


def _first_bans(result: Json) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for ban in result["bans"]:
        found.setdefault(ban["prefix"], ban)
    return found
