"""How well somebody did: figures of one Outcome, by kind of actor.

Takes a Population and Outcomes; gives a `Score` each.  An attacker's ban is the first that covers one of its addresses,
whatever the port; a client is denied service while a ban covers an address that it has at that time, on a port that it
uses.  A client behind a shared address counts as all the people who share it, and so do their minutes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network, ip_network
from statistics import quantiles

from traffic.outcome import Outcome, Span
from traffic.population import Actor, Population
from traffic.simulate import simulated


@dataclass(slots=True)
class Kind:
    """One kind's figures.  actors: attackers who came, or clients; lines: what would be written if nobody were ever
    banned; to_ban, seconds: from the first line to the ban, for those who were banned; banned, minutes: clients, and
    the sum of their minutes; denied: lines of clients that were not written; lied: clients banned because a zone
    listed everybody."""

    name: str
    good: bool
    actors: int = 0
    lines: int = 0
    prevented: int = 0
    banned: int = 0
    to_ban: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    minutes: float = 0.0
    lied: int = 0

    @property
    def share(self) -> float:
        return self.prevented / self.lines if self.lines else 0.0


@dataclass(slots=True)
class Score:
    """kinds: in the order of the population."""

    name: str
    kinds: dict[str, Kind]
    queries: int
    cpu: float

    def total(self, good: bool) -> Kind:
        whole = Kind("good" if good else "attack", good)
        for kind in self.kinds.values():
            if kind.good == good:
                for key in ("actors", "lines", "prevented", "banned", "minutes", "lied"):
                    setattr(whole, key, getattr(whole, key) + getattr(kind, key))
                whole.to_ban += kind.to_ban
                whole.seconds += kind.seconds
        return whole


@dataclass(slots=True)
class _Seen:
    """An attacker so far.  times: of its lines up to its ban."""

    first: float
    lines: int = 0


class _Bans:
    """Who is banned when, by what an address is looked up under."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans: dict[str, list[Span]] = defaultdict(list)
        for span in spans:
            network = ip_network(span.prefix)
            wide = isinstance(network, IPv6Network) and network.prefixlen <= 64
            self._spans[_network(str(network.network_address)) if wide else str(network.network_address)].append(span)
        self._first = {key: min(s.since for s in spans) for key, spans in self._spans.items()}

    def first(self, address: str) -> float:
        """When it is banned first."""
        return min((self._first[key] for key in _keys(address) if key in self._first), default=float("inf"))

    def of(self, address: str) -> list[Span]:
        return [span for key in _keys(address) for span in self._spans.get(key, ())]


def _keys(address: str) -> tuple[str, ...]:
    return (address, _network(address)) if ":" in address else (address,)


def _network(address: str) -> str:
    return f"{IPv6Address(int(IPv6Address(address)) >> 64 << 64)}/64"


def scores(people: Population, outcomes: list[Outcome]) -> list[Score]:
    """One for each outcome."""
    counts = [_Count(people, outcome) for outcome in outcomes]
    for number, line in enumerate(simulated(people)):
        actor = people.actors[line.actor]
        for count in counts:
            count.line(number, actor, line.address, line.time)
    return [count.score() for count in counts]


class _Count:
    def __init__(self, people: Population, outcome: Outcome) -> None:
        self._people, self._outcome = people, outcome
        self._bans = _Bans(outcome.bans)
        self._kinds = {a.kind: Kind(a.kind, a.good) for a in people.actors}
        self._seen: dict[int, _Seen] = {}
        self._banned: dict[int, float] = {}

    def line(self, number: int, actor: Actor, address: str, time: float) -> None:
        kind = self._kinds[actor.kind]
        kind.lines += 1
        kind.prevented += number in self._outcome.prevented
        if actor.good:
            return
        seen = self._seen.setdefault(actor.number, _Seen(time))
        if actor.number not in self._banned:
            first = self._bans.first(address)
            if first <= time:
                self._ban(actor, kind, seen, first)
            else:
                seen.lines += 1

    def _ban(self, actor: Actor, kind: Kind, seen: _Seen, at: float) -> None:
        self._banned[actor.number] = at
        kind.banned += 1
        kind.to_ban.append(seen.lines)
        kind.seconds.append(max(0.0, at - seen.first))

    def score(self) -> Score:
        for actor in self._people.actors:
            kind = self._kinds[actor.kind]
            seen = self._seen.get(actor.number)
            if actor.good:
                self._client(actor, kind)
            elif seen is not None:
                kind.actors += 1
                if actor.number not in self._banned:
                    # Banned after its last line, and never seen again.
                    first = min(self._bans.first(stay.address) for stay in actor.stays)
                    if first < float("inf"):
                        self._ban(actor, kind, seen, first)
        return Score(self._outcome.name, self._kinds, self._outcome.queries, self._outcome.cpu)

    def _client(self, actor: Actor, kind: Kind) -> None:
        kind.actors += actor.clients
        seconds, lied = 0.0, False
        for stay in actor.stays:
            spans = [s for s in self._bans.of(stay.address) if s.stops(actor.ports)]
            met = [s for s in spans if s.since < stay.until and s.until > stay.since]
            lied |= any(s.lied for s in met)
            seconds += _covered((max(s.since, stay.since), min(s.until, stay.until)) for s in met)
        if seconds:
            kind.banned += actor.clients
            kind.minutes += actor.clients * seconds / 60
            kind.lied += actor.clients * lied


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in at least one of them."""
    total, reached = 0.0, float("-inf")
    for since, until in sorted(spans):
        total += max(0.0, until - max(since, reached))
        reached = max(reached, until)
    return total


def median_and_90th(values: list[float] | list[int]) -> tuple[float, float]:
    """Of at least one value."""
    if len(values) == 1:
        return float(values[0]), float(values[0])
    cuts = quantiles(values, n=10, method="inclusive")
    return float(cuts[4]), float(cuts[8])
