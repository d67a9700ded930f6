"""DShield's block list: per line, separated by tabs, first address, last address, prefix length, and more.

The three must agree; a header line ("Start", "End", ...) and comments (`#`) are passed over.
Source: https://feeds.dshield.org/block.txt
"""

from __future__ import annotations

from collections.abc import Iterable

from nftban.feeds.formats.netset import content
from nftban.feeds.formats.parsed import Lines, Parsed, Tally
from nftban.prefixes import Prefix
from nftban.ranges import Spans


def parse(chunks: Iterable[bytes]) -> Parsed:
    lines, tally = Lines(chunks), Tally()
    prefixes: list[Prefix] = []
    for number, block in lines:
        for place, line in enumerate(block[:-1].split(b"\n")):
            words = content(line).split()
            if not words or words[:2] == ["Start", "End"]:
                continue
            try:
                prefixes.append(_prefix(words))
            except ValueError as e:
                tally.bad(number + place, str(e))
    for family in (4, 6):
        spans = Spans.of(family, [(p.first, p.last) for p in prefixes if p.family == family])
        tally.add(family, spans.first, spans.last)
    return tally.parsed(lines, tally.ranges())


def _prefix(words: list[str]) -> Prefix:
    if len(words) < 3:
        raise ValueError("not three columns: first address, last address, prefix length")
    first, last = Prefix.parse(words[0][:60]), Prefix.parse(words[1][:60])
    prefix = Prefix.parse(f"{words[0][:60]}/{words[2][:4]}")
    if (prefix.first, prefix.last) != (first.first, last.first) or not (first.is_single and last.is_single):
        raise ValueError(f"{first} to {last} is not a /{words[2][:4]}")
    return prefix
