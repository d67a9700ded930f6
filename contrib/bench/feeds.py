"""Feeds: from text to ranges, who is on a list, and a list into the kernel.

Peers: Python's ipaddress, as most programs in Python read such lists, and nft(8).  Memory is the most that a process of
its own has held, above what it held before it read.
"""

from __future__ import annotations

import ipaddress
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from multiprocessing import get_context
from pathlib import Path

from bench.measures import HOUR, NftFile, Row, Scale, nft_add, ranges, seconds
from nftban.daemon.enforced import Change, turn
from nftban.daemon.feeds import feed_elements
from nftban.feeds.formats import FORMATS
from nftban.feeds.guards import BOGONS, CANARIES, Limits, examined
from nftban.kernel.columns import RangeColumns
from nftban.kernel.layout import FeedSets, Layout
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix, PrefixSet, Range
from nftban.ranges import Ranges, Spans, keys
from nftban.records import Delta

PIECE = 1 << 18
SETS = FeedSets("bench", "all")


def _netset(count: int) -> bytes:
    """Addresses, every third a prefix, every tenth IPv6; a comment now and then."""
    chance = random.Random(1)
    lines = []
    for n in range(count):
        if n % 10 == 9:
            lines.append(str(ipaddress.IPv6Address(0x2A00 << 112 | chance.getrandbits(64) << 48)))
        else:
            address = chance.randrange(11 << 24, 126 << 24)
            lines.append(f"{IPv4Address(address & ~15)}/28" if n % 3 == 0 else str(IPv4Address(address)))
    return ("# a list\n" + "\n".join(lines) + "\n").encode()


def feed_read(scale: Scale) -> Iterator[Row]:
    """A mixed list parsed, merged and examined by every guard."""
    count = scale.count(100_000)
    text = _netset(count)
    bogons = Ranges.of(BOGONS)

    def ours() -> None:
        parsed = FORMATS["netset"](text[i : i + PIECE] for i in range(0, len(text), PIECE))
        found = examined(parsed, Limits(), None, CANARIES, bogons, time.time())
        assert isinstance(found, Ranges) and parsed.count == count, found

    def peer() -> None:
        nets = [ipaddress.ip_network(line) for line in text.decode().split() if line[0].isdigit()]
        for version in (4, 6):
            list(ipaddress.collapse_addresses([net for net in nets if net.version == version]))  # type: ignore[type-var]

    times = [seconds(ours) for _ in range(scale.repeated(5))]
    yield Row(f"list of {count:,} read, merged, examined", min(times), seconds(peer), "ipaddress", limit=0.05)
    yield Row(f"list of {count:,}, alone", min(times), limit=0.1)


def feed_zone(scale: Scale) -> Iterator[Row]:
    """An rbldnsd zone of single addresses, a third of them with a value of their own."""
    count = scale.count(1_000_000)
    chance = random.Random(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "zone")
        with path.open("w") as file:
            file.write("$SOA 60 a b 1 1 1 1 1\n:127.0.0.2:listed, see http://example.org/$\n")
            for n in range(count):
                file.write(f"{IPv4Address(chance.getrandbits(32))}{' :3:why' if n % 3 == 0 else ''}\n")
        with get_context("spawn").Pool(1) as pool:
            taken, memory = pool.apply(_read_zone, (str(path),))
    yield Row(f"rbldnsd zone of {count:,} lines", taken, limit=1.5)
    yield Row("the memory for it", memory, unit="MB", limit=60, note="above the process's before")


def _read_zone(path: str) -> tuple[float, float]:
    """Seconds and megabytes."""
    # Before this the peak is that of the process we were forked from (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    with Path(path).open("rb") as file:
        taken = seconds(FORMATS["ip4set"], iter(lambda: file.read(PIECE), b""))
    return taken, (_peak() - before) / 1024


def _peak() -> int:
    """The most memory this process has held, in KiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def feed_lookup(scale: Scale) -> Iterator[Row]:
    """Ten thousand offenders asked of a list of a million."""
    count, asked = scale.count(1_000_000), scale.count(10_000)
    chance = random.Random(3)
    listed = keys(4, [chance.getrandbits(32) for _ in range(count)])
    held = Ranges.merged(Spans(listed, listed))
    prefixes = [Prefix(4, chance.getrandbits(32), 32) for _ in range(asked)]
    plain = held.prefix_set()
    times = [seconds(held.contains_each, prefixes) for _ in range(scale.repeated(5))]
    peer = seconds(lambda: [plain.contains(prefix) for prefix in prefixes])
    what = f"{asked:,} offenders looked up in {count:,}"
    yield Row(what, min(times), peer, "bisect, one by one", limit=0.3)
    yield Row(f"{what}, alone", min(times), limit=0.01)


def _held(pairs: list[Range], end: float) -> RangeColumns:
    return feed_elements(SETS, Ranges(Spans.of(4, pairs)), PrefixSet(), end)["feed4_bench"]


def _filled(made: NetlinkKernel, held: RangeColumns) -> list[float]:
    """Seconds of each part, as the daemon fills an empty set."""
    parts = Change.between(held[:0], held).turns(turn(held))
    return [seconds(made.apply, part, time.time()) for part in parts]


def feed_kernel(scale: Scale) -> Iterator[Row]:
    """Feeds into their kernel set, as the daemon does it: in parts, between which others have a turn."""
    for full in (100_000, 1_000_000):
        count = scale.count(full)
        pairs = ranges(count)
        held = _held(pairs, time.time() + HOUR)
        with NetlinkKernel(Layout(feeds=(SETS,))) as made, tempfile.TemporaryDirectory() as folder:
            made.remove()
            made.create()
            peer = seconds(NftFile(Path(folder), nft_add("feed4_bench", pairs)).load)
            made.remove()
            made.create()
            parts = _filled(made, held)
            one = Delta(delete=(held[count // 2],)), Delta(fill=(held[count // 2 : count // 2 + 1],))
            floor = min(seconds(made.apply, delta, time.time()) for _ in range(3) for delta in one)
            made.remove()
        note = (
            f"in {len(parts)} parts, the longest {max(parts) * 1e3:.0f} ms; the kernel's floor is {floor * 1e3:.0f} ms"
        )
        yield Row(f"feed of {count:,} into the kernel", sum(parts), peer, "nft -f", limit=0.4, goal=0.35, note=note)


def feed_replaced(scale: Scale) -> Iterator[Row]:
    """2 % of a feed replaced."""
    count = scale.count(100_000)
    part = count // 50
    spread = ranges(count + part)
    step = (count + part) // part
    fresh, gone = set(spread[::step][:part]), set(spread[1::step][:part])
    now = time.time()
    old, new = (_held([r for r in spread if r not in out], now + HOUR) for out in (fresh, gone))
    with NetlinkKernel(Layout(feeds=(SETS,))) as made, tempfile.TemporaryDirectory() as folder:
        replace = NftFile(Path(folder), nft_add("feed4_bench", new.spans.pairs(), flush=True))
        made.remove()
        made.create()
        _filled(made, old)
        changing, applying = [], []
        for there, back in ((old, new), (new, old)) * scale.repeated(3):
            start = time.perf_counter()
            parts = list(Change.between(there, back).turns(turn(back)))
            changing.append(time.perf_counter() - start)
            applying.append(sum(seconds(made.apply, delta, now) for delta in parts))
        peers = [seconds(replace.load) for _ in range(scale.repeated(3))]
        made.remove()
    yield Row(
        f"2 % of a feed of {count:,} replaced", statistics.median(changing) + statistics.median(applying),
        statistics.median(peers), "nft -f flush+add", limit=1 / 15,
        note=f"of it finding the difference: {statistics.median(changing) * 1e3:.0f} ms; the rest is the kernel's",
    )  # fmt: skip
