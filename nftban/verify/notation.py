"""Postfix's notation for DNSBL sites: `zone[=codes][*weight]`, several separated by comma or white space.

Takes the text of postscreen_dnsbl_sites (postconf(5)): `zen.spamhaus.org=127.0.0.[2..4;9]*5`,
`list.dnswl.org=127.0.[2..15].[2..3]*-5`, `bl.example.com`, `bl.example.com*2`.  Each of the four fields of `codes`
is a number, or numbers and ranges `low..high` separated by ";" in brackets.  The weight defaults to 1,
and of an entry without codes to what is known of the zone; a negative one is for allow lists; 0 asks without counting.
Gives rules, and every fault with its position and advice.
Guarantees: neither the repr of a rule nor a fault's words contain the zone's name, which may hold an account key.
Stricter than Postfix: the first field of `codes` must be 127, since any other answer is no DNSBL answer (RFC 5782
2.1), ranges must ascend, and weights stay within -1000..1000.  Does not: know which zones exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Field = tuple[tuple[int, int], ...]

LONGEST_ZONE = 253 - 64
"""A zone's name has to leave room for 32 nibbles and their dots in a name of 253 characters."""

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMBER = re.compile(r"[0-9]{1,3}")
_WEIGHT = re.compile(r"[+-]?[0-9]{1,4}\Z")
_ADVICE = "write zone, zone*weight or zone=127.0.0.[2..4;9]*weight (postconf(5), postscreen_dnsbl_sites)"


@dataclass(frozen=True, slots=True)
class ZoneFault:
    """One thing wrong in the list of zones.  entry: which string of the list, from 0; position: offset of the
    fault in it, from 0; what, advice: in words that name no key."""

    entry: int
    position: int
    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class CodePattern:
    """Which answers count: text as written, and per octet the ranges (both ends included)."""

    text: str
    fields: tuple[Field, ...]

    def matches(self, code: bytes) -> bool:
        """Does this IPv4 address (4 bytes) fit?"""
        return all(any(low <= octet <= high for low, high in f) for octet, f in zip(code, self.fields, strict=True))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ZoneRule:
    """One entry.  zone: the name to ask, in small letters, perhaps with an account key and therefore not in the
    repr; pattern: None where the entry has no `=codes`; weight: points; position: offset of the entry; bare: it has
    neither codes nor points of its own, and takes what is known of the zone."""

    zone: str = field(repr=False)
    pattern: CodePattern | None = None
    weight: int = 1
    position: int = 0
    bare: bool = False

    @property
    def filter_text(self) -> str:
        """The entry without its zone: `=127.0.0.[2..4]*5`."""
        codes = f"={self.pattern}" if self.pattern else ""
        return codes + (f"*{self.weight}" if self.weight != 1 else "")


class _Bad(Exception):
    def __init__(self, position: int, what: str, advice: str = _ADVICE) -> None:
        super().__init__(what)
        self.position, self.what, self.advice = position, what, advice


def parse_sites(text: str, entry: int = 0) -> tuple[tuple[ZoneRule, ...], tuple[ZoneFault, ...]]:
    """All entries of one string; a faulty one is left out and reported, the others stand."""
    rules: list[ZoneRule] = []
    faults: list[ZoneFault] = []
    for token in re.finditer(r"[^\s,]+", text):
        try:
            rules.append(_rule(token.group(), token.start()))
        except _Bad as bad:
            faults.append(ZoneFault(entry, bad.position, bad.what, bad.advice))
    return tuple(rules), tuple(faults)


def parse_codes(text: str) -> CodePattern:
    """`127.0.0.[2..4;9]`; raises ValueError that says what is wrong."""
    try:
        return _pattern(text, 0)
    except _Bad as bad:
        raise ValueError(f"{bad.what} (at character {bad.position + 1})") from None


def _rule(token: str, start: int) -> ZoneRule:
    site, star, weight_text = token.partition("*")
    zone, equals, codes = site.partition("=")
    name = _zone_name(zone, start)
    pattern = _pattern(codes, start + len(zone) + 1) if equals else None
    weight = 1
    if star:
        if not _WEIGHT.match(weight_text) or abs(int(weight_text)) > 1000:
            raise _Bad(
                start + len(site) + 1, "the weight is not a whole number from -1000 to 1000", "write it as *3 or *-4"
            )
        weight = int(weight_text)
    return ZoneRule(name, pattern, weight, start, bare=not (equals or star))


def _zone_name(text: str, start: int) -> str:
    name = text.lower().removesuffix(".")
    if not name:
        raise _Bad(start, "the zone's name is missing")
    if len(name) > LONGEST_ZONE:
        raise _Bad(start, f"the zone's name is longer than {LONGEST_ZONE} characters")
    position = start
    labels = name.split(".")
    for number, label in enumerate(labels, 1):
        if not _LABEL.match(label):
            raise _Bad(
                position,
                f"part {number} of the zone's name is empty, too long or not made of letters, digits, - and _",
            )
        position += len(label) + 1
    if len(labels) < 2:
        raise _Bad(start, "the zone's name has no dot: it cannot be a DNSBL")
    if labels[-1].isdigit():
        raise _Bad(start, "this is an address, not the name of a zone")
    return name


def _pattern(text: str, start: int) -> CodePattern:
    fields: list[Field] = []
    at = 0
    while True:
        parsed, at = _field(text, at, start)
        fields.append(parsed)
        if at == len(text):
            break
        if text[at] != ".":
            raise _Bad(start + at, f"{text[at]!r} where a dot or the end was expected")
        at += 1
    if len(fields) != 4:
        raise _Bad(start, f"the codes have {len(fields)} fields, not 4", "write four fields, as in 127.0.0.[2..4;9]")
    if fields[0] != ((127, 127),):
        raise _Bad(start, "the codes do not begin with 127: no DNSBL answers so", "write 127 as the first field")
    return CodePattern(text, tuple(fields))


def _field(text: str, at: int, start: int) -> tuple[Field, int]:
    """One field from `at`, and where it ends."""
    if at < len(text) and text[at] == "[":
        end = text.find("]", at)
        if end < 0:
            raise _Bad(
                start + at, "[ is not closed by ]", "inside [ ] separate numbers with ; and write ranges as 2..4"
            )
        ranges = []
        position = at + 1
        for part in text[at + 1 : end].split(";"):
            low_text, dots, high_text = part.partition("..")
            low = _octet(low_text, start + position)
            high = _octet(high_text, start + position + len(low_text) + 2) if dots else low
            if low > high:
                raise _Bad(start + position, f"the range {part} descends", f"write {high}..{low}")
            ranges.append((low, high))
            position += len(part) + 1
        return tuple(ranges), end + 1
    number = _NUMBER.match(text, at)
    if number is None:
        raise _Bad(start + at, "a number from 0 to 255 or [..] is missing here")
    value = _octet(number.group(), start + at)
    return ((value, value),), number.end()


def _octet(text: str, position: int) -> int:
    if not (_NUMBER.fullmatch(text) and int(text) <= 255):
        raise _Bad(
            position,
            "a number from 0 to 255 is missing here",
            "inside [ ] separate numbers with ; and write ranges as 2..4",
        )
    return int(text)
