"""The attackers' kinds and figures.

Takes a Population to add to.  One function a kind, its figures in the call that makes it; what they rest on is in
docs/judgement.md.  Listed late: an address gets onto a list only some time after its first attempt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from traffic import lines
from traffic.lines import Peer, Session
from traffic.population import BEGIN, DAY, Planned, Population, bursts, log_even, moments, within
from traffic.world import BLOCKLIST, PSBL, SPAMCOP, SPAMHAUS, Entry

Make = Callable[[random.Random, Peer], Session]
Range = tuple[float, float]

GENERIC = "host-{}.dynamic.isp.example"


def add_attackers(p: Population) -> None:
    _bursting(p, "dot bot", 40, (25,), 0.8, 1.5, (10, 200), (0.5, 10), lines.lone_dot)
    _bursting(p, "garbage bot", 30, (25,), 0.7, 1.5, (10, 80), (1, 20), lines.pipelined)
    _bursting(p, "relay prober", 15, (25,), 0.5, 1, (5, 20), (2, 30), lines.relay_attempt)
    _bursting(p, "user harvester", 30, (25,), 0.7, 1, (5, 40), (5, 60), _harvest)
    _bursting(p, "spam bot", 500, (25,), 0.85, 0.6, (1, 4), (20, 600), _spam)
    _bursting(p, "SASL guesser", 40, (587,), 0.6, 0.7, (30, 300), (2, 40), _sasl)
    _bursting(p, "IMAP guesser", 25, (993,), 0.5, 0.7, (30, 400), (2, 40), _imap)
    _bursting(p, "SSH guesser", 60, (22,), 0.75, 0.7, (20, 400), (1, 30), _ssh)
    _slow(p, "SASL botnet", 1500, (587,), 0.6, 2, _sasl)
    _slow(p, "IMAP botnet", 1000, (993,), 0.5, 2, _imap)
    _slow(p, "SSH botnet", 770, (22,), 0.6, 2, _ssh)
    _scanners(p, 150)
    _rotators(p, 5)


def _bot(p: Population, listed: float) -> Peer:
    """A bot's address: mostly of an access network, and on lists with this probability, of those a third late."""
    chance = p.chance
    kind = chance.random()
    helo = chance.choice(("ylmf-pc", "localhost", "User", "mail.bot{}.example", "[192.168.1.2]"))
    if kind < 0.45:
        peer = p.peer(helo=helo)
    elif kind < 0.85:
        peer = p.peer(GENERIC, helo)
    else:
        peer = p.peer("srv{}.hosting.example", helo, forward=chance.random() < 0.6)
    if chance.random() < listed:
        late = chance.random() < 0.33
        since = BEGIN + (chance.random() * DAY * min(p.days, 2) if late else -DAY)
        until = since + log_even(chance, 0.5 * DAY, 20 * DAY)
        for zone, code, share in (
            (SPAMHAUS, "127.0.0.4", 0.85),
            (BLOCKLIST, "127.0.0.14", 0.35),
            (SPAMCOP, "127.0.0.2", 0.25),
            (PSBL, "127.0.0.2", 0.2),
        ):
            if chance.random() < share:
                p.world.list(zone, peer.address, Entry(code, since, until))
    if kind < 0.85 and chance.random() < 0.5:
        p.world.list(SPAMHAUS, peer.address, Entry("127.0.0.11"))
    return peer


def _bursting(
    p: Population,
    kind: str,
    count: int,
    ports: tuple[int, ...],
    listed: float,
    a_day: float,
    number: Range,
    gap: Range,
    make: Make,
) -> None:
    for _ in range(p.count(count)):
        peer = _bot(p, listed)

        def life(chance: random.Random, peer: Peer = peer) -> Iterator[Planned]:
            for at in bursts(chance, BEGIN, p.end, a_day, number, gap):
                yield at, peer, make(chance, peer)

        p.add(kind, False, [peer], ports, life)


def _slow(
    p: Population, kind: str, count: int, ports: tuple[int, ...], listed: float, a_day: float, make: Make
) -> None:
    """One try at a time, hours between an address's tries."""
    for _ in range(p.count(count)):
        peer = _bot(p, listed)

        def life(chance: random.Random, peer: Peer = peer) -> Iterator[Planned]:
            for at in moments(chance, BEGIN, p.end, a_day):
                yield at, peer, make(chance, peer)

        p.add(kind, False, [peer], ports, life)


def _scanners(p: Population, count: int) -> None:
    """A look at each port now and then."""
    for _ in range(p.count(count)):
        peer = _bot(p, 0.3)

        def life(chance: random.Random, peer: Peer = peer) -> Iterator[Planned]:
            for at in moments(chance, BEGIN, p.end, 2):
                makes: tuple[Make, ...] = (lines.hang_up, lines.imap_nothing, lines.not_ssh, lines.ssh_nothing)
                for number, make in enumerate(makes):
                    if chance.random() < 0.6:
                        yield at + 3 * number, peer, make(chance, peer)

        p.add("scanner", False, [peer], (22, 25, 993), life)


def _rotators(p: Population, count: int) -> None:
    """SSH and SASL guesses, each from another address of one /64."""
    for _ in range(p.count(count)):
        network = p.network6()

        def life(chance: random.Random, network: int = network) -> Iterator[Planned]:
            for at in bursts(chance, BEGIN, p.end, 1, (100, 400), (3, 30)):
                peer = Peer(within(network, chance))
                yield at, peer, chance.choice((_ssh, _sasl))(chance, peer)

        p.add("IPv6 rotator", False, [Peer(within(network, p.chance))], (22, 587), life)


def _harvest(chance: random.Random, peer: Peer) -> Session:
    return lines.unknown_users(chance, peer, chance.randrange(3, 12))


def _spam(chance: random.Random, peer: Peer) -> Session:
    return lines.unknown_users(chance, peer, chance.choice((1, 1, 2, 3)))


def _sasl(chance: random.Random, peer: Peer) -> Session:
    return lines.submission_refused(chance, peer, f"{lines.user(chance)}@{lines.DOMAIN}", chance.choice((1, 1, 1, 3)))


def _imap(chance: random.Random, peer: Peer) -> Session:
    return lines.imap_refused(chance, peer, f"{lines.user(chance)}@{lines.DOMAIN}", chance.choice((1, 1, 1, 3)))


def _ssh(chance: random.Random, peer: Peer) -> Session:
    known = chance.random() < 0.4
    return lines.shell_refused(
        chance, peer, "root" if known else chance.choice(lines.LOGINS[1:]), chance.choice((1, 1, 1, 3)), known=known
    )
