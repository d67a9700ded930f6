"""DNS messages to and from one server: many queries on one connected UDP socket, and TCP for long answers.

Takes a query in wire format (RFC 1035 4.1); gives the server's answer to a callback.
Guarantees: an answer is handed on only if it came from the server's address and port to the port we asked from
(connected socket), carries the random ID of an outstanding query, and repeats its question; everything else is
counted as a stray and dropped.  A socket with its random port serves 200 queries, no two with the same ID, then a new
one takes over and the old one closes when its last query is done.  What has arrived is read in one go.  Closed ports
are reported at once (ECONNREFUSED).
Does not: repeat by itself, time out, or look into an answer behind its question.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable

from nftban.verify.servers import Server

QUERIES_PER_SOCKET = 200
RECEIVE_BUFFER = 1 << 20
"""The default holds 256 small datagrams, fewer than a burst of answers."""
READS_AT_ONCE = 64
LARGEST_DATAGRAM = 4096
"""Without EDNS an answer over UDP has at most 512 bytes; one that is cut off here cannot be parsed."""

Deliver = Callable[[Server, "bytes | None"], None]
"""Called with the answer, or with None where the server's port is closed or unreachable."""


def answers(message: bytes, query: bytes) -> bool:
    """Is the message a response to this query: same ID, same question (letter case aside)?"""
    return (
        len(message) >= len(query)
        and message[2] & 0xF8 == 0x80  # QR set, opcode QUERY
        and message[:2] == query[:2]
        and message[4:6] == b"\0\1"
        and (message.startswith(query[12:], 12) or message[12 : len(query)].lower() == query[12:].lower())
    )


def _query_ids() -> list[bytes]:
    """Random, distinct, one for each query of a socket."""
    drawn: set[bytes] = set()
    while len(drawn) < QUERIES_PER_SOCKET:
        more = secrets.token_bytes(4 * QUERIES_PER_SOCKET)
        drawn.update(more[i : i + 2] for i in range(0, len(more), 2))
    return list(drawn)[:QUERIES_PER_SOCKET]


class Ticket:
    """One outstanding query: it may be sent again, and must be cancelled when nobody waits for it any more."""

    __slots__ = ("_socket", "deliver", "query")

    def __init__(self, holder: _Socket, query: bytes, deliver: Deliver) -> None:
        self._socket, self.query, self.deliver = holder, query, deliver

    def again(self) -> None:
        self._socket.transmit(self)

    def cancel(self) -> None:
        self._socket.release(self)


class Channel:
    """Everything that goes to and comes from one server."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.strays = 0
        self._loop = loop
        self._socket: _Socket | None = None

    def ask(self, query: bytes, deliver: Deliver) -> Ticket | None:
        """Send a query (its ID is replaced by a random one); None where there is no way to the server."""
        if self._socket is None or self._socket.used_up:
            if self._socket is not None:
                self._socket.retire()
            try:
                self._socket = _Socket(self, self._loop)
            except OSError:
                self._socket = None
                return None
        return self._socket.ask(query, deliver)

    async def ask_tcp(self, query: bytes) -> bytes:
        """The same question over TCP (RFC 7766); raises OSError, EOFError, or ValueError for a stray answer."""
        query = secrets.token_bytes(2) + query[2:]
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await reader.readexactly(2), "big")
            message = await reader.readexactly(length)
        finally:
            writer.close()
        if not answers(message, query):
            self.strays += 1
            raise ValueError("an answer to another question")
        return message

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Socket:
    """One connected UDP socket."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._ids = _query_ids()
        self._channel, self._loop = channel, loop
        self._tickets: dict[bytes, Ticket] = {}
        self._retired = False
        server = channel.server
        self._socket = socket.socket(server.family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
            self._socket.connect(address[0][4])
        except OSError:
            self._socket.close()
            raise
        loop.add_reader(self._socket.fileno(), self._readable)

    @property
    def used_up(self) -> bool:
        return not self._ids

    def ask(self, query: bytes, deliver: Deliver) -> Ticket:
        query_id = self._ids.pop()
        ticket = Ticket(self, query_id + query[2:], deliver)
        self._tickets[query_id] = ticket
        self.transmit(ticket)
        return ticket

    def transmit(self, ticket: Ticket) -> None:
        try:
            self._socket.send(ticket.query)
        except BlockingIOError:
            pass  # the send buffer is full: as good as lost on the way, and repeated like that
        except OSError:  # what an earlier query met, told to this one
            self._loop.call_soon(self._unreachable)

    def release(self, ticket: Ticket) -> None:
        self._tickets.pop(ticket.query[:2], None)
        if self._retired and not self._tickets:
            self.close()

    def retire(self) -> None:
        """Nothing new goes out here; close when the last answer is in."""
        self._retired = True
        if not self._tickets:
            self.close()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        receive, tickets = self._socket.recv, self._tickets
        for _ in range(READS_AT_ONCE):
            try:
                message = receive(LARGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                self._unreachable()
                return
            found = tickets.get(message[:2])
            if found is None or not answers(message, found.query):
                self._channel.strays += 1
                continue
            found.deliver(self._channel.server, message)
            if self._socket.fileno() < 0:  # that was the last answer a retired socket waited for
                return

    def _unreachable(self) -> None:
        """An ICMP error names no query, so it is about all of them."""
        for ticket in list(self._tickets.values()):
            ticket.deliver(self._channel.server, None)
