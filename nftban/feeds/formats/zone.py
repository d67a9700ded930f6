"""DNS zones that list addresses, as master files (RFC 1035 5): DNSBLs as RFC 5782 has them, and response policy zones.

`parse_dnsbl` takes reversed octets or nibbles below the zone's name, with A records as codes, and wildcards as RFC 4592
reads them: a name that exists, be it only as a part of a longer one, keeps wildcards further up from what is below it.
`parse_rpz` takes the triggers rpz-client-ip and rpz-ip (`24.0.2.0.192.rpz-ip`); the longest prefix decides, a
passthru excludes.  Names that name no address (ns, www) are passed over.
Does not: follow $INCLUDE or $GENERATE.  Made for zones that transfer.py brings; dnspython reads a master file slowly
(some ten thousand records a second).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator

import dns.exception
import dns.name
import dns.rdatatype
import dns.zone
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.IN.A import A

from nftban.feeds.formats import rbldnsd_lines as single
from nftban.feeds.formats.levels import EXCLUDED, Levels
from nftban.feeds.formats.parsed import Lines, Parsed, Tally
from nftban.feeds.formats.rbldnsd_lines import DEFAULT
from nftban.prefixes import BITS, Prefix
from nftban.ranges import Ranges, Spans

_ORIGIN = re.compile(r"^(?:\$ORIGIN[ \t]+(\S+)|(\S+\.)[ \t][^;\n]*\bSOA\b)", re.MULTILINE | re.IGNORECASE)
_LINE = re.compile(r"^[^:]*:(\d+): ")
_RPZ_TRIGGERS = ("rpz-client-ip", "rpz-ip")
_PASSTHRU = "rpz-passthru."
Block = tuple[int, int, int]
"""family, first address, prefix length"""


def parse_dnsbl(chunks: Iterable[bytes]) -> Parsed:
    return _parsed(chunks, _dnsbl)


def parse_rpz(chunks: Iterable[bytes]) -> Parsed:
    return _parsed(chunks, _rpz)


def _parsed(chunks: Iterable[bytes], read: Callable[[dns.zone.Zone], Iterator[tuple[Block, int]]]) -> Parsed:
    lines, tally = Lines(chunks), Tally()
    text = b"".join(block for _, block in lines).decode("utf-8", "backslashreplace")
    levels = {4: Levels(), 6: Levels()}
    origin = _ORIGIN.search(text)
    try:
        zone = dns.zone.from_text(
            text,
            origin=(origin[1] or origin[2]) if origin else ".",
            relativize=False,
            check_origin=False,
            allow_directives=("$ORIGIN", "$TTL"),
        )
    except (dns.exception.DNSException, ValueError, LookupError, struct.error, TypeError, AttributeError) as e:
        found = _LINE.match(str(e))
        # A file that ends too early is faulted behind its last line.
        tally.bad(
            min(int(found[1]), max(lines.count, 1)) if found else 1,
            f"not a master file: {str(e)[:200] or type(e).__name__}",
        )
    else:
        for (family, first, length), value in read(zone):
            spans = Spans.of(family, [(first, first | (1 << (BITS[family] - length)) - 1)])
            levels[family].put(length, value, spans)
            if value != EXCLUDED:
                tally.keep(family, spans)
    codes: dict[int, list[Ranges]] = {}
    for family in (4, 6):
        for value, ranges in levels[family].resolved(family).items():
            codes.setdefault(value, []).append(ranges)
    by_code = {single.code_text(value): Ranges.union(several) for value, several in sorted(codes.items())}
    return tally.parsed(lines, Ranges.union(by_code.values()), by_code)


def _labels(name: dns.name.Name) -> list[str]:
    return [label.decode("ascii", "replace").lower() for label in name.labels if label]


def _dnsbl(zone: dns.zone.Zone) -> Iterator[tuple[Block, int]]:
    """The listings; and as exclusions the blocks in which names exist that no wildcard further up reaches any more."""
    depth = len(_labels(zone.origin)) if zone.origin else 0
    listed: dict[Block, list[int]] = {}
    exist: set[Block] = set()
    for name, node in zone.nodes.items():
        labels = _labels(name)[: -depth or None]
        wild = labels[:1] == ["*"]
        block = _block(labels[wild:], wild)
        if block is None:
            continue
        rdataset = node.get_rdataset(zone.rdclass, dns.rdatatype.A)
        values = [int.from_bytes(r.to_wire() or b"") for r in rdataset or () if isinstance(r, A)]
        listed.setdefault(block, []).extend(values)
        exist.add(block)
    if any(block[2] < BITS[block[0]] for block in listed):
        for family, first, length in list(exist):
            for shorter in range(length - (8 if family == 4 else 4), 0, -8 if family == 4 else -4):
                exist.add((family, first >> (BITS[family] - shorter) << (BITS[family] - shorter), shorter))
        for block in exist:
            if not listed.get(block):
                yield block, EXCLUDED
    for block, values in listed.items():
        for value in dict.fromkeys(values):
            yield block, value


def _block(labels: list[str], wild: bool) -> Block | None:
    """Reversed octets or nibbles of an address, or of the block that a wildcard stands below; None for neither."""
    count = len(labels)
    if all(_is_octet(label) for label in labels) and (1 <= count < 4 if wild else count == 4):
        return 4, int.from_bytes(bytes(int(label) for label in reversed(labels)).ljust(4, b"\0"), "big"), 8 * count
    nibbles = all(len(label) == 1 and label in "0123456789abcdef" for label in labels)
    if nibbles and (4 <= count < 32 if wild else count == 32):
        return 6, int("".join(reversed(labels)).ljust(32, "0"), 16), 4 * count
    return None


def _is_octet(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) <= 3 and str(int(label)) == label and int(label) < 256


def _rpz(zone: dns.zone.Zone) -> Iterator[tuple[Block, int]]:
    for name, node in zone.nodes.items():
        labels = _labels(name)
        place = next((labels.index(trigger) for trigger in _RPZ_TRIGGERS if trigger in labels), 0)
        block = _rpz_block(labels[:place]) if place else None
        if block is None:
            continue
        rdataset = node.get_rdataset(zone.rdclass, dns.rdatatype.CNAME)
        targets = [str(r.target).lower() for r in rdataset or () if isinstance(r, CNAME)]
        yield block, EXCLUDED if _PASSTHRU in targets else DEFAULT


def _rpz_block(labels: list[str]) -> Block | None:
    """`24.0.2.0.192`, `48.zz.db8.2001`: the prefix length, then the address backwards, zz for `::`."""
    try:
        length, rest = labels[0], labels[:0:-1]
        if len(rest) == 4 and "zz" not in rest and all(_is_octet(label) for label in rest):
            prefix = Prefix.parse(f"{'.'.join(rest)}/{length}")
        else:
            words = ["" if word == "zz" else word for word in rest]
            text = ":".join(words) + (":" if words[-1] == "" else "")
            prefix = Prefix.parse(f"{':' if words[0] == '' else ''}{text}/{length}")
    except (ValueError, IndexError):
        return None
    return prefix.family, prefix.first, prefix.length
