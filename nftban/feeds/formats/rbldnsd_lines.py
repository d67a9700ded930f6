"""The lines of an rbldnsd zone file, one by one: entries of every address dataset, values, specials.

Takes a line's bytes; gives `Entry`s or values; raises ValueError that says what is wrong with the line.
Stricter than rbldnsd in one thing: `010.1.1.1`, which it reads as 10.1.1.1 and others as 8.1.1.1, is refused.
Source: rbldnsd(8), "DATASET TYPES AND FORMATS".
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from nftban.feeds.formats.levels import EXCLUDED
from nftban.prefixes import range_prefixes

DEFAULT = 0x7F000002

_OCTET = rb"(?:0|[1-9][0-9]{0,2})"
_OCTETS = rb"%b(?:\.%b){0,3}" % (_OCTET, _OCTET)
_V4 = re.compile(rb"(%b)(?:/([0-9]{1,2})|-(%b))?(?=[ \t#;:]|$)" % (_OCTETS, _OCTETS))
_V6 = re.compile(rb"([0-9A-Fa-f:]+)(?:/([0-9]{1,3})(?=[ \t#;:]|$)|(?=[ \t#;]|$))")
_WORD = re.compile(rb"[0-9A-Fa-f]{1,4}")
_VALUE = re.compile(rb":([0-9]{1,3})(?:\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3}))?[ \t]*(?=:|$)")
_STAMP = re.compile(r"(\d{4})[:-]?(\d\d)[:-]?(\d\d)(?:[:-]?(\d\d)(?:[:-]?(\d\d)(?:[:-]?(\d\d))?)?)?", re.ASCII)
_SPAN = re.compile(r"\+(\d{1,9})([smhdw]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_KNOWN = re.compile(r"SOA|NS|TTL|TIMESTAMP|MAXRANGE4|=|[0-9]", re.ASCII)


class Kind(StrEnum):
    """The dataset types that list addresses."""

    IP4SET = "ip4set"
    IP4TSET = "ip4tset"
    IP4TRIE = "ip4trie"
    IP6TSET = "ip6tset"
    IP6TRIE = "ip6trie"

    @property
    def family(self) -> int:
        return 4 if self.value.startswith("ip4") else 6

    @property
    def one_value(self) -> bool:
        """Do all entries have one value, which the dataset has and not they?"""
        return self in (Kind.IP4TSET, Kind.IP6TSET)

    def level(self, length: int) -> int:
        """Which of two entries that cover an address decides: that of the higher level."""
        return max(8, length + 7 & ~7) if self is Kind.IP4SET else length


@dataclass(frozen=True, slots=True)
class Entry:
    """Addresses first..last with the A record `value`, or EXCLUDED."""

    level: int
    value: int
    first: int
    last: int


def entries(line: bytes, kind: Kind, default: int) -> list[Entry]:
    """What the line lists, ascending; several where an ip4set keeps a range in pieces; empty for no entry."""
    text = line.strip(b" \t\r")
    if not text or text[:1] in b"#;":
        return []
    excluded = text[:1] == b"!"
    if excluded:
        text = text[1:].lstrip(b" \t")
    read = _entry4 if kind.family == 4 else _entry6
    pieces, tail = read(text, kind, excluded)
    found = EXCLUDED if excluded else default if kind.one_value else value(tail, default)
    return [Entry(level, found, first, last) for level, first, last in pieces]


Pieces = list[tuple[int, int, int]]


def _entry4(text: bytes, kind: Kind, excluded: bool) -> tuple[Pieces, bytes]:
    match = _V4.match(text)
    if not match:
        raise ValueError(f"{_shown(text)} is not an IPv4 address, prefix or range")
    first, octets = _octets(match[1])
    length = 8 * octets
    if kind is Kind.IP4TSET and (octets < 4 or match[2] or match[3] or excluded):
        raise ValueError(f"{_shown(text)}: an ip4tset holds single addresses only")
    last = first | (1 << (32 - length)) - 1
    if match[2]:
        length = int(match[2])
        if length > 32 or first & (1 << (32 - length)) - 1:
            raise ValueError(f"{_shown(text)}: the prefix length does not fit the address")
        last = first | (1 << (32 - length)) - 1
    elif match[3]:
        if kind is not Kind.IP4SET:
            raise ValueError(f"{_shown(text)}: an {kind} holds no ranges")
        last = _range_end(first, octets, match[3])
        pieces = [(kind.level(p.length), p.first, p.last) for p in range_prefixes(4, first, last)]
        if not pieces:
            raise ValueError(f"{_shown(text)}: the range ends before it begins")
        return pieces, text[match.end() :]
    return [(kind.level(length), first, last)], text[match.end() :]


def _octets(text: bytes) -> tuple[int, int]:
    """Octets as the beginning of an address, and how many there are."""
    parts = [int(part) for part in text.split(b".")]
    if max(parts) > 255:
        raise ValueError(f"{_shown(text)}: an octet is at most 255")
    return int.from_bytes(bytes(parts).ljust(4, b"\0"), "big"), len(parts)


def _range_end(first: int, octets: int, text: bytes) -> int:
    """The last address of a range: as many octets as its beginning has, or only the last of them."""
    end, count = _octets(text)
    free = 32 - 8 * octets
    if count == 1 and octets > 1:
        end = first & ~(0xFF << free) | (end >> 24) << free
    elif count != octets:
        raise ValueError(f"{_shown(text)}: a range ends with as many octets as it begins with, or with one")
    return end | (1 << free) - 1


def _entry6(text: bytes, kind: Kind, excluded: bool) -> tuple[Pieces, bytes]:
    match = _V6.match(text)
    wrong = ValueError(f"{_shown(text)} is not an IPv6 address or prefix")
    if not match:
        raise wrong
    words = match[1].split(b":")
    whole = b"::" in match[1]
    if whole:
        try:
            first = int.from_bytes(socket.inet_pton(socket.AF_INET6, match[1].decode()), "big")
        except OSError:
            raise wrong from None
        length = 128
    else:
        if len(words) > 8 or not all(_WORD.fullmatch(word) for word in words):
            raise wrong
        length = 16 * len(words)
        first = int(b"".join(word.zfill(4) for word in words), 16) << (128 - length)
    if kind is Kind.IP6TSET and (match[2] or length != (128 if excluded else 64)):
        raise ValueError(f"{_shown(text)}: an ip6tset holds /64s in four words, and excludes whole addresses")
    if match[2]:
        length = int(match[2])
    if length > 128 or first & (1 << (128 - length)) - 1:
        raise ValueError(f"{_shown(text)}: the prefix length does not fit the address")
    return [(kind.level(length), first, first | (1 << (128 - length)) - 1)], text[match.end() :]


def value(tail: bytes, default: int) -> int:
    """The A record that stands behind an entry, or in a line that sets the default."""
    tail = tail.strip(b" \t\r")
    if tail[:1] != b":":
        return default
    match = _VALUE.match(tail)
    parts = [int(part) for part in match.groups() if part is not None] if match else []
    if not parts or max(parts) > 255 or parts == [0]:
        raise ValueError(f"{_shown(tail)} does not begin with an A record (:127.0.0.2: or :2:)")
    return int.from_bytes(bytes(parts), "big") if len(parts) == 4 else 0x7F000000 | parts[0]


def code_text(code: int) -> str:
    return socket.inet_ntoa(code.to_bytes(4, "big"))


def special(line: bytes) -> tuple[str, str]:
    """Name and arguments of `$NAME ARGUMENTS`, also behind `#`, `;` or `:`."""
    text = line.lstrip(b"#;:").decode("ascii", "backslashreplace")[1:]
    if text[:1] == "=" or text[:1].isdigit():
        return text[0], text[1:].strip()
    name, _, arguments = text.replace("\t", " ").partition(" ")
    return name, arguments.strip()


def is_known(name: str) -> bool:
    return _KNOWN.fullmatch(name) is not None


def dataset_kind(arguments: str) -> Kind | None:
    """The type in `type[:name] subzone ...`; None for one that lists no addresses."""
    word = arguments.split(" ")[0].partition(":")[0]
    return Kind(word) if word in list(Kind) else None


def most_addresses(arguments: str) -> int:
    """$MAXRANGE4's argument: a number of addresses, or `/LENGTH`."""
    word = arguments.split(" ")[0]
    number = word.removeprefix("/")
    if not (number.isascii() and number.isdigit() and len(number) <= 10):
        raise ValueError(f"$MAXRANGE4 {word[:20]}: neither a number of addresses nor a prefix length")
    if number != word and int(number) > 32:
        raise ValueError(f"$MAXRANGE4 {word}: there is no such prefix length")
    return int(number) if number == word else 1 << (32 - int(number))


def timestamps(arguments: str) -> tuple[float | None, float | None]:
    """$TIMESTAMP's two arguments in epoch seconds, UTC; None where not given."""
    words = arguments.split()
    made = _stamp(words[0]) if words else None
    if len(words) < 2:
        return made, None
    if span := _SPAN.fullmatch(words[1]):
        if made is None:
            raise ValueError("$TIMESTAMP: it expires some time after nothing")
        return made, made + int(span[1]) * _UNITS[span[2]]
    return made, _stamp(words[1])


def _stamp(word: str) -> float | None:
    if word in ("0", "-"):
        return None
    match = _STAMP.fullmatch(word)
    if not match:
        raise ValueError(f"$TIMESTAMP: {word[:40]!r} is no time (yyyy-mm-dd-hh-mi-ss)")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


def _shown(text: bytes) -> str:
    return repr((text[:60]).decode("ascii", "backslashreplace"))
