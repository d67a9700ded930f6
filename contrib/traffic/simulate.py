"""All streams as one log, in order of time, with the truth beside each line.

Takes a Population; gives `Line`s: when, by which actor, from which address, to which port, into which log, and the text
as rsyslog writes it.  `write` puts mail.log, auth.log and truth.jsonl into a directory, with DNS's state as dns.json.
Guarantees: the same population gives the same bytes; what is in memory is one session an actor.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from traffic.attackers import add_attackers
from traffic.clients import add_clients
from traffic.population import BEGIN, DAY, Actor, Planned, Population
from traffic.world import BLOCKLIST, DNSWL, PSBL, SPAMCOP, SPAMHAUS, BadHour, Fault

BAD_HOURS = (
    (0.20, 0.04, SPAMHAUS, Fault.LISTS_WORLD),
    (0.30, 0.08, SPAMCOP, Fault.FAILS),
    (0.45, 0.04, BLOCKLIST, Fault.LISTS_WORLD),
    (0.55, 0.25, PSBL, Fault.BLOCKS),
    (0.65, 0.08, SPAMHAUS, Fault.BLOCKS),
    (0.80, 0.04, DNSWL, Fault.LISTS_WORLD),
    (0.90, 0.06, SPAMHAUS, Fault.FAILS),
)
"""Share of the time at which it begins, days that it lasts, zone, fault.  0.04 days: an hour."""


@dataclass(frozen=True, slots=True)
class Line:
    """log: "mail" or "auth"; text: with date and host, without a line feed."""

    time: float
    actor: int
    address: str
    port: int
    log: str
    text: str


def population(seed: int, days: float, size: float) -> Population:
    made = Population(seed, days, size)
    made.chance.seed(seed)
    add_attackers(made)
    add_clients(made)
    span = days * DAY
    made.world.faults = tuple(
        BadHour(zone, fault, BEGIN + at * span, BEGIN + at * span + length * DAY)
        for at, length, zone, fault in BAD_HOURS
    )
    return made


def simulated(people: Population) -> Iterator[Line]:
    """Every line up to the end."""
    streams: list[tuple[float, int, Planned, Iterator[Planned]]] = []
    open_lines: list[tuple[float, int, Line]] = []
    for actor in people.actors:
        _put(streams, actor.number, people.sessions(actor))
    number = 0
    while streams or open_lines:
        # A session's lines run beside those of others; none of a later session comes before its beginning.
        while streams and (not open_lines or streams[0][0] <= open_lines[0][0]):
            _, who, planned, rest = heapq.heappop(streams)
            for line in _lines(people.actors[who], planned):
                if BEGIN <= line.time < people.end:
                    heapq.heappush(open_lines, (line.time, number, line))
                    number += 1
            _put(streams, who, rest)
        if open_lines:
            yield heapq.heappop(open_lines)[2]


def _put(streams: list[tuple[float, int, Planned, Iterator[Planned]]], who: int, rest: Iterator[Planned]) -> None:
    planned = next(rest, None)
    if planned is not None:
        heapq.heappush(streams, (planned[0], who, planned, rest))


def _lines(actor: Actor, planned: Planned) -> Iterator[Line]:
    at, peer, session = planned
    for delay, text in session.said:
        at += delay
        date = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
        yield Line(at, actor.number, peer.address, session.port, session.log, f"{date} mail {text}")


def write(people: Population, folder: Path) -> int:
    """The logs and the truth; returns the number of lines."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with ExitStack() as stack:
        logs = {
            name: stack.enter_context((folder / f"{name}.log").open("w", encoding="utf-8")) for name in ("mail", "auth")
        }
        truth = stack.enter_context((folder / "truth.jsonl").open("w", encoding="utf-8"))
        for line in simulated(people):
            actor = people.actors[line.actor]
            logs[line.log].write(line.text + "\n")
            row = {
                "log": line.log,
                "time": round(line.time, 6),
                "actor": line.actor,
                "kind": actor.kind,
                "good": actor.good,
            }
            truth.write(json.dumps({**row, "address": line.address, "port": line.port}) + "\n")
            count += 1
    world = people.world
    bad = [{**asdict(b), "fault": b.fault.value} for b in world.faults]
    listings = {
        zone: {address: [[e.code, e.since, e.until] for e in entries] for address, entries in known.items()}
        for zone, known in world.listings.items()
    }
    # A listing without a beginning or end has null there.
    text = json.dumps({"listings": listings, "ptr": world.ptr, "faults": bad})
    (folder / "dns.json").write_text(text.replace("-Infinity", "null").replace("Infinity", "null") + "\n")
    return count
