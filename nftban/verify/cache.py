"""What DNS said, for as long as it may be believed, also over a restart.

Takes outcomes with their TTL; gives them back, the TTL counted down, until it has run out.
Guarantees: at most `size` outcomes, the longest kept go first.  A file holds what was known when it was written, never
for longer than the TTL bounds, whatever the clock did meanwhile; it is taken back only where the same servers are
asked, since what another resolver answered may be the very thing that was put right.  Failures stay out of it.
Account keys stay out of it too: the zones' names are written as `hidden` shows them.  A file that is missing, damaged
or somebody else's gives an empty cache, and one that cannot be written is done without.
Does not: know DNS or read clocks: `now` is the event loop's monotonic time, `epoch` the seconds a file is written in.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from nftban.verify.messages import LONGEST_MISSING_TTL, LONGEST_RECORDS_TTL
from nftban.verify.outcomes import Failed, Missing, Outcome, Records, RecordType

Key = tuple[str, RecordType]
"""A name in small letters, and a type."""

TYPES: tuple[RecordType, ...] = get_args(RecordType)
_FAMILIES = {"A": socket.AF_INET, "AAAA": socket.AF_INET6}
Row = list[object]
"""As JSON: name, type, epoch seconds of its end, and the records or whether the name exists."""


class Cache:
    """size: outcomes kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[Key, tuple[float, Outcome]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, now: float) -> Outcome | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        left = int(kept[0] - now)
        if left <= 0:
            del self._kept[key]
            return None
        match kept[1]:
            case Records(values):
                return Records(values, left)
            case Missing(_, name_exists):
                return Missing(left, name_exists)
            case Failed(reason):
                return Failed(reason, left)

    def put(self, key: Key, outcome: Outcome, now: float) -> None:
        kept = self._kept
        kept.pop(key, None)
        while len(kept) >= self._size:
            del kept[next(iter(kept))]
        kept[key] = (now + outcome.ttl, outcome)

    def forget(self, zone: str) -> None:
        """Drop what is kept of names in this zone."""
        suffix = "." + zone.lower()
        for key in [key for key in self._kept if key[0].endswith(suffix)]:
            del self._kept[key]

    def rows(self, now: float, epoch: float, hidden: Mapping[str, str]) -> list[Row]:
        """What a file is to hold.  hidden: zones' names with an account key, and the same without."""
        rows: list[Row] = []
        for (name, rdtype), (end, outcome) in list(self._kept.items()):
            if end > now and not isinstance(outcome, Failed):
                said = list(outcome.values) if isinstance(outcome, Records) else outcome.name_exists
                rows.append([_renamed(name, hidden), rdtype, round(epoch + end - now), said])
        return rows

    def take(self, rows: Iterable[object], now: float, epoch: float, hidden: Mapping[str, str]) -> None:
        """The same back.  A row that makes no sense is passed over."""
        shown = {display: name for name, display in hidden.items()}
        for row in rows:
            if not (isinstance(row, list) and len(row) == 4):
                continue
            name, rdtype, end, said = row
            kind = next((t for t in TYPES if t == rdtype), None)
            if not isinstance(name, str) or kind is None or not isinstance(end, int):
                continue
            key, left = (_renamed(name, shown), kind), end - int(epoch)
            if left > 0 and isinstance(said, bool):
                self.put(key, Missing(min(left, LONGEST_MISSING_TTL), said), now)
            elif left > 0 and isinstance(said, list) and said and all(_is_value(v, kind) for v in said):
                self.put(key, Records(tuple(said), min(left, LONGEST_RECORDS_TTL)), now)


def write(path: Path, servers: Iterable[str], rows: list[Row]) -> None:
    """Replaces the file, readable for its owner only: it tells who was asked about."""
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"servers": list(servers), "kept": rows}, file, separators=(",", ":"))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def read(path: Path, servers: Iterable[str]) -> list[object]:
    """The rows of a file that was written while these servers were asked."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(data, dict) or data.get("servers") != list(servers):
        return []
    rows = data.get("kept")
    return rows if isinstance(rows, list) else []


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for before, after in names.items():
        if name.endswith("." + before):
            return name[: -len(before)] + after
    return name


def _is_value(value: object, rdtype: str) -> bool:
    if not isinstance(value, str):
        return False
    family = _FAMILIES.get(rdtype)
    if family is not None:
        try:
            socket.inet_pton(family, value)
        except (OSError, ValueError):
            return False
    return True
