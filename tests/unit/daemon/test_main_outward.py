"""The daemon from start to end tells of itself: notifications, metrics, and a watcher over reload and restart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.daemon.test_main import Process, play


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    hook = f"[notify]\nhook = ['/bin/sh', '-c', 'cat >>{tmp_path}/told']\ndigest = 0\n"
    made.change("[dnsbl]\n", f"{hook}[dnsbl]\nenabled = false\n")
    made.change("[daemon]\n", f'[daemon]\nmetrics = "{tmp_path}/nftban.prom"\n')
    yield made
    made.close()


def told(process: Process) -> list[dict[str, Any]]:
    path = process.folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


def test_it_tells_writes_and_is_watched_over_reload_and_restart(process: Process) -> None:
    async def test() -> None:
        running = process.start()
        assert await process.said() == "READY=1"
        watcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nftban", "-c", str(process.folder / "nftban.toml"), "watch", "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert watcher.stdout is not None and watcher.stderr is not None
        await until((process.folder / "nftban.prom").exists)

        async def seen() -> dict[str, Any]:
            assert watcher.stdout is not None
            return dict(json.loads(await asyncio.wait_for(watcher.stdout.readline(), 20)))

        # Its first question says where it begins, and nobody hears that.
        while True:
            await process.ask("ban", prefixes=["198.51.100.9"], seconds=60)
            try:
                first = json.loads(await asyncio.wait_for(watcher.stdout.readline(), 2))
                break
            except TimeoutError:
                continue
        assert first["kind"] == "ban"
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await process.reload())[0].startswith("settings read anew")
        assert loop.time() - began < 5, "nobody waits for who watches"
        while (event := await seen())["kind"] != "reload":
            assert event["kind"] == "ban"
        process.change("deadline = 2", "deadline = 2\nnonsense = 1")
        await process.reload()
        assert "are not taken" in (await seen())["text"]
        await until(lambda: told(process))
        assert told(process)[0]["kind"] == "reload"
        process.change("deadline = 2\nnonsense = 1", "deadline = 2")
        began = loop.time()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await process.said() == "STOPPING=1"
        assert await running == 0
        assert loop.time() - began < 4, "a watcher holds up no end"
        assert b"away" in await asyncio.wait_for(watcher.stderr.readline(), 20)
        again = process.start()
        while await process.said() != "READY=1":
            pass
        assert b"answers again" in await asyncio.wait_for(watcher.stderr.readline(), 20)
        await process.ask("ban", prefixes=["198.51.100.10"], seconds=60)
        while (event := await seen())["prefix"] != "198.51.100.10":
            pass
        watcher.kill()
        await watcher.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await again == 0
        assert [t["kind"] for t in told(process)] == ["reload"]

    play(test)
