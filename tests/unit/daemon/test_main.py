"""The daemon from start to end: its signals, its order, and what it does where it cannot start.

It observes: the kernel's part is in tests/e2e.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from demo.dnsbl_server import DnsblServer

from nftban.control import client
from nftban.daemon.assemble import checked
from nftban.daemon.main import run
from nftban.errors import NftbanError, PermissionNeededError
from nftban.prefixes import Prefix
from nftban.store.sqlite import Store
from tests.unit.daemon.stage import JAIL

ZEN = "zen.spamhaus.org"
BOT = "203.0.113.7"
PORT = 'port = "mail"\n'


class Process:
    """A daemon in this process and event loop."""

    def __init__(self, folder: Path, dns: str = "127.0.0.1:9", state: str = "state.db") -> None:
        self.folder = folder
        self.socket = folder / "control.sock"
        self.log = folder / "mail.log"
        self.log.touch()
        (folder / "nftban.toml").write_text(
            f'[daemon]\nstate = "{folder}/{state}"\nsocket = "{self.socket}"\n[dns]\nservers = "{dns}"\ndeadline = 2\n'
            f'[dnsbl]\nzones = ["{ZEN}*4"]\nreverse = false\n' + JAIL.replace('"mail.log"', f'"{self.log}"')
        )
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._ready.bind(str(folder / "notify"))
        os.environ["NOTIFY_SOCKET"] = str(folder / "notify")

    def start(self) -> asyncio.Task[int]:
        read = partial(checked, self.folder / "nftban.toml")
        return asyncio.create_task(run(read(), True, read))

    def change(self, before: str, after: str) -> None:
        """Another text in the settings."""
        text = (self.folder / "nftban.toml").read_text()
        assert before in text
        (self.folder / "nftban.toml").write_text(text.replace(before, after))

    async def reload(self) -> list[str]:
        """What is reported of it, the newest first."""
        os.kill(os.getpid(), signal.SIGHUP)
        assert (await self.said()).startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert await self.said() == "READY=1"
        return [e["text"] for e in (await self.ask("status"))["events"] if e["kind"] == "reload"]

    async def said(self) -> str:
        """The next word to systemd."""
        return (await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._ready, 100), 20)).decode()

    async def ask(self, op: str, **args: Any) -> dict[str, Any]:
        return await asyncio.to_thread(client.call, self.socket, op, args)

    def write(self, address: str, pid: int) -> None:
        with self.log.open("a") as file:
            date = datetime.now(UTC).isoformat()
            file.write(f"{date} mail postfix/smtpd[{pid}]: warning: non-SMTP command from unknown[{address}]: .\n")

    def close(self) -> None:
        self._ready.close()
        os.environ.pop("NOTIFY_SOCKET", None)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.close()


def play(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_ready_to_stopping(process: Process, number: int) -> None:
    async def test() -> None:
        running = process.start()
        assert await process.said() == "READY=1"
        assert (await process.ask("ping"))["pid"] == os.getpid()
        status = await process.ask("status")
        assert status["observe"] is True
        assert status["sources"][0]["path"] == str(process.log)
        os.kill(os.getpid(), number)
        assert await process.said() == "STOPPING=1"
        assert await running == 0
        assert not process.socket.exists()

    play(test)


def test_a_signal_while_it_starts_ends_it_in_order(process: Process) -> None:
    async def test() -> None:
        running = process.start()
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 20) == 0
        assert not process.socket.exists()
        again = process.start()
        while await process.said() != "READY=1":
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert await again == 0

    play(test)


def test_who_is_asked_about_when_it_stops_is_judged_before(tmp_path: Path) -> None:
    """The line is behind the saved cursor: no later daemon would see it."""

    async def test() -> None:
        async with DnsblServer({ZEN: {BOT: ["127.0.0.4"]}}) as dns:
            process = Process(tmp_path, dns.address)
            running = process.start()
            assert await process.said() == "READY=1"
            await dns.wait_for(2, ZEN)  # its two test points
            dns.behave(ZEN, delay=0.3)
            process.write(BOT, 1)
            process.write(BOT, 2)
            await dns.wait_for(3, ZEN)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await running == 0
            process.close()
        store = Store(tmp_path / "observe.db")
        (ban,) = store.bans_covering(Prefix.parse(BOT))
        assert (ban.score, ban.ended) == (6, None)
        cursor = store.cursor(str(process.log))
        assert cursor is not None and cursor.offset == process.log.stat().st_size
        store.close()

    play(test)


def test_new_settings_are_taken_and_what_was_counted_goes_on(process: Process) -> None:
    async def test() -> None:
        running = process.start()
        assert await process.said() == "READY=1"
        process.write(BOT, 1)
        await suspects(process, 1)
        process.change(PORT, PORT + "maxretry = 2\nbantime = 777\n")
        # Who asks meanwhile waits and has an answer.
        events, *answers = await asyncio.gather(process.reload(), *(process.ask("ping") for _ in range(20)))
        assert len(answers) == 20
        assert events[0].startswith("settings read anew: postfix")
        status = await process.ask("status")
        assert [(j["maxretry"], j["bantime"], j["suspects"]) for j in status["jails"]] == [(2, 777, 1)]
        process.write(BOT, 2)
        while not (await process.ask("query", address=BOT))["banned"]:
            await asyncio.sleep(0.01)
        process.change("bantime = 777", "bantime = 888")
        await process.reload()
        assert (await process.ask("query", address=BOT))["banned"], "bans stand"
        os.kill(os.getpid(), signal.SIGTERM)
        assert await process.said() == "STOPPING=1"
        assert await running == 0

    play(test)


def test_settings_that_cannot_be_used_change_nothing(process: Process) -> None:
    async def test() -> None:
        running = process.start()
        assert await process.said() == "READY=1"
        process.write(BOT, 1)
        await suspects(process, 1)
        usual = (await process.ask("status"))["jails"][0]["maxretry"]
        process.change(PORT, PORT + "maxretry = many\n")
        (told,) = await process.reload()
        assert "the earlier ones stay" in told and "nftban.toml:" in told
        process.change("maxretry = many", "maxretry = 7")
        # What nobody can see beforehand: the store cannot be opened.
        (process.folder / "other" / "observe.db").mkdir(parents=True)
        process.change(f'state = "{process.folder}/state.db"', f'state = "{process.folder}/other/state.db"')
        told, _ = await process.reload()
        assert told.startswith("the new settings cannot be used, the earlier ones stay: the store")
        (jail,) = (await process.ask("status"))["jails"]
        assert (jail["maxretry"], jail["suspects"]) == (usual, 1)
        process.change("/other/state.db", "/state.db")
        process.change("control.sock", "elsewhere.sock")
        told, again, *_ = await process.reload()
        assert told.startswith("settings read anew") and "needs a restart" in again
        assert not (process.folder / "elsewhere.sock").exists()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await process.said() == "STOPPING=1"
        assert await running == 0

    play(test)


async def suspects(process: Process, count: int) -> None:
    while (await process.ask("status"))["jails"][0]["suspects"] != count:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("state", "error", "code"),
    [
        ("a-folder/x", PermissionNeededError, 77),
        ("file/sub/x", PermissionNeededError, 77),
    ],
)
def test_a_store_that_cannot_be_opened_is_said_and_the_socket_goes(
    tmp_path: Path, state: str, error: type[NftbanError], code: int
) -> None:
    """(As --observe, the store is observe.db beside the one that is named.)"""

    async def test() -> None:
        (tmp_path / "a-folder" / "observe.db").mkdir(parents=True)
        (tmp_path / "file").touch()
        process = Process(tmp_path, state=state)
        running = process.start()
        with pytest.raises(error, match=r"the store .* cannot be opened") as caught:
            await asyncio.wait_for(running, 20)
        assert (caught.value.exit_code, bool(caught.value.advice)) == (code, True)
        assert not process.socket.exists()
        process.close()

    play(test)
