"""A feed from a real web server into the kernel: through everything that happens to it, what the kernel holds is the
last good list, and of an address on it not one packet comes through."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab.namespaces import GATEWAY4, SERVER4, Namespaces
from lab.nftban import eventually
from lab.nginx import Nginx

from nftban.daemon.feeds import feed_changes, feed_elements
from nftban.feeds.copies import HEADER, Copies
from nftban.feeds.definitions import Feed
from nftban.feeds.sync import Outcome, Result, Sync
from nftban.kernel.columns import RangeColumns
from nftban.kernel.layout import FeedSets, Layout
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix, PrefixSet
from nftban.ranges import Ranges
from nftban.records import Delta

LISTED, CLEAR = "45.0.0.7", "45.200.0.7"
PORT = 9999
SETS = FeedSets("own", "all")
LAYOUT = Layout(feeds=(SETS,))
HOUR = 3600.0
FEED = Feed("own", "netset", "url", f"http://{GATEWAY4}/list", interval=HOUR, keep=72 * HOUR, insecure=True)


def listing(count: int, start: int = 0) -> str:
    """Single addresses and networks, LISTED always among them."""
    return f"{LISTED}\n" + "".join(
        f"45.{1 + n // 200}.{n % 200}.{n % 50 * 4}{'/30' if n % 3 else ''}\n" for n in range(start, start + count)
    )


@contextmanager
def streams(machines: Namespaces) -> Iterator[dict[str, int]]:
    """Packets from a listed and from a clear address, without a pause; gives how many of each came through, once the
    block is left."""
    counts = {LISTED: 0, CLEAR: 0}
    over = threading.Event()
    machines.client.run(["ip", "route", "add", "local", "45.0.0.0/8", "dev", "lo"])
    receiver = machines.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((SERVER4, PORT))
    receiver.settimeout(0.2)

    def send() -> None:
        with machines.client.entered():
            senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in counts]
        for sender, address in zip(senders, counts, strict=True):
            sender.bind((address, 0))
            sender.connect((SERVER4, PORT))
        while not over.is_set():
            for sender in senders:
                sender.send(b"packet")
            over.wait(0.0005)
        for sender in senders:
            sender.close()

    def count() -> None:
        while True:
            try:
                _, (address, _) = receiver.recvfrom(64)
            except TimeoutError:
                if over.is_set():
                    return
                continue
            counts[address] += 1

    threads = [threading.Thread(target=send), threading.Thread(target=count)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join()
        receiver.close()


class Enforced:
    """The feed and its kernel sets, as the daemon keeps them."""

    def __init__(self, machines: Namespaces, cache: Path, kernel: NetlinkKernel) -> None:
        self.machines, self.kernel = machines, kernel
        self.sync = Sync([FEED], Copies(cache))
        self.present: dict[str, RangeColumns] = {}

    def attempt(self, now: float) -> Outcome:
        outcome = self.machines.server.call(lambda: self.sync.attempt("own", now))
        self.enforce()
        return outcome

    def enforce(self) -> None:
        wanted = feed_elements(SETS, self.sync.ranges["own"], PrefixSet(), self.sync.until("own"))
        if self.present:
            delta = feed_changes(self.present, wanted)
        else:
            delta = Delta(add=tuple(e for columns in wanted.values() for e in columns))
        assert self.kernel.apply(delta, time.time()) == []
        self.present = wanted

    def held(self) -> Ranges:
        """What the kernel has."""
        found = self.kernel.present(time.time(), ["feed4_own", "feed6_own"])
        return Ranges.of(PrefixSet(prefix for element in found for prefix in LAYOUT.prefixes(element)))


@pytest.fixture
def nginx(machines: Namespaces, folder: Path) -> Iterator[Nginx]:
    with Nginx(machines.client, folder / "nginx", GATEWAY4) as running:
        yield running


@pytest.fixture
def enforced(machines: Namespaces, folder: Path, nginx: Nginx) -> Iterator[Enforced]:
    """The first list is in the kernel."""
    (nginx.lists / "list").write_text(listing(2000))
    with machines.server.entered():
        kernel = NetlinkKernel(LAYOUT)
    with kernel:
        kernel.create()
        made = Enforced(machines, folder / "cache", kernel)
        assert made.sync.restore(time.time()) == []
        assert made.attempt(time.time()).result is Result.UPDATED
        yield made


def test_not_one_packet_whatever_becomes_of_the_list(machines: Namespaces, nginx: Nginx, enforced: Enforced) -> None:
    now = time.time()
    good = enforced.held()
    assert good == enforced.sync.ranges["own"] and good.contains(Prefix.parse(LISTED))
    with streams(machines) as came:
        assert enforced.attempt(now).result is Result.UNCHANGED
        assert [line[:3] for line in nginx.log.matching("/list")] == ["200", "304"]
        assert '"nftban/' in nginx.log.lines[0]

        # 2 % change.
        (nginx.lists / "list").write_text(listing(2000, start=40))
        assert enforced.attempt(now).result is Result.UPDATED
        changed = enforced.held()
        assert changed == enforced.sync.ranges["own"] != good
        assert len(changed.v4.besides(good.v4)) < 60

        for poison in ("<html>\n", "0.0.0.0/0\n", listing(2000) + "8.8.8.8\n", listing(5000), listing(20), "", "45.0."):
            (nginx.lists / "list").write_text(poison)
            assert enforced.attempt(now).result is Result.REFUSED
            assert enforced.held() == changed

        nginx.close()
        for hour in range(1, 25):
            assert enforced.attempt(now + hour * HOUR).result is Result.FAILED
            assert enforced.sync.expire(now + hour * HOUR) == []
        assert enforced.held() == changed

        nginx.start()
        (nginx.lists / "list").write_text(listing(2100))
        assert enforced.attempt(now + 25 * HOUR).result is Result.UPDATED
        assert enforced.held() == enforced.sync.ranges["own"]
    assert came[LISTED] == 0
    assert came[CLEAR] > 100


def test_entries_outlive_two_intervals_and_then_leave(enforced: Enforced) -> None:
    ends = {element.until for element in enforced.kernel.present(time.time(), ["feed4_own"])}
    assert all(end is not None and end > time.time() + 2 * FEED.interval for end in ends)


def test_killed_in_the_middle_of_a_sync(machines: Namespaces, nginx: Nginx, folder: Path) -> None:
    """The command itself, from a server that is slow enough to be killed while it fetches."""
    (folder / "rules" / "feeds").mkdir(parents=True)
    (folder / "rules" / "feeds" / "own.toml").write_text(
        f'[[feed]]\nname = "own"\nformat = "netset"\nurl = "http://{GATEWAY4}/slow/list"\ninsecure = true\n'
    )
    cache = folder / "cache"
    (folder / "nftban.toml").write_text(f'[feeds]\ncache = "{cache}"\n[feed.own]\nenforce = true\n')
    command = [sys.executable, "-m", "nftban", "--config", str(folder / "nftban.toml"), "feed"]
    (nginx.lists / "list").write_text(listing(100))
    done = machines.server.run([*command, "sync", "--json"])
    assert json.loads(done.stdout)["feeds"][0]["result"] == "updated"
    good = (cache / "own.copy").read_bytes()

    (nginx.lists / "list").write_text(listing(190) + "# long\n" * 20_000)
    process = machines.server.popen([*command, "sync", "own"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    new = cache / ".own.copy.new"
    eventually(lambda: new.exists() and new.stat().st_size > HEADER, "the first bytes are there", 20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert new.exists() and (cache / "own.copy").read_bytes() == good

    (nginx.lists / "list").write_text(listing(110))
    listed = json.loads(machines.server.run([*command, "list", "--json"]).stdout)["feeds"]
    assert [row["entries"] for row in listed if row["in_use"]] == [101]
    done = machines.server.run([*command, "diff", "own"], check=False)
    assert done.returncode == 1 and len(done.stdout.split()) >= 10
    done = machines.server.run([*command, "sync", "own", "--json"])
    assert json.loads(done.stdout)["feeds"][0] | {"entries": 111, "before": 101} == json.loads(done.stdout)["feeds"][0]
    assert sorted(os.listdir(cache)) == [".own.lock", "own.copy", "own.state"]
