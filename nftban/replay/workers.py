"""As many processes as there are cores, for work on chunks that needs no order; its results come in order.

Takes functions (chunk, time) -> result, and chunks; gives the results in the order of the chunks.
The processes are forked: the functions and all they need are there already, only chunks and results travel.
Guarantees: a few chunks for each process are under way, however fast they are read; small work is done in this
process; a core alone has no others.  Does not: survive the death of a process that the kernel killed (it raises).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from nftban.detect.budget import WATCH
from nftban.sources.chunks import Chunk

SMALL = 4 * 1024 * 1024
"""Bytes of logs below which other processes are not worth their start."""

AHEAD = 3
"""Chunks under way for each process."""

YOUNG = 200_000
"""Objects made before Python looks for cycles among them: here are none, and to look costs a tenth of the time."""

R = TypeVar("R")

_work: Sequence[Callable[[Chunk, float], object]] = ()


class Workers(Generic[R]):
    """Who works on chunks: other processes, or this one."""

    def __init__(
        self, work: Sequence[Callable[[Chunk, float], R]], pool: ProcessPoolExecutor | None, ahead: int
    ) -> None:
        self._work = work
        self._pool = pool
        self._ahead = ahead

    def each(self, number: int, chunks: Iterable[tuple[Chunk, float]], *, in_order: bool = False) -> Iterator[R]:
        """What the function of that number makes of each chunk; in_order: it must see them one after the other."""
        if self._pool is None or in_order:
            for chunk, now in chunks:
                yield self._work[number](chunk, now)
            return
        under_way: deque[Future[R]] = deque()
        for chunk, now in chunks:
            under_way.append(self._pool.submit(_do, number, chunk, now))  # type: ignore[arg-type]
            if len(under_way) > self._ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


@contextmanager
def workers(work: Sequence[Callable[[Chunk, float], R]], size: int) -> Iterator[Workers[R]]:
    """size: bytes of all that is to be done."""
    global _work
    cores = len(os.sched_getaffinity(0))
    watched = WATCH.start()
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        if cores == 1 or size < SMALL:
            yield Workers(work, None, 0)
            return
        _work = work
        with ProcessPoolExecutor(cores, multiprocessing.get_context("fork"), _begin) as pool:
            try:
                yield Workers(work, pool, AHEAD * cores)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    finally:
        gc.set_threshold(*before)
        if watched:
            WATCH.stop()
        _work = ()


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that shows something
    gc.set_threshold(YOUNG)
    WATCH.start()


def _do(number: int, chunk: Chunk, now: float) -> object:
    return _work[number](chunk, now)
