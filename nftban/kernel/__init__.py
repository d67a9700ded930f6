"""The kernel's side of a ban: what every backend can do.

A backend (netlink.NetlinkKernel: the real nf_tables; memory.MemoryKernel: none, for --observe) is made for a
layout.Layout and holds elements, each with an absolute `until`.  All share one contract, which
tests/contract/test_kernel_backends.py holds them to.  Times are epoch seconds; `now` is the caller's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nftban.prefixes import Prefix
from nftban.records import Delta, Element, Refused

Desired = Mapping[str, Sequence[Element]]
"""By set, the elements that it should hold; ascending and disjoint in sets of ranges; some may be over."""


@dataclass(frozen=True, slots=True)
class Found:
    """An element that covers what was asked for.

    scope: whose ban it is, "" where it is an element of the allow list; packets, bytes: what it has stopped.
    """

    element: Element
    scope: str
    packets: int = 0
    bytes: int = 0


class Kernel(Protocol):
    """What the daemon and the command line need of the kernel.

    Every method raises PermissionNeededError without CAP_NET_ADMIN and KernelError where the kernel refuses.
    """

    def create(self) -> list[str]:
        """Makes the table, sets, chains and rules, or turns what is there into them; no element is lost.

        Returns what was not as it should be, in words; empty where the table was whole or not there at all.
        """
        ...

    def drift(self) -> list[str]:
        """What of table, sets, chains and rules is not as the layout says, in words; empty: all is as it should be."""
        ...

    def apply(self, delta: Delta, now: float) -> list[Refused]:
        """Deletes, refreshes and adds elements and returns those that were refused; the others are in effect.

        `add` is for elements that are not there, `refresh` for such that may be there with another expiry.  Deleting
        what is missing is no fault.  An element whose `until` has come is not added, and a refresh deletes it.
        KernelError(ENOENT) where the table or set is missing: create() first.
        """
        ...

    def present(self, now: float, sets: Collection[str] | None = None) -> list[Element]:
        """Every element of the bans and the allow list, or of these sets, ascending; empty where there is no table.

        Of the real kernel a listing: for what is done again and again use compare().
        """
        ...

    def compare(
        self,
        desired: Desired,
        now: float,
        lingering: Mapping[str, int] | None = None,
        sets: Collection[str] | None = None,
    ) -> Delta:
        """What apply() must do to make the kernel hold exactly the desired elements: as plan.difference() of them and
        present(now) says it, but without listing big sets where nothing is wrong.

        lingering: by set, how many of its elements may have timed out during the last two minutes.  The kernel
        counts them until it has collected them, and without this number they look like something unwanted, for which
        the set is listed.  sets: only these are compared, None: all.
        """
        ...

    def in_doubt(self, desired: Desired, now: float, lingering: Mapping[str, int]) -> set[str]:
        """The sets that compare() has to be asked about: all but big ones whose number of elements is no more than
        desired.  For those lacking() tells the rest, a piece at a time."""
        ...

    def lacking(self, elements: Sequence[Element], now: float) -> Delta | None:
        """What apply() must do for these elements of one set to be there; what else is there is not looked at.

        None: in a set of ranges something is missing, and the whole set has to be compared.
        """
        ...

    def counts(self) -> dict[str, int | None]:
        """How many elements each set of addresses holds, None where the kernel does not say.

        Elements that timed out count until the kernel has collected them, within GC_INTERVAL_MS.
        """
        ...

    def find(self, prefix: Prefix, now: float) -> list[Found]:
        """The elements that cover the whole prefix: one, or in a set of ranges adjacent ones that do so together."""
        ...

    def remove(self) -> None:
        """Deletes the table with all it holds; no fault where there is none."""
        ...
