"""A disk that can be full: a small tmpfs over a folder, in a mount namespace of one thread (unshare(2))."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
SIZE = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Disk:
    """A small disk at a folder."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Takes what room there is, to the last byte."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError as e:
                    assert e.errno == errno.ENOSPC

    def make_room(self) -> None:
        self._filler.unlink()


def on_small_disk(folder: Path, test: Callable[[Disk], None]) -> None:
    """Runs the test with an empty disk of SIZE bytes at the folder, which only it and threads of its own see."""

    def run() -> None:
        # A thread that has unshared its mounts cannot come back where others share them: it ends with the test.
        if _libc.unshare(CLONE_NEWNS) != 0:
            pytest.skip("a mount namespace needs CAP_SYS_ADMIN")
        _checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        _checked(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={SIZE}".encode()))
        test(Disk(folder))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()
