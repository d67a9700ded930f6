"""What can befall a log file besides rotation: compressed at once, replaced by a link, no inotify to be had."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nftban.records import Cursor
from nftban.sources.file import FileSource

LIMIT = 10.0


class Reader:
    """The texts of a source as they come."""

    def __init__(self, path: Path, cursor: Cursor | None = None) -> None:
        self.source = FileSource(path, cursor=cursor, from_beginning=True)
        self.lines = self.source.lines()
        self.cursor: Cursor | None = None

    async def text(self) -> str:
        line = await asyncio.wait_for(anext(self.lines), LIMIT)
        self.cursor = line.cursor
        return line.text

    async def texts(self, count: int) -> list[str]:
        return [await self.text() for _ in range(count)]


def append(path: Path, *lines: str) -> None:
    with path.open("a") as out:
        out.writelines(f"{line}\n" for line in lines)


def compress(path: Path) -> Path:
    """As gzip does: the compressed file beside it, then the file itself removed."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def at(path: Path, scenario: Callable[[Reader], Awaitable[None]]) -> None:
    async def whole() -> None:
        reader = Reader(path)
        try:
            await scenario(reader)
        finally:
            await reader.lines.aclose()

    asyncio.run(whole())


@pytest.mark.parametrize("rounds", [1, 5])
def test_compressed_at_once(tmp_path: Path, rounds: int) -> None:
    """logrotate without delaycompress: renamed, made anew and compressed before anybody has looked."""
    log = tmp_path / "mail.log"

    async def scenario(reader: Reader) -> None:
        append(log, "first")
        assert await reader.text() == "first"
        for n in range(rounds):
            append(log, f"{n} last of the old")
            log.rename(tmp_path / "mail.log.1")
            append(log, f"{n} first of the new")
            compress(tmp_path / "mail.log.1")
            assert await reader.texts(2) == [f"{n} last of the old", f"{n} first of the new"]
        # And the one that was read goes on, not one with the name of what was compressed.
        append(log, "on")
        assert await reader.text() == "on"

    at(log, scenario)


def test_truncated_in_place_and_the_copy_compressed(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"

    async def scenario(reader: Reader) -> None:
        append(log, "first", "second")
        assert await reader.texts(2) == ["first", "second"]
        (tmp_path / "mail.log.1").write_bytes(log.read_bytes())
        os.truncate(log, 0)
        compress(tmp_path / "mail.log.1")
        append(log, "after")
        assert await reader.text() == "after"

    at(log, scenario)


def test_a_file_replaced_by_a_link(tmp_path: Path) -> None:
    """In one step (rename over it) and in two (removed, then linked); what was left of the file comes first."""
    log, elsewhere = tmp_path / "mail.log", tmp_path / "elsewhere"
    elsewhere.mkdir()

    async def scenario(reader: Reader) -> None:
        append(log, "in the file")
        assert await reader.text() == "in the file"
        for n in range(3):
            target = elsewhere / f"mail-{n}.log"
            append(log, f"{n} last of the old")
            if n % 2:
                log.unlink()
                log.symlink_to(target)
            else:
                (tmp_path / "new").symlink_to(target)
                (tmp_path / "new").rename(log)
            append(target, f"{n} behind the link")
            assert await reader.texts(2) == [f"{n} last of the old", f"{n} behind the link"]
            append(log, f"{n} through the link")
            assert await reader.text() == f"{n} through the link"

    at(log, scenario)


def test_a_link_that_leads_nowhere_yet_and_one_to_itself(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.symlink_to(tmp_path / "later" / "mail.log")

    async def scenario(reader: Reader) -> None:
        asked = asyncio.ensure_future(reader.text())
        await asyncio.wait_for(reader.source.begun.wait(), LIMIT)
        assert not reader.source.status.exists
        (tmp_path / "later").mkdir()
        append(tmp_path / "later" / "mail.log", "there now")
        assert await asked == "there now"
        (tmp_path / "loop").symlink_to("mail.log")
        (tmp_path / "loop").rename(log)
        asked = asyncio.ensure_future(reader.text())
        async with asyncio.timeout(LIMIT):
            while "symbolic links" not in reader.source.status.error:
                await asyncio.sleep(0)
        log.unlink()
        append(log, "mended")
        assert await asked == "mended"

    at(log, scenario)


_READER = """
import asyncio, sys
from pathlib import Path
from nftban.sources.file import FileSource

async def read():
    source = FileSource(Path(sys.argv[1]), from_beginning=True)
    async for line in source.lines():
        print(line.text, source.status.error, sep="|", flush=True)

asyncio.run(read())
"""


@pytest.mark.parametrize(
    ("limit", "told"),
    [("max_inotify_instances", "no inotify, looking every second instead"), ("max_inotify_watches", "")],
)
def test_where_the_kernel_has_no_inotify_to_give_it_looks_by_the_clock(tmp_path: Path, limit: str, told: str) -> None:
    """The kernel's own limit, in a user namespace of its own: EMFILE for an instance, ENOSPC for a watch."""
    log = tmp_path / "mail.log"
    append(log, "there")
    start = ["unshare", "--user", "--map-root-user", "sh", "-c", f'echo 0 >/proc/sys/user/{limit} && exec "$@"', "sh"]
    process = subprocess.Popen(
        [*start, sys.executable, "-c", _READER, str(log)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        first = process.stdout.readline()
        if not first and "unshare" in (why := process.stderr.read()):
            pytest.skip(f"no user namespaces: {why}")
        text, _, error = first.rstrip("\n").partition("|")
        assert text == "there" and error.startswith(told)
        append(log, "written later")
        assert process.stdout.readline().startswith("written later|")
        log.rename(tmp_path / "mail.log.1")
        append(log, "after rotation")
        assert process.stdout.readline().startswith("after rotation|")
    finally:
        process.kill()
        process.communicate()
