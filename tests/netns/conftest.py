"""Network namespaces for tests, held open by file descriptors: no name, nothing left behind.

`netns` moves the test into a fresh one; `netns.another()` makes further ones, to be entered with `with`.  Both move
the calling thread only (unshare(2), setns(2)) and its children, and put it back afterwards.  `client` is a second one
on a wire to the first: device "server" there (192.0.2.1, 2001:db8::1), "client" here (.7 and .8, ::7 and ::8).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from types import TracebackType

import pytest

CLONE_NEWNET = 0x40000000
OURS = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class NetworkNamespace:
    """A fresh network namespace with its loopback up; `path` names it for ip(8) while it is open."""

    def __init__(self) -> None:
        outside = os.open(OURS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.unshare(CLONE_NEWNET))
            try:
                self._fd = os.open(OURS, os.O_RDONLY | os.O_CLOEXEC)
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            finally:
                _checked(_libc.setns(outside, CLONE_NEWNET))
        finally:
            os.close(outside)
        self._outside: list[int] = []

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def __enter__(self) -> NetworkNamespace:
        self._outside.append(os.open(OURS, os.O_RDONLY | os.O_CLOEXEC))
        _checked(_libc.setns(self._fd, CLONE_NEWNET))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        outside = self._outside.pop()
        _checked(_libc.setns(outside, CLONE_NEWNET))
        os.close(outside)

    @staticmethod
    def another() -> NetworkNamespace:
        """A second one, for a test that has this one from the fixture."""
        return NetworkNamespace()

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def netns() -> Iterator[NetworkNamespace]:
    """The test runs in a fresh network namespace."""
    try:
        made = NetworkNamespace()
    except PermissionError:
        pytest.skip("a network namespace needs CAP_SYS_ADMIN")
    with made:
        yield made
    made.close()


@pytest.fixture
def client(netns: NetworkNamespace) -> Iterator[NetworkNamespace]:
    """A namespace on a wire to the one in which the test runs."""
    made = netns.another()
    for words in (
        f"link add server type veth peer name client netns {made.path}",
        "addr add 192.0.2.1/24 dev server",
        "addr add 2001:db8::1/64 dev server nodad",
        "link set server up",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    with made:
        for host in (7, 8):
            subprocess.run(f"ip addr add 192.0.2.{host}/24 dev client".split(), check=True)
            subprocess.run(f"ip addr add 2001:db8::{host}/64 dev client nodad".split(), check=True)
        subprocess.run(["ip", "link", "set", "client", "up"], check=True)
    yield made
    made.close()
