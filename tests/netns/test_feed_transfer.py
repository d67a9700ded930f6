"""Zone transfers from a real name server (NSD): whole, incremental, unchanged, with a key and without the right one."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nftban.feeds.copies import About
from nftban.feeds.definitions import Feed
from nftban.feeds.fetch import FetchError, fetch
from nftban.feeds.formats import FORMATS

pytestmark = pytest.mark.skipif(not shutil.which("nsd"), reason="needs nsd")

PORT = 5310
SECRET = "c2VjcmV0IGVub3VnaCBmb3IgYSB0ZXN0"
CONFIGURATION = """
server:
    ip-address: 127.0.0.1@{port}
    username: ""
    chroot: ""
    zonesdir: "{folder}"
    pidfile: "{folder}/pid"
    database: ""
    xfrdfile: ""
    zonelistfile: "{folder}/zonelist"
    server-count: 1
remote-control:
    control-enable: yes
    control-interface: {folder}/control
key:
    name: "feeds"
    algorithm: hmac-sha256
    secret: "{secret}"
zone:
    name: bl.example
    zonefile: zone
    provide-xfr: 127.0.0.1 feeds
    store-ixfr: yes
    create-ixfr: yes
"""
FEED = Feed("own", "zone", "axfr", "bl.example", server=f"127.0.0.1:{PORT}")


def zone(serial: int, *records: str) -> str:
    head = f"$ORIGIN bl.example.\n$TTL 60\n@ SOA ns host {serial} 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"
    return head + "".join(f"{record}\n" for record in records)


@contextmanager
def serving(folder: Path, text: str) -> Iterator[Callable[[str], None]]:
    """NSD with this zone; the function that it gives replaces the zone."""
    (folder / "zone").write_text(text)
    configuration = folder / "nsd.conf"
    configuration.write_text(CONFIGURATION.format(port=PORT, folder=folder, secret=SECRET))
    process = subprocess.Popen(
        ["nsd", "-d", "-V", "2", "-c", str(configuration)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        output = []
        for line in process.stdout:
            output.append(line)
            if "nsd started" in line:
                break
        else:
            raise AssertionError("".join(output))

        def replaced(text: str) -> None:
            (folder / "zone").write_text(text)
            command = ["nsd-control", "-c", str(configuration), "reload", "bl.example"]
            subprocess.run(command, check=True, capture_output=True)

        yield replaced
    finally:
        process.terminate()
        process.communicate()


def transferred(feed: Feed, before: bytes = b"") -> bytes | None:
    into = io.BytesIO()
    copy = About(feed.address) if before else None
    came = fetch(feed, copy, into, lambda: [before])
    return into.getvalue() if came else None


def listed(text: bytes) -> list[str]:
    return [str(p) for p in FORMATS["zone"]([text]).ranges.prefixes()]


def test_whole_then_the_difference_then_nothing(netns: object, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f"hmac-sha256:feeds:{SECRET}\n")
    feed = replace(FEED, tsig=str(key))
    with serving(
        tmp_path, zone(1, "7.2.0.192 A 127.0.0.2", "*.113.0.203 A 127.0.0.3", '7.2.0.192 TXT "why"')
    ) as replaced:
        first = transferred(feed)
        assert first is not None and listed(first) == ["192.0.2.7", "203.0.113.0/24"]
        assert transferred(feed, first) is None
        replaced(zone(2, "*.113.0.203 A 127.0.0.3", "8.2.0.192 A 127.0.0.2"))
        # NSD loads the new zone behind its control's back.
        while (second := transferred(feed, first)) is None:
            pass
        for text in (second, transferred(feed, b"damaged")):
            assert text is not None and listed(text) == ["192.0.2.8", "203.0.113.0/24"]


def test_without_the_right_key_nothing_comes(netns: object, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("feeds:d3Jvbmc=\n")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("x\n")
    with serving(tmp_path, zone(1)):
        for tsig in ("", str(wrong), str(nonsense), str(tmp_path / "none")):
            with pytest.raises(FetchError):
                transferred(replace(FEED, tsig=tsig))


def test_nobody_there(netns: object) -> None:
    with pytest.raises(FetchError, match="from 127"):
        transferred(FEED)
