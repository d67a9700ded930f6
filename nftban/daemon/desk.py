"""Where the control socket's requests wait for the daemon that answers them.

Takes requests at any time; hands them to the operations that are open.  Guarantees: what is asked before the daemon is
built, or while it reads its settings anew, waits and is answered after; `drain` returns when nothing is under way, so
that nothing is closed under an operation; those that only wait for something to happen are cut short.  Does not: know
the operations, or how long they take.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class Operations(Protocol):
    async def call(self, op: str, args: dict[str, Any]) -> dict[str, Any]: ...

    def release(self) -> None:
        """Whoever only waits for something to happen gets his answer now."""


class Desk:
    """Made inside the event loop; closed at first."""

    def __init__(self) -> None:
        self._operations: asyncio.Future[Operations] = asyncio.get_running_loop().create_future()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def call(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        operations = await asyncio.shield(self._operations)
        self._under_way += 1
        self._idle.clear()
        try:
            return await operations.call(op, args)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def open(self, operations: Operations) -> None:
        self._operations.set_result(operations)

    async def drain(self) -> None:
        """Whoever asks from now on waits for the next `open`; returns when those before have their answers."""
        self._release()
        self._operations = asyncio.get_running_loop().create_future()
        await self._idle.wait()

    def close(self) -> None:
        """Nobody will open any more: who waits is sent away."""
        self._release()
        self._operations.cancel()

    def _release(self) -> None:
        if self._operations.done() and not self._operations.cancelled():
            self._operations.result().release()
