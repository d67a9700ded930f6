"""A feed's bytes, from wherever they are: https, a file, rsync, a zone transfer.

Takes a feed, what its last good copy said of itself, and a file to write to; gives `Fetched`, or None where the copy
is still the current one.  Raises FetchError that says what failed; the caller waits and tries again.
Guarantees: a conditional request (RFC 9110 13) where the server gave an ETag or a date; TLS certificates are checked
and a redirect never leads from https to http; no more than the feed's `size` is written, before or after gunzip, so a
decompression bomb ends as a FetchError; no transfer takes longer than DEADLINE; bytes that stop short of the length the
server announced are an error, not a short list; rsync gets a list of words, never a shell.
Blocks: call it in a thread.
urllib and not a client library: what is wanted of one (conditions, limits, redirects) fits here, without a dependency.
"""

from __future__ import annotations

import hashlib
import http.client
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nftban import __version__
from nftban.errors import TryAgainError
from nftban.feeds.copies import About
from nftban.feeds.definitions import Feed

QUIET = 30.0
"""Seconds without a byte after which a server is given up."""
DEADLINE = 300.0
MOST_REDIRECTS = 5
_PIECE = 1 << 16
_GZIP = b"\x1f\x8b"


class FetchError(TryAgainError):
    """The list could not be had."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was written.  digest: SHA-256 of it; etag, modified: for the next time."""

    digest: str
    etag: str = ""
    modified: str = ""


Progress = Callable[[int, int | None], None]
"""Bytes so far, and in all if that is known."""


def fetch(
    feed: Feed,
    copy: About | None,
    into: IO[bytes],
    previous: Callable[[], Iterable[bytes]] = tuple,
    contact: str = "",
    progress: Progress = lambda *_: None,
) -> Fetched | None:
    """copy: None asks without conditions; previous: the copy's bytes, from which a zone is transferred incrementally;
    contact: an address for the User-Agent, by which an operator can reach us."""
    if copy is not None and copy.source != feed.address:
        copy = None
    try:
        return _WAYS[feed.source](_Wanted(feed, copy, _Sink(feed, into, progress), previous, contact))
    except FetchError:
        raise
    except (OSError, http.client.HTTPException, zlib.error, ValueError) as e:
        raise FetchError(f"{feed.address}: {_reason(e)}") from e


class _Sink:
    """Where the bytes go: gunzipped if need be, counted, within the limits."""

    def __init__(self, feed: Feed, into: IO[bytes], progress: Progress) -> None:
        self._feed, self._into, self._progress = feed, into, progress
        self._end = time.monotonic() + DEADLINE
        self._hash = hashlib.sha256()

    def take(self, pieces: Iterator[bytes], whole: int | None = None) -> str:
        """Writes everything; gives its digest."""
        taken = written = 0
        unzip: Any = None
        ended = True
        for piece in pieces:
            if time.monotonic() > self._end:
                raise FetchError(f"{self._feed.address}: not done within {DEADLINE:.0f} seconds")
            if taken == 0 and piece[:2] == _GZIP:
                unzip = zlib.decompressobj(31)
            taken += len(piece)
            self._within(taken)
            self._progress(taken, whole)
            while piece:
                if unzip is None:
                    plain, piece = piece, b""
                else:
                    plain = unzip.decompress(piece, self._feed.size - written + 1)
                    ended, piece = unzip.eof, unzip.unconsumed_tail
                    if ended:
                        # Another member may follow (RFC 1952 2.2).
                        piece, unzip = unzip.unused_data, zlib.decompressobj(31)
                written += len(plain)
                self._within(written)
                self._hash.update(plain)
                self._into.write(plain)
        if not ended:
            raise FetchError(f"{self._feed.address}: the compressed data are cut off")
        return self._hash.hexdigest()

    def _within(self, count: int) -> None:
        if count > self._feed.size:
            raise FetchError(f"{self._feed.address}: more than {self._feed.size} bytes")


@dataclass(frozen=True, slots=True)
class _Wanted:
    feed: Feed
    copy: About | None
    sink: _Sink
    previous: Callable[[], Iterable[bytes]]
    contact: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MOST_REDIRECTS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.type == "https" and not newurl.startswith("https://"):
            raise FetchError(f"{req.full_url} leads to {newurl[:200]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _http(wanted: _Wanted) -> Fetched | None:
    feed, copy, sink = wanted.feed, wanted.copy, wanted.sink
    opener = urllib.request.OpenerDirector()
    # Not build_opener(): that would also open ftp: and file:.
    for way in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(way)
    opener.addheaders = []
    headers = {
        "User-Agent": f"nftban/{__version__}" + (f" ({wanted.contact})" if wanted.contact else ""),
        "Accept-Encoding": "gzip",
    }
    if copy is not None and copy.etag:
        headers["If-None-Match"] = copy.etag
    if copy is not None and copy.modified:
        headers["If-Modified-Since"] = copy.modified
    try:
        response = opener.open(urllib.request.Request(feed.address, headers=headers), timeout=QUIET)  # noqa: S310
    except urllib.error.HTTPError as e:
        with e:
            if e.code == 304 and copy is not None:
                return None
            raise FetchError(f"{feed.address}: the server answered {e.code} {e.reason}") from None
    with response:
        if response.status != 200:
            raise FetchError(f"{feed.address}: the server answered {response.status}")
        whole = int(length) if (length := response.headers.get("Content-Length", "")).isdigit() else None
        digest = sink.take(_counted(response, whole, feed), whole)
        return Fetched(digest, response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))


def _counted(response: Any, whole: int | None, feed: Feed) -> Iterator[bytes]:
    count = 0
    while piece := response.read1(_PIECE):
        count += len(piece)
        yield piece
    # http.client lets a connection that ends early pass here.
    if whole is not None and count != whole:
        raise FetchError(f"{feed.address}: {count} bytes came of {whole}")


def _file(wanted: _Wanted) -> Fetched | None:
    feed, copy, sink = wanted.feed, wanted.copy, wanted.sink
    path = Path(feed.address)
    status = path.stat()
    stamp = f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
    if copy is not None and copy.etag == stamp:
        return None
    with path.open("rb") as file:
        return Fetched(sink.take(iter(lambda: file.read(_PIECE), b""), status.st_size), stamp)


def _rsync(wanted: _Wanted) -> Fetched | None:
    feed = wanted.feed
    with tempfile.TemporaryDirectory(prefix="nftban-rsync-") as folder:
        target = Path(folder, "list")
        words = ["rsync", "--no-motd", f"--timeout={QUIET:.0f}", f"--max-size={feed.size}", "--copy-links", "--"]
        try:
            done = subprocess.run(  # noqa: S603
                [*words, feed.address, str(target)], stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE
            )
        except subprocess.TimeoutExpired:
            raise FetchError(f"{feed.address}: rsync was not done within {DEADLINE:.0f} seconds") from None
        if done.returncode != 0 or not target.is_file():
            why = done.stderr.decode("utf-8", "backslashreplace").partition("\n")[0][:200] or "nothing was sent"
            raise FetchError(f"{feed.address}: rsync ended with {done.returncode}: {why}")
        with target.open("rb") as file:
            return Fetched(wanted.sink.take(iter(lambda: file.read(_PIECE), b""), target.stat().st_size))


def _transfer(wanted: _Wanted) -> Fetched | None:
    # dnspython is imported by those who need it.
    from nftban.feeds.transfer import zone_text

    before = b"".join(wanted.previous()) if wanted.copy else b""
    text = zone_text(wanted.feed, before)
    return (
        None if text is None else Fetched(wanted.sink.take(text[i : i + _PIECE] for i in range(0, len(text), _PIECE)))
    )


_WAYS: dict[str, Callable[[_Wanted], Fetched | None]] = {
    "url": _http,
    "file": _file,
    "rsync": _rsync,
    "axfr": _transfer,
}


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(reason)[:200] or type(error).__name__
