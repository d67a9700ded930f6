"""nftban over simulated traffic: its own daemon in observe mode, on the log's time.

Takes a Population, the settings' text and further files; gives the Outcome.  Filters, windows, judgement, known
answers, resolver, zone tests, quotas, bans, re-verification and expiry are the daemon's; DNS is a real server on
loopback that answers from the World.  A line whose address is banned on its port is not given to the daemon: the kernel
would have dropped its packets.  A verdict comes LATENCY seconds after its line, as an answer from DNS does.
Does not: read files or touch the kernel.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from nftban.daemon.assemble import checked
from nftban.daemon.main import Daemon
from nftban.prefixes import Prefix
from nftban.records import Answer, LogLine
from traffic.outcome import ALL_PORTS, Outcome, Span
from traffic.population import BEGIN, Population
from traffic.resolver import WorldServer
from traffic.simulate import Line, simulated
from traffic.world import Fault, World

LATENCY = 0.05
EXPIRE_EVERY, TEST_EVERY, REVERIFY_EVERY = 60.0, 60.0, 900.0
LOGS = {"mail": "/var/log/mail.log", "auth": "/var/log/auth.log"}

SHIPPED = (Path(__file__).parents[2] / "rules/nftban.toml").read_text(encoding="utf-8")
DOVECOT = '[jail.dovecot]\nfilter = "dovecot"\nport = "mail"\nlogpath = "/var/log/mail.log"\n'
"""As docs/filters.md has it: the shipped settings have no jail for a server that may not be there."""
WITHOUT_DNS = "[dnsbl]\nenabled = false\nreverse = false\n"


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is put forward with the log's: timers and DNS answers grow old by it."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def run(name: str, people: Population, conf: Mapping[str, str] = {}) -> Outcome:
    """conf: further settings by file name in conf.d, read after the shipped ones."""
    log = logging.getLogger("nftban")
    level = log.level
    log.setLevel(logging.CRITICAL)  # 10,000 bans are no news here
    try:
        with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=SteppedLoop) as runner:
            return runner.run(_play(name, people, Path(folder), conf))
    finally:
        log.setLevel(level)


async def _play(name: str, people: Population, folder: Path, conf: Mapping[str, str]) -> Outcome:
    outcome = Outcome(name)
    clock = _Clock()
    began = time.process_time()
    async with WorldServer(people.world, clock) as dns:
        own = f'[daemon]\nstate = "{folder}/state.db"\nsocket = "{folder}/control.sock"\n'
        own += f'[dns]\nservers = "{dns.address}"\n'
        files = {"nftban.toml": SHIPPED, "conf.d/dovecot.toml": DOVECOT, "conf.d/simulated.toml": own}
        for path, text in {**files, **{f"conf.d/{key}": value for key, value in conf.items()}}.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        daemon = Daemon(checked(folder / "nftban.toml"), observe=True, clock=clock)
        try:
            player = _Player(daemon, clock)
            await player.tick()
            for number, line in enumerate(simulated(people)):
                if not await player.take(line):
                    outcome.prevented.add(number)
            await player.rest(people.end)
            outcome.bans = list(_spans(daemon, player.seen, people))
            outcome.queries = dns.questions
            assert daemon.house.pipeline is not None
            if errors := daemon.house.pipeline.counters["errors"]:
                raise RuntimeError(f"{errors} errors in the pipeline")
        finally:
            await daemon.stop()
    outcome.cpu = time.process_time() - began
    return outcome


class _Clock:
    now = BEGIN

    def __call__(self) -> float:
        return self.now

    def set(self, now: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        loop.ahead += max(0.0, now - self.now)
        self.now = max(now, self.now)


class _Player:
    """Gives lines to a daemon and lets its jobs run when they are due.  seen: every prefix that was counted."""

    def __init__(self, daemon: Daemon, clock: _Clock) -> None:
        self._daemon, self._clock, house = daemon, clock, daemon.house
        assert house.pipeline is not None
        self._bans, self._pipeline = house.bans, house.pipeline
        self._jails = {log: [j for j in house.assembly.jails if path in j.logpaths] for log, path in LOGS.items()}
        self._scopes: dict[int, list[str]] = {}
        self._due = {"expire": BEGIN, "test": BEGIN, "reverify": BEGIN + REVERIFY_EVERY}
        self._asked: float | None = None
        self.seen: set[Prefix] = set()

    async def take(self, line: Line) -> bool:
        """Was the line written?"""
        await self.rest(line.time)
        prefix = Prefix.parse(line.address)
        if any(self._bans.covers(prefix, scope, line.time) for scope in self._named(line.port)):
            return False
        before = self._pipeline.counters["offences"]
        self._pipeline.take(self._jails[line.log], LogLine(LOGS[line.log], line.text))
        if self._pipeline.counters["offences"] > before:
            self.seen.add(self._jails[line.log][0].windows.counted(prefix))
            if self._asked is None:
                self._asked = line.time
        return True

    def _named(self, port: int) -> list[str]:
        if port not in self._scopes:
            scopes = self._daemon.house.assembly.layout.scopes
            self._scopes[port] = [s.name for s in scopes if port in s.ports] or ["all"]
        return self._scopes[port]

    async def rest(self, until: float) -> None:
        """Time goes on; verdicts come, jobs run."""
        if self._asked is not None and self._asked + LATENCY <= until:
            self._clock.set(self._asked + LATENCY)
            await self._pipeline.settle()
            self._asked = None
        if min(self._due.values()) <= until:
            await self._pipeline.settle()
            self._clock.set(until)
            await self.tick()
        self._clock.set(until)

    async def tick(self) -> None:
        now, due = self._clock.now, self._due
        if due["expire"] <= now:
            due["expire"] = now + EXPIRE_EVERY
            await self._daemon.expire()
        if due["test"] <= now:
            due["test"] = now + TEST_EVERY
            await self._daemon.house.verifier.test_zones(now)
        if due["reverify"] <= now:
            due["reverify"] = now + REVERIFY_EVERY
            await self._daemon.reverify()


def _spans(daemon: Daemon, seen: set[Prefix], people: Population) -> Iterator[Span]:
    store = daemon.house.store
    ports = {s.name: frozenset(s.ports) or ALL_PORTS for s in daemon.house.assembly.layout.scopes}
    for prefix in sorted(seen):
        for stored in store.bans_covering(prefix, 1000):
            ban = stored.ban
            end = min(stored.ended or people.end, ban.until or people.end, people.end)
            evidence = store.detail(stored.id).evidence if stored.needs_listing else None
            zones = (
                [e.zone for e in evidence.listings if e.answer is Answer.LISTED and e.points > 0] if evidence else []
            )
            yield Span(str(ban.prefix), ports[ban.scope], ban.since, end, _lied(people.world, zones, prefix, ban.since))


def _lied(world: World, zones: list[str], prefix: Prefix, now: float) -> bool:
    """Did one of the zones say so of everybody at that moment, and would not have of this address?"""
    lying = {b.zone for b in world.faults if b.fault is Fault.LISTS_WORLD and b.since <= now < b.until + 600}
    return any(
        zone in lying and not any(e.since <= now < e.until for e in world.listings[zone].get(str(prefix), ()))
        for zone in zones
    )
