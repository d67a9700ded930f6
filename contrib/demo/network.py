"""Two machines on one cable: the mail server and the internet with all its clients.

Takes the clients' addresses; makes a second network namespace, joins it with the present one by a veth pair and gives
`Network`, whose sockets are in the one or the other.  The present namespace becomes the mail server's: whatever
is started from this thread (the daemon, the DNS server) lives there.  `greet` is the tiny mail server on its ports:
it says 220 and hangs up.
Guarantees: packets really cross the cable and the server's prerouting hook.  Does not: speak SMTP beyond the greeting.
Source: veth(4), network_namespaces(7), rtnetlink(7); RFC 5321 3.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterable, Iterator

from pyroute2 import IPRoute

from demo.isolation import CLONE_NEWNET, enter, unshare

SERVER = {4: "192.0.2.25", 6: "2001:db8::25"}
GATEWAY = {4: "192.0.2.1", 6: "2001:db8::1"}
NETWORK_LENGTH = {4: 24, 6: 64}
HOST_LENGTH = {4: 32, 6: 128}
PORTS = (25, 587)
PATIENCE = 1.5
"""Seconds: TCP sends its first SYN again after one."""
GREETING = "220 mail.example.net ESMTP"

# Duplicate address detection would hold an IPv6 address back for a second (linux/if_addr.h).
_IFA_F_NODAD = 0x02


def family(address: str) -> int:
    return 6 if ":" in address else 4


class Network:
    """Both ends.  Must be made in a network namespace of our own, in the main thread."""

    def __init__(self, clients: Iterable[str]) -> None:
        self._internet = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        unshare(CLONE_NEWNET)
        self._server = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with IPRoute() as here:
            here.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": self._internet})
            _up(here, SERVER, NETWORK_LENGTH)
            for gateway in GATEWAY.values():
                here.route("add", dst="default", gateway=gateway, family=_af(gateway))
        with self._outside(), IPRoute() as there:
            _up(there, GATEWAY, NETWORK_LENGTH)
            for address in clients:
                _address(there, address, HOST_LENGTH)

    @contextlib.contextmanager
    def _outside(self) -> Iterator[None]:
        """The calling thread is in the internet meanwhile; a socket made there stays there."""
        enter(self._internet, CLONE_NEWNET)
        try:
            yield
        finally:
            enter(self._server, CLONE_NEWNET)

    async def knock(self, client: str, port: int) -> str | None:
        """Connects from a client's address; the server's first line, None if nothing came back in PATIENCE."""
        loop = asyncio.get_running_loop()
        with self._outside():
            connection = socket.socket(_af(client), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with connection:
            connection.bind((client, 0))
            try:
                async with asyncio.timeout(PATIENCE):
                    await loop.sock_connect(connection, (SERVER[family(client)], port))
                    line = await loop.sock_recv(connection, 512)
            except TimeoutError:
                return None
        return line.decode("ascii", "replace").strip()


@contextlib.asynccontextmanager
async def greet() -> AsyncIterator[None]:
    """The mail server's ports are open meanwhile."""

    async def client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{GREETING}\r\n".encode())
        writer.close()

    servers = [await asyncio.start_server(client, list(SERVER.values()), port) for port in PORTS]
    try:
        yield
    finally:
        for server in servers:
            server.close()


def _af(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _up(rtnetlink: IPRoute, addresses: dict[int, str], lengths: dict[int, int]) -> None:
    """Loopback and the cable's end, with its addresses."""
    for address in addresses.values():
        _address(rtnetlink, address, lengths)
    for name in ("lo", "eth0"):
        rtnetlink.link("set", index=rtnetlink.link_lookup(ifname=name)[0], state="up")


def _address(rtnetlink: IPRoute, address: str, lengths: dict[int, int]) -> None:
    rtnetlink.addr(
        "add",
        index=rtnetlink.link_lookup(ifname="eth0")[0],
        address=address,
        prefixlen=lengths[family(address)],
        **({"flags": _IFA_F_NODAD} if family(address) == 6 else {}),
    )
