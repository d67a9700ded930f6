"""Packets: what bans cost each one that passes, and whether any slips through while a set changes.

A veth pair joins a second network namespace to ours.  Frames are sent from there by sendmmsg(2) on a packet socket,
all on one CPU, and received there too, in the softirq that follows: what /proc/stat says of that CPU's softirq time is
what receiving costs (device queue, IP, nf_tables, UDP), without the sending.  It is counted by ticks, so that a
measurement takes seconds.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from multiprocessing.synchronize import Event
from pathlib import Path

from demo.isolation import CLONE_NEWNET, enter, unshare

from bench.measures import ADDRESSES, HOUR, NftFile, Row, Scale, addresses, elements, kernel, nft, singly
from nftban.prefixes import Prefix
from nftban.records import Delta

SERVER, PORT = "192.0.2.1", 5353
ETH_P_IP = 0x0800
# Frames of so many different clients, sent in bursts.
BURST, SOURCES = 64, 1 << 12
IP_RULES = 10_000


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Mmsghdr(ctypes.Structure):
    """struct mmsghdr of <sys/socket.h>: struct msghdr and the length sent."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("sent", ctypes.c_uint),
    )  # fmt: skip


class Frames:
    """Frames in memory, ready to be sent again and again."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._buffers = [ctypes.create_string_buffer(frame, len(frame)) for frame in frames]
        self._iovecs = (_Iovec * len(frames))()
        self._messages = (_Mmsghdr * len(frames))()
        for i, buffer in enumerate(self._buffers):
            self._iovecs[i] = _Iovec(ctypes.addressof(buffer), len(buffer))
            self._messages[i].iov = ctypes.pointer(self._iovecs[i])
            self._messages[i].iovlen = 1
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self, wire: socket.socket, count: int) -> None:
        """`count` frames, from the first again where there are fewer; raises OSError."""
        place = 0
        while count > 0:
            size = min(BURST, count, len(self._messages) - place)
            first = ctypes.byref(self._messages, place * ctypes.sizeof(_Mmsghdr))
            sent = self._sendmmsg(wire.fileno(), first, size, 0)
            if sent < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            count -= sent
            place = (place + sent) % len(self._messages)


def frame(destination: bytes, source: bytes, client: int) -> bytes:
    """A UDP datagram from that IPv4 address to the server."""
    udp = struct.pack("!HHHH", 40000, PORT, 8 + 18, 0) + bytes(18)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0,
                       client.to_bytes(4, "big"), socket.inet_aton(SERVER))  # fmt: skip
    total = sum(struct.unpack("!10H", head))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    return destination + source + struct.pack("!H", ETH_P_IP) + head + udp


class Pair:
    """The two ends: `wire` sends from the other namespace, `inbox` is the server's socket in ours."""

    def __init__(self) -> None:
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        unshare(CLONE_NEWNET)
        theirs = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        enter(ours, CLONE_NEWNET)
        peer = ("peer", "name", "client", "netns", f"/proc/self/fd/{theirs}")
        _ip("link", "add", "server", "type", "veth", *peer, kept=(theirs,))
        for where in ("all", "server"):
            Path(f"/proc/sys/net/ipv4/conf/{where}/rp_filter").write_text("0")
        _ip("addr", "add", f"{SERVER}/24", "dev", "server")
        _ip("link", "set", "server", "up")
        enter(theirs, CLONE_NEWNET)
        try:
            _ip("link", "set", "client", "up")
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.wire.bind(("client", 0))
            self.source = self.wire.getsockname()[4]
        finally:
            enter(ours, CLONE_NEWNET)
            os.close(theirs)
            os.close(ours)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as end:
            end.bind(("server", 0))
            self.destination = end.getsockname()[4]
        self.inbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inbox.bind((SERVER, PORT))

    def frames(self, clients: Sequence[int]) -> Frames:
        return Frames([frame(self.destination, self.source, client) for client in clients])

    def received(self) -> int:
        """IP packets that have come in since the beginning."""
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        heads, numbers = (line.split() for line in lines if line.startswith("Ip:"))
        return int(numbers[heads.index("InReceives")])

    def close(self) -> None:
        # The other namespace, and the pair with it, goes when its last socket is closed.
        _ip("link", "del", "server")
        self.wire.close()
        self.inbox.close()


def _ip(*arguments: str, kept: tuple[int, ...] = ()) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, pass_fds=kept)


@contextmanager
def pair() -> Iterator[Pair]:
    made = Pair()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def one_cpu() -> Iterator[int]:
    """The calling thread keeps to one CPU, whose number this is."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield max(before)
    finally:
        os.sched_setaffinity(0, before)


def softirq_seconds(cpu: int) -> float:
    """proc_stat(5): what this CPU has spent in softirqs."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{cpu} "))
    return int(line.split()[7]) / os.sysconf("SC_CLK_TCK")


def packet_path(scale: Scale) -> Iterator[Row]:
    """CPU time per received packet of clients that are not banned: no table, a million bans, a rule per address."""
    bans, rules = scale.count(1_000_000), scale.count(IP_RULES)
    packets = scale.count(1_000_000)
    keys = addresses(bans + SOURCES)
    banned, clients = keys[:bans], keys[bans:]
    with pair() as ends, one_cpu() as cpu:
        frames = ends.frames(clients)

        def cost(count: int) -> float:
            """The least of some runs: whatever else this machine does, adds."""
            costs = []
            for _ in range(scale.repeated(3)):
                before, start = ends.received(), softirq_seconds(cpu)
                frames.send(ends.wire, count)
                # Never nothing: a quick run ends within a tick.
                spent = max(softirq_seconds(cpu) - start, 1 / os.sysconf("SC_CLK_TCK"))
                if ends.received() - before < count:
                    raise AssertionError("packets got lost")
                costs.append(spent / count)
            return min(costs)

        bare = cost(packets)
        now = time.time()
        with kernel() as made:
            framed = cost(packets)
            made.apply(Delta(add=elements(singly(banned), ADDRESSES, now + HOUR)), now)
            filled = cost(packets)
        with tempfile.TemporaryDirectory() as folder:
            text = "table ip peer { chain each { type filter hook prerouting priority raw;\n"
            text += "".join(f"ip saddr {IPv4Address(key)} drop\n" for key in addresses(rules, seed=2)) + "}\n}\n"
            NftFile(Path(folder), text).load()
            ruled = cost(max(packets // 20, BURST))
            nft("delete", "table", "ip", "peer")
    yield Row(f"receiving a packet, {bans:,} bans", filled, framed, "our table, no bans", limit=1.5)
    yield Row("receiving a packet, our table empty", framed, bare, "no table")
    yield Row(f"receiving a packet, {rules:,} rules", ruled, bare, "no table", note="one address each: for the picture")


def no_gap(scale: Scale) -> Iterator[Row]:
    """A stream of banned and free clients while 2 % of the set is replaced again and again."""
    count = scale.count(100_000)
    part = max(count // 50, 1)
    keys = addresses(count + part + 2)
    (banned, free), kept, changing = keys[:2], keys[2:-part], keys[-part:]
    now = time.time()
    with pair() as ends, kernel() as made:
        ends.inbox.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 25)
        ends.inbox.setblocking(False)
        held = singly([banned, *kept])
        made.apply(Delta(add=elements(held, ADDRESSES, now + HOUR)), now)
        first, second = (elements(singly(side), ADDRESSES, now + HOUR) for side in (kept[:part], changing))
        context = multiprocessing.get_context("fork")
        started, stop = context.Event(), context.Event()
        sender = context.Process(target=_stream, args=(ends, [banned, free], started, stop), daemon=True)
        sender.start()
        started.wait()
        seen = {banned: 0, free: 0}
        for _ in range(scale.repeated(20)):
            made.apply(Delta(add=second, delete=first), now)
            _drain(ends.inbox, seen)
            made.apply(Delta(add=first, delete=second), now)
            _drain(ends.inbox, seen)
        stop.set()
        sender.join()
        _drain(ends.inbox, seen)
        stopped = sum(found.packets for found in made.find(Prefix(4, banned, 32), now))
    yield Row(
        "banned packets let through during changes", seen[banned], unit="packets", limit=0,
        note=f"{stopped:,} stopped, {seen[free]:,} of another client passed",
    )  # fmt: skip


def _stream(ends: Pair, clients: Sequence[int], started: Event, stop: Event) -> None:
    frames = ends.frames(clients)
    started.set()
    while not stop.is_set():
        frames.send(ends.wire, BURST)


def _drain(inbox: socket.socket, seen: dict[int, int]) -> None:
    while True:
        try:
            _, (client, _) = inbox.recvfrom(64)
        except BlockingIOError:
            return
        seen[int(IPv4Address(client))] += 1
