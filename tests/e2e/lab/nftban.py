"""The daemon under test on the server, as systemd would start it, and the command line beside it.

Takes the server's namespace, a folder, the logs and settings; gives a running daemon (READY=1 has come over
sd_notify(3)) with the shipped settings but for what the test names.  `cli` runs real commands in the same namespace.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.logfile import LogFile
from lab.namespaces import Namespace

ROOT = Path(__file__).resolve().parents[3]


class Nftban:
    """A daemon; a context manager.  settings: text of conf.d/test.toml, read after the shipped nftban.toml."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        settings: str,
        *,
        files: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        """files: more files beside nftban.toml; under: a command that starts the daemon (setpriv)."""
        self.namespace, self.folder, self._under = namespace, folder, under
        folder.mkdir(mode=0o755, exist_ok=True)
        (folder / "conf.d").mkdir(exist_ok=True)
        (folder / "nftban.toml").write_text((ROOT / "rules" / "nftban.toml").read_text())
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        (folder / "conf.d" / "test.toml").write_text(
            f'[daemon]\nstate = "{folder}/state.db"\nsocket = "{folder}/run/control.sock"\n{settings}'
        )
        self.log = LogFile(folder / "daemon.log")
        self.start()

    def start(self, *options: str) -> None:
        """Starts the daemon; returns when it says that it is ready."""
        notify = self.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            ready.settimeout(20)
            try:
                # In /dev/null's place a file: what an earlier daemon logged stays.
                with self.log.path.open("a") as output:
                    self.process = self.namespace.popen(
                        [*self._under, *self._argv("daemon"), *options],
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                    )
                while True:
                    try:
                        if ready.recv(4096) == b"READY=1":
                            return
                    except TimeoutError:
                        raise RuntimeError("the daemon does not start:\n" + "\n".join(self.log.lines)) from None
            finally:
                notify.unlink()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(20)

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "nftban", "--config", str(self.folder / "nftban.toml"), *words]

    def cli(self, *words: str, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        """One command, as an admin types it."""
        return self.namespace.run(self._argv(*words), check=check, **options)

    def json(self, *words: str) -> Any:
        """A command's --json."""
        done = self.cli(*words, "--json")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}") from None

    def banned(self, address: str) -> bool:
        return bool(self.json("query", address)["banned"])

    def score(self, address: str) -> tuple[int, int]:
        """What is held against an address that is not banned: (offences, score)."""
        watched = self.json("why", address)["watched"]
        return (len(watched[0]["offences"]), watched[0]["score"]) if watched else (0, 0)

    def await_ban(self, address: str) -> None:
        """Returns as soon as the daemon says that it has banned the address."""
        self.log.wait_for(rf"\b{address.replace('.', '[.]')}(?:/64)? banned in scope")

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()

    def __enter__(self) -> Nftban:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def eventually(holds: Callable[[], object], what: str, timeout: float = 10) -> None:
    """Asks until it is so: for what announces itself by no event."""
    pause, deadline = threading.Event(), time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s still not so: {what}")
        pause.wait(0.05)
