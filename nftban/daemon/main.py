"""The daemon: the only place where everything meets.

Takes what assemble.py made of the settings; runs until SIGTERM or SIGINT and returns the exit code.  SIGHUP reads the
settings anew: one daemon stops, another starts in its place, which takes a moment, while the kernel's bans stand, the
control socket lets its clients wait, and what the jails counted goes on; settings that cannot be used change nothing.
Guarantees: the control socket is taken first, so that a second daemon ends before it touches store or kernel; bans
are in the kernel before the first log line is read; when the daemon stops, however it stops, the kernel's bans stand.
With `observe` nothing is written to the kernel and bans go into a store of their own (observe.db beside the store).
Tells systemd READY=1 (sd_notify(3)) once all of that is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from nftban import __version__
from nftban.control.server import serve
from nftban.daemon.assemble import Assembly
from nftban.daemon.bans import Bans
from nftban.daemon.desk import Desk
from nftban.daemon.heal import Healing
from nftban.daemon.house import House
from nftban.daemon.jobs import Jobs
from nftban.daemon.lockout import Lockout
from nftban.daemon.logs import Logs
from nftban.daemon.operations import Operations
from nftban.daemon.pipeline import Pipeline
from nftban.daemon.reverify import reverify
from nftban.errors import ConfigError, NftbanError, StoreError
from nftban.kernel import Kernel
from nftban.kernel.memory import MemoryKernel
from nftban.kernel.monitor import Monitor
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import PrefixSet
from nftban.records import Event
from nftban.store.sqlite import Store
from nftban.verify.health import State, Transition

log = logging.getLogger("nftban")

KEEP = 90 * 86400.0
"""Seconds for which ended bans, events and logins are kept."""


async def run(assembly: Assembly, observe: bool, read: Callable[[], Assembly] | None = None) -> int:
    """Runs the daemon; raises NftbanError where it cannot start.

    read: gives the settings anew, as they are by then, for SIGHUP; raises ConfigError.  None: there is nothing to read.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    loaded = assembly.loaded
    # First of all: whoever ends us while we start finds the socket, the logs and the store closed in order.
    signals = Signals()
    desk = Desk()
    async with AsyncExitStack() as stack:
        daemon: Daemon | None = None

        async def stop() -> None:
            if daemon is not None:
                await daemon.stop()

        # Entered last, left first: what clients asked for is done before the store is closed.
        stack.push_async_callback(stop)
        await stack.enter_async_context(serve(loaded.socket_path, desk.call, loaded.settings.daemon.group))
        stack.callback(desk.close)
        daemon = Daemon(assembly, observe)
        await daemon.start()
        desk.open(Operations(daemon.house))
        _notify("READY=1")
        log.info("nftban %s runs%s: %s", __version__, " (observing only)" if observe else "", daemon.summary())
        while await signals.next() == signal.SIGHUP:
            _notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            if read is not None and (newer := await _read_anew(daemon, read)) is not None:
                await desk.drain()
                await daemon.stop()
                daemon = await _succeeded(daemon, newer)
                desk.open(Operations(daemon.house))
            _notify("READY=1")
        _notify("STOPPING=1")
    log.info("stopped; the kernel's bans stand")
    return 0


async def _read_anew(daemon: Daemon, read: Callable[[], Assembly]) -> Assembly | None:
    """The settings as they are now; None, and the admin is told, where they cannot be used."""
    try:
        newer = await asyncio.to_thread(read)
    except NftbanError as e:
        what = "; ".join(map(str, e.faults)) if isinstance(e, ConfigError) else str(e)
        daemon.report(Event(time.time(), "reload", f"the settings are not taken, the earlier ones stay: {what}"))
        return None
    before, after = daemon.house.loaded, newer.loaded
    if (before.socket_path, before.settings.daemon.group) != (after.socket_path, after.settings.daemon.group):
        daemon.report(
            Event(time.time(), "reload", "another control socket or group needs a restart; the old one stays")
        )
    return newer


async def _succeeded(earlier: Daemon, assembly: Assembly) -> Daemon:
    """A daemon with these settings in the place of one that has stopped; with its settings where they do not do."""
    try:
        daemon = earlier.successor(assembly)
        await daemon.start()
    except Exception as e:
        log.exception("the new settings cannot be used")
        daemon = earlier.successor(earlier.house.assembly)
        await daemon.start()
        text = f"the new settings cannot be used, the earlier ones stay: {e}"
    else:
        text = f"settings read anew: {daemon.summary()}"
    daemon.report(Event(time.time(), "reload", text))
    return daemon


class Daemon:
    """All parts, started and stopped in order."""

    def __init__(self, assembly: Assembly, observe: bool, clock: Callable[[], float] = time.time) -> None:
        """Opens store and kernel; clock: epoch seconds."""
        loaded = assembly.loaded
        path = loaded.state_path.with_name("observe.db") if observe else loaded.state_path
        self._clock = clock
        self._observe = observe
        self._started = self._clock()
        self._assembly = assembly
        self._store = Store(path)
        monitor: Monitor | None = None
        kernel: Kernel
        if observe:
            kernel = MemoryKernel(assembly.layout, self._clock)
        else:
            kernel = real = NetlinkKernel(assembly.layout)
            monitor = Monitor(assembly.layout.table, lambda: real.port)
        self._lockout = Lockout(loaded.settings, assembly.resolver_prefixes)
        verifier = assembly.verifier(self._zone_changed)
        bans = Bans(self._store, kernel, assembly.layout, PrefixSet())
        self._healing = Healing(kernel, bans, monitor, self.report, self._clock)
        self._pipeline = Pipeline(
            assembly.jails,
            bans,
            self._store,
            self._lockout,
            verifier if assembly.zones or loaded.settings.dnsbl.reverse else None,
            self.report,
            self._clock,
        )
        self._logs = Logs(assembly.jails, self._pipeline.take, self._store)
        self._jobs = Jobs()
        self.house = House(
            loaded,
            assembly,
            self._store,
            kernel,
            bans,
            self._lockout,
            verifier,
            self._clock,
            self._pipeline,
            self._status,
        )

    async def start(self) -> None:
        """Bans into the kernel, then zones tested, then logs read, then the periodic jobs."""
        house = self.house
        house.bans.load(self._clock())
        house.verifier.restore(self._store.state("verifier") or {}, self._clock())
        await self.reconcile()
        self._healing.start()
        if self._assembly.dns_note:
            self.report(Event(self._clock(), "dns", self._assembly.dns_note))
        dnsbl, reverify_every = house.loaded.settings.dnsbl, house.loaded.settings.reverify.every
        self._jobs.add("zone health", min(60.0, dnsbl.test_every), self._test_zones, at_once=True)
        self._jobs.add("re-verification", reverify_every, self.reverify)
        self._jobs.add("reconcile", 60.0, self.reconcile)
        self._jobs.add("expiry", 5.0, self.expire)
        self._jobs.add("cursors", 5.0, self._save)
        self._jobs.add("log patterns", 10.0, self._logs.look_for_files)
        self._jobs.add("pruning", 86400.0, self._prune)
        await self._logs.start()
        self._jobs.start()

    async def stop(self) -> None:
        """No new line, no new verdict; what was read is noted."""
        self._jobs.stop()
        self._healing.stop()
        await self._logs.stop()
        await self._pipeline.stop()
        with contextlib.suppress(Exception):
            await self._save()
        await self.house.verifier.close()
        self._lockout.close()
        if isinstance(self.house.kernel, NetlinkKernel):
            self.house.kernel.close()
        self._store.close()

    def successor(self, assembly: Assembly) -> Daemon:
        """One with other settings, to be started when this one has stopped: what its jails have counted goes on."""
        for jail in assembly.jails:
            for before in self._assembly.jails:
                if before.name == jail.name:
                    jail.inherit(before)
        return Daemon(assembly, self._observe, self._clock)

    def summary(self) -> str:
        jails = ", ".join(f"{j.name} ({', '.join(j.logpaths)})" for j in self._assembly.jails) or "no jail"
        return f"{jails}; {len(self._assembly.zones)} DNSBLs; {len(self.house.bans)} bans restored"

    def report(self, event: Event) -> None:
        """An event for the admin: in the journal now, in `status` and the store later."""
        (log.warning if event.kind in ("ban-failed", "zone", "dns", "drift") else log.info)("%s", event.text)
        with contextlib.suppress(StoreError):  # a full disk must not keep the other half of the word back
            self._store.add_event(event)

    def _zone_changed(self, change: Transition) -> None:
        if change.after is State.OK and change.before is State.UNTESTED:
            log.info("%s may be used: %s", change.zone, change.why)
        else:
            self.report(Event(self._clock(), "zone", f"{change.zone} is {change.after} now: {change.why}"))

    # The jobs

    async def _test_zones(self) -> None:
        await self.house.verifier.test_zones(self._clock())

    async def reverify(self) -> None:
        """Asks again about bans that DNS decided."""
        await reverify(self.house, self._assembly.jails, self.report)

    async def reconcile(self) -> None:
        """Lifts what must not be banned any more, and makes the kernel equal to the rest."""
        protected = await self._lockout.current()
        now = self._clock()
        # Since it was made an address of ours may have come into it, or an admin logged in from there.
        for prefix, scope in self.house.bans.objectionable(protected):
            with contextlib.suppress(StoreError):  # the kernel has let it in all the same
                self.house.bans.lift(prefix, scope, now, "protected")
            self.report(Event(now, "lifted", f"ban lifted: {protected.objection(prefix)}", prefix))
        await self._healing.check(protected.allow)

    async def expire(self) -> None:
        """Notes which bans are over, and forgets offences that no window holds."""
        ended = self.house.bans.expire(self._clock())
        self._pipeline.counters["bans expired"] += ended
        for jail in self._assembly.jails:
            jail.windows.prune(self._clock())

    async def _save(self) -> None:
        self.house.bans.write_missing(self._clock())
        self._logs.save_cursors()
        self._store.set_state("verifier", self.house.verifier.export())
        self._store.sync()

    async def _prune(self) -> None:
        self._store.prune(self._clock() - KEEP)

    def _status(self) -> dict[str, Any]:
        """The daemon's own part of `status`."""
        by_jail = self._store.live_by_jail()
        return {
            "pid": os.getpid(),
            "started": self._started,
            "observe": self._observe,
            "sources": self._logs.status(),
            "jails": [
                {
                    "name": j.name,
                    "filter": j.filter,
                    "scope": j.rules.scope,
                    "maxretry": j.rules.maxretry,
                    "findtime": j.rules.findtime,
                    "bantime": j.rules.bantime,
                    "offences": j.offences,
                    "suspects": len(j.windows),
                    "bans": by_jail.get(j.name, 0),
                }
                for j in self._assembly.jails
            ],
            "jobs": self._jobs.status(),
            "counters": dict(self._pipeline.counters),
            "healing": self._healing.status(),
            "lockout": self._lockout.failure,
        }


class Signals:
    """Those that concern us, in the order in which they come; SIGHUP waits until the one before is done with."""

    def __init__(self) -> None:
        self._come: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._come.put_nowait, number)

    async def next(self) -> int:
        return await self._come.get()


def _notify(state: str) -> None:
    """sd_notify(3): one datagram to the socket that systemd names, if it does."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s, contextlib.suppress(OSError):
        s.connect("\0" + path[1:] if path[0] == "@" else path)
        s.sendall(state.encode())
