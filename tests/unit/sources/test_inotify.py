"""The binding against the real kernel."""

from __future__ import annotations

import errno
import select
from pathlib import Path

import pytest

from nftban.sources import inotify
from nftban.sources.inotify import Inotify


def test_events_of_a_directory_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    with Inotify() as watcher:
        assert watcher.events() == []
        directory = watcher.watch(tmp_path, inotify.CREATE | inotify.MOVED_TO | inotify.MOVED_FROM)
        file.write_text("x")
        assert select.select([watcher.fd], [], [], 5)[0] == [watcher.fd]
        assert watcher.events() == [(directory, inotify.CREATE, b"a.log")]
        growth = watcher.watch(file, inotify.MODIFY)
        assert watcher.watch(file, inotify.MODIFY) == growth
        with file.open("a") as out:
            out.write("y")
        assert watcher.events() == [(growth, inotify.MODIFY, b"")]
        file.rename(tmp_path / "a.log.1")
        assert [(e.watch, e.mask, e.name) for e in watcher.events()] == [
            (directory, inotify.MOVED_FROM, b"a.log"),
            (directory, inotify.MOVED_TO, b"a.log.1"),
        ]
        watcher.unwatch(growth)
        assert watcher.events() == [(growth, inotify.IGNORED, b"")]
        watcher.unwatch(growth)
        assert select.select([watcher.fd], [], [], 0)[0] == []


def test_errors_are_the_kernel_s(tmp_path: Path) -> None:
    with Inotify() as watcher:
        with pytest.raises(FileNotFoundError) as missing:
            watcher.watch(tmp_path / "gone", inotify.MODIFY)
        assert missing.value.errno == errno.ENOENT
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError):
            watcher.watch(tmp_path / "file", inotify.CREATE | inotify.ONLYDIR)
    watcher.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        watcher.watch(tmp_path, inotify.CREATE)
