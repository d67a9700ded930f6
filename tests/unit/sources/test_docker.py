"""Docker's json-file logs: one line of JSON, one line of text, its own cursor."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from nftban.records import LogLine
from nftban.sources import docker
from nftban.sources.chunks import LINE_LIMIT
from nftban.sources.file import FileSource

WHEN = "2026-11-24T10:00:00.123456789Z"
STAMP = "2026-11-24T10:00:00.123456+00:00"


def line(log: str, **other: object) -> bytes:
    return json.dumps({"log": log, "stream": "stdout", "time": WHEN, **other}, ensure_ascii=False).encode() + b"\n"


def lines(path: Path, count: int) -> list[LogLine]:
    """What a real file of that name gives."""

    async def read() -> list[LogLine]:
        found: list[LogLine] = []
        chunks = FileSource(path, from_beginning=True).chunks()
        async for chunk in chunks:
            found += docker.decoded(chunk)
            if len(found) >= count:
                break
        await chunks.aclose()
        return found

    return asyncio.run(asyncio.wait_for(read(), 10))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (line("Failed password for root\n"), f"{STAMP} Failed password for root"),
        (line("Nov 24 10:00:00 mx postfix/smtpd[1]: x\n"), "Nov 24 10:00:00 mx postfix/smtpd[1]: x"),
        (line("192.0.2.1 - - [24/Nov/2026:10:00:00 +0000] GET"), "192.0.2.1 - - [24/Nov/2026:10:00:00 +0000] GET"),
        (line("two\nlines\r\n"), f"{STAMP} two#012lines"),
        (line("größer \x07\n"), f"{STAMP} größer #007"),
        (line("a", time="2026-11-24T10:00:00+02:00"), "2026-11-24T10:00:00+02:00 a"),
        (line("a", time="yesterday"), "a"),
        (line("a", attrs={"tag": "x"}), f"{STAMP} a"),
        (b'{"log":"no time"}\n', '{"log":"no time"}'),
        (b'{"log":7,"time":"' + WHEN.encode() + b'"}\n', '{"log":7,"time":"' + WHEN + '"}'),
        (b"no JSON at all\n", "no JSON at all"),
        (b'["log"]\n', '["log"]'),
        (b"[" * 5000 + b"\n", "[" * 5000),
        (b'{"log":"\\ud800","time":"' + WHEN.encode() + b'"}\n', f"{STAMP} \\ud800"),
    ],
)
def test_a_line(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "c0ffee-json.log"
    path.write_bytes(data)
    (found,) = lines(path, 1)
    assert found.text == text
    assert found.cursor is not None and found.cursor.offset == len(data), "the cursor is the file's"


def test_each_line_has_its_own_cursor_and_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "c0ffee-json.log"
    data = [line("one\n"), line("x" * LINE_LIMIT), line("three\n")]
    path.write_bytes(b"".join(data))
    found = lines(path, 3)
    assert [each.cursor.offset for each in found if each.cursor] == [
        len(data[0]),
        len(data[0] + data[1]),
        len(data[0] + data[1] + data[2]),
    ]
    assert [bool(each.truncated) for each in found] == [False, True, False]
    assert found[2].text.endswith("three")


def test_only_docker_s_names_are_docker_s() -> None:
    assert docker.is_docker("/var/lib/docker/containers/c0ffee/c0ffee-json.log")
    assert not docker.is_docker("/var/log/mail.log")
