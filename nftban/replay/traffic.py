"""What the addresses under suspicion did in the logs altogether, and what of it bans would have stopped.

Takes the addresses, the times in which each is banned, and chunks; gives, of each chunk, how many lines name each
address, how many of them while it is banned, and the mail that Postfix accepted from it: a line `QUEUEID:
client=NAME[ADDRESS]` and behind it one of qmgr's, `QUEUEID: from=<...`, by which the whole message is in the queue.
Chunks may be taken in any order, by several processes; `Mail` joins what lies in two of them.
Guarantees: an address is found as a whole one only (192.0.2.1 is not in 192.0.2.10), a line counts once for each.
Limits: of an IPv6 /64 the addresses that offended or logged in are looked for; acceptance is seen where it is logged in
the same chunk or in the first JOINED bytes of the next.
Does not: read files, decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ahocorasick_rs

from nftban.detect.timestamps import Timestamps
from nftban.sources.chunks import Chunk

JOINED = 128 * 1024
_HEAD = 64  # characters of a line in which its date is looked for

_QUEUED = re.compile(rb"qmgr\[\d+\]: (\w{5,20}): from=<")
_CLIENT = re.compile(rb"[ :](\w{5,20}): client=[^\n]{0,300}?\Z")
_WORD = frozenset(bytes((character,)) for character in b"0123456789abcdefABCDEF.:")

Span = tuple[float, float]
"""A ban: since and until."""


class Mails(NamedTuple):
    """Messages that a client began to send: its number, when, the queue's name for it."""

    client: int
    time: float
    queue: bytes


@dataclass(slots=True)
class Seen:
    """Of a chunk.  lines: by address's number; stopped: the same for each set of settings, by (number, ban); mails:
    accepted ones; begun: of which it is not known yet; queued: messages that went into the queue at its beginning."""

    lines: dict[int, int]
    stopped: list[dict[tuple[int, int], int]]
    mails: list[Mails]
    begun: list[Mails]
    queued: frozenset[bytes]


class Traffic:
    """The addresses by number, and their bans under each set of settings."""

    def __init__(self, addresses: Sequence[str], bans: Sequence[Mapping[int, Sequence[Span]]]) -> None:
        self._bans = bans
        self._free = (None,) * len(bans)
        self._timestamps = Timestamps()
        texts = [address.encode() for address in addresses]
        self._v6 = [b":" in text for text in texts]
        self._automaton = ahocorasick_rs.BytesAhoCorasick(texts, matchkind=ahocorasick_rs.MatchKind.LeftmostLongest)

    def chunk(self, chunk: Chunk, now: float) -> Seen:
        """now: by which dates without a year are completed."""
        data = chunk.data
        seen = Seen({}, [{} for _ in self._bans], [], [], frozenset(_QUEUED.findall(data, 0, JOINED)))
        queued = set(_QUEUED.findall(data))
        first, last = self._bounds(data, now)
        whole: dict[int, tuple[int | None, ...]] = {}  # what holds from the chunk's beginning to its end
        time = first
        for number, start, at, behind in self._lines(data):
            seen.lines[number] = seen.lines.get(number, 0) + 1
            held = whole.get(number)
            if held is None:
                held = whole[number] = tuple(_constant(bans.get(number, ()), first, last) for bans in self._bans)
            mail = data.startswith(b"]", behind) and (found := _CLIENT.search(data, start, at)) is not None
            banned = held != self._free  # of others nobody wants to know when
            if banned and (mail or _CHANGES in held):
                stamp = self._timestamps.read(data[start : start + _HEAD].decode(errors="replace"), now)
                time = stamp.time if stamp is not None and stamp.time is not None else time
            for bans, stopped, constant in zip(self._bans, seen.stopped, held, strict=True) if banned else ():
                ban = _index(bans.get(number, ()), time) if constant == _CHANGES else constant
                if ban is not None:
                    stopped[number, ban] = stopped.get((number, ban), 0) + 1
            if mail and found is not None:
                message = Mails(number, time, found[1])
                (seen.mails if found[1] in queued else seen.begun).append(message)
        return seen

    def _lines(self, data: bytes) -> Iterator[tuple[int, int, int, int]]:
        """Address, where the line begins that names it, where the address begins and ends; once for each line."""
        start = end = -1
        named: set[int] = set()
        for number, at, behind in self._automaton.find_matches_as_indexes(data):
            before, after = data[at - 1 : at], data[behind : behind + 2]
            if before in _WORD and at and (before != b":" or self._v6[number]):
                continue
            if after[:1] in _WORD and (after[:1] not in (b".", b":") or after[1:] in _WORD):
                continue
            if at >= end:
                start = data.rfind(b"\n", 0, at) + 1
                end = data.find(b"\n", behind)
                named.clear()
            if number not in named:
                named.add(number)
                yield number, start, at, behind

    def _bounds(self, data: bytes, now: float) -> tuple[float, float]:
        """The time of the chunk's first and last line; where they have none, all there is."""
        last = data.rfind(b"\n", 0, len(data) - 1) + 1
        stamps = [self._timestamps.read(data[at : at + _HEAD].decode(errors="replace"), now) for at in (0, last)]
        times = [stamp.time for stamp in stamps if stamp is not None and stamp.time is not None]
        return (times[0], times[1]) if len(times) == 2 else (float("-inf"), float("inf"))


_CHANGES = -1
_SLACK = 60.0  # lines of several programs come a little out of order


def _constant(bans: Sequence[Span], first: float, last: float) -> int | None:
    """The ban that holds from first to last, None where none does all the time, _CHANGES where that changes."""
    for number, (since, until) in enumerate(bans):
        if since < last + _SLACK and until > first - _SLACK:
            return number if since <= first - _SLACK and until >= last + _SLACK else _CHANGES
    return None


def _index(bans: Sequence[Span], time: float) -> int | None:
    return next((number for number, (since, until) in enumerate(bans) if since < time < until), None)


class Mail:
    """Joins messages begun in one chunk and queued in the next; chunks of one log, in order."""

    def __init__(self) -> None:
        self._begun: list[Mails] = []

    def accepted(self, seen: Seen) -> tuple[Mails, ...]:
        """The messages that are in the queue with this chunk."""
        joined = [mail for mail in self._begun if mail.queue in seen.queued]
        self._begun = seen.begun
        return (*joined, *seen.mails)
