"""What others change in our table, as the kernel tells it.

Takes the notifications of nf_tables (multicast group NFNLGRP_NFTABLES, of the network namespace of the thread that
makes the Monitor); gives a Change for every transaction of somebody else that touched our table: what was done, by
which process.  Its file descriptor is for asyncio's add_reader; read() never waits.
Guarantees: whatever the bytes, nothing is raised for them: what cannot be read, or got lost (ENOBUFS), becomes a Change
that says so, for which the listener has to look himself.  Our own transactions are dropped in the kernel, by a socket
filter on the sender's port, so that a ban does not wake us.
Does not: look at the table, tell how an element's time runs out (the kernel says nothing then).
Costs: with a listener the kernel builds a message for every element that anybody changes.  Measured: a single ban 8.1
microseconds instead of 7.1, 20,000 elements 68 ms instead of 47, so `away` is for bulk loads.  Asking for the ruleset's
generation instead (GETGEN) costs 1.7 microseconds, but often and for ever, and does not say who did what.
Source: linux/netfilter/nf_tables.h, nfnetlink.h, netlink(7), and net/netfilter/nf_tables_api.c for the order: all of a
transaction's notifications, then NEWGEN with the process's number and name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from nftban.kernel.codec import (
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    NFTA_DATA_VALUE,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    BadMessageError,
    attributes,
)
from nftban.kernel.wire import NETLINK_NETFILTER, SO_RCVBUFFORCE, SOL_NETLINK, kernel_error

NFNLGRP_NFTABLES = 7
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_DROP_MEMBERSHIP = 2
SO_ATTACH_FILTER = 26
# What others do while we are busy must fit: 700 bytes of the kernel's memory for each element.
BUFFER_BYTES = 4 << 20
DATAGRAM_BYTES = 1 << 16
# Datagrams taken at a time, so that somebody's bulk load does not keep the event loop.
DATAGRAMS = 200
# Different things named of one transaction; nobody reads more.
NAMED = 20
MORE = "and more"
# Elements of one transaction whose keys are kept: with more, looking at all of the set is as good.
ELEMENTS = 200

NFT_MSG_NEWGEN = 15
NFTA_GEN_PROC_PID = 2
NFTA_GEN_PROC_NAME = 3
# By nf_tables message type (NFT_MSG_): what happened, and which attribute names what it happened to.  In all of them
# attribute 1 is the table (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, ...).
_MESSAGES = {
    0: ("table {} made or changed", 1),
    2: ("table {} deleted", 1),
    3: ("chain {} made or changed", 3),
    5: ("chain {} deleted", 3),
    6: ("rule added to chain {}", 2),
    8: ("rule deleted from chain {}", 2),
    9: ("set {} made", 2),
    11: ("set {} deleted", 2),
    12: ("element added to set {}", 2),
    14: ("element deleted from set {}", 2),
    18: ("object {} made or changed", 2),
    20: ("object {} deleted", 2),
    22: ("flowtable {} made or changed", 2),
    24: ("flowtable {} deleted", 2),
}
# NFT_MSG_DESTROYTABLE and so on, which delete what may be missing, say the same as NFT_MSG_DELTABLE and so on.
_MESSAGES |= {26 + i: _MESSAGES[deletion] for i, deletion in enumerate((2, 5, 8, 11, 14, 20, 24))}
_OF_ELEMENTS = (12, 14, 30)
_DELETIONS_OF_TABLES = (2, 26)

_NLMSGHDR = struct.Struct("=IHHII")
_NLATTR = struct.Struct("=HH")
_NFGENMSG_BYTES = 4
_FILTER = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction of somebody else that touched our table.

    words: what was done, each thing once, with "(3 times)" where it was done more often; frame: whether more than
    elements were touched, so that table, chains, sets and rules have to be looked at too; pid, program: who did it
    (the number is that of the machine's first PID namespace), 0 and "" where that is not known; elements: the set and
    the key of each element that was added or deleted, None where there were many or that is not known.
    """

    words: tuple[str, ...]
    frame: bool
    pid: int = 0
    program: str = ""
    elements: tuple[tuple[str, bytes], ...] | None = None


LOST = Change(("more happened than the kernel could tell",), frame=True)
UNREADABLE = Change(("the kernel told something that cannot be read",), frame=True)


class Notifications:
    """Puts the messages of a transaction together; no I/O."""

    def __init__(self, table: str) -> None:
        self._table = table.encode("ascii")
        self._done: Counter[str] = Counter()
        self._frame = False
        self._elements: list[tuple[str, bytes]] | None = []

    def take(self, datagram: bytes, own_port: int) -> list[Change]:
        """The changes that this datagram completes; own_port: the netlink port whose transactions are ours."""
        changes = []
        try:
            for kind, port, payload in _messages(datagram):
                if port == own_port:
                    continue
                if kind == NFT_MSG_NEWGEN:
                    if self._done:
                        changes.append(self._completed(payload))
                elif kind in _MESSAGES:
                    self._note(kind, payload)
        except BadMessageError:
            self.forget()
            changes.append(UNREADABLE)
        return changes

    def forget(self) -> None:
        """Of the transaction under way the rest got lost."""
        self._done.clear()
        self._frame = False
        self._elements = []

    def _note(self, kind: int, payload: bytes) -> None:
        words, place = _MESSAGES[kind]
        name = None
        for number, value in _attributes(payload):
            if number == 1 and (payload[0] != NFPROTO_INET or value.rstrip(b"\0") != self._table):
                return
            if number == place:
                name = value
                break
        if name is None:
            raise BadMessageError(f"message {kind} names nothing")
        said = words.format(_text(name))
        if kind in _DELETIONS_OF_TABLES:
            # What was done to it before, first of all the deletion of all it held, is void.
            self._done.clear()
        self._done[said if said in self._done or len(self._done) < NAMED else MORE] += 1
        self._frame |= kind not in _OF_ELEMENTS
        if self._elements is not None and not self._frame:
            self._elements += ((_text(name), key) for key in _keys(payload))
            if len(self._elements) > ELEMENTS:
                self._elements = None

    def _completed(self, payload: bytes) -> Change:
        said = dict(_attributes(payload))
        words = tuple(said if n == 1 else f"{said} ({n:,} times)" for said, n in self._done.items())
        pid = int.from_bytes(said.get(NFTA_GEN_PROC_PID, b""), "big")
        elements = None if self._frame or self._elements is None else tuple(self._elements)
        change = Change(words, self._frame, pid, _text(said.get(NFTA_GEN_PROC_NAME, b"")), elements)
        self.forget()
        return change


class Monitor:
    """The listening socket; a context manager.

    own_port: gives the netlink port of the socket that our own changes go through, which may change when that socket
    is opened anew.  Raises KernelError where the kernel has no such group.
    """

    def __init__(self, table: str, own_port: Callable[[], int]) -> None:
        self._notifications = Notifications(table)
        self._own_port = own_port
        self._dropped_port: int | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
            )
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            except PermissionError:
                # In a user namespace of our own: what net.core.rmem_max allows.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            self._socket.bind((0, 0))
            self._drop_own()
            self._join()
        except OSError as e:
            raise kernel_error(e.errno or errno.EIO, "listening to changes of the ruleset") from e

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> list[Change]:
        """What has been told since the last call, oldest first; where there is very much, the beginning of it."""
        changes: list[Change] = []
        own_port = self._own_port()
        if own_port != self._dropped_port:
            self._drop_own()
        for _ in range(DATAGRAMS):
            try:
                datagram, sender = self._socket.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise kernel_error(e.errno or errno.EIO, "listening to changes of the ruleset") from e
                self._notifications.forget()
                changes.append(LOST)
                continue
            if sender[0] == 0:
                changes += self._notifications.take(datagram, own_port)
        return changes

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Hears nothing meanwhile, so that many changes of ours cost the kernel no messages.

        Whoever uses it has to look himself afterwards: what others did in that time is not told.
        """
        self._socket.setsockopt(SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, NFNLGRP_NFTABLES)
        try:
            yield
        finally:
            self._join()

    def _join(self) -> None:
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)

    def _drop_own(self) -> None:
        """Lets the kernel keep back what begins with a message of our own port: a transaction has one sender.

        A classic BPF program (linux/filter.h): load nlmsg_pid, which stands at byte 12; take nothing if it is ours,
        else everything.  BPF loads in network order, the port is in the machine's.
        """
        self._dropped_port = self._own_port()
        port = int.from_bytes(struct.pack("=I", self._dropped_port), "big")
        code = b"".join(
            _FILTER.pack(*instruction)
            for instruction in ((0x20, 0, 0, 12), (0x15, 0, 1, port), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
        )
        program = ctypes.create_string_buffer(code, len(code))
        self._socket.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, _PROGRAM.pack(len(code) // _FILTER.size, ctypes.addressof(program))
        )


def _messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """nf_tables message type, sender's port and payload (from struct nfgenmsg on) of each message."""
    offset = 0
    while offset < len(datagram):
        if len(datagram) - offset < _NLMSGHDR.size:
            raise BadMessageError(f"{len(datagram) - offset} bytes are too few for a netlink header")
        length, kind, _, _, port = _NLMSGHDR.unpack_from(datagram, offset)
        if not _NLMSGHDR.size <= length <= len(datagram) - offset:
            raise BadMessageError(f"a netlink message of {length} bytes where {len(datagram) - offset} are left")
        if kind >> 8 == NFNL_SUBSYS_NFTABLES:
            payload = datagram[offset + _NLMSGHDR.size : offset + length]
            if len(payload) < _NFGENMSG_BYTES:
                raise BadMessageError(f"a message of {len(payload)} bytes")
            yield kind & 0xFF, port, payload
        offset += length + -length % 4


def _attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of one attribute after the other, read no further than they are asked for."""
    offset = _NFGENMSG_BYTES
    while offset < len(payload):
        if len(payload) - offset < _NLATTR.size:
            raise BadMessageError(f"{len(payload) - offset} bytes are too few for an attribute")
        length, kind = _NLATTR.unpack_from(payload, offset)
        if not _NLATTR.size <= length <= len(payload) - offset:
            raise BadMessageError(f"an attribute of {length} bytes where {len(payload) - offset} are left")
        yield kind & 0x3FFF, payload[offset + _NLATTR.size : offset + length]
        offset += length + -length % 4


def _keys(payload: bytes) -> Iterator[bytes]:
    """The keys in a message about elements; an interval's end is one of its own."""
    for kind, listed in _attributes(payload):
        if kind == NFTA_SET_ELEM_LIST_ELEMENTS:
            for _, element in attributes(listed):
                for key in (value for number, value in attributes(element) if number == NFTA_SET_ELEM_KEY):
                    yield from (value for number, value in attributes(key) if number == NFTA_DATA_VALUE)


def _text(name: bytes) -> str:
    """A name that somebody else chose, printable."""
    text = name.rstrip(b"\0").decode("ascii", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
