"""The demonstration from beginning to end, in the world that isolation.py made.

Takes an audience (picture.py's Screen or chronicle.py's Chronicle); starts a DNS server, a mail server and the daemon
with the shipped settings, lets the cast of cast.py visit, watches the daemon through its control socket and makes the
observations of `Checks`.  Gives the scene with all of them settled.
Guarantees: everything shown comes from the daemon, the kernel or a real connection; daemon and servers have ended when
`run` returns.  Raises DemoError with the reason where something does not start or takes too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

from demo import cast
from demo.cast import Client, Visit
from demo.dnsbl_server import DnsblServer
from demo.ledger import News
from demo.maillog import MailLog
from demo.network import Network, greet
from demo.scene import Knock, Logged, Scene
from nftban.config.load import shipped_rules
from nftban.control.client import call
from nftban.errors import NftbanError, NoDaemonError

LIMIT = 50.0
"""Seconds after which the whole is given up."""
PATIENCE = 6.0
"""Seconds in which what must happen next has to happen."""
POLL = 0.2
BAN_SECONDS = 15

FOLDER = Path("/run/demo")
CONFIG = FOLDER / "nftban.toml"
DAEMON_LOG = FOLDER / "daemon.log"
MAIL_LOG = Path("/var/log/mail.log")
AUTH_LOG = Path("/var/log/auth.log")
RUN_FOLDER = Path("/run/nftban")
SOCKET = RUN_FOLDER / "control.sock"
# As systemd tells a service where its folders are.
ENVIRONMENT = {"RUNTIME_DIRECTORY": str(RUN_FOLDER), "STATE_DIRECTORY": str(RUN_FOLDER)}

SETTINGS = f"""\
[dns]
servers = ["127.0.0.1"]   # a DNS server of our own: nothing leaves this machine
[defaults]
bantime = "{BAN_SECONDS}s"           # instead of an hour, so that you see it end
"""


class DemoError(Exception):
    """Why the demonstration cannot go on, in words."""


class Audience(Protocol):
    """Who is shown the scene."""

    def step(self, text: str) -> None:
        """Something is being started; the step before is done."""

    def ready(self) -> None:
        """All is started: from now on things happen."""

    def happened(self, thing: Logged | Knock | News) -> None:
        """One thing, in the moment it happens."""

    def frame(self) -> None:
        """A moment has passed."""

    def curtain(self, command: str) -> None:
        """Nothing happens any more; what comes next is this command's output."""


class Story:
    """One run.  scene: what there is to see, at any time."""

    def __init__(self, network: Network) -> None:
        self.scene = Scene(time.time(), SETTINGS)
        self._network = network
        self._polled = asyncio.Event()

    async def run(self, audience: Audience) -> None:
        self._audience = audience
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(LIMIT):
                    await self._begin(stack)
                    await self._play()
                await self._explain()
        except TimeoutError:
            raise DemoError(f"after {LIMIT:.0f} s it was still at this: {self.scene.now}") from None

    # The beginning

    async def _begin(self, stack: contextlib.AsyncExitStack) -> None:
        self._step("a DNS server that answers for the DNSBLs and for reverse names")
        zones, names = cast.dns_data()
        dns = await stack.enter_async_context(DnsblServer(zones, host="127.0.0.1", port=53))
        for address, name in names.items():
            dns.add_reverse(address, name)
        self._step("a mail server that greets on ports 25 and 587")
        await stack.enter_async_context(greet())
        self._step("nftban's daemon: bans into the kernel, then the log")
        _write_settings()
        daemon = await stack.enter_async_context(_daemon())
        await self._until_it_answers(daemon)
        self._step("the daemon tests each DNSBL before it believes it")
        await self._until_zones_are_tested()

    def _step(self, text: str) -> None:
        self.scene.now = text
        self._audience.step(text)

    async def _until_it_answers(self, daemon: asyncio.subprocess.Process) -> None:
        while True:
            with contextlib.suppress(NoDaemonError):
                await _ask("ping")
                return
            if daemon.returncode is not None:
                raise DemoError(
                    f"the daemon ended with {daemon.returncode}:\n{DAEMON_LOG.read_text('utf-8', 'replace')}"
                )
            await asyncio.sleep(POLL / 4)

    async def _until_zones_are_tested(self) -> None:
        while True:
            zones = (await _ask("status"))["zones"]
            if all(zone["usable"] for zone in zones):
                return
            failed = [f"{zone['zone']} is {zone['state']}: {zone['why']}" for zone in zones if not zone["usable"]]
            self.scene.now = "; ".join(failed)
            await asyncio.sleep(POLL / 4)

    # What happens

    async def _play(self) -> None:
        self.scene.now = "offences are counted; who offends is looked up; the score decides"
        self._audience.ready()
        begin = time.monotonic()
        with MailLog(MAIL_LOG) as log:
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(self._watch())
                    visits = [
                        group.create_task(self._visit(client, visit, log, begin + visit.at))
                        for client in cast.EVERYBODY
                        for visit in client.visits
                    ]
                    await self._observe_drop_and_pass()
                    await asyncio.wait(visits)
                    await self._observe_expiry()
                    await self._observe_repetition(log)
                    await self._observe_spared()
                    await asyncio.sleep(1)
                    watching.cancel()
            except ExceptionGroup as group_error:
                first = group_error.exceptions[0]
                raise (first if isinstance(first, DemoError) else DemoError(repr(first))) from group_error

    async def _watch(self) -> None:
        """Asks the daemon about everybody who has offended, again and again."""
        while True:
            for account in self.scene.accounts.values():
                if not account.visited:
                    continue
                try:
                    result = await _ask("why", address=account.address)
                except NftbanError as e:
                    raise DemoError(
                        f"the daemon does not answer: {e}\n{DAEMON_LOG.read_text('utf-8', 'replace')}"
                    ) from e
                for news in account.take(result, time.time()):
                    self._audience.happened(news)
            self._polled.set()
            self._polled.clear()
            self._audience.frame()
            await asyncio.sleep(POLL)

    async def _until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Waits for it; False where it did not come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._polled.wait()
        return condition()

    async def _visit(self, client: Client, visit: Visit, log: MailLog, at: float) -> None:
        """One connection, and what the mail server logs about it if it comes to be."""
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        if client.addresses[0] in self.scene.accounts:
            self.scene.accounts[client.addresses[0]].visited = True
        if await self._knock(visit.address, visit.port, show=False) is None:
            return
        named = client.name if visit.address == client.addresses[0] and client.name else "unknown"
        for program, shape in visit.lines:
            message = shape.format(client=f"{named}[{visit.address}]")
            line = log.write(program, message, visit.address)
            self._show(Logged(time.time(), program, message, line))
            await asyncio.sleep(0.07)

    async def _knock(self, address: str, port: int = 25, *, show: bool = True) -> str | None:
        """A real connection; show: even if it works."""
        banner = await self._network.knock(address, port)
        if show or banner is None:
            self._show(Knock(time.time(), address, port, banner))
        return banner

    def _show(self, thing: Logged | Knock) -> None:
        self.scene.stream.append(thing)
        self._audience.happened(thing)

    # What must be observed

    async def _observe_drop_and_pass(self) -> None:
        checks, bot = self.scene.checks, self.scene.accounts[cast.BOT.addresses[0]]
        if not await self._until(lambda: bot.banned and bool(bot.entries)):
            raise DemoError(f"{bot.address} offended twice and is listed, but was not banned")
        before = bot.dropped
        clean = cast.PARTNER.addresses[0]
        banned_sees, clean_sees = await asyncio.gather(self._knock(bot.address), self._knock(clean))
        rose = await self._until(lambda: bot.dropped > before)
        checks.dropped.settle(
            banned_sees is None and rose,
            f"{bot.address}: {banned_sees or 'no answer'}, {bot.dropped - before} packets counted as dropped",
        )
        checks.passed.settle(clean_sees is not None, f"{clean}: {clean_sees or 'no answer'}")

    async def _observe_expiry(self) -> None:
        bot = self.scene.accounts[cast.BOT.addresses[0]]
        self.scene.now = "the log is quiet: banned clients no longer get through; their time runs out"
        entry = bot.entries[0]
        left = await self._until(lambda: entry.ended, BAN_SECONDS + PATIENCE)
        lasted = time.time() - entry.since
        sees = await self._knock(bot.address)
        self.scene.checks.expired.settle(
            left and sees is not None,
            f"{bot.address}: {'gone' if left else 'still there'} after {lasted:.0f} s; {sees or 'no answer'}",
        )

    async def _observe_repetition(self, log: MailLog) -> None:
        bot = self.scene.accounts[cast.BOT.addresses[0]]
        self.scene.now = "the bot will be back in a moment"
        await self._until(lambda: bot.ban is not None and bot.ban["ended"] is not None)
        self.scene.now = "the bot is back, and goes on as before"
        for visit in cast.BOT.visits[:2]:
            await self._visit(cast.BOT, visit, log, time.monotonic() + 0.3)
        again = await self._until(lambda: bot.bans == 2 and bot.banned)
        seconds = bot.ban["duration"] if again and bot.ban else 0.0
        self.scene.checks.repeated.settle(
            seconds > BAN_SECONDS,
            f"{bot.address}: {f'this time for {seconds:.0f} s' if again else 'not banned'}",
        )

    async def _observe_spared(self) -> None:
        mailer = self.scene.accounts[cast.NEWSLETTER.addresses[0]]
        accounts = self.scene.accounts.values()
        banned = sum(account.bans > 0 for account in accounts)
        self.scene.now = f"{len(accounts)} clients offended, {banned} were banned; the others write mail as ever"
        judged = mailer.judged
        offences = len(judged["offences"]) if judged else 0
        never = mailer.bans == 0 and not mailer.entries
        self.scene.checks.spared.settle(
            never and judged is not None and offences >= cast.MAXRETRY > judged["score"],
            f"{mailer.address}: {offences} offences, {judged['score'] if judged else 0} points, {mailer.bans} bans",
        )

    # The end

    async def _explain(self) -> None:
        """The real command line, on our standard output."""
        command = _nftban("why", cast.BOT.addresses[0])
        self._audience.curtain(" ".join(command[2:]))
        sys.stdout.flush()
        cli = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **ENVIRONMENT}, stdin=asyncio.subprocess.DEVNULL
        )
        if await cli.wait() != 0:
            raise DemoError(f"nftban why ended with {cli.returncode}")


def _nftban(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "nftban", "--config", str(CONFIG), *arguments]


def _write_settings() -> None:
    """The shipped settings, and beside them what differs here; the logs that they name."""
    (FOLDER / "conf.d").mkdir(parents=True)
    shutil.copyfile(shipped_rules() / "nftban.toml", CONFIG)
    (FOLDER / "conf.d" / "demo.toml").write_text(SETTINGS)
    RUN_FOLDER.mkdir()
    for log in (MAIL_LOG, AUTH_LOG):
        log.touch()


@contextlib.asynccontextmanager
async def _daemon() -> AsyncIterator[asyncio.subprocess.Process]:
    """The daemon as a process; it runs until left."""
    with DAEMON_LOG.open("wb") as log:
        daemon = await asyncio.create_subprocess_exec(
            *_nftban("daemon"),
            env={**os.environ, **ENVIRONMENT},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield daemon
    finally:
        if daemon.returncode is None:
            daemon.terminate()
            await daemon.wait()


async def _ask(op: str, **arguments: Any) -> dict[str, Any]:
    """An operation of the running daemon; raises NftbanError."""
    return await asyncio.to_thread(call, SOCKET, op, arguments, 5.0)
