"""Whatever DNS does, nobody is banned or cleared who should not be: docs/verification-faults.md is the table to this.

A zone is tested and believed, then goes wrong in the worst moment, between two tests; the chain is real: nftban, the
resolver that goes wrong, unbound, rbldnsd.  Verification alone shows what each fault comes to, the daemon that it bans
and lifts accordingly.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from lab.dns import Dns
from lab.faults import Fault, FaultyResolver
from lab.namespaces import Namespaces
from lab.nftban import Nftban, eventually

from nftban.control.client import call
from nftban.prefixes import Prefix
from nftban.records import Answer, Listing
from nftban.verify.health import Health
from nftban.verify.outcomes import Missing, Records
from nftban.verify.providers import load_providers
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.verify import Verifier
from nftban.verify.zones import configured_zones

ZONE, WHITE, MILLION = "bl.example", "list.dnswl.org", "million.example"
WORST = "127.0.10.3"
LISTED, CLEAN = "198.51.100.7", "198.51.100.8"
NOW = 1_790_000_000.0
FIRST, MANY = int(IPv4Address("11.0.0.0")), 1_000_000
"""Every second address from here on is in the zone of a million."""

TRUTH = {LISTED: Answer.LISTED, CLEAN: Answer.CLEAR}
NOTHING = dict.fromkeys(TRUTH, Answer.UNKNOWN)
ALL_CLEAR = dict.fromkeys(TRUTH, Answer.CLEAR)

# The fault, what it makes of the two addresses, and the zone's state after its next test.
FAULTS: tuple[tuple[Fault | str, dict[str, Answer], str], ...] = (
    (Fault.SERVFAIL, NOTHING, "degraded"),
    (Fault.REFUSED, NOTHING, "degraded"),
    (Fault.GARBAGE, NOTHING, "degraded"),
    (Fault.TRUNCATED, TRUTH, "ok"),
    (Fault.TRUNCATED_FOR_GOOD, NOTHING, "degraded"),
    (Fault.WRONG_ID, TRUTH, "ok"),
    (Fault.WRONG_QUESTION, TRUTH, "ok"),
    (Fault.SPOOFED_SOURCE, TRUTH, "ok"),
    (Fault.LOSS, TRUTH, "ok"),
    (Fault.NXDOMAIN_WITHOUT_SOA, ALL_CLEAR, "dead"),
    (Fault.EMPTIED, ALL_CLEAR, "dead"),
    (Fault.PARKED, NOTHING, "lists the world"),
    ("127.255.255.252", NOTHING, "blocked"),
    ("127.255.255.254", NOTHING, "blocked"),
    ("127.255.255.255", NOTHING, "blocked"),
    (Fault.SILENT, NOTHING, "degraded"),
)
BY_NAME = {f.name if isinstance(f, Fault) else f: (f, answers, state) for f, answers, state in FAULTS}


@pytest.fixture(scope="module")
def machines() -> Iterator[Namespaces]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network, mount and PID namespaces with real servers")
    folder = Path(tempfile.mkdtemp(prefix="nftban-lab-"))
    folder.chmod(0o755)
    with Namespaces(folder) as namespaces:
        yield namespaces
    shutil.rmtree(folder)


def zone_of(name: str) -> str:
    """Each fault has a zone of its own in the daemon's settings."""
    return f"fault{list(BY_NAME).index(name)}.bl.example.net"


def addresses(name: str) -> tuple[str, str, str]:
    """Listed in the fault's zone from the start, later, and never."""
    number = list(BY_NAME).index(name)
    return f"203.0.113.{10 + number}", f"203.0.113.{60 + number}", f"203.0.113.{110 + number}"


GOOD, DELISTED, STILL, WORLD = "good.bl.example.net", "203.0.113.200", "203.0.113.201", "world.bl.example.net"


@pytest.fixture(scope="module")
def good(machines: Namespaces) -> Iterator[Dns]:
    """rbldnsd and unbound; the faults' zones hold their listed addresses."""
    zones: dict[str, dict[str, list[str]]] = {
        ZONE: {LISTED: ["127.0.0.2"]},
        WHITE: {LISTED: ["127.0.5.3"]},
        MILLION: {},
        GOOD: {DELISTED: ["127.0.0.2"], STILL: ["127.0.0.2"]},
        WORLD: {"203.0.113.210": ["127.0.0.2"]},
        **{zone_of(name): {address: ["127.0.0.2"] for address in addresses(name)[:2]} for name in BY_NAME},
    }
    bulk = {MILLION: (f"{IPv4Address(n)} :2:" for n in range(FIRST, FIRST + 2 * MANY, 2))}
    with Dns(machines.server, machines.folder / "dns", zones, {}, bulk=bulk) as running:
        yield running


@pytest.fixture(scope="module")
def resolver(machines: Namespaces, good: Dns) -> Iterator[FaultyResolver]:
    """In front of them."""
    with FaultyResolver(machines.server, good.resolver) as running:
        yield running


def behave(resolver: FaultyResolver, zone: str, fault: Fault | str) -> None:
    if isinstance(fault, str):
        resolver.answer(zone, fault)
    else:
        resolver.behave(zone, fault)


@pytest.fixture
def good_again(resolver: FaultyResolver) -> Iterator[None]:
    yield
    for zone in (ZONE, WHITE, MILLION):
        resolver.recover(zone)


def verified(
    machines: Namespaces, server: str, sites: list[str], test: Callable[[Verifier, Resolver], Awaitable[None]]
) -> None:
    """Run the test with a verifier whose zones were tested and are believed; in the server's network."""

    async def run() -> None:
        providers, _ = load_providers([Path(__file__).parents[2] / "rules" / "dnsbl"])
        zones, faults = configured_zones(sites, providers)
        assert not faults
        async with Resolver([server], timeout=2.0) as resolver:
            verifier = Verifier(zones, resolver, Health(zones), Quota(zones, 10_000), reverse=False, deadline=2.5)
            await verifier.test_zones(NOW)
            assert {status.state for status in verifier.status(NOW)} <= {"ok", "untested"}
            await test(verifier, resolver)

    machines.server.call(lambda: asyncio.run(run()))


async def said(verifier: Verifier, address: str, now: float = NOW) -> Listing:
    return (await verifier.evidence(Prefix.parse(address), now)).listings[0]


@pytest.mark.parametrize("name", BY_NAME)
def test_verification(name: str, machines: Namespaces, resolver: FaultyResolver, good_again: None) -> None:
    fault, expected, state = BY_NAME[name]

    async def test(verifier: Verifier, asking: Resolver) -> None:
        behave(resolver, ZONE, fault)
        for address, answer in expected.items():
            listing = await said(verifier, address)
            assert listing.answer is answer, listing
            assert listing.points == (4 if answer is Answer.LISTED else 0)
            assert ZONE not in listing.reason
        assert (asking.strays > 0) == (fault in (Fault.WRONG_ID, Fault.WRONG_QUESTION))
        await verifier.test_zones(NOW + 1800)
        assert verifier.status(NOW)[0].state == state
        if state not in ("ok", "degraded"):
            assert (await said(verifier, LISTED, NOW + 1801)).answer is Answer.UNKNOWN

    verified(machines, resolver.server, [f"{ZONE}*4"], test)


def test_verification_of_a_zone_that_lists_the_world(
    machines: Namespaces, resolver: FaultyResolver, good_again: None
) -> None:
    async def test(verifier: Verifier, asking: Resolver) -> None:
        behave(resolver, ZONE, Fault.LISTS_WORLD)
        assert (await said(verifier, CLEAN)).points == 4, "nobody can know yet"
        (change,) = await verifier.test_zones(NOW + 1800)
        assert (change.after, change.good) == ("lists the world", NOW), "so that what it said since can be taken back"
        assert (await said(verifier, CLEAN, NOW + 1801)).answer is Answer.UNKNOWN

    verified(machines, resolver.server, [f"{ZONE}*4"], test)


@pytest.mark.parametrize("code", ["127.0.0.255", WORST])
def test_verification_of_an_allow_list_over_its_quota(
    code: str, machines: Namespaces, resolver: FaultyResolver, good_again: None
) -> None:
    async def test(verifier: Verifier, asking: Resolver) -> None:
        assert (await said(verifier, LISTED)).points == -4
        behave(resolver, WHITE, code)
        listing = await said(verifier, CLEAN)
        assert (listing.points, listing.policy_points) == (0, 0), listing
        assert listing.answer is not Answer.CLEAR

    verified(machines, resolver.server, [f"{WHITE}=127.0.[2..9;11..15].[2;3]*-4"], test)


def test_verification_where_nobody_listens(machines: Namespaces) -> None:
    async def run() -> None:
        async with Resolver(["127.0.0.1:5999"], timeout=2.0) as resolver:
            zones, _ = configured_zones([f"{ZONE}*4"], ())
            verifier = Verifier(zones, resolver, Health(zones), Quota(zones, 100), reverse=False)
            before = time.monotonic()
            for address in TRUTH:
                assert (await said(verifier, address)).answer is Answer.UNKNOWN
            assert time.monotonic() - before < 1, "it is known at once"

    machines.server.call(lambda: asyncio.run(run()))


def test_a_million_addresses(machines: Namespaces, resolver: FaultyResolver) -> None:
    """Through unbound, past the resolver that goes wrong: whatever is in the zone is listed, and nothing else."""
    chosen = random.Random(1).sample(range(FIRST - 500, FIRST + 2 * MANY + 500), 3000)

    async def run() -> None:
        async with Resolver(["127.0.0.1"]) as asking:

            async def one(number: int) -> None:
                name = ".".join(reversed(str(IPv4Address(number)).split("."))) + f".{MILLION}"
                outcome = await asking.lookup(name, "A")
                listed = FIRST <= number < FIRST + 2 * MANY and number % 2 == FIRST % 2
                assert isinstance(outcome, Records if listed else Missing), (name, outcome)

            await asyncio.gather(*map(one, chosen))
            assert asking.sent == len(chosen), "nothing was lost"

    machines.server.call(lambda: asyncio.run(run()))


# The daemon.  Those that have settings of their own run before the one for all faults: a namespace has room for one.


class Lab:
    """The daemon, its log, and what it thinks of an address."""

    def __init__(self, machines: Namespaces, resolver: FaultyResolver, name: str, zones: list[str], more: str) -> None:
        folder = machines.folder / name
        folder.mkdir()
        self._log = folder / "mail.log"
        self._log.touch()
        self._session = 100
        shown = ", ".join(f'"{zone}"' for zone in zones)
        self.nftban = Nftban(
            machines.server,
            folder / "nftban",
            f'[dns]\nservers = ["{resolver.server}"]\ndeadline = 2.5\n[dnsbl]\nzones = [{shown}]\nreverse = false\n'
            f'{more}[reverify]\nevery = 5\n[jail.postfix]\nlogpath = "{self._log}"\n[jail.sshd]\nenabled = false\n',
        )

    def ask(self, op: str, **args: Any) -> Any:
        return call(self.nftban.folder / "run" / "control.sock", op, args)

    def offend(self, address: str, times: int) -> None:
        head = f"{time.strftime('%b %e %H:%M:%S')} mail postfix/smtpd"
        with self._log.open("a") as log:
            for _ in range(times):
                self._session += 1
                log.write(f"{head}[{self._session}]: warning: non-SMTP command from unknown[{address}]: .\n")

    def banned(self, address: str) -> bool:
        return bool(self.ask("query", address=address)["banned"])

    def await_ban(self, address: str) -> None:
        eventually(lambda: self.banned(address), f"{address} is banned")

    def await_verdict(self, address: str, zone: str) -> dict[str, Any]:
        """What the zone's answer came to, once the daemon has judged by it."""
        found: dict[str, Any] = {}

        def decided() -> bool:
            why = self.ask("why", address=address)
            for held in (*why["watched"], *why["bans"]):
                found.update(next((e for e in held["listings"] if e["zone"] == zone), {}))
            return bool(found)

        eventually(decided, f"{address} is judged")
        return found


def test_daemon_takes_back_what_a_zone_said_that_lists_the_world(
    machines: Namespaces, resolver: FaultyResolver
) -> None:
    known, clean = "203.0.113.210", "203.0.113.211"
    lab = Lab(machines, resolver, "world", [f"{WORLD}*4"], "test_every = 2\n")
    with lab.nftban:
        lab.offend(known, 2)
        lab.await_ban(known)
        banned_at = time.time()

        def zone() -> Any:
            return lab.ask("status")["zones"][0]

        eventually(lambda: zone()["tested"] > banned_at, "it passed a test since")
        resolver.behave(WORLD, Fault.LISTS_WORLD)
        lab.offend(clean, 2)
        eventually(lambda: zone()["state"] == "lists the world", "its next test finds it out")
        lab.await_verdict(clean, WORLD)
        eventually(lambda: not lab.banned(clean), "nobody stays banned by its word")
        assert lab.banned(known), "that was before its last good test"
        lab.offend(clean, 6)
        lab.await_ban(clean)


def test_daemon_sees_a_public_resolver_behind_systemds_stub(machines: Namespaces) -> None:
    machines.server.run(["mkdir", "-p", "/run/systemd/resolve"])
    machines.server.run(
        ["tee", "/run/systemd/resolve/resolv.conf"], input="nameserver 192.0.2.53\nnameserver 8.8.8.8\n"
    )
    folder = machines.folder / "stub"
    with Nftban(machines.server, folder, '[dns]\nservers = ["127.0.0.53"]\n') as nftban:
        status = nftban.json("status")
        assert status["zones"] == []
        note = status["dns"]["note"]
        assert "8.8.8.8 (Google Public DNS), which 127.0.0.53 asks, is a public resolver" in note and "unbound" in note


def test_daemon_is_not_disarmed_by_an_allow_list_over_its_quota(
    machines: Namespaces, resolver: FaultyResolver, good_again: None
) -> None:
    lab = Lab(machines, resolver, "white", [f"{WHITE}=127.0.[2..9;11..15].[2;3]*-4"], "")
    with lab.nftban:
        lab.offend(LISTED, 6)
        assert lab.await_verdict(LISTED, WHITE)["points"] == -4
        assert not lab.banned(LISTED), "known as a good mailer"
        resolver.answer(WHITE, WORST)
        lab.offend(CLEAN, 6)
        lab.await_ban(CLEAN)


@pytest.fixture(scope="module")
def lab(machines: Namespaces, resolver: FaultyResolver) -> Iterator[Lab]:
    """Running, its zones good, and of each of them one address banned because it is listed."""
    made = Lab(machines, resolver, "faults", [f"{zone_of(name)}*4" for name in BY_NAME] + [f"{GOOD}*4"], "")
    before = [DELISTED, STILL, *(addresses(name)[0] for name in BY_NAME)]
    for address in before:
        made.offend(address, 2)
        made.await_ban(address)
    with made.nftban:
        yield made


@pytest.mark.parametrize("name", BY_NAME)
def test_daemon(name: str, lab: Lab, resolver: FaultyResolver) -> None:
    fault, expected, _ = BY_NAME[name]
    zone, (_, listed, clean) = zone_of(name), addresses(name)
    behave(resolver, zone, fault)
    lab.offend(clean, 2)
    lab.offend(listed, 2)
    assert lab.await_verdict(clean, zone)["answer"] == expected[CLEAN]
    assert lab.await_verdict(listed, zone)["answer"] == expected[LISTED]
    assert not lab.banned(clean), "two offences are not enough"
    if expected is TRUTH:
        lab.await_ban(listed)
    else:
        assert not lab.banned(listed), "nobody confirmed that it is listed"
    lab.offend(listed, 4)
    lab.await_ban(listed)


@pytest.mark.timeout(240)
def test_daemon_lifts_no_ban_because_a_zone_went_wrong(lab: Lab, good: Dns, resolver: FaultyResolver) -> None:
    for name, (fault, _, _) in BY_NAME.items():
        behave(resolver, zone_of(name), fault)
    good.relist(GOOD, {STILL: ["127.0.0.2"]})
    # Our own cache keeps a listing for a minute; what comes then is what counts.
    lab.nftban.log.wait_for(rf"{DELISTED}: ban lifted, it is no longer listed", timeout=100)
    for name in BY_NAME:
        if BY_NAME[name][0] in (Fault.SERVFAIL, Fault.REFUSED, Fault.WRONG_ID, Fault.EMPTIED):
            asked = ".".join(reversed(addresses(name)[0].split("."))) + f".{zone_of(name)}"
            resolver.wait_for(asked, 2, timeout=30)
    # What a zone said between its last good test and its trip is void, true or not; all others stay.
    assert [name for name in BY_NAME if not lab.banned(addresses(name)[0])] == ["PARKED"]
    assert lab.banned(STILL) and not lab.banned(DELISTED)
