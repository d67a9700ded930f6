"""Plain lists: an address, a prefix or a range `FIRST-LAST` per line.

Takes what FireHOL's .netset and .ipset, blocklist.de, Emerging Threats, Feodo, CINS, GreenSnow, Tor's exit list, Team
Cymru's bogons, PSBL and the old Spamhaus text have in common: IPv4 and IPv6 mixed; `#` and `;` begin a comment, also
behind an entry; blank lines; spaces around.
Notation is inet_pton's: `010.1.1.1` and `1.2.3` are bad lines, since tools differ on which addresses they are.  Host
bits are cleared, as ipset does.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

import numpy as np

from nftban.feeds.formats.parsed import Lines, Parsed, Tally
from nftban.feeds.formats.scan import Block
from nftban.prefixes import Prefix
from nftban.ranges import keys, packed_keys

_HASH, _SEMICOLON = ord("#"), ord(";")
_SHOWN = 60


def parse(chunks: Iterable[bytes]) -> Parsed:
    lines, tally = Lines(chunks), Tally()
    for number, text in lines:
        block = Block.of(text)
        begins = block.octets[block.starts]
        waiting = np.flatnonzero((begins != _HASH) & (begins != _SEMICOLON) & (block.starts != block.ends))
        value, length, at, good = block.prefix(block.starts[waiting])
        good &= block.ends_at(at)
        below = (np.int64(1) << (32 - length[good])) - 1
        first = value[good] & ~below
        if len(first):
            tally.add(4, first.astype(np.uint32), (first | below).astype(np.uint32))
        _singly(block, waiting[~good].tolist(), number, tally)
    return tally.parsed(lines, tally.ranges())


def _singly(block: Block, places: list[int], number: int, tally: Tally) -> None:
    """The lines that are not simply an IPv4 prefix."""
    packed: list[bytes] = []
    wider: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for place in places:
        text = content(block.line(place))
        if not text:
            continue
        try:
            # Most of what comes here: an IPv6 address alone.
            address = socket.inet_pton(socket.AF_INET6, text)
            if address[:12] != _MAPPED:
                packed.append(address)
                continue
        except (OSError, ValueError):
            pass
        try:
            family, first, last = entry(text)
        except ValueError as e:
            tally.bad(number + place, str(e))
        else:
            wider[family].append((first, last))
    if packed:
        single = packed_keys(b"".join(packed))
        tally.add(6, single, single)
    for family, pairs in wider.items():
        if pairs:
            tally.add(family, keys(family, [p[0] for p in pairs]), keys(family, [p[1] for p in pairs]))


_MAPPED = bytes(10) + b"\xff\xff"


def content(line: bytes) -> str:
    """What the line says without comment and space around it."""
    return line.partition(b"#")[0].partition(b";")[0].strip(b" \t\r").decode("ascii", "backslashreplace")


def entry(text: str) -> tuple[int, int, int]:
    """Family, first and last address of an entry; raises ValueError that says what is wrong."""
    first_text, dash, last_text = text.partition("-")
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    try:
        first = Prefix.parse(first_text)
        if not dash:
            return first.family, first.first, first.last
        last = Prefix.parse(last_text)
    except ValueError:
        raise ValueError(f"{shown!r} is not an address, prefix or range") from None
    if not (first.is_single and last.is_single and first.family == last.family and first.first <= last.first):
        raise ValueError(f"{shown!r} is not a range of addresses")
    return first.family, first.first, last.first
