"""What operations answer with: records as the JSON rows of docs/interface.md.

Takes records; gives dicts of JSON's types.  Log lines and facts are given without our account keys, but are otherwise
the attacker's own text: who shows them escapes them.
"""

from __future__ import annotations

from nftban.daemon.house import House, Json
from nftban.daemon.pipeline import Judged
from nftban.kernel import Found
from nftban.plain import to_plain
from nftban.prefixes import Prefix
from nftban.records import Element, Evidence, Offence
from nftban.store.sqlite import StoredBan
from nftban.verify.verify import ZoneStatus
from nftban.verify.zones import Provider


def ban_row(stored: StoredBan) -> Json:
    ban = stored.ban
    return {
        "prefix": str(ban.prefix),
        "scope": ban.scope,
        "since": ban.since,
        "until": ban.until,
        "origin": ban.origin.value,
        "jail": ban.jail,
        "reason": ban.reason,
        "score": stored.score,
        "threshold": stored.threshold,
    }


def zone_row(status: ZoneStatus) -> Json:
    return {
        "zone": status.zone,
        "notation": status.notation,
        "state": str(status.state),
        "why": status.why,
        "since": status.since,
        "usable": status.usable,
        "queries_today": status.queries,
        "budget": status.budget,
        "tested": status.tested,
    }


def known_row(provider: Provider) -> Json:
    """What is known of zones that are not asked; points: what their codes count, the biggest first."""
    points = {code.points for code in provider.codes if code.counts}
    return {
        "names": list(provider.names),
        "keyed": list(provider.keyed),
        "points": sorted(points, key=abs, reverse=True),
        "limit": provider.limit,
        "about": provider.about,
        "terms": provider.terms,
        "home": provider.home,
        "refused": provider.refused,
    }


def entry_row(house: House, found: Found, covering: list[StoredBan]) -> Json:
    prefixes = [str(p) for p in house.assembly.layout.prefixes(found.element)]
    feed = house.assembly.layout.address_sets[found.element.set].feed
    own = [] if feed else [s for s in covering if s.ban.scope == found.scope]
    return {
        "set": found.element.set,
        "feed": feed or None,
        "prefix": ", ".join(prefixes),
        "scope": found.scope,
        "until": found.element.until,
        # Elements of feeds have no counters.
        "packets": None if feed else found.packets,
        "bytes": None if feed else found.bytes,
        "ban": ban_row(own[-1]) if own else None,
    }


def compared_row(house: House, element: Element, now: float | None) -> Json:
    """An element in which intent and kernel differ; now: given where the kernel's own end of it is wanted."""
    layout = house.assembly.layout
    prefixes = list(layout.prefixes(element))
    last = Prefix(prefixes[0].family, element.last, prefixes[0].bits)
    row = {
        "set": element.set,
        "prefix": str(prefixes[0]) if len(prefixes) == 1 else f"{prefixes[0].address}-{last.address}",
        "scope": layout.address_sets[element.set].scope,
        "until": element.until,
    }
    if now is not None:
        there = [f.element.until for f in house.kernel.find(prefixes[0], now) if f.element == element]
        row["kernel_until"] = there[0] if there else None
    return row


def offence_row(house: House, offence: Offence) -> Json:
    masked = house.assembly.masked
    return {
        "time": offence.time,
        "filter": offence.filter,
        "rule": offence.rule,
        "weight": offence.weight,
        "service": offence.service.value,
        "facts": {name: masked(text) for name, text in offence.facts},
        "source": offence.source,
        "line": masked(offence.line),
    }


def evidence_rows(evidence: Evidence | None) -> Json:
    """None: DNS was not asked."""
    if evidence is None:
        return {"listings": [], "reverse": None, "helo": None, "spf": None}
    return {name: to_plain(getattr(evidence, name)) for name in ("listings", "reverse", "helo", "spf")}


def watched_row(house: House, judged: Judged) -> Json:
    verdict, evidence = judged.verdict, judged.evidence
    findtime = next((jail.rules.findtime for jail in house.assembly.jails if jail.name == verdict.jail), None)
    return {
        "jail": verdict.jail,
        "action": verdict.action.value,
        "findtime": findtime,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "rule": verdict.rule,
        "parts": to_plain(verdict.parts),
        "offences": [offence_row(house, o) for o in judged.suspect.offences],
        **evidence_rows(evidence),
    }
