"""A DNS server that answers as the simulated world does at the simulated time, for nftban's own resolver to ask.

Takes a World and a clock; answers over UDP on loopback like a recursive resolver, counting questions.  An error is
SERVFAIL; every answer holds for 300 seconds, as most DNSBLs' do.  Messages are made by hand (RFC 1035): a
population asks hundreds of thousands of questions.  Does not: recurse, cache, speak TCP, check what it is sent.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from ipaddress import ip_address

from traffic.world import ZONES, Failed, World

TTL = 300
KINDS = {1: "A", 12: "PTR", 16: "TXT", 28: "AAAA"}
NXDOMAIN, SERVFAIL = 3, 2
_SOA_TYPE, _IN = 6, 1
_QUESTION = b"\xc0\x0c"  # a pointer to the question's name


class WorldServer(asyncio.DatagramProtocol):
    """Use as `async with WorldServer(world, clock) as server`; `server.address` is ADDRESS:PORT.  questions: so far."""

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self._world, self._clock = world, clock
        self._transport: asyncio.DatagramTransport | None = None
        self.address = ""
        self.questions = 0

    async def __aenter__(self) -> WorldServer:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._transport.get_extra_info("sockname"))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.questions += 1
        name, end = _name(data, 12)
        question = data[12 : end + 4]
        kind = KINDS.get(struct.unpack_from("!H", data, end)[0], "")
        answers: list[bytes] = []
        authority, code = b"", 0
        try:
            answers = [_record(kind, value) for value in self._world.answer(name, kind, self._clock())]
        except Failed:
            code = SERVFAIL
        else:
            if not answers:
                authority, code = _soa(name), NXDOMAIN
        flags = 0x8180 | code  # a response, recursion desired and available
        header = data[:2] + struct.pack("!HHHHH", flags, 1, len(answers), int(bool(authority)), 0)
        assert self._transport is not None
        self._transport.sendto(header + question + b"".join(answers) + authority, addr)


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name that begins there, and where what follows it begins."""
    labels = []
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += 1 + length
    return ".".join(labels), at + 1


def _wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _record(kind: str, value: str) -> bytes:
    if kind == "PTR":
        content, number = _wire(value), 12
    elif kind == "TXT":
        content, number = bytes([len(value)]) + value.encode(), 16
    else:
        content, number = ip_address(value).packed, 1 if kind == "A" else 28
    return _QUESTION + struct.pack("!HHIH", number, _IN, TTL, len(content)) + content


def _soa(name: str) -> bytes:
    zone = next((zone for zone in ZONES if name.endswith(zone)), "invalid")
    content = _wire("ns.invalid") + _wire("hostmaster.invalid") + struct.pack("!IIIII", 1, 3600, 600, 86400, TTL)
    return _wire(zone) + struct.pack("!HHIH", _SOA_TYPE, _IN, TTL, len(content)) + content
