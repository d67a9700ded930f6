"""Postfix's DNSBL settings as nftban's.

Takes the text of main.cf (postconf(5): `name = value`, lines that begin with white space go on, `#` begins a comment
line, the last of several wins, `$name` and `${name}` stand for another's value); gives the entries for dnsbl.zones and
what had to be left out, with the reason.
From postscreen_dnsbl_sites come entries as they stand; from reject_rbl_client and permit_dnswl_client, wherever they
are, those of zones that are not there yet: with the points known of the zone, else 4 and -4.
Guarantees: any text gives an answer; every entry given is one that nftban takes.  `shown` has KEY where `text` has an
account key.  Does not: read files, master.cf or tables, know Postfix's defaults (there are no DNSBLs in them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nftban.verify.zones import Provider, Zone, configured_zones

REJECTING, PERMITTING = 4, -4

_LINE = re.compile(r"([A-Za-z0-9_]+)\s*=\s*(.*)\Z", re.DOTALL)
_NAME = re.compile(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))")
_DEEPEST = 10
_LONGEST = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One string for dnsbl.zones.  source: the word of Postfix it comes from."""

    text: str
    shown: str
    source: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What nftban cannot or should not ask; what: without any account key."""

    what: str
    why: str


def main_cf(text: str) -> dict[str, str]:
    """The parameters, each with its last value, expanded."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and lines:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    matches = (_LINE.match(line) for line in lines)
    raw = {found.group(1): found.group(2).strip() for found in matches if found}
    return {name: _expanded(value, raw) for name, value in raw.items()}


def dnsbl_entries(
    parameters: Mapping[str, str], providers: Sequence[Provider]
) -> tuple[tuple[Entry, ...], tuple[LeftOut, ...]]:
    """What to write into dnsbl.zones, and what is left out."""
    entries: list[Entry] = []
    left: dict[LeftOut, None] = {}
    asked: set[str] = set()
    for text in re.split(r"[\s,]+", parameters.get("postscreen_dnsbl_sites", "")):
        if text:
            _add(text, "postscreen_dnsbl_sites", providers, entries, left)
    screened = {entry.shown.partition("=")[0].partition("*")[0] for entry in entries}
    for value in parameters.values():
        words = re.split(r"[\s,]+", value)
        for word, argument in pairwise(words):
            if word.startswith(("reject_rhsbl_", "permit_rhswl_")):
                left[LeftOut(f"{word} {_zone_of(argument)}", "it is about domains, and nftban bans addresses")] = None
            elif word in ("reject_rbl_client", "permit_dnswl_client") and argument not in asked:
                asked.add(argument)
                points = REJECTING if word == "reject_rbl_client" else PERMITTING
                _add(_weighted(argument, points, providers), word, providers, entries, left, screened)
    return tuple(entries), tuple(left)


def _add(
    text: str,
    source: str,
    providers: Sequence[Provider],
    entries: list[Entry],
    left: dict[LeftOut, None],
    there: set[str] | frozenset[str] = frozenset(),
) -> None:
    zones, faults = configured_zones([text], providers)
    for fault in faults:
        left[LeftOut(f"{source} {_zone_of(text)}", fault.what)] = None
    for zone in zones:
        shown = _shown(text, zone)
        if shown.partition("=")[0].partition("*")[0] not in there:
            entries.append(Entry(text, shown, source))


def _weighted(argument: str, points: int, providers: Sequence[Provider]) -> str:
    """The argument of a restriction as an entry: bare where the zone's own points are known and have that sign."""
    zones, _ = configured_zones([argument], providers)
    known = [code.points for zone in zones for code in zone.provider.codes if zone.provider in providers]
    own = "=" not in argument and bool(known) and (max(known, key=abs) > 0) == (points > 0)
    return argument if own else f"{argument}*{points}"


def _shown(text: str, zone: Zone) -> str:
    return re.sub(re.escape(zone.name), f"KEY.{zone.display}", text, flags=re.IGNORECASE) if zone.keyed else text


def _zone_of(text: str) -> str:
    """The zone's name without what looks like an account key."""
    zones, _ = configured_zones([text.partition("=")[0].partition("*")[0]], ())
    return zones[0].display if zones else "(no zone)"


def _expanded(value: str, raw: Mapping[str, str]) -> str:
    for _ in range(_DEEPEST):
        if "$" not in value or len(value) > _LONGEST:
            break
        value = _NAME.sub(lambda found: raw.get(next(filter(None, found.groups())), ""), value)
    return value[:_LONGEST]
