"""The control socket, with real sockets, users and groups: who gets in, what survives, what is left behind."""

from __future__ import annotations

import contextlib
import grp
import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nftban.control import client, server
from nftban.control.messages import MAX_REQUEST, AnsweredError
from nftban.errors import ConfigError, NoDaemonError, TryAgainError
from tests.unit.control.serving import Stage, listening

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.go_on.set()


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def running(socket_path: Path, stage: Stage) -> Iterator[Callable[[], None]]:
    with listening(socket_path, stage.call) as end:
        yield end


def connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(20)
    made.connect(str(path))
    return made


def answer(connection: socket.socket) -> dict[str, Any]:
    line = connection.makefile("rb").readline()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_the_socket_is_for_owner_and_group_and_goes_with_the_server(
    running: Callable[[], None], socket_path: Path
) -> None:
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o660
    assert client.call(socket_path, "echo", {"a": [1, None, "ü"]}) == {"args": {"a": [1, None, "ü"]}}
    running()
    assert not socket_path.exists()
    assert list(socket_path.parent.iterdir()) == []


def test_the_socket_is_closed_to_others_from_its_first_moment(
    socket_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = os.chown

    def chown(path: Path, uid: int, gid: int) -> None:
        seen.append(stat.S_IMODE(os.stat(path).st_mode))
        real(path, uid, gid)

    monkeypatch.setattr(os, "chown", chown)
    before = os.umask(0)
    try:
        with listening(socket_path, stage.call, "root" if os.geteuid() == 0 else _own_group()):
            pass
    finally:
        os.umask(before)
    assert seen == [0o600]


def _own_group() -> str:
    return grp.getgrgid(os.getegid()).gr_name


def test_several_requests_on_one_connection(running: Callable[[], None], socket_path: Path) -> None:
    with connected(socket_path) as connection:
        connection.sendall(b'{"v":1,"op":"echo","args":{"n":1}}\n{"v":1,"op":"echo","args":{"n":2}}\n')
        lines = connection.makefile("rb")
        assert [json.loads(lines.readline())["result"]["args"]["n"] for _ in range(2)] == [1, 2]


def test_an_expected_error_arrives_with_its_advice_and_exit_code(
    running: Callable[[], None], socket_path: Path
) -> None:
    with pytest.raises(AnsweredError, match="is the gateway") as caught:
        client.call(socket_path, "refuse", {})
    assert (caught.value.advice, caught.value.exit_code) == ("leave it alone", 1)


@pytest.mark.parametrize("op", ["no such thing", "not json"])
def test_a_fault_of_ours_is_logged_and_not_shown(
    op: str, running: Callable[[], None], socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(AnsweredError, match=r"^internal error$") as caught:
        client.call(socket_path, op, {})
    assert caught.value.exit_code == 70
    assert "Traceback" in caplog.text
    assert op in caplog.text
    assert client.call(socket_path, "echo", {}) == {"args": {}}


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\n", "not one line of JSON"),
        (b"\0" * 1000 + b"\n", "not one line of JSON"),
        (b'{"v":3,"op":"echo"}\n', "speaks version 3 of the control protocol, this daemon speaks version 1"),
        (b"x" * (MAX_REQUEST + 1), f"at most {MAX_REQUEST} bytes"),
        (b"x" * (2 * MAX_REQUEST) + b"\n", f"at most {MAX_REQUEST} bytes"),
    ],
    ids=["empty", "NULs", "version", "endless", "huge"],
)
def test_what_is_no_request_is_answered_and_survived(
    sent: bytes, said: str, running: Callable[[], None], socket_path: Path
) -> None:
    with connected(socket_path) as connection:
        with contextlib.suppress(BrokenPipeError):  # the server has seen enough
            connection.sendall(sent)
        error = answer(connection)["error"]
        assert said in error["what"]
        assert error["exit_code"] == 2
    assert client.call(socket_path, "echo", {}) == {"args": {}}


def test_the_longest_request_is_taken(running: Callable[[], None], socket_path: Path) -> None:
    frame = len(b'{"v":1,"op":"echo","args":{"t":""}}\n')
    with connected(socket_path) as connection:
        text = b"x" * (MAX_REQUEST - frame)
        connection.sendall(b'{"v":1,"op":"echo","args":{"t":"' + text + b'"}}\n')
        assert len(answer(connection)["result"]["args"]["t"]) == len(text)


def test_half_a_line_and_a_caller_that_leaves_hurt_nobody(
    running: Callable[[], None], socket_path: Path, stage: Stage
) -> None:
    connected(socket_path).close()
    with connected(socket_path) as connection:
        connection.sendall(b'{"v":1,"op":"ec')
    with connected(socket_path) as connection:
        connection.sendall(b'{"v":1,"op":"wait"}\n')
        assert stage.begun.wait(10)
    stage.go_on.set()
    assert stage.finished.wait(10), "the operation ends though its caller is gone"
    assert client.call(socket_path, "echo", {}) == {"args": {}}


def test_who_sends_nothing_is_sent_away(
    monkeypatch: pytest.MonkeyPatch, running: Callable[[], None], socket_path: Path
) -> None:
    monkeypatch.setattr(server, "SECONDS_TO_SEND", 0.2)
    with connected(socket_path) as connection:
        connection.sendall(b'{"v":1,')
        assert connection.recv(100) == b""


def test_who_takes_no_answer_is_sent_away(
    monkeypatch: pytest.MonkeyPatch, running: Callable[[], None], socket_path: Path
) -> None:
    monkeypatch.setattr(server, "SECONDS_TO_TAKE", 0.2)
    size = 20_000_000
    with connected(socket_path) as connection:
        connection.sendall(b'{"v":1,"op":"large","args":{"size":%d}}\n' % size)
        # Nothing is read until the server has given up; the next caller is served all the while.
        assert client.call(socket_path, "echo", {}) == {"args": {}}
        until = time.monotonic() + 10
        while time.monotonic() < until and _open_connections(socket_path) > 1:
            client.call(socket_path, "echo", {})
        received = 0
        try:
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
        except ConnectionResetError:
            pass
        assert received < size


def _open_connections(path: Path) -> int:
    """Accepted connections of the listening socket, as the kernel counts them (its own line is one)."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(f" {path}") for line in lines)


def test_a_large_answer_arrives_whole(running: Callable[[], None], socket_path: Path) -> None:
    assert len(client.call(socket_path, "large", {"size": 5_000_000})["text"]) == 5_000_000


def test_one_client_too_many_is_told_to_come_again(running: Callable[[], None], socket_path: Path) -> None:
    held = []
    try:
        for _ in range(server.MAX_CLIENTS):
            held.append(connected(socket_path))
            held[-1].sendall(b'{"v":1,"op":"echo"}\n')
            assert answer(held[-1])["ok"]
        with pytest.raises(AnsweredError, match="too many callers") as caught:
            client.call(socket_path, "echo", {})
        assert caught.value.exit_code == 75
        held.pop().close()
        until = time.monotonic() + 10
        while True:
            try:
                assert client.call(socket_path, "echo", {}) == {"args": {}}
                break
            except AnsweredError:
                assert time.monotonic() < until
    finally:
        for connection in held:
            connection.close()


def test_an_operation_under_way_ends_before_the_server_does(
    running: Callable[[], None], socket_path: Path, stage: Stage
) -> None:
    results: list[dict[str, Any]] = []
    caller = threading.Thread(target=lambda: results.append(client.call(socket_path, "wait", {})))
    caller.start()
    assert stage.begun.wait(10)
    with connected(socket_path) as idle:
        ending = threading.Thread(target=running)
        ending.start()
        assert idle.recv(10) == b"", "an idle caller is sent away at once"
        assert not socket_path.exists()
        stage.go_on.set()
        ending.join(20)
    caller.join(10)
    assert results == [{"waited": True}]


def test_an_operation_that_does_not_end_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch, running: Callable[[], None], socket_path: Path, stage: Stage
) -> None:
    monkeypatch.setattr(server, "SECONDS_TO_FINISH", 0.2)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            client.call(socket_path, "wait", {})
        except TryAgainError as e:
            caught.append(e)

    caller = threading.Thread(target=ask)
    caller.start()
    assert stage.begun.wait(10)
    ending = threading.Thread(target=running)
    ending.start()
    caller.join(20)
    assert "went away without an answer" in str(caught[0])
    stage.go_on.set()
    ending.join(20)


def test_a_dead_daemons_socket_is_replaced(socket_path: Path, stage: Stage) -> None:
    socket_path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
        dead.listen()
    assert socket_path.is_socket()
    with pytest.raises(NoDaemonError):
        client.call(socket_path, "echo", {})
    with listening(socket_path, stage.call):
        assert client.call(socket_path, "echo", {}) == {"args": {}}


def test_a_live_daemons_socket_is_left_alone(running: Callable[[], None], socket_path: Path, stage: Stage) -> None:
    with (
        pytest.raises(TryAgainError, match=rf"another daemon runs, process {os.getpid()}:"),
        listening(socket_path, stage.call),
    ):
        pass
    assert client.call(socket_path, "echo", {}) == {"args": {}}


def test_a_socket_that_another_has_made_meanwhile_is_not_removed(
    running: Callable[[], None], socket_path: Path
) -> None:
    socket_path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(socket_path))
        running()
        assert socket_path.is_socket()


def test_a_file_in_the_sockets_place_is_not_removed(socket_path: Path, stage: Stage) -> None:
    socket_path.parent.mkdir()
    socket_path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"), listening(socket_path, stage.call):
        pass
    assert socket_path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_said_to_be(tmp_path: Path, stage: Stage) -> None:
    with pytest.raises(ConfigError, match="too long"), listening(tmp_path / ("x" * 120), stage.call):
        pass


def test_an_unknown_group_is_named(socket_path: Path, stage: Stage) -> None:
    with (
        pytest.raises(ConfigError, match="no group 'nftban-nobody'"),
        listening(socket_path, stage.call, "nftban-nobody"),
    ):
        pass
    assert not socket_path.exists()


_ASK = """
import os, sys
from pathlib import Path
from nftban.control import client
from nftban.errors import NftbanError
# Only now: other users may not be able to reach the interpreter and its modules.
os.setgroups([int(group) for group in sys.argv[4:]])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
try:
    print(client.call(Path(sys.argv[1]), "echo", {}))
except NftbanError as e:
    print(e)
    sys.exit(e.exit_code)
"""


def ask_as(path: Path, user: int, group: int, groups: list[int]) -> subprocess.CompletedProcess[str]:
    """The same question from a process of another user."""
    return subprocess.run(
        [sys.executable, "-c", _ASK, str(path), *map(str, (user, group, *groups))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd="/",
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A socket's path that other users may reach (pytest's own folders are closed to them)."""
    folder = Path(tempfile.mkdtemp(prefix="nftban-"))
    folder.chmod(0o755)
    yield folder / "control.sock"
    shutil.rmtree(folder)


@needs_root
def test_only_root_and_the_groups_members_get_in(open_path: Path, stage: Stage) -> None:
    group = grp.getgrnam("mail").gr_gid
    with listening(open_path, stage.call, "mail"):
        assert (open_path.stat().st_gid, stat.S_IMODE(open_path.stat().st_mode)) == (group, 0o660)
        assert ask_as(open_path, 65534, 65534, [group]).returncode == 0, "member by a supplementary group"
        assert ask_as(open_path, 65534, group, []).returncode == 0, "member by the primary group"
        stranger = ask_as(open_path, 65534, 65534, [])
        assert (stranger.returncode, "may not be opened" in stranger.stdout) == (77, True)


@needs_root
def test_a_stranger_is_refused_even_where_the_files_mode_lets_him_in(
    open_path: Path, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(open_path, stage.call, "mail"):
        open_path.chmod(0o666)
        stranger = ask_as(open_path, 65534, 65534, [])
        assert (stranger.returncode, stranger.stdout) == (77, "this user may not ask the daemon\n")
        assert "of user 65534" in caplog.text
        assert client.call(open_path, "echo", {}) == {"args": {}}
