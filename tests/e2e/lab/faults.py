"""A resolver that goes wrong on demand, between the daemon and the lab's good one.

Takes queries over UDP and TCP on an address of its namespace; hands them to the good resolver and its answers back.
For a zone that was given a `Fault` it does what its name says.  The forgers send, before the true answer, one that says
the opposite: `127.0.0.2` for whoever is not listed, NXDOMAIN for whoever is.
Guarantees: `asked` holds every query's name before anything is sent for it.  One query at a time, in their order.
Does not: cache, or speak EDNS.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum, auto

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from lab.namespaces import Namespace

ADDRESS, PORT, OTHER_PORT = "127.0.0.1", 5300, 5301
PARKED = "198.51.100.80"


class Fault(Enum):
    """How a zone's queries are treated."""

    SILENT = auto()
    SERVFAIL = auto()
    REFUSED = auto()
    GARBAGE = auto()
    TRUNCATED = auto()  # the whole answer comes over TCP
    TRUNCATED_FOR_GOOD = auto()  # and over TCP none
    WRONG_ID = auto()
    WRONG_QUESTION = auto()
    SPOOFED_SOURCE = auto()  # right in everything, but from another port
    LOSS = auto()  # of three queries in ten
    NXDOMAIN_WITHOUT_SOA = auto()  # for every name, as resolvers answer that hide a zone
    EMPTIED = auto()  # NXDOMAIN for every name, the test entry's too
    LISTS_WORLD = auto()
    PARKED = auto()  # a web server's address for every name


class FaultyResolver:
    """A context manager; `behave` and `codes` may be changed while it runs."""

    def __init__(self, namespace: Namespace, upstream: str) -> None:
        self.server = f"{ADDRESS}:{PORT}"
        self.asked: list[str] = []
        self._heard = threading.Condition()
        self._upstream = upstream
        self._faults: dict[str, Fault] = {}
        self._codes: dict[str, str] = {}
        self._lossy = 0
        self._udp = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._other = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._udp.bind((ADDRESS, PORT))
        self._other.bind((ADDRESS, OTHER_PORT))
        self._tcp.bind((ADDRESS, PORT))
        self._tcp.listen()
        self._closing = False

        def start() -> list[threading.Thread]:  # threads are in the network of the one that starts them
            threads = [threading.Thread(target=serve, daemon=True) for serve in (self._serve_udp, self._serve_tcp)]
            for thread in threads:
                thread.start()
            return threads

        self._threads = namespace.call(start)

    def behave(self, zone: str, fault: Fault) -> None:
        """From now on, until told otherwise."""
        self._faults[zone] = fault

    def answer(self, zone: str, code: str) -> None:
        """From now on every name of the zone has this address."""
        self._codes[zone] = code

    def recover(self, zone: str) -> None:
        """From now on as the good resolver."""
        self._faults.pop(zone, None)
        self._codes.pop(zone, None)

    def wait_for(self, name: str, times: int, timeout: float = 10) -> None:
        """Until so many queries for the name have come in; raises TimeoutError."""
        with self._heard:
            if not self._heard.wait_for(lambda: self.asked.count(name) >= times, timeout):
                raise TimeoutError(f"{name} was asked {self.asked.count(name)} times, not {times}")

    def close(self) -> None:
        self._closing = True
        for sock in (self._udp, self._tcp):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes who waits in it
        for thread in self._threads:
            thread.join(10)
        for sock in (self._udp, self._other, self._tcp):
            sock.close()

    def __enter__(self) -> FaultyResolver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve_udp(self) -> None:
        while not self._closing:
            with suppress(OSError, dns.exception.DNSException, EOFError):
                wire, client = self._udp.recvfrom(4096)
                if wire:
                    self._respond(dns.message.from_wire(wire), client)

    def _serve_tcp(self) -> None:
        while not self._closing:
            with suppress(OSError, dns.exception.DNSException, EOFError):
                connection, _ = self._tcp.accept()
                with connection:
                    connection.settimeout(5)
                    query = dns.message.from_wire(_exactly(connection, int.from_bytes(_exactly(connection, 2), "big")))
                    zone, fault = self._fault(query)
                    if fault is not Fault.TRUNCATED_FOR_GOOD:
                        message = self._true(query, zone).to_wire()
                        connection.sendall(len(message).to_bytes(2, "big") + message)

    def _fault(self, query: dns.message.Message) -> tuple[str, Fault | None]:
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        with self._heard:
            self.asked.append(name)
            self._heard.notify_all()
        inside = [zone for zone in (*self._faults, *self._codes) if name.endswith(f".{zone}")]
        zone = max(inside, key=len, default="")
        return zone, self._faults.get(zone)

    def _true(self, query: dns.message.Message, zone: str) -> dns.message.Message:
        if zone in self._codes:
            return _records(query, self._codes[zone])
        response = dns.query.udp(query, self._upstream, timeout=5)
        return dns.query.tcp(query, self._upstream, timeout=5) if response.flags & dns.flags.TC else response

    def _respond(self, query: dns.message.Message, client: tuple[str, int]) -> None:
        def send(message: bytes) -> None:
            self._udp.sendto(message, client)

        zone, fault = self._fault(query)
        match fault:
            case Fault.SILENT:
                return
            case Fault.SERVFAIL | Fault.REFUSED:
                send(_rcode(query, dns.rcode.from_text(fault.name)).to_wire())
            case Fault.GARBAGE:
                wire = _rcode(query, dns.rcode.NOERROR).to_wire()
                send(wire[:6] + b"\xff" * 6 + wire[12:] + b"\xc0\xff" * 20)
            case Fault.TRUNCATED | Fault.TRUNCATED_FOR_GOOD:
                empty = _rcode(query, dns.rcode.NOERROR)
                empty.flags |= dns.flags.TC
                send(empty.to_wire())
            case Fault.NXDOMAIN_WITHOUT_SOA:
                send(_rcode(query, dns.rcode.NXDOMAIN).to_wire())
            case Fault.EMPTIED:
                gone = _rcode(query, dns.rcode.NXDOMAIN)
                gone.authority.append(
                    dns.rrset.from_text(f"{zone}.", 60, "IN", "SOA", "ns.invalid. h.invalid. 1 2 3 4 60")
                )
                send(gone.to_wire())
            case Fault.LISTS_WORLD:
                send(_records(query, "127.0.0.2").to_wire())
            case Fault.PARKED:
                send(_records(query, PARKED).to_wire())
            case Fault.LOSS:
                self._lossy += 1
                if self._lossy % 10 not in (2, 5, 9):
                    send(self._true(query, zone).to_wire())
            case _:
                true = self._true(query, zone)
                if fault is not None:
                    self._forge(query, true, fault, client)
                send(true.to_wire())

    def _forge(
        self, query: dns.message.Message, true: dns.message.Message, fault: Fault, client: tuple[str, int]
    ) -> None:
        """The opposite of the truth, in a message that must not be believed."""
        forged = _rcode(query, dns.rcode.NXDOMAIN) if true.answer else _records(query, "127.0.0.2")
        wire = bytearray(forged.to_wire())
        if fault is Fault.WRONG_ID:
            wire[1] ^= 1
        elif fault is Fault.WRONG_QUESTION:
            wire[13] = ord("9") if wire[13] != ord("9") else ord("8")  # the first digit of the name
        (self._other if fault is Fault.SPOOFED_SOURCE else self._udp).sendto(bytes(wire), client)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _rcode(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(rcode)
    return response


def _records(query: dns.message.Message, address: str) -> dns.message.Message:
    """This address, whatever was asked; for other types there is nothing."""
    response = _rcode(query, dns.rcode.NOERROR)
    question = query.question[0]
    if question.rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
    return response
