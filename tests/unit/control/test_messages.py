"""The lines of the control protocol: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json

import pytest

from nftban.control.messages import (
    AnsweredError,
    BadRequest,
    Request,
    decode_answer,
    decode_request,
    encode_error,
    encode_request,
    encode_result,
)
from nftban.errors import TryAgainError


def test_a_request_comes_back_as_it_was_sent() -> None:
    args = {"prefixes": ["192.0.2.7"], "seconds": None, "permanent": False, "reason": "naïve\n\u202e\x1b"}
    line = encode_request("ban", args)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode_request(line) == Request("ban", args)


def test_args_may_be_left_out() -> None:
    assert decode_request(b'{"v":1,"op":"list"}') == Request("list", {})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not one line of JSON"),
        (b"GET / HTTP/1.1\r\n", "not one line of JSON"),
        (b"\xff\xfe\n", "not one line of JSON"),
        (b'{"v":1,"op":"ban"', "not one line of JSON"),
        (b"[" * 100_000, "not one line of JSON"),
        (b'{"v":1,"op":"ban","args":{"seconds":NaN}}', "not one line of JSON"),
        (b'{"v":1,"op":"ban","args":{"seconds":-Infinity}}', "not one line of JSON"),
        (b'{"v":1,"op":"ban","args":{"seconds":1e999}}', "not one line of JSON"),
        (b'{"v":1,"op":"ban","args":{"seconds":' + b"9" * 5000 + b"}}", "not one line of JSON"),
        (b'{"v":1,"op":"ban","args":{"reason":"\\ud800"}}', "not one line of JSON"),
        (b"17\n", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"v":1}', '"op" is not text'),
        (b'{"v":1,"op":["ban"]}', '"op" is not text'),
        (b'{"v":1,"op":"ban","args":[]}', '"args" is not a JSON object'),
        (b'{"v":1,"op":"ban","args":null}', '"args" is not a JSON object'),
    ],
)
def test_what_is_no_request_is_told_why(line: bytes, why: str) -> None:
    answer = decode_request(line)
    assert isinstance(answer, BadRequest)
    assert why in answer.why


@pytest.mark.parametrize("version", ["2", "0", '"1"', "true", "1.0", "null", "1" * 4000])
def test_another_version_is_refused_in_words_that_name_both(version: str) -> None:
    answer = decode_request(f'{{"v":{version},"op":"status","args":{{}}}}'.encode())
    assert isinstance(answer, BadRequest)
    assert "this daemon speaks version 1" in answer.why
    assert (f"speaks version {version}"[:30] if version.isdigit() else "speaks no version") in answer.why
    assert len(answer.why) < 200


def test_a_result_comes_back_as_it_was() -> None:
    result = {"bans": [{"until": 1764000000.5, "reason": "line\nof a log \x1b]0;"}], "n": None}
    assert decode_answer(encode_result(result)) == result


def test_an_error_comes_back_with_words_advice_and_exit_code() -> None:
    with pytest.raises(AnsweredError) as caught:
        decode_answer(encode_error("10.0.0.1 is the gateway", "ban something else", 1))
    assert (str(caught.value), caught.value.advice, caught.value.exit_code) == (
        "10.0.0.1 is the gateway",
        "ban something else",
        1,
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"220 mail.example.net ESMTP\r\n",
        b"{}\n",
        b'{"v":2,"ok":true,"result":{}}\n',
        b'{"v":1,"ok":true,"result":[]}\n',
        b'{"v":1,"ok":false,"error":{"what":"x"}}\n',
        b'{"v":1,"ok":1,"result":{}}\n',
    ],
)
def test_what_is_no_answer_of_this_version_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(TryAgainError, match="does not speak version 1"):
        decode_answer(line)


def test_a_result_that_json_cannot_hold_is_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_result({"x": float("nan")})
    with pytest.raises(TypeError):
        encode_result({"x": object()})
    assert json.loads(encode_result({}))["ok"] is True
