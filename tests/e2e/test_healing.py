"""What others do to our table is undone: by the real daemon, on the real kernel, with a banned client knocking.

A listener of our own beside the daemon takes the time from the kernel's word of the change to its word of the repair;
the client's packets say how long the ban had a gap.  The bounds are generous for busy machines; `-s` shows the times.
"""

from __future__ import annotations

import re
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.namespaces import SERVER4, Namespaces
from lab.nftban import Nftban, eventually

from nftban.kernel.monitor import Change, Monitor

BANNED, FREE, PORT = "203.0.113.9", "203.0.113.10", 9999
BANS = (BANNED, "2001:db8:9::7", "2001:db8:8::/64", "198.18.0.0/24", "198.18.16.0/20", "2001:db8:a000::/35")
GENEROUS = 1.0
"""Seconds; 0.1 are meant."""

SETTINGS = """
[dns]
servers = ["127.0.0.1"]
[dnsbl]
zones = []
[jail.postfix]
enabled = false
[jail.sshd]
enabled = false
[allow]
prefixes = ["198.51.100.0/28"]
"""

FOREIGN_CONTENT = """
table inet nftban {
    map verdicts { type ipv4_addr : verdict; elements = { 192.0.2.77 : drop }; }
    chain other { type filter hook forward priority 0; }
}
"""
FOREIGN = """
table inet nftban {
    set ban4_all { type ipv6_addr; }
    chain prerouting { type filter hook input priority 5; policy accept; ip6 saddr @ban4_all accept; }
}
"""
SNIPPET = Path(__file__).parents[2] / "rules" / "nftban.nft"

DISTURBANCES = {
    "table deleted": "delete table inet nftban",
    "set deleted": "flush chain inet nftban prerouting\ndelete set inet nftban ban4_all",
    "elements deleted": f"delete element inet nftban ban4_all {{ {BANNED} }}",
    "set flushed": "flush set inet nftban ban4_all",
    "interval sets flushed": "flush set inet nftban ban4range_all\nflush set inet nftban allow4",
    "ruleset flushed": "flush ruleset",
    "nftables reloaded": f'flush ruleset\ninclude "{SNIPPET}"',
    "foreign table": "delete table inet nftban" + FOREIGN + FOREIGN_CONTENT,
    "foreign content": FOREIGN_CONTENT,
    "chain flushed": "flush chain inet nftban prerouting",
    "rule inserted": "insert rule inet nftban prerouting accept",
    "element added": f"add element inet nftban ban4_all {{ {FREE} }}",
    "made permanent": f"delete element inet nftban ban4_all {{ {BANNED} }}\n"
    f"add element inet nftban ban4_all {{ {BANNED} }}",
    "port deleted": "delete element inet nftban ports_smtp { 25 }",
    "several at once": f"delete element inet nftban ban4_all {{ {BANNED} }}\n"
    f"add element inet nftban ban6net64_smtp {{ 2001:db8:77:: timeout 1h }}\n"
    f"add element inet nftban ban4range_smtp {{ 203.0.113.64/27 timeout 1h }}",
    "put to sleep": "add table inet nftban { flags dormant; }",
}


class Witness:
    """Hears every change of the table, the daemon's too; times are time.monotonic()."""

    def __init__(self, machines: Namespaces) -> None:
        self.heard: list[tuple[float, Change]] = []
        self._monitor = machines.server.call(lambda: Monitor("nftban", lambda: -1 & 0xFFFFFFFF))
        self._wake, other_end = socket.socketpair()
        self._thread = threading.Thread(target=self._listen, args=(other_end,))
        self._thread.start()

    def _listen(self, wake: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, wake:
            selector.register(self._monitor, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                ready = selector.select()
                moment = time.monotonic()
                self.heard += [(moment, change) for change in self._monitor.read()]
                if any(key.fileobj is wake for key, _ in ready):
                    return

    def gaps(self) -> list[float]:
        """Seconds from each change by nft to the last change by the daemon that follows it."""
        found: list[float] = []
        began: float | None = None
        ended: float | None = None
        for moment, change in [*self.heard, (float("inf"), Change((), False, 0, "nft"))]:
            if change.program != "nft":
                ended = moment
                continue
            if began is not None and ended is not None and ended > began:
                found.append(ended - began)
            began, ended = moment, None
        return found

    def close(self) -> None:
        self._wake.close()
        self._thread.join(10)
        self._monitor.close()


class Knocking:
    """The banned client sends a datagram every half millisecond; `arrived` holds when one came through."""

    def __init__(self, machines: Namespaces) -> None:
        self.arrived: list[float] = []
        self._stopped = threading.Event()
        self._server = machines.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server.bind((SERVER4, PORT))
        self._server.settimeout(0.1)
        self._client = machines.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._client.bind((BANNED, 0))
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stopped.wait(0.0005):
            self._client.sendto(b"knock", (SERVER4, PORT))

    def _receive(self) -> None:
        while not self._stopped.is_set():
            try:
                self._server.recv(100)
            except TimeoutError:
                continue
            self.arrived.append(time.monotonic())

    def close(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(10)
        self._server.close()
        self._client.close()


@pytest.fixture
def nftban(machines: Namespaces, folder: Path) -> Iterator[Nftban]:
    with Nftban(machines.server, folder / "nftban", SETTINGS) as running:
        for scope in ("all", "smtp"):
            running.cli("ban", *BANS, "--for", "10m", "--scope", scope, check=True)
        yield running


def nft(machines: Namespaces, commands: str) -> None:
    """One transaction of another program."""
    machines.server.run(["nft", "-f", "-"], input=commands + "\n")


def listed(machines: Namespaces) -> list[str]:
    """The table's parts in any order, without what changes by itself: counters and times."""
    text = machines.server.run(["nft", "-s", "list", "ruleset"]).stdout
    return sorted(re.sub(r" (timeout|expires) \w+", "", text).split("\n\n"))


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_what_others_do_is_undone_at_once(machines: Namespaces, nftban: Nftban, disturbance: str) -> None:
    assert nftban.json("verify")["equal"]
    before = listed(machines)
    witness, knocking = Witness(machines), Knocking(machines)
    try:
        nft(machines, DISTURBANCES[disturbance])
        nftban.log.wait_for("WARNING nftban: our table was changed by nft .* whole again")
    finally:
        knocking.close()
        witness.close()
    verified = nftban.json("verify")
    assert verified["equal"], verified
    assert listed(machines) == before
    healing = nftban.json("status")["healing"]
    assert healing["drift_found"] == healing["drift_healed"] == 1
    gaps, passed = witness.gaps(), knocking.arrived
    open_for = passed[-1] - passed[0] if passed else 0.0
    print(f"\n{disturbance}: whole after {[f'{1000 * g:.1f} ms' for g in gaps]}, "
          f"{len(passed)} packets in {1000 * open_for:.1f} ms; {healing['by_kind']}")  # fmt: skip
    print("\n".join(nftban.log.matching("our table was changed")))
    assert gaps and max(gaps) < GENEROUS
    assert open_for < GENEROUS


def test_one_who_does_not_give_up_is_named_and_left_to_the_periodic_check(machines: Namespaces, nftban: Nftban) -> None:
    mended, fight = "our table was changed by nft .* whole again", "nft .* has undone our table 5 times within a minute"
    for times in range(1, 6):
        nft(machines, "delete table inet nftban")
        nftban.log.wait_for(mended, count=times)
    nftban.log.wait_for(fight)
    nft(machines, "delete table inet nftban")
    assert not nftban.json("verify")["equal"], "it rests until the next check"
    status = nftban.json("status")
    assert status["healing"]["resting"]
    assert status["healing"]["by_kind"] == {"table": 5, "missing": 5}
    assert any("undone our table" in e["text"] for e in status["events"])
    assert nftban.cli("ban", "203.0.113.20", check=True)
    assert nftban.json("verify")["equal"], "a ban puts everything back all the same"
    assert len(nftban.log.matching(mended)) == 5


def test_a_ban_that_times_out_is_no_drift(nftban: Nftban) -> None:
    nftban.cli("ban", FREE, "203.0.113.128/26", "--for", "2s", check=True)
    assert nftban.banned(FREE)
    eventually(lambda: not nftban.banned(FREE), "it is over")
    assert nftban.json("verify")["equal"]
    assert nftban.json("status")["healing"]["drift_found"] == 0


@pytest.mark.parametrize("running", [True, False])
def test_verify_names_every_difference_and_changes_nothing(machines: Namespaces, nftban: Nftban, running: bool) -> None:
    if running:
        # So that the daemon lets us look: it rests after five bouts of the same.
        for times in range(1, 6):
            nft(machines, "insert rule inet nftban prerouting accept")
            nftban.log.wait_for("whole again", count=times)
        nftban.log.wait_for("has undone our table")
    else:
        nftban.stop()
    assert nftban.cli("verify").returncode == 0
    nft(
        machines,
        f"""
        delete element inet nftban ban4_all {{ {BANNED} }}
        add element inet nftban ban4_smtp {{ {FREE} timeout 1h }}
        delete element inet nftban ban6net64_all {{ 2001:db8:8:: }}
        add element inet nftban ban6net64_all {{ 2001:db8:8:: timeout 1h }}
        delete element inet nftban ban4range_all {{ 198.18.16.0/20 }}
        delete element inet nftban allow4 {{ 198.51.100.0/28 }}
        insert rule inet nftban prerouting accept
        """,
    )
    before = listed(machines)
    told = nftban.cli("verify")
    assert told.returncode == 1
    for words in ("not equal", BANNED, FREE, "2001:db8:8::/64", "198.18.16.0/20", "198.51.100.0/28", "prerouting"):
        assert words in told.stdout
    result = nftban.json("verify")
    assert listed(machines) == before
    assert result["frame"] == ["the rules of chain prerouting are not ours"]
    assert {row["prefix"] for row in result["missing"]} == {BANNED, "198.18.16.0/20", "198.51.100.0/28"}
    assert [(row["prefix"], row["scope"]) for row in result["unwanted"]] == [(FREE, "smtp")]
    (wrong,) = result["wrong_expiry"]
    assert wrong["prefix"] == "2001:db8:8::/64"
    assert 2900 < wrong["kernel_until"] - wrong["until"] < 3600
    assert result["counts"] == {"missing": 3, "unwanted": 1, "wrong_expiry": 1}
