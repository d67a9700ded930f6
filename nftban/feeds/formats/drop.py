"""Spamhaus DROP as JSON lines: `{"cidr": ..., "sblid": ..., "rir": ...}`, and one line of metadata.

The metadata (`"type": "metadata"`) say when the list was made, how many records it has and under which terms: these
are kept, and guards.py holds the number against what was read.  Other keys are not looked at.
Source: https://www.spamhaus.org/drop/drop_v4.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from nftban.feeds.formats.netset import entry
from nftban.feeds.formats.parsed import Lines, Parsed, Tally
from nftban.ranges import Spans

_SHOWN = 400


def parse(chunks: Iterable[bytes]) -> Parsed:
    lines, tally = Lines(chunks), Tally()
    metadata: dict[str, Any] = {}
    pairs: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for number, block in lines:
        for place, line in enumerate(block.split(b"\n")):
            if not line.strip():
                continue
            try:
                record = _record(line)
                if record.get("type") == "metadata":
                    metadata = record
                    continue
                family, first, last = entry(_text(record, "cidr"))
            except ValueError as e:
                tally.bad(number + place, str(e))
            else:
                pairs[family].append((first, last))
    for family in (4, 6):
        spans = Spans.of(family, pairs[family])
        tally.add(family, spans.first, spans.last)
    about = "; ".join(str(metadata[key])[:_SHOWN] for key in ("copyright", "terms") if metadata.get(key))
    says, made = _number(metadata.get("records")), _number(metadata.get("timestamp"))
    return tally.parsed(lines, tally.ranges(), says=says, made=None if made is None else float(made), about=about)


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not a JSON object") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def _text(record: dict[str, Any], key: str) -> str:
    text = record.get(key)
    if not isinstance(text, str):
        raise ValueError(f"a record without {key!r}")
    return text


def _number(given: object) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 1 << 53 else None
