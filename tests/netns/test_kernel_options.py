"""The layout's options on the real kernel: text and netlink make the same of every combination, and packets meet it.

What the kernel logs is read over NFLOG: `log` statements go to the logger that this namespace has for the family.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from nftban.kernel import codec
from nftban.kernel.layout import ALL, Layout, Log, Scope, ruleset_text
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.wire import NETLINK_NETFILTER, SO_RCVBUFFORCE, SOL_NETLINK
from nftban.prefixes import Prefix
from nftban.records import Delta

if TYPE_CHECKING:
    from tests.netns.conftest import NetworkNamespace

SCOPES = (Scope("smtp", (25,)), Scope("ssh", (22,)))
REJECTS: tuple[tuple[str, ...], ...] = ((), ("smtp",), (ALL, "smtp", "ssh"))
LOGS = (None, Log("nftban: ", 10))
DEVICES: tuple[tuple[str, ...], ...] = ((), ("server",), ("server", "lo"))
LAYOUTS = [
    Layout("nftban", SCOPES, reject, log, ingress) for reject, log, ingress in itertools.product(REJECTS, LOGS, DEVICES)
]
SERVER = {4: "192.0.2.1", 6: "2001:db8::1"}
BANNED = {4: "192.0.2.7", 6: "2001:db8::7"}
FREE = {4: "192.0.2.8", 6: "2001:db8::8"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PATIENCE = 10.0
# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE = 1, 9
NFTA_TRACE_CHAIN, NFTA_TRACE_RULE_HANDLE = 2, 3

pytestmark = pytest.mark.usefixtures("client")


def named(layout: Layout) -> str:
    return f"reject={','.join(layout.reject)} log={bool(layout.log)} ingress={','.join(layout.ingress)}"


def nft(*arguments: str, text: str | None = None) -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True, input=text).stdout


@contextmanager
def banning(
    layout: Layout, scope: str = ALL, addresses: Iterable[str] = tuple(BANNED.values())
) -> Iterator[NetlinkKernel]:
    with NetlinkKernel(layout) as kernel:
        kernel.create()
        now = time.time()
        bans = tuple(layout.place(Prefix.parse(address), scope, now + 600) for address in addresses)
        assert kernel.apply(Delta(add=bans), now) == []
        yield kernel


def in_order() -> list[str]:
    """The ruleset whatever the order in which sets and chains were made; that of rules matters and stays."""
    listed = [next(iter(found.items())) for found in json.loads(nft("-s", "-j", "list", "ruleset"))["nftables"]]
    for _, found in listed:
        found.pop("handle", None)
    listed.sort(key=lambda item: (item[0], item[1].get("chain", item[1].get("name", ""))))
    return [json.dumps(item, sort_keys=True) for item in listed]


def from_client(client: NetworkNamespace, source: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    with client:
        made = socket.socket(FAMILIES[Prefix.parse(source).family], kind)
    made.bind((source, 0))
    made.settimeout(PATIENCE)
    return made


def await_counted(kernel: NetlinkKernel, address: str, packets: int) -> None:
    until = time.monotonic() + PATIENCE
    while sum(f.packets for f in kernel.find(Prefix.parse(address), time.time())) < packets:
        assert time.monotonic() < until, f"fewer than {packets} packets from {address} were stopped"


@pytest.mark.parametrize("layout", LAYOUTS, ids=named)
def test_text_and_netlink_make_the_same_of_every_combination(layout: Layout) -> None:
    text = ruleset_text(layout)
    nft("-f", "-", text=text)
    from_text = nft("-s", "list", "ruleset")
    with NetlinkKernel(layout) as kernel:
        assert kernel.drift() == []
        assert kernel.create() == []
        kernel.remove()
        assert kernel.create() == []
        assert kernel.drift() == []
        assert nft("-s", "list", "ruleset") == from_text
        nft("-f", "-", text=text)
        assert nft("-s", "list", "ruleset") == from_text


def test_from_one_combination_to_another() -> None:
    fresh = {}
    for layout in LAYOUTS:
        with NetlinkKernel(layout) as kernel:
            kernel.create()
            fresh[layout] = in_order()
            kernel.remove()
    # Each step of the first walk changes what changes last in LAYOUTS; the second goes across (5 and 18 are coprime).
    walk = [*LAYOUTS, *(LAYOUTS[5 * n % len(LAYOUTS)] for n in range(len(LAYOUTS)))]
    for before, after in itertools.pairwise(walk):
        with banning(before, "smtp"), NetlinkKernel(after) as kernel:
            drift = kernel.drift()
            assert drift
            assert kernel.create() == drift
            assert kernel.drift() == []
            now = time.time()
            assert len(kernel.present(now)) == 2
            kernel.apply(Delta(delete=tuple(kernel.present(now))), now)
            assert in_order() == fresh[after]


@pytest.mark.parametrize("ingress", [(), ("server",)])
def test_a_rejected_client_is_told_at_once(client: NetworkNamespace, ingress: tuple[str, ...]) -> None:
    layout = Layout(scopes=SCOPES, reject=("smtp",), ingress=ingress)
    for family in (4, 6):
        address = (SERVER[family], 25)
        with socket.create_server(address, family=FAMILIES[family]) as server, banning(layout, "smtp") as kernel:
            with from_client(client, BANNED[family]) as banned, pytest.raises(ConnectionRefusedError):
                banned.connect(address)
            with from_client(client, FREE[family]) as free:
                free.connect(address)
                server.settimeout(PATIENCE)
                server.accept()[0].close()
            await_counted(kernel, BANNED[family], 1)
            kernel.remove()


@pytest.mark.parametrize("ingress", [(), ("server",)])
def test_what_is_not_tcp_is_refused_by_icmp(client: NetworkNamespace, ingress: tuple[str, ...]) -> None:
    # Behind a router that the server knows: a banned neighbour cannot even ask or say where one is (NDP).
    behind = {4: "198.51.100.7", 6: "2001:db8:1::7"}
    with client:
        for address in behind.values():
            subprocess.run(f"ip addr add {address} dev client nodad".split(), check=True)
    for family, address in behind.items():
        subprocess.run(f"ip -{family} route add {address} via {FREE[family]}".split(), check=True)
    layout = Layout(scopes=SCOPES, reject=(ALL,), ingress=ingress)
    with banning(layout, addresses=tuple(behind.values())):
        for family, address in behind.items():
            with (
                socket.socket(FAMILIES[family], socket.SOCK_DGRAM) as server,
                from_client(client, FREE[family], socket.SOCK_DGRAM) as router,
            ):
                server.bind((SERVER[family], 5353))
                server.settimeout(PATIENCE)
                router.sendto(b"!", (SERVER[family], 5353))
                assert server.recv(10) == b"!"
            with from_client(client, address, socket.SOCK_DGRAM) as banned:
                banned.connect((SERVER[family], 5353))
                banned.send(b"?")
                # ICMP "communication administratively prohibited", which Linux gives as one or the other.
                with pytest.raises(OSError, match=r"No route to host|Permission denied"):
                    banned.recv(10)


def test_a_rejected_open_connection_is_reset(client: NetworkNamespace) -> None:
    with (
        socket.create_server((SERVER[4], 25)) as server,
        from_client(client, BANNED[4]) as stream,
    ):
        stream.connect(server.getsockname())
        with server.accept()[0], banning(Layout(scopes=SCOPES, reject=(ALL,))):
            stream.sendall(b"HELO\r\n")
            with pytest.raises(ConnectionResetError):
                stream.recv(10)


def test_other_scopes_are_still_dropped(client: NetworkNamespace) -> None:
    layout = Layout(scopes=SCOPES, reject=("ssh",))
    with (
        socket.create_server((SERVER[4], 25)),
        banning(layout, "smtp") as kernel,
        from_client(client, BANNED[4]) as banned,
    ):
        banned.setblocking(False)
        banned.connect_ex((SERVER[4], 25))
        # The first packet sent again: nothing told the client that it was refused.
        await_counted(kernel, BANNED[4], 2)
        assert banned.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_at_ingress_packets_die_before_any_other_hook(client: NetworkNamespace) -> None:
    nft("add table ip seen { chain first { type filter hook prerouting priority -450; ip saddr 192.0.2.7 counter; }; }")
    for ingress, seen in (((), 1), (("server",), 0)):
        with banning(Layout(ingress=ingress)) as kernel, from_client(client, BANNED[4], socket.SOCK_DGRAM) as banned:
            banned.sendto(b"?", (SERVER[4], 5353))
            await_counted(kernel, BANNED[4], 1)
            assert f"counter packets {seen} " in nft("list", "table", "ip", "seen")
            nft("flush chain ip seen first; add rule ip seen first ip saddr 192.0.2.7 counter")
            kernel.remove()


def test_a_device_that_comes_later_gets_its_chain_then(caplog: pytest.LogCaptureFixture) -> None:
    layout = Layout(ingress=("late0", "server"))
    with NetlinkKernel(layout) as kernel:
        kernel.create()
        assert kernel.drift() == []
        assert "late0" in caplog.text
        subprocess.run(["ip", "link", "add", "late0", "type", "veth"], check=True)
        assert [words.partition(":")[0] for words in kernel.drift()] == ["chain ingress differs"]
        kernel.create()
        assert kernel.drift() == []
        assert "late0" in nft("list", "chain", "inet", "nftban", "ingress")
        subprocess.run(["ip", "link", "del", "late0"], check=True)
        kernel.create()
        assert kernel.drift() == []


@contextmanager
def trace(hook: str) -> Iterator[socket.socket]:
    """A socket with what the kernel tells of packets from the banned address: each rule that matched.

    A `log` statement writes to the kernel's log for the machine's first network namespace only; what can be seen in
    any is that its rule matched, which it does not where the limit before it is exceeded.
    """
    nft(
        "-f",
        "-",
        text=f"""
        table inet traced {{
            chain first {{
                type filter hook {hook};
                ip saddr {BANNED[4]} meta nftrace set 1
            }}
        }}
    """,
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as told:
        told.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        told.bind((0, 0))
        told.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
        yield told


def matched(told: socket.socket) -> Iterator[str]:
    """The chain of each rule that has matched."""
    told.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            for message in codec.messages(told.recv(1 << 16)):
                attributes = dict(codec.attributes(message.payload[4:]))
                if NFTA_TRACE_RULE_HANDLE in attributes:  # without it: the end of a chain
                    yield attributes[NFTA_TRACE_CHAIN].rstrip(b"\0").decode()


@pytest.mark.parametrize("reject", [(), (ALL,)])
@pytest.mark.parametrize(
    ("ingress", "hook"),
    [((), "prerouting priority -450"), (("server",), "ingress device server priority -600")],
    ids=["prerouting", "ingress"],
)
def test_logs_at_most_the_rate_and_stops_all(
    client: NetworkNamespace, reject: tuple[str, ...], ingress: tuple[str, ...], hook: str
) -> None:
    layout = Layout(log=Log("banned: ", 60), reject=reject, ingress=ingress)
    with trace(hook) as told, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, banning(layout) as kernel:
        server.bind((SERVER[4], 5353))
        server.settimeout(PATIENCE)
        started = time.monotonic()
        for _ in range(50):
            with from_client(client, BANNED[4], socket.SOCK_DGRAM) as banned:
                banned.sendto(b"?", server.getsockname())
        await_counted(kernel, BANNED[4], 50)
        with from_client(client, FREE[4], socket.SOCK_DGRAM) as free:
            free.sendto(b"!", server.getsockname())
        assert server.recvfrom(10)[0] == b"!"
        rules = Counter(matched(told))
        # A burst of five, then one a second.
        assert 5 <= rules["logged"] <= 6 + time.monotonic() - started
        # "jump logged" and the end of it; a rejected UDP packet passes over the TCP reset without a match.
        assert rules["rejected" if reject else "dropped"] == 100
