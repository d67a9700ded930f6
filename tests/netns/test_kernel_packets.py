"""Real packets over a veth pair: what is banned is dropped and counted, what is not passes.

A packet that must not arrive is followed by waiting for the element's counter, then by one that must arrive: no test
waits for nothing to happen.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nftban.kernel.layout import ALL, DEFAULT
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, Delta, Origin
from tests.intent import desired

if TYPE_CHECKING:
    from tests.netns.conftest import NetworkNamespace

SERVER = {4: "192.0.2.1", 6: "2001:db8::1"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ADDRESSES = ("192.0.2.7", "192.0.2.8", "198.51.100.7", "198.51.101.7", "203.0.113.1", "203.0.113.200",
             "2001:db8::7", "2001:db8::8", "2001:db8:1::7", "2001:db8:1:1::7")  # fmt: skip
PATIENCE = 10.0


@dataclass
class Wire:
    """A server and a client namespace on one wire; the server is where the test runs and the kernel bans."""

    client: NetworkNamespace
    kernel: NetlinkKernel

    def socket(self, kind: int, source: str, protocol: int = 0) -> socket.socket:
        """A socket in the client's namespace, bound to the source address."""
        with self.client:
            made = socket.socket(FAMILIES[family(source)], kind, protocol)
        made.bind((source, 0))
        made.settimeout(PATIENCE)
        return made

    def ban(self, *prefixes: str, scope: str = ALL, allow: tuple[str, ...] = ()) -> None:
        now = time.time()
        bans = [Ban(Prefix.parse(p), scope, now, now + 600, Origin.MANUAL) for p in prefixes]
        elements = desired(bans, PrefixSet(map(Prefix.parse, allow)), DEFAULT, now)
        assert self.kernel.apply(Delta(add=tuple(elements)), now) == []

    def packets(self, address: str, scope: str) -> int:
        """What the bans that cover the address have stopped."""
        found = self.kernel.find(Prefix.parse(address), time.time())
        return sum(f.packets for f in found if f.scope == scope)

    def await_drop(self, address: str, before: int = 0, scope: str = ALL) -> None:
        until = time.monotonic() + PATIENCE
        while self.packets(address, scope) <= before:
            assert time.monotonic() < until, f"no packet from {address} was dropped"


def ip(*arguments: str) -> None:
    """ip(8), in the namespace of the caller."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def family(address: str) -> int:
    return Prefix.parse(address).family


@pytest.fixture
def wire(netns: NetworkNamespace) -> Iterator[Wire]:
    client = netns.another()
    ip("link", "add", "server", "type", "veth", "peer", "name", "client", "netns", client.path)
    for address in SERVER.values():
        ip("addr", "add", address + ("/24" if "." in address else "/64"), "dev", "server", "nodad")
    ip("link", "set", "server", "up")
    with client:
        ip("link", "set", "client", "up")
        for address in ADDRESSES:
            ip("addr", "add", address + ("/24" if "." in address else "/64"), "dev", "client", "nodad")
        ip("route", "add", "default", "via", SERVER[4])
        ip("-6", "route", "add", "default", "via", SERVER[6])
    ip("route", "add", "default", "via", "192.0.2.8")
    ip("-6", "route", "add", "default", "via", "2001:db8::8")
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        yield Wire(client, kernel)
    client.close()


def checks(
    wire: Wire, send: Callable[[str], None], arrived: Callable[[], str], banned: list[str], free: list[str]
) -> None:
    """Each banned source is dropped and counted, each free one arrives; nothing else arrives in between."""
    for source in banned:
        before = wire.packets(source, ALL)
        send(source)
        wire.await_drop(source, before)
    for source in free:
        send(source)
        assert Prefix.parse(arrived()) == Prefix.parse(source)


def test_udp_by_address_by_masked_network_and_by_range(wire: Wire) -> None:
    wire.ban("192.0.2.7", "198.51.100.0/24", "203.0.113.0/25", "2001:db8::7", "2001:db8:1::/64")
    banned = ["192.0.2.7", "198.51.100.7", "203.0.113.1", "2001:db8::7", "2001:db8:1::7"]
    free = [address for address in ADDRESSES if address not in banned]
    for number in (4, 6):
        with socket.socket(FAMILIES[number], socket.SOCK_DGRAM) as server:
            server.bind((SERVER[number], 5353))
            server.settimeout(PATIENCE)

            def send(source: str, to: str = SERVER[number]) -> None:
                with wire.socket(socket.SOCK_DGRAM, source) as client:
                    client.sendto(b"?", (to, 5353))

            def arrived(server: socket.socket = server) -> str:
                return str(server.recvfrom(10)[1][0])

            checks(
                wire, send, arrived,
                [a for a in banned if family(a) == number], [a for a in free if family(a) == number],
            )  # fmt: skip


def test_ping(wire: Wire) -> None:
    wire.ban("192.0.2.7")

    def ping(source: str) -> socket.socket:
        client = wire.socket(socket.SOCK_RAW, source, socket.IPPROTO_ICMP)
        # Type 8, code 0, checksum, identifier 0, sequence 0 (RFC 792): the checksum of 0x0800 alone.
        client.sendto(struct.pack(">BBHHH", 8, 0, 0xF7FF, 0, 0), (SERVER[4], 0))
        return client

    with ping("192.0.2.7"):
        wire.await_drop("192.0.2.7")
    with ping("192.0.2.8") as client:
        reply, (sender, _) = client.recvfrom(100)
        assert (sender, reply[20]) == (SERVER[4], 0)


def test_the_allow_list_passes_inside_a_banned_prefix(wire: Wire) -> None:
    wire.ban("192.0.2.0/24", "2001:db8::/64", allow=("192.0.2.8", "2001:db8::8"))
    for banned, allowed in (("192.0.2.7", "192.0.2.8"), ("2001:db8::7", "2001:db8::8")):
        with socket.create_server((SERVER[family(banned)], 2500), family=FAMILIES[family(banned)]) as server:
            server.settimeout(PATIENCE)
            with wire.socket(socket.SOCK_STREAM, banned) as client:
                client.setblocking(False)
                client.connect_ex(server.getsockname())
                wire.await_drop(banned)
            with wire.socket(socket.SOCK_STREAM, allowed) as client:
                client.connect(server.getsockname())
                accepted, peer = server.accept()
                accepted.close()
                assert peer[0] == allowed


def test_a_scope_drops_its_ports_only(wire: Wire) -> None:
    wire.ban("192.0.2.7", scope="smtp")
    with socket.create_server((SERVER[4], 25)) as smtp, socket.create_server((SERVER[4], 587)) as submission:
        for server in (smtp, submission):
            server.settimeout(PATIENCE)
        with wire.socket(socket.SOCK_STREAM, "192.0.2.7") as client:
            client.setblocking(False)
            client.connect_ex(smtp.getsockname())
            wire.await_drop("192.0.2.7", scope="smtp")
        for source, server in (("192.0.2.7", submission), ("192.0.2.8", smtp)):
            with wire.socket(socket.SOCK_STREAM, source) as client:
                client.connect(server.getsockname())
                accepted, peer = server.accept()
                accepted.close()
                assert peer[0] == source


def test_a_ban_stops_an_open_connection_and_its_end_lets_it_go_on(wire: Wire) -> None:
    with (
        socket.create_server((SERVER[4], 25)) as server,
        wire.socket(socket.SOCK_STREAM, "192.0.2.7") as client,
    ):
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            client.sendall(b"HELO\r\n")
            assert accepted.recv(100) == b"HELO\r\n"
            now = time.time()
            element = DEFAULT.place(Prefix.parse("192.0.2.7"), ALL, now + 2)
            assert wire.kernel.apply(Delta(add=(element,)), now) == []
            client.sendall(b"QUIT\r\n")
            wire.await_drop("192.0.2.7")
            # TCP sends it again until the element has timed out; then it arrives.
            assert accepted.recv(100) == b"QUIT\r\n"
            assert time.time() > now + 1.98
