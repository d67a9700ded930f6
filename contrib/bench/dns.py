"""Look-ups: our resolver beside dnspython's and aiodns, and the whole verification of one offender.

The server is a real rbldnsd with a million addresses, in the same private network; 100 questions are on the way at a
time, half of them about listed addresses, and every answer is compared with what the zone holds: a look-up that was
lost or wrong ends the measurement.  CPU is this process's own, which is steadier than wall time and says what it takes
from the rest of the daemon.  The offender is asked about through unbound, whose cache is warm, ours being empty.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import dns.asyncresolver
import dns.resolver

from bench.measures import Row, Scale, addresses
from nftban.errors import NftbanError
from nftban.prefixes import Prefix
from nftban.records import Answer
from nftban.verify.health import Health
from nftban.verify.outcomes import Missing, Records
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.verify import NOT_PUBLIC, Told, Verifier
from nftban.verify.zones import Zone, configured_zones

ZONE = "bl.example.net"
SERVED, RESOLVING = 5353, 5453
IN_FLIGHT = 100
ZONES = (ZONE, *(f"{n}.example.net" for n in ("two", "three", "four", "five", "six")))

Ask = Callable[[str], Awaitable[bool]]
"""Is this name listed?  Raises for anything but an answer."""


def lookups(scale: Scale) -> Iterator[Row]:
    """Many questions to one DNSBL."""
    count = scale.count(20_000)
    asked = addresses(2 * count)
    listed = set(asked[:count])
    others = set(asked)
    names = [(f"{_reversed(a)}.{ZONE}", a in listed) for a in asked]
    mixed = [pair for two in zip(names[:count], names[count:], strict=True) for pair in two][:count]
    with _serving({ZONE: [*listed, *(a for a in addresses(1_000_000, seed=2) if a not in others)]}):
        ours = asyncio.run(_with_ours(mixed))
        plain = asyncio.run(_measured(mixed[: count // 5], _dnspython()))
        cares = asyncio.run(_with_aiodns(mixed))
    yield Row(
        "a look-up, 100 in flight",
        ours.wall,
        limit=100e-6,
        goal=50e-6,
        note=f"{1 / ours.wall:,.0f} a second, none lost, {ours.repeated} of {count:,} repeated",
    )
    yield Row("the same, CPU", ours.cpu, limit=60e-6, goal=15e-6)
    yield Row("the same, CPU", ours.cpu, plain.cpu, "dnspython's resolver", limit=1 / 4, goal=1 / 10)
    if cares is not None:
        yield Row("the same, CPU", ours.cpu, cares.cpu, "aiodns", limit=1.0, goal=0.5)


def offender(scale: Scale) -> Iterator[Row]:
    """Six zones, PTR, its names, HELO with SPF: one suspect after the other, and one whose resolver is silent."""
    asked = [a for a in addresses(max(scale.count(2_000), 40)) if not NOT_PUBLIC.overlaps(Prefix(4, a, 32))]
    zones, _ = configured_zones([f"{zone}*2" for zone in ZONES], ())
    with _serving(dict.fromkeys(ZONES, asked[::2])), _resolving(ZONES, asked):
        times = asyncio.run(_verified(zones, asked))
        silent = asyncio.run(_silent(zones))
    what = "an offender checked: 6 zones, PTR, names, HELO, SPF"
    yield Row(f"{what}, p50", statistics.median(times), limit=50e-3, goal=5e-3)
    yield Row("the same, p99", statistics.quantiles(times, n=100)[98], limit=50e-3)
    yield Row("the same, its resolver silent", silent, limit=5.0)


@dataclass(frozen=True, slots=True)
class _Cost:
    """Seconds per look-up."""

    wall: float
    cpu: float
    repeated: int = 0


async def _measured(names: Sequence[tuple[str, bool]], ask: Ask) -> _Cost:
    """All names, so many at a time; raises RuntimeError for a wrong answer."""
    waiting = iter(names)

    async def worker() -> None:
        for name, listed in waiting:
            if await ask(name) is not listed:
                raise RuntimeError(f"{name}: wrong answer")

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return _Cost((time.perf_counter() - wall) / len(names), (time.process_time() - cpu) / len(names))


async def _with_ours(names: Sequence[tuple[str, bool]]) -> _Cost:
    async with Resolver([f"127.0.0.1:{SERVED}"], limit=IN_FLIGHT) as resolver:

        async def ask(name: str) -> bool:
            outcome = await resolver.lookup(name, "A")
            if not isinstance(outcome, Records | Missing):
                raise RuntimeError(f"{name}: {outcome.reason}")
            return isinstance(outcome, Records)

        cost = await _measured(names, ask)
        return _Cost(cost.wall, cost.cpu, resolver.sent - len(names))


def _dnspython() -> Ask:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], SERVED

    async def ask(name: str) -> bool:
        try:
            await resolver.resolve(name, "A", search=False)
        except dns.resolver.NXDOMAIN:
            return False
        return True

    return ask


async def _with_aiodns(names: Sequence[tuple[str, bool]]) -> _Cost | None:
    """None where it is not installed."""
    try:
        import aiodns
    except ImportError:
        return None
    resolver = aiodns.DNSResolver(["127.0.0.1"], udp_port=SERVED)

    async def ask(name: str) -> bool:
        try:
            await resolver.query_dns(name, "A")
        except aiodns.error.DNSError as e:
            if e.args[0] != aiodns.error.ARES_ENOTFOUND:
                raise
            return False
        return True

    try:
        return await _measured(names, ask)
    finally:
        await resolver.close()


async def _verified(zones: tuple[Zone, ...], asked: Sequence[int]) -> list[float]:
    """Seconds per suspect, one after the other."""
    server = [f"127.0.0.1:{RESOLVING}"]
    suspects = [(Prefix(4, address, 32), Told(helo=_host(address))) for address in asked]
    async with Resolver(server) as warming:
        for prefix, told in suspects:
            await _verifier(zones, warming).evidence(prefix, time.time(), told)
    times = []
    async with Resolver(server) as resolver:
        verifier = _verifier(zones, resolver)
        await verifier.test_zones(time.time())
        for number, (prefix, told) in enumerate(suspects):
            start = time.perf_counter()
            evidence = await verifier.evidence(prefix, time.time(), told)
            times.append(time.perf_counter() - start)
            answers = {listing.answer for listing in evidence.listings}
            if answers != {Answer.CLEAR if number % 2 else Answer.LISTED} or evidence.reverse.confirmed is not True:
                raise RuntimeError(f"{prefix}: wrong evidence: {evidence}")
    return times


async def _silent(zones: tuple[Zone, ...]) -> float:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        async with Resolver([f"127.0.0.1:{deaf.getsockname()[1]}"]) as resolver:
            start = time.perf_counter()
            await _verifier(zones, resolver).evidence(Prefix.parse("192.0.2.1"), time.time())
            return time.perf_counter() - start


def _verifier(zones: tuple[Zone, ...], resolver: Resolver) -> Verifier:
    return Verifier(zones, resolver, Health(zones), Quota(zones, 1_000_000))


def _reversed(address: int) -> str:
    return ".".join(reversed(str(IPv4Address(address)).split(".")))


def _host(address: int) -> str:
    return f"host-{address:x}.example.org"


@contextmanager
def _serving(zones: Mapping[str, Iterable[int]]) -> Iterator[None]:
    """rbldnsd with these addresses listed."""
    head = "$SOA 3600 ns.invalid. hostmaster.invalid. 1 3600 600 86400 600\n$TTL 3600\n:127.0.0.2:listed\n127.0.0.2\n"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for zone, listed in zones.items():
            path = Path(folder, zone)
            path.write_text(head + "".join(f"{IPv4Address(address)}\n" for address in listed))
            path.chmod(0o644)
        command = ["rbldnsd", "-n", "-c", "0", "-w", folder, "-b", f"127.0.0.1/{SERVED}"]
        if os.geteuid() == 0:  # it refuses to run as root
            account = pwd.getpwnam("nobody")
            command += ["-u", f"{account.pw_uid}:{account.pw_gid}"]
        with _running([*command, *(f"{zone}:ip4set:{zone}" for zone in zones)], "started"):
            yield


@contextmanager
def _resolving(zones: Iterable[str], named: Iterable[int]) -> Iterator[None]:
    """unbound in front of rbldnsd; each of these addresses has a name that leads back to it."""
    lines = [
        *("server:", "interface: 127.0.0.1", f"port: {RESOLVING}", 'chroot: ""', 'username: ""', 'pidfile: ""'),
        *("use-syslog: no", 'module-config: "iterator"', "do-not-query-localhost: no", 'local-zone: "." static'),
        *(f'local-zone: "{zone}." transparent' for zone in zones),
    ]
    for address in named:
        text, name = IPv4Address(address), _host(address)
        lines += [f'local-data: "{_reversed(address)}.in-addr.arpa. 3600 IN PTR {name}."']
        lines += [f'local-data: "{name}. 3600 IN A {text}"']
    for zone in zones:
        lines += ["stub-zone:", f'name: "{zone}."', f"stub-addr: 127.0.0.1@{SERVED}", "stub-prime: no"]
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder, "unbound.conf")
        conf.write_text("\n".join(lines) + "\n")
        with _running(["unbound", "-d", "-c", str(conf)], "start of service"):
            yield


@contextmanager
def _running(command: list[str], word: str) -> Iterator[None]:
    """A server, from when it says this word to the end; raises NftbanError where there is none."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # a new network's loopback is down
    path = shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise NftbanError(f"{command[0]} is not installed", f"apt install {command[0]}")
    process = subprocess.Popen([path, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if word in line:
            break
    else:
        raise RuntimeError(f"{command[0]} did not start: {''.join(said)}")
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
