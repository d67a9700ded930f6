"""What a measurement gives, and the tools that all of them use.

A Row compares ours with a peer in the same run, so that it means the same on any machine: the limit is a ratio, or
where there is no peer seconds.  Times are wall-clock seconds.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from nftban.kernel.layout import Layout
from nftban.kernel.netlink import NetlinkKernel
from nftban.records import Element

LAYOUT = Layout()
ADDRESSES, RANGES = "ban4_all", "ban4range_all"
HOUR = 3600


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ours, peer: as `unit` says; limit: the most that ours / peer, or without a peer ours, may be; goal: what would be
    good; note: what a reader should know.
    """

    what: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    unit: str = "s"
    limit: float | None = None
    goal: float | None = None
    note: str = ""

    @property
    def figure(self) -> float:
        """What is held against the limit."""
        if self.peer is None:
            return self.ours
        return self.ours / self.peer if self.peer else float("inf")

    @property
    def met(self) -> bool | None:
        """None where there is nothing to meet."""
        return None if self.limit is None else self.figure <= self.limit


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: quick is a hundredth of it, once, and proves nothing but that it runs."""

    quick: bool = False

    def count(self, full: int) -> int:
        return full // 100 if self.quick else full

    def repeated(self, full: int) -> int:
        return 1 if self.quick else full


Measurement = Callable[[Scale], Iterator[Row]]


def seconds(action: Callable[..., object], *arguments: object) -> float:
    """How long the call takes."""
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def addresses(count: int, seed: int = 1) -> list[int]:
    """So many distinct IPv4 addresses outside 10.0.0.0/8, in no order."""
    return random.Random(seed).sample(range(11 << 24, 223 << 24), count)


def ranges(count: int) -> list[tuple[int, int]]:
    """So many disjoint /28, ascending."""
    return [(first, first + 15) for first in range(11 << 24, (11 << 24) + 3008 * count, 3008)]


def elements(pairs: Iterable[tuple[int, int]], name: str, until: float | None) -> tuple[Element, ...]:
    return tuple(Element(name, first, last, until) for first, last in pairs)


def singly(keys: Iterable[int]) -> list[tuple[int, int]]:
    return [(key, key) for key in keys]


@contextmanager
def kernel() -> Iterator[NetlinkKernel]:
    """Our table, empty; gone afterwards."""
    with NetlinkKernel(LAYOUT) as made:
        made.remove()
        made.create()
        try:
            yield made
        finally:
            made.remove()


@contextmanager
def plain_sets() -> Iterator[NetlinkKernel]:
    """Our two IPv4 sets without counters, as lists of addresses have them; a counter doubles the kernel's work."""
    sets = f"set {ADDRESSES} {{ type ipv4_addr; size 2097151; flags timeout; }}\n"
    sets += f"set {RANGES} {{ type ipv4_addr; flags interval,timeout; }}\n"
    with NetlinkKernel(LAYOUT) as made:
        made.remove()
        nft(f"table inet {LAYOUT.table} {{\n{sets}}}")
        try:
            yield made
        finally:
            made.remove()


def nft(*arguments: str) -> None:
    """nft(8) with these arguments, its output thrown away; raises CalledProcessError where it refuses."""
    subprocess.run(["nft", *arguments], check=True, capture_output=True)


class NftFile:
    """Commands for `nft -f`, written beforehand: only reading and doing them is measured."""

    def __init__(self, folder: Path, text: str) -> None:
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".nft", delete=False) as file:
            file.write(text)
        self._path = file.name

    def load(self) -> None:
        nft("-f", self._path)


def nft_add(name: str, pairs: Iterable[tuple[int, int]], *, flush: bool = False) -> str:
    """What nft(8) reads to add these for an hour."""
    listed = ",".join(
        f"{IPv4Address(first)}{'' if first == last else f'-{IPv4Address(last)}'} timeout 1h" for first, last in pairs
    )
    head = f"flush set inet {LAYOUT.table} {name}\n" if flush else ""
    return f"{head}add element inet {LAYOUT.table} {name} {{ {listed} }}\n"
