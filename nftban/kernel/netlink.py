"""The real kernel: a layout's table in nf_tables, through netlink.

Takes and gives what nftban.kernel.Kernel says.
Guarantees: the table is made in one transaction, so there is never half of it; a delta is one transaction too (up
to STEPS elements of hash sets, any number in interval sets), so that a packet sees the sets before it or after it;
an element that the kernel refuses is named and left out, and the rest is sent again.  A refresh deletes and adds in
one transaction, because kernels before 6.12 ignore a new timeout for an element that is there.
Does not: serve several threads, remember anything: what it says it has just read from the kernel.
Limits: a full dump takes longer than its size suggests (a hash set: 0.2 s for 100,000 elements, 30 s for a million).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType

from nftban.errors import KernelError
from nftban.kernel import Found, codec, objects
from nftban.kernel.codec import NFT_MSG_DELSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_NEWSETELEM, NLM_F_CREATE, Request
from nftban.kernel.layout import Layout, SetSpec
from nftban.kernel.wire import ATTEMPTS, NetfilterSocket, kernel_error
from nftban.prefixes import Prefix
from nftban.records import Delta, Element, Refused

# Elements of hash sets in one transaction: more hold the kernel's commit lock for a noticeable time.  Interval sets
# want the contrary: each transaction costs them time proportional to their size.
STEPS = 10_000
# The most bytes a change of one element takes: deleted and added, IPv6, a range, each in a message of its own.
STEP_BYTES = 400


@dataclass(frozen=True, slots=True)
class _Change:
    """One element to be deleted (NFT_MSG_DELSETELEM) or added (NFT_MSG_NEWSETELEM)."""

    verb: int
    element: Element


class NetlinkKernel:
    """The layout's table in the network namespace of the thread that makes this object."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._socket = NetfilterSocket()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> NetlinkKernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self) -> None:
        for refusal in self._socket.transact(objects.create_requests(self._layout)):
            raise kernel_error(refusal.errno, refusal.words)

    def remove(self) -> None:
        for refusal in self._socket.transact([objects.remove_request(self._layout)]):
            if refusal.errno != errno.ENOENT:
                raise kernel_error(refusal.errno, refusal.words)

    def drift(self) -> list[str]:
        port_sets = [scope.port_set for scope in self._layout.scopes if scope.ports]
        ports = {spec.name: {entry.first for entry in self._entries(spec)} for spec in port_sets}
        listings = map(self._socket.dump, objects.list_requests(self._layout))
        return objects.differences(self._layout, ports, *listings)

    def present(self, now: float) -> list[Element]:
        elements = [
            _element(spec, entry, now) for spec in self._layout.address_sets.values() for entry in self._entries(spec)
        ]
        return sorted(elements)

    def find(self, prefix: Prefix, now: float) -> list[Found]:
        specs = [spec for spec in self._layout.address_sets.values() if spec.may_cover(prefix)]
        answers = self._socket.look_up([self._point(spec, spec.key(prefix)) for spec in specs])
        found: list[Found] = []
        for spec, payloads in zip(specs, answers, strict=True):
            entries = codec.entries(payloads, spec.width, interval=False)
            if entries and spec.interval:
                entries = self._covering(spec, prefix)
            found += (Found(_element(spec, e, now), spec.scope, e.packets, e.bytes) for e in entries)
        return found

    def apply(self, delta: Delta, now: float) -> list[Refused]:
        refused: list[Refused] = []
        for changes in self._transactions(delta, now):
            refused += self._commit(changes, now)
        return refused

    def _transactions(self, delta: Delta, now: float) -> Iterator[list[_Change]]:
        """The delta cut into transactions; what is done to one element stays in one of them."""
        sets = self._layout.address_sets
        steps: list[tuple[Element, bool, bool]] = [(e, True, False) for e in delta.delete]
        steps += [(e, True, _stands(e, now)) for e in delta.refresh]
        steps += [(e, False, True) for e in delta.add if _stands(e, now)]
        for element, _, _ in steps:
            if element.set not in sets:
                raise KernelError(errno.ENOENT, f"the layout has no set {element.set}")
        # Interval sets first, and whole: STEPS counts elements of hash sets only.
        steps.sort(key=lambda step: (not sets[step[0].set].interval, step[0]))
        limit = max(self._socket.datagram_limit // STEP_BYTES, 1)
        chosen: list[tuple[Element, bool, bool]] = []
        hashed = 0
        for step in steps:
            hashed += not sets[step[0].set].interval
            if len(chosen) >= limit or hashed > STEPS:
                yield _changes(chosen)
                chosen, hashed = [], int(not sets[step[0].set].interval)
            chosen.append(step)
        if chosen:
            yield _changes(chosen)

    def _commit(self, changes: list[_Change], now: float) -> list[Refused]:
        """Sends the changes until a transaction succeeds, leaving out what is refused.

        The first time with as many elements in a message as fit.  The kernel names refused messages, not elements,
        but goes on to the end of a failing transaction: sent again with one element in each, it names them all.
        """
        refused: list[Refused] = []
        limit = codec.LIST_BYTES
        while changes:
            requests, spans = self._requests(changes, now, limit)
            refusals = self._socket.transact(requests)
            if not refusals:
                break
            out = set()
            for refusal in refusals:
                span = spans[refusal.index]
                if changes[span.start].verb == NFT_MSG_NEWSETELEM and refusal.errno == errno.ENOENT:
                    raise kernel_error(errno.ENOENT, f"set {changes[span.start].element.set}")
                if len(span) == 1:
                    out.add(span.start)
                    refused += _refusal(changes[span.start], refusal.errno, refusal.words)
            limit = 0
            changes = [change for i, change in enumerate(changes) if i not in out]
        return refused

    def _requests(self, changes: list[_Change], now: float, limit: int) -> tuple[list[Request], list[range]]:
        """The messages for the changes, and for each the indices of the changes it holds."""
        requests: list[Request] = []
        spans: list[range] = []
        place = 0
        for (verb, name), group in groupby(changes, key=lambda change: (change.verb, change.element.set)):
            spec = self._layout.address_sets[name]
            flags = NLM_F_CREATE if verb == NFT_MSG_NEWSETELEM else 0
            encoded = (codec.element_bytes(c.element, spec.width, spec.interval, _timeout_ms(c, now)) for c in group)
            for request, count in codec.element_requests(verb, flags, self._layout.table, name, encoded, limit):
                requests.append(request)
                spans.append(range(place, place + count))
                place += count
        return requests, spans

    def _entries(self, spec: SetSpec) -> list[codec.Entry]:
        """A dump of the set.

        The kernel goes on with a dump at the position it had come to.  If it has meanwhile enlarged the hash table,
        which it does a moment after many elements were added and without a sign of it, the elements stand elsewhere:
        some are listed twice, and as many not at all.  So what has doubles is asked for again.
        """
        for _ in range(ATTEMPTS):
            payloads = self._socket.dump(codec.dump_request(self._layout.table, spec.name))
            entries = codec.entries(payloads, spec.width, spec.interval)
            if len({entry.first for entry in entries}) == len(entries):
                return entries
        raise kernel_error(errno.EINTR, f"set {spec.name} kept growing while it was listed")

    def _covering(self, spec: SetSpec, prefix: Prefix) -> list[codec.Entry]:
        """The adjacent ranges of an interval set that together cover the prefix; empty where they leave a gap."""
        entries: list[codec.Entry] = []
        place = prefix.first
        while place <= prefix.last:
            piece = self._range_at(spec, place)
            if piece is None:
                return []
            entries.append(piece)
            place = piece.last + 1
        return entries

    def _range_at(self, spec: SetSpec, key: int) -> codec.Entry | None:
        """The range that holds the key: its start is asked for by the key, its end by the key as an interval end."""
        requests = [self._point(spec, key)]
        highest = (1 << 8 * spec.width) - 1
        if key < highest:
            requests.append(self._point(spec, key + 1, codec.NFT_SET_ELEM_INTERVAL_END))
        answers = self._socket.look_up(requests)
        return next(iter(codec.entries((p for answer in answers for p in answer), spec.width, interval=True)), None)

    def _point(self, spec: SetSpec, key: int, flags: int = 0) -> Request:
        element = codec.list_element(key, spec.width, flags)
        request, _ = next(codec.element_requests(NFT_MSG_GETSETELEM, 0, self._layout.table, spec.name, [element]))
        return request


def _stands(element: Element, now: float) -> bool:
    return element.until is None or element.until > now


def _timeout_ms(change: _Change, now: float) -> int | None:
    if change.verb == NFT_MSG_DELSETELEM or change.element.until is None:
        return None
    return round((change.element.until - now) * 1000)


def _changes(steps: Iterable[tuple[Element, bool, bool]]) -> list[_Change]:
    """Deletions first, so that a range is gone before its successor comes."""
    steps = list(steps)
    changes = [_Change(NFT_MSG_DELSETELEM, element) for element, delete, _ in steps if delete]
    return changes + [_Change(NFT_MSG_NEWSETELEM, element) for element, _, add in steps if add]


def _refusal(change: _Change, code: int, words: str) -> list[Refused]:
    """Nothing where an element was to be deleted that is not there."""
    if change.verb == NFT_MSG_DELSETELEM and code == errno.ENOENT:
        return []
    return [Refused(change.element, code, words or os.strerror(code))]


def _element(spec: SetSpec, entry: codec.Entry, now: float) -> Element:
    until = None if entry.expires_in is None else now + entry.expires_in
    return Element(spec.name, entry.first, entry.last, until)
