"""The table in the kernel apart from its elements: made, migrated, compared, removed.

Takes a Layout and a NetfilterSocket; does what nftban.kernel.Kernel says of create(), drift() and remove().
Guarantees: create() is one transaction, so there is never half a table nor a moment without a ban; it sends nothing
where nothing differs; where somebody else changes the table meanwhile it looks again, ATTEMPTS times.
A device that is named for ingress but does not exist is left out (older kernels refuse it) until it comes: drift()
then finds the chain lacking it.
Does not: know bans; serve several threads.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from collections.abc import Callable

from nftban.errors import KernelError, PermissionNeededError
from nftban.kernel import migrate, objects
from nftban.kernel.codec import BadMessageError, Entry
from nftban.kernel.layout import Layout, SetSpec
from nftban.kernel.objects import NLMSGHDR_BYTES, Frame
from nftban.kernel.wire import ATTEMPTS, NetfilterSocket, kernel_error

NFT_TABLE_F_OWNER = 0x2  # linux/netfilter/nf_tables.h

log = logging.getLogger(__name__)


class Table:
    """The table of a layout, over a socket that others use too."""

    def __init__(
        self, layout: Layout, netfilter: NetfilterSocket, entries: Callable[[SetSpec, bool], list[Entry]]
    ) -> None:
        """entries: lists a set, given whether it is an interval set."""
        self._layout = layout
        self._socket = netfilter
        self._entries = entries
        self._absent: set[str] = set()

    def create(self) -> list[str]:
        """What was not as it should be (nothing, if there was no table), in words; now it is."""
        for _ in range(ATTEMPTS):
            layout, frame, words = self._looked()
            if not words:
                return []
            elements, lost = self._carried_over(layout, frame)
            requests = migrate.requests(layout, frame, elements, time.monotonic())
            self._socket.room(sum(len(r.payload) + NLMSGHDR_BYTES for r in requests) + 4 * NLMSGHDR_BYTES)
            try:
                refusals = self._socket.transact(requests)
            except PermissionNeededError:
                self._say_owner(frame)
                raise
            if not refusals:
                if frame.table is None:
                    return []
                log.warning("table inet %s was not ours as it stood: %s", layout.table, "; ".join((*words, *lost)))
                return [*words, *lost]
        raise kernel_error(refusals[0].errno, refusals[0].words)

    def _say_owner(self, frame: Frame) -> None:
        """Raises where it is not our privilege that is missing: another program keeps the table to itself."""
        if frame.table is not None and frame.table.get("NFTA_TABLE_FLAGS", 0) & NFT_TABLE_F_OWNER:
            raise KernelError(
                errno.EPERM,
                f"another program owns the table inet {self._layout.table} (flags owner) and lets nobody change it",
                "stop that program, or name another table: [kernel] table",
            )

    def drift(self) -> list[str]:
        """What is not as the layout says, in words."""
        return self._looked()[2]

    def remove(self) -> None:
        """Deletes the table with all it holds."""
        for refusal in self._socket.transact([objects.remove_request(self._layout)]):
            if refusal.errno != errno.ENOENT:
                raise kernel_error(refusal.errno, refusal.words)

    def _looked(self) -> tuple[Layout, Frame, list[str]]:
        """The layout for the devices that are here, what there is, and how that differs."""
        frame = objects.listed(self._layout.table, *map(self._socket.dump, objects.list_requests(self._layout)))
        layout = self._layout
        if layout.ingress:
            # Newer kernels keep the name of a device that has gone, and hook it again when it comes back.
            layout = layout.on_devices(frame.devices | {name for _, name in socket.if_nameindex()})
            self._tell_absent(set(self._layout.ingress) - set(layout.ingress))
        port_sets = [scope.port_set for scope in layout.scopes if scope.ports and scope.port_set.name in frame.sets]
        return layout, frame, migrate.differences(layout, frame, {spec.name: self._ports(spec) for spec in port_sets})

    def _tell_absent(self, absent: set[str]) -> None:
        if absent - self._absent:
            log.warning("not stopped at ingress yet: there is no network device %s", ", ".join(sorted(absent)))
        self._absent = absent

    def _ports(self, spec: SetSpec) -> set[int]:
        """What a set of ports holds; nothing where its keys are no ports."""
        try:
            return {entry.first for entry in self._entries(spec, False)}
        except BadMessageError:
            return set()

    def _carried_over(self, layout: Layout, frame: Frame) -> tuple[migrate.Kept, list[str]]:
        """The elements of sets that are to be replaced, and what of them cannot be kept, in words."""
        elements: migrate.Kept = {}
        lost = []
        for spec, was_interval in migrate.replaced_sets(layout, frame).items():
            now = time.monotonic()
            entries = self._entries(spec, was_interval)
            elements[spec] = migrate.kept(spec, entries, now)
            if len(elements[spec]) < len(entries):
                lost.append(f"set {spec.name} has no place for {len(entries) - len(elements[spec])} of its entries")
        return elements, lost
