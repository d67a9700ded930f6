"""The last good copies of the feeds, on disk.

Takes a folder (/var/cache/nftban/feeds); for each feed it has NAME.copy, a header of HEADER bytes (one JSON object,
padded) and the list's bytes as they came, and NAME.state, what became of the last attempts.
Guarantees: a copy is replaced whole or not at all (written beside it, fsync, rename, fsync of the folder), whenever we
are killed; a damaged file is as good as none.  A list is read in pieces and never held whole.
Does not: say what is good; sync.py does, and examines a copy anew each time it is read.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, TypeVar

HEADER = 4096
PIECE = 1 << 18
_LONGEST_TAG = 1024
T = TypeVar("T", "About", "State")


@dataclass(frozen=True, slots=True)
class About:
    """Whence a copy is.  source: as the definition had it; etag, modified: the server's words for asking again;
    fetched: epoch seconds; digest: SHA-256 of its bytes; count, newline: what guards.Known wants."""

    source: str = ""
    etag: str = ""
    modified: str = ""
    fetched: float = 0.0
    digest: str = ""
    count: int = 0
    newline: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """What became of the attempts.  confirmed: when the copy was last found to be the current one; tried: the last
    attempt; due: the next; failures: in a row; refused, failed: why the last attempt brought nothing, "" if it did."""

    confirmed: float = 0.0
    tried: float = 0.0
    due: float = 0.0
    failures: int = 0
    refused: str = ""
    failed: str = ""


class Copies:
    """The folder.  Raises OSError where it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Makes the folder, and clears away what a killed attempt left behind; one under way is left alone."""
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        for path in self.folder.glob(".*.new"):
            with suppress(BlockingIOError), self.locked(path.name.split(".")[1], wait=False):
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self, name: str, wait: bool = True) -> Iterator[None]:
        """Nobody else (the daemon, a command) writes this feed's files meanwhile; waits until that is so, or raises
        BlockingIOError."""
        with (self.folder / f".{name}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def about(self, name: str) -> About | None:
        """What the copy says of itself, or None where there is none."""
        try:
            with self._copy(name).open("rb") as file:
                return _read(About, file.read(HEADER))
        except OSError:
            return None

    def state(self, name: str) -> State:
        try:
            return _read(State, self._state(name).read_bytes()) or State()
        except OSError:
            return State()

    def set_state(self, name: str, state: State) -> None:
        _replaced(self._state(name), self._new(name, "state"), json.dumps(asdict(state)).encode())

    def chunks(self, name: str) -> Iterator[bytes]:
        """The copy's bytes."""
        return _chunks(self._copy(name))

    def incoming(self, name: str) -> Incoming:
        """A place for a new copy."""
        return Incoming(self._new(name, "copy"), self._copy(name))

    def _copy(self, name: str) -> Path:
        return self.folder / f"{name}.copy"

    def _state(self, name: str) -> Path:
        return self.folder / f"{name}.state"

    def _new(self, name: str, kind: str) -> Path:
        return self.folder / f".{name}.{kind}.new"


class Incoming:
    """A copy that is being written; it is nothing until `keep`."""

    def __init__(self, path: Path, final: Path) -> None:
        self._path, self._final = path, final

    def open(self) -> IO[bytes]:
        """For writing the list's bytes."""
        file = self._path.open("wb")
        file.write(b" " * HEADER)
        return file

    def chunks(self) -> Iterator[bytes]:
        return _chunks(self._path)

    def keep(self, about: About) -> None:
        """Makes it the copy."""
        about = replace(
            about,
            etag=about.etag if len(about.etag) <= _LONGEST_TAG else "",
            modified=about.modified if len(about.modified) <= _LONGEST_TAG else "",
        )
        header = json.dumps(asdict(about)).encode()
        if len(header) >= HEADER:
            header = json.dumps(asdict(replace(about, etag="", modified="", source=""))).encode()
        with self._path.open("r+b") as file:
            file.write(header.ljust(HEADER - 1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._path.replace(self._final)
        _sync_folder(self._final.parent)

    def drop(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(HEADER)
        while piece := file.read(PIECE):
            yield piece


def _read(kind: type[T], text: bytes) -> T | None:
    """None unless every field is there with its type."""
    try:
        given: Any = json.loads(text)
        values = {f.name: given[f.name] for f in fields(kind)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    example = kind()
    if any(type(value) is not type(getattr(example, name)) for name, value in values.items()):
        return None
    return kind(**values)


def _replaced(path: Path, new: Path, content: bytes) -> None:
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
