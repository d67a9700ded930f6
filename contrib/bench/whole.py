"""The daemon's own path: a ban with all that belongs to it, a log line, a restart, memory.

The daemon is the real one, in the same private network; a line counts as answered when the kernel has the entry, which
is asked of the kernel itself, without pause.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measures import ADDRESSES, HOUR, LAYOUT, Row, Scale, addresses, elements, kernel, seconds, singly
from nftban.daemon.bans import Bans
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import (
    Action,
    Answer,
    Ban,
    Delta,
    Evidence,
    Listing,
    Offence,
    Origin,
    Part,
    ReverseDNS,
    Service,
    Verdict,
)
from nftban.store.sqlite import Store

SETTINGS = """
[daemon]
state = "{folder}/state.db"
socket = "{folder}/control.sock"
[dns]
servers = ["127.0.0.1"]
[dnsbl]
enabled = false
reverse = false
[jail.postfix]
filter = "postfix"
port = "all"
maxretry = 1
logpath = "{folder}/mail.log"
"""


def full_ban(key: int, now: float) -> Ban:
    """A ban as a log leads to it: two offences, five zones' answers, a verdict."""
    prefix = Prefix(4, key, 32)
    line = f"Nov 24 20:51:29 mail postfix/smtpd[101]: warning: non-SMTP command from unknown[{prefix}]: ."
    offence = Offence("postfix", "7: non-SMTP command", prefix, now, 1, Service.SMTP, (), (), line, "/var/log/mail.log")
    zones = ("zen.spamhaus.org", "bl.blocklist.de", "bl.spamcop.net", "psbl.surriel.com", "list.dnswl.org")
    evidence = Evidence(
        prefix,
        tuple(Listing(zone, Answer.CLEAR, asked=now, ttl=300) for zone in zones),
        ReverseDNS(("a.example",), True, True, "", now, 300),
    )
    parts = (Part(2, "2 offences"), Part(4, "listed"))
    verdict = Verdict(Action.BAN, prefix, "postfix", "all", 6, 6, parts, "6 points reach the 6", 3600.0, True)
    return Ban(prefix, "all", now, now + HOUR, Origin.LOG, "postfix", "6", verdict, evidence, (offence, offence))


class _Timed(NetlinkKernel):
    """Notes when the kernel had taken what it was given."""

    taken = 0.0

    def apply(self, delta: Delta, now: float):  # type: ignore[no-untyped-def]
        refused = super().apply(delta, now)
        self.taken = time.perf_counter()
        return refused


def daemons_ban(scale: Scale) -> Iterator[Row]:
    """Bans.place: until the kernel has it, and until the store has everything that explains it."""
    held = scale.count(100_000)
    with tempfile.TemporaryDirectory() as folder, kernel() as made:
        now = time.time()
        made.apply(Delta(add=elements(singly(addresses(held)), ADDRESSES, now + HOUR)), now)
        store = Store(Path(folder) / "state.db")
        timed = _Timed(LAYOUT)
        bans = Bans(store, timed, LAYOUT, PrefixSet())
        in_kernel, whole = [], []
        for key in range(10 << 24, (10 << 24) + scale.count(5_000)):
            ban = full_ban(key, now)
            start = time.perf_counter()
            bans.place(ban, now)
            whole.append(time.perf_counter() - start)
            in_kernel.append(timed.taken - start)
        timed.close()
        store.close()
    stored = f"with the store {statistics.median(whole) * 1e6:.0f} µs"
    yield Row(
        "the daemon's ban until the kernel has it, p50",
        statistics.median(in_kernel),
        limit=60e-6,
        goal=15e-6,
        note=stored,
    )
    yield Row("the same, p99", statistics.quantiles(in_kernel, n=100)[98], limit=1e-3)


@dataclass(slots=True)
class _Usage:
    """pid: of the daemon; peak: the most memory (MB) that it held, known when it has ended."""

    pid: int
    peak: float = 0.0


@contextmanager
def daemon(folder: Path) -> Iterator[_Usage]:
    """The real daemon, from when it says that it is ready."""
    (folder / "nftban.toml").write_text(SETTINGS.format(folder=folder))
    (folder / "mail.log").touch()
    notify = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(notify))
        ready.settimeout(60)
        if os.readlink("/proc/self") != str(os.getpid()):
            subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)  # of this world's own processes
        process = subprocess.Popen(
            [sys.executable, "-m", "nftban", "-c", str(folder / "nftban.toml"), "daemon"],
            env={**os.environ, "NOTIFY_SOCKET": str(notify)},
            stderr=subprocess.DEVNULL,
        )
        ready.recv(100)
    usage = _Usage(process.pid)
    try:
        yield usage
    finally:
        # Not wait4(2)'s: that counts what this process held before the other program took its place.
        text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        usage.peak = int(text.partition("VmHWM:")[2].split()[0]) / 1024
        process.terminate()
        process.wait()


def line_to_entry(scale: Scale) -> Iterator[Row]:
    """A log line is written; the kernel drops its client from when it has the entry."""
    times = []
    with tempfile.TemporaryDirectory() as name, NetlinkKernel(LAYOUT) as asked:
        folder = Path(name)
        with daemon(folder), (folder / "mail.log").open("ab", buffering=0) as log:
            for i in range(max(scale.count(3_000), 30)):
                prefix = Prefix(4, (203 << 24) + i, 32)
                head = f"{time.strftime('%b %e %H:%M:%S')} mail postfix/smtpd[{i + 1}]: warning: "
                start = time.perf_counter()
                log.write(f"{head}non-SMTP command from unknown[{prefix}]: .\n".encode())
                while not asked.find(prefix, time.time()):
                    if time.perf_counter() - start > 10:
                        raise RuntimeError(f"{prefix} is not banned after 10 s")
                times.append(time.perf_counter() - start)
        asked.remove()
    yield Row("log line written until it is dropped, p50", statistics.median(times), limit=1e-3)
    yield Row("the same, p99", statistics.quantiles(times, n=100)[98], limit=10e-3)


def restart(scale: Scale) -> Iterator[Row]:
    """100,000 bans in the store, none in the kernel: read, planned, put there; and the daemon's memory with them."""
    count = scale.count(100_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(folder / "state.db")
        now = time.time()
        with store._transaction():  # one ban at a time would measure how they came there
            detail = '{"verdict": null, "evidence": null, "offences": []}'
            store._db.executemany(
                "INSERT INTO ban (family, first, last, length, scope, since, until, origin, jail, reason, score,"
                " threshold, needs_listing, detail)"
                " VALUES (4, ?, ?, 32, 'all', ?, ?, 'log', 'postfix', '', 6, 6, 0, ?)",
                [(key.to_bytes(4, "big"),) * 2 + (now, now + HOUR, detail) for key in addresses(count)],
            )
        with kernel() as made:
            bans = Bans(store, made, LAYOUT, PrefixSet())

            def restored() -> None:
                bans.load(time.time())
                bans.reconcile(PrefixSet(), time.time())

            yield Row(f"{count:,} bans from the store into the kernel", seconds(restored), limit=0.5)
        store.close()
        with daemon(folder) as usage:
            pass
        with NetlinkKernel(LAYOUT) as left:
            left.remove()
    yield Row(
        f"the daemon's memory with {count:,} live bans",
        usage.peak,
        unit="MB",
        limit=120,
        note="its peak, start included",
    )
