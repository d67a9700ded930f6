"""What is known of DNSBL zones, read from data files.

Takes directories of TOML files, the first one first: a file there masks those of the same name in later ones.
Each `[[zone]]` table has `names` and, where they differ from the default, `keyed` (names that need an account key
before them), `codes` (tables of `code` in Postfix's notation, `meaning`, `points`, and `policy = true` for dynamic
ranges or `counts = false` for answers that are no listing), `points` (of the codes that give none; negative: an allow
list),
`errors` (`code`, `meaning`, `backoff` in seconds), `limit` (queries a day), `ipv6`, `test_listed` and `test_clear`
(addresses), `refused` (why nobody should use it), `about`, `terms` (who may ask it) and `home` for the reader.  Gives
`Provider`s and every fault.
Guarantees: a faulty table is left out and reported; the others stand.  Does not: fetch anything.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nftban.errors import Fault
from nftban.verify.notation import parse_codes
from nftban.verify.zones import HOUR, TEST_CLEAR, TEST_LISTED, Code, ErrorCode, Provider, packed_address

_KEYS = {
    "names": list,
    "keyed": list,
    "codes": list,
    "errors": list,
    "limit": int,
    "ipv6": bool,
    "test_listed": list,
    "test_clear": list,
    "refused": str,
    "home": str,
    "about": str,
    "terms": str,
    "points": int,
}


def load_providers(directories: Sequence[Path]) -> tuple[tuple[Provider, ...], tuple[Fault, ...]]:
    """Everything known; a directory that does not exist holds nothing."""
    files: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*.toml")):
            files.setdefault(path.name, path)
    providers: list[Provider] = []
    faults: list[Fault] = []
    for path in files.values():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            faults.append(Fault(str(path), 0, f"cannot be read: {e}", "make it a readable UTF-8 file"))
            continue
        found, bad = parse_providers(text, str(path))
        providers += found
        faults += bad
    return tuple(providers), tuple(faults)


def parse_providers(text: str, file: str) -> tuple[tuple[Provider, ...], tuple[Fault, ...]]:
    """The `[[zone]]` tables of one file."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        return (), (Fault(file, 0, f"not TOML: {e}"),)
    faults = [Fault(file, 0, f"unknown table {key!r}", "write [[zone]] tables only") for key in tree if key != "zone"]
    tables = tree.get("zone", [])
    if not isinstance(tables, list):
        return (), (*faults, Fault(file, 0, "zone is not a list of tables", "write [[zone]], with two brackets"))
    providers = []
    for number, table in enumerate(tables, 1):
        try:
            providers.append(_provider(table))
        except (ValueError, TypeError, KeyError) as e:
            what = f"{e.args[0]!r} is missing" if isinstance(e, KeyError) else str(e)
            faults.append(Fault(file, 0, f"[[zone]] number {number}: {what}"))
    return tuple(providers), tuple(faults)


def _provider(table: Any) -> Provider:
    for key, value in table.items():
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}; known are {', '.join(_KEYS)}")
        if type(value) is not _KEYS[key]:
            raise ValueError(f"{key} must be of type {_KEYS[key].__name__}")
    names = tuple(str(name).lower() for name in table.get("names", []))
    keyed = tuple(str(name).lower() for name in table.get("keyed", []))
    if not names and not keyed:
        raise ValueError("it has no names")
    ipv6 = table.get("ipv6", True)
    return Provider(
        names,
        keyed,
        tuple(_code(code, table.get("points", 1)) for code in table.get("codes", [])),
        tuple(_error(error) for error in table.get("errors", [])),
        table.get("limit"),
        ipv6,
        table.get("refused", ""),
        _points(table, "test_listed", TEST_LISTED, ipv6),
        _points(table, "test_clear", TEST_CLEAR, ipv6),
        table.get("about", ""),
        table.get("terms", ""),
        table.get("home", ""),
    )


def _points(table: Any, key: str, default: tuple[bytes, ...], ipv6: bool) -> tuple[bytes, ...]:
    points = tuple(packed_address(text) for text in table[key]) if key in table else default
    return points if ipv6 else tuple(p for p in points if len(p) == 4)


def _code(table: Any, points: int) -> Code:
    _only(table, {"code", "meaning", "policy", "counts", "points"})
    policy, counts = table.get("policy", False), table.get("counts", True)
    return Code(parse_codes(table["code"]), table["meaning"], policy, counts, int(table.get("points", points)))


def _error(table: Any) -> ErrorCode:
    _only(table, {"code", "meaning", "backoff"})
    return ErrorCode(parse_codes(table["code"]), table["meaning"], float(table.get("backoff", HOUR)))


def _only(table: Any, keys: set[str]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"a code is a table with {', '.join(sorted(keys))}, not {table!r}")
    for key in table:
        if key not in keys:
            raise ValueError(f"unknown key {key!r} in a code; known are {', '.join(sorted(keys))}")
