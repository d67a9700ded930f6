"""Who is on which feed: asked for one offender or for thousands at once, without a query to anybody.

Takes the feeds' ranges, or their addresses by A record (`Sync.ranges`, `Sync.codes`); gives names, or the records that
the DNSBL whose data a feed is would answer with.
Guarantees: ten thousand addresses in a list of a million take some milliseconds.  Does not: judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nftban.prefixes import Prefix
from nftban.ranges import Ranges


def feeds_with(ranges: Mapping[str, Ranges], prefixes: Sequence[Prefix]) -> list[tuple[str, ...]]:
    """For each prefix the feeds that hold all of it, in their order."""
    answers = {name: held.contains_each(prefixes) for name, held in ranges.items()}
    return [tuple(name for name, found in answers.items() if found[i]) for i in range(len(prefixes))]


def records(codes: Mapping[str, Ranges], prefix: Prefix) -> tuple[str, ...]:
    """The A records for an address, ascending by text; empty where it is not listed."""
    return tuple(sorted(code for code, held in codes.items() if held.contains(prefix)))
