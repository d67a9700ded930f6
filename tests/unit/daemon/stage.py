"""The daemon on a stage: its own parts, real filters, windows, judgement, store and DNS; only time and kernel are ours.

Takes settings as TOML text; gives a `Stage`: a Daemon that observes (its kernel is in memory, its store a file), whose
jobs do not run by themselves, with the clock stopped until `wait`.  The event loop's time goes along, so that DNS
answers grow old as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from demo.dnsbl_server import DnsblServer

from nftban.daemon.assemble import checked
from nftban.daemon.house import House
from nftban.daemon.main import Daemon
from nftban.daemon.operations import Operations
from nftban.daemon.pipeline import Pipeline
from nftban.kernel import plan
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, LogLine, Origin
from tests.intent import desired

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC).timestamp()

JAIL = """
[scopes]
smtp = [25]
mail = [25, 465, 587]
[jail.postfix]
filter = "postfix"
port = "mail"
logpath = "mail.log"
"""


class Clock:
    """Epoch seconds that stand still."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time can be put forward: timers that are due by then run at once."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class Stage:
    """daemon, house, pipeline, operations: the real ones; dns: the only server they ask."""

    def __init__(self, folder: Path, files: Mapping[str, str], dns: DnsblServer) -> None:
        own = (
            f'[daemon]\nstate = "{folder}/state.db"\nsocket = "{folder}/control.sock"\n'
            f'[dns]\nservers = "{dns.address}"\ndeadline = 1\n'
        )
        for name, text in {**files, "conf.d/stage.toml": own}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        self.dns = dns
        self.clock = Clock()
        self._put = 0.0
        self.assembly = checked(folder / "nftban.toml")
        self.daemon = Daemon(self.assembly, observe=True, clock=self.clock, up=lambda: self.clock.now - self._put)
        self.house: House = self.daemon.house
        assert self.house.pipeline is not None
        self.pipeline: Pipeline = self.house.pipeline
        self.operations = Operations(self.house)
        self._pid = 0

    @property
    def now(self) -> float:
        return self.clock.now

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.clock.now += seconds
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        loop.ahead += seconds

    def put_clock(self, seconds: float) -> None:
        """Somebody puts the wall clock; no time passes."""
        self.clock.now += seconds
        self._put += seconds

    def log(self, text: str, file: str = "mail.log") -> None:
        """A line of now in that log."""
        date = datetime.fromtimestamp(self.now, UTC).isoformat()
        jails = [jail for jail in self.assembly.jails if file in jail.logpaths]
        assert jails, f"no jail reads {file}"
        self.pipeline.take(jails, LogLine(file, f"{date} mail {text}"))

    def lone_dot(self, address: str, times: int = 1, service: str = "smtpd") -> None:
        """What Postfix writes of a client that sends a lone dot; each in a session of its own."""
        for _ in range(times):
            self._pid += 1
            self.log(f"postfix/{service}[{self._pid}]: warning: non-SMTP command from unknown[{address}]: .")

    async def offend(self, address: str, times: int = 1) -> None:
        """Offences, and what the daemon makes of them."""
        self.lone_dot(address, times)
        await self.pipeline.settle()

    def place(self, prefix: str, seconds: float | None = 3600, scope: str = "all", jail: str = "") -> None:
        """A ban as the daemon would place it."""
        until = None if seconds is None else self.now + seconds
        origin = Origin.LOG if jail else Origin.MANUAL
        assert self.house.bans.place(Ban(Prefix.parse(prefix), scope, self.now, until, origin, jail), self.now) == []

    async def call(self, op: str, **args: Any) -> dict[str, Any]:
        return await self.operations.call(op, args)

    async def banned(self, address: str) -> bool:
        return bool((await self.call("query", address=address))["banned"])

    def events(self, kind: str = "") -> list[str]:
        """What was reported, the newest first."""
        return [e.text for e in self.house.store.events(1000) if kind in ("", e.kind)]

    def drift(self) -> str:
        """How the kernel differs from the bans that hold, and the feeds; empty if it does not."""
        layout, allow = self.assembly.layout, {"allow4", "allow6"}
        bans = (s.ban for s in self.house.bans.all(self.now))
        wanted = [*desired(bans, PrefixSet(), layout, self.now), *chain(*self.house.bans.feeds.values())]
        present = self.house.kernel.present(self.now)
        delta = plan.difference(
            (e for e in wanted if e.set not in allow), (e for e in present if e.set not in allow), self.now
        )
        return str(delta) if delta else ""


def on_stage(folder: Path, settings: str | Mapping[str, str], play: Callable[[Stage], Awaitable[None]]) -> None:
    """Plays with a daemon that has these settings and has just started; afterwards the kernel must hold its bans.

    settings: the text of nftban.toml, or texts of several files by name.
    """
    files = {"nftban.toml": settings} if isinstance(settings, str) else settings

    async def main() -> None:
        async with DnsblServer() as dns:
            stage = Stage(folder, files, dns)
            stage.house.bans.load(stage.now)
            await stage.daemon.reconcile()
            await stage.daemon._saved.restore()
            try:
                await play(stage)
                assert not stage.drift()
            finally:
                stage.wait(1)  # what waits for a moment before it looks again need not
                await stage.daemon.stop()

    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(main())
