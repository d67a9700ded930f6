"""Entries of which the most specific one decides: tries, ip4sets, zones with wildcards, RPZ.

Takes ranges with a level and a value (an A record as an integer, or EXCLUDED); gives, by value, the addresses that are
answered with it.  Guarantees: where entries of several levels cover an address, only those of the highest count; of
these an exclusion wins, and else each value counts.
rbldnsd takes the first of two entries on the same prefix of a trie, with a warning; here an exclusion wins and two
values both stand: such a file is faulty, and whoever it excludes is not banned.
"""

from __future__ import annotations

from collections.abc import Iterator

from nftban.ranges import Ranges, Spans

EXCLUDED = -1


class Levels:
    """Entries of one dataset, all of one family."""

    def __init__(self) -> None:
        self._spans: dict[tuple[int, int], list[Spans]] = {}

    def put(self, level: int, value: int, spans: Spans) -> None:
        self._spans.setdefault((level, value), []).append(spans)

    def resolved(self, family: int) -> dict[int, Ranges]:
        """By value, the addresses that get it as an answer; empties the object."""
        found: dict[int, Spans] = {}
        merged = {key: Spans.joined(spans).merged() for key, spans in self._taken()}
        several = len({value for _, value in merged}) > 1
        for level in sorted({level for level, _ in merged}):
            here = {value: spans for (of, value), spans in merged.items() if of == level}
            if several:
                every = Spans.joined(list(here.values())).merged()
                found = {value: spans.minus(every) for value, spans in found.items()}
            excluded = here.pop(EXCLUDED, None)
            for value, spans in here.items():
                listed = spans.minus(excluded) if excluded is not None else spans
                found[value] = Spans.joined([found[value], listed]).merged() if value in found else listed
        return {
            value: Ranges(spans) if family == 4 else Ranges(v6=spans) for value, spans in found.items() if len(spans)
        }

    def _taken(self) -> Iterator[tuple[tuple[int, int], list[Spans]]]:
        """The groups one by one, each let go as the next is asked for: a million entries are there only once."""
        while self._spans:
            yield self._spans.popitem()
