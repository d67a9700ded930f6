"""A growing log, read through everything that befalls one: real files, the real kernel.

Waits for lines and states, never for time to pass.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from nftban.records import Cursor, LogLine
from nftban.sources import file as file_source
from nftban.sources.chunks import LINE_LIMIT
from nftban.sources.file import CHUNK, FileSource
from nftban.sources.inotify import Inotify

LIMIT = 5.0  # seconds until a line that does not come is a failure


class Reader:
    """Takes lines from a source one by one."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.lines: AsyncGenerator[LogLine, None] = source.lines()
        self.asked: asyncio.Future[LogLine] | None = None

    async def started(self) -> Reader:
        """Runs the source until it waits, so that what is there already has been looked at."""
        self.asked = asyncio.ensure_future(anext(self.lines))
        for _ in range(50):
            await asyncio.sleep(0)
        return self

    async def line(self) -> LogLine:
        asked, self.asked = self.asked or asyncio.ensure_future(anext(self.lines)), None
        return await asyncio.wait_for(asked, LIMIT)

    async def texts(self, count: int) -> list[str]:
        return [(await self.line()).text for _ in range(count)]

    async def nothing(self) -> bool:
        """Is no line due, once everything that has happened is looked at?"""
        if self.asked is None:
            self.asked = asyncio.ensure_future(anext(self.lines))
        for _ in range(50):
            await asyncio.sleep(0)
        return not self.asked.done()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets the source run until it has noticed."""
        async with asyncio.timeout(LIMIT):
            while not condition():
                await self.nothing()

    async def close(self) -> None:
        if self.asked is not None:
            self.asked.cancel()
            await asyncio.gather(self.asked, return_exceptions=True)
        await self.lines.aclose()


def write(path: Path, text: str | bytes) -> None:
    with path.open("ab") as out:
        out.write(text.encode() if isinstance(text, str) else text)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "mail.log"


def reading(source: FileSource, scenario: Callable[[Reader], Awaitable[None]]) -> None:
    async def whole() -> None:
        before = len(os.listdir("/proc/self/fd"))
        reader = await Reader(source).started()
        try:
            await scenario(reader)
        finally:
            await reader.close()
        assert len(os.listdir("/proc/self/fd")) == before, "files are left open"

    run(whole)


def test_it_begins_at_the_end_and_follows(log: Path) -> None:
    write(log, "old\n")

    async def scenario(reader: Reader) -> None:
        write(log, "one\ntwo\n")
        assert await reader.texts(2) == ["one", "two"]
        assert await reader.nothing()
        status = reader.source.status
        assert (status.exists, status.lines, status.bytes, status.error) == (True, 2, 8, "")
        assert status.last is not None and abs(status.last - time.time()) < 60

    reading(FileSource(log), scenario)


def test_or_at_the_beginning(log: Path) -> None:
    write(log, "old\nolder\n")

    async def scenario(reader: Reader) -> None:
        assert await reader.texts(2) == ["old", "older"]

    reading(FileSource(log, from_beginning=True), scenario)


def test_an_incomplete_line_waits_for_its_newline(log: Path) -> None:
    write(log, "half of the la")

    async def scenario(reader: Reader) -> None:
        write(log, "st")
        assert await reader.nothing()
        write(log, " line\nnext")
        line = await reader.line()
        assert (line.text, line.cursor and line.cursor.offset) == ("half of the last line", 22)
        assert await reader.nothing()

    reading(FileSource(log), scenario)


def test_a_line_is_there_within_milliseconds(log: Path) -> None:
    write(log, "old\n")

    async def scenario(reader: Reader) -> None:
        delays = []
        for n in range(50):
            assert await reader.nothing()
            began = time.perf_counter()
            write(log, f"{n}\n")
            await reader.line()
            delays.append(time.perf_counter() - began)
        assert sorted(delays)[25] < 0.01

    reading(FileSource(log), scenario)


def test_rotation_by_rename_reads_the_old_file_to_its_end_first(log: Path, tmp_path: Path) -> None:
    write(log, "old\n")

    async def scenario(reader: Reader) -> None:
        write(log, "a\n")
        assert await reader.texts(1) == ["a"]
        rotated = tmp_path / "mail.log.1"
        write(log, "b\n")
        log.rename(rotated)
        write(rotated, "c\n")
        write(log, "e\n")
        write(rotated, "d")  # never finished
        assert await reader.texts(4) == ["b", "c", "d", "e"]
        write(log, "f\n")
        assert await reader.texts(1) == ["f"]

    reading(FileSource(log), scenario)


def test_a_writer_slow_to_reopen_loses_no_line(log: Path, tmp_path: Path) -> None:
    write(log, "old\n")

    async def scenario(reader: Reader) -> None:
        rotated = tmp_path / "mail.log.1"
        log.rename(rotated)
        log.touch()
        assert await reader.nothing()
        write(rotated, "late\n")
        assert await reader.texts(1) == ["late"]
        write(rotated, "later\n")
        assert await reader.texts(1) == ["later"]
        write(log, "new\n")
        assert await reader.texts(1) == ["new"]

    reading(FileSource(log), scenario)


def test_several_rotations_at_once(log: Path, tmp_path: Path) -> None:
    write(log, "old\n")

    async def scenario(reader: Reader) -> None:
        for n in range(5):
            write(log, f"{n}\n")
            assert await reader.texts(1) == [f"{n}"]
            log.rename(tmp_path / f"mail.log.{n}")
            write(log, "")
        write(log, "last\n")
        assert await reader.texts(1) == ["last"]

    reading(FileSource(log), scenario)


def test_truncation_in_place_reads_anew(log: Path) -> None:
    write(log, "a long old line\n")

    async def scenario(reader: Reader) -> None:
        write(log, "one\n")
        assert await reader.texts(1) == ["one"]
        os.truncate(log, 0)
        write(log, "two\n")
        assert await reader.texts(1) == ["two"]

    reading(FileSource(log), scenario)


def test_truncation_and_growth_past_the_old_end_is_seen_by_the_beginning(log: Path) -> None:
    write(log, "old\n")

    async def scenario(reader: Reader) -> None:
        write(log, "one\n")
        assert await reader.texts(1) == ["one"]
        with log.open("r+b") as out:
            out.truncate(0)
            out.write(b"a completely new beginning\nand more\n")
        assert await reader.texts(2) == ["a completely new beginning", "and more"]

    reading(FileSource(log), scenario)


def test_a_file_that_appears_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "a" / "b" / "mail.log"

    async def scenario(reader: Reader) -> None:
        status = reader.source.status
        assert (status.exists, status.error) == (False, "does not exist")
        (tmp_path / "a").mkdir()
        assert await reader.nothing()
        (tmp_path / "a" / "b").mkdir()
        assert await reader.nothing()
        write(log, "first\n")
        assert await reader.texts(1) == ["first"]
        assert (status.exists, status.error) == (True, "")

    reading(FileSource(log), scenario)


def test_a_directory_moved_into_place_and_away(tmp_path: Path) -> None:
    log = tmp_path / "d" / "mail.log"
    (tmp_path / "prepared").mkdir()
    write(tmp_path / "prepared" / "mail.log", "one\n")

    async def scenario(reader: Reader) -> None:
        (tmp_path / "prepared").rename(tmp_path / "d")
        assert await reader.texts(1) == ["one"]
        (tmp_path / "d").rename(tmp_path / "away")
        await reader.until(lambda: not reader.source.status.exists)
        (tmp_path / "d").mkdir()
        write(log, "two\n")
        assert await reader.texts(1) == ["two"]

    reading(FileSource(log), scenario)


def test_a_removed_file_that_comes_back(log: Path) -> None:
    write(log, "old\n")

    async def scenario(reader: Reader) -> None:
        log.unlink()
        await reader.until(lambda: not reader.source.status.exists)
        assert reader.source.status.error == "does not exist"
        write(log, "new\n")
        assert await reader.texts(1) == ["new"]

    reading(FileSource(log), scenario)


def test_a_symbolic_link_s_file_is_followed_where_it_lies(log: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "x.log"
    write(real, "old\n")
    log.symlink_to(real)

    async def scenario(reader: Reader) -> None:
        write(real, "one\n")
        assert await reader.texts(1) == ["one"]
        real.rename(tmp_path / "real" / "x.log.1")
        await reader.until(lambda: not reader.source.status.exists)
        write(real, "two\n")
        assert await reader.texts(1) == ["two"]

    reading(FileSource(log), scenario)


@pytest.mark.parametrize(
    ("data", "text", "truncated"),
    [
        (b"caf\xc3\xa9", "café", 0),
        (b"\xff\xfe x", "\\xff\\xfe x", 0),
        (b"\x00" * 5000 + b"x\x00y", "x\x00y", 0),
        (b"\x00" * 10, "", 0),
        (b"x\r", "x", 0),
        (b"", "", 0),
        (b"x" * LINE_LIMIT, "x" * LINE_LIMIT, 0),
        (b"x" * (LINE_LIMIT + 1), "x" * LINE_LIMIT, 1),
        (b"y" * (1 << 20), "y" * LINE_LIMIT, (1 << 20) - LINE_LIMIT),
    ],
    ids=["utf8", "not-utf8", "nuls-in-front", "only-nuls", "cr", "empty", "limit", "over", "1MiB"],
)
def test_odd_lines(log: Path, data: bytes, text: str, truncated: int) -> None:
    log.touch()

    async def scenario(reader: Reader) -> None:
        write(log, data + b"\nnext\n")
        line = await reader.line()
        assert (line.text, line.truncated) == (text, truncated)
        assert await reader.texts(1) == ["next"]
        status = reader.source.status
        assert (status.oversized, status.undecodable) == (int(truncated > 0), int(b"\xff" in data))
        assert status.bytes == len(data) + 6

    reading(FileSource(log), scenario)


def test_a_long_line_written_in_pieces_is_cut_all_the_same(log: Path) -> None:
    log.touch()

    async def scenario(reader: Reader) -> None:
        for _ in range(5):
            write(log, b"z" * 30000)
            assert await reader.nothing()
        write(log, b"\nnext\n")
        line = await reader.line()
        assert (line.text, line.truncated) == ("z" * LINE_LIMIT, 150000 - LINE_LIMIT)
        assert line.cursor is not None and line.cursor.offset == 150001
        assert await reader.texts(1) == ["next"]

    reading(FileSource(log), scenario)


def test_many_chunks_lose_nothing_and_let_the_loop_run(log: Path) -> None:
    lines = [f"{n} {'x' * (n % 300)}" for n in range(20000)]
    write(log, "\n".join(lines) + "\n")
    assert log.stat().st_size > 8 * CHUNK

    async def scenario(reader: Reader) -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        assert await reader.texts(len(lines)) == lines
        task.cancel()
        assert turns >= 8

    reading(FileSource(log, from_beginning=True), scenario)


def cursor_after(log: Path, count: int) -> Cursor:
    found: list[LogLine] = []

    async def scenario(reader: Reader) -> None:
        found.extend([await reader.line() for _ in range(count)])

    reading(FileSource(log, from_beginning=True), scenario)
    assert found[-1].cursor is not None
    return found[-1].cursor


@pytest.mark.parametrize("width", [1, 50, 400])
def test_a_cursor_goes_on_where_it_was(log: Path, width: int) -> None:
    write(log, "".join(f"{n} {'x' * width}\n" for n in range(10)))
    for count in (1, 5, 10):
        cursor = cursor_after(log, count)

        async def scenario(reader: Reader, count: int = count) -> None:
            write(log, "more\n")
            while (line := await reader.line()).text != "more":
                assert line.text.startswith(f"{count} ")
                count += 1
            assert count == 10

        reading(FileSource(log, cursor=cursor), scenario)
        os.truncate(log, log.stat().st_size - 5)


def test_a_cursor_into_a_rotated_file_reads_its_rest_first(log: Path, tmp_path: Path) -> None:
    write(log, "one\ntwo\nthree\n")
    cursor = cursor_after(log, 1)
    log.rename(tmp_path / "mail.log.1")
    write(tmp_path / "mail.log.2.gz", "not it\n")
    write(log, "four\n")

    async def scenario(reader: Reader) -> None:
        assert await reader.texts(3) == ["two", "three", "four"]

    reading(FileSource(log, cursor=cursor), scenario)


def test_a_cursor_into_a_file_that_is_another_now_begins_anew(log: Path) -> None:
    write(log, "one\ntwo\n")
    cursor = cursor_after(log, 2)
    with log.open("r+b") as out:  # the same inode, longer than before
        out.truncate(0)
        out.write(b"uno\ndue\ntre\n")

    async def scenario(reader: Reader) -> None:
        assert await reader.texts(3) == ["uno", "due", "tre"]

    reading(FileSource(log, cursor=cursor), scenario)


def test_a_directory_or_a_pipe_in_its_place_is_told(log: Path) -> None:
    log.mkdir()

    async def scenario(reader: Reader) -> None:
        assert reader.source.status.error == "is a directory"
        log.rmdir()
        os.mkfifo(log)
        await reader.until(lambda: reader.source.status.error == "is not a regular file")
        log.unlink()
        write(log, "one\n")
        assert await reader.texts(1) == ["one"]

    reading(FileSource(log), scenario)


@pytest.mark.skipif(os.geteuid() != 0, reason="must become another user")
def test_a_forbidden_file_says_so_and_is_read_once_allowed(tmp_path: Path) -> None:
    directory = tmp_path
    for each in (directory, *directory.parents):
        if each.stat().st_uid == 0 and each.name.startswith(("pytest-", "test_")):
            each.chmod(0o755)
    log = directory / "mail.log"
    write(log, "old\n")
    log.chmod(0o600)

    async def scenario(reader: Reader) -> None:
        status = reader.source.status
        assert status.exists and status.error.startswith("permission denied")
        os.seteuid(0)
        write(log, "meanwhile\n")
        log.chmod(0o644)
        os.seteuid(65534)
        assert await reader.texts(1) == ["meanwhile"]
        assert status.error == ""

    os.seteuid(65534)
    try:
        reading(FileSource(log), scenario)
    finally:
        os.seteuid(0)


def test_without_inotify_it_looks_by_the_clock(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fs.inotify.max_user_instances is real: the instances are used up until the kernel refuses one."""
    monkeypatch.setattr(file_source, "POLL_SECONDS", 0.01)
    write(log, "old\n")
    taken: list[Inotify] = []
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 2000:
        pytest.skip(f"{limit} instances are too many to use up")
    try:
        with pytest.raises(OSError, match="Too many open files"):
            for _ in range(limit + 1):
                taken.append(Inotify())

        async def scenario(reader: Reader) -> None:
            assert reader.source.status.error.startswith("no inotify, looking every second")
            write(log, "one\n")
            assert await reader.texts(1) == ["one"]
            log.rename(log.with_suffix(".1"))
            write(log, "two\n")
            assert await reader.texts(1) == ["two"]

        reading(FileSource(log), scenario)
    finally:
        for each in taken:
            each.close()
