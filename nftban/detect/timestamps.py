"""The time at the start of a log line.

Takes the line's text and `now`; gives seconds since the epoch and the span of the text that is the date (fail2ban
cuts that span out before it matches).  Knows RFC 3164 (`Nov 24 20:13:28`), RFC 3339 and ISO 8601 with or without
fraction and zone (`2026-11-24T20:13:28.123456+00:00`, `2026-11-24 20:13:28,123`) and epoch seconds; each may stand
in brackets, of which only the inside is the date.
A date without a zone is the machine's local time.  A date without a year is of the latest year that does not put
it more than 24 hours after `now`.  In the hour that a clock set back repeats, it is the later of the two readings
that is not after `now`.
Everything left of the seconds is looked up in a cache: zones change on minute borders only, so it is exact.  What
depends on `now` is held with the span of `now` it is good for, or not held.
Does not: find a date in the middle of a line, know other formats, read the clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

DAY = 86400.0
_AHEAD = 60.0  # how far a local reading may be after `now` and still be believed: clocks of two hosts differ
_CACHED = 4096

_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_DATE = re.compile(
    r"\s{0,4}\[?(?:"
    r"(?P<rfc3164>[A-Z][a-z]{2} [ 0-3]?\d [0-2]?\d:[0-5]\d:)(?P<s1>[0-6]\d)(?!\d)(?P<f1>\.\d{1,9})?"
    r"|(?P<iso>\d{4}-[01]\d-[0-3]\d[T ][0-2]\d:[0-5]\d:)(?P<s2>[0-6]\d)(?!\d)(?P<f2>[.,]\d{1,9})?"
    r"(?P<zone>Z|[+-][0-2]\d:?[0-5]\d)?"
    r"|(?P<epoch>1\d{9}(?:\.\d{1,9})?)(?=[\]\s])"
    r")",
    re.ASCII,
)


class Stamp(NamedTuple):
    """A date found: `time` in seconds since the epoch; the date is text[start:end]."""

    time: float
    start: int
    end: int


class Timestamps:
    """Reads dates; holds the cache."""

    __slots__ = ("_minutes",)

    def __init__(self) -> None:
        # Left of the seconds -> epoch of that minute, and the span of `now` in which this reading holds.
        self._minutes: dict[tuple[str, str | None], tuple[float, float, float]] = {}

    def read(self, text: str, now: float) -> Stamp | None:
        """The date at the start of the text, or None where there is none or it names no real time."""
        found = _DATE.match(text)
        if found is None:
            return None
        kind = found.lastgroup
        rfc3164, s1, f1, iso, s2, f2, zone, epoch = found.groups()
        start, end = found.span("epoch" if epoch else "rfc3164" if rfc3164 else "iso")
        if epoch:
            return Stamp(float(epoch), start, end)
        end = found.end(kind) if kind else end
        key = (rfc3164 or iso, zone)
        held = self._minutes.get(key)
        if held is None or not held[1] <= now < held[2]:
            held = _minute_without_year(rfc3164, now) if rfc3164 else _minute(iso, zone, now)
            if held is None:
                return None
            if held[1] < held[2]:
                if len(self._minutes) >= _CACHED:
                    self._minutes.clear()
                self._minutes[key] = held
        fraction = f1 or f2
        seconds = float((s1 or s2) + ("." + fraction[1:] if fraction else ""))
        return Stamp(held[0] + seconds, start, end)


def _minute(left: str, zone: str | None, now: float) -> tuple[float, float, float] | None:
    """The epoch of `2026-11-24T20:13:` and the span of `now` it is good for (empty: do not keep)."""
    try:
        moment = datetime.fromisoformat(left[:10] + "T" + left[11:16])
        if zone is None:
            return _local(moment, now)
        return moment.replace(tzinfo=_offset(zone)).timestamp(), float("-inf"), float("inf")
    except (ValueError, OverflowError, OSError):
        return None


def _offset(zone: str) -> timezone:
    if zone == "Z":
        return UTC
    span = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
    return timezone(-span if zone[0] == "-" else span)


def _minute_without_year(left: str, now: float) -> tuple[float, float, float] | None:
    month = _MONTHS.get(left[:3])
    if month is None:
        return None
    day, clock = left[4:].split()
    hour, minute = clock.split(":")[:2]
    year = datetime.fromtimestamp(now, UTC).year + 1
    following = float("inf")
    # From next year (New Year's Eve, or a zone ahead of UTC) back to the last leap year before a skipped one.
    for guess in range(year, year - 10, -1):
        try:
            moment = datetime(guess, month, int(day), int(hour), int(minute))  # noqa: DTZ001 - local on purpose
            local = _local(moment, now)
        except (ValueError, OverflowError, OSError):
            continue
        if local[0] <= now + DAY:
            return local[0], max(local[1], local[0] - DAY), min(local[2], following - DAY)
        following = local[0]
    return None


def _local(moment: datetime, now: float) -> tuple[float, float, float]:
    """A local wall-clock minute: epoch, and the span of `now` for which this reading is right."""
    first = moment.timestamp()
    second = moment.replace(fold=1).timestamp()
    if second <= first:  # no repeated hour; a skipped one gives second < first and either is as good
        return first, float("-inf"), float("inf")
    # The repeated hour: the later reading as soon as it can have been.
    return (first, float("-inf"), second - _AHEAD) if now < second - _AHEAD else (second, second - _AHEAD, float("inf"))
