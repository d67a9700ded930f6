"""What a banning program did to a log: which lines it kept away, whom it banned when.

Every contestant gives an Outcome, whatever it is made of; `score` reads nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ALL_PORTS: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Span:
    """A ban as it was in force.  prefix: an address, or an IPv6 network with /64; ports: ALL_PORTS is every port;
    lied: a zone that listed everybody decided it."""

    prefix: str
    ports: frozenset[int]
    since: float
    until: float
    lied: bool = False

    def stops(self, ports: frozenset[int]) -> bool:
        return not self.ports or bool(self.ports & ports)


@dataclass(slots=True)
class Outcome:
    """prevented: numbers of the lines (from 0) that were not written because their sender was banned; queries: to DNS;
    cpu: seconds."""

    name: str
    prevented: set[int] = field(default_factory=set)
    bans: list[Span] = field(default_factory=list)
    queries: int = 0
    cpu: float = 0.0
