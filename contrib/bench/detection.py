"""Detection: generated logs through fail2ban's filters, ours beside three peers; counting; start.

What is compared is CPU time, user and system, of a process of its own each, start and loading included: it means the
same on a busy machine.  That both found the same offences (address by address, how often) is checked outside the time.
sshg-parser and CrowdSec have their own attacks, so there is nothing to check there; CrowdSec must raise alerts at all.
It reads fewer lines: what a line costs it is the difference of two logs, so that its start counts once.
A peer that is not installed is left out, and its row says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from traffic import crowdsec, packages

from bench.logs import write_log
from bench.measures import Row, Scale, addresses
from nftban.cli.filter import briefs, chunks
from nftban.daemon.assemble import FAIL2BAN_FILTERS
from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.detect.scan import Scan
from nftban.detect.screen import Screen
from nftban.detect.windows import Windows
from nftban.prefixes import Prefix
from nftban.records import Offence
from nftban.sources.file import FileSource

FAIL2BAN = "fail2ban-regex"
SSHGUARD = "/usr/libexec/sshguard/sshg-parser"
CROWDSEC = Path(__file__).parents[2] / "build/judge"
CROWDSEC_LINES = 20_000
SPECS = {"postfix": "postfix[mode=aggressive]", "sshd": "sshd"}
# kind, share of offences, at most so much of fail2ban's time, the goal, at most so much of sshg-parser's, of CrowdSec's
LOGS = (
    ("postfix", 0.05, 1 / 40, 1 / 60, 1 / 5, 1 / 50),
    ("sshd", 0.05, 1 / 18, 1 / 30, 1 / 1.3, 1 / 50),
    ("postfix", 0.30, 1 / 17, 1 / 25, None, None),
    ("sshd", 0.30, 1 / 8, 1 / 15, None, None),
)


def matching(scale: Scale) -> Iterator[Row]:
    """A million lines, the same filter on both sides."""
    count = scale.count(1_000_000)
    for kind, share, limit, goal, of_sshguard, of_crowdsec in LOGS:
        with _folder() as folder:
            log = Path(folder) / "log"
            write_log(log, kind, count, share)
            what = f"{count:,} lines of {kind}, {share:.0%} offences"
            if not shutil.which(FAIL2BAN):
                yield Row(what, _cpu(_match, SPECS[kind], log), note="fail2ban is not installed")
                continue
            _same_found(SPECS[kind], log)
            ours = min(_cpu(_match, SPECS[kind], log) for _ in range(scale.repeated(3)))
            theirs = _cpu(_run, [FAIL2BAN, str(log), SPECS[kind]], None)
            note = f"CPU time; {count / ours:,.0f} lines a second"
            yield Row(what, ours, theirs, FAIL2BAN, limit=limit, goal=goal, note=note)
            if Path(SSHGUARD).exists():
                theirs = min(_cpu(_run, [SSHGUARD], log) for _ in range(scale.repeated(3)))
                yield Row(what, ours, theirs, "sshg-parser", limit=of_sshguard, goal=1, note="CPU time")
            else:
                yield Row(what, ours, note="sshg-parser is not installed")
            if of_crowdsec:
                yield _beside_crowdsec(what, ours, (kind, count, share), of_crowdsec, scale)


def _beside_crowdsec(what: str, ours: float, given: tuple[str, int, float], limit: float, scale: Scale) -> Row:
    kind, count, share = given
    root = packages.unpacked("crowdsec", CROWDSEC)
    if root is None:
        return Row(what, ours, note="CrowdSec's package cannot be had")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # in the private network namespace of the run
    more = max(scale.count(CROWDSEC_LINES), 2000)
    less = more // 10
    (short, _), (long, alerts) = (_crowdsec(root, kind, lines, share) for lines in (less, more))
    if not alerts and not scale.quick:
        raise AssertionError(f"CrowdSec raised no alert in {more:,} lines of {kind}")
    each = (long - short) / (more - less)
    note = f"CPU time, from {less:,} and {more:,} lines: {each * 1e6:.0f} µs each; its local API and database included"
    return Row(what, ours, short + each * (count - less), "CrowdSec", limit=limit, note=note)


def _crowdsec(root: Path, kind: str, lines: int, share: float) -> tuple[float, int]:
    """CPU seconds of a replay by the unpacked package, in directories of its own; how many alerts it raised."""
    with _folder() as name:
        folder = Path(name)
        write_log(folder / "all.log", kind, lines, share)
        crowdsec.set_up(folder, root)
        configuration, credentials = folder / "etc/config.yaml", folder / "etc/credentials.yaml"
        add: list[str | Path] = ["machines", "add", "bench", "--auto", "--force", "-f", credentials]
        crowdsec.call([root / "usr/bin/cscli", "-c", configuration, *add])
        replay: list[str | Path] = ["-c", configuration, "-dsn", f"file://{folder}/all.log", "-type", "syslog"]
        took = _cpu(crowdsec.call, [root / "usr/bin/crowdsec", *replay])
        return took, len(crowdsec.alerts(folder / "alerts.db"))


def many_filters(scale: Scale) -> Iterator[Row]:
    """Thirty filters over one log, and one."""
    names = [n for n in filterfile.available([FAIL2BAN_FILTERS]) if n not in ("postfix", "sshd", "3proxy")]
    loaded = (filterfile.load(name, [FAIL2BAN_FILTERS]) for name in names)
    others = [each for each in loaded if isinstance(each, Filter) and each.maxlines == 1][:28]
    if not others:
        yield Row("30 filters over one log", float("inf"), note="fail2ban's filters are not installed")
        return
    filters = [_filter(SPECS["postfix"]), _filter(SPECS["sshd"]), *others]
    count = scale.count(1_000_000)
    with _folder() as folder:
        log = Path(folder) / "log"
        write_log(log, "mixed", count, 0.05)
        singles = [min(_cpu(_screened, [each], log) for _ in range(scale.repeated(2))) for each in filters[:2]]
        all_of_them = min(_cpu(_screened, filters, log) for _ in range(scale.repeated(2)))
    what = f"{count:,} mixed lines, {len(filters)} filters"
    for spec, one in zip(("postfix alone", "sshd alone"), singles, strict=True):
        yield Row(what, all_of_them, one, spec, limit=3, note="CPU time")


def line_to_offence(scale: Scale) -> Iterator[Row]:
    """From the moment a line is written until its Offence is there: file, inotify, screen and matcher."""
    waits = asyncio.run(_waits(scale.count(2000)))
    waits.sort()
    note = f"mean {sum(waits) / len(waits) * 1e3:.2f} ms; on a busy machine it is the scheduler's"
    yield Row("line written to Offence, p50", waits[len(waits) // 2], limit=0.0005, note=note)
    yield Row("line written to Offence, p99", waits[len(waits) * 99 // 100], limit=0.005)


async def _waits(count: int) -> list[float]:
    waits: list[float] = []
    with _folder() as folder:
        path = Path(folder) / "log"
        path.touch()
        source, matcher, screen = (
            FileSource(path),
            Matcher(_filter(SPECS["postfix"])),
            Screen([_filter(SPECS["postfix"])]),
        )
        found = asyncio.Event()

        async def read() -> None:
            async with contextlib.aclosing(source.chunks()) as chunks:
                async for chunk in chunks:
                    for start, end, bits in screen.lines(chunk.data):
                        ((_, rules, _),) = screen.wanted(bits)
                        if isinstance(matcher.match(chunk.line(start, end), time.time(), rules), Offence):
                            waits.append(time.perf_counter() - written)
                            found.set()

        reader = asyncio.create_task(read())
        await source.begun.wait()
        with path.open("ab", buffering=0) as file:
            for number in range(max(count, 20)):
                found.clear()
                date = time.strftime("%b %d %H:%M:%S")
                said = "warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: x"
                line = f"{date} mx1 postfix/smtpd[{number + 1}]: {said}\n".encode()
                written = time.perf_counter()
                file.write(line)
                await asyncio.wait_for(found.wait(), 10)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    return waits


def start(scale: Scale) -> Iterator[Row]:
    """All of fail2ban's filters loaded, compiled and screened; what the matchers of ours then hold."""
    names = [*filterfile.available([FAIL2BAN_FILTERS])]
    if names:
        took = min(_cpu(_loaded, names, None) for _ in range(scale.repeated(3)))
        yield Row(f"{len(names)} filters of fail2ban loaded and compiled", took, limit=1.0, note="CPU time")
    held = _in_child(_matchers_memory)
    yield Row("matchers of all shipped filters, memory", held, unit="MB", limit=60, note="resident, above Python's own")


def counting(scale: Scale) -> Iterator[Row]:
    """Distinct offenders in the windows of one jail, then all of them over."""
    count = scale.count(1_000_000)
    memory, adding, pruning = _in_child(_counted, count)
    yield Row(f"{count:,} offenders counted, memory", memory, unit="MB", limit=150)
    yield Row("one offence counted", adding, note="CPU time, mean")
    yield Row("longest stop while pruning them", pruning, limit=0.010, note="CPU time")


def _filter(spec: str) -> Filter:
    found = filterfile.load(spec, [FAIL2BAN_FILTERS])
    if not isinstance(found, Filter):
        raise AssertionError(str(found))
    return found


def _match(spec: str, log: Path) -> Counter[str]:
    found: Counter[Prefix] = Counter()
    for _, _, kind, prefix, _, _ in briefs(Matcher(_filter(spec)), chunks(str(log)), time.time()):
        if kind is Offence:
            found[prefix] += 1
    return Counter({str(prefix): times for prefix, times in found.items()})


def _same_found(spec: str, log: Path) -> None:
    told = subprocess.run([FAIL2BAN, "-o", "ip", str(log), spec], capture_output=True, text=True, check=False).stdout
    theirs, ours = Counter(str(Prefix.parse(ip)) for ip in told.split()), _match(spec, log)
    if theirs != ours:
        raise AssertionError(f"{spec}: fail2ban found {theirs - ours} more, we {ours - theirs}")


def _screened(filters: list[Filter], log: Path) -> int:
    scan, now = Scan([Matcher(each) for each in filters]), time.time()
    return sum(len(scan.briefs(chunk, now)) for chunk in chunks(str(log)))


def _loaded(names: list[str], _: None) -> None:
    found = (filterfile.load(name, [FAIL2BAN_FILTERS]) for name in names)
    Screen([each for each in found if isinstance(each, Filter)])


def _matchers_memory() -> float:
    before = _resident()
    folder = Path(__file__).parents[2] / "rules" / "filters"
    found = [filterfile.load(name, [folder]) for name in filterfile.available([folder])]
    filters = [each for each in found if isinstance(each, Filter)]
    with _folder() as temporary:
        log = Path(temporary) / "log"
        write_log(log, "mixed", 20_000, 0.3)
        _screened(filters, log)
        return _resident() - before


def _counted(count: int) -> tuple[float, float, float]:
    keys = addresses(count)
    windows = Windows("bench", 600, 5, prefixes=count)
    line = "Nov 24 20:51:29 mail postfix/smtpd[101]: warning: non-SMTP command from unknown[192.0.2.1]: ."
    before, began = _resident(), time.process_time()
    for number, key in enumerate(keys):
        windows.add(Offence("postfix", "7", Prefix(4, key, 32), 1000 + number / 10_000, line=f"{line}{number}"))
    adding = (time.process_time() - began) / count
    memory, longest = _resident() - before, 0.0
    while len(windows):
        began = time.process_time()
        windows.prune(10_000)
        longest = max(longest, time.process_time() - began)
    return memory, adding, longest


@contextmanager
def _folder() -> Iterator[str]:
    """One that a forked child leaves alone: TemporaryDirectory's finalizer may run in it, too."""
    owner, path = os.getpid(), tempfile.mkdtemp()
    try:
        yield path
    finally:
        if os.getpid() == owner:
            shutil.rmtree(path)


def _run(command: list[str], log: Path | None) -> None:
    with open(log or os.devnull, "rb") as given:
        subprocess.run(command, stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _cpu(action: Callable[..., object], *arguments: object) -> float:
    """Seconds of CPU time that the call takes in a process of its own, with what that starts."""
    took = _in_child(_timed, action, *arguments)
    return float(took)


def _timed(action: Callable[..., object], *arguments: object) -> float:
    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(each.ru_utime + each.ru_stime for each in both)

    began = used()
    action(*arguments)
    return used() - began


def _in_child(action: Callable[..., object], *arguments: object):  # type: ignore[no-untyped-def]
    """What the call returns in a process of its own: what others left in memory counts for none."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(action, arguments)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
