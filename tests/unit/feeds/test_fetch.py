"""Fetching from a real HTTP server, files and rsync: conditions, limits, redirects, bombs."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nftban.feeds import fetch as fetching
from nftban.feeds.copies import About
from nftban.feeds.definitions import Feed
from nftban.feeds.fetch import Fetched, FetchError, fetch

LIST = b"45.0.0.1\n45.0.0.2\n"


class _Answering(http.server.BaseHTTPRequestHandler):
    """Answers as the test says; `server.seen` are the headers of every request."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.seen.append(dict(self.headers))
        server.answer(self)

    def log_message(self, *_: object) -> None:
        pass

    def give(self, body: bytes, code: int = 200, announced: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)


Answer = Callable[[_Answering], None]


class _Server(http.server.ThreadingHTTPServer):
    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answer = answer
        self.seen: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/list"


@contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[_Server]:
    with _Server(answer) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def feed_at(address: str, **more: object) -> Feed:
    return replace(Feed("own", "netset", "url", address), **more)  # type: ignore[arg-type]


def got(feed: Feed, copy: About | None = None) -> tuple[Fetched | None, bytes]:
    into = io.BytesIO()
    return fetch(feed, copy, into, contact="postmaster@example.org"), into.getvalue()


def test_what_came_and_who_asked() -> None:
    with serving(lambda asked: asked.give(LIST, ETag='"1"', Last_Modified="Mon, 02 Nov 2026 10:00:00 GMT")) as server:
        found, text = got(feed_at(server.address))
    assert text == LIST
    assert found == Fetched(hashlib.sha256(LIST).hexdigest(), '"1"', "Mon, 02 Nov 2026 10:00:00 GMT")
    assert server.seen[0]["User-Agent"].startswith("nftban/")
    assert "postmaster@example.org" in server.seen[0]["User-Agent"]
    assert "If-None-Match" not in server.seen[0]


def test_a_copy_is_asked_about_and_304_means_it_stands() -> None:
    with serving(lambda asked: asked.give(b"", 304)) as server:
        copy = About(server.address, '"1"', "Mon, 02 Nov 2026 10:00:00 GMT", 1.0)
        assert got(feed_at(server.address), copy) == (None, b"")
        assert server.seen[0]["If-None-Match"] == '"1"'
        assert server.seen[0]["If-Modified-Since"] == "Mon, 02 Nov 2026 10:00:00 GMT"
        # A copy of another address says nothing about this one.
        with pytest.raises(FetchError, match="304"):
            got(feed_at(server.address), replace(copy, source="https://elsewhere.example/"))


@pytest.mark.parametrize("code", [404, 403, 429, 500, 503])
def test_other_answers_are_failures(code: int) -> None:
    with serving(lambda asked: asked.give(b"<html>", code)) as server, pytest.raises(FetchError, match=str(code)):
        got(feed_at(server.address))


def test_gzip_by_header_and_by_content() -> None:
    packed = gzip.compress(LIST[:9]) + gzip.compress(LIST[9:])
    for headers in ({"Content_Encoding": "gzip"}, {}):
        with serving(lambda asked, headers=headers: asked.give(packed, **headers)) as server:  # type: ignore[misc]
            assert got(feed_at(server.address))[1] == LIST
    with serving(lambda asked: asked.give(packed[:-5])) as server, pytest.raises(FetchError, match="cut off"):
        got(feed_at(server.address))


def test_a_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    with serving(lambda asked: asked.give(bomb)) as server:
        into = io.BytesIO()
        with pytest.raises(FetchError, match="more than 1000000 bytes"):
            fetch(feed_at(server.address, size=1_000_000), None, into)
        assert len(into.getvalue()) <= 1_000_000
    with (
        serving(lambda asked: asked.give(LIST * 1000)) as server,
        pytest.raises(FetchError, match="more than 100 bytes"),
    ):
        got(feed_at(server.address, size=100))


def test_less_than_announced_is_no_short_list() -> None:
    with (
        serving(lambda asked: asked.give(LIST, announced=27)) as server,
        pytest.raises(FetchError, match="18 bytes"),
    ):
        got(feed_at(server.address))


def test_a_server_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "DEADLINE", 0.0)
    with serving(lambda asked: asked.give(LIST)) as server, pytest.raises(FetchError, match="not done"):
        got(feed_at(server.address))


def test_nobody_there() -> None:
    with serving(lambda asked: asked.give(LIST)) as server:
        address = server.address
    with pytest.raises(FetchError, match="refused"):
        got(feed_at(address))


def redirecting(to: str) -> Answer:
    return lambda asked: asked.give(b"", 302, Location=to)


def test_redirects_are_followed_but_not_for_ever_and_not_to_files() -> None:
    with serving(lambda asked: asked.give(LIST)) as other, serving(redirecting(other.address)) as server:
        assert got(feed_at(server.address))[1] == LIST
    for elsewhere in ("/list", "file:///etc/passwd", "ftp://127.0.0.1/x"):
        with serving(redirecting(elsewhere)) as server, pytest.raises(FetchError):
            got(feed_at(server.address))


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=lists", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def test_certificates_are_checked(tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = tls
    with serving(lambda asked: asked.give(LIST), context) as server:
        address = server.address.replace("http:", "https:")
        with pytest.raises(FetchError, match="certificate verify failed"):
            got(feed_at(address))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert got(feed_at(address))[1] == LIST


def test_https_never_leads_to_http(tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        serving(lambda asked: asked.give(LIST)) as plain,
        serving(redirecting(plain.address), context) as server,
        pytest.raises(FetchError, match="not https"),
    ):
        got(feed_at(server.address.replace("http:", "https:")))
    assert not plain.seen


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(LIST)
    feed = replace(feed_at(str(path)), source="file")
    found, text = got(feed)
    assert found is not None and text == LIST
    copy = About(str(path), found.etag)
    assert got(feed, copy) == (None, b"")
    path.write_bytes(LIST + b"45.0.0.9\n")
    assert got(feed, copy)[1] == LIST + b"45.0.0.9\n"
    path.unlink()
    with pytest.raises(FetchError, match="No such file"):
        got(feed, copy)


@pytest.mark.skipif(not shutil.which("rsync"), reason="needs rsync")
def test_rsync(tmp_path: Path) -> None:
    path = tmp_path / "list; touch pwned"
    path.write_bytes(gzip.compress(LIST))
    feed = replace(feed_at(str(path)), source="rsync")
    found, text = got(feed)
    assert found is not None and found.digest == hashlib.sha256(LIST).hexdigest() and text == LIST
    with pytest.raises(FetchError, match="rsync ended with"):
        got(replace(feed, address=str(tmp_path / "none")))
    with pytest.raises(FetchError):
        got(replace(feed, size=5))
