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
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from nftban import __version__
from nftban.control.server import serve
from nftban.daemon.allowlist import AllowList
from nftban.daemon.assemble import Assembly
from nftban.daemon.bans import Bans
from nftban.daemon.desk import Desk
from nftban.daemon.heal import Healing
from nftban.daemon.house import House
from nftban.daemon.jobs import Jobs
from nftban.daemon.lockout import Lockout
from nftban.daemon.logs import Logs
from nftban.daemon.operations import Operations
from nftban.daemon.outward import Outward
from nftban.daemon.pipeline import Pipeline
from nftban.daemon.rebuild import opened
from nftban.daemon.reverify import reverify
from nftban.daemon.saved import Saved
from nftban.daemon.steps import Steps, uptime
from nftban.daemon.systemd import notify, watchdog_interval
from nftban.daemon.upkeep import Upkeep
from nftban.detect.budget import WATCH
from nftban.errors import ConfigError, NftbanError, StoreError
from nftban.kernel import Kernel
from nftban.kernel.memory import MemoryKernel
from nftban.kernel.monitor import Monitor
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import PrefixSet
from nftban.records import Event
from nftban.verify.health import State, Transition

if TYPE_CHECKING:
    from nftban.daemon.subscriptions import Subscriptions

log = logging.getLogger("nftban")

SETTLE = 0.05
"""Seconds that our addresses have to settle before what follows from them is done."""

WARNED_OF = ("ban-failed", "zone", "dns", "drift", "filter", "reload", "feed", "store", "clock", "storm")
"""Kinds of events that want an admin's eye."""


async def run(
    assembly: Assembly,
    observe: bool,
    read: Callable[[], Assembly] | None = None,
    clock: Callable[[], float] = time.time,
    up: Callable[[], float] | None = None,
) -> int:
    """Runs the daemon; raises NftbanError where it cannot start.

    clock, up: as Daemon has them; read: gives the settings anew, as they are by then, for SIGHUP; raises ConfigError.
    None: there is nothing to read.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    loaded = assembly.loaded
    # First of all: whoever ends us while we start finds the socket, the logs and the store closed in order.
    signals = Signals()
    desk = Desk()
    async with AsyncExitStack() as stack:
        # Its signal must not find the event loop closed.
        stack.callback(WATCH.stop)
        daemon: Daemon | None = None

        async def stop() -> None:
            if daemon is not None:
                await daemon.stop()

        # Entered last, left first: what clients asked for is done before the store is closed.
        stack.push_async_callback(stop)
        await stack.enter_async_context(serve(loaded.socket_path, desk.call, loaded.settings.daemon.group))
        stack.callback(desk.close)
        daemon = Daemon(assembly, observe, clock, up)
        await daemon.start()
        desk.open(Operations(daemon.house))
        notify("READY=1")
        log.info("nftban %s runs%s: %s", __version__, " (observing only)" if daemon.observing else "", daemon.summary())
        while await signals.next() == signal.SIGHUP:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            if read is not None and (newer := await _read_anew(daemon, read)) is not None:
                daemon.abandon()
                await desk.drain()
                await daemon.stop()
                daemon = await _succeeded(daemon, newer)
                desk.open(Operations(daemon.house))
            notify("READY=1")
        notify("STOPPING=1")
        daemon.abandon()
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

    def __init__(
        self,
        assembly: Assembly,
        observe: bool,
        clock: Callable[[], float] = time.time,
        up: Callable[[], float] | None = None,
    ) -> None:
        """Opens store and kernel.  clock: epoch seconds; up: seconds since the boot, None: the machine's own, or with
        another clock than the machine's one that is never put."""
        loaded = assembly.loaded
        observing = observe or loaded.settings.daemon.observe
        path = loaded.state_path.with_name("observe.db") if observing else loaded.state_path
        self._wall, self._up = clock, up or (uptime if clock is time.time else clock)
        self._observe, self.observing = observe, observing
        self._due: asyncio.Task[None] | None = None
        self._assembly = assembly
        self._store, aside = opened(path, clock())
        steps = Steps(clock, self._up, earlier=self._store.state("clock"))
        self._clock = steps.now
        self._started = self._clock()
        self._watching: asyncio.TimerHandle | None = None
        self._resumed = False
        monitor: Monitor | None = None
        reader: NetlinkKernel | None = None
        kernel: Kernel
        if observing:
            kernel = MemoryKernel(assembly.layout, self._clock)
        else:
            kernel = real = NetlinkKernel(assembly.layout)
            monitor = Monitor(assembly.layout.table, lambda: real.port)
            reader = NetlinkKernel(assembly.layout) if assembly.layout.feeds else None
        self._allow = AllowList(self._store, loaded.settings.allow.prefixes, loaded.settings.allow.names)
        self._lockout = Lockout(loaded.settings, assembly.resolver_prefixes, self._allow)
        verifier = assembly.verifier(self._zone_changed)
        bans = Bans(self._store, kernel, assembly.layout, PrefixSet())
        self._healing = Healing(kernel, bans, monitor, self.report, self._clock)
        self._feeds: Subscriptions | None = None
        if assembly.feeds:
            # numpy comes with them.
            from nftban.daemon.subscriptions import subscribed

            self._feeds = subscribed(
                loaded, assembly.feeds, self._lockout, bans, kernel, reader, self.report, self._clock
            )
            verifier.answer_locally(self._feeds.answer, self._feeds.again)
        self._pipeline = Pipeline(
            assembly.jails,
            bans,
            self._store,
            self._lockout,
            verifier if assembly.zones or loaded.settings.dnsbl.reverse else None,
            self.report,
            self._clock,
            self._feeds.listings if self._feeds is not None else None,
        )
        self._logs = Logs(
            assembly.jails,
            self._pipeline.take,
            self._store,
            self._pipeline.passed,
            self._clock,
            lambda: self._saved.save_if_many(),
        )
        self._saved = Saved(self._store, assembly.jails, self._logs, self._clock, bans.unwritten)
        self.upkeep = Upkeep(self._store, aside, self._saved, bans, kernel, assembly, self.report, steps)
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
            self._allow,
            self.reconcile,
            self._pipeline,
            self._status,
            self._feeds,
        )
        self._outward = Outward(self.house, self.report)

    async def start(self) -> None:
        """Bans into the kernel, then zones tested, then logs read, then the periodic jobs."""
        house = self.house
        self._outward.start(self._jobs)
        self.upkeep.take_up()
        house.verifier.restore(self._store.state("verifier") or {}, self._clock())
        await self.reconcile()
        self._healing.start()
        self._lockout.follow(self._reconcile_soon)
        if self._assembly.dns_note:
            self.report(Event(self._clock(), "dns", self._assembly.dns_note))
        if self._feeds is not None:
            await self._feeds.start()
            self._jobs.add("feeds", 60.0, self._feeds.run, at_once=True)
        dnsbl, reverify_every = house.loaded.settings.dnsbl, house.loaded.settings.reverify.every
        self._jobs.add("zone health", min(60.0, dnsbl.test_every), self._test_zones, at_once=True)
        self._jobs.add("re-verification", reverify_every, self.reverify)
        self._jobs.add("reconcile", 60.0, self.reconcile)
        self._jobs.add("allow list", 60.0, self._resolve_allowed, at_once=True)
        self._jobs.add("expiry", 5.0, self.expire)
        self._jobs.add("progress", 1.0, self.save_progress)
        self._jobs.add("state", 5.0, self._save)
        self._jobs.add("log patterns", 10.0, self._logs.look_for_files)
        self._jobs.add("pruning", 600.0, self.upkeep.prune)
        self._jobs.add("store check", 86400.0, self._check_store, at_once=True)
        if (interval := watchdog_interval()) is not None:
            self._jobs.add("watchdog", interval, self._feed_watchdog, at_once=True)
        await self._saved.restore()
        await self._logs.start()
        with contextlib.suppress(StoreError):  # the job says so
            await self.save_progress()
        self._watch_clock()
        self._jobs.start()

    async def stop(self) -> None:
        """No new line, no new verdict; what was read is noted."""
        self._jobs.stop()
        for waiting in (self._due, self._watching):
            if waiting is not None:
                waiting.cancel()
        self._healing.stop()
        if self._feeds is not None:
            await self._feeds.stop()
        await self._logs.stop()
        await self._pipeline.stop()
        try:
            await self.save_progress()
            await self._save()
        except Exception:
            log.exception("what was counted lately cannot be kept; its lines are read again")
        await self.house.verifier.close()
        self._lockout.close()
        if isinstance(self.house.kernel, NetlinkKernel):
            self.house.kernel.close()
        await self._outward.stop()
        self._store.close()

    def abandon(self) -> None:
        """Before `stop`: nobody waits for lists from slow servers any longer."""
        if self._feeds is not None:
            self._feeds.abandon()

    def successor(self, assembly: Assembly) -> Daemon:
        """One with other settings, to be started when this one has stopped: what its jails have counted goes on."""
        for jail in assembly.jails:
            for before in self._assembly.jails:
                if before.name == jail.name:
                    jail.inherit(before)
        daemon = Daemon(assembly, self._observe, self._wall, self._up)
        daemon._saved.inherit(self._saved)
        return daemon

    def summary(self) -> str:
        jails = ", ".join(f"{j.name} ({', '.join(j.logpaths)})" for j in self._assembly.jails) or "no jail"
        feeds = f"; {len(self._assembly.feeds)} feeds" if self._assembly.feeds else ""
        return f"{jails}; {len(self._assembly.zones)} DNSBLs{feeds}; {len(self.house.bans)} bans restored"

    def report(self, event: Event) -> None:
        """An event for the admin: in the journal now, in `status` and the store later."""
        (log.warning if event.kind in WARNED_OF else log.info)("%s", event.text)
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
        if not self._resumed:
            self._resumed = True
            await self._pipeline.resume()

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
        if self._feeds is not None:
            await self._feeds.follow(protected.allow)

    def _reconcile_soon(self) -> None:
        """Our addresses have changed: one of them may be banned.  Changes come in flocks, and one look is enough."""
        if self._due is None or self._due.done():
            self._due = asyncio.create_task(self._reconcile_quietly())

    async def _reconcile_quietly(self) -> None:
        await asyncio.sleep(SETTLE)
        try:
            await self.reconcile()
        except Exception:
            log.exception("reconciling failed after our addresses changed; it is tried again within a minute")

    async def _resolve_allowed(self) -> None:
        if await self._allow.resolve(self._clock()):
            self._lockout.forget()
            await self.reconcile()

    async def expire(self) -> None:
        """Notes which bans are over, and forgets offences that no window holds."""
        ended = self.house.bans.expire(self._clock())
        self._pipeline.counters["bans expired"] += ended
        for jail in self._assembly.jails:
            jail.windows.prune(self._clock())

    async def save_progress(self) -> None:
        """Writes what has been counted; where the store is damaged, makes a new one."""
        if self.upkeep.save_progress():
            await self._pipeline.resume()

    async def _check_store(self) -> None:
        await self.upkeep.check()
        await self.save_progress()

    def _watch_clock(self) -> None:
        """Once a second, by a clock that nobody puts."""
        self._watching = asyncio.get_running_loop().call_later(1.0, self._watch_clock)
        try:
            self.look_at_clock()
        except Exception:
            log.exception("what follows from a step of the clock could not be done; it is tried again")

    def look_at_clock(self) -> None:
        """Does what follows where the clock was put, or the machine slept."""
        step = self.upkeep.follow_clock()
        if step < 0:
            self._jobs.replan()
        if step or self.upkeep.steps.slept():
            self._lockout.forget()
            self._reconcile_soon()

    async def _save(self) -> None:
        self._store.set_state("verifier", self.house.verifier.export())
        await self.upkeep.save_state()

    async def _feed_watchdog(self) -> None:
        if stalled := self._logs.stalled():
            log.error("not read on: %s; if that stays, systemd starts us anew", ", ".join(stalled))
        else:
            notify("WATCHDOG=1")

    def _status(self) -> dict[str, Any]:
        """The daemon's own part of `status`."""
        by_jail = self._store.live_by_jail()
        return {
            "pid": os.getpid(),
            "started": self._started,
            "observe": self.observing,
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
                    "storm": j.storm,
                    "stopped": self._pipeline.guards[j.name].stopped,
                }
                for j in self._assembly.jails
            ],
            "jobs": self._jobs.status(),
            "counters": dict(self._pipeline.counters),
            "healing": self._healing.status(),
            "lockout": self._lockout.failure,
            "allow": {"entries": len(self._allow.entries()), "failures": dict(self._allow.failures)},
            "feeds": self._feeds.rows() if self._feeds is not None else [],
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
