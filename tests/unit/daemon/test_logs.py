"""Log files and the jails that read them: real files, real inotify, a real store; every line once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from nftban.daemon.assemble import JailSetup, checked
from nftban.daemon.logs import Logs
from nftban.records import LogLine
from nftban.store.sqlite import Store


class Desk:
    """Logs over files in a folder, with jails whose filter matches every line; `lines` is what came."""

    def __init__(self, folder: Path, **paths: list[str]) -> None:
        self.folder = folder
        jails = "".join(
            f'[jail.{name}]\nfilter = "every"\nlogpath = {[str(folder / p) for p in patterns]}\n'
            for name, patterns in paths.items()
        )
        (folder / "filter.d").mkdir()
        (folder / "filter.d" / "every.conf").write_text("[Definition]\nfailregex = ^.*$\n")
        (folder / "nftban.toml").write_text(f"[dnsbl]\nenabled = false\n{jails}")
        self.jails = checked(folder / "nftban.toml").jails
        self.lines: list[str] = []
        self.read_by: dict[str, list[str]] = {}
        self.stumble_at: str | None = None
        self._came = asyncio.Event()
        self.store = Store(folder / "state.db")
        self.logs = Logs(self.jails, self._take, self.store)

    def _take(self, jails: Sequence[JailSetup], line: LogLine, rules: Sequence[tuple[int, ...]] | None = None) -> None:
        assert rules is None or list(rules) == [(0,)] * len(jails)
        if line.text == self.stumble_at:
            self.stumble_at = None
            self._came.set()
            raise RuntimeError("as if nobody had caught it")
        self.lines.append(line.text)
        self.read_by[line.text] = [jail.name for jail in jails]
        self._came.set()

    def write(self, name: str, *lines: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self._came.clear()
                await self._came.wait()

    async def got(self, *lines: str) -> None:
        """Until these have come, and nothing else."""
        await self.until(lambda: len(self.lines) >= len(lines))
        assert sorted(self.lines) == sorted(lines)

    async def failed(self, name: str) -> None:
        """Until the reader of that file has ended."""
        task = self.logs._readers[str(self.folder / name)].task
        assert task is not None
        await asyncio.wait([task], timeout=10)
        assert task.done()

    def restarted(self) -> Desk:
        """What a new daemon makes of the same files and the same store."""
        self.lines.clear()
        self.logs = Logs(self.jails, self._take, self.store)
        return self

    async def stop(self) -> None:
        await self.logs.stop()
        self.logs.save_cursors()


def at_desk(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_file_of_two_jails_is_read_once(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["mail.log", "mail.*"], two=["*.log"])
        desk.write("mail.log", "old")
        desk.write("auth.log", "old too")
        await desk.logs.start()
        desk.write("mail.log", "a")
        desk.write("auth.log", "b")
        await desk.got("a", "b")
        assert desk.read_by == {"a": ["one", "two"], "b": ["two"]}
        assert [Path(row["path"]).name for row in desk.logs.status()] == ["auth.log", "mail.log"]
        await desk.stop()

    at_desk(work)


def test_what_appears_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["*.log", "sub/later.log"])
        await desk.logs.start()
        (row,) = desk.logs.status()
        assert (row["exists"], row["error"]) == (False, "does not exist")
        (tmp_path / "sub").mkdir()
        desk.write("sub/later.log", "a")
        await desk.got("a")
        desk.write("new.log", "b", "c")
        await desk.logs.look_for_files()
        await desk.got("a", "b", "c")
        await desk.logs.look_for_files()
        desk.write("new.log", "d")
        await desk.got("a", "b", "c", "d")
        await desk.stop()

    at_desk(work)


def test_reading_goes_on_where_the_last_daemon_stopped(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["mail.log"], two=["*.log"])
        desk.write("mail.log", "old")
        await desk.logs.start()
        desk.write("mail.log", "a", "b")
        await desk.got("a", "b")
        await desk.stop()
        desk.write("mail.log", "c")
        desk.restarted()
        await desk.logs.start()
        await desk.got("c")
        (tmp_path / "mail.log").rename(tmp_path / "mail.log.1")
        desk.write("mail.log", "d")
        await desk.got("c", "d")
        await desk.stop()

    at_desk(work)


def test_cursors_are_written_only_where_they_moved(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["a.log", "b.log"])
        desk.write("a.log", "old")
        await desk.logs.start()
        desk.logs.save_cursors()
        begun = desk.store.cursor(str(tmp_path / "a.log"))
        assert begun is not None and begun.offset == 4, "what was there is passed over, whoever comes after a kill"
        desk.write("a.log", "x")
        await desk.got("x")
        desk.logs.save_cursors()
        first = desk.store.cursor(str(tmp_path / "a.log"))
        assert first is not None and first.offset == 6
        desk.store.set_cursors([(str(tmp_path / "a.log"), type(first)(1, 2, "ab"))])
        desk.logs.save_cursors()
        untouched = desk.store.cursor(str(tmp_path / "a.log"))
        assert untouched is not None and untouched.offset == 2
        desk.write("a.log", "y")
        await desk.got("x", "y")
        desk.logs.save_cursors()
        moved = desk.store.cursor(str(tmp_path / "a.log"))
        assert moved is not None and moved.offset == 8
        await desk.stop()

    at_desk(work)


@pytest.mark.parametrize("stumble_at", ["a", "b", "c"])
@pytest.mark.parametrize("begin", ["running", "restarted", "appeared"])
def test_a_reader_that_failed_goes_on_without_a_loss_or_a_double(
    tmp_path: Path, stumble_at: str, begin: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also at its first line, whether it had a cursor from an earlier daemon or read a new file."""

    async def work() -> None:
        desk = Desk(tmp_path, one=["*.log"])
        if begin != "appeared":
            desk.write("mail.log", "old")
        await desk.logs.start()
        if begin == "running":
            desk.write("mail.log", "zero")
            await desk.got("zero")
            desk.lines.clear()
        elif begin == "restarted":
            desk.write("mail.log", "zero")
            await desk.got("zero")
            await desk.stop()
        desk.stumble_at = stumble_at
        desk.write("mail.log", "a", "b", "c")
        if begin == "restarted":
            desk.restarted()
            await desk.logs.start()
        elif begin == "appeared":
            await desk.logs.look_for_files()
        await desk.failed("mail.log")
        (row,) = desk.logs.status()
        assert row["error"] == "reading failed: as if nobody had caught it; tried again in a few seconds"
        await desk.logs.look_for_files()
        desk.write("mail.log", "d")
        await desk.got("a", "b", "c", "d")
        (row,) = desk.logs.status()
        assert row["error"] is None
        await desk.stop()

    with caplog.at_level(logging.ERROR):
        at_desk(work)
    assert "mail.log failed" in caplog.text


def test_a_rotated_log_that_its_pattern_matches_too_is_not_read_again(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["mail.log*"])
        desk.write("mail.log", "old")
        desk.write("mail.log.1", "older")
        desk.write("mail.log.2.gz", "packed")
        await desk.logs.start()
        desk.write("mail.log", "a")
        await desk.got("a")
        for suffix in (".1", "-20261124"):
            (tmp_path / "mail.log").rename(tmp_path / f"mail.log{suffix}")
            await desk.logs.look_for_files()
            desk.write("mail.log", f"first after {suffix}")
            await desk.logs.look_for_files()
            await desk.until(lambda suffix=suffix: f"first after {suffix}" in desk.lines)  # type: ignore[misc]
        desk.write("mail.log", "last")
        await desk.got("a", "first after .1", "first after -20261124", "last")
        assert [Path(row["path"]).name for row in desk.logs.status()] == ["mail.log"]
        await desk.stop()

    at_desk(work)


def test_logs_that_are_named_by_their_date_are_read(tmp_path: Path) -> None:
    """rotatelogs and its like write into such files at once; there is none without a date."""

    async def work() -> None:
        desk = Desk(tmp_path, one=["access.log.*"])
        await desk.logs.start()
        desk.write("access.log.20261124", "a")
        await desk.logs.look_for_files()
        desk.write("access.log.20261125", "b")
        await desk.logs.look_for_files()
        await desk.got("a", "b")
        await desk.stop()

    at_desk(work)


def test_stop_ends_every_reader(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["a.log", "b.log", "c.log"])
        before = asyncio.all_tasks()
        await desk.logs.start()
        assert len(asyncio.all_tasks() - before) == 3
        await desk.stop()
        assert asyncio.all_tasks() == before

    at_desk(work)


def test_lines_that_no_filter_can_match_are_counted_and_not_handed_on(tmp_path: Path) -> None:
    """Read at once and written one by one; whole chunks of them still move the cursor."""
    plain, bad = "postfix/qmgr[1]: 1A: removed", "postfix/smtpd[1]: too many errors after AUTH from unknown[192.0.2.1]"
    wrong = "postfix/smtpd[1]: \udcff too many errors after AUTH from unknown[192.0.2.1]"  # not UTF-8: nothing is known

    async def work() -> None:
        settings = f'[dnsbl]\nenabled = false\n[jail.p]\nfilter = "postfix"\nlogpath = "{tmp_path}/mail.log"\n'
        (tmp_path / "nftban.toml").write_text(settings)
        (jail,) = checked(tmp_path / "nftban.toml").jails
        came: list[tuple[str, Sequence[Sequence[int]] | None]] = []
        passed = 0
        moved = asyncio.Event()

        def take(jails: Sequence[JailSetup], line: LogLine, rules: Sequence[tuple[int, ...]] | None = None) -> None:
            assert list(jails) == [jail]
            came.append((line.text, rules))
            moved.set()

        def count(lines: int) -> None:
            nonlocal passed
            passed += lines
            moved.set()

        async def until(lines: int) -> None:
            async with asyncio.timeout(10):
                while passed + len(came) < lines:
                    moved.clear()
                    await moved.wait()

        store = Store(tmp_path / "state.db")
        log = tmp_path / "mail.log"
        log.write_text("")
        logs = Logs([jail], take, store, count)
        await logs.start()
        log.write_text(f"h {plain}\n" * 10_000 + f"h {bad}\n" + f"h {plain}\n" * 10_000)
        await until(20_001)
        assert [text for text, _ in came] == [f"h {bad}"] and passed == 20_000
        assert all(rules and rules[0] and len(rules[0]) < len(jail.compiled.rules) for _, rules in came)
        with log.open("ab") as file:
            file.write(f"h {plain}\n".encode())
        await until(20_002)
        with log.open("ab") as file:
            file.write(f"h {wrong}\nh {plain}\n".encode(errors="surrogateescape"))
        await until(20_004)
        assert came[1:] == [("h " + wrong.replace("\udcff", "\\xff"), None), (f"h {plain}", None)]
        await logs.stop()
        logs.save_cursors()
        cursor = store.cursor(str(log))
        assert cursor is not None and cursor.offset == log.stat().st_size
        (row,) = logs.status()
        assert (row["lines"], row["undecodable"]) == (20_004, 1)
        store.close()

    at_desk(work)


def test_docker_s_lines_are_read_as_what_they_say(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["*/*-json.log"])
        await desk.logs.start()
        (tmp_path / "c0ffee").mkdir()
        desk.write("c0ffee/c0ffee-json.log", '{"log":"hello\\n","stream":"stdout","time":"2026-11-24T10:00:00.1Z"}')
        await desk.logs.look_for_files()
        await desk.got("2026-11-24T10:00:00.1+00:00 hello")
        await desk.stop()
        cursor = desk.store.cursor(str(tmp_path / "c0ffee" / "c0ffee-json.log"))
        assert cursor is not None
        assert cursor.offset == (tmp_path / "c0ffee" / "c0ffee-json.log").stat().st_size
        desk.restarted()
        desk.write("c0ffee/c0ffee-json.log", '{"log":"again\\n","stream":"stdout","time":"2026-11-24T10:00:00.1Z"}')
        await desk.logs.start()
        await desk.got("2026-11-24T10:00:00.1+00:00 again")
        await desk.stop()

    at_desk(work)


def test_a_directory_per_host_that_appears_later(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk(tmp_path, one=["remote/*/mail.log"])
        await desk.logs.start()
        for host in ("a", "b"):
            (tmp_path / "remote" / host).mkdir(parents=True)
            desk.write(f"remote/{host}/mail.log", f"first of {host}")
            await desk.logs.look_for_files()
        await desk.got("first of a", "first of b")
        desk.write("remote/b/mail.log", "more of b")
        await desk.got("first of a", "first of b", "more of b")
        await desk.stop()

    at_desk(work)
