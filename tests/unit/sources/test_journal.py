"""The journal as a source: a real systemd-journald, real journal files, the real journalctl.

Waits for lines and states, never for time to pass.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from lab.journald import Journald, earlier_boot, missing

from nftban.records import Cursor, LogLine
from nftban.sources import journal
from nftban.sources.chunks import LINE_LIMIT
from nftban.sources.journal import JournalSource, is_journal, spec

LIMIT = 20.0  # seconds until a line that does not come is a failure


@pytest.fixture
def journald() -> Iterator[Journald]:
    if os.geteuid() != 0 or missing():
        pytest.skip(missing() or "needs root: systemd-journald in a mount namespace")
    folder = Path(tempfile.mkdtemp(prefix="nftban-"))  # tmp_path is too long for a socket
    try:
        with Journald(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


class Reader:
    """Takes lines from a source one by one."""

    def __init__(self, source: JournalSource) -> None:
        self.source = source
        self.lines: AsyncGenerator[LogLine, None] = self._lines()
        self.asked: asyncio.Future[LogLine] = asyncio.ensure_future(anext(self.lines))

    async def _lines(self) -> AsyncGenerator[LogLine, None]:
        chunks = self.source.chunks()
        try:
            async for chunk in chunks:
                assert chunk.valid
                for line in chunk:
                    yield line
        finally:
            await chunks.aclose()

    async def line(self) -> LogLine:
        line = await asyncio.wait_for(asyncio.shield(self.asked), LIMIT)
        self.asked = asyncio.ensure_future(anext(self.lines))
        return line

    async def messages(self, count: int) -> list[str]:
        return [_message(await self.line()) for _ in range(count)]

    async def close(self) -> None:
        self.asked.cancel()
        await asyncio.gather(self.asked, return_exceptions=True)
        await self.lines.aclose()


def _message(line: LogLine) -> str:
    return line.text.split(": ", 1)[1]


class Reading:
    """Sources over one journald; what they report is kept."""

    def __init__(self, journald: Journald, *matches: str) -> None:
        self.path = spec(f"journal:{journald.directory}", matches or ["SYSLOG_IDENTIFIER=sshd"])
        self.reports: list[str] = []
        self.readers: list[Reader] = []

    async def begun(self, cursor: Cursor | None = None, *, from_beginning: bool = False) -> Reader:
        source = JournalSource(self.path, cursor=cursor, from_beginning=from_beginning, report=self.reports.append)
        reader = Reader(source)
        self.readers.append(reader)
        await asyncio.wait_for(source.begun.wait(), LIMIT)
        return reader


def reading(journald: Journald, scenario: Callable[[Reading], Awaitable[None]], *matches: str) -> None:
    async def whole() -> None:
        before = len(os.listdir("/proc/self/fd"))
        here = Reading(journald, *matches)
        try:
            await scenario(here)
        finally:
            for reader in here.readers:
                await reader.close()
        assert not _children(), "journalctl outlives its source"
        assert len(os.listdir("/proc/self/fd")) <= before, "pipes are left open"

    asyncio.run(whole())


def _children() -> list[int]:
    """The journalctl processes that this process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = status.read_text().split("(", 1)[1].rsplit(") ", 1)
        except (OSError, ValueError):
            continue
        if name == "journalctl" and rest.split()[1] == str(os.getpid()) and rest[0] != "Z":
            found.append(int(status.parent.name))
    return found


async def sent(journald: Journald, reader: Reader, message: str, identifier: str = "sshd") -> LogLine:
    journald.send(message, identifier)
    line = await reader.line()
    assert _message(line) == message
    return line


def test_it_begins_at_the_end_and_follows(journald: Journald) -> None:
    journald.send("old")
    journald.sync()

    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        journald.send("one")
        journald.send("not asked for", "cron")
        journald.send("two", SYSLOG_PID="77")
        first, second = await reader.line(), await reader.line()
        host = os.uname().nodename
        assert first.source == here.path
        head, message = first.text.split(f" {host} sshd[")
        assert head[10] == "T" and head.endswith("+00:00") and message.endswith("]: one")
        assert second.text.endswith(f" {host} sshd[77]: two")
        assert (reader.source.status.lines, reader.source.status.error) == (2, "")
        assert here.reports == []

    reading(journald, scenario)


def test_a_source_from_the_beginning_reads_what_is_there(journald: Journald) -> None:
    journald.send("old")
    journald.sync()

    async def scenario(here: Reading) -> None:
        reader = await here.begun(from_beginning=True)
        assert await reader.messages(1) == ["old"]

    reading(journald, scenario)


@pytest.mark.parametrize("rotated", [False, True])
def test_every_cursor_goes_on_exactly_behind_its_line(journald: Journald, rotated: bool) -> None:
    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        lines = [await sent(journald, reader, f"line {n}") for n in range(4)]
        await reader.close()
        if rotated:
            journald.rotate()
        journald.send("while nobody reads")
        for number, line in enumerate(lines):
            again = await here.begun(line.cursor)
            rest = [f"line {n}" for n in range(number + 1, 4)] + ["while nobody reads"]
            assert await again.messages(len(rest)) == rest
        assert here.reports == []

    reading(journald, scenario)


def test_a_cursor_at_an_entry_that_does_not_match_swallows_nothing(journald: Journald) -> None:
    """As `--after-cursor` does: with other matches than before, or at the start, the cursor's entry is none of ours."""

    async def scenario(here: Reading) -> None:
        other = Reading(journald, "SYSLOG_IDENTIFIER=cron")
        reader = await other.begun()
        here.readers.append(reader)
        cursor = (await sent(journald, reader, "of another", "cron")).cursor
        journald.send("first")
        journald.send("second")
        assert await (await here.begun(cursor)).messages(2) == ["first", "second"]

    reading(journald, scenario)


def test_a_vacuumed_cursor_goes_on_with_what_there_is_and_says_so(journald: Journald) -> None:
    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        cursor = (await sent(journald, reader, "read")).cursor
        await reader.close()
        journald.send("lost")
        journald.rotate()
        journald.vacuum()
        journald.send("kept")
        journald.send("kept too")
        journald.sync()
        again = await here.begun(cursor)
        assert await again.messages(2) == ["kept", "kept too"]
        assert len(here.reports) == 1 and "is gone; reading goes on at" in here.reports[0]

    reading(journald, scenario)


def test_a_cursor_that_journalctl_does_not_take_goes_on_by_time(journald: Journald) -> None:
    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        for message in ("read", "last read"):
            cursor = (await sent(journald, reader, message)).cursor
        await reader.close()
        assert cursor is not None
        journald.send("new")
        journald.send("newer")
        journald.sync()
        again = await here.begun(Cursor(0, cursor.offset, "of another make"))
        assert await again.messages(2) == ["new", "newer"]
        assert "is gone; reading goes on at" in here.reports[0]

    reading(journald, scenario)


def test_rotation_and_vacuum_while_it_is_read_lose_nothing(journald: Journald) -> None:
    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        for n in range(3):
            journald.send(f"{n} a")
            journald.rotate()
            journald.send(f"{n} b")
            assert await reader.messages(2) == [f"{n} a", f"{n} b"]
            journald.vacuum()
        await sent(journald, reader, "and on")
        assert here.reports == []

    reading(journald, scenario)


def test_entries_of_an_earlier_boot_are_read_too(journald: Journald) -> None:
    """`--follow` alone shows this boot's only: what came between our end and the machine's would be lost."""
    earlier_boot(journald.directory / "system@earlier.journal", "one", "two")

    async def scenario(here: Reading) -> None:
        reader = await here.begun(from_beginning=True)
        assert await reader.messages(2) == ["one", "two"]
        await sent(journald, reader, "this boot")
        assert here.reports == []

    reading(journald, scenario)


def test_an_empty_journal_is_read_from_its_first_entry(journald: Journald, tmp_path: Path) -> None:
    """Nothing there when the daemon starts, and a child that dies before the first line: nothing is passed over."""
    empty = tmp_path / "empty"
    empty.mkdir()

    async def scenario(here: Reading) -> None:
        here.path = spec(f"journal:{empty}", ["SYSLOG_IDENTIFIER=sshd"])
        reader = await here.begun()
        journald.send("first of all")
        journald.rotate()
        (archive,) = journald.directory.glob("system@*.journal")
        shutil.copy(archive, empty / archive.name)
        assert await reader.messages(1) == ["first of all"]

    reading(journald, scenario)


def test_a_child_that_dies_is_started_anew_without_a_loss_or_a_double(
    journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FIRST_PAUSE", 0.01)

    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        await sent(journald, reader, "before")
        for n in range(5):
            (child,) = _children()
            os.kill(child, signal.SIGKILL)
            journald.send(f"meanwhile {n}")
            journald.send(f"and {n}")
            assert await reader.messages(2) == [f"meanwhile {n}", f"and {n}"]
        assert len(here.reports) == 5, here.reports
        assert all("killed by signal 9; started again in" in each for each in here.reports)
        assert reader.source.status.error == "", "it is well again"

    reading(journald, scenario)


def test_without_journalctl_it_says_so_and_keeps_trying(journald: Journald, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FIRST_PAUSE", 0.01)
    path = dict(journal._ENVIRONMENT)
    monkeypatch.setitem(journal._ENVIRONMENT, "PATH", "/nowhere")

    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        assert "No such file or directory" in reader.source.status.error
        assert len(here.reports) == 1, "the same again and again is told once"
        monkeypatch.setitem(journal._ENVIRONMENT, "PATH", path["PATH"])
        async with asyncio.timeout(LIMIT):
            while not _children():
                await asyncio.sleep(0)
        # Where reading begins is decided once journalctl is there.
        while not reader.asked.done():
            journald.send("there")
            await asyncio.wait([reader.asked], timeout=0.1)
        assert await reader.messages(1) == ["there"]

    reading(journald, scenario)


@pytest.mark.parametrize(
    ("sent", "text", "lacking"),
    [
        (b"two\nlines: Failed password for root", "two#012lines: Failed password for root", 0),
        (b"ends\n", "ends", 0),
        (b"nat\xffive \x07 bell\0", "nat\\xffive #007 bell#000", 0),
        ("größer".encode(), "größer", 0),
        (b"", "", 0),
        (b"a" * 5000, "a" * 5000, 0),  # over the 4 KiB at which -o json gives up
        (b"b" * (LINE_LIMIT + 10), None, 10),
        (b"\xfe" * (3 * LINE_LIMIT), None, 2 * LINE_LIMIT),
        (b"\n\nMESSAGE=no\n__CURSOR=no", "#012#012MESSAGE=no#012__CURSOR=no", 0),
    ],
)
def test_odd_messages_are_one_line_each(journald: Journald, sent: bytes, text: str | None, lacking: int) -> None:
    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        journald.send(sent)
        journald.send("next")
        line = await reader.line()
        assert line.truncated >= lacking if text is None else line.truncated == 0
        assert text is None or _message(line) == text
        assert "\n" not in line.text and len(line.text) <= LINE_LIMIT
        assert await reader.messages(1) == ["next"]
        assert reader.source.status.oversized == (text is None)

    reading(journald, scenario)


def test_a_program_s_name_cannot_look_like_more(journald: Journald) -> None:
    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        journald.send("real", "cron: x sshd[1]: Failed", SYSLOG_PID="1]: x", MATCH="1")
        assert (await reader.line()).text.endswith(" cron__x_sshd_1___Failed: real")

    reading(journald, scenario, "MATCH=1")


def test_alternatives_of_matches(journald: Journald) -> None:
    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        for identifier in ("a", "b", "c", "d"):
            journald.send(identifier, identifier)
        assert await reader.messages(3) == ["a", "b", "d"]

    reading(journald, scenario, "SYSLOG_IDENTIFIER=a + SYSLOG_IDENTIFIER=b", "SYSLOG_IDENTIFIER=d")


def test_a_backlog_is_read_whole_and_in_order(journald: Journald) -> None:
    count = 20_000

    async def scenario(here: Reading) -> None:
        reader = await here.begun()
        cursor = (await sent(journald, reader, "before")).cursor
        await reader.close()
        for n in range(count):
            journald.send(f"line {n}")
        again = await here.begun(cursor)
        assert await again.messages(count) == [f"line {n}" for n in range(count)]

    reading(journald, scenario)


def test_specs() -> None:
    assert spec("journal", []) == "journal"
    assert spec("journal", ["A=1 + B=2", "C='x y'"]) == "journal A=1 + B=2 + 'C=x y'"
    assert spec("journal:/var/log/x y", ["A=1 B=2"]) == "'journal:/var/log/x y' A=1 B=2"
    for where in ("journal", "journal:/x", "journal A=1", "'journal:/x y' A=1"):
        assert is_journal(where)
    for where in ("/var/log/journal", "journals", "/journal:x"):
        assert not is_journal(where)


@pytest.mark.parametrize("match", ["--file=/etc/shadow", "/usr/sbin/sshd", "lower=1", "A", "-f", "A='", "=x"])
def test_what_is_no_match_never_reaches_journalctl(match: str) -> None:
    with pytest.raises(ValueError):
        spec("journal", [match])


@pytest.mark.parametrize("where", ["journal:", "journal:relative", "journald"])
def test_what_is_no_journal(where: str) -> None:
    with pytest.raises(ValueError):
        spec(where, [])
