"""Notices on their way out: real programs, good and bad ones, and a real web server behind apprise."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nftban.config.schema import Notify
from nftban.daemon import delivery
from nftban.daemon.notices import Notice
from nftban.prefixes import Prefix
from nftban.records import Event

NOW = 1_800_000_000.0
NOTICE = Notice(
    NOW,
    "zone",
    "zone: zen is blocked now",
    ("zen is blocked now", "b\u00fccher"),
    (Event(NOW, "zone", "\x1b[2J$(reboot); b\u00fccher", Prefix.parse("203.0.113.7")),),
    2,
)


def run(*argv: str, given: bytes = b"{}\n", timeout: float = 20) -> str | None:
    return asyncio.run(delivery.run(argv, given, timeout))


def python(code: str, *argv: str, given: bytes = b"{}\n", timeout: float = 20) -> str | None:
    return run(sys.executable, "-c", code, *argv, given=given, timeout=timeout)


def test_a_program_reads_one_json_object(tmp_path: Path) -> None:
    target = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\nprintf "%s|" "$@" >"$1.arguments"\ncat >"$1"\n')
    hook.chmod(0o755)
    settings = Notify(hook=(str(hook), str(target), "$(id) ; *"))
    assert asyncio.run(delivery.send(settings, NOTICE)) == [{"receiver": str(hook), "failure": None}]
    assert (tmp_path / "told.arguments").read_text() == f"{target}|$(id) ; *|", "no shell has seen them"
    text = target.read_bytes()
    assert text.isascii() and text.count(b"\n") == 1 and text.endswith(b"\n")
    told = json.loads(text)
    assert {key: told[key] for key in ("v", "kind", "title", "text", "count", "time")} == {
        "v": 1,
        "kind": "zone",
        "title": "zone: zen is blocked now",
        "text": "zen is blocked now\nb\u00fccher",
        "count": 2,
        "time": NOW,
    }
    assert told["events"] == [
        {"time": NOW, "kind": "zone", "text": "\x1b[2J$(reboot); b\u00fccher", "prefix": "203.0.113.7"}
    ]


def test_one_that_fails_says_why() -> None:
    code = "import sys; print('no such\\n mailbox', file=sys.stderr); sys.exit(3)"
    assert python(code) == "ended with status 3: no such mailbox"
    assert run("/bin/false") == "ended with status 1"
    assert python("import os; os.kill(os.getpid(), 15)") == "was ended by signal 15"


def test_one_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/no/such/interpreter\n")
    assert run("/no/such/program") == "cannot be started: No such file or directory"
    assert run(str(tmp_path)) == "cannot be started: Permission denied"
    assert run(str(plain)) == "cannot be started: Permission denied"
    plain.chmod(0o755)
    assert run(str(plain)) == "cannot be started: No such file or directory"


def test_one_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """The program waits for a child that ignores SIGTERM and holds the pipe."""
    pid = tmp_path / "pid"
    script = f'trap "" TERM; (trap "" TERM; echo $BASHPID >{pid}; sleep 1000) & wait'
    assert run("/bin/bash", "-c", script, timeout=1) == "was killed: it did not end within 1 s"
    try:
        child = os.pidfd_open(int(pid.read_text()))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended, "it lives on"


def test_output_of_any_size_is_taken_and_does_not_stay(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for out in (sys.stdout, sys.stderr):\n"
        "    for _ in range(200): out.write('x' * 1_000_000)\n"
        "sys.exit(4)"
    )
    failure = python(code)
    assert failure is not None and failure.startswith("ended with status 4: xxx")
    assert len(failure) < 600


def test_who_does_not_read_its_input_need_not() -> None:
    assert run("/bin/true", given=b"x" * 10_000_000) is None
    assert python("import sys; sys.stdin.close()", given=b"x" * 10_000_000) is None


def test_a_big_input_arrives_whole(tmp_path: Path) -> None:
    code = "import sys; sys.exit(0 if len(sys.stdin.buffer.read()) == 10_000_000 else 1)"
    assert python(code, given=b"x" * 10_000_000) is None


class Server:
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.status = 200
        self.posts: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts.append({**json.loads(body), "path": self.path, "login": self.headers["Authorization"]})
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quietly."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://bot:topsecret@127.0.0.1:{self.server.server_port}/hidden"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join(10)
    made.server.server_close()


def test_a_service_is_told_by_apprise_and_its_url_is_not_shown(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Notify(urls=(server.url, "json://127.0.0.1:9/topsecret"))
    rows = asyncio.run(delivery.send(settings, NOTICE))
    assert rows == [
        {"receiver": "URL 1 (json://...)", "failure": None},
        {"receiver": "URL 2 (json://...)", "failure": "the service did not take it"},
    ]
    (post,) = server.posts
    assert post["title"].endswith(": zone: zen is blocked now") and post["path"].rstrip("/") == "/hidden"
    assert post["message"] == "zen is blocked now\nb\u00fccher"
    assert post["login"].startswith("Basic ")
    server.status = 500
    rows = asyncio.run(delivery.send(Notify(urls=(server.url,)), NOTICE))
    assert rows[0]["failure"] == "the service did not take it"
    assert "topsecret" not in caplog.text


def test_a_url_that_apprise_does_not_know_is_a_fault_without_the_url() -> None:
    found = delivery.url_faults(["nonsense://topsecret", "json://127.0.0.1/", "topsecret"])
    assert [(number, "topsecret" in what + advice) for number, what, advice in found] == [(0, False), (2, False)]
    assert found[0][1] == "entry 1 (nonsense://...) is no URL that apprise knows"


def test_apprise_is_imported_only_when_somebody_is_to_be_told_by_it() -> None:
    code = "import sys, nftban.daemon.main; sys.exit('apprise' in sys.modules or 'requests' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_trial_says_that_it_is_one(tmp_path: Path) -> None:
    told = tmp_path / "told"
    settings = Notify(hook=("/bin/sh", "-c", f"cat >{told}"))
    assert asyncio.run(delivery.trial(settings, NOW)) == {"sent": [{"receiver": "/bin/sh", "failure": None}]}
    assert json.loads(told.read_text())["kind"] == "test"
    assert asyncio.run(delivery.trial(Notify(), NOW)) == {"sent": []}
