"""A Debian machine in a container: systemd from boot to halt, with a network, mounts and processes of its own.

Takes a folder and a Debian suite; gives a booted `Machine` in which commands run as root.  Its files are a copy of what
debootstrap(8) made, which is kept below XDG_CACHE_HOME; its network is a loopback of its own.
Guarantees: nothing is left but that cache: systemd-nspawn(1) ends with its machine, and is killed where it does not.
Needs root, debootstrap, systemd-container, and for the first time Debian's mirror.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
# Of these the package needs python3, systemd and procps; the tests need the rest.
INCLUDED = (
    *("python3", "systemd", "procps"),
    *("bash-completion", "dbus", "iproute2", "libpam-systemd", "man-db", "nftables", "openssh-server", "systemd-sysv"),
)
PATIENCE = 60


def base(suite: str) -> Path:
    """The folder with a fresh Debian, made if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nftban-tests"
    there = cache / suite
    if not there.exists():
        making = cache / f"{suite}.{os.getpid()}"
        cache.mkdir(parents=True, exist_ok=True)
        try:
            command = [
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(INCLUDED)}",
                suite,
                str(making),
                MIRROR,
            ]
            subprocess.run(command, check=True, stdout=sys.stderr)
            making.rename(there)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return there


class Machine:
    """Its root is `root`; booted by `boot`, halted by `halt`; a context manager, which begins with a boot."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.root = folder / "root"
        self._notify = folder / "notify"
        subprocess.run(["cp", "-a", "--reflink=auto", base(suite), self.root], check=True)
        (self.root / "etc/machine-id").write_text("")
        (self.root / "etc/resolv.conf").unlink(missing_ok=True)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = ""

    def boot(self) -> None:
        """Returns when its systemd says that the boot is over."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(str(self._notify))
            heard.settimeout(PATIENCE)
            try:
                self._nspawn = subprocess.Popen(
                    [
                        *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"),
                        *("--notify-ready=yes", "--console=pipe", f"--directory={self.root}", "--boot"),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "NOTIFY_SOCKET": str(self._notify)},
                )
                words: list[str] = []
                while "READY=1" not in words:
                    words = heard.recv(4096).decode().splitlines()
                    for word in words:
                        if word.startswith("X_NSPAWN_LEADER_PID="):
                            self._leader = word.partition("=")[2]
            finally:
                self._notify.unlink()
        self.run("systemctl", "is-system-running", "--wait", check=False)

    def halt(self) -> None:
        """An orderly shutdown; what is still there then is killed."""
        if self._nspawn is None:
            return
        self.run("systemctl", "--no-block", "poweroff", check=False)
        try:
            self._nspawn.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None

    def popen(self, *words: str | Path) -> subprocess.Popen[str]:
        """A command as root, under way."""
        return subprocess.Popen(
            ["nsenter", f"--target={self._leader}", "--all", "--wdns=/", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LC_ALL": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )

    def run(self, *words: str | Path, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
        """A command as root; raises RuntimeError with what it said where it fails."""
        process = self.popen(*words)
        try:
            out, err = process.communicate(given, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        done = subprocess.CompletedProcess(words, process.returncode, out, err)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def says(self, *words: str | Path) -> str:
        return self.run(*words).stdout.strip()

    def files(self, but: Sequence[str]) -> set[str]:
        """Every file of its disk, without what lies below these folders."""
        found = self.says("find", "/", "-xdev", *(w for path in but for w in ("-path", path, "-prune", "-o")), "-print")
        return set(found.splitlines())

    def __enter__(self) -> Machine:
        self.boot()
        return self

    def __exit__(self, *exc: object) -> None:
        self.halt()
