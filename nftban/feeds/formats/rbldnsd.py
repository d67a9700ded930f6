"""rbldnsd's zone files, of every dataset type that lists addresses: ip4set, ip4tset, ip4trie, ip6tset, ip6trie, and
`combined`, whose sections are of these types (sections of other types are passed over).

Takes the lines; gives the addresses with the A record that each is listed with.  What counts is what rbldnsd would
answer: an ip4set is asked by address, then /24, /16, /8, a trie by the longest prefix, and the first that has an entry
decides, be it an exclusion (`!`).
`:A:TEXT` lines set the default for those below; `$TIMESTAMP` and `$MAXRANGE4` are obeyed, the other specials concern
DNS only.  Texts (TXT records) are dropped.
Many IPv4 lines are read at once (scan.py); what they do not fit is read by rbldnsd_lines.py, one by one.
Source: rbldnsd(8); where it is silent, rbldnsd itself, against which the tests hold this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from nftban.feeds.formats import rbldnsd_lines as single
from nftban.feeds.formats.levels import EXCLUDED, Levels
from nftban.feeds.formats.parsed import Lines, Parsed, Tally
from nftban.feeds.formats.rbldnsd_lines import DEFAULT, Kind
from nftban.feeds.formats.scan import NEWLINE, Block, Marks, Places, Values
from nftban.ranges import Ranges, Spans

MOST_VALUES = 256
MOST_SECTIONS = 256
_SPECIAL = np.frombuffer(b"$#;:", np.uint8)
# Below this many lines numpy gains nothing.
FEWEST = 8


@dataclass(slots=True)
class _Dataset:
    """One dataset; kind None: of a type that lists no addresses; value: what a dataset of one value answers with, the
    first default in it, wherever that stands."""

    kind: Kind | None
    levels: Levels = field(default_factory=Levels)
    value: int | None = None


@dataclass(slots=True)
class _State:
    """What lines say about those below them."""

    dataset: _Dataset
    default: int = DEFAULT
    most: int = 1 << 32
    made: float | None = None
    expires: float | None = None


def parse(chunks: Iterable[bytes], kind: str) -> Parsed:
    """kind: ip4set, ip4tset, ip4trie, ip6tset, ip6trie or combined."""
    lines, tally = Lines(chunks), Tally()
    state = _State(_Dataset(None if kind == "combined" else Kind(kind)))
    datasets = [state.dataset]
    values: set[int] = {EXCLUDED}
    for number, text in lines:
        block = Block.of(text)
        block = replace(block, starts=block.behind_blanks(block.starts, 60))
        for begin, end in _stretches(block, number, state, datasets, tally, combined=kind == "combined"):
            _entries(block, begin, end, number, state, values, tally)
    codes: dict[int, list[Ranges]] = {}
    for dataset in datasets:
        if dataset.kind is not None:
            for value, ranges in dataset.levels.resolved(dataset.kind.family).items():
                if dataset.kind.one_value and dataset.value is not None:
                    value = dataset.value
                codes.setdefault(value, []).append(ranges)
    by_code = {single.code_text(value): Ranges.union(several) for value, several in sorted(codes.items())}
    return tally.parsed(lines, Ranges.union(by_code.values()), by_code, made=state.made, expires=state.expires)


def _stretches(
    block: Block, number: int, state: _State, datasets: list[_Dataset], tally: Tally, *, combined: bool
) -> Iterator[tuple[int, int]]:
    """Lines from..to between those that change the state, which is as the lines above left it at each."""
    done = 0
    for place in np.flatnonzero(np.isin(block.octets[block.starts], _SPECIAL)).tolist():
        line = block.line(place).rstrip(b" \t\r")
        if line[:1] in (b"#", b";") and line[1:2] != b"$":
            continue
        if done < place:
            yield done, place
        done = place + 1
        try:
            _special(line, state, datasets, combined=combined)
        except ValueError as e:
            tally.bad(number + place, str(e))
    if done < len(block.starts):
        yield done, len(block.starts)


def _special(line: bytes, state: _State, datasets: list[_Dataset], *, combined: bool) -> None:
    if line[:1] == b":" and line[1:2] != b"$":
        default = single.value(line, DEFAULT)
        state.default = default
        if state.dataset.value is None:
            state.dataset.value = default
        return
    name, arguments = single.special(line)
    if name == "DATASET" and combined:
        if len(datasets) > MOST_SECTIONS:
            raise ValueError(f"more than {MOST_SECTIONS} datasets")
        state.dataset = _Dataset(single.dataset_kind(arguments))
        state.default, state.most = DEFAULT, 1 << 32
        datasets.append(state.dataset)
    elif name == "MAXRANGE4":
        state.most = min(state.most, single.most_addresses(arguments))
    elif name == "TIMESTAMP":
        state.made, state.expires = single.timestamps(arguments)
    elif not single.is_known(name) and line[:1] not in (b"#", b";"):
        raise ValueError(f"there is no ${name[:20]}")


def _entries(block: Block, begin: int, end: int, number: int, state: _State, values: set[int], tally: Tally) -> None:
    """The lines begin..end, which are entries, comments or blank."""
    kind = state.dataset.kind
    if kind is None:
        return
    starts = block.starts[begin:end]
    begins = block.octets[starts]
    waiting = np.flatnonzero((begins != ord("#")) & (begins != ord(";")) & (begins != NEWLINE))
    if kind.family == 4 and len(waiting) >= FEWEST:
        waiting = waiting[~_simple(block, starts[waiting], kind, state, values, tally)]
    for place in waiting.tolist():
        try:
            entries = single.entries(block.line(begin + place), kind, DEFAULT if kind.one_value else state.default)
            if not entries:
                continue
            first, last = entries[0].first, entries[-1].last
            if kind.family == 4 and last - first >= state.most:
                raise ValueError(f"a range of more addresses than $MAXRANGE4 allows ({state.most})")
            _know(entries[0].value, values)
        except ValueError as e:
            tally.bad(number + begin + place, str(e))
            continue
        for each in entries:
            state.dataset.levels.put(each.level, each.value, Spans.of(kind.family, [(each.first, each.last)]))
        if entries[0].value != EXCLUDED:
            tally.keep(kind.family, Spans.of(kind.family, [(first, last)]))


def _know(value: int, values: set[int]) -> None:
    if value not in values and len(values) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES} different A records")
    values.add(value)


def _simple(block: Block, starts: Places, kind: Kind, state: _State, values: set[int], tally: Tally) -> Marks:
    """Takes the lines that are an IPv4 address or prefix, perhaps excluded, perhaps with a value; says which."""
    excluded = block.octets[starts] == ord("!")
    first, length, behind, good = block.prefix(block.behind_blanks(starts + excluded))
    below = (np.int64(1) << (32 - length)) - 1
    good &= ((first & below) == 0) & (below < state.most)
    if kind is Kind.IP4TSET:
        good &= ~excluded & (length == 32)
    at = block.behind_blanks(behind)
    here = block.octets[at]
    comment = (here == ord("#")) | (here == ord(";"))
    colon = here == ord(":")
    ended = block.ends_at(at)
    good &= ended | comment | colon | (at > behind)
    value = np.full(len(starts), DEFAULT if kind.one_value else state.default, np.int64)
    if not kind.one_value and colon.any():
        places = np.flatnonzero(colon)
        value[places], understood = _values(block, at[places] + 1)
        good[places] &= understood
    value[excluded] = EXCLUDED
    level = np.array([kind.level(n) for n in range(33)])[np.clip(length, 0, 32)]
    for group in np.unique((level << 33 | value + 1)[good]).tolist():
        of_level, of_value = group >> 33, (group & (1 << 33) - 1) - 1
        chosen = good & (level == of_level) & (value == of_value)
        try:
            _know(of_value, values)
        except ValueError:
            good &= ~chosen
            continue
        low = first[chosen].astype(np.uint32)
        high = low if of_level == 32 and not below[chosen].any() else low + below[chosen].astype(np.uint32)
        state.dataset.levels.put(of_level, of_value, Spans(low, high))
        if of_value != EXCLUDED:
            tally.keep(4, Spans(low, high))
    return good


def _values(block: Block, at: Places) -> tuple[Values, Marks]:
    """The A records at these places: `2` or `127.0.0.2`, with `:` or the line's end behind them."""
    value, digits = block.number(at, 3)
    end = at + digits
    good = (digits > 0) & (value > 0) & (value < 256)
    value |= 0x7F000000
    dotted = np.flatnonzero(block.octets[end] == ord("."))
    if len(dotted):
        value[dotted], end[dotted], good[dotted] = block.quad(at[dotted])
    return value, good & ((block.octets[end] == ord(":")) | block.ends_at(end))
