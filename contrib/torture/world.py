"""The daemon under torture: its settings, logs, resolver and disk, and what can be done to them.

Must run inside `demo.isolation.isolated`: the network, mounts and processes are that world's own.  `World.check` holds
the kernel's sets, the store and what jails count against the model; `World.trouble` what the daemon logged against
what it may log.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import random
import re
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.dnsbl_server import DnsblServer, Mode

from nftban.control import client
from nftban.errors import NftbanError
from nftban.kernel.layout import Kind, Layout
from nftban.kernel.netlink import NetlinkKernel
from torture.model import JAILS, Jail, Model

ZEN = "zen.spamhaus.org"
SETTINGS = """
[daemon]
state = "{folder}/disk/state.db"
socket = "{folder}/control.sock"
[dns]
servers = ["{dns}"]
deadline = 0.3
[dnsbl]
zones = ["{zen}*4"]
reverse = false
[defaults]
verify_at = 2
[jail.mail]
filter = "postfix"
port = "all"
maxretry = 3
logpath = "{folder}/mail.log"
[jail.ssh]
filter = "sshd"
port = "all"
dnsbl = false
maxretry = 4
logpath = "{folder}/auth.log"
"""
PATIENCE = 20.0
"""Seconds until what must come of something has come."""

MAY_FAIL = re.compile(r"(StoreError|DamagedStoreError|sqlite3\.\w*Error|NftbanError|KernelError|TryAgainError)\b")
LOST_TABLE = "there is no table"


class TortureError(Exception):
    """What must not be, was."""


class World:
    """Everything; a context manager."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.model = Model()
        self.layout = Layout()
        self.process: subprocess.Popen[bytes] | None = None
        self.ahead = 0.0
        self.notify_count = 0
        self._pid = 1000
        self._read = 0  # of the daemon's log
        self._next = 0
        self._disturbed: list[float] = []
        (folder / "disk").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder / "disk"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self._offset = folder / "offset"
        self._offset.write_bytes(struct.pack("d", 0.0))
        for jail in JAILS:
            (folder / jail.log).touch()
        self._dns_ready = threading.Event()
        threading.Thread(target=self._serve_dns, daemon=True).start()
        self._dns_ready.wait(10)
        (folder / "nftban.toml").write_text(SETTINGS.format(folder=folder, dns=self.dns.address, zen=ZEN))
        self.kernel = NetlinkKernel(self.layout)

    def _serve_dns(self) -> None:
        async def serve() -> None:
            async with DnsblServer({ZEN: {}}) as self.dns:
                self._dns_ready.set()
                await asyncio.Event().wait()

        asyncio.run(serve())

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        subprocess.run(["umount", self.folder / "disk"], check=True)

    # the daemon

    @property
    def now(self) -> float:
        """By the daemon's wall clock."""
        return time.time() + self.ahead

    def start(self) -> None:
        """Returns when the daemon is ready; raises TortureError where it does not come up."""
        path = self.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (self.folder / "daemon.log").open("ab") as log:
            path.unlink(missing_ok=True)
            ready.bind(str(path))
            self.process = subprocess.Popen(
                [sys.executable, "-m", "torture.daemon", self.folder / "nftban.toml", self._offset],
                env={**os.environ, "NOTIFY_SOCKET": str(path)},
                stdout=log,
                stderr=log,
            )
            until = time.monotonic() + 60
            while True:
                readable, _, _ = select.select([ready], [], [], 0.1)
                if readable and ready.recv(100) == b"READY=1":
                    return
                if self.process.poll() is not None:
                    raise TortureError(f"the daemon ended at its start with {self.process.returncode}")
                if time.monotonic() > until:
                    raise TortureError("the daemon does not get ready")

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)

    def ask(self, op: str, **args: Any) -> dict[str, Any]:
        return client.call(self.folder / "control.sock", op, args)

    # logs

    def address(self) -> str:
        """One that was never seen."""
        self._next += 1
        return f"11.{self._next >> 16 & 255}.{self._next >> 8 & 255}.{self._next & 255}"

    def lines(self, jail: Jail, address: str) -> list[str]:
        """What the server writes of one offence."""
        self._pid += 1
        date = datetime.fromtimestamp(self.now, UTC).isoformat()
        if jail.name == "ssh":
            return [f"{date} mail sshd[{self._pid}]: Failed password for bob from {address} port 49689 ssh2\n"]
        head = f"{date} mail postfix/smtpd[{self._pid}]: "
        return [
            f"{head}connect from unknown[{address}]\n",
            f"{head}warning: non-SMTP command from unknown[{address}]: .\n",
            f"{head}disconnect from unknown[{address}] unknown=0/1 commands=0/1\n",
        ]

    def write(self, jail: Jail, address: str) -> None:
        """One offence into the log, line by line, and into the model."""
        for line in self.lines(jail, address):
            with (self.folder / jail.log).open("a") as file:
                file.write(line)
        self.model.pass_time(self.now)
        self.model.offend(jail, address, self.now)

    def burst(self, count: int) -> None:
        """Offences of new addresses, of some that are counted, and of some that are banned."""
        for _ in range(count):
            kind = self.rng.random()
            known = list(self.model.held)
            banned = list(self.model.banned)
            jail = self.rng.choice(JAILS)
            if kind < 0.55 and known:
                name, address = self.rng.choice(known)
                jail = next(j for j in JAILS if j.name == name)
            elif kind < 0.65 and banned:
                address = self.rng.choice(banned)
            else:
                address = self.address()
            self.write(jail, address)

    def rotate(self, jail: Jail, *, compress: bool) -> None:
        """As logrotate does: renamed and made anew; compress: the old one at once."""
        log = self.folder / jail.log
        old = log.with_name(f"{log.name}.1")
        for there in self.folder.glob(f"{log.name}.?*"):
            if there != old or compress:
                there.unlink()
        if old.exists():
            old.rename(log.with_name(f"{log.name}.2"))
        log.rename(old)
        log.touch()
        if compress:
            with old.open("rb") as plain, gzip.open(f"{old}.gz", "wb") as packed:
                shutil.copyfileobj(plain, packed)
            old.unlink()

    def copytruncate(self, jail: Jail) -> None:
        log = self.folder / jail.log
        shutil.copy(log, f"{log}.1")
        os.truncate(log, 0)

    # the kernel, the disk, DNS, the clock

    def nft(self, commands: str, *, calm: bool = True) -> None:
        """Another program's transaction; what is not there any more is no fault of it.

        Whoever does the same five times in a minute is left to the periodic check, by design: here nobody does.
        """
        now = time.monotonic()
        self._disturbed = [then for then in self._disturbed if now - then < 60.0]
        if calm and len(self._disturbed) >= 3:
            self.kill(signal.SIGTERM)
            self.start()
            self._disturbed.clear()
        self._disturbed.append(now)
        subprocess.run(["nft", "-f", "-"], input=commands.encode(), capture_output=True, check=False)

    def fill_disk(self) -> None:
        with (self.folder / "disk" / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    pass

    def make_room(self) -> None:
        (self.folder / "disk" / "filler").unlink(missing_ok=True)

    def lose_dns(self) -> None:
        self.dns.behave(ZEN, Mode.DROP)

    def find_dns(self) -> None:
        self.dns.behave(ZEN, Mode.ANSWER)

    def put_clock(self, seconds: float) -> None:
        """Returns when the daemon, if it runs, has noticed."""
        self.ahead += seconds
        self._offset.write_bytes(struct.pack("d", self.ahead))
        if self.process is not None and self.process.poll() is None:
            self.eventually(lambda: self.daemon_log().count("the clock was put"), "the step of the clock is noticed")
        self.model.pass_time(self.now)

    def damage_store(self) -> None:
        """Some pages of it; the daemon must not run."""
        path = self.folder / "disk" / "state.db"
        size = path.stat().st_size
        with path.open("r+b") as file:
            for _ in range(self.rng.randint(1, 4)):
                file.seek(self.rng.randrange(0, max(1, size // 4096)) * 4096)
                file.write(self.rng.randbytes(4096))
        for old in sorted((self.folder / "disk").glob("*.damaged-*"))[:-3]:
            old.unlink()

    # what must be

    def check(self) -> None:
        """Waits until kernel, store and counts are as the model has them; raises TortureError where they do not get
        so."""
        self.eventually(lambda: not self.differences(), "as the model says", lambda: "\n".join(self.differences()))
        # Not only at one moment: what was still to come has come.
        if found := self.differences():
            raise TortureError("\n".join(found))

    def differences(self) -> list[str]:
        model = self.model
        model.pass_time(self.now)
        sets = {s.name for s in self.layout.address_sets.values() if s.kind not in (Kind.ALLOW, Kind.FEED)}
        there = {str(p) for e in self.kernel.present(self.now, sets) for p in self.layout.prefixes(e)}
        found = _differences("the kernel", there, set(model.banned))
        try:
            listed = {row["prefix"]: row for row in self.ask("list")["bans"]}
            found += _differences("the daemon", set(listed), set(model.banned))
            counted = {j["name"]: j["suspects"] for j in self.ask("status")["jails"]}
            for jail in JAILS:
                expected = sum(name == jail.name for name, _ in model.held)
                if counted[jail.name] < expected:
                    found.append(f"jail {jail.name} counts {counted[jail.name]} addresses, not {expected}")
            for _, address in self.rng.sample(sorted(model.held), min(12, len(model.held))):
                watched = {w["jail"]: len(w["offences"]) for w in self.ask("why", address=address)["watched"]}
                if watched != model.counts(address):
                    found.append(f"{address}: counted {watched}, written {model.counts(address)}")
        except NftbanError as e:
            found.append(f"the daemon does not answer: {e}")
        return found

    def adopt_counts(self) -> None:
        """After damage: what is counted may be less than was written, never more."""
        for key in list(self.model.held):
            name, address = key
            watched = {w["jail"]: len(w["offences"]) for w in self.ask("why", address=address)["watched"]}
            count = watched.get(name, 0)
            if count > len(self.model.held[key]):
                raise TortureError(f"{address}: counted {count}, written {len(self.model.held[key])}")
            if count:
                self.model.held[key] = self.model.held[key][-count:]
            else:
                del self.model.held[key]

    def answers(self, op: str, **args: Any) -> bool:
        """Does the daemon answer, and with no fault of its own?"""
        try:
            self.ask(op, **args)
        except NftbanError:
            return False
        return True

    def stored(self) -> dict[str, int]:
        """How many rows each table of the store has; it must be sound."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder}/disk/state.db?mode=ro", uri=True)) as db:
            (sound,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                raise TortureError(f"the store is not sound: {sound}")
            tables = ("ban", "offence", "memory", "event")
            return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}

    def daemon_log(self) -> str:
        """What the daemon logged since `trouble` was asked last."""
        with (self.folder / "daemon.log").open("rb") as file:
            file.seek(self._read)
            return file.read().decode(errors="replace")

    def trouble(self) -> list[str]:
        """Exceptions that nobody handled; what a full disk or a lost kernel causes is handled and said."""
        text = self.daemon_log()
        self._read += len(text.encode(errors="replace"))
        found = []
        for trace in re.split(r"(?=Traceback \(most recent call last\):)", text)[1:]:
            last = next((line for line in trace.split("\n")[1:] if line and not line.startswith((" ", "\t"))), "")
            if not MAY_FAIL.search(last):
                found.append(trace[:3000])
        return found

    def last_words(self) -> list[str]:
        return (self.folder / "daemon.log").read_text(errors="replace").split("\n")[-60:]

    def thin(self) -> None:
        """Lifts bans where there are many: a round is to be about its fault."""
        if len(self.model.banned) > 300:
            for address in sorted(self.model.banned)[:200]:
                self.ask("unban", prefixes=[address])
                self.model.unban(address)

    def eventually(
        self, holds: Callable[[], object], what: str, why: Callable[[], str] = lambda: "", patience: float = PATIENCE
    ) -> None:
        pause, until = threading.Event(), time.monotonic() + patience
        while not holds():
            if time.monotonic() > until:
                raise TortureError(f"after {patience:g} s not so: {what}\n{why()}")
            pause.wait(0.02)


def _differences(whose: str, there: set[str], wanted: set[str]) -> list[str]:
    found = []
    if lacking := wanted - there:
        found.append(f"{whose} lacks {len(lacking)} bans: {', '.join(sorted(lacking)[:5])}")
    if much := there - wanted:
        found.append(f"{whose} has {len(much)} bans too much: {', '.join(sorted(much)[:5])}")
    return found
