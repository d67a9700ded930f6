"""A kernel that is none: the elements are held in memory and stop nothing.

Takes and gives what nftban.kernel.Kernel says, for `--observe` and for tests of what stands before the kernel.
Guarantees: refuses what nf_tables refuses (no table, a set that is missing, a range that overlaps another, a full
set), with the same errno; an element is gone when its `until` has come.  Does not: survive its process, count packets.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain

from nftban.errors import KernelError
from nftban.kernel import Desired, Found, plan
from nftban.kernel.layout import Layout, SetSpec
from nftban.prefixes import Prefix
from nftban.records import Delta, Element, Refused


class MemoryKernel:
    """The elements of a layout's sets, each set a list ascending by first address.

    clock: this kernel's own time, epoch seconds, by which its elements time out.
    """

    def __init__(self, layout: Layout, clock: Callable[[], float]) -> None:
        self._layout = layout
        self._clock = clock
        self._sets: dict[str, list[Element]] | None = None

    def create(self) -> list[str]:
        if self._sets is None:
            self._sets = {name: [] for name in self._layout.address_sets}
        return []

    def drift(self) -> list[str]:
        return [f"there is no table inet {self._layout.table}"] if self._sets is None else []

    def remove(self) -> None:
        self._sets = None

    def apply(self, delta: Delta, now: float) -> list[Refused]:
        self._expire(now)
        added = tuple(delta.added())
        for element in (*delta.delete, *delta.refresh, *added):
            if element.set not in self._layout.address_sets:
                raise KernelError(errno.ENOENT, f"the layout has no set {element.set}")
        standing = [e for e in (*delta.refresh, *added) if e.until is None or e.until > now]
        if self._sets is None:
            if standing:
                raise KernelError(errno.ENOENT, f"there is no table inet {self._layout.table}")
            return []
        for element in (*delta.delete, *delta.refresh):
            elements = self._sets[element.set]
            if element in elements[(i := bisect_left(elements, element)) : i + 1]:
                del elements[i]
        return [refused for element in standing for refused in self._add(self._sets[element.set], element)]

    def present(self, now: float, sets: Collection[str] | None = None) -> list[Element]:
        self._expire(now)
        held = (self._sets or {}).items()
        return sorted((e for name, several in held if sets is None or name in sets for e in several), key=plan.PLACE)

    def compare(
        self,
        desired: Desired,
        now: float,
        lingering: Mapping[str, int] | None = None,  # noqa: ARG002 - what timed out is gone here at once
        sets: Collection[str] | None = None,
    ) -> Delta:
        wanted = (elements for name, elements in desired.items() if sets is None or name in sets)
        return plan.difference(chain.from_iterable(wanted), self.present(now, sets), now)

    def in_doubt(self, desired: Desired, now: float, lingering: Mapping[str, int]) -> set[str]:  # noqa: ARG002
        # Nobody else has access, and comparing all is quick.
        return set(self._layout.address_sets)

    def lacking(self, elements: Sequence[Element], now: float) -> Delta | None:
        if not elements:
            return Delta()
        delta = plan.difference(elements, self.present(now, {elements[0].set}), now)
        if self._layout.address_sets[elements[0].set].interval and delta.add:
            return None
        return Delta(delta.add, (), delta.refresh)

    def counts(self) -> dict[str, int | None]:
        self._expire(self._clock())
        held = self._sets or {}
        return {name: len(held.get(name, ())) for name in self._layout.address_sets}

    def find(self, prefix: Prefix, now: float) -> list[Found]:
        self._expire(now)
        if self._sets is None:
            return []
        specs = [spec for spec in self._layout.address_sets.values() if spec.may_cover(prefix)]
        return [Found(e, s.scope) for s in specs for e in _covering(self._sets[s.name], s, prefix)]

    def _expire(self, now: float) -> None:
        now = max(now, self._clock())
        for elements in (self._sets or {}).values():
            elements[:] = [e for e in elements if e.until is None or e.until > now]

    def _add(self, elements: list[Element], element: Element) -> list[Refused]:
        place = bisect_left(elements, element)
        if place < len(elements) and elements[place] == element:
            elements[place] = element
            return []
        neighbours = elements[max(place - 1, 0) : place + 1]
        if any(e.first <= element.last and element.first <= e.last for e in neighbours):
            return [Refused(element, errno.EEXIST, "it overlaps another range")]
        size = self._layout.address_sets[element.set].size
        if size is not None and len(elements) >= size:
            return [Refused(element, errno.ENFILE, "the set is full")]
        elements.insert(place, element)
        return []


def _covering(elements: list[Element], spec: SetSpec, prefix: Prefix) -> list[Element]:
    if not spec.interval:
        return [e for e in elements if e.first == spec.key(prefix)]
    pieces = [e for e in elements if e.first <= prefix.last and prefix.first <= e.last]
    place = prefix.first
    for piece in pieces:
        if piece.first > place:
            return []
        place = piece.last + 1
    return pieces if place > prefix.last else []
