"""Log files of any age as chunks, in the order in which they were written.

Takes paths of plain, gzip, bzip2, xz or zstd files, of syslog lines or of systemd's export format (`journalctl -o
export`); what a file is its first bytes say, not its name.  Gives `Series`: a log with what it was rotated to, oldest
first, and the chunks of each.
Guarantees: of a file at most a piece is in memory; one that is damaged or ends too early is read up to there, and that
is noted.  Dates without a year are of the time when the file was last written.
Does not: match anything; follow a file that is being written.
Source: RFC 1952, RFC 8878, the formats' magic numbers as in file(1); https://systemd.io/JOURNAL_EXPORT_FORMATS/.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO

from nftban.detect.timestamps import DAY, Timestamps
from nftban.errors import NftbanError, UsageError
from nftban.sources.chunks import Begun, Chunk, is_utf8
from nftban.sources.composed import composed
from nftban.sources.entries import Entries

PIECE = 1024 * 1024
DATED_WITHIN = 200
"""Lines at a file's beginning in which its first date is looked for."""

Opened = IO[bytes] | gzip.GzipFile

# As logrotate(8) names them: numbered or with `dateext`, compressed or not.
_ROTATED = re.compile(r"(?:[.-]\d{1,12})?(?:\.(?:gz|bz2|xz|zst))?\Z")
_EXPORT = b"__CURSOR="
_OPENERS: dict[bytes, Callable[[IO[bytes]], Opened]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: _zstd(file),
}


@dataclass(frozen=True, slots=True)
class LogFile:
    """path: as given; size: bytes on the disk; now: what dates without a year are completed by; first: its first date,
    None where no line at its beginning has one; export: systemd's format."""

    path: Path
    size: int
    now: float
    first: float | None
    export: bool


@dataclass(frozen=True, slots=True)
class Series:
    """A log under its own name, and the files that hold it, oldest first."""

    name: str
    files: tuple[LogFile, ...]


def series_of(paths: list[Path], now: float) -> tuple[Series, ...]:
    """The logs that these files are; raises UsageError for one that cannot be read."""
    groups: dict[Path, list[LogFile]] = {}
    for path in dict.fromkeys(path.resolve() for path in paths):
        groups.setdefault(path.with_name(_ROTATED.sub("", path.name) or path.name), []).append(_looked_at(path, now))
    return tuple(
        Series(str(base), tuple(sorted(files, key=lambda file: (file.first is None, file.first or 0.0))))
        for base, files in groups.items()
    )


def chunks(
    file: LogFile,
    source: str,
    read: Callable[[int], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Chunk]:
    """The file's chunks, under the name of its log; read: is told how many bytes of the disk were read since; note:
    of damage."""
    with file.path.open("rb") as raw:
        told = 0
        for chunk in _exported(raw, source, file, note) if file.export else _lines(raw, source, file, note):
            at = raw.tell()
            read(at - told)
            told = at
            yield chunk
        read(file.size - told)


def _looked_at(path: Path, now: float) -> LogFile:
    try:
        if not path.is_file():
            what = "is no file" if path.exists() else "does not exist"
            raise UsageError(f"{path} {what}", "name log files; rotated and compressed ones are read too")
        stat = path.stat()
        with path.open("rb") as raw:
            head = _opened(raw).read(PIECE)
    except OSError as e:
        raise UsageError(f"{path} cannot be read: {e.strerror or e}", "run as a user who may read it") from None
    except (EOFError, zlib.error, lzma.LZMAError):
        head = b""
    export = head.startswith(_EXPORT)
    if export:
        return LogFile(path, stat.st_size, now, next((e.time / 1e6 for e in Entries().read(head)), None), export)
    written = min(stat.st_mtime, now)
    first = _first_date(head, written)
    if first is None or first > written + DAY:  # the file was given another time than that of its writing
        written, first = now, _first_date(head, now)
    return LogFile(path, stat.st_size, written, first, export)


def _first_date(head: bytes, now: float) -> float | None:
    timestamps = Timestamps()
    for line in head.split(b"\n", DATED_WITHIN)[:DATED_WITHIN]:
        stamp = timestamps.read(line[:4096].decode(errors="replace"), now)
        if stamp is not None and stamp.time is not None:
            return stamp.time
    return None


def _opened(raw: BufferedReader) -> Opened:
    magic = raw.peek(8)[:8]
    return next((opener(raw) for known, opener in _OPENERS.items() if magic.startswith(known)), raw)


def _zstd(file: IO[bytes]) -> Opened:
    for module, name in (("compression.zstd", "ZstdFile"), ("zstandard", "open")):
        try:
            opened: Opened = getattr(importlib.import_module(module), name)(file)
        except ImportError:
            continue
        return opened
    raise NftbanError(
        f"{getattr(file, 'name', 'a log')} is compressed with zstd, which this Python cannot read",
        "pip install 'nftban[zstd]' (python3-zstandard), or unpack it with zstd -d",
    )


def _pieces(raw: BufferedReader, file: LogFile, note: Callable[[str], None]) -> Iterator[bytes]:
    opened = _opened(raw)
    piece = bytearray()
    try:
        while data := opened.read1(PIECE):  # type: ignore[union-attr]
            piece += data
            if len(piece) >= PIECE:
                yield bytes(piece)
                piece.clear()
    except Exception as e:
        # ZstdError is of a module that is not always there.
        if not isinstance(e, (OSError, EOFError, zlib.error, lzma.LZMAError)) and type(e).__name__ != "ZstdError":
            raise
        note(f"{file.path} cannot be read to its end ({e}); what came before was taken")
    if piece:
        yield bytes(piece)


def _lines(raw: BufferedReader, source: str, file: LogFile, note: Callable[[str], None]) -> Iterator[Chunk]:
    begun = Begun()
    for data in _pieces(raw, file, note):
        whole, cut = begun.lines(data)
        if whole:
            yield Chunk(source, whole, is_utf8(whole), cut=cut)
    if begun.size:
        last = begun.rest + b"\n"
        yield Chunk(source, last, is_utf8(last), cut=begun.cut)


def _exported(raw: BufferedReader, source: str, file: LogFile, note: Callable[[str], None]) -> Iterator[Chunk]:
    entries = Entries()
    # An export's last entry ends with the file, not always with an empty line.
    for data in _ending(_pieces(raw, file, note)):
        lines = [(text, None, e.lacking) for e in entries.read(data) if (text := e.line()) is not None]
        if lines:
            yield composed(source, lines)


def _ending(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield from pieces
    yield b"\n\n"
