"""The time in a log line.

Takes the line's text and `now`; gives seconds since the epoch and the span of the text that is the date (fail2ban
cuts that span out before it matches).  Looks for the formats of a filter's `datepattern`, or for those that
datepattern.py knows: RFC 3164, RFC 3339 and ISO 8601, RFC 5424, epoch, TAI64N, and what Apache, Exim, Dovecot and
others write; one at the beginning of the line before one somewhere in it, and there the leftmost.
A date without a zone is the machine's local time.  A date without a year is of the latest year that does not put
it more than 24 hours after `now`; a time without a date is the latest that is not after `now`.  In the hour that a
clock set back repeats, it is the later of the two readings that is not after `now`.
Everything but the seconds is looked up in a cache: zones change on minute borders only, so it is exact.  What
depends on `now` is held with the span of `now` it is good for, or not held.
Does not: look for a date behind the first 2,000 characters or ten clocks, read the clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import NamedTuple

from nftban.detect.datepattern import DAYS, MONTHS, DatePattern, defaults

DAY = 86400.0
SEARCHED = 2000
_AHEAD = 60.0  # how far a local reading may be after `now` and still be believed: clocks of two hosts differ
_CACHED = 4096
_TAI = 0x4000000000000000

# Nearly all lines of nearly all logs begin with one of these; they are what the general patterns would find.
_COMMON = re.compile(
    r"\W{0,2}(?:"
    r"(?P<rfc3164>(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-3]?\d [0-2]?\d:[0-5]\d:)"
    r"(?P<s1>[0-6]\d)(?P<f1>\.\d{1,9})?(?!\w)(?! (?:199|20\d)\d(?![\w:.-]))"
    r"|(?P<iso>(?:199|20\d)\d-[01]\d-[0-3]\d[T ][0-2]\d:[0-5]\d:)(?P<s2>[0-6]\d)(?P<f2>[.,]\d{1,9})?"
    r"(?P<zone>\s*(?:Z|UTC|GMT|[+-][01]\d(?::?\d{2})?))?(?!\w)"
    r")",
    re.ASCII,
)

# Every date that is looked for anywhere in a line has one of these; a date ends within 60 characters of it.
_CLOCK = re.compile(r"\d:[0-5]\d:|\d{8}[T ]|@[0-9a-f]{24}|audit\(|^\[?\d{10}", re.ASCII)
_CLOCKS = 10

# Fixed offsets in hours; a name several countries use means what most mail and log writers mean by it.
_ZONE_HOURS = {
    "Z": 0, "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "BST": 1, "IST": 5.5, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2,
    "EET": 2, "EEST": 3, "MSK": 3, "MSD": 4, "SAST": 2, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7,
    "MDT": -6, "PST": -8, "PDT": -7, "AKST": -9, "AKDT": -8, "HST": -10, "AST": -4, "ADT": -3, "NST": -3.5,
    "NDT": -2.5, "BRT": -3, "ART": -3, "JST": 9, "KST": 9, "HKT": 8, "SGT": 8, "AWST": 8, "ACST": 9.5, "ACDT": 10.5,
    "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13,
}  # fmt: skip
_OFFSET = re.compile(r"(?P<name>[A-Za-z]{0,5})(?:(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})?)?$")
SECONDS = {form: float(second) for second in range(70) for form in (f"{second:02}", b"%02d" % second)}
"""What two digits say, as text and as bytes."""
_MONTH = {name.lower()[:3]: number for number, name in enumerate(MONTHS, 1)}
_WEEKDAY = {name.lower()[:3]: number for number, name in enumerate(DAYS)}


class Stamp(NamedTuple):
    """A date found: `time` in seconds since the epoch (None where the filter says that such lines have no date, or the
    date names no real time); the date is text[start:end]."""

    time: float | None
    start: int
    end: int


# An epoch minute, and the span of `now` in which this reading holds (empty: do not keep).
_Minute = tuple[float, float, float]
_INF = float("inf")


class Timestamps:
    """Reads dates; holds the cache."""

    __slots__ = ("_anchored", "_heads", "_known", "_loose", "_minutes", "_patterns", "common")

    def __init__(self, patterns: Sequence[DatePattern] = ()) -> None:
        """patterns: a filter's own; by default all that are known."""
        self._patterns = tuple(patterns) or defaults()
        self._anchored = [index for index, each in enumerate(self._patterns) if each.anchored]
        self._loose = [index for index, each in enumerate(self._patterns) if not each.anchored]
        # The quick ways are right only where the known patterns are looked for anyway, and first.
        self.common = self._patterns[: len(anchored())] == anchored()
        """Whether a date at a line's beginning is its date."""
        self._known = [self._patterns[index] for index in self._loose] == [p for p in defaults() if not p.anchored]
        self._minutes: dict[tuple[str | int | None, ...], _Minute] = {}
        self._heads: dict[str, _Minute] = {}  # `Nov 24 20:13:` at the beginning of a line

    def read(self, text: str, now: float) -> Stamp | None:
        """The date in the text, or None where there is none."""
        if (second := self.again(text, now)) is not None:
            return second
        found = _COMMON.match(text) if self.common else None
        held = self._common_minute(found, now) if found is not None else None
        if found is None or held is None:
            return self._search(text, now)
        rfc3164, s1, f1, _, s2, f2, zone = found.groups()
        fraction = f1 or f2
        seconds = float((s1 or s2) + ("." + fraction[1:] if fraction else ""))
        kind = "s1" if rfc3164 else "zone" if zone else "s2"
        end = max(found.end(kind), found.end("f1" if rfc3164 else "f2"))
        start = found.start("rfc3164" if rfc3164 else "iso")
        if rfc3164 and start == 0 and held[1] < held[2]:
            if len(self._heads) >= _CACHED:
                self._heads.clear()
            self._heads[rfc3164] = held
        return Stamp(held[0] + seconds, start, end)

    def minute(self, text: str, now: float) -> tuple[_Minute, int] | None:
        """Of a date that the text begins with, if it is one of the two that nearly all logs have: its minute, with the
        span of `now` for which that holds, and the date's length."""
        found = _COMMON.match(text) if self.common else None
        held = self._common_minute(found, now) if found is not None else None
        if found is None or held is None or held[1] >= held[2]:
            return None
        ends = max(found.end(name) for name in ("s1", "f1", "s2", "f2", "zone"))
        return None if found.start("rfc3164") and found.start("iso") else (held, ends)

    def _common_minute(self, found: re.Match[str], now: float) -> _Minute | None:
        rfc3164, iso, zone = found.group("rfc3164", "iso", "zone")
        key = (rfc3164 or iso, zone)
        held = self._minutes.get(key)
        if held is None or not held[1] <= now < held[2]:
            month = _MONTH[rfc3164[:3].lower()] if rfc3164 else int(iso[5:7])
            day, clock = rfc3164[4:].split() if rfc3164 else (iso[8:10], iso[11:])
            hour, minute = clock.split(":")[:2]
            year = None if rfc3164 else int(iso[:4])
            held = self._kept(key, _minute(year, month, int(day), int(hour), int(minute), (zone or "").strip(), now))
        return held

    def again(self, text: str, now: float) -> Stamp | None:
        """The date of a line that begins `Nov 24 20:13:28 m`, where an earlier one was of that minute; None says
        nothing."""
        held = self._heads.get(text[:13])
        if held is None or not held[1] <= now < held[2] or text[15:16] != " " or not text[16:17].isalpha():
            return None
        second = SECONDS.get(text[13:15])
        return None if second is None else Stamp(held[0] + second, 0, 15)

    def _search(self, text: str, now: float) -> Stamp | None:
        """The first anchored pattern that matches, else the leftmost match of any."""
        for index in self._anchored:
            found = self._patterns[index].regex.search(text, 0, SEARCHED)
            if found is not None:
                return Stamp(self._time(index, found, now), found.start(1), found.end(1))
        for start, end in _windows(text) if self._known else ((0, SEARCHED),):
            best: tuple[int, int, re.Match[str]] | None = None
            for index in self._loose:
                found = self._patterns[index].regex.search(text, start, end)
                if found is not None and (best is None or found.start(1) < best[0]):
                    best = (found.start(1), index, found)
            if best is not None:
                return Stamp(self._time(best[1], best[2], now), best[0], best[2].end(1))
        return None

    def _time(self, index: int, found: re.Match[str], now: float) -> float | None:
        kind = self._patterns[index].kind
        if not found[1]:
            return None  # the pattern says which lines have no date
        if kind == "tai64n":
            # TAI is ahead of UTC by the leap seconds, which the writers of these logs do not count either.
            return float(int(found[1][1:17], 16) - _TAI)
        if kind == "epoch":
            return _epoch(found["epoch"])
        names = found.re.groupindex
        seconds = found["S"] if "S" in names else None
        fraction = found["f"] if "f" in names else None
        start, end = found.span(1)
        key: tuple[str | int | None, ...] = (index, found[0])
        if seconds is not None:
            s = found.start("S")
            after = found.end("f") if fraction else found.end("S")
            # A pattern may keep part of its date outside what it cuts out: then nothing is known by that alone.
            if start <= s < after <= end and all(found.start(n) < 0 or start <= found.start(n) < end for n in names):
                key = (index, found.string[start:s], found.string[after:end])
        held = self._minutes.get(key)
        if held is None or not held[1] <= now < held[2]:
            held = self._kept(key, _minute_of({n: t for n, t in found.groupdict().items() if t is not None}, now))
            if held is None:
                return None
        return held[0] + float(f"{seconds or 0}.{fraction or 0}")

    def _kept(self, key: tuple[str | int | None, ...], minute: _Minute | None) -> _Minute | None:
        if minute is not None and minute[1] < minute[2]:
            if len(self._minutes) >= _CACHED:
                self._minutes.clear()
            self._minutes[key] = minute
        return minute


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Where in the text a known date can be: around what looks like a clock.  Each is tried before the next."""
    for found in islice(_CLOCK.finditer(text, 0, SEARCHED), _CLOCKS):
        yield max(0, found.start() - 40), found.start() + 60


def anchored() -> tuple[DatePattern, ...]:
    """The known formats at the beginning of a line."""
    return tuple(each for each in defaults() if each.anchored)


def _epoch(text: str) -> float:
    whole, _, fraction = text.partition(".")
    if len(whole) >= 16:
        return int(whole) / 1e6
    return float(text) / 1e3 if len(whole) >= 13 else float(f"{whole}.{fraction or 0}")


def _minute_of(fields: Mapping[str, str], now: float) -> _Minute | None:
    """The minute that strptime's fields name."""
    try:
        year = int(fields["Y"]) if "Y" in fields else int(fields["y"]) + 2000 if "y" in fields else None
        hour = int(fields.get("H", fields.get("I", "0")))
        if "I" in fields and "H" not in fields:
            hour = hour % 12 + (12 if fields.get("p", "").lower() == "pm" else 0)
        minute = int(fields.get("M", "0"))
        zone = fields.get("z") or fields.get("Z") or ""
        name = fields.get("b") or fields.get("B")
        month = int(fields["m"]) if "m" in fields else _MONTH[name.lower()[:3]] if name else None
        if month is not None and "d" in fields:
            return _minute(year, month, int(fields["d"]), hour, minute, zone, now)
        found = _day_of_year(fields, year or datetime.fromtimestamp(now).astimezone().year)
        if found is not None:
            return _minute(found.year, found.month, found.day, hour, minute, zone, now)
        if month is None and "d" not in fields:
            return _minute_without_day(hour, minute, zone, now)
    except (ValueError, KeyError, OverflowError, OSError):
        pass
    return None


def _day_of_year(fields: Mapping[str, str], year: int) -> datetime | None:
    if "j" in fields:
        return datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=int(fields["j"]) - 1)
    week = next((letter for letter in "UW" if letter in fields), None)
    name = fields.get("a") or fields.get("A")
    if week is None or (name is None and "w" not in fields):
        return None
    weekday = int(fields["w"]) if "w" in fields else (_WEEKDAY[(name or "").lower()[:3]] + 1) % 7
    return datetime.strptime(f"{year} {fields[week]} {weekday} +0000", f"%Y %{week} %w %z")


def _minute(year: int | None, month: int, day: int, hour: int, minute: int, zone: str, now: float) -> _Minute | None:
    if year is None:
        return _minute_without_year(month, day, hour, minute, zone, now)
    try:
        return _moment(datetime(year, month, day, hour, minute), zone, now)  # noqa: DTZ001 - local on purpose
    except (ValueError, OverflowError, OSError):
        return None


def _minute_without_year(month: int, day: int, hour: int, minute: int, zone: str, now: float) -> _Minute | None:
    year = datetime.fromtimestamp(now, UTC).year + 1
    following = _INF
    # From next year (New Year's Eve, or a zone ahead of UTC) back to the last leap year before a skipped one.
    for guess in range(year, year - 10, -1):
        local = _minute(guess, month, day, hour, minute, zone, now)
        if local is None:
            continue
        if local[0] <= now + DAY:
            return local[0], max(local[1], local[0] - DAY), min(local[2], following - DAY)
        following = local[0]
    return None


def _minute_without_day(hour: int, minute: int, zone: str, now: float) -> _Minute | None:
    offset = _offset(zone)
    today = datetime.fromtimestamp(now, offset).replace(tzinfo=None) if offset else datetime.fromtimestamp(now)  # noqa: DTZ006
    for back in (0, 1, 2):  # the clock may have been set forward over it yesterday
        moment = datetime.combine(today - timedelta(days=back), datetime.min.time()).replace(hour=hour, minute=minute)
        found = _moment(moment, zone, now)
        if found[0] <= now + _AHEAD:
            return found[0], now, now  # good for this day only: not kept
    return None


def _moment(moment: datetime, zone: str, now: float) -> _Minute:
    offset = _offset(zone)
    if offset is None:
        return _local(moment, now)
    return moment.replace(tzinfo=offset).timestamp(), -_INF, _INF


def _offset(zone: str) -> timezone | None:
    """The offset from UTC that a zone's name or number says; None where it says nothing that is known."""
    found = _OFFSET.match(zone) if zone else None
    if found is None:
        return None
    hours = _ZONE_HOURS.get(found["name"].upper()) if found["name"] else 0
    if hours is None:
        return None
    span = timedelta(hours=hours)
    if found["sign"]:
        given = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
        span += -given if found["sign"] == "-" else given
    return timezone(span)


def _local(moment: datetime, now: float) -> _Minute:
    """A local wall-clock minute: epoch, and the span of `now` for which this reading is right."""
    first = moment.timestamp()
    second = moment.replace(fold=1).timestamp()
    if second <= first:  # no repeated hour; a skipped one gives second < first and either is as good
        return first, -_INF, _INF
    # The repeated hour: the later reading as soon as it can have been.
    return (first, -_INF, second - _AHEAD) if now < second - _AHEAD else (second, second - _AHEAD, _INF)
