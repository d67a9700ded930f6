"""nf_tables netlink messages as bytes: elements of sets, batches, answers.

Takes elements and gives message payloads; takes what the kernel sent and gives acknowledgements and elements.
Guarantees: whatever the bytes, a parser returns or raises BadMessageError, nothing else; an element list never
exceeds its attribute's 16-bit length.  An interval is a start element and an element flagged as interval end, one
behind its last address; there is no end element where the last address is the highest of all.
Does not: own a socket, number messages in a conversation, encode tables, chains, sets and rules (objects.py does).
Source: linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h, whose names the constants bear.
Netlink headers are in the machine's byte order, nf_tables' numbers in network order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nftban.records import Element

# linux/netlink.h
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
# linux/netfilter/nfnetlink.h, linux/netfilter.h
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
NFPROTO_INET = 1
# linux/netfilter/nf_tables.h
NFT_MSG_NEWSET = 9
NFT_MSG_GETSET = 10
NFT_MSG_DELSET = 11
NFT_MSG_NEWSETELEM = 12
NFT_MSG_GETSETELEM = 13
NFT_MSG_DELSETELEM = 14
# Deletes what is there and is content where nothing is; since Linux 6.3.
NFT_MSG_DESTROYSETELEM = 30
NFTA_SET_TABLE = 1
NFTA_SET_NAME = 2
NFTA_SET_FLAGS = 3
NFTA_SET_KEY_LEN = 5
NFTA_SET_DESC = 9
NFTA_SET_ID = 10
NFTA_SET_HANDLE = 16
NFTA_SET_TYPE = 19
NFTA_SET_DESC_SIZE = 1
NFT_SET_INTERVAL = 0x4
NFT_SET_TIMEOUT = 0x10
# How many elements a set holds; since Linux 6.16.
NFTA_SET_COUNT = 20
NFTA_LIST_ELEM = 1
NFTA_DATA_VALUE = 1
NFTA_EXPR_NAME = 1
NFTA_EXPR_DATA = 2
NFTA_COUNTER_BYTES = 1
NFTA_COUNTER_PACKETS = 2
NFTA_SET_ELEM_LIST_TABLE = 1
NFTA_SET_ELEM_LIST_SET = 2
NFTA_SET_ELEM_LIST_ELEMENTS = 3
NFTA_SET_ELEM_KEY = 1
NFTA_SET_ELEM_FLAGS = 3
NFTA_SET_ELEM_TIMEOUT = 4
NFTA_SET_ELEM_EXPIRATION = 5
NFTA_SET_ELEM_EXPR = 7
NFTA_SET_ELEM_EXPRESSIONS = 11
NFT_SET_ELEM_INTERVAL_END = 0x1
NFT_SET_ELEM_CATCHALL = 0x2

_NEWSETELEM = NFT_MSG_NEWSETELEM | NFNL_SUBSYS_NFTABLES << 8
# An attribute's length is 16 bits wide; this leaves room for the last element and the list's own header.
LIST_BYTES = 65_000
# The kernel refuses timeouts of 2^64 ns (584 years) and more.
LONGEST_TIMEOUT_MS = (1 << 64) // 1_000_000 - 1

_NLMSGHDR = struct.Struct("=IHHII")
_NLATTR = struct.Struct("=HH")
_NFGENMSG = struct.Struct(">BBH")
_NLMSGERR = struct.Struct("=iIHHII")
_INT = struct.Struct("=i")
_ACK = struct.Struct("=IHHIIi16x")
_TIMES = struct.Struct("=HH8sHH8s")


class BadMessageError(ValueError):
    """Bytes that are no netlink message or attribute list."""


@dataclass(frozen=True, slots=True)
class Request:
    """A message yet without its number: nf_tables message type, NLM_F_ flags besides REQUEST, and what follows the
    netlink header."""

    type: int
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the kernel; payload is what follows the netlink header."""

    type: int
    flags: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """The kernel's answer to a request: errno 0 is success; words from the kernel, where it gave any."""

    errno: int
    words: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An element as the kernel holds it.

    first, last: keys, both included; expires_in: seconds, None where it never times out; packets, bytes: what its
    counter says, 0 without one.
    """

    first: int
    last: int
    expires_in: float | None
    packets: int = 0
    bytes: int = 0


# ---- writing ----------------------------------------------------------------------------------------------------


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its padding."""
    return _NLATTR.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def string(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode("ascii") + b"\0")


def message(request: Request, sequence: int) -> bytes:
    """The request with its netlink header."""
    kind = request.type | NFNL_SUBSYS_NFTABLES << 8
    flags = request.flags | NLM_F_REQUEST
    return _NLMSGHDR.pack(16 + len(request.payload), kind, flags, sequence, 0) + request.payload


def batch(requests: Sequence[Request], sequence: int) -> bytes:
    """One transaction: begin with number `sequence`, the requests with the following ones, end.

    Only the last request asks for an acknowledgement; the kernel reports refused messages in any case.
    """
    edge = _NFGENMSG.pack(0, 0, NFNL_SUBSYS_NFTABLES)
    parts = [_NLMSGHDR.pack(20, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, sequence, 0), edge]
    parts += [message(request, sequence + i) for i, request in enumerate(requests[:-1], 1)]
    last = requests[-1]
    parts.append(message(Request(last.type, last.flags | NLM_F_ACK, last.payload), sequence + len(requests)))
    parts += [_NLMSGHDR.pack(20, NFNL_MSG_BATCH_END, NLM_F_REQUEST, sequence + len(requests) + 1, 0), edge]
    return b"".join(parts)


def general(family: int = NFPROTO_INET) -> bytes:
    """struct nfgenmsg, with which every payload begins."""
    return _NFGENMSG.pack(family, 0, 0)


def list_element(key: int, width: int, flags: int = 0, timeout_ms: int | None = None) -> bytes:
    """One key of `width` bytes; flags: NFT_SET_ELEM_; timeout_ms None: no timeout.

    Both the timeout and the expiration are sent: an element that is there already gets its new time from the
    expiration only.
    """
    data = nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, key.to_bytes(width, "big")))
    if flags:
        data += attribute(NFTA_SET_ELEM_FLAGS, flags.to_bytes(4, "big"))
    if timeout_ms is not None:
        value = min(max(timeout_ms, 1), LONGEST_TIMEOUT_MS).to_bytes(8, "big")
        data += _TIMES.pack(12, NFTA_SET_ELEM_TIMEOUT, value, 12, NFTA_SET_ELEM_EXPIRATION, value)
    return nested(NFTA_LIST_ELEM, data)


def element_bytes(element: Element, width: int, interval: bool, timeout_ms: int | None = None) -> bytes:
    """The element for a list: one key, or in an interval set the start and the end of the range."""
    start = list_element(element.first, width, 0, timeout_ms)
    if not interval or element.last + 1 >= 1 << 8 * width:
        return start
    return start + list_element(element.last + 1, width, NFT_SET_ELEM_INTERVAL_END)


@dataclass(frozen=True, slots=True)
class OneElement:
    """The datagram of a transaction on one element of a hash set, built once: only numbers, key and times change.

    It is what batch(), element_requests() and list_element() make, in a fifth of the time.
    """

    _layout: struct.Struct
    _fixed: tuple[bytes, ...]
    _width: int

    @classmethod
    def of(cls, kind: int, flags: int, table: str, name: str, width: int, timed: bool) -> OneElement:
        element = list_element(0, width, timeout_ms=1 if timed else None)
        request, _ = next(element_requests(kind, flags, table, name, [element]))
        datagram = batch([request], 0)
        # A netlink header's number stands at its byte 8; begin and end take 20 bytes each.
        key = len(datagram) - 20 - len(element) + 12
        places = [(8, 4), (28, 4), (key, width)]
        if timed:
            places += [(key + width + 4, 8), (key + width + 16, 8)]
        places.append((len(datagram) - 12, 4))
        form, fixed, done = "=", [], 0
        for place, size in places:
            form += f"{place - done}s" + ("I" if size == 4 and place != key else f"{size}s")
            fixed.append(datagram[done:place])
            done = place + size
        fixed.append(datagram[done:])
        return cls(struct.Struct(form + f"{len(datagram) - done}s"), tuple(fixed), width)

    def datagram(self, sequence: int, key: int, timeout_ms: int | None = None) -> bytes:
        """As batch() would number it: begin `sequence`, the message the next, end the one after.

        timeout_ms: at least 1; None in a template that was made without `timed`.
        """
        fixed = self._fixed
        packed = key.to_bytes(self._width, "big")
        if timeout_ms is None:
            return self._layout.pack(
                fixed[0], sequence, fixed[1], sequence + 1, fixed[2], packed, fixed[3], sequence + 2, fixed[4]
            )
        time = min(timeout_ms, LONGEST_TIMEOUT_MS).to_bytes(8, "big")
        return self._layout.pack(
            fixed[0], sequence, fixed[1], sequence + 1, fixed[2], packed, fixed[3], time, fixed[4], time,
            fixed[5], sequence + 2, fixed[6],
        )  # fmt: skip


def element_requests(
    kind: int, flags: int, table: str, name: str, elements: Iterable[bytes], limit: int = LIST_BYTES
) -> Iterator[tuple[Request, int]]:
    """Element messages for one set and how many of `elements` each holds: as many as fit into `limit` bytes, at
    least one."""
    head = _list_head(table, name)
    chosen: list[bytes] = []
    size = 0
    for element in elements:
        if chosen and size + len(element) > limit:
            yield Request(kind, flags, head + nested(NFTA_SET_ELEM_LIST_ELEMENTS, *chosen)), len(chosen)
            chosen, size = [], 0
        chosen.append(element)
        size += len(element)
    if chosen:
        yield Request(kind, flags, head + nested(NFTA_SET_ELEM_LIST_ELEMENTS, *chosen)), len(chosen)


def list_request(kind: int, flags: int, table: str, name: str, elements: bytes) -> Request:
    """An element message with these list elements, which must not be longer than LIST_BYTES."""
    return Request(kind, flags, _list_head(table, name) + nested(NFTA_SET_ELEM_LIST_ELEMENTS, elements))


def dump_request(table: str, name: str) -> Request:
    """Asks for every element of a set."""
    return Request(NFT_MSG_GETSETELEM, NLM_F_DUMP, _list_head(table, name))


def flush_request(table: str, name: str) -> Request:
    """Deletes every element of a set: a DELSETELEM without a list."""
    return Request(NFT_MSG_DELSETELEM, 0, _list_head(table, name))


def set_request(table: str, name: str) -> Request:
    """Asks for a set's definition, not its elements."""
    return Request(NFT_MSG_GETSET, 0, general() + string(NFTA_SET_TABLE, table) + string(NFTA_SET_NAME, name))


def _list_head(table: str, name: str) -> bytes:
    return general() + string(NFTA_SET_ELEM_LIST_TABLE, table) + string(NFTA_SET_ELEM_LIST_SET, name)


# ---- reading ----------------------------------------------------------------------------------------------------


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset = 0
    while offset < len(datagram):
        if len(datagram) - offset < _NLMSGHDR.size:
            raise BadMessageError(f"{len(datagram) - offset} bytes are too few for a netlink header")
        length, kind, flags, sequence, _ = _NLMSGHDR.unpack_from(datagram, offset)
        if not _NLMSGHDR.size <= length <= len(datagram) - offset:
            raise BadMessageError(f"a netlink message of {length} bytes where {len(datagram) - offset} are left")
        yield Message(kind, flags, sequence, datagram[offset + _NLMSGHDR.size : offset + length])
        offset += length + -length % 4


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    """Type (without its flag bits) and value of each attribute."""
    found = []
    offset, size = 0, len(data)
    while offset < size:
        if size - offset < 4:
            raise BadMessageError(f"{size - offset} bytes are too few for an attribute")
        length, kind = _NLATTR.unpack_from(data, offset)
        if not 4 <= length <= size - offset:
            raise BadMessageError(f"an attribute of {length} bytes where {size - offset} are left")
        found.append((kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]))
        offset += length + 3 & ~3
    return found


def acknowledgement(answer: Message) -> Ack:
    """What an NLMSG_ERROR (or the NLMSG_DONE of a dump) says."""
    if answer.type == NLMSG_DONE:
        code = _INT.unpack_from(answer.payload)[0] if len(answer.payload) >= _INT.size else 0
        return Ack(-min(code, 0), "")
    if len(answer.payload) < _NLMSGERR.size:
        raise BadMessageError(f"an error message of {len(answer.payload)} bytes")
    code, request_length, *_ = _NLMSGERR.unpack_from(answer.payload)
    words = ""
    if answer.flags & NLM_F_ACK_TLVS:
        # Without NLM_F_CAPPED the whole request stands before the attributes.
        start = _NLMSGERR.size
        if not answer.flags & NLM_F_CAPPED:
            start += max(request_length - _NLMSGHDR.size, 0)
        for kind, value in attributes(answer.payload[start:]):
            if kind == NLMSGERR_ATTR_MSG:
                words = value.rstrip(b"\0").decode("ascii", "backslashreplace")
    return Ack(-min(code, 0), words)


def set_count(payload: bytes) -> int | None:
    """How many elements the set of a NEWSET payload holds; None from a kernel that does not say.

    Those that have timed out count until the kernel has collected them; in an interval set start and end are half a
    range each, rounded down.
    """
    found = dict(attributes(payload[_NFGENMSG.size :])).get(NFTA_SET_COUNT)
    return None if found is None else int.from_bytes(found, "big")


def set_size(payload: bytes) -> int | None:
    """The most elements that the set of a NEWSET payload takes; None where it has no limit."""
    described = dict(attributes(payload[_NFGENMSG.size :])).get(NFTA_SET_DESC, b"")
    found = dict(attributes(described)).get(NFTA_SET_DESC_SIZE)
    return None if found is None else int.from_bytes(found, "big")


def resize_request(payload: bytes, size: int) -> Request:
    """Gives the set of a NEWSET payload, otherwise unchanged, another size (Linux does it since 6.5; before, nothing
    happens)."""
    told = (NFTA_SET_HANDLE, NFTA_SET_DESC, NFTA_SET_ID, NFTA_SET_TYPE, NFTA_SET_COUNT)
    kept = [attribute(kind, value) for kind, value in attributes(payload[_NFGENMSG.size :]) if kind not in told]
    described = nested(NFTA_SET_DESC, attribute(NFTA_SET_DESC_SIZE, size.to_bytes(4, "big")))
    number = attribute(NFTA_SET_ID, (1).to_bytes(4, "big"))
    return Request(NFT_MSG_NEWSET, NLM_F_CREATE, general() + b"".join(kept) + described + number)


def list_elements(payload: bytes) -> bytes:
    """The list elements of a NEWSETELEM payload, as they stand there."""
    return b"".join(v for kind, v in attributes(payload[_NFGENMSG.size :]) if kind == NFTA_SET_ELEM_LIST_ELEMENTS)


def answered_elements(datagrams: Sequence[bytes]) -> bytes:
    """The list elements of a look-up's answers, one message with one element each, joined.

    They all begin alike: only what is behind that is taken from each, when one of each length has been looked at.
    """
    if not datagrams:
        return b""
    first = next(messages(datagrams[0]))
    behind = len(datagrams[0]) - len(list_elements(first.payload))
    if {datagram[4 : behind - 4] for datagram in datagrams} != {datagrams[0][4 : behind - 4]}:
        raise BadMessageError("answers of different sets")
    for example in {len(datagram): datagram for datagram in datagrams}.values():
        found = [list_elements(m.payload) for m in messages(example) if m.type == _NEWSETELEM]
        if found != [example[behind:]]:
            raise BadMessageError("an answer that is more than one element")
    return b"".join([datagram[behind:] for datagram in datagrams])


def is_success(datagram: memoryview, number: int) -> bool:
    """Is this the plain acknowledgement of the request of that number, and nothing else?"""
    if len(datagram) != _ACK.size:
        return False
    length, kind, _, sequence, _, code = _ACK.unpack(datagram)
    return bool(length == _ACK.size and kind == NLMSG_ERROR and sequence == number and code == 0)


def entries(payloads: Iterable[bytes], width: int, interval: bool) -> list[Entry]:
    """The elements in the NEWSETELEM payloads of one set, ascending; keys of another width are refused."""
    found: list[tuple[int, bool, Entry]] = []
    for payload in payloads:
        for kind, value in attributes(payload[_NFGENMSG.size :]):
            if kind == NFTA_SET_ELEM_LIST_ELEMENTS:
                found += (entry for _, one in attributes(value) if (entry := _entry(one, width)) is not None)
    return arranged(found, width, interval)


def arranged(found: list[tuple[int, bool, Entry]], width: int, interval: bool) -> list[Entry]:
    """List elements (key, is it an interval's end, the rest) as entries, ascending."""
    # Where one range ends and the next begins, the end comes first.
    found.sort(key=lambda item: (item[0], not item[1]))
    if not interval:
        return [entry for _, is_end, entry in found if not is_end]
    return list(_ranges(found, (1 << 8 * width) - 1))


def _ranges(found: Iterable[tuple[int, bool, Entry]], highest: int) -> Iterator[Entry]:
    """Starts and ends, ascending, as ranges.

    A start without an end reaches to the next start or the highest key; an end without a start is what is left of
    an element that timed out.
    """
    start: Entry | None = None
    for key, is_end, entry in found:
        if start is not None and key > start.first:
            yield Entry(start.first, key - 1, start.expires_in, start.packets, start.bytes)
        start = None if is_end else entry
    if start is not None:
        yield Entry(start.first, highest, start.expires_in, start.packets, start.bytes)


def _entry(data: bytes, width: int) -> tuple[int, bool, Entry] | None:
    """(key, is it an interval's end, the rest) of one list element; None for a catch-all element."""
    key: int | None = None
    flags = packets = octets = 0
    expires_in: float | None = None
    for kind, value in attributes(data):
        if kind == NFTA_SET_ELEM_KEY:
            for sub, number in attributes(value):
                if sub == NFTA_DATA_VALUE:
                    if len(number) != width:
                        raise BadMessageError(f"a key of {len(number)} bytes in a set of {width}-byte keys")
                    key = int.from_bytes(number, "big")
        elif kind == NFTA_SET_ELEM_FLAGS:
            flags = int.from_bytes(value, "big")
        elif kind == NFTA_SET_ELEM_EXPIRATION:
            expires_in = int.from_bytes(value[:8], "big") / 1000
        elif kind == NFTA_SET_ELEM_EXPR:
            packets, octets = _counter(value) or (packets, octets)
        elif kind == NFTA_SET_ELEM_EXPRESSIONS:
            for _, expression in attributes(value):
                packets, octets = _counter(expression) or (packets, octets)
    if key is None:
        if flags & NFT_SET_ELEM_CATCHALL:
            return None
        raise BadMessageError("an element without a key")
    return key, bool(flags & NFT_SET_ELEM_INTERVAL_END), Entry(key, key, expires_in, packets, octets)


def _counter(expression: bytes) -> tuple[int, int] | None:
    """(packets, bytes) if the expression is a counter."""
    name, data = b"", b""
    for kind, value in attributes(expression):
        if kind == NFTA_EXPR_NAME:
            name = value.rstrip(b"\0")
        elif kind == NFTA_EXPR_DATA:
            data = value
    if name != b"counter":
        return None
    numbers = {kind: int.from_bytes(value, "big") for kind, value in attributes(data)}
    return numbers.get(NFTA_COUNTER_PACKETS, 0), numbers.get(NFTA_COUNTER_BYTES, 0)
