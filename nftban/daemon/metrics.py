"""The metrics of the running daemon, as text and as a file.

Takes the house; gives text (report/metrics.py), and keeps a file equal to it that node_exporter's textfile collector
reads.  Guarantees: whoever reads the file sees a whole one: it is written beside and renamed; a file that cannot be
written is told once, and again when that has changed.
Does not: listen on a port.
Source: https://github.com/prometheus/node_exporter#textfile-collector
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from nftban import __version__
from nftban.daemon.answers import zone_row
from nftban.daemon.house import House
from nftban.errors import NoDaemonError
from nftban.records import Event
from nftban.report.metrics import Counted, exposition

EVERY = 15.0
"""Seconds between two writings of the file."""


async def metrics_text(house: House, *, openmetrics: bool) -> str:
    """In that format, or in the older one.  Raises NoDaemonError where none runs: nobody has counted anything."""
    if house.status is None:
        raise NoDaemonError("no daemon runs, and only a daemon counts", "start it: systemctl start nftban")
    began = time.monotonic()
    await asyncio.sleep(0)
    turn = time.monotonic() - began
    now = house.clock()
    kernel, elements = house.kernel, house.kernel.counts()
    status = {
        **house.status(),
        "bans": len(house.bans),
        "zones": [zone_row(z) for z in house.verifier.status(now)],
        # Where the kernel tells no numbers they are left out: listing a million elements takes half a minute.
        "kernel": {"intact": not kernel.drift(), "elements": {n: c for n, c in elements.items() if c is not None}},
        "version": __version__,
    }
    counted = Counted(
        {jail.name: (jail.offences, jail.bans) for jail in house.assembly.jails},
        house.verifier.dns_counts(),
        house.store.reported,
        house.notify.counters if house.notify is not None and house.notify.wanted else None,
        turn,
    )
    return exposition(status, counted, openmetrics)


class MetricsFile:
    """path: of the file; report: takes an event."""

    def __init__(self, path: Path, report: Callable[[Event], None]) -> None:
        self._path, self._report = path, report
        self._failure = ""

    async def write(self, house: House) -> None:
        """The job."""
        content = await metrics_text(house, openmetrics=False)
        try:
            await asyncio.to_thread(_replace, self._path, content)
            failure = ""
        except OSError as e:
            failure = f"the metrics cannot be written to {self._path}: {e.strerror or e}"
        if failure and failure != self._failure:
            self._report(Event(house.clock(), "metrics", failure))
        self._failure = failure


def _replace(path: Path, content: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(content, encoding="utf-8")
        beside.chmod(0o644)  # node_exporter is another user
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
