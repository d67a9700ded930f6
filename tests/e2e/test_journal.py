"""The whole way without a log file: a real sshd, a real journald, the daemon that asks journalctl."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.clients import Client
from lab.dns import Dns
from lab.journald import Journald, earlier_boot, missing
from lab.namespaces import Namespaces
from lab.nftban import Nftban, eventually
from lab.sshd import Sshd

from nftban.records import Cursor
from nftban.store.sqlite import Store

CLEAN, OTHER = "203.0.113.201", "203.0.113.202"


@pytest.fixture
def journald(machines: Namespaces, folder: Path) -> Iterator[Journald]:
    if missing():
        pytest.skip(missing())
    with Journald(folder / "journald", machines.server) as running:
        yield running


@pytest.fixture
def nftban(machines: Namespaces, folder: Path, dns: Dns, journald: Journald) -> Iterator[Nftban]:
    settings = """
[dns]
servers = ["127.0.0.1"]
[jail.postfix]
enabled = false
[jail.sshd]
logpath = "journal"
"""
    with (
        Sshd(machines.server, folder / "sshd", journald),
        Nftban(machines.server, folder / "nftban", settings) as running,
    ):
        yield running


def _journalctl(nftban: Nftban) -> list[int]:
    """The daemon's children, as this machine numbers them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split("(", 1)[1].rsplit(") ", 1)
        except (OSError, IndexError):
            continue
        if name == "journalctl" and rest.split()[1] == str(nftban.process.pid):
            found.append(int(stat.parent.name))
    return found


def test_a_guesser_is_banned_and_every_guess_counts_once(machines: Namespaces, nftban: Nftban) -> None:
    client = Client(machines, CLEAN, timeout=3)

    def counted(n: int, when: str) -> None:
        eventually(lambda: nftban.score(CLEAN) == (n, n), f"{n} guesses, {when}")

    client.ssh_guess()
    counted(1, "live")
    (source,) = nftban.json("status")["sources"]
    assert source["path"].startswith("journal _SYSTEMD_UNIT=ssh.service + ") and source["error"] is None
    (child,) = _journalctl(nftban)
    os.kill(child, signal.SIGKILL)
    client.ssh_guess()
    counted(2, "after journalctl was killed")
    nftban.log.wait_for("journalctl: killed by signal 9; started again in 1 s")
    nftban.stop()
    client.ssh_guess()
    nftban.start()
    counted(3, "the one that came meanwhile, and no other again")
    for n in range(4, 6):
        client.ssh_guess()
        counted(n, "after the restart")
    client.ssh_guess()
    nftban.await_ban(CLEAN)
    with pytest.raises(TimeoutError):
        client.connect(22)
    (ban,) = nftban.json("why", CLEAN)["bans"][:1]
    assert len({offence["line"] for offence in ban["offences"]}) == len(ban["offences"])


def test_what_came_before_a_reboot_is_not_lost(machines: Namespaces, nftban: Nftban) -> None:
    """What sshd logged between the daemon's end and the machine's belongs to a boot that is over."""
    (source,) = nftban.json("status")["sources"]
    nftban.stop()
    (directory,) = machines.server.run(["sh", "-c", "echo /run/log/journal/*"]).stdout.split()
    earlier = nftban.folder / "earlier.journal"
    earlier_boot(
        earlier,
        "Failed password for root from 203.0.113.203 port 1 ssh2",
        "Failed password for root from 203.0.113.204 port 1 ssh2",
    )
    machines.server.run(["cp", earlier, f"{directory}/system@earlier.journal"])
    shown = machines.server.run(["journalctl", "--output=export", "_BOOT_ID=" + "a" * 32]).stdout.splitlines()
    fields = dict(line.split("=", 1) for line in shown[: shown.index("")])
    with contextlib.closing(Store(nftban.folder / "state.db")) as store:
        cursor = Cursor(0, int(fields["__REALTIME_TIMESTAMP"]), fields["__CURSOR"])
        store.set_cursors([(source["path"], cursor)])
    nftban.start()
    eventually(lambda: nftban.score("203.0.113.204") == (1, 1), "the second guess is read")
    assert nftban.score("203.0.113.203") == (0, 0), "the first was read before"
    Client(machines, OTHER, timeout=3).ssh_guess()
    eventually(lambda: nftban.score(OTHER) == (1, 1), "and this boot's")
