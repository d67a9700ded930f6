"""The control protocol: what stands on a line.

Takes and gives bytes: one JSON object (RFC 8259, UTF-8) per line.
    request  {"v": 1, "op": "ban", "args": {...}}
    answer   {"v": 1, "ok": true, "result": {...}}
             {"v": 1, "ok": false, "error": {"what": "...", "advice": "...", "exit_code": 75}}
Guarantees: any bytes are either a Request or a BadRequest that says why, never an exception; what was read holds only
finite numbers and text that UTF-8 can carry, so that it can be stored and sent again.  An error comes out of
`decode_answer` as it went into `encode_error`: the same words, advice and exit code.
Does not: read sockets, know the operations.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from nftban.errors import NftbanError, TryAgainError

VERSION = 1
MAX_REQUEST = 1 << 20
"""The longest request line in bytes, its newline included."""

WHO_MAY_ASK = "run the command as root (sudo), or become a member of the group named by [daemon] group"


@dataclass(frozen=True, slots=True)
class Request:
    """An operation's name and its arguments by name."""

    op: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A line that is no request: why, and what would be right."""

    why: str
    advice: str = ""


class AnsweredError(NftbanError):
    """What the daemon answered instead of a result; `exit_code` is the one of the error that it met."""

    def __init__(self, what: str, advice: str, exit_code: int) -> None:
        super().__init__(what, advice)
        self.exit_code = exit_code


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _parsed(line: bytes) -> Any:
    """The JSON value; ValueError (or RecursionError) where it is none that could be sent again."""
    value = json.loads(line.decode("utf-8"), parse_float=_finite, parse_constant=_finite)
    if b"\\u" in line:
        # "\ud800" is valid JSON but a lone surrogate, which neither SQLite nor a terminal takes.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _line(message: dict[str, Any]) -> bytes:
    # ASCII only: a line that is also safe to look at with socat.
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def encode_request(op: str, args: dict[str, Any]) -> bytes:
    return _line({"v": VERSION, "op": op, "args": args})


def decode_request(line: bytes) -> Request | BadRequest:
    """Any bytes; the newline at their end may be there or not."""
    try:
        message = _parsed(line)
    except (ValueError, RecursionError):
        return BadRequest("the request is not one line of JSON", 'send {"v":1,"op":"ping","args":{}} and a newline')
    if not isinstance(message, dict):
        return BadRequest("the request is not a JSON object", 'send {"v":1,"op":"ping","args":{}} and a newline')
    version = message.get("v")
    if type(version) is not int or version != VERSION:
        said = f"version {version}" if type(version) is int else "no version"
        return BadRequest(
            f"the request speaks {said:.40} of the control protocol, this daemon speaks version {VERSION}",
            "use the nftban command of the same release as the daemon (restart the daemon after an upgrade)",
        )
    op, args = message.get("op"), message.get("args", {})
    if not isinstance(op, str):
        return BadRequest('the request\'s "op" is not text', 'write the name of an operation: "op":"status"')
    if not isinstance(args, dict):
        return BadRequest('the request\'s "args" is not a JSON object', 'write "args":{} where there are none')
    return Request(op, args)


def encode_result(result: dict[str, Any]) -> bytes:
    """Raises ValueError or TypeError where the result is not made of JSON's types."""
    return _line({"v": VERSION, "ok": True, "result": result})


def encode_error(what: str, advice: str, exit_code: int) -> bytes:
    return _line({"v": VERSION, "ok": False, "error": {"what": what, "advice": advice, "exit_code": exit_code}})


def decode_answer(line: bytes) -> dict[str, Any]:
    """The result; raises AnsweredError where the daemon answered an error, TryAgainError where it is no answer."""
    try:
        message = _parsed(line)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict) and message.get("v") == VERSION:
        result, error = message.get("result"), message.get("error")
        if message.get("ok") is True and isinstance(result, dict):
            return result
        if isinstance(error, dict) and isinstance(error.get("exit_code"), int):
            raise AnsweredError(str(error.get("what", "")), str(error.get("advice", "")), error["exit_code"])
    raise TryAgainError(
        f"what listens on the control socket does not speak version {VERSION} of the control protocol",
        "use the nftban command of the same release as the daemon (restart the daemon after an upgrade)",
    )
