"""DNS messages in wire format (RFC 1035 4): a question becomes bytes, a response an Outcome.

Takes names and record types, and what servers sent; gives queries, and Records, Missing or Failed.
Two ways lead to the same end.  dnspython knows the whole format.  The questions and answers that DNSBLs are made of,
an A query for `7.2.0.192.zone`, and a reply with nothing but A records of the name asked, or with nothing but one SOA
record, are built and read here byte by byte: that costs a tenth.  Whatever deviates in a single bit from these two
shapes goes to dnspython, and where both can read a message they agree.
Guarantees: any bytes become an outcome, never an exception; TTLs are held within bounds (records 60 s to 1 day,
absence 60 s to 1 h by the lesser of the SOA's TTL and minimum, RFC 2308 5); text is printable ASCII of bounded length.
Does not: send, compare a response with its question (channel.py does), or speak EDNS, since DNSBL answers are short.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from socket import inet_ntoa

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from dns.rdata import Rdata
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from nftban.verify.outcomes import Failed, Missing, Outcome, Records, RecordType

SHORTEST_TTL = 60
LONGEST_RECORDS_TTL = 86400
LONGEST_MISSING_TTL = 3600
LONGEST_TEXT = 4096
"""An SPF record of several strings must come whole; RFC 7208 3.4 wants it far shorter."""

_PLAIN = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_OCTETS = {str(n): bytes((len(str(n)),)) + str(n).encode() for n in range(256)}
_HEADER = b"\0\0\1\0\0\1\0\0\0\0\0\0"
_TYPES = {t: int(dns.rdatatype.from_text(t)).to_bytes(2, "big") + b"\0\1" for t in ("A", "AAAA", "PTR", "TXT", "MX")}
_COUNTS = struct.Struct("!HHH")
_A_RECORD = struct.Struct("!HHHIH4s")
_SOA_HEAD = struct.Struct("!HHHIH")


def query_message(name: str, rdtype: RecordType) -> bytes:
    """A query with ID 0 and recursion desired; raises DNSException or UnicodeError for what is no domain name."""
    parts = name.split(".", 4)
    try:
        a, b, c, d, zone = parts
        labels = _OCTETS[a] + _OCTETS[b] + _OCTETS[c] + _OCTETS[d] + _zone_labels(zone)
    except (ValueError, KeyError):
        labels = _plain_labels(name) if _PLAIN.fullmatch(name) else b""
    if not 1 < len(labels) <= 255:
        labels = b"".join(bytes((len(label),)) + label for label in dns.name.from_text(name).labels)
    return _HEADER + labels + _TYPES[rdtype]


def _plain_labels(name: str) -> bytes:
    labels = name.removesuffix(".").split(".")
    return b"".join(bytes((len(label),)) + label.encode("ascii") for label in labels) + b"\0"


@lru_cache(maxsize=64)
def _zone_labels(zone: str) -> bytes:
    """The labels of a DNSBL's name, of which there are few; ValueError where they are not plain ones."""
    if not _PLAIN.fullmatch(zone):
        raise ValueError
    return _plain_labels(zone)


def read_response(message: bytes, query: bytes) -> Outcome:
    """What a response, known to repeat this query's question, says."""
    if query.endswith(b"\0\1\0\1"):
        try:
            outcome = _read_plain(message, len(query))
        except (IndexError, struct.error):
            outcome = None
        if outcome is not None:
            return outcome
    return parsed(message)


def _read_plain(message: bytes, end: int) -> Outcome | None:
    """One of the two shapes, or None.  end: where the question ends."""
    rcode = message[3] & 0x0F
    answers, authority, additional = _COUNTS.unpack_from(message, 6)
    if message[2] & 0x02 or additional:
        return None
    if answers:
        if rcode or authority or len(message) != end + 16 * answers:
            return None
        found, least = set(), LONGEST_RECORDS_TTL
        for at in range(end, len(message), 16):
            owner, rdtype, rdclass, ttl, length, address = _A_RECORD.unpack_from(message, at)
            if (owner, rdtype, rdclass, length) != (0xC00C, 1, 1, 4) or ttl > 0x7FFFFFFF:
                return None
            found.add(inet_ntoa(address))
            least = min(least, ttl)
        return _records(found, least)
    if rcode not in (0, 3) or authority != 1:
        return None
    owner, rdtype, rdclass, ttl, length = _SOA_HEAD.unpack_from(message, end)
    data = end + 12
    if (rdtype, rdclass) != (6, 1) or ttl > 0x7FFFFFFF or data + length != len(message):
        return None
    at = 12  # the owner must be the name asked or one of its parents: a pointer to where one of its labels begins
    while 0xC000 | at != owner:
        if message[at] == 0:
            return None
        at += message[at] + 1
    if message[at] == 0 or _name_end(message, _name_end(message, data)) + 20 != len(message):
        return None
    return _missing(min(ttl, int.from_bytes(message[-4:], "big")), name_exists=rcode == 0)


def _name_end(message: bytes, at: int) -> int:
    """Behind the name that begins there; IndexError where there is none (RFC 1035 4.1.4, pointers only backwards)."""
    end, lowest, size = 0, at, 1
    while (length := message[at]) != 0:
        if length < 64:
            at += length + 1
            size += length + 1
        elif length >= 192:
            target = (length & 63) << 8 | message[at + 1]
            end = end or at + 2
            if target >= lowest:
                raise IndexError
            at = lowest = target
        else:
            raise IndexError
        if size > 255:
            raise IndexError
    return end or at + 1


def parsed(message: bytes) -> Outcome:
    """What a response says, by dnspython; Failed where it is none or says that the server does not know."""
    try:
        response = dns.message.from_wire(message)
        if not isinstance(response, dns.message.QueryMessage):
            return Failed("an answer that is none")
        rcode = response.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Failed(dns.rcode.to_text(rcode))
        chain = response.resolve_chaining()
        if chain.answer is not None:
            return _records({_text(rdata) for rdata in chain.answer}, chain.minimum_ttl)
    except (dns.exception.DNSException, ValueError, IndexError):
        return Failed("an answer that cannot be parsed")
    authority = {rrset.rdtype for rrset in response.authority}
    name_exists = rcode == dns.rcode.NOERROR
    if dns.rdatatype.SOA in authority:
        return _missing(chain.minimum_ttl, name_exists=name_exists)
    if dns.rdatatype.NS in authority and name_exists:
        return Failed("a referral instead of an answer")  # asked a server that does not recurse
    return _missing(SHORTEST_TTL, name_exists=name_exists)


def _records(values: set[str], ttl: int) -> Records:
    """Servers shuffle records; evidence should not."""
    return Records(tuple(sorted(values)), max(SHORTEST_TTL, min(ttl, LONGEST_RECORDS_TTL)))


def _missing(ttl: int, *, name_exists: bool) -> Missing:
    return Missing(max(SHORTEST_TTL, min(ttl, LONGEST_MISSING_TTL)), name_exists)


def _text(rdata: Rdata) -> str:
    match rdata:
        case A() | AAAA():
            return str(rdata.address)
        case PTR():
            return str(rdata.target.to_text(omit_final_dot=True))
        case TXT():
            return b"".join(rdata.strings)[:LONGEST_TEXT].decode("ascii", "backslashreplace")
    return str(rdata.to_text())[:LONGEST_TEXT]
