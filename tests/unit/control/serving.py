"""A server on a real socket, its event loop in a thread, and an operation per thing that can happen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nftban.control.server import Call, serve
from nftban.errors import RefusedError


class Stage:
    """The operations; `begun` and `go_on` let a test look at one that is under way."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.finished = threading.Event()

    async def call(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        if op == "echo":
            return {"args": args}
        if op == "large":
            return {"text": "x" * args["size"]}
        if op == "refuse":
            raise RefusedError("192.0.2.1 is the gateway", "leave it alone")
        if op == "wait":
            self.begun.set()
            await asyncio.get_running_loop().run_in_executor(None, self.go_on.wait, 30)
            self.finished.set()
            return {"waited": True}
        if op == "not json":
            return {"x": object()}
        raise ZeroDivisionError("a fault of ours: secret")


@contextmanager
def listening(path: Path, call: Call, group: str = "") -> Iterator[Callable[[], None]]:
    """Serves until left; gives a function that stops the server and waits for its end."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()
    failures: list[BaseException] = []

    async def run() -> None:
        async with serve(path, call, group):
            ready.set()
            await stop.wait()

    def thread() -> None:
        try:
            loop.run_until_complete(run())
            loop.run_until_complete(loop.shutdown_default_executor())
        except BaseException as e:
            failures.append(e)
        finally:
            loop.close()
            ready.set()

    running = threading.Thread(target=thread, daemon=True)
    running.start()
    ready.wait(10)

    def end() -> None:
        if running.is_alive():
            loop.call_soon_threadsafe(stop.set)
            running.join(20)

    try:
        if failures:
            running.join(20)
            raise failures[0]
        yield end
    finally:
        end()
    if failures:
        raise failures[0]
    assert not running.is_alive()
