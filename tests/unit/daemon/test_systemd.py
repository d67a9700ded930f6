"""The watchdog: fed by the loop that reads the logs, and only while they are read on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from nftban.daemon.systemd import notify, watchdog_interval
from tests.unit.daemon.test_logs import Desk


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [("60000000", None, 30.0), ("3000000", "ours", 1.5), ("60000000", "1", None), (None, None, None), ("0", None, None),
     ("soon", None, None), ("60000000", "x", None)],
)  # fmt: skip
def test_how_often_it_is_due(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, interval: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", str(os.getpid()) if pid == "ours" else pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_interval() == interval


def test_who_listens_hears_it_and_nobody_else_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        listening.bind(f"\0nftban-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@nftban-test-{os.getpid()}")
        notify("WATCHDOG=1")
        assert listening.recv(100) == b"WATCHDOG=1"


def test_a_log_that_is_not_read_on_is_named_until_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        desk = Desk(tmp_path, mail=["mail.log"])
        desk.write("mail.log", "an old line")
        await desk.logs.start()
        assert (desk.logs.stalled(), desk.logs.stalled()) == ([], [])
        with (tmp_path / "mail.log").open("a") as file:
            file.write("a line that is not whole yet")
            file.flush()
            # Nobody gives the reader a turn: something is to be read, first since now, then still.
            assert desk.logs.stalled() == []
            assert desk.logs.stalled() == [str(tmp_path / "mail.log")]
            file.write(" and now it is\n")
        await desk.got("a line that is not whole yet and now it is")
        assert (desk.logs.stalled(), desk.logs.stalled()) == ([], [])
        await desk.logs.stop()
        desk.store.close()

    asyncio.run(asyncio.wait_for(test(), 30))
