"""The good clients' kinds and figures, with their bad days.

Takes a Population to add to.  One function a kind; what the figures rest on is in docs/judgement.md.  A phone whose
password is stale tries again by itself: two to four attempts when it wakes, every five to fifteen minutes, and some
more when its owner looks at it.  Passwords change after QUIET only, so that people were seen to log in before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from heapq import merge

from traffic import lines
from traffic.lines import Peer
from traffic.population import BEGIN, DAY, Planned, Population, Stay, bursts, moments, waking, within
from traffic.world import DNSWL, SPAMHAUS, Entry

MAIL = (25,)
USER = (587, 993)
QUIET = 0.75 * DAY


def add_clients(p: Population) -> None:
    for n in range(p.count(30)):
        _big_mta(p, bad_day=n % 7 == 3)
    for n in range(p.count(60)):
        _small_mta(p, ("named", "generic", "no name", "named")[n % 4])
    for n in range(p.count(10)):
        _newsletter(p, n % 2 == 0)
    for n in range(p.count(150)):
        _home(p, n)
    for n in range(p.count(6)):
        _shared(p, "office", 40, listed=False, infected=False, generic=False, number=n)
    for n in range(p.count(6)):
        _shared(p, "CGNAT", 25, listed=n % 2 == 0, infected=n % 6 == 4, generic=True, number=n)
    for n in range(p.count(60)):
        _roaming(p, n)
    for n in range(p.count(20)):
        _forgotten(p, n)
    for _ in range(p.count(3)):
        _probe(p)
    for n in range(p.count(12)):
        _admin(p, n)


def _account(kind: str, number: int) -> str:
    return f"{kind}{number}@{lines.DOMAIN}"


# Mail servers


def _big_mta(p: Population, bad_day: bool) -> None:
    """On dnswl with a name that leads back.  A bad day: spam that it relays or bounces, for users there are none of."""
    peer = p.peer("mta{}.bigmail.example")
    p.world.list(DNSWL, peer.address, Entry("127.0.5.2"))
    p.world.spf[peer.helo] = f"v=spf1 ip4:{peer.address} -all"
    worst = BEGIN + (p.chance.random() * 0.7) * p.days * DAY

    def life(chance: random.Random) -> Iterator[Planned]:
        good = (
            (at, peer, lines.delivery(chance, peer, chance.random() < 0.02)) for at in moments(chance, BEGIN, p.end, 80)
        )
        spam = (
            (at, peer, lines.unknown_users(chance, peer, chance.choice((1, 1, 2))))
            for at in (moments(chance, worst, min(worst + 6 * 3600, p.end), 24 * 30) if bad_day else ())
        )
        return merge(good, spam, key=_time)

    p.add("big MTA, bad day" if bad_day else "big MTA", True, [peer], MAIL, life)


def _small_mta(p: Population, kind: str) -> None:
    address = p.address4()
    name = {"named": "mail.firm{}.example", "generic": "static-{}.isp.example", "no name": ""}[kind]
    peer = p.peer(name, "mail.firm{}.example", address=address)
    if kind != "no name":
        p.world.forward[peer.helo] = address

    def life(chance: random.Random) -> Iterator[Planned]:
        for at in waking(chance, BEGIN, p.end, 10):
            # A circular with some old addresses now and then.
            stale = chance.choice((1, 1, 1, 2, 4)) if chance.random() < 0.05 else 0
            yield at, peer, lines.delivery(chance, peer, stale)

    p.add(f"small MTA, {kind}", True, [peer], MAIL, life)


def _newsletter(p: Population, known: bool) -> None:
    """A mailing a day to 60 to 200 of our people, one in twenty of them gone."""
    peer = p.peer("out{}.newsletter.example")
    p.world.spf[peer.helo] = f"v=spf1 ip4:{peer.address} -all"
    if known:
        p.world.list(DNSWL, peer.address, Entry("127.0.15.2"))

    def life(chance: random.Random) -> Iterator[Planned]:
        for at in bursts(chance, BEGIN, p.end, 1, (60, 200), (2, 20)):
            yield at, peer, lines.delivery(chance, peer, int(chance.random() < 0.05))

    p.add("newsletter", True, [peer], MAIL, life)


# People


def _changed(p: Population, days: float) -> float:
    """When a password changes: so that there are so many days left, where there is room for them."""
    return BEGIN + QUIET + p.chance.random() * max(p.days * DAY - QUIET - days * DAY, 0)


def _person(
    chance: random.Random, peer: Peer, who: str, since: float, until: float, a_day: float, typos: float
) -> Iterator[Planned]:
    """Reads and sends mail; typos: share of logins that go wrong once to three times before."""
    for at in waking(chance, since, until, a_day):
        if chance.random() < typos:
            for again in range(chance.choice((1, 1, 2, 3))):
                yield at + 8 * again, peer, lines.imap_refused(chance, peer, who)
            at += 30
        if chance.random() < 0.25:
            yield at, peer, lines.submission(chance, peer, who)
        else:
            yield at, peer, lines.imap(chance, peer, who)


def _stale(chance: random.Random, peer: Peer, who: str, since: float, until: float) -> Iterator[Planned]:
    """A phone with an old password, day and night."""
    now = since
    while (now := now + chance.uniform(300, 900)) < until:
        looked_at = 7 <= (now - BEGIN) % DAY / 3600 < 23 and chance.random() < 0.08
        at = now
        for _ in range(chance.randrange(6, 13) if looked_at else chance.randrange(2, 5)):
            if at < until:
                yield at, peer, lines.imap_refused(chance, peer, who)
            at += chance.uniform(2, 20)
        now = at


def _home(p: Population, number: int) -> None:
    """At home, on a PBL range with a generic name; every tenth by IPv6, every twentieth with a stale phone beside the
    computer for half a day."""
    if number % 10 == 9:
        network = p.network6()
        peers = [Peer(within(network, p.chance)) for _ in range(3)]
    else:
        peers = [p.peer("host-{}.dynamic.isp.example")]
        p.world.list(SPAMHAUS, peers[0].address, Entry("127.0.0.10"))
    who = _account("home", number)
    changed = _changed(p, 0.5) if number % 20 == 7 else p.end

    def life(chance: random.Random) -> Iterator[Planned]:
        streams = [_person(chance, peer, who, BEGIN, p.end, 12 / len(peers), 0.02) for peer in peers]
        streams.append(_stale(chance, peers[0], who, changed, min(changed + 0.5 * DAY, p.end)))
        return merge(*streams, key=_time)

    p.add("home, stale phone" if changed < p.end else "home", True, peers, USER, life)


def _shared(p: Population, kind: str, people: int, *, listed: bool, infected: bool, generic: bool, number: int) -> None:
    """Many people behind one address, one of them with a stale password for a day; infected: a bot is there too."""
    peer = p.peer("cgn-{}.pool.isp.example" if generic else "gw.office{}.example")
    if generic:
        p.world.list(SPAMHAUS, peer.address, Entry("127.0.0.10"))
    if listed:
        p.world.list(SPAMHAUS, peer.address, Entry("127.0.0.4", BEGIN + 0.2 * DAY))
    changed = _changed(p, 1)
    whole = kind.lower() + str(number)

    def life(chance: random.Random) -> Iterator[Planned]:
        everybody: list[Iterator[Planned]] = [
            _person(chance, peer, _account(whole, n), BEGIN, p.end, 10, 0.02) for n in range(people)
        ]
        everybody.append(_stale(chance, peer, _account(whole, 0), changed, changed + DAY))
        return merge(*everybody, key=_time)

    p.add(f"{kind}, bot behind it" if infected else kind, True, [peer], USER, life, clients=people)
    if infected:

        def bot(chance: random.Random) -> Iterator[Planned]:
            for at in bursts(chance, BEGIN, p.end, 1, (20, 100), (2, 20)):
                yield at, peer, lines.imap_refused(chance, peer, f"{lines.user(chance)}@{lines.DOMAIN}")

        p.add("bot behind CGNAT", False, [peer], (993,), bot)


def _roaming(p: Population, number: int) -> None:
    """A phone that changes networks five times a day; every tenth has a stale password for a third of a day."""
    moves = [BEGIN, *moments(p.chance, BEGIN, p.end, 5), p.end]
    peers = [p.peer("mobile-{}.pool.isp.example") for _ in moves[:-1]]
    stays = tuple(Stay(peer.address, since, until) for peer, since, until in zip(peers, moves, moves[1:], strict=False))
    who = _account("phone", number)
    changed = _changed(p, 0.4) if number % 10 == 5 else p.end
    fixed = min(changed + DAY / 3, p.end)
    for peer in peers:
        p.world.list(SPAMHAUS, peer.address, Entry("127.0.0.10"))

    def life(chance: random.Random) -> Iterator[Planned]:
        for peer, stay in zip(peers, stays, strict=True):
            fine = (
                (stay.since, min(stay.until, changed)),
                (max(stay.since, fixed), stay.until),
            )
            parts = [_person(chance, peer, who, since, until, 20, 0.01) for since, until in fine if since < until]
            since, until = max(stay.since, changed), min(stay.until, fixed)
            if since < until:
                parts.append(_stale(chance, peer, who, since, until))
            yield from merge(*parts, key=_time)

    p.add("phone, stale password" if changed < p.end else "phone", True, peers, USER, life, stays=stays)


def _forgotten(p: Population, number: int) -> None:
    """Somebody whose password was changed and whose only device does not know it: nothing but failures for hours."""
    peer = p.peer("host-{}.dynamic.isp.example")
    p.world.list(SPAMHAUS, peer.address, Entry("127.0.0.10"))
    who = _account("forgotten", number)
    changed = _changed(p, 0.5)

    def life(chance: random.Random) -> Iterator[Planned]:
        yield from _person(chance, peer, who, BEGIN, changed, 12, 0)
        yield from _stale(chance, peer, who, changed, changed + DAY / 3)
        yield from _person(chance, peer, who, changed + DAY / 3, p.end, 12, 0)

    p.add("stale password, nobody else", True, [peer], USER, life)


# Machines and admins


def _probe(p: Population) -> None:
    """A monitoring service: connects to each port every two minutes, and says little or nothing."""
    peer = p.peer("probe{}.monitor.example")

    def life(chance: random.Random) -> Iterator[Planned]:
        at = BEGIN + chance.random() * 120
        while at < p.end:
            yield at, peer, lines.hang_up(chance, peer) if chance.random() < 0.5 else lines.polite_probe(chance, peer)
            yield at + 1, peer, lines.imap_nothing(chance, peer)
            yield at + 2, peer, lines.ssh_nothing(chance, peer)
            at += 120

    p.add("monitoring", True, [peer], (22, 25, 993), life)


def _admin(p: Population, number: int) -> None:
    """Logs in three times a day, mistypes one time in six, and every third day gives up after several attempts and
    comes back with the right one."""
    admin = p.peer("host-{}.dynamic.isp.example")
    p.world.list(SPAMHAUS, admin.address, Entry("127.0.0.10"))
    who = f"admin{number}"

    def life(chance: random.Random) -> Iterator[Planned]:
        for at in waking(chance, BEGIN, p.end, 3):
            kind = chance.random()
            if kind < 0.11:
                yield at, admin, lines.shell_refused(chance, admin, who, 3, known=True)
                yield at + 40, admin, lines.shell_refused(chance, admin, who, chance.choice((1, 2, 3)), known=True)
                yield at + 300, admin, lines.shell(chance, admin, who)
            else:
                yield at, admin, lines.shell(chance, admin, who, chance.choice((1, 2)) if kind < 0.28 else 0)

    p.add("admin", True, [admin], (22,), life)


def _time(planned: Planned) -> float:
    return planned[0]
