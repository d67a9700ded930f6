"""Two machines on one cable: a `server` and a `client`, each a set of kernel namespaces.

Takes a folder for the server's private files; gives `Namespaces`, whose two `Namespace`s have networks, mounts, host
names and process numbers of their own, joined by a veth pair.  The server is 192.0.2.1 and 2001:db8::1; the client may
speak from any address of CLIENT_PREFIXES, none of which has to be configured one by one.
The server's /etc is a copy, its /run, /dev and /var/log are fresh, so that users, resolv.conf and /dev/log may be
changed freely.

Guarantees: nothing is left on the machine.  Each namespace is held by an init that ends when its standard input
closes, thus also when this process is killed, and the kernel then kills every process in the PID namespace
(pid_namespaces(7)), takes down the mounts and removes the veth pair.
Does not: isolate the file system otherwise; a process in a namespace sees the machine's other files.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

SERVER4, SERVER6 = "192.0.2.1", "2001:db8::1"
GATEWAY4, GATEWAY6 = "192.0.2.2", "2001:db8::2"
SERVER_MAC, GATEWAY_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
CLIENT_PREFIXES = ("203.0.113.0/24", "198.51.100.0/24", "2001:db8:1::/48")

CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000

# As PID 1 it must reap orphans: a zombie still answers kill -0, and `postfix stop` would wait for it.
_INIT = """
import os, signal, socket, sys
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
socket.sethostname(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int, kind: int) -> None:
    # os.setns exists from Python 3.12 on.
    if _libc.setns(fd, kind) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


class Namespace:
    """One machine of the lab.  `hostname` is what its programs write into their logs."""

    def __init__(self, hostname: str) -> None:
        self.hostname = hostname
        self._init = subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *(sys.executable, "-I", "-S", "-c", _INIT, hostname),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._init.stdout is not None
        if self._init.stdout.readline() != b"ready\n":
            self.close()
            raise RuntimeError("no namespaces: this needs root and a kernel that allows unshare(2)")
        proc = f"/proc/{self._init.pid}/ns"
        self.net_path = f"{proc}/net"
        self._spaces = (f"--net={proc}/net", f"--uts={proc}/uts", f"--mount={proc}/mnt")
        self._net = os.open(f"{proc}/net", os.O_RDONLY)
        self._pid = os.open(f"{proc}/pid_for_children", os.O_RDONLY)

    @contextlib.contextmanager
    def _thread_in(self, fd: int, kind: int, own: str) -> Iterator[None]:
        back = os.open(f"/proc/thread-self/ns/{own}", os.O_RDONLY)
        try:
            _setns(fd, kind)
            try:
                yield
            finally:
                _setns(back, kind)
        finally:
            os.close(back)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """The calling thread is in this network meanwhile; sockets made there stay in it for good."""
        return self._thread_in(self._net, CLONE_NEWNET, "net")

    def socket(self, family: int, kind: int) -> socket.socket:
        """A socket of this network, usable from any thread."""
        with self.entered():
            return socket.socket(family, kind)

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in this network; threads that it starts are in it too."""
        with self.entered():
            return function()

    def popen(self, argv: Sequence[str | Path], *, cwd: Path | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a program in all namespaces of this machine; signals and the exit status are the program's own.

        Text mode; the other options are subprocess.Popen's.
        """
        folder = ["env", f"--chdir={cwd}"] if cwd else []
        # The forking thread chooses the PID namespace of its children; nsenter then becomes the program in the others.
        with self._thread_in(self._pid, CLONE_NEWPID, "pid_for_children"):
            return subprocess.Popen(
                ["nsenter", *self._spaces, "--", *folder, *map(str, argv)],
                text=True,
                errors="backslashreplace",
                **{"stdin": subprocess.DEVNULL, **options},
            )

    def daemon(self, argv: Sequence[str | Path], output: Path) -> subprocess.Popen[str]:
        """Start a program whose standard output and error go into a file."""
        with output.open("w") as file:
            return self.popen(argv, stdout=file, stderr=subprocess.STDOUT)

    def run(
        self, argv: Sequence[str | Path], *, timeout: float = 30, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; output is captured.  Raises RuntimeError with its output when it fails."""
        given = options.pop("input", None)
        pipe = subprocess.PIPE
        process = self.popen(
            argv, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL if given is None else pipe, **options
        )
        try:
            out, err = process.communicate(given, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        if check and process.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, argv))} ended with {process.returncode}:\n{out}{err}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def with_private_files(self, folder: Path) -> None:
        """Give this machine an /etc that is a copy, and a fresh /run, /dev and /var/log; `folder` backs /etc."""
        etc = folder / "etc"
        self.run(["cp", "-a", "/etc", etc])
        resolv = etc / "resolv.conf"
        resolv.unlink(missing_ok=True)  # often a symbolic link into /run
        resolv.write_text("nameserver 127.0.0.1\n")
        (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        dev = folder / "dev"
        dev.mkdir()
        self.run(["mount", "-t", "tmpfs", "-o", "mode=755", "lab-dev", dev])
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            self.run(["touch", dev / name])
            self.run(["mount", "--bind", f"/dev/{name}", dev / name])
        for name in ("pts", "shm"):
            if Path("/dev", name).is_dir():
                self.run(["mkdir", dev / name])
                self.run(["mount", "--rbind", f"/dev/{name}", dev / name])
        for target, name in (("/proc/self/fd", "fd"), ("pts/ptmx", "ptmx"), (folder / "devlog", "log")):
            self.run(["ln", "-s", target, dev / name])
        self.run(["mount", "--rbind", dev, "/dev"])
        self.run(["mount", "--bind", etc, "/etc"])
        self.run(["mount", "-t", "tmpfs", "-o", "mode=755", "lab-run", "/run"])
        self.run(["mount", "-t", "tmpfs", "-o", "mode=755", "lab-log", "/var/log"])  # sshd writes btmp and wtmp there
        self.run(["mkdir", "-m", "755", "/run/sshd"])

    def close(self) -> None:
        """Kill every process of this machine and let its namespaces go."""
        for name in ("_net", "_pid"):
            if (fd := self.__dict__.pop(name, None)) is not None:
                os.close(fd)
        assert self._init.stdin is not None and self._init.stdout is not None
        self._init.stdin.close()
        try:
            self._init.wait(10)
        except subprocess.TimeoutExpired:
            self._init.kill()  # --kill-child takes the init with it
            self._init.wait()
        self._init.stdout.close()


class Namespaces:
    """The server, the client and the cable between them; a context manager.

    folder: an existing folder that other users may enter (mode 755); it backs the server's private files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.ExitStack() as stack:
            self.server = Namespace("mail")
            stack.callback(self.server.close)
            self.client = Namespace("client")
            stack.callback(self.client.close)
            self.server.with_private_files(folder)
            self._connect()
            self._stack = stack.pop_all()

    def _connect(self) -> None:
        server, client = self.server, self.client
        with server.entered():
            # The path to the peer's namespace is one of this machine's /proc: only the network is entered here.
            subprocess.run(
                [
                    *("ip", "link", "add", "eth0", "address", SERVER_MAC, "type", "veth"),
                    *("peer", "name", "eth0", "address", GATEWAY_MAC, "netns", client.net_path),
                ],
                check=True,
            )
        _configure(server, (SERVER4, SERVER6), (GATEWAY4, GATEWAY6), GATEWAY_MAC)
        _configure(client, (GATEWAY4, GATEWAY6), (SERVER4, SERVER6), SERVER_MAC)
        for prefix in CLIENT_PREFIXES:
            client.run(["ip", "-6" if ":" in prefix else "-4", "route", "add", "local", prefix, "dev", "lo"])
        client.run(["tee", "/proc/sys/net/ipv6/ip_nonlocal_bind"], input="1")  # the route alone is enough for IPv4

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _configure(here: Namespace, own: tuple[str, str], other: tuple[str, str], other_mac: str) -> None:
    # No duplicate address detection and a known neighbour: the first IPv6 packet arrives at once, not after a second.
    here.run(["tee", "/proc/sys/net/ipv6/conf/eth0/accept_dad"], input="0")
    commands = ["link set lo up", "link set eth0 up"]
    for mine, its, length in zip(own, other, (24, 64), strict=True):
        commands += [
            f"address add {mine}/{length} dev eth0",
            f"neighbour add {its} lladdr {other_mac} dev eth0 nud permanent",
            f"route add default via {its}",
        ]
    here.run(["ip", "-batch", "-"], input="\n".join(commands) + "\n")
