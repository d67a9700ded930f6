"""A real systemd-journald, without systemd: its journal, its sockets, rotation and vacuum.

Takes a folder with a short path (socket addresses are limited to 107 bytes); gives a journald in mount and network
namespaces of its own whose /run is `folder`/run, so that its sockets can be written to and its journal be read from
outside.  With a `Namespace` it runs in that machine instead, behind its /dev/log, and `auth` is what it has as text.
Guarantees: when the constructor returns, what is sent reaches the journal; the daemon ends with this process.
Does not: know systemd's units: entries have no _SYSTEMD_UNIT.
Source: systemd-journald.service(8), https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from lab.logfile import LogFile
from lab.namespaces import Namespace
from lab.nftban import eventually

JOURNALD = Path("/usr/lib/systemd/systemd-journald")
REMOTE = Path("/usr/lib/systemd/systemd-journal-remote")

_CONF = """[Journal]
Storage=volatile
Audit=no
ReadKMsg=no
RateLimitIntervalSec=0
ForwardToSyslog=no
ForwardToKMsg=no
ForwardToConsole=no
ForwardToWall=no
"""

_START = """set -e
mount --bind "$1/run" /run
mount -t tmpfs lab-conf /etc/systemd
cp "$1/journald.conf" /etc/systemd/journald.conf
exec "$2"
"""


def missing() -> str:
    """Why there can be none here; empty where there can."""
    there = JOURNALD.exists() and REMOTE.exists() and shutil.which("journalctl")
    return "" if there else "needs systemd-journald, journalctl and systemd-journal-remote"


def earlier_boot(file: Path, *messages: str) -> None:
    """A journal file with entries of sshd's, two minutes old, of a boot that is over."""
    began = int(time.time() * 1_000_000) - 120_000_000
    entries = "".join(
        f"__REALTIME_TIMESTAMP={began + n}\n__MONOTONIC_TIMESTAMP={n + 1}\n_BOOT_ID={'a' * 32}\n"
        f"SYSLOG_IDENTIFIER=sshd\n_COMM=sshd\n_HOSTNAME=mail\nMESSAGE={message}\n\n"
        for n, message in enumerate(messages)
    )
    subprocess.run([REMOTE, f"--output={file}", "-"], input=entries, text=True, check=True, capture_output=True)


class Journald:
    """A running journald; a context manager."""

    def __init__(self, folder: Path, namespace: Namespace | None = None) -> None:
        self.folder = folder
        if namespace is None:
            (folder / "run" / "systemd" / "journal").mkdir(parents=True)
            (folder / "journald.conf").write_text(_CONF)
            start = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "sh", "-c", _START, "sh"]
            with (folder / "journald.out").open("w") as output:
                self._process: subprocess.Popen[str] = subprocess.Popen(
                    [*start, str(folder), str(JOURNALD)], stdout=output, stderr=output, text=True
                )
            try:
                eventually(self._listens, "journald listens")
                eventually(lambda: list(folder.glob("run/log/journal/*/system.journal")), "journald has a file")
            except BaseException:
                self.close()
                raise
        else:
            namespace.run(["mkdir", "-p", "/run/systemd/journal"])
            namespace.run(["tee", "/etc/systemd/journald.conf"], input=_CONF)
            namespace.run(["ln", "-s", "/run/systemd/journal/dev-log", folder.parent / "devlog"])
            folder.mkdir(exist_ok=True)
            self._process = namespace.daemon([JOURNALD], folder / "journald.out")
            eventually(lambda: namespace.run(["journalctl", "--sync"], check=False).returncode == 0, "journald runs")
            self._following = namespace.daemon(["journalctl", "--follow", "--lines=100"], folder / "auth.log")
            self.auth = LogFile(folder / "auth.log")
            self.auth.wait_for("Journal started")

    @property
    def directory(self) -> Path:
        """Where the journal's files lie."""
        return next((self.folder / "run" / "log" / "journal").iterdir())

    def send(self, message: bytes | str, identifier: str = "sshd", **fields: str) -> None:
        """One entry by the native protocol; the message may be any bytes."""
        data = message.encode() if isinstance(message, str) else message
        given = "".join(f"{name}={value}\n" for name, value in {"SYSLOG_IDENTIFIER": identifier, **fields}.items())
        self.send_raw(given.encode() + b"MESSAGE\n" + len(data).to_bytes(8, "little") + data + b"\n")

    def send_raw(self, datagram: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.connect(str(self.folder / "run" / "systemd" / "journal" / "socket"))
            s.sendall(datagram)

    def sync(self) -> None:
        """Returns when all that was sent is in the journal (varlink, as `journalctl --sync` asks for it)."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(10)
            s.connect(str(self.folder / "run" / "systemd" / "journal" / "io.systemd.journal"))
            s.sendall(b'{"method":"io.systemd.Journal.Synchronize"}\0')
            answer = s.recv(4096)
        assert answer.startswith(b'{"parameters":{}'), answer

    def _listens(self) -> bool:
        try:
            self.sync()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def rotate(self) -> None:
        """Begins a new file; the old one is an archive then."""
        self.sync()
        before = len(self._archives())
        self._process.send_signal(signal.SIGUSR2)
        waited = LogFile(self.directory / "system.journal")._wait_until(lambda: len(self._archives()) > before, 10)
        assert waited, "journald does not rotate"

    def vacuum(self) -> None:
        """Deletes all archives."""
        done = subprocess.run(
            ["journalctl", f"--directory={self.directory}", "--vacuum-files=1"], capture_output=True, text=True
        )
        assert done.returncode == 0 and not self._archives(), done.stderr

    def _archives(self) -> list[Path]:
        return list(self.directory.glob("system@*.journal"))

    def close(self) -> None:
        for process in (self._process, getattr(self, "_following", None)):
            if process is not None:
                process.terminate()
                process.wait(10)

    def __enter__(self) -> Journald:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
