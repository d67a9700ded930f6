"""The kernel's inotify, as thin as it is.

Gives one file descriptor that becomes readable when something watched changes, fit for asyncio's add_reader, and
the events read from it.  Non-blocking, closed on exec.
Guarantees: one kernel watch per directory or file; no threads; names come as bytes, as the kernel has them.
Does not: recurse, remember paths (a watch belongs to the inode it was set on), see changes made by another host on
a network file system.
Source: inotify(7), <linux/inotify.h>.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

MODIFY = 0x00000002
ATTRIB = 0x00000004
MOVED_FROM = 0x00000040
MOVED_TO = 0x00000080
CREATE = 0x00000100
DELETE = 0x00000200
DELETE_SELF = 0x00000400
MOVE_SELF = 0x00000800
UNMOUNT = 0x00002000
Q_OVERFLOW = 0x00004000
IGNORED = 0x00008000
ONLYDIR = 0x01000000

_HEADER = struct.Struct("iIII")  # struct inotify_event without its name: wd, mask, cookie, len
_BUFFER = 65536

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_init1.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)


class Event(NamedTuple):
    """watch: as `watch` returned it, -1 for Q_OVERFLOW; name: of the entry in a watched directory, or empty."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One inotify instance.  Raises OSError where the kernel has none to give (EMFILE: too many instances)."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def watch(self, path: Path, mask: int) -> int:
        """Watches the inode behind the path; the same inode gives the same number and takes the new mask.

        Raises OSError: ENOENT, EACCES, ENOSPC (fs.inotify.max_user_watches).
        """
        return _checked(_libc.inotify_add_watch(self.fd, os.fsencode(path), mask), str(path))

    def unwatch(self, watch: int) -> None:
        """Ends a watch; one that is gone already is no error."""
        _libc.inotify_rm_watch(self.fd, watch)

    def events(self) -> list[Event]:
        """What happened since the last call; empty where nothing did."""
        out: list[Event] = []
        while True:
            try:
                data = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                return out
            position = 0
            while position < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, position)
                position += _HEADER.size
                out.append(Event(watch, mask, data[position : position + length].rstrip(b"\0")))
                position += length

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Inotify:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result
