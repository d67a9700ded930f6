"""Docker's json-file logs as the lines they stand for.

Takes a Chunk of `CONTAINER-json.log`, a JSON object a line, {"log":"text\\n","stream":"stdout","time":"2026-..."};
gives one of the texts, each with its own line's cursor.  A text that has no time of its own gets Docker's in front.
Guarantees: one line in, one line out; a line that is no such object is given as it is; a control character in a text is
written #012 (octal).  A text that Docker broke into pieces (over 16 KiB) stays in pieces.
Does not: read files; look at a log of any other name, so that no line of another log is taken for JSON.
Source: Docker's manual, "JSON File logging driver".
"""

from __future__ import annotations

import json
import re

from nftban.sources.chunks import Chunk
from nftban.sources.composed import composed

ENDING = "-json.log"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CLOCK = re.compile(r"\d\d:\d\d:\d\d")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)\d*(Z|[+-]\d\d:\d\d)", re.ASCII)


def is_docker(path: str) -> bool:
    """Is a log of that name one of Docker's?"""
    return path.endswith(ENDING)


def decoded(chunk: Chunk) -> Chunk:
    """The same lines, out of their JSON."""
    lines = []
    for start, end in chunk.spans():
        text, lacking = chunk.text(start, end)
        lines.append((_text(text).encode(errors="backslashreplace"), chunk.cursor(end), lacking))
    return composed(chunk.source, lines)


def _text(line: str) -> str:
    try:
        given = json.loads(line)
        text, when = given["log"], _TIME.fullmatch(given["time"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return line
    if not isinstance(text, str):
        return line
    text = _CONTROL.sub(lambda found: f"#{ord(found[0]):03o}", text.rstrip("\r\n"))
    if when is None or _CLOCK.search(text):
        return text
    return f"{when[1]}{when[2].replace('Z', '+00:00')} {text}"
