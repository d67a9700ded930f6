"""Elements: one ban, a million, a change, a check, a restart.

Both sides fill the same sets, with timeouts; those of our own layout where nothing else is said, which count.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from bench.measures import (
    ADDRESSES,
    HOUR,
    LAYOUT,
    RANGES,
    NftFile,
    Row,
    Scale,
    addresses,
    elements,
    kernel,
    nft,
    nft_add,
    plain_sets,
    ranges,
    seconds,
    singly,
)
from nftban.kernel import plan
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import PrefixSet
from nftban.records import Delta, Element


def one_ban(scale: Scale) -> Iterator[Row]:
    """NetlinkKernel.apply of one element, into a set that holds 100,000."""
    held = scale.count(100_000)
    with kernel() as made:
        now = time.time()
        made.apply(Delta(add=elements(singly(addresses(held)), ADDRESSES, now + HOUR)), now)
        times = []
        for key in range(10 << 24, (10 << 24) + scale.count(20_000)):
            delta = Delta(add=(Element(ADDRESSES, key, key, now + HOUR),))
            times.append(seconds(made.apply, delta, now))
        command = ["add", "element", "inet", LAYOUT.table, ADDRESSES]
        peers = [seconds(nft, *command, f"{{ 10.200.0.{i} timeout 1h }}") for i in range(scale.repeated(20))]
    *_, p99 = statistics.quantiles(times, n=100)
    into = f"one ban, set of {held:,}"
    yield Row(
        f"{into}, p50", statistics.median(times), statistics.median(peers), "nft add element", "s", 15e-6 / 2e-3,
        note=f"p99 {p99 * 1e6:.1f} µs",
    )  # fmt: skip
    yield Row(f"{into}, p50 alone", statistics.median(times), limit=60e-6, goal=15e-6)
    yield Row(f"{into}, p99 alone", p99, limit=1e-3)


def million_addresses(scale: Scale) -> Iterator[Row]:
    """Addresses into a hash set, while another process bans as fast as it can."""
    count = scale.count(1_000_000)
    pairs = singly(addresses(count))
    with tempfile.TemporaryDirectory() as folder:
        file = NftFile(Path(folder), nft_add(ADDRESSES, pairs))
        now = time.time()
        delta = Delta(add=elements(pairs, ADDRESSES, now + HOUR))
        for sets, words, limit, goal in ((plain_sets, "", 0.45, 0.25), (kernel, " with counters", None, None)):
            times, peers = [], []
            for _ in range(scale.repeated(2)):
                with sets():
                    peers.append(seconds(file.load))
                with sets() as made:
                    times.append(seconds(made.apply, delta, now))
            yield Row(f"{count:,} addresses, hash set{words}", min(times), min(peers), "nft -f", limit=limit, goal=goal)
    with kernel() as made, _Banning() as other:
        made.apply(delta, now)
        longest = other.longest()
    yield Row("meanwhile another ban waits, at most", longest, limit=0.06, note="bans by another process")


def million_prefixes(scale: Scale) -> Iterator[Row]:
    """Prefixes into an interval set, in one transaction."""
    count = scale.count(1_000_000)
    pairs = ranges(count)
    with tempfile.TemporaryDirectory() as folder:
        file = NftFile(Path(folder), nft_add(RANGES, pairs))
        with plain_sets():
            peer = seconds(file.load)
    now = time.time()
    delta = Delta(add=elements(pairs, RANGES, now + HOUR))
    with plain_sets() as made:
        ours = seconds(made.apply, delta, now)
    yield Row(f"{count:,} prefixes, interval set", ours, peer, "nft -f", limit=0.30, goal=0.1)


def change(scale: Scale) -> Iterator[Row]:
    """2 % of a set replaced: only the difference travels."""
    count = scale.count(100_000)
    part = count // 50
    spread = ranges(count + part)
    for kind, name, every, most in (
        ("hash", ADDRESSES, singly(addresses(count + part)), 1 / 40),
        ("interval", RANGES, spread, 1 / 15),
    ):
        now = time.time()
        # What comes and what goes lies all over the set.
        fresh = every[:: (count + part) // part][:part]
        gone = every[1 :: (count + part) // part][:part]
        before = sorted(set(every) - set(fresh))
        after = sorted(set(every) - set(gone))
        old, new = (elements(side, name, now + HOUR) for side in (before, after))
        with kernel() as made, tempfile.TemporaryDirectory() as folder:
            file = NftFile(Path(folder), nft_add(name, after, flush=True))
            made.apply(Delta(add=old), now)
            there, back = plan.difference(new, old, now), plan.difference(old, new, now)
            times, peers = [], []
            for _ in range(scale.repeated(5)):
                times.append(seconds(made.apply, there, now))
                made.apply(back, now)
            for _ in range(scale.repeated(3)):
                peers.append(seconds(file.load))
        finding = seconds(plan.difference, new, old, now)
        yield Row(
            f"2 % of {count:,} changed, {kind}", statistics.median(times), statistics.median(peers),
            "nft -f flush+add", limit=most, note=f"finding the difference besides: {finding * 1e3:.0f} ms",
        )  # fmt: skip


def check(scale: Scale) -> Iterator[Row]:
    """Is everything there that should be, until when it should, and nothing else?"""
    count = scale.count(100_000)
    command = ["-j", "list", "set", "inet", LAYOUT.table]
    for kind, name, pairs in (
        ("hash", ADDRESSES, singly(sorted(addresses(count)))),
        ("interval", RANGES, ranges(count)),
    ):
        now = time.time()
        wanted = elements(pairs, name, now + HOUR)
        with kernel() as made:
            made.apply(Delta(add=wanted), now)
            times = []
            for _ in range(scale.repeated(3)):
                start = time.perf_counter()
                found = made.compare(plan.grouped(wanted), time.time())
                times.append(time.perf_counter() - start)
                if found:
                    raise AssertionError(f"{kind}: differences where there are none")
            peers = [seconds(nft, *command, name) for _ in range(scale.repeated(3))]
        yield Row(
            f"{count:,} elements compared, {kind}", statistics.median(times), statistics.median(peers),
            "nft -j list set", limit=0.25 if name == ADDRESSES else None,
        )  # fmt: skip


def restore(scale: Scale) -> Iterator[Row]:
    """From the bans in memory to the kernel, as at start: plan, comparison, transactions."""
    count = scale.count(100_000)
    now = time.time()
    ends = {("all", 4, 32): dict.fromkeys(addresses(count), now + HOUR)}

    def restored(made: NetlinkKernel) -> None:
        made.apply(made.compare(plan.desired(ends, PrefixSet(), LAYOUT), now), now)

    times = []
    for _ in range(scale.repeated(3)):
        gc.collect()
        with kernel() as made:
            times.append(seconds(restored, made))
    yield Row(f"{count:,} bans restored, kernel's part", statistics.median(times), limit=0.5)


class _Banning:
    """Another process that bans one address after the other and remembers how long the slowest took."""

    def __enter__(self) -> _Banning:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_ban_until_told, args=(theirs,), daemon=True)
        self._process.start()
        self._pipe.recv()
        return self

    def longest(self) -> float:
        """Seconds; ends it."""
        self._pipe.send(None)
        slowest: float = self._pipe.recv()
        return slowest

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _ban_until_told(pipe: Connection) -> None:
    gc.disable()
    with NetlinkKernel(LAYOUT) as made:
        slowest, key = 0.0, 10 << 24
        pipe.send(None)
        while not pipe.poll():
            now = time.time()
            delta = Delta(add=(Element(ADDRESSES, key, key, now + HOUR),))
            slowest = max(slowest, seconds(made.apply, delta, now))
            key += 1
            # As many as a flood brings; without a pause it would take half of the machine.
            time.sleep(0.001)
        pipe.send(slowest)
