"""Feeds, read from data files: rules/feeds/*.toml, and the admin's own files of the same kind.

Takes directories, the first one first: a file there masks those of the same name in later ones.  Each `[[feed]]` table
has `name`, `format`, one source (`url`; `file`; `rsync`; `axfr` with `server` and perhaps `tsig`), and what differs
from the default: `interval`, `keep` (how long a good copy stays good without being confirmed), `family`, `scope`,
`clean` (its addresses are taken out of all other feeds, it is used for nothing else), `zone` (the DNSBL whose data it
is), `insecure` (http), `bytes` (at most), `canaries`, the limits of guards.py, and for the reader `about`, `home` and
`terms`.  Gives `Feed`s and every fault.
Guarantees: a faulty table is left out and reported; the others stand.  None is used unless the settings say so.
Does not: fetch anything.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nftban.config.words import seconds
from nftban.errors import Fault
from nftban.feeds.formats import FORMATS
from nftban.feeds.guards import Limits
from nftban.prefixes import Prefix

HOUR = 3600.0
SOURCES = ("url", "file", "rsync", "axfr")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_SERVER = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+|[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*))(?::([0-9]{1,5}))?")
_LIMITS = {f.name for f in fields(Limits)}
_TEXTS = ("about", "home", "terms")


@dataclass(frozen=True, slots=True)
class Feed:
    """One list.  source: which of SOURCES; address: where it is, as that source writes it; server, tsig: of a zone
    transfer: ADDRESS[:PORT], and a file that holds `[algorithm:]name:secret`; family: 4, 6 or 0 for both; scope: of
    its bans unless the settings say otherwise; interval, keep: seconds; size: bytes at most."""

    name: str
    format: str
    source: str
    address: str
    server: str = ""
    tsig: str = ""
    interval: float = 12 * HOUR
    keep: float = 72 * HOUR
    family: int = 0
    scope: str = "all"
    clean: bool = False
    zone: str = ""
    insecure: bool = False
    size: int = 64 << 20
    canaries: tuple[Prefix, ...] = ()
    limits: Limits = field(default_factory=Limits)
    about: str = ""
    terms: str = ""


def load_feeds(directories: Sequence[Path]) -> tuple[dict[str, Feed], tuple[Fault, ...]]:
    """Every feed by name; a directory that does not exist holds none.  A name that is there twice is the first's."""
    files: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*.toml")):
            files.setdefault(path.name, path)
    found: dict[str, Feed] = {}
    faults: list[Fault] = []
    for path in files.values():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            faults.append(Fault(str(path), 0, f"cannot be read: {e}", "make it a readable UTF-8 file"))
            continue
        feeds, bad = parse_feeds(text, str(path))
        faults += bad
        for feed in feeds:
            if feed.name in found:
                faults.append(Fault(str(path), 0, f"there is another feed named {feed.name!r}", "rename one of them"))
            else:
                found[feed.name] = feed
    return found, tuple(faults)


def parse_feeds(text: str, file: str) -> tuple[tuple[Feed, ...], tuple[Fault, ...]]:
    """The `[[feed]]` tables of one file."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        return (), (Fault(file, 0, f"not TOML: {e}"),)
    faults = [Fault(file, 0, f"unknown table {key!r}", "write [[feed]] tables only") for key in tree if key != "feed"]
    tables = tree.get("feed", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        return (), (*faults, Fault(file, 0, "feed is not a list of tables", "write [[feed]], with two brackets"))
    feeds = []
    for number, table in enumerate(tables, 1):
        try:
            feeds.append(_feed(table))
        except (ValueError, TypeError) as e:
            faults.append(Fault(file, 0, f"[[feed]] number {number} ({str(table.get('name'))[:40]}): {e}"))
    return tuple(feeds), tuple(faults)


def _feed(table: dict[str, Any]) -> Feed:
    left = dict(table)
    name = _taken(left, "name", str, "")
    if not _NAME.fullmatch(name):
        raise ValueError("a name has small letters, digits and -, begins with a letter, at most 32")
    format_ = _taken(left, "format", str, "")
    if format_ not in FORMATS:
        raise ValueError(f"there is no format {format_!r}; there are {', '.join(FORMATS)}")
    sources = [source for source in SOURCES if source in left]
    if len(sources) != 1:
        raise ValueError(f"it must have exactly one of {', '.join(SOURCES)}")
    source = sources[0]
    address = _taken(left, source, str, "")
    insecure = _taken(left, "insecure", bool, False)
    server = _taken(left, "server", str, "")
    _check_source(source, address, insecure, server)
    interval = seconds(left.pop("interval", 12 * HOUR))
    if interval < 300:
        raise ValueError("an interval of less than five minutes helps nobody")
    keep = seconds(left.pop("keep", max(72 * HOUR, 2 * interval)))
    if keep < 2 * interval:
        raise ValueError("keep must be at least two intervals: one failed fetch is no reason to let a list go")
    family = _taken(left, "family", int, 0)
    if family not in (0, 4, 6):
        raise ValueError("family is 4 or 6, or left out for both")
    canaries = tuple(Prefix.parse(str(text)) for text in _taken(left, "canaries", list, []))
    about, _, terms = (_taken(left, key, str, "") for key in _TEXTS)
    feed = Feed(
        name, format_, source, address, server, _taken(left, "tsig", str, ""), interval, keep, family,
        _taken(left, "scope", str, "all"), _taken(left, "clean", bool, False), _taken(left, "zone", str, "").lower(),
        insecure, _taken(left, "bytes", int, 64 << 20), canaries, _limits(left), about, terms,
    )  # fmt: skip
    if left:
        raise ValueError(f"unknown key {next(iter(left))!r}")
    if feed.size <= 0:
        raise ValueError("bytes must be more than 0")
    return feed


def _check_source(source: str, address: str, insecure: bool, server: str) -> None:
    if not address or address.startswith("-") or not address.isprintable():
        raise ValueError(f"{source} names nothing")
    if source == "url" and not address.startswith(("https://", "http://") if insecure else "https://"):
        raise ValueError("the url does not begin with https:// (insecure = true allows http://)")
    if source == "file" and not address.startswith("/"):
        raise ValueError("write the file's whole path, from / on")
    if (source == "axfr") != bool(server):
        raise ValueError("axfr = ZONE and server = ADDRESS go together")
    if server:
        server_address(server)


def server_address(text: str) -> tuple[str, int]:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353` as address and port; raises ValueError."""
    match = _SERVER.fullmatch(text)
    if not match:
        raise ValueError(f"server = {text!r}: write ADDRESS or ADDRESS:PORT")
    port = int(match[3] or 53)
    prefix = Prefix.parse(match[1] or match[2])
    if not prefix.is_single or not 0 < port < 65536:
        raise ValueError(f"server = {text!r}: write ADDRESS or ADDRESS:PORT")
    return prefix.address, port


def _limits(left: dict[str, Any]) -> Limits:
    given = {}
    for key in sorted(_LIMITS & left.keys()):
        value = left.pop(key)
        kind = type(getattr(Limits(), key))
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float) or value < 0:
            raise ValueError(f"{key} must be a {'whole ' if kind is int else ''}number, 0 or more")
        given[key] = kind(value)
    return Limits(**given)


def _taken(left: dict[str, Any], key: str, kind: type[Any], otherwise: Any) -> Any:
    value = left.pop(key, otherwise)
    if type(value) is not kind:
        raise ValueError(f"{key} must be of type {kind.__name__}")
    return value
