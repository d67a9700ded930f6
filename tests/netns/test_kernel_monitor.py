"""What the kernel tells of others' changes, heard for real; and that no bytes whatever can harm the listener."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nftban.daemon.bans import Bans
from nftban.daemon.heal import Healing
from nftban.kernel.codec import NFNL_SUBSYS_NFTABLES, NFPROTO_INET, attribute, string
from nftban.kernel.layout import DEFAULT
from nftban.kernel.monitor import (
    LOST,
    NETLINK_ADD_MEMBERSHIP,
    NFNLGRP_NFTABLES,
    NFT_MSG_NEWGEN,
    UNREADABLE,
    Change,
    Monitor,
    Notifications,
)
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.wire import NETLINK_NETFILTER, SOL_NETLINK
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, Delta, Origin
from nftban.store.sqlite import Store

PORT, OURS = 4711, 815
NEWTABLE, DELTABLE, NEWSETELEM = 0, 2, 12


def nft(*commands: str) -> int:
    """One transaction of another program; its process number."""
    child = subprocess.Popen(["nft", "-f", "-"], stdin=subprocess.PIPE, text=True)
    child.communicate("\n".join(commands) + "\n")
    assert child.returncode == 0
    return child.pid


def element(address: str, seconds: float = 600) -> Delta:
    return Delta(add=(DEFAULT.place(Prefix.parse(address), "all", time.time() + seconds),))


@pytest.fixture
def kernel(netns: object) -> Iterator[NetlinkKernel]:
    with NetlinkKernel(DEFAULT) as made:
        made.create()
        yield made


@pytest.fixture
def monitor(kernel: NetlinkKernel) -> Iterator[Monitor]:
    with Monitor(DEFAULT.table, lambda: kernel.port) as made:
        yield made


def heard(monitor: Monitor) -> list[Change]:
    """What is told by now: the kernel has queued it before nft ended."""
    changes: list[Change] = []
    while select.select([monitor], [], [], 0)[0]:
        changes += monitor.read()
    return changes


IN_FIRST_PID_NAMESPACE = os.readlink("/proc/self/ns/pid") == f"pid:[{0xEFFFFFFC}]"  # PROC_PID_INIT_INO, linux/proc_ns.h


@pytest.mark.parametrize(
    ("commands", "words", "frame"),
    [
        (["add element inet nftban ban4_all { 1.2.3.4, 1.2.3.5 }"], "element added to set ban4_all (2 times)", False),
        (["flush chain inet nftban scope_ssh"], "rule deleted from chain scope_ssh (6 times)", True),
        (["insert rule inet nftban prerouting accept"], "rule added to chain prerouting", True),
        (["add chain inet nftban extra"], "chain extra made or changed", True),
        (["add set inet nftban extra { type mark; }"], "set extra made", True),
        (["add counter inet nftban extra"], "object extra made or changed", True),
        (["delete table inet nftban"], "table nftban deleted", True),
        (["flush ruleset"], "table nftban deleted", True),
        (["destroy table inet nftban"], "table nftban deleted", True),
        (["add table inet nftban { flags dormant; }"], "table nftban made or changed", True),
    ],
)  # fmt: skip
def test_what_others_do_is_told_with_their_name(monitor: Monitor, commands: list[str], words: str, frame: bool) -> None:
    probe = subprocess.run(["nft", "-c", *commands], capture_output=True, text=True)
    if "syntax error" in probe.stderr:
        pytest.skip("this nft does not know the command")
    pid = nft(*commands)
    (change,) = heard(monitor)
    assert change.words == (words,)
    assert (change.frame, change.program) == (frame, "nft")
    if IN_FIRST_PID_NAMESPACE:  # the kernel tells the number that the process has there
        assert change.pid == pid


def test_the_elements_are_told_by_their_keys_unless_there_are_many(monitor: Monitor) -> None:
    nft(
        "add element inet nftban ban4_all { 1.2.3.4 timeout 1h }",
        "add element inet nftban ban6_all { 2001:db8::7 }",
        "add element inet nftban ban4range_all { 1.2.0.0/20 }",
    )
    (change,) = heard(monitor)
    assert change.elements is not None
    assert {(name, key.hex()) for name, key in change.elements} >= {
        ("ban4_all", "01020304"),
        ("ban4range_all", "01020000"),
        ("ban4range_all", "01021000"),
        ("ban6_all", "20010db8000000000000000000000007"),
    }
    nft("flush set inet nftban ban4_all", "add set inet nftban extra { type mark; }")
    assert [c.elements for c in heard(monitor)] == [None]
    nft(f"add element inet nftban ban4_all {{ {', '.join(f'1.2.3.{i}' for i in range(201))} }}")
    assert [c.elements for c in heard(monitor)] == [None]


def test_what_does_not_touch_our_table_is_not_told(monitor: Monitor) -> None:
    nft("add table inet other { set ban4_all { type ipv4_addr; elements = { 192.0.2.7 }; }; }")
    nft("add table ip nftban { chain prerouting { type filter hook prerouting priority 0; }; }")
    nft("flush table ip nftban", "delete table inet other")
    assert heard(monitor) == []


def test_our_own_changes_do_not_even_wake_us(kernel: NetlinkKernel, monitor: Monitor) -> None:
    kernel.apply(element("192.0.2.7"), time.time())
    kernel.remove()
    kernel.create()
    assert select.select([monitor], [], [], 0) == ([], [], [])
    nft("delete table inet nftban")
    assert select.select([monitor], [], [], 0) == ([monitor], [], [])
    assert len(heard(monitor)) == 1


def test_our_own_changes_are_known_after_our_socket_was_opened_anew(netns: object) -> None:
    with NetlinkKernel(DEFAULT) as first, NetlinkKernel(DEFAULT) as second:
        ours = [first]
        with Monitor(DEFAULT.table, lambda: ours[0].port) as monitor:
            first.create()
            ours[0] = second
            second.apply(element("192.0.2.7"), time.time())
            assert heard(monitor) == []
            second.apply(element("192.0.2.8"), time.time())
            assert select.select([monitor], [], [], 0)[0] == [], "from then on the kernel keeps them back"
            first.apply(element("192.0.2.9"), time.time())
            (change,) = heard(monitor)
            assert change.words == ("element added to set ban4_all",)


def test_changes_by_others_while_away_are_not_told_and_later_ones_are(monitor: Monitor) -> None:
    with monitor.away():
        nft("add element inet nftban ban4_all { 192.0.2.7 }")
    assert heard(monitor) == []
    nft("delete element inet nftban ban4_all { 192.0.2.7 }")
    assert [c.words for c in heard(monitor)] == [("element deleted from set ban4_all",)]


def test_a_flood_is_told_as_lost_and_later_changes_are_whole(monitor: Monitor) -> None:
    addresses = (f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(60_000))
    nft(f"add element inet nftban ban4_all {{ {', '.join(addresses)} }}")
    assert LOST in heard(monitor)
    # The end of the flood may have been lost too: then its beginning is told with what comes next.
    nft("add element inet nftban ban4_all { 192.0.2.6 }")
    assert len(heard(monitor)) == 1
    nft("add element inet nftban ban4_all { 192.0.2.7 }")
    assert [c.words for c in heard(monitor)] == [("element added to set ban4_all",)]


def test_the_word_comes_at_once(monitor: Monitor) -> None:
    """In milliseconds, not at the next poll: the time from the end of the deletion to the reading end waking up."""
    waits: list[float] = []
    with NetlinkKernel(DEFAULT) as other:
        for _ in range(20):
            woken: list[float] = []

            def wait(woken: list[float] = woken) -> None:
                select.select([monitor], [], [], 5)
                woken.append(time.monotonic())

            listener = threading.Thread(target=wait)
            listener.start()
            began = time.monotonic()
            other.remove()
            listener.join()
            waits.append(woken[0] - began)
            assert len(heard(monitor)) == 1
            other.create()
            heard(monitor)
    assert sorted(waits)[10] < 0.05


def test_messages_from_other_processes_are_not_believed(monitor: Monitor) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as liar:
        liar.bind((0, 0))
        liar.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        told = message(DELTABLE, string(1, "nftban")) + message(NFT_MSG_NEWGEN)
        port = monitor._socket.getsockname()[0]
        liar.sendto(told, (port, 0))
        liar.sendto(told, (0, 1 << NFNLGRP_NFTABLES - 1))
    assert heard(monitor) == []


# ---- the periodic check, which hears nothing ---------------------------------------------------------------------


class Check:
    """Healing without a monitor, its bans and what it reported."""

    def __init__(self, kernel: NetlinkKernel, folder: Path) -> None:
        self.store = Store(folder / "state.db")
        self.bans = Bans(self.store, kernel, DEFAULT, PrefixSet())
        self.events: list[str] = []
        self.healing = Healing(kernel, self.bans, None, lambda event: self.events.append(event.text), time.time)
        now = time.time()
        for text in ("192.0.2.7", "198.51.100.0/24", "203.0.112.0/23", "2001:db8::7"):
            self.bans.place(Ban(Prefix.parse(text), "all", now, now + 600, Origin.MANUAL), now)
        self.check(PrefixSet([Prefix.parse("192.0.2.200")]))

    def check(self, allow: PrefixSet) -> None:
        asyncio.run(self.healing.check(allow))


@pytest.fixture
def check(kernel: NetlinkKernel, tmp_path: Path) -> Iterator[Check]:
    made = Check(kernel, tmp_path)
    yield made
    made.store.close()


def numbers(check: Check) -> tuple[int, int, dict[str, int]]:
    status = check.healing.status()
    return status["drift_found"], status["drift_healed"], status["by_kind"]


def test_the_first_look_and_a_changed_allow_list_are_no_drift(check: Check) -> None:
    check.check(PrefixSet([Prefix.parse("192.0.2.201")]))
    check.check(PrefixSet([Prefix.parse("192.0.2.201")]))
    assert numbers(check) == (0, 0, {})
    assert check.events == []
    assert "192.0.2.201" in subprocess.check_output(["nft", "list", "set", "inet", "nftban", "allow4"], text=True)


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        ("delete table inet nftban", {"table": 1, "missing": 1}),
        ("flush set inet nftban ban4_all", {"missing": 1}),
        ("add element inet nftban ban4_all { 192.0.2.8 timeout 1h }", {"unwanted": 1}),
        ("flush chain inet nftban prerouting", {"frame": 1}),
    ],
)
def test_the_check_finds_what_nobody_told(
    check: Check, kernel: NetlinkKernel, command: str, kinds: dict[str, int]
) -> None:
    nft(command)
    check.check(check.bans.allow)
    assert numbers(check) == (1, 1, kinds)
    assert len(check.events) == 1 and "not as intended" in check.events[0]
    assert kernel.drift() == []
    assert not check.bans.difference(time.time(), exact=True)
    check.check(check.bans.allow)
    assert numbers(check) == (1, 1, kinds)


def test_big_sets_are_checked_in_pieces_while_bans_come_and_go(check: Check) -> None:
    """An element that is missing, or ends at another time, is found wherever it stands; a ban lifted between two
    pieces is not put back."""
    now = time.time()
    for i in range(2500):
        check.bans.place(Ban(Prefix(4, (10 << 24) + i, 32), "all", now, now + 600, Origin.MANUAL), now)
    names = {"ban4_all"}
    assert check.bans.in_doubt(now).isdisjoint(names)
    pieces = list(check.bans.pieces(names))
    assert len(pieces) == 3
    assert not any(piece(time.time()) for piece in pieces)
    check.bans.lift(Prefix(4, (10 << 24) + 2400, 32), "all", now, "unbanned")
    assert not any(piece(time.time()) for piece in pieces)
    nft("delete element inet nftban ban4_all { 10.0.9.101 }")
    found = [piece(time.time()) for piece in pieces]
    assert [[e.first for e in delta.added()] for delta in found] == [[], [], [(10 << 24) + 2405]]
    before = numbers(check)
    check.check(check.bans.allow)
    assert numbers(check) == (before[0] + 1, before[1] + 1, {"missing": 1})
    assert not check.bans.difference(time.time(), exact=True)
    nft("add element inet nftban ban4_all { 10.1.0.1 timeout 1h }")
    assert names <= check.bans.in_doubt(time.time()), "one more than there should be"
    check.check(check.bans.allow)
    assert not check.bans.difference(time.time(), exact=True)


# ---- without a kernel: any bytes ---------------------------------------------------------------------------------


def message(kind: int, attributes: bytes = b"", port: int = PORT, family: int = NFPROTO_INET) -> bytes:
    payload = bytes((family, 0, 0, 0)) + attributes
    return struct.pack("=IHHII", 16 + len(payload), NFNL_SUBSYS_NFTABLES << 8 | kind, 0, 1, port) + payload


def newgen(pid: int = 99, name: bytes = b"evil\0") -> bytes:
    return message(NFT_MSG_NEWGEN, attribute(1, bytes(4)) + attribute(2, pid.to_bytes(4, "big")) + attribute(3, name))


def test_a_name_moves_no_cursor() -> None:
    told = Notifications("nftban").take(
        message(DELTABLE, string(1, "nftban")) + newgen(name=b"\x1b[2J\n\xff\0"), OURS
    )  # fmt: skip
    assert told == [Change(("table nftban deleted",), True, 99, "\\x1b[2J\\x0a\\xff", None)]


def test_many_things_are_not_all_named() -> None:
    notifications = Notifications("nftban")
    for n in range(10_000):
        assert notifications.take(message(9, string(1, "nftban") + string(2, f"set{n}")), OURS) == []
    (change,) = notifications.take(newgen(), OURS)
    assert len(change.words) == 21
    assert change.words[-1] == "and more (9,980 times)"


def test_ours_are_left_out_wherever_they_stand() -> None:
    one = message(NEWTABLE, string(1, "nftban"), port=OURS)
    assert Notifications("nftban").take(one + message(NFT_MSG_NEWGEN, port=OURS), OURS) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    notifications = Notifications("nftban")
    assert all(isinstance(change, Change) for change in notifications.take(data, OURS))
    table = message(DELTABLE, string(1, "nftban"))
    assert notifications.take(table + newgen(), OURS)[-1].words[-1] == "table nftban deleted"


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.binary(max_size=60), st.sampled_from((PORT, OURS)), st.integers(0, 12)),
        max_size=8,
    ),
    st.integers(0, 400),
)
def test_truncated_and_strange_messages_are_survived(parts: list[tuple[int, bytes, int, int]], cut: int) -> None:
    whole = b"".join(
        message(kind, string(1, "nftban") + attribute(2, junk) + junk, port, family)
        for kind, junk, port, family in parts
    )
    whole += message(NEWSETELEM, string(1, "nftban") + string(2, "ban4_all")) + newgen()
    for datagram in (whole, whole[:cut], whole[: max(len(whole) - cut, 0)]):
        for change in Notifications("nftban").take(datagram, OURS):
            assert change.words
            assert all(c.isprintable() for words in (*change.words, change.program) for c in words)


@given(st.integers(1, 100))
def test_what_is_cut_off_is_said_to_be_unreadable(cut: int) -> None:
    datagram = message(DELTABLE, string(1, "nftban")) + newgen()
    told = Notifications("nftban").take(datagram[:-cut], OURS)
    lengths = {0, len(datagram), len(newgen())}
    assert told == ([] if cut in lengths or cut >= len(datagram) else [UNREADABLE])
