"""The include file for nftables.conf: written, and whether the configuration that nft(8) loads at boot uses it.

Takes the text of the file, its path, and the path of the main configuration; gives what became of them.
Guarantees: the file is replaced as a whole or not at all, mode 0644, and not touched where it has the text already.
Nobody's configuration is changed: what has to be added there is said.
Does not: load anything.  Limits: sees `include` and `flush ruleset` as statements of their own, in the main file and
what it includes; not what variables make of them.
Source: nft(8), "Including files": relative names are looked for in /etc, wildcards are sorted, depth at most 16.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

INCLUDE_FOLDER = Path("/etc")
DEPTH = 16

_PIECE = re.compile(r'"[^"\n]*"|#[^\n]*|[;\n]|[^"#;\n]+|"')
_FLUSH = re.compile(r"flush\s+ruleset(\s+inet)?")
_INCLUDE = re.compile(r'include\s+"([^"]+)"')


class Use(StrEnum):
    """What the main configuration does with the include file."""

    LOADED = "loaded"
    MISSING = "missing"
    FLUSHED = "flushed"  # included, but `flush ruleset` comes after it
    NO_CONFIGURATION = "no configuration"


@dataclass(frozen=True, slots=True)
class Found:
    """use, and where: the place (FILE:LINE) of the include, and of the last `flush ruleset`; "" where there is none."""

    use: Use
    include: str = ""
    flush: str = ""


def write(path: Path, text: str) -> bool:
    """Puts the text into the file; False where it was there already.  Raises OSError."""
    path = path.resolve()
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == 0o644:
            return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    return True


def use(main: Path, path: Path) -> Found:
    """What nft makes of `path` when it loads `main`; raises OSError where `main` is there but not to be read."""
    if not main.exists():
        return Found(Use.NO_CONFIGURATION)
    found = Use.MISSING
    include = flush = ""
    for place, included in _steps(main, path.resolve(), 0):
        if included:
            found, include = Use.LOADED, place
        else:
            flush = place
            if found is Use.LOADED:
                found = Use.FLUSHED
    return Found(found, include, flush)


def _steps(file: Path, path: Path, depth: int) -> Iterator[tuple[str, bool]]:
    """The place of each include of `path` (True) and `flush ruleset` (False), in the order in which nft does them."""
    for line, statement in _statements(file.read_text(encoding="utf-8", errors="replace")):
        if _FLUSH.fullmatch(statement):
            yield f"{file}:{line}", False
        elif included := _INCLUDE.fullmatch(statement):
            named = INCLUDE_FOLDER / included[1]
            for other in sorted(Path("/").glob(str(named).lstrip("/"))) or [named]:
                if other.resolve() == path:
                    yield f"{file}:{line}", True
                elif depth < DEPTH and other.is_file():
                    yield from _steps(other, path, depth + 1)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement without comments, and the line where it ends."""
    statement, line = "", 1
    for piece in _PIECE.findall(text.replace("\\\n", "\f")):
        if piece in (";", "\n"):
            yield line, statement.replace("\f", " ").strip()
            statement = ""
        elif not piece.startswith("#"):
            statement += piece
        line += piece.count("\n") + piece.count("\f")
    yield line, statement.replace("\f", " ").strip()
