"""The real kernel: a layout's table in nf_tables, through netlink.

Takes and gives what nftban.kernel.Kernel says.
Guarantees: the table is made in one transaction, so there is never half of it; a delta is one transaction too (up
to STEPS elements of hash sets, any number in interval sets), so that a packet sees the sets before it or after it;
an element that the kernel refuses is named and left out, and the rest is sent again.  A full hash set is enlarged.
A refresh changes the element in place where this kernel can (trial.py finds out), else it deletes and adds in one
transaction.
Does not: serve several threads, remember elements: what it says it has just read from the kernel.
Limits: a full dump takes longer than its size suggests (a hash set: 0.4 s for 100,000 elements, 30 s for a million).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType

from nftban.errors import KernelError
from nftban.kernel import Desired, Found, codec, transactions
from nftban.kernel.codec import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_DESTROYSETELEM,
    NFT_MSG_GETSETELEM,
    NFT_MSG_NEWSETELEM,
    NLM_F_CREATE,
    OneElement,
    Request,
)
from nftban.kernel.compare import Comparison
from nftban.kernel.layout import Layout, SetSpec
from nftban.kernel.table import Table
from nftban.kernel.transactions import STEP_BYTES, STEPS, Batch, timeout_ms
from nftban.kernel.trial import updates_in_place
from nftban.kernel.wire import ATTEMPTS, NetfilterSocket, Refusal, kernel_error
from nftban.prefixes import Prefix
from nftban.records import Delta, Element, Refused


class NetlinkKernel:
    """The layout's table in the network namespace of the thread that makes this object."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._socket = NetfilterSocket()
        self._table = Table(layout, self._socket, self._entries)
        # Which message deletes, and whether a refresh may do without it: what this kernel can is seen on the way.
        self._deletion = NFT_MSG_DESTROYSETELEM
        self._updates: bool | None = None
        self._templates: dict[tuple[str, int, bool], OneElement] = {}

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> NetlinkKernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The netlink port that changes by this object come from; another one after a listing failed."""
        return self._socket.port

    def create(self) -> list[str]:
        return self._table.create()

    def remove(self) -> None:
        self._table.remove()

    def drift(self) -> list[str]:
        return self._table.drift()

    def present(self, now: float, sets: Collection[str] | None = None) -> list[Element]:
        start = time.monotonic()
        found: list[Element] = []
        for name, spec in sorted(self._layout.address_sets.items()):
            if sets is None or name in sets:
                entries = self._entries(spec)
                moment = now + time.monotonic() - start
                found += [_element(spec, entry, moment) for entry in entries]
        return found

    def compare(
        self,
        desired: Desired,
        now: float,
        lingering: Mapping[str, int] | None = None,
        sets: Collection[str] | None = None,
    ) -> Delta:
        return self._comparison.delta(desired, now, lingering or {}, sets)

    def in_doubt(self, desired: Desired, now: float, lingering: Mapping[str, int]) -> set[str]:
        return self._comparison.in_doubt(desired, now, lingering)

    def lacking(self, elements: Sequence[Element], now: float) -> Delta | None:
        return self._comparison.lacking(elements, now)

    @property
    def _comparison(self) -> Comparison:
        return Comparison(self._socket, self._layout, self.present)

    def counts(self) -> dict[str, int | None]:
        return self._comparison.counts()

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
        if len(delta) == 1 and not delta.fill and self._applied_one(delta, now):
            return []
        try:
            steps = transactions.steps(delta, self._layout.address_sets, now, bool(delta.refresh) and self._in_place)
        except KeyError as e:
            raise KernelError(errno.ENOENT, f"the layout has no set {e.args[0]}") from None
        ranges = sum(len(step.elements) for step in steps if step.spec.interval)
        limit = max(self._socket.room((ranges + STEPS) * STEP_BYTES) // STEP_BYTES, 1)
        parts = transactions.transactions(steps, limit, self._deletion)
        refused: list[Refused] = []
        start: float | None = None
        for batches in parts:
            # It may take seconds, and an element's timeout counts from when it is sent.
            moment = time.monotonic()
            start = moment if start is None else start
            refused += self._commit(batches, now + moment - start)
        return refused

    def _applied_one(self, delta: Delta, now: float) -> bool:
        """Changes one element of a hash set, which is what nearly every ban is; False: the kernel did not confirm
        it (or it is no such change), and it is to be done in the ordinary way."""
        kind, wait = NFT_MSG_NEWSETELEM, None
        if delta.delete:
            (element,), kind = delta.delete, self._deletion
        else:
            (element,) = delta.add or delta.refresh
            wait = timeout_ms(element, now)
            if (wait is not None and wait < 1) or (delta.refresh and not self._in_place):
                return False
        template = self._templates.get((element.set, kind, wait is not None))
        if template is None:
            spec = self._layout.address_sets.get(element.set)
            if spec is None or spec.interval:
                return False
            flags = NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0
            template = OneElement.of(kind, flags, self._layout.table, spec.name, spec.width, wait is not None)
            self._templates[element.set, kind, wait is not None] = template
        return self._socket.transact_one(template, element.first, wait)

    @property
    def _in_place(self) -> bool:
        if self._updates is None:
            self._updates = updates_in_place(self._socket, self._layout.table)
        return self._updates

    def _commit(self, batches: list[Batch], now: float) -> list[Refused]:
        """Sends the batches until a transaction succeeds, leaving out what is refused.

        The kernel names refused messages, not elements, but goes on to the end of a failing transaction: a refused
        batch is sent again with one element in each message, and then it names them all.
        """
        refused: list[Refused] = []
        enlarged: set[str] = set()
        while batches:
            requests = [batch.request(self._layout.table, now) for batch in batches]
            refusals = {refusal.index: refusal for refusal in self._socket.transact(requests)}
            if not refusals:
                break
            again: list[Batch] = []
            for i, batch in enumerate(batches):
                kept, out = self._answered(batch, refusals.get(i), enlarged)
                again += kept
                refused += out
            batches = again
        return refused

    def _answered(self, batch: Batch, refusal: Refusal | None, enlarged: set[str]) -> tuple[list[Batch], list[Refused]]:
        """What of the batch is sent again, and what is refused for good; enlarged: sets for which that was tried."""
        if refusal is None:
            return [batch], []
        adding, code, words = batch.kind == NFT_MSG_NEWSETELEM, refusal.errno, refusal.words
        if batch.kind == NFT_MSG_DESTROYSETELEM and code == errno.EINVAL:
            # A kernel that does not know the message.
            self._deletion = NFT_MSG_DELSETELEM
            return [Batch(NFT_MSG_DELSETELEM, batch.spec, batch.elements)], []
        if adding and code == errno.ENOENT:
            raise kernel_error(code, f"set {batch.spec.name}")
        if code == errno.ENFILE:
            words = f"set {batch.spec.name} is full"
            if batch.spec.name not in enlarged:
                enlarged.add(batch.spec.name)
                self._enlarge(batch.spec)
                return [batch], []
        if len(batch.elements) > 1:
            return batch.singly(), []
        if not adding and code == errno.ENOENT:
            # It was to be deleted and is not there.
            return [], []
        return [], [Refused(batch.elements[0], code, words or os.strerror(code))]

    def _enlarge(self, spec: SetSpec) -> None:
        """Makes room for twice as many elements and a transaction's worth; a kernel that cannot leaves it as it is.

        In a transaction of its own: a new size holds for the following ones.
        """
        (payloads,) = self._socket.look_up([codec.set_request(self._layout.table, spec.name)])
        size = codec.set_size(payloads[0]) if payloads else None
        if size is not None:
            self._socket.transact([codec.resize_request(payloads[0], 2 * size + STEPS)])

    def _entries(self, spec: SetSpec, interval: bool | None = None) -> list[codec.Entry]:
        """A dump of the set; interval: whether it is an interval set, where it is not what the layout says.

        The kernel goes on with a dump at the position it had come to.  If it has meanwhile enlarged the hash table,
        which it does a moment after many elements were added and without a sign of it, the elements stand elsewhere:
        some are listed twice, and as many not at all.  So what has doubles is asked for again.
        """
        interval = spec.interval if interval is None else interval
        for _ in range(ATTEMPTS):
            payloads = self._socket.dump(codec.dump_request(self._layout.table, spec.name))
            if len(payloads) > 1:
                from nftban.kernel import bulk

                elements = b"".join(map(codec.list_elements, payloads))
                entries = bulk.entries(elements, spec.width, interval)
            else:
                entries = codec.entries(payloads, spec.width, interval)
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


def _element(spec: SetSpec, entry: codec.Entry, now: float) -> Element:
    until = None if entry.expires_in is None else now + entry.expires_in
    return Element(spec.name, entry.first, entry.last, until)
