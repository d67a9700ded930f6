"""A DNSBL at the door: who is listed when it connects is refused for an hour, and nothing is counted.

Takes a Population; gives the Outcome.  Any code of the zones that nftban's shipped settings ask counts, those of
dynamic ranges on port 25 only; an error code and a failure are no listing.  An answer holds for 300 seconds.  Zones are
not tested: this is what `reject_rbl_client` does, on all ports.
"""

from __future__ import annotations

from traffic.outcome import Outcome, Span
from traffic.population import Population
from traffic.simulate import simulated
from traffic.world import BLOCKLIST, POLICY, PSBL, REFUSED, SPAMCOP, SPAMHAUS, Failed

ASKED = (SPAMHAUS, BLOCKLIST, SPAMCOP, PSBL)
HOLDS = 300.0
BAN = 3600.0


def run(people: Population) -> Outcome:
    outcome = Outcome("DNSBL only")
    asked: dict[str, tuple[float, frozenset[str], bool]] = {}
    held: dict[tuple[str, bool], float] = {}
    for number, line in enumerate(simulated(people)):
        key = (line.address, line.port == 25)
        if held.get(key, 0.0) > line.time:
            outcome.prevented.add(number)
            continue
        at, codes, lied = asked.get(line.address, (-HOLDS, frozenset(), False))
        if line.time - at >= HOLDS:
            codes, lied = _codes(people, line.address, line.time)
            asked[line.address] = (line.time, codes, lied)
            outcome.queries += len(ASKED)
        if codes - POLICY or (codes and line.port == 25):
            held[key] = line.time + BAN
            ports = frozenset({25}) if line.port == 25 else frozenset({22, 465, 587, 993})
            outcome.bans.append(Span(line.address, ports, line.time, min(line.time + BAN, people.end), lied))
            outcome.prevented.add(number)
    return outcome


def _codes(people: Population, address: str, now: float) -> tuple[frozenset[str], bool]:
    """What the zones say, and whether a zone says it that would not have without its fault."""
    found: set[str] = set()
    lied = False
    for zone in ASKED:
        try:
            codes = set(people.world.codes(zone, address, now)) - {REFUSED}
        except Failed:
            continue
        truly = {e.code for e in people.world.listings[zone].get(address, ()) if e.since <= now < e.until}
        lied |= bool(codes - truly)
        found |= codes
    return frozenset(found), lied
