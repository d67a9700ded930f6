"""Is anybody from a prefix connected to one of these ports at this moment?

Takes a prefix and local TCP ports; asks the kernel's table of sockets, filtered there, in one look for both families:
a fifth of a millisecond where /proc/net/tcp takes two or more, because nothing is printed that nobody reads.
Guarantees: a client that is connected when it is asked is seen, also an IPv4 client of an IPv6 socket; OSError where
the kernel does not answer.  Needs no privilege.  Sees the network namespace of the thread that makes the object.
Does not: know who is logged in (host.py does), serve several threads.
Source: sock_diag(7); linux/inet_diag.h: TCPDIAG_GETSOCK is the one request that covers both families.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection

from nftban.prefixes import Prefix

NETLINK_SOCK_DIAG = 4
TCPDIAG_GETSOCK = 18
INET_DIAG_REQ_BYTECODE = 1
INET_DIAG_BC_D_COND = 8
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST_DUMP = 0x301
TCP_ESTABLISHED = 1
TIMEOUT = 1

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=4x48xII")  # struct inet_diag_req: no family, no socket, states, no dump yet
_ATTRIBUTE = struct.Struct("=HH")
_OPERATION = struct.Struct("=BBH")  # struct inet_diag_bc_op: code, where to go on if true, if false
_CONDITION = struct.Struct("=BBxxi")  # struct inet_diag_hostcond: family, prefix length, port (-1: any)
_LOCAL_PORT = struct.Struct("!4xH")  # of struct inet_diag_msg: four bytes, then struct inet_diag_sockid
_TIMEVAL = struct.Struct("@ll")


class Connections:
    """The kernel's established TCP connections."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(TIMEOUT, 0))
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def reach(self, prefix: Prefix, ports: Collection[int]) -> bool:
        """Is a client inside the prefix connected to one of these local ports?"""
        self._sequence = (self._sequence + 1) % (1 << 32)
        self._socket.send(_request(prefix, self._sequence))
        reached = False
        while True:
            datagram, sender = self._socket.recvfrom(1 << 16)
            offset = 0
            while sender[0] == 0 and offset + _HEADER.size <= len(datagram):
                size, kind, _, sequence, _ = _HEADER.unpack_from(datagram, offset)
                start, offset = offset + _HEADER.size, offset + max(size + 3 & ~3, _HEADER.size)
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return reached
                if kind == NLMSG_ERROR:
                    code = -int.from_bytes(datagram[start : start + 4], sys.byteorder, signed=True)
                    raise OSError(code or errno.EIO, os.strerror(code or errno.EIO))
                reached |= _LOCAL_PORT.unpack_from(datagram, start)[0] in ports


def _request(prefix: Prefix, sequence: int) -> bytes:
    family = socket.AF_INET if prefix.family == 4 else socket.AF_INET6
    condition = _CONDITION.pack(family, prefix.length, -1) + prefix.packed
    size = _OPERATION.size + len(condition)
    # Behind the end is "no", the end itself is "yes".
    operation = _OPERATION.pack(INET_DIAG_BC_D_COND, size, size + _OPERATION.size) + condition
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + size, INET_DIAG_REQ_BYTECODE) + operation
    body = _REQUEST.pack(1 << TCP_ESTABLISHED, 0) + attribute
    return _HEADER.pack(_HEADER.size + len(body), TCPDIAG_GETSOCK, NLM_F_REQUEST_DUMP, sequence, 0) + body
