"""Journal entries out of systemd's export format, and the syslog lines they would be in a file.

Takes bytes as `journalctl --output=export` writes them, in pieces of any size; gives `Entry` after `Entry`, and of an
entry the line `2026-11-24T10:00:00.123456+00:00 host program[pid]: message`, as rsyslog writes it into a file, so that
filters need not know where a line comes from.
Export, not JSON: there a field over 4 KiB is null and one with a single odd byte an array of numbers; here both are
their own bytes.
Guarantees: any bytes give entries or nothing, never an exception; of a field at most LINE_LIMIT bytes are kept.
What the sender chose cannot look like more than it is: a control character in a message is written #012 (octal, as
rsyslog does), so that one entry is one line, and a program's name has no blank, bracket or colon.
Does not: start journalctl; know which fields the journal itself vouches for (those with `_` in front).
Source: https://systemd.io/JOURNAL_EXPORT_FORMATS/, systemd.journal-fields(7).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache

from nftban.sources.chunks import LINE_LIMIT

FIELDS = ("MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "_COMM", "_PID", "_HOSTNAME")
"""What is asked for; __CURSOR and __REALTIME_TIMESTAMP always come."""

_NAME = re.compile(rb"[A-Z0-9_]{1,64}")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_NOT_IN_A_NAME = re.compile(r"[^\w./@+-]", re.ASCII)
_LENGTH = 8  # bytes of the little-endian length in front of a binary value


@dataclass(frozen=True, slots=True)
class Entry:
    """cursor: as journalctl takes it; time: microseconds since the epoch, of the journal; lacking: bytes cut off."""

    cursor: str
    time: int
    fields: dict[bytes, bytes]
    lacking: int

    def line(self) -> bytes | None:
        """Its line, without a newline; None of an entry that has no message."""
        message = self.fields.get(b"MESSAGE")
        if message is None:
            return None
        message = message.rstrip(b"\n")
        if _CONTROL.search(message):
            message = _CONTROL.sub(lambda found: b"#%03o" % found[0][0], message)
        if not message.isascii():
            message = message.decode(errors="backslashreplace").encode()
        get = self.fields.get
        program = get(b"SYSLOG_IDENTIFIER") or get(b"_COMM") or b""
        head = _head(get(b"_HOSTNAME", b""), program, get(b"SYSLOG_PID") or get(b"_PID") or b"")
        return b"%s.%06d+00:00 %s%s" % (_second(self.time // 1_000_000), self.time % 1_000_000, head, message)


class Entries:
    """The entries of one stream; holds what has no end yet."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[bytes, bytes] = {}
        self._lacking = 0
        self._name = b""  # of the binary value that is being read,
        self._left = 0  # bytes of it to come, with its newline,
        self._value = bytearray()  # and its beginning

    def read(self, data: bytes) -> list[Entry]:
        """The entries that are whole with these bytes."""
        found: list[Entry] = []
        data, at = self._rest + data, 0
        while at < len(data):
            if self._left:
                at += self._binary(data[at : at + self._left])
                continue
            end = data.find(b"\n", at)
            if end < 0:
                break
            if end == at:
                self._end(found)
            elif (equals := data.find(b"=", at, end)) >= 0:
                self._keep(data[at:equals], data[equals + 1 : end])
            elif _NAME.fullmatch(data, at, end):
                if len(data) < end + 1 + _LENGTH:
                    break
                self._name = data[at:end]
                self._left = int.from_bytes(data[end + 1 : end + 1 + _LENGTH], "little") + 1
                end += _LENGTH
            at = end + 1
        rest = data[at:]
        self._lacking += max(0, len(rest) - 2 * LINE_LIMIT)
        self._rest = rest[: 2 * LINE_LIMIT]
        return found

    def _binary(self, piece: bytes) -> int:
        self._left -= len(piece)
        text = piece if self._left else piece[:-1]
        room = LINE_LIMIT - len(self._value)
        self._value += text[:room]
        self._lacking += max(0, len(text) - room)
        if not self._left:
            self._keep(self._name, bytes(self._value))
            self._value.clear()
        return len(piece)

    def _keep(self, name: bytes, value: bytes) -> None:
        # The journal's own fields come first, so none of a sender's can take their place.
        if name not in self._fields:
            self._fields[name] = value[:LINE_LIMIT]
            self._lacking += max(0, len(value) - LINE_LIMIT)

    def _end(self, found: list[Entry]) -> None:
        cursor, when = self._fields.get(b"__CURSOR", b""), self._fields.get(b"__REALTIME_TIMESTAMP", b"")
        if cursor and when.isdigit() and len(when) <= 18:
            found.append(Entry(cursor.decode(errors="replace"), int(when), self._fields, self._lacking))
        self._fields, self._lacking = {}, 0


@lru_cache(maxsize=8)
def _second(epoch: int) -> bytes:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(epoch)).encode()
    except (OverflowError, ValueError, OSError):
        return b"1970-01-01T00:00:00"


@lru_cache(maxsize=1024)
def _head(host: bytes, program: bytes, pid: bytes) -> bytes:
    """`host program[pid]: `, of which nothing can be mistaken for something else."""
    names = [_NOT_IN_A_NAME.sub("_", name.decode(errors="replace"))[:128] or "-" for name in (host, program)]
    number = f"[{pid.decode()}]" if pid.isdigit() and len(pid) <= 10 else ""
    return f"{names[0]} {names[1]}{number}: ".encode()
