"""The words admins write in settings: durations, ports, scopes.

Takes the text or number as written; gives seconds, port numbers.  Raises ValueError with a sentence that says what
would be right.  Durations follow fail2ban's abbreviations (jail.conf(5), "TIME ABBREVIATION FORMAT").
"""

from __future__ import annotations

import re
import socket

_YEAR = 31557600.0

HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?!.*\.?[0-9]+\Z)(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.)*[A-Za-z0-9_][A-Za-z0-9_-]{0,62}", re.A
)
"""A name that DNS or /etc/hosts may know (RFC 1123 2.1, and underscores); its last label is no number, as an address's
would be."""
_UNITS = {
    **dict.fromkeys(("", "s", "ss", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "mm", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hh", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "dd", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "ww", "week", "weeks"), 604800.0),
    **dict.fromkeys(("mo", "mon", "month", "months"), _YEAR / 12),
    **dict.fromkeys(("y", "yy", "year", "years"), _YEAR),
}
_PART = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]*)[\s+]*", re.IGNORECASE | re.ASCII)

# IANA service names that a minimal system's /etc/services may lack.
_SERVICES = {
    "ssh": 22, "smtp": 25, "ssmtp": 465, "smtps": 465, "submissions": 465, "urd": 465, "submission": 587,
    "pop3": 110, "pop3s": 995, "imap": 143, "imap2": 143, "imaps": 993, "sieve": 4190, "http": 80, "https": 443,
    "ftp": 21, "ftps": 990, "domain": 53,
}  # fmt: skip

_MAX_SECONDS = 100 * _YEAR


def span(text: str) -> float:
    """`1h30m`, `2 days`, `90` in seconds, whatever its size; raises ValueError."""
    rest = text.strip()
    if not rest:
        raise ValueError("an empty duration")
    total, at = 0.0, 0
    while found := _PART.match(rest, at):
        unit = _UNITS.get(found["unit"].lower())
        if unit is None:
            break
        total += float(found["number"]) * unit
        at = found.end()
    if at < len(rest):
        raise ValueError(f"{text!r} is not a duration")
    return total


def seconds(written: object) -> float:
    """`600`, `"10m"`, `"1h30m"`, `"2 days"` in seconds; more than 0 and at most 100 years."""
    hint = 'write a duration such as "10m", "1h", "2d" or a number of seconds'
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise ValueError(f"{written!r} is not a duration; {hint}")
    try:
        total = span(written) if isinstance(written, str) else float(written)
    except ValueError as e:
        raise ValueError(f"{e}; {hint}") from None
    except OverflowError:
        total = float("inf")
    if not 0 < total <= _MAX_SECONDS:
        raise ValueError(f"{written!r} must be more than 0 seconds and at most 100 years")
    return total


def number_or_off(written: object) -> int | None:
    """A number, or "off" (also false): None."""
    if written is None or written is False or written == "off":
        return None
    if isinstance(written, bool) or not isinstance(written, int) or not 1 <= written <= 1_000_000:
        raise ValueError(f'{written!r} is neither a number from 1 to 1,000,000 nor "off"')
    return written


def seconds_or_none(written: object) -> float:
    """A duration, or 0 for never."""
    return 0.0 if written in (0, "0") and not isinstance(written, bool) else seconds(written)


def ban_seconds(written: object) -> float | None:
    """A duration, or None for `"permanent"`.  fail2ban's -1 is refused with the word to write instead."""
    if written == "permanent":
        return None
    if written in (-1, "-1"):
        raise ValueError('-1 would ban for ever; if that is meant, write bantime = "permanent"')
    return seconds(written)


def port_number(written: object) -> int:
    """A port number or a service name."""
    if isinstance(written, bool) or not isinstance(written, int | str):
        raise ValueError(f"{written!r} is not a port; write a number from 1 to 65535 or a service name such as smtp")
    if isinstance(written, str) and not (written.isascii() and written.isdigit()):
        known = _SERVICES.get(written.lower())
        if known is not None:
            return known
        try:
            return socket.getservbyname(written, "tcp")
        except (OSError, UnicodeError):
            raise ValueError(f"no TCP service is named {written!r}; write the port's number") from None
    number = int(written)
    if not 1 <= number <= 65535:
        raise ValueError(f"{written!r} is not a port; it must be from 1 to 65535")
    return number


def port_list(written: object) -> tuple[int, ...]:
    """fail2ban's `port`: `smtp,ssmtp,submission`, `25,465`, a list, ranges `6000:6010`; ascending, no doubles."""
    words: list[object] = []
    for item in written if isinstance(written, list | tuple) else [written]:
        words += [w for w in re.split(r"[,\s]+", item) if w] if isinstance(item, str) else [item]
    ports: set[int] = set()
    for word in words:
        low, colon, high = word.partition(":") if isinstance(word, str) else (word, "", "")
        if colon:
            first, last = port_number(low), port_number(high)
            if first > last:
                raise ValueError(f"{word!r}: the range ends before it begins")
            ports.update(range(first, last + 1))
        else:
            ports.add(port_number(low))
    if not ports:
        raise ValueError("no port given; name at least one")
    return tuple(sorted(ports))


def in_words(length: float | None) -> str:
    """A duration as people say it: 90 -> `1m30s`, None -> `permanent`; at most two units."""
    if length is None:
        return "permanent"
    left = max(0, round(length))
    if left == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])
