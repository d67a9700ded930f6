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
from lab.nftban import Nftban, eventually
from lab.nginx import Nginx

from nftban.feeds.copies import HEADER
from nftban.kernel.layout import FeedSets, Layout
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix, PrefixSet
from nftban.ranges import Ranges

LISTED, CLEAR = "45.0.0.7", "45.200.0.7"
PORT = 9999
HOUR = 3600.0
SETTINGS = """
[dns]
servers = ["127.0.0.1"]
[dnsbl]
zones = []
[jail.postfix]
enabled = false
[jail.sshd]
enabled = false
"""


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


def definition(name: str, path: str) -> str:
    return (
        f'[[feed]]\nname = "{name}"\nformat = "netset"\nurl = "http://{GATEWAY4}{path}"\n'
        'interval = "1h"\ninsecure = true\n'
    )


def held(machines: Namespaces, name: str = "own") -> Ranges:
    """What the kernel has of a feed."""
    layout = Layout(feeds=(FeedSets(name),))
    with machines.server.entered(), NetlinkKernel(layout) as kernel:
        found = kernel.present(time.time(), [f"feed4_{name}", f"feed6_{name}"])
    return Ranges.of(PrefixSet(prefix for element in found for prefix in layout.prefixes(element)))


def listed(text: str) -> Ranges:
    """What a list holds."""
    return Ranges.of(PrefixSet(map(Prefix.parse, text.split())))


@pytest.fixture
def nginx(machines: Namespaces, folder: Path) -> Iterator[Nginx]:
    with Nginx(machines.client, folder / "nginx", GATEWAY4) as running:
        yield running


@contextmanager
def running(machines: Namespaces, folder: Path, path: str, text: str) -> Iterator[Nftban]:
    """With the feed `own`, whose first list is in the kernel."""
    use = f'[feeds]\ncache = "{folder}/cache"\n[feed.own]\nenforce = true\n'
    files = {"rules/feeds/own.toml": definition("own", path), "conf.d/feeds.toml": use}
    with Nftban(machines.server, folder / "nftban", SETTINGS, files=files) as made:
        eventually(lambda: held(machines) == listed(text), "the first list is in the kernel", 20)
        yield made


@pytest.fixture
def nftban(machines: Namespaces, folder: Path, nginx: Nginx) -> Iterator[Nftban]:
    (nginx.lists / "list").write_text(listing(2000))
    with running(machines, folder, "/list", listing(2000)) as made:
        yield made


def sync(nftban: Nftban) -> str:
    """Fetches now; what it came to."""
    (row,) = nftban.json("feed", "sync", "own")["feeds"]
    return str(row["result"])


def test_not_one_packet_whatever_becomes_of_the_list(machines: Namespaces, nginx: Nginx, nftban: Nftban) -> None:
    good = held(machines)
    assert nftban.banned(LISTED) and not nftban.banned(CLEAR)
    with streams(machines) as came:
        assert sync(nftban) == "unchanged"
        assert [line[:3] for line in nginx.log.matching("/list")] == ["200", "304"]
        assert '"nftban/' in nginx.log.lines[0]

        # 2 % change.
        (nginx.lists / "list").write_text(listing(2000, start=40))
        assert sync(nftban) == "updated"
        changed = held(machines)
        assert changed == listed(listing(2000, start=40)) != good
        assert len(changed.v4.besides(good.v4)) < 60

        for poison in (
            "<html>\n",
            "45.0.0.0/8\n",
            listing(2000) + "8.8.8.8\n",
            listing(5000),
            listing(20),
            "",
            "45.0.",
        ):
            (nginx.lists / "list").write_text(poison)
            assert sync(nftban) == "refused"
            assert held(machines) == changed
        assert any("feed own refused" in event["text"] for event in nftban.json("status")["events"])

        nginx.close()
        assert sync(nftban) == "failed"
        assert held(machines) == changed

        # Restarted, killed and reloaded, all without the list's server.
        nftban.stop()
        nftban.start()
        nftban.process.send_signal(signal.SIGKILL)
        nftban.process.wait()
        nftban.start()
        nftban.process.send_signal(signal.SIGHUP)
        nftban.log.wait_for("settings read anew")
        eventually(lambda: nftban.json("feed", "list")["feeds"], "it answers")
        assert held(machines) == changed
        assert nftban.json("verify")["equal"]

        nginx.start()
        (nginx.lists / "list").write_text(listing(2100))
        assert sync(nftban) == "updated"
        assert held(machines) == listed(listing(2100))
    assert came[LISTED] == 0
    assert came[CLEAR] > 100


def test_entries_outlive_two_intervals_and_then_leave(machines: Namespaces, nftban: Nftban) -> None:
    (entry,) = nftban.json("query", LISTED)["entries"]
    assert entry["feed"] == "own" and entry["until"] > time.time() + 2 * HOUR


def test_what_somebody_does_to_a_feeds_set_is_mended(machines: Namespaces, nftban: Nftban) -> None:
    good = held(machines)
    for done in (
        "flush set inet nftban feed4_own",
        f"delete element inet nftban feed4_own {{ {LISTED} }}",
        "add element inet nftban feed4_own { 46.0.0.0/16 timeout 1h }",
        "delete table inet nftban",
    ):
        machines.server.run(["nft", done])
        eventually(lambda: held(machines) == good, f"whole again after: {done}")
    assert nftban.json("status")["healing"]["drift_healed"] == 4


def test_a_reload_takes_out_the_feeds_that_left_and_no_other(
    machines: Namespaces, folder: Path, nginx: Nginx, nftban: Nftban
) -> None:
    (nginx.lists / "other").write_text("46.0.0.1\n")
    own = nftban.folder
    (own / "rules" / "feeds" / "other.toml").write_text(definition("other", "/other"))
    use = (own / "conf.d" / "feeds.toml").read_text()

    def reload(text: str) -> None:
        (own / "conf.d" / "feeds.toml").write_text(text)
        before = len(nftban.log.matching("settings read anew"))
        nftban.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(nftban.log.matching("settings read anew")) > before, "read anew")

    with streams(machines) as came:
        reload(use + "[feed.other]\nenforce = true\n")
        eventually(lambda: nftban.banned("46.0.0.1"), "the new feed is in the kernel")
        reload(use)
        assert "feed4_other" not in machines.server.run(["nft", "list", "table", "inet", "nftban"]).stdout
        assert held(machines) == listed(listing(2000))
    assert came[LISTED] == 0 and came[CLEAR] > 100
    reload(use.replace("enforce = true", "points = 3"))
    assert "feed4_own" not in machines.server.run(["nft", "list", "table", "inet", "nftban"]).stdout
    assert not nftban.banned(LISTED)


def test_the_daemon_killed_in_the_middle_of_a_sync(machines: Namespaces, folder: Path, nginx: Nginx) -> None:
    """From a server that is slow enough to be killed while it fetches."""
    (nginx.lists / "list").write_text(listing(100))
    with running(machines, folder, "/slow/list", listing(100)) as nftban, streams(machines) as came:
        copy, new = folder / "cache" / "own.copy", folder / "cache" / ".own.copy.new"
        good, text = held(machines), copy.read_bytes()
        (nginx.lists / "list").write_text(listing(190) + "# long\n" * 20_000)
        asking = threading.Thread(target=nftban.cli, args=("feed", "sync", "own"))
        asking.start()
        eventually(lambda: new.exists() and new.stat().st_size > HEADER, "the first bytes are there", 20)
        nftban.process.send_signal(signal.SIGKILL)
        nftban.process.wait()
        asking.join()
        assert new.exists() and copy.read_bytes() == text
        nftban.start()
        eventually(lambda: not new.exists(), "what was begun is cleared away")
        assert held(machines) == good and nftban.banned(LISTED)
        # And who ends the daemon, or has it read its settings anew, does not wait for the server.
        asking = threading.Thread(target=nftban.cli, args=("feed", "sync", "own"))
        asking.start()
        eventually(lambda: new.exists() and new.stat().st_size > HEADER, "the first bytes are there", 20)
        nftban.process.send_signal(signal.SIGHUP)
        nftban.log.wait_for("settings read anew")
        asking.join()
        eventually(lambda: not new.exists(), "what was begun is cleared away")
        again = threading.Thread(target=nftban.cli, args=("feed", "sync", "own"))
        again.start()
        eventually(lambda: new.exists() and new.stat().st_size > HEADER, "the first bytes are there", 20)
        assert nftban.stop() == 0
        again.join()
        assert held(machines) == good
    assert came[LISTED] == 0 and came[CLEAR] > 100


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
