"""Who is there: attackers and clients of each kind, what each does when, and what DNS says of it.

Takes a seed, days and a size (1: a server of some 500 people that is attacked as docs/judgement.md tells); gives a
`Population`: actors, each with its own stream of sessions, and the `World`.
Guarantees: the same arguments give the same population; a stream is made while it is read, so days of any size fit
into memory.  FIGURES of attackers are in `attackers`, of clients in `clients`; where they come from is in the docs.
Does not: merge streams or write lines (`simulate` does).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from traffic.lines import Peer, Session
from traffic.world import World

BEGIN = 1_795_392_000.0  # Monday 2026-11-23, 00:00 UTC
DAY = 86_400.0
SLACK = 600.0

Planned = tuple[float, Peer, Session]
Life = Callable[[random.Random], Iterator[Planned]]

NOT_USED = frozenset((127, 169, 172, 192, 198, 203, 100))


@dataclass(frozen=True, slots=True)
class Stay:
    """The client has this address from `since` to `until`."""

    address: str
    since: float
    until: float


@dataclass(slots=True)
class Actor:
    """good: a client; clients: how many people or servers it stands for; life: its sessions, in order of time; ports:
    what it uses."""

    number: int
    kind: str
    good: bool
    clients: int
    ports: frozenset[int]
    stays: tuple[Stay, ...]
    life: Life


@dataclass(slots=True)
class Population:
    """What is made so far; `add` numbers actors."""

    seed: int
    days: float
    size: float
    world: World = field(default_factory=World)
    actors: list[Actor] = field(default_factory=list)
    chance: random.Random = field(default_factory=random.Random)
    _taken: set[str] = field(default_factory=set)

    @property
    def end(self) -> float:
        return BEGIN + self.days * DAY

    def count(self, number: float) -> int:
        """So many at this size, at least one."""
        return max(1, round(number * self.size))

    def address4(self) -> str:
        """An address of its own."""
        while True:
            first = self.chance.randrange(11, 223)
            text = f"{first}." + ".".join(str(self.chance.randrange(1, 255)) for _ in range(3))
            if first not in NOT_USED and text not in self._taken:
                self._taken.add(text)
                return text

    def network6(self) -> int:
        """The first address of a /64 of its own, as a number."""
        while True:
            number = (0x2A00 << 112) | (self.chance.getrandbits(40) << 64)
            if str(number) not in self._taken:
                self._taken.add(str(number))
                return number

    def peer(self, name: str = "", helo: str = "", *, forward: bool = True, address: str = "") -> Peer:
        """A client with these names in DNS; `{}` in them becomes the address with dashes."""
        address = address or self.address4()
        dashed = address.replace(".", "-").replace(":", "-")
        name, helo = name.format(dashed), helo.format(dashed)
        if name:
            self.world.ptr[address] = name
            if forward:
                self.world.forward[name] = address
        return Peer(address, name if forward else "", helo or name or f"[{address}]")

    def add(
        self,
        kind: str,
        good: bool,
        peers: list[Peer],
        ports: tuple[int, ...],
        life: Life,
        *,
        clients: int = 1,
        stays: tuple[Stay, ...] | None = None,
    ) -> Actor:
        own = stays if stays is not None else tuple(Stay(p.address, BEGIN, self.end) for p in peers)
        actor = Actor(len(self.actors), kind, good, clients, frozenset(ports), own, life)
        self.actors.append(actor)
        return actor

    def sessions(self, actor: Actor) -> Iterator[Planned]:
        """The actor's stream in order of time, the same each time."""
        return in_order(actor.life(random.Random(f"{self.seed}:{actor.number}")))


def in_order(stream: Iterator[Planned]) -> Iterator[Planned]:
    """Sorts what comes up to SLACK seconds too late: a second try belongs to the first."""
    held: list[tuple[float, int, Planned]] = []
    newest = BEGIN
    for number, planned in enumerate(stream):
        heapq.heappush(held, (planned[0], number, planned))
        newest = max(newest, planned[0])
        while held and held[0][0] < newest - SLACK:
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]


def within(network: int, chance: random.Random) -> str:
    """An address of a /64."""
    return str(IPv6Address(network | chance.getrandbits(64)))


def moments(chance: random.Random, since: float, until: float, a_day: float) -> Iterator[float]:
    """Moments at random, so many a day on average."""
    now = since
    while a_day > 0 and (now := now + chance.expovariate(a_day / DAY)) < until:
        yield now


def waking(chance: random.Random, since: float, until: float, a_day: float) -> Iterator[float]:
    """The same, between 7 and 23 o'clock only."""
    for at in moments(chance, since, until, a_day * 24 / 16):
        if 7 <= (at - BEGIN) % DAY / 3600 < 23:
            yield at


def bursts(
    chance: random.Random,
    since: float,
    until: float,
    a_day: float,
    number: tuple[float, float],
    gap: tuple[float, float],
) -> Iterator[float]:
    """Moments in bursts: how many bursts a day, how many moments in each, and seconds between them (from, to; evenly on
    a logarithmic scale)."""
    now = since
    while (now := now + chance.expovariate(a_day / DAY)) < until:
        pause = log_even(chance, *gap)
        for _ in range(round(log_even(chance, *number))):
            if now >= until:
                return
            yield now
            now += chance.expovariate(1 / pause)


def log_even(chance: random.Random, low: float, high: float) -> float:
    """A number between both, as likely within each factor of two."""
    return float(low * (high / low) ** chance.random())
