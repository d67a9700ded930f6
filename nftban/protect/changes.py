"""Hears from the kernel when this machine's addresses or routes change.

Gives a file descriptor to wait on and `heard`, which empties it.  Guarantees: a change after the object is made is
heard, also where there were too many to keep (ENOBUFS is such news too).  Sees the network namespace of the thread
that makes the object.  Does not: say what has changed; host.py looks.
Source: rtnetlink(7), linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import socket

RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x10, 0x40
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400
_GROUPS = RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
DATAGRAM_BYTES = 1 << 16


class AddressChanges:
    """The socket."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def heard(self) -> bool:
        """Has anything changed since the last call?"""
        changed = False
        while True:
            try:
                _, sender = self._socket.recvfrom(DATAGRAM_BYTES)
            except BlockingIOError:
                return changed
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                changed = True
            else:
                # Whoever may send to us is no kernel.
                changed |= sender[0] == 0
