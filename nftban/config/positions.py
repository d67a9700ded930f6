"""Where in a TOML text each key stands.

Takes a text that `tomllib` has accepted; gives {path of keys and array indexes: line from 1}.  The standard parser
throws positions away, and a fault without a line number makes people search.
Guarantees: never raises on a valid TOML 1.0 text; a path it cannot place is simply missing.  Does not: check
anything, or place keys inside inline tables (they stand on their table's line).
Source: https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_DOTTED})[ \t]*\]\]?")
_ASSIGN = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'" r"|#[^\n]*" r"|[\[\]{},\n]",
    re.DOTALL,
)


def _names(dotted: str) -> Path:
    return tuple(part if part[0] not in "\"'" else part[1:-1] for part in re.findall(_KEY, dotted))


def positions(text: str) -> dict[Path, int]:
    """The line of every table header, key and array element."""
    found: dict[Path, int] = {}
    table: Path = ()
    repeats: dict[Path, int] = {}
    at = 0
    line = 1
    while at < len(text):
        if header := _HEADER.match(text, at):
            table = _names(header[2])
            if header[1] == "[[":
                repeats[table] = repeats.get(table, -1) + 1
                table = (*table, repeats[table])
            found[table] = line
            _parents(table, line, found)
            end = text.find("\n", header.end())
        elif assign := _ASSIGN.match(text, at):
            path = (*table, *_names(assign[1]))
            found[path] = line
            _parents(path, line, found)
            end, line = _value(text, assign.end(), line, path, found)
        else:
            end = text.find("\n", at)
        if end < 0:
            break
        at = end + 1
        line += 1
    return found


def _parents(path: Path, line: int, found: dict[Path, int]) -> None:
    """Tables that have no header of their own stand where they are first spoken of."""
    for n in range(1, len(path)):
        found.setdefault(path[:n], line)


def _value(text: str, at: int, line: int, path: Path, found: dict[Path, int]) -> tuple[int, int]:
    """Passes over one value; returns where its last line ends (the newline) and that line's number."""
    depth = 0
    index = 0
    open_element = False
    while token := _TOKEN.search(text, at):
        if depth == 1 and not open_element and text[at : token.start()].strip():
            found[(*path, index)] = line
            open_element = True
        word = token[0]
        if depth == 1 and not open_element and word[0] in "\"'[{":
            found[(*path, index)] = line
            open_element = True
        if word == "\n":
            if depth == 0:
                return token.start(), line
            line += 1
        elif word in "[{":
            depth += 1
        elif word in "]}":
            depth -= 1
        elif word == "," and depth == 1:
            index += 1
            open_element = False
        else:
            line += word.count("\n")
        at = token.end()
    return -1, line
