"""A replay of generated logs beside the matcher alone on the same lines, both with the shipped filter.

The matcher reads the log once on one core.  A replay reads it twice, on all cores: it also decides, counts what bans
would have stopped, finds the good clients, and tries twenty thresholds.  What is compared is time on the clock, as
somebody who waits has it, and the CPU time that all processes took together.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.logs import write_log
from bench.measures import Row, Scale
from nftban.cli.filter import chunks, results
from nftban.config.load import load, shipped_rules
from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.replay.whole import replay

SETTINGS = '[dnsbl]\nenabled = false\nreverse = false\n[jail.postfix]\nfilter = "postfix"\nlogpath = "mail.log"\n'


def replayed(scale: Scale) -> Iterator[Row]:
    """So many lines of Postfix, a twentieth of them offences."""
    count = scale.count(1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        log, settings = Path(folder) / "mail.log", Path(folder) / "nftban.toml"
        write_log(log, "postfix", count, 0.05)
        settings.write_text(f'[daemon]\nstate = "{folder}/state.db"\n{SETTINGS}')
        loaded = load(settings)
        alone, alone_cpu = _took(lambda: _matched(log))
        whole, whole_cpu = _took(lambda: replay([loaded], [log]))
    what = f"replay of {count:,} lines of Postfix, {len(os.sched_getaffinity(0))} cores"
    yield Row(what, whole, alone, "the matcher alone", goal=1 / 0.7, note=f"{count / whole:,.0f} lines a second")
    yield Row(f"{what}, CPU time", whole_cpu, alone_cpu, "the matcher alone", limit=3.5, note="of all processes")


def _matched(log: Path) -> None:
    found = filterfile.load("postfix", [shipped_rules() / "filters"])
    assert isinstance(found, Filter)
    for _ in results(Matcher(found), chunks(str(log)), time.time()):
        pass


def _took(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of CPU time with that of the processes it started."""

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(each.ru_utime + each.ru_stime for each in both)

    began, before = time.perf_counter(), used()
    action()
    return time.perf_counter() - began, used() - before
