"""One server's sockets: IDs, and what does not belong to a query."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterator

import pytest

from nftban.verify.channel import QUERIES_PER_SOCKET, Channel
from nftban.verify.messages import query_message
from nftban.verify.servers import Server

QUERY = query_message("7.2.0.192.bl.example.net", "A")


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A bare UDP socket in place of a server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        yield bound


def test_queries_of_one_socket_never_share_an_id(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    real = secrets.token_bytes
    drawn = iter((b"\0\1" * 2 * QUERIES_PER_SOCKET,))  # a random source with one number in it
    monkeypatch.setattr(secrets, "token_bytes", lambda size: next(drawn, None) or real(size))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(Server(*server.getsockname()), loop)
        seen, ports = set(), set()
        for _ in range(QUERIES_PER_SOCKET):
            ticket = channel.ask(QUERY, lambda *_: None)
            assert ticket is not None
            query, client = await loop.sock_recvfrom(server, 512)
            seen.add(query[:2])
            ports.add(client[1])
            ticket.cancel()
        assert len(seen) == QUERIES_PER_SOCKET and len(ports) == 1
        channel.ask(QUERY, lambda *_: None)
        assert (await loop.sock_recvfrom(server, 512))[1][1] not in ports
        channel.close()

    asyncio.run(run())


def test_strays_are_counted_and_the_right_answer_still_counts(server: socket.socket) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(Server(*server.getsockname()), loop)
        arrived: asyncio.Future[bytes | None] = loop.create_future()
        ticket = channel.ask(QUERY, lambda _, message: arrived.set_result(message))
        assert ticket is not None
        query, client = await loop.sock_recvfrom(server, 512)
        right = query[:2] + b"\x81\x83" + query[4:]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.sendto(right[:3] + b"\x80" + right[4:], client)  # right, but from another port: the kernel drops it
        for wrong in (
            b"",
            b"x",
            query,
            bytes([right[0] ^ 1]) + right[1:],
            right[:-4] + b"\0\x1c\0\1",
            right[:20],
            right,
        ):
            server.sendto(wrong, client)
        assert await arrived == right
        assert channel.strays == 6
        ticket.cancel()
        channel.close()

    asyncio.run(run())
