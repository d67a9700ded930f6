"""Whatever comes over the control socket, each line gets one answer or the connection ends, and the daemon lives on.

The invariants: `decode_request` and `decode_answer` never raise anything but what they say; a server on a real socket
answers the next caller correctly after any bytes, cut anywhere.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.control import client
from nftban.control.messages import (
    BadRequest,
    Request,
    decode_answer,
    decode_request,
    encode_request,
    encode_result,
)
from nftban.errors import NftbanError
from tests.unit.control.serving import Stage, listening

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "v": st.sampled_from([1, 1, 1, 2, True, "1", None]) | json_values,
        "op": st.sampled_from(["echo", "refuse", "not json", "boom"]) | json_values,
        "args": json_values,
        "ok": json_values,
        "result": json_values,
        "error": json_values,
    },
)


def as_line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


lines = st.one_of(st.binary(max_size=300), messages.map(as_line), json_values.map(as_line))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request with some bytes changed, cut or doubled."""
    line = bytearray(encode_request("echo", {"text": draw(st.text(max_size=20))}))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(line) - 1))
        line[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
        if not line:
            break
    return bytes(line)


@given(st.one_of(lines, damaged()))
def test_any_bytes_are_a_request_or_a_reason(line: bytes) -> None:
    found = decode_request(line)
    if isinstance(found, Request):
        # What was taken can be stored and sent: text is text, numbers are numbers.
        json.dumps(found.args, allow_nan=False, ensure_ascii=False).encode()
        assert decode_request(encode_request(found.op, found.args)) == found
    else:
        assert isinstance(found, BadRequest)
        assert found.why


@given(lines)
def test_any_bytes_are_an_answer_or_a_named_error(line: bytes) -> None:
    try:
        result = decode_answer(line)
    except NftbanError as e:
        assert isinstance(e.exit_code, int)
    else:
        assert decode_answer(encode_result(result)) == result


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nftban-") as folder:
        path = Path(folder) / "control.sock"
        with listening(path, Stage().call):
            yield path


@settings(max_examples=150, deadline=None)
@given(chunks=st.lists(st.one_of(lines, damaged()), max_size=5), hang_up=st.booleans())
def test_the_server_outlives_any_caller(served: Path, chunks: list[bytes], hang_up: bool) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(served))
        with contextlib.suppress(BrokenPipeError):
            for chunk in chunks:
                connection.sendall(chunk)
        if not hang_up:
            connection.shutdown(socket.SHUT_WR)
            answers = connection.makefile("rb").read().splitlines(keepends=True)
            # A line is what ends with a newline; half a line at the end is none.
            assert len(answers) == b"".join(chunks).count(b"\n")
            for answer in answers:
                told: dict[str, Any] = json.loads(answer)
                assert answer.endswith(b"\n")
                assert told["v"] == 1
                if not told["ok"]:
                    assert told["error"]["what"]
                    assert told["error"]["exit_code"] in (1, 2, 70)
    assert client.call(served, "echo", {"still": "here"}) == {"args": {"still": "here"}}
