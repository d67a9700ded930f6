"""The last good copies: replaced whole or not at all, and a damaged one is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from nftban.feeds.copies import HEADER, About, Copies, State

ABOUT = About("https://x.example/", '"tag"', "Mon, 01 Jan 2026 00:00:00 GMT", 1764000000.0, "ab" * 32, 2, True)


def written(copies: Copies, content: bytes, about: About = ABOUT) -> None:
    incoming = copies.incoming("own")
    with incoming.open() as file:
        file.write(content)
    incoming.keep(about)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "feeds")
    copies.prepare()
    assert copies.about("own") is None and copies.state("own") == State()
    written(copies, b"45.0.0.1\n")
    assert Copies(tmp_path / "feeds").about("own") == ABOUT
    assert b"".join(copies.chunks("own")) == b"45.0.0.1\n"
    state = State(1.0, 2.0, 3.0, 4, "refused", "")
    copies.set_state("own", state)
    assert copies.state("own") == state


def test_what_is_not_kept_changes_nothing(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    written(copies, b"good")
    incoming = copies.incoming("own")
    with incoming.open() as file:
        file.write(b"half of a l")
    assert b"".join(copies.chunks("own")) == b"good"
    incoming.drop()
    assert [path.name for path in tmp_path.iterdir()] == ["own.copy"]


def test_a_server_cannot_make_the_header_too_long(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    written(copies, b"good", About("https://x.example/", "é" * 5000, "\\" * 1000, 1.0, "ab", 1, True))
    about = copies.about("own")
    assert about is not None and about.etag == "" and about.count == 1
    assert b"".join(copies.chunks("own")) == b"good"


def test_damaged_files_are_as_good_as_none(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    for content in (b"", b"{", b"{}", b'{"source": 5}'.ljust(HEADER), b"[" * HEADER, os.urandom(5000)):
        (tmp_path / "own.copy").write_bytes(content)
        (tmp_path / "own.state").write_bytes(content)
        assert copies.about("own") is None and copies.state("own") == State()


KILLED = """
import sys
from pathlib import Path
from nftban.feeds.copies import About, Copies
copies = Copies(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    incoming = copies.incoming("own")
    with incoming.open() as file:
        for _ in range(50):
            file.write(b"%d\\n" % number * 200)
    incoming.keep(About("x", str(number), "", 1.0, "", 10_000))
    if number == 1:
        print("going", flush=True)
"""


def test_killed_at_any_moment_the_copy_is_whole(tmp_path: Path) -> None:
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"going\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        copies = Copies(tmp_path)
        about = copies.about("own")
        assert about is not None
        assert b"".join(copies.chunks("own")).split() == [about.etag.encode()] * 10_000
    copies.prepare()
    assert {path.name for path in tmp_path.iterdir()} - {".own.lock"} == {"own.copy"}


def test_an_attempt_under_way_is_neither_waited_for_nor_cleared_away(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    copies.prepare()
    with copies.locked("own"), copies.incoming("own").open() as file:
        file.write(b"half")
        Copies(tmp_path).prepare()
        assert (tmp_path / ".own.copy.new").exists()
    Copies(tmp_path).prepare()
    assert not (tmp_path / ".own.copy.new").exists()
