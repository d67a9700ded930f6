"""A netlink socket to nf_tables: transactions, look-ups, dumps.

Takes codec.Request records, numbers and sends them; gives the faults of a transaction or the payloads of a listing.
Guarantees: no call waits longer than TIMEOUT for the kernel's next word; what is not the kernel's, or belongs to an
earlier conversation, is not heard; replies that got lost (ENOBUFS) and listings that a change interrupted
(NLM_F_DUMP_INTR) are asked for again, ATTEMPTS times.
Does not: know what the messages mean; serve several threads.
Source: netlink(7), linux/netlink.h; nfnetlink handles a whole transaction, or look-up, before sendto() returns, so
that every reply to it is in the queue by then.  Only a dump is continued as it is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from nftban.errors import KernelError, PermissionNeededError
from nftban.kernel import codec
from nftban.kernel.codec import Ack, BadMessageError, Message, OneElement, Request

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
BUFFER_BYTES = 16 << 20
# The kernel doubles what it is given and has an int for it.
LARGEST_BUFFER = (1 << 30) - 1
# More than a message about one element can have: its comment may take 256 bytes.
ELEMENT_BYTES = 4096
DATAGRAM_BYTES = 1 << 16
TIMEOUT = 5
ATTEMPTS = 5
# What the kernel says where a reply does not fit into our receive buffer.
FULL = (errno.EAGAIN, errno.ENOBUFS)

_TIMEVAL = struct.Struct("@ll")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request of a transaction that the kernel refused; index: its place among them, from 0."""

    index: int
    errno: int
    words: str


def kernel_error(code: int, words: str = "") -> KernelError | PermissionNeededError:
    """The exception for an errno of the kernel's."""
    if code in (errno.EPERM, errno.EACCES):
        return PermissionNeededError(
            "the kernel does not let us use nf_tables",
            "run as root or with CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)",
        )
    advice = {
        errno.ENOENT: "the table or a set is missing; the daemon makes it, or: nftban ruleset --install",
        errno.EEXIST: "something of that name but another shape is there; "
        "delete the table (nft delete table inet ...) and start the daemon, which puts every ban back",
        errno.EBUSY: "a rule still uses it, or another program changes the ruleset at this moment; try again",
        errno.EPROTONOSUPPORT: "this kernel has no nf_tables (CONFIG_NF_TABLES)",
        errno.EOPNOTSUPP: "this kernel lacks a part of nf_tables (CONFIG_NF_TABLES_INET)",
    }.get(code, "try again; if it stays, look at the kernel's log")
    said = f" ({words})" if words else ""
    return KernelError(code, f"nf_tables refused: {os.strerror(code)}{said}", advice)


class NetfilterSocket:
    """The socket; opened in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        self._sequence = 0
        self._answer = memoryview(bytearray(ELEMENT_BYTES))
        self._socket = self._opened()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> NetfilterSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The netlink port that our messages come from (nlmsg_pid)."""
        return int(self._socket.getsockname()[0])

    def room(self, size: int) -> int:
        """The most bytes that one transaction may have: `size` where the kernel lets us, but never less than now."""
        limit = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        if size <= limit:
            return limit
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, min(size, LARGEST_BUFFER))
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2

    @staticmethod
    def _opened() -> socket.socket:
        try:
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        except OSError as e:
            raise kernel_error(e.errno or errno.EPROTONOSUPPORT) from e
        made.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        made.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        for force, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                made.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
            except PermissionError:
                # In a user namespace of our own: what net.core.wmem_max and rmem_max allow.
                made.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
        # Not settimeout(): Python would then wait in spite of MSG_DONTWAIT.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(TIMEOUT, 0))
        made.bind((0, 0))
        return made

    def transact(self, requests: Sequence[Request]) -> list[Refusal]:
        """Sends the requests as one transaction.

        Empty: it is in effect, all of it.  Otherwise nothing is, and these requests were refused (not necessarily
        all that would be).  Raises KernelError or PermissionNeededError where the transaction as such was refused.
        """
        for _ in range(ATTEMPTS):
            begin = self._numbers(len(requests) + 2)
            self._send(codec.batch(requests, begin))
            refusals, acknowledged = [], False
            for ack, number in self._acks(begin, begin + len(requests)):
                if ack.errno == 0:
                    acknowledged = True
                elif number == begin or ack.errno in (errno.EPERM, errno.EACCES):
                    raise kernel_error(ack.errno, ack.words)
                else:
                    refusals.append(Refusal(number - begin - 1, ack.errno, ack.words))
            if refusals or acknowledged:
                return refusals
        raise kernel_error(errno.ENOBUFS, "no reply to a transaction")

    def transact_one(self, made: OneElement, key: int, timeout_ms: int | None) -> bool:
        """Sends a transaction on one element; False unless the kernel plainly said that it is in effect.

        False also where that answer got lost: send it again with transact().
        """
        number = self._numbers(3)
        self._send(made.datagram(number, key, timeout_ms))
        try:
            size, sender = self._socket.recvfrom_into(self._answer, 0, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return sender[0] == 0 and codec.is_success(self._answer[:size], number + 1)

    def element_answers(self, request: Request, most: int) -> tuple[list[bytes], int]:
        """Asks for up to `most` elements of a set: the kernel's answers, a message for each element in the order asked
        for, and the errno at which it stopped; 0 where it gave all of them or our receive buffer was full.
        """
        number = self._numbers(1)
        self._send(codec.message(request, number))
        ours = number.to_bytes(4, sys.byteorder)
        answers: list[bytes] = []
        receive = self._socket.recvfrom
        while len(answers) < most:
            try:
                datagram, sender = receive(ELEMENT_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    continue
                raise kernel_error(e.errno or errno.EIO) from e
            # The number stands at byte 8 of the netlink header.
            if sender[0] == 0 and datagram[8:12] == ours:
                answers.append(datagram)
        # An error is the last that the kernel says.
        for reply in self._heard(answers[-1]) if answers else ():
            if reply.type == codec.NLMSG_ERROR:
                ack = codec.acknowledgement(reply)
                if ack.errno not in (errno.ENOENT, *FULL):
                    raise kernel_error(ack.errno, ack.words)
                return answers[:-1], ack.errno if ack.errno == errno.ENOENT else 0
        return answers, 0

    def look_up(self, requests: Sequence[Request]) -> list[list[bytes]]:
        """Sends look-ups; for each the payloads of the reply, none where the kernel says ENOENT.

        Those to which no reply came, because our receive buffer was full, are sent again.
        """
        found: list[list[bytes]] = [[] for _ in requests]
        pending = list(range(len(requests)))
        vain = 0
        while pending:
            first = self._numbers(len(pending))
            asked = [
                Request(requests[i].type, requests[i].flags | codec.NLM_F_ACK, requests[i].payload) for i in pending
            ]
            self._send(b"".join(codec.message(r, first + i) for i, r in enumerate(asked)))
            payloads: list[list[bytes]] = [[] for _ in pending]
            answered: set[int] = set()
            for reply in self._queued():
                place = reply.sequence - first
                if not 0 <= place < len(pending):
                    continue
                if reply.type != codec.NLMSG_ERROR:
                    payloads[place].append(reply.payload)
                    continue
                ack = codec.acknowledgement(reply)
                if ack.errno in (0, errno.ENOENT):
                    answered.add(place)
                elif ack.errno not in FULL:
                    raise kernel_error(ack.errno, ack.words)
            for place in answered:
                found[pending[place]] = payloads[place]
            vain = 0 if answered else vain + 1
            if vain == ATTEMPTS:
                raise kernel_error(errno.ENOBUFS, "no reply to a look-up")
            pending = [i for place, i in enumerate(pending) if place not in answered]
        return found

    def dump(self, request: Request) -> list[bytes]:
        """The payloads of a listing, none where the kernel says ENOENT."""
        for _ in range(ATTEMPTS):
            number = self._numbers(1)
            self._send(codec.message(request, number))
            payloads: list[bytes] = []
            interrupted = False
            for part in self._parts(number):
                interrupted |= bool(part.flags & codec.NLM_F_DUMP_INTR)
                if part.type in (codec.NLMSG_ERROR, codec.NLMSG_DONE):
                    ack = codec.acknowledgement(part)
                    if ack.errno == errno.ENOENT:
                        return []
                    if ack.errno not in (0, errno.EINTR):
                        raise kernel_error(ack.errno, ack.words)
                    interrupted |= ack.errno == errno.EINTR
                    break
                payloads.append(part.payload)
            else:
                interrupted = True
            if not interrupted:
                return payloads
        raise kernel_error(errno.EINTR, "the ruleset kept changing while it was listed")

    def _numbers(self, count: int) -> int:
        """The first of `count` fresh sequence numbers; they start again before they outgrow 32 bits."""
        if self._sequence + count >= 1 << 32:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.sendto(datagram, (0, 0))
        except OSError as e:
            raise kernel_error(e.errno or errno.EIO, f"sending {len(datagram)} bytes") from e

    def _acks(self, first: int, last: int) -> Iterator[tuple[Ack, int]]:
        for reply in self._queued():
            if reply.type == codec.NLMSG_ERROR and first <= reply.sequence <= last:
                yield codec.acknowledgement(reply), reply.sequence

    def _queued(self) -> Iterator[Message]:
        """What is in the queue now.  Where replies were lost the rest is still given; who misses one asks again."""
        while True:
            try:
                datagram, sender = self._socket.recvfrom(DATAGRAM_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno == errno.ENOBUFS:
                    continue
                raise kernel_error(e.errno or errno.EIO) from e
            if sender[0] == 0:
                yield from self._heard(datagram)

    def _parts(self, number: int) -> Iterator[Message]:
        """The messages of a dump as they come; ends early where some got lost."""
        while True:
            try:
                datagram, sender = self._socket.recvfrom(DATAGRAM_BYTES)
            except OSError as e:
                # The dump may still be running in the kernel: a new socket is free of it.
                self._reopen()
                if e.errno == errno.ENOBUFS:
                    return
                raise kernel_error(e.errno or errno.ETIMEDOUT, "while listing") from e
            if sender[0] == 0:
                yield from (m for m in self._heard(datagram) if m.sequence == number)

    def _heard(self, datagram: bytes) -> Iterator[Message]:
        try:
            yield from codec.messages(datagram)
        except BadMessageError as e:
            raise kernel_error(errno.EBADMSG, str(e)) from e

    def _reopen(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()
        self._socket = self._opened()
