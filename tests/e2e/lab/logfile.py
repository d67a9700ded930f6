"""Waiting for a line to be written, by inotify(7).

Takes the path of a log that may not exist yet; gives `LogFile`, which returns the lines that match.
Guarantees: a line that was written before the call counts; no polling, the wait ends with the write that brings it.
Does not: follow a rotated file; tests of rotation read the files themselves.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import time
from collections.abc import Callable
from pathlib import Path

IN_MODIFY, IN_CREATE, IN_MOVED_TO = 0x2, 0x100, 0x80

_libc = ctypes.CDLL(None, use_errno=True)


class LogFile:
    """A log as its server writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[str]:
        """All complete lines written so far, undecodable bytes as \\xNN."""
        try:
            text = self.path.read_bytes().decode(errors="backslashreplace")
        except FileNotFoundError:
            return []
        return text.split("\n")[:-1]

    def matching(self, pattern: str) -> list[str]:
        """The lines so far in which the regular expression is found."""
        return [line for line in self.lines if re.search(pattern, line)]

    def wait_for(self, pattern: str, *, count: int = 1, timeout: float = 10) -> list[str]:
        """The lines that match, as soon as there are `count`; raises TimeoutError that quotes the log's end."""
        found: list[str] = []

        def enough() -> bool:
            found[:] = self.matching(pattern)
            return len(found) >= count

        if not self._wait_until(enough, timeout):
            end = "\n".join(self.lines[-15:])
            raise TimeoutError(f"{self.path}: {len(found)} of {count} lines match {pattern!r}; it ends:\n{end}")
        return found

    def wait_for_file(self, timeout: float = 10) -> None:
        """Return when the path exists (it may be a socket); raises TimeoutError."""
        if not self._wait_until(self.path.exists, timeout):
            raise TimeoutError(f"{self.path} did not appear")

    def _wait_until(self, holds: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        watch = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        try:
            folder = os.fsencode(self.path.parent)
            if _libc.inotify_add_watch(watch, folder, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0:
                raise OSError(ctypes.get_errno(), f"inotify_add_watch {self.path.parent}")
            while not holds():
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([watch], [], [], left)[0]:
                    return False
                os.read(watch, 65536)
            return True
        finally:
            os.close(watch)
