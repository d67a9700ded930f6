"""A delta cut into transactions, and these into the element messages they consist of.

Takes a Delta and the layout; gives batches: elements of one set that are deleted or added by one message.
Guarantees: what is done to one element stays in one transaction; inside one, deletions come first, so that a range is
gone before its successor comes; ranges are ascending, which the kernel takes in half the time.  A hash set gets at
most STEPS elements in a transaction: more would hold the kernel's commit lock for a noticeable time, and another ban
would wait.  Interval sets want the contrary: each transaction costs them time proportional to their size, so they
come first and whole.
Does not: send anything, decide what a refusal means (netlink.py does).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from nftban.kernel import codec
from nftban.kernel.codec import NFT_MSG_NEWSETELEM, NLM_F_CREATE, Request
from nftban.kernel.layout import SetSpec
from nftban.kernel.plan import grouped
from nftban.records import Delta, Element

STEPS = 5_000
# The most bytes a change of one element takes: deleted and added, IPv6, a range, each in a message of its own.
STEP_BYTES = 400
# The bytes of one range of IPv6 addresses with its times; other elements take fewer.
ELEMENT_BYTES = 88
# From this many elements on numpy is the faster.
FEWEST = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Elements of one set for one message; kind: NFT_MSG_NEWSETELEM or one of the deleting messages."""

    kind: int
    spec: SetSpec
    elements: Sequence[Element]

    def singly(self) -> list[Batch]:
        return [Batch(self.kind, self.spec, (element,)) for element in self.elements]

    def request(self, table: str, now: float) -> Request:
        """The message: timeouts are counted from `now`."""
        adding = self.kind == NFT_MSG_NEWSETELEM
        spec, moment = self.spec, now if adding else None
        if len(self.elements) >= FEWEST:
            # Imports numpy, which a daemon with few bans never needs.
            from nftban.kernel import bulk

            listed = bulk.element_list(self.elements, spec.width, spec.interval, moment)
        else:
            listed = b"".join(
                codec.element_bytes(e, spec.width, spec.interval, timeout_ms(e, moment)) for e in self.elements
            )
        return codec.list_request(self.kind, NLM_F_CREATE if adding else 0, table, spec.name, listed)


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to these elements of one set: deleted, added, or one after the other."""

    spec: SetSpec
    elements: Sequence[Element]
    delete: bool
    add: bool


def steps(delta: Delta, sets: Mapping[str, SetSpec], now: float, in_place: bool) -> list[Step]:
    """Interval sets first; in_place: adding an element that is there gives it its new time.

    KeyError for a set that is not in `sets`.
    """
    over = [e for e in delta.refresh if not stands(e, now)]
    standing = [e for e in delta.refresh if stands(e, now)]
    adding = [e for e in delta.add if e.until is None or e.until > now]
    found = [
        *_by_set(sets, (*delta.delete, *over), delete=True),
        *_by_set(sets, standing, delete=not in_place, add=True),
        *_by_set(sets, adding, add=True),
    ]
    for several in delta.fill:
        # In a hash set what is over by now is gone with the first tick of the kernel's clock.
        found.append(Step(sets[several[0].set], several, delete=False, add=True))
    # All are looked at, so that an unknown set is one even where its elements are over.
    for element in delta.add if len(adding) < len(delta.add) else ():
        sets[element.set]
    return sorted(found, key=lambda step: not step.spec.interval)


def stands(element: Element, now: float) -> bool:
    return element.until is None or element.until > now


def timeout_ms(element: Element, now: float | None) -> int | None:
    """now None: without a timeout, as for a deletion."""
    return None if now is None or element.until is None else round((element.until - now) * 1000)


def _by_set(
    sets: Mapping[str, SetSpec], elements: Iterable[Element], *, delete: bool = False, add: bool = False
) -> list[Step]:
    found = grouped(elements)
    for name, several in found.items():
        if sets[name].interval:
            several.sort(key=attrgetter("first"))
    return [Step(sets[name], several, delete, add) for name, several in found.items()]


def transactions(steps: Iterable[Step], limit: int, deletion: int) -> Iterator[list[Batch]]:
    """limit: the most elements of a transaction; deletion: the message that deletes."""
    chosen: list[Step] = []
    room, hashed = limit, STEPS
    for step in steps:
        place = 0
        while place < len(step.elements):
            most = room if step.spec.interval else min(room, hashed)
            if not most:
                yield _batches(chosen, deletion)
                chosen, room, hashed = [], limit, STEPS
                continue
            part = step.elements[place : place + most]
            chosen.append(Step(step.spec, part, step.delete, step.add))
            place += len(part)
            room -= len(part)
            hashed -= 0 if step.spec.interval else len(part)
    if chosen:
        yield _batches(chosen, deletion)


def _batches(steps: Sequence[Step], deletion: int) -> list[Batch]:
    most = codec.LIST_BYTES // ELEMENT_BYTES
    parts = [(deletion, s.spec, s.elements) for s in steps if s.delete]
    parts += [(NFT_MSG_NEWSETELEM, s.spec, s.elements) for s in steps if s.add]
    return [
        Batch(kind, spec, elements[i : i + most])
        for kind, spec, elements in parts
        for i in range(0, len(elements), most)
    ]
