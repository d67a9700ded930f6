"""A storm: 20,000 distinct attackers, each with one line in one log, within ten seconds.

The real daemon reads it in the same private network.  Of every hundredth attacker it is asked of the kernel itself, as
often as possible, when it has the entry; the control socket is asked meanwhile; the daemon's memory is what it holds
when all is done, beside what it holds after a second storm of the same size whose bans replace nobody.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measures import LAYOUT, Row, Scale
from bench.whole import daemon
from nftban.control import client
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix

SECONDS = 10.0
SAMPLE = 100


class _Asking(threading.Thread):
    """Asks the control socket every 20 ms; waits: how long each answer took."""

    def __init__(self, socket: Path) -> None:
        super().__init__(daemon=True)
        self._socket = socket
        self._stopped = threading.Event()
        self.waits: list[float] = []

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            start = time.perf_counter()
            client.call(self._socket, "ping", {})
            self.waits.append(time.perf_counter() - start)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class _Watching(threading.Thread):
    """Notes when the kernel has those who are put on `wanted`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.wanted: dict[Prefix, float] = {}
        self.took: list[float] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        with NetlinkKernel(LAYOUT) as kernel:
            while not self._stopped.wait(0.0005) or self.wanted:
                for prefix, written in list(self.wanted.items()):
                    if kernel.find(prefix, time.time()):
                        self.took.append(time.perf_counter() - written)
                        del self.wanted[prefix]
                    elif time.perf_counter() - written > 60:
                        raise RuntimeError(f"{prefix} is not banned after a minute")

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def _write(log: Path, first: int, count: int, watching: _Watching, seconds: float = SECONDS) -> None:
    """The lines, evenly over so many seconds."""
    began = time.perf_counter()
    with log.open("ab", buffering=0) as file:
        for i in range(count):
            if (early := began + i * seconds / count - time.perf_counter()) > 0:
                time.sleep(early)
            prefix = Prefix(4, first + i, 32)
            date = time.strftime("%b %e %H:%M:%S")
            text = f"{date} mail postfix/smtpd[{i + 1}]: warning: non-SMTP command from unknown[{prefix}]: .\n"
            file.write(text.encode())
            if i % (SAMPLE if count > SAMPLE * 10 else 10) == 0:
                watching.wanted[prefix] = time.perf_counter()


def _resident(pid: int) -> float:
    """Memory in MB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def storm(scale: Scale) -> Iterator[Row]:
    """Two of them, one after the other."""
    count = scale.count(20_000)
    with tempfile.TemporaryDirectory() as name, NetlinkKernel(LAYOUT) as kernel:
        folder = Path(name)
        with daemon(folder) as running:
            memory, took, waits = [], [], []
            for turn in range(2):
                asking, watching = _Asking(folder / "control.sock"), _Watching()
                asking.start()
                watching.start()
                _write(folder / "mail.log", (200 + turn) << 24, count, watching, scale.count(1000) / 100)
                watching.stop()
                asking.stop()
                took += watching.took
                waits += asking.waits
                memory.append(_resident(running.pid))
            until = time.monotonic() + 130  # what the kernel did not get is put there within a minute
            while (held := len(kernel.present(time.time(), {"ban4_all"}))) < 2 * count:
                if time.monotonic() > until:
                    raise RuntimeError(f"the kernel has {held:,} of {2 * count:,} bans")
        kernel.remove()
    many = statistics.quantiles(took, n=100)
    yield Row(f"{count:,} attackers in 10 s: line to entry, p50", many[49], limit=20e-3, note=f"max {max(took):.3f} s")
    yield Row("the same, p99", many[98], limit=0.5)
    yield Row("the control socket answers meanwhile, max", max(waits), limit=0.1)
    grown = memory[1] - memory[0]
    note = f"{memory[0]:.0f} MB, then {memory[1]:.0f} MB"
    yield Row(f"memory for another {count:,} bans", grown, unit="MB", limit=20, note=note)
