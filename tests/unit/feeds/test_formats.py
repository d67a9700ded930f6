"""Every format against a plain, slow reading of the same file, on random files; and the odd cases by name.

NFTBAN_TEST_FILES is how many random files each format gets (10,000 in a long run).
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from nftban.feeds.formats import FORMATS, Parsed
from nftban.prefixes import Prefix, PrefixSet, range_prefixes
from nftban.ranges import Ranges

FILES = int(os.environ.get("NFTBAN_TEST_FILES", "150"))
COMMENTS = ("", "# comment", "; 192.0.2.99", "  ", "\t", "#", "\r")


@dataclass
class Plain:
    """What a plain reading found: addresses by code, the numbers of bad lines, the count of entries."""

    codes: dict[str, PrefixSet] = field(default_factory=dict)
    bad: list[int] = field(default_factory=list)
    count: int = 0

    @property
    def every(self) -> PrefixSet:
        return PrefixSet(p for one in self.codes.values() for p in one.prefixes())


def pieces(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The file cut anywhere."""
    at = 0
    while at < len(data):
        size = chance.randint(1, 200)
        yield data[at : at + size]
        at += size


def octets(chance: random.Random) -> str:
    # From few networks, so that entries meet.
    return f"10.{chance.choice([0, 1])}.{chance.choice([0, 1, 255])}.{chance.randint(0, 255)}"


def v6(chance: random.Random) -> str:
    return str(ipaddress.IPv6Address((0x2001 << 112) | (chance.choice([0, 1]) << 64) | chance.randint(0, 15)))


def garbage(chance: random.Random) -> str:
    return chance.choice(
        ["nonsense", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1/33", "10.0.0.1x", "1.2.3.4.5", "10.0.0.1/", "-",
         "2001:db8::/129", "10.0.0.01", "10.0.0.1/08", "é", "10.0.0.1 extra", "\x00", "10.0.0.9-10.0.0.1", "1::2::3",
         "1.2.3.4-2001::1"]
    )  # fmt: skip


# netset


def netset_line(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.1:
        return garbage(chance)
    if kind < 0.2:
        return chance.choice(COMMENTS)
    if kind < 0.5:
        entry = octets(chance)
    elif kind < 0.7:
        entry = f"{octets(chance)}/{chance.randint(20, 32)}"
    elif kind < 0.75:
        entry = f"{octets(chance)}-10.1.255.255"
    elif kind < 0.9:
        entry = v6(chance)
    else:
        entry = f"{v6(chance)}/{chance.randint(40, 128)}"
    return chance.choice(["", "", "", " "]) + entry + chance.choice(["", "", "", "\r", " # x", ";SBL1", "\t"])


def plain_netset(lines: list[str]) -> Plain:
    found = Plain()
    listed: list[Prefix] = []
    for number, line in enumerate(lines, 1):
        text = re.split("[#;]", line)[0].strip(" \t\r")
        if not text:
            continue
        try:
            if "-" in text:
                first, last = (ipaddress.ip_address(word) for word in text.split("-"))
                if first.version != last.version or int(first) > int(last):
                    raise ValueError
                listed += range_prefixes(first.version, int(first), int(last))
            else:
                # ipaddress takes a netmask behind the slash, and leading zeros of a length.
                if not re.fullmatch(r"[0-9a-fA-F:.]+(/(0|[1-9][0-9]*))?", text):
                    raise ValueError
                net = ipaddress.ip_network(text, strict=False)
                listed.append(Prefix(net.version, int(net.network_address), net.prefixlen))
            found.count += 1
        except ValueError:
            found.bad.append(number)
    found.codes = {"": PrefixSet(listed)}
    return found


# rbldnsd

CODES = ("", "", "", " :3", " :4:text $", ":3:x", "\t:127.0.1.9:y", " free text", " # c", ";c", " :5 :z")
BAD_CODES = (" :0:", " ::x", " :999", " :1.2.3", ":7#c", " :300.1.1.1:")
DEFAULTS = (":3", ":127.0.0.7:text", "::bad", " :4:x")


def rbldnsd_line(entry: str, chance: random.Random, excludes: bool) -> str:
    kind = chance.random()
    if kind < 0.05:
        return chance.choice(["garbage", "10.0.0.256", "10.0.0.1x", "1.2.3.4.5", "10.0.0.1/24x", "$NONSENSE", ":::"])
    if kind < 0.1:
        return chance.choice(["", "#x", ";x", "  ", "#$TTL 5", "$TTL 60", "$SOA 1 a b 1 1 1 1 1", "$1 text", "$= text"])
    if kind < 0.15:
        return chance.choice(DEFAULTS)
    if kind < 0.17:
        return entry + chance.choice(BAD_CODES)
    lead = chance.choice(["", "", "", " ", "\t"]) + ("!" if excludes and chance.random() < 0.15 else "")
    return lead + entry + chance.choice(CODES)


def ip4set_entry(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.5:
        return octets(chance)
    if kind < 0.7:
        net = ipaddress.ip_network(f"{octets(chance)}/{chance.randint(14, 32)}", strict=False)
        return str(net)
    return chance.choice(["10", "10.0", "10.1.255", "10/8", "10.0/16", "10.0.1/24", "10.0.1.7-200", "10.0.0-1",
                          "10.0-1", "10.0.1.7-10.1.0.3", "10.0.0.3-2", "10.0-10.1.1", "10.1.0.5/24"])  # fmt: skip


def trie_entry(chance: random.Random) -> str:
    return chance.choice(
        [octets(chance), str(ipaddress.ip_network(f"{octets(chance)}/{chance.randint(8, 32)}", strict=False)), "10.1"]
    )


def trie6_entry(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.4:
        return v6(chance)
    if kind < 0.8:
        return str(ipaddress.ip_network(f"{v6(chance)}/{chance.randint(16, 128)}", strict=False))
    return chance.choice(
        ["2001", "2001:0", "2001:0:0/40", "2001:0:0:1", "2001:0:0:0:0:0:0:5", "2001:12345::", "2001::5/64"]
    )


def tset6_entry(chance: random.Random) -> str:
    return chance.choice(["2001:0:0:1", "2001:0:0:2", "2001:0:0:3", "2001::1", "2001:0:0:1/64", "2001:0:0"])


VALUE = re.compile(r":(\d{1,3})(?:\.(\d{1,3})\.(\d{1,3})\.(\d{1,3}))?[ \t]*(:.*)?$")


def plain_code(tail: str, default: str) -> str:
    tail = tail.strip(" \t\r")
    if not tail.startswith(":"):
        return default
    match = VALUE.match(tail)
    if not match:
        raise ValueError
    parts = [g for g in match.groups()[:4] if g is not None]
    if any(int(p) > 255 for p in parts) or parts == ["0"]:
        raise ValueError
    return ".".join(str(int(p)) for p in (parts if len(parts) == 4 else ["127", "0", "0", *parts]))


def plain_ip4(text: str, kind: str) -> tuple[int, int, int, str]:
    """First, last, level of an entry, and what stands behind it."""
    match = re.match(r"([0-9.]+)(?:/([0-9]+)|-([0-9.]+))?(.*)$", text)
    if not match or (match[4] and match[4][0] not in " \t#;:"):
        raise ValueError
    words = match[1].split(".")
    if len(words) > 4 or any(not w or str(int(w)) != w or int(w) > 255 for w in words):
        raise ValueError
    first = int(ipaddress.IPv4Address(".".join([*words, "0", "0", "0"][:4])))
    length = 8 * len(words)
    if kind == "ip4tset" and (length < 32 or match[2] or match[3]):
        raise ValueError
    last = first + (1 << (32 - length)) - 1
    if match[2]:
        length = int(match[2])
        last = int(ipaddress.IPv4Network((first, length))[-1])
    if match[3]:
        if kind != "ip4set":
            raise ValueError
        ends = match[3].split(".")
        if len(ends) == 1 and len(words) > 1:
            ends = [*words[:-1], *ends]
        if len(ends) != len(words) or any(not w or str(int(w)) != w or int(w) > 255 for w in ends):
            raise ValueError
        last = int(ipaddress.IPv4Address(".".join([*ends, "255", "255", "255"][:4])))
        if last < first:
            raise ValueError
    return first, last, length, match[4]


def plain_ip6(text: str, kind: str, excluded: bool) -> tuple[int, int, int, str]:
    match = re.match(r"([0-9a-fA-F:]+)(?:/([0-9]+))?(.*)$", text)
    if not match or (match[3] and match[3][0] not in (" \t#;:" if match[2] else " \t#;")):
        raise ValueError
    words = match[1].split(":")
    if "::" in match[1]:
        length, first = 128, int(ipaddress.IPv6Address(match[1]))
    else:
        length = 16 * len(words)
        first = int(ipaddress.IPv6Address(":".join([*words, *["0"] * 8][:8] if len(words) <= 8 else words)))
    if kind == "ip6tset" and (match[2] or length != (128 if excluded else 64)):
        raise ValueError
    if match[2]:
        length = int(match[2])
    net = ipaddress.IPv6Network((first, length))
    return first, int(net[-1]), length, match[3]


def plain_rbldnsd(lines: list[str], kind: str) -> Plain:
    """Keeps every entry and asks, for each address in which two answers may meet, all of them."""
    found = Plain()
    default, fixed = "127.0.0.2", None
    entries: list[tuple[int, int, int, str | None]] = []
    one_value = kind in ("ip4tset", "ip6tset")
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t\r")
        if not text or (text[0] in "#;" and text[1:2] != "$"):
            continue
        try:
            if text[0] == "$" or text[1:2] == "$":
                if "NONSENSE" in text:
                    raise ValueError
                continue
            if text[0] == ":":
                value = plain_code(text, "127.0.0.2")
                default, fixed = value, fixed or value
                continue
            excluded = text[0] == "!"
            text = text[1:].lstrip() if excluded else text
            if kind == "ip4tset" and excluded:
                raise ValueError
            family = 4 if kind.startswith("ip4") else 6
            first, last, length, tail = plain_ip4(text, kind) if family == 4 else plain_ip6(text, kind, excluded)
            code = None if excluded else "127.0.0.2" if one_value else plain_code(tail, default)
            parts = list(range_prefixes(family, first, last)) if kind == "ip4set" else [Prefix(family, first, length)]
            for part in parts:
                level = max(8, -(-part.length // 8) * 8) if kind == "ip4set" else part.length
                entries.append((level, part.first, part.last, code))
            found.count += not excluded
        except ValueError:
            found.bad.append(number)
    # Between two neighbouring borders all addresses are answered alike.
    borders = sorted({e[1] for e in entries} | {e[2] + 1 for e in entries})
    listed: dict[str, list[Prefix]] = {}
    for low, behind in pairwise(borders):
        covering = [e for e in entries if e[1] <= low and behind - 1 <= e[2]]
        top = [e for e in covering if e[0] == max(c[0] for c in covering)]
        if top and all(e[3] is not None for e in top):
            for code in {str(e[3]) for e in top}:
                listed.setdefault(code, []).extend(range_prefixes(4 if kind.startswith("ip4") else 6, low, behind - 1))
    found.codes = {code: PrefixSet(prefixes) for code, prefixes in listed.items()}
    if one_value and fixed:
        found.codes = {fixed: found.every} if listed else {}
    return found


ENTRIES: dict[str, Callable[[random.Random], str]] = {
    "ip4set": ip4set_entry, "ip4tset": octets, "ip4trie": trie_entry, "ip6trie": trie6_entry, "ip6tset": tset6_entry,
}  # fmt: skip


def same(parsed: Parsed, plain: Plain, data: bytes) -> None:
    shown = data.decode(errors="backslashreplace")
    assert parsed.ranges == Ranges.of(plain.every), shown
    if parsed.codes:
        assert {c: r.prefix_set() for c, r in parsed.codes.items()} == plain.codes, shown
    assert parsed.count == plain.count, shown
    assert [b.position for b in parsed.bad] == plain.bad[:20] and parsed.bad_count == len(plain.bad), (
        shown,
        parsed.bad,
    )
    assert parsed.newline == data.endswith(b"\n") or not data


@pytest.mark.parametrize("kind", ["netset", *ENTRIES])
def test_random_files_read_as_a_plain_reader_does(kind: str) -> None:
    for seed in range(FILES):
        chance = random.Random(f"{kind} {seed}")
        count = chance.choice([0, 1, 2, 5, 30, 120])
        if kind == "netset":
            lines = [netset_line(chance) for _ in range(count)]
            plain = plain_netset(lines)
        else:
            lines = [rbldnsd_line(ENTRIES[kind](chance), chance, True) for _ in range(count)]
            plain = plain_rbldnsd(lines, kind)
        data = "\n".join(lines).encode() + (b"\n" if lines and chance.random() < 0.5 else b"")
        same(FORMATS[kind](pieces(data, chance)), plain, data)


def test_drop_and_dshield_as_a_plain_reader_does() -> None:
    for seed in range(FILES):
        chance = random.Random(seed)
        nets = [
            ipaddress.ip_network(f"{octets(chance)}/{chance.randint(9, 24)}", strict=False)
            for _ in range(chance.randint(0, 30))
        ]
        rows = [json.dumps({"cidr": str(net), "sblid": "SBL1", "rir": "ripencc"}) for net in nets]
        rows.append(
            json.dumps({"type": "metadata", "timestamp": 1764000000 + seed, "records": len(nets), "terms": "t"})
        )
        ending = chance.choice(["", "\n"])
        plain = PrefixSet(Prefix(4, int(net.network_address), net.prefixlen) for net in nets)
        parsed = FORMATS["drop"](pieces(("\n".join(rows) + ending).encode(), chance))
        assert parsed.ranges == Ranges.of(plain) and parsed.says == parsed.count == len(nets) and not parsed.bad
        assert parsed.made == 1764000000 + seed and parsed.about == "t"
        table = ["# comment", "Start\tEnd\tNetmask\tAttacks", *(f"{n[0]}\t{n[-1]}\t{n.prefixlen}\t1\tX" for n in nets)]
        parsed = FORMATS["dshield"](pieces(("\n".join(table) + ending).encode(), chance))
        assert parsed.ranges == Ranges.of(plain) and parsed.count == len(nets) and not parsed.bad


@pytest.mark.parametrize(
    "row",
    [
        "1.2.3.0\t1.2.3.255\t23",
        "1.2.3.0\t1.2.3.255",
        "x\ty\t24",
        "1.2.3.0\t1.2.4.255\t24",
        "1.2.3.0/25\t1.2.3.255\t24",
    ],
)
def test_a_dshield_row_whose_columns_disagree_is_bad(row: str) -> None:
    parsed = FORMATS["dshield"]([row.encode()])
    assert [b.position for b in parsed.bad] == [1] and parsed.count == 0


@pytest.mark.parametrize("row", ["{", "[]", "1", '{"cidr": 5}', '{"sblid": "x"}', '{"cidr": "10.0.0"}', "[" * 5000])
def test_a_drop_line_that_is_no_record_is_bad(row: str) -> None:
    parsed = FORMATS["drop"]([row.encode()])
    assert [b.position for b in parsed.bad] == [1] and parsed.count == 0


@pytest.mark.parametrize(
    "kind", sorted(set(FORMATS) - {"zone", "rpz", "drop", "dshield", "combined", "ip6tset", "ip6trie"})
)
def test_the_last_line_counts_without_its_newline(kind: str) -> None:
    for text in (b"45.0.0.1\n45.0.0.2", b"45.0.0.1\n45.0.0.2\n", b"45.0.0.1\r\n45.0.0.2\r\n"):
        parsed = FORMATS[kind]([text])
        assert [str(p) for p in parsed.ranges.prefixes()] == ["45.0.0.1", "45.0.0.2"]


def test_a_byte_order_mark_is_no_bad_line() -> None:
    assert FORMATS["netset"]([b"\xef\xbb\xbf45.0.0.1\n"]).bad_count == 0


def test_a_line_without_end_is_one_bad_line_and_takes_no_memory() -> None:
    endless = (b"1" * 50_000 for _ in range(100))
    parsed = FORMATS["netset"](iter([b"45.0.0.1\n", *endless, b"\n45.0.0.2\nx\n"]))
    assert [str(p) for p in parsed.ranges.prefixes()] == ["45.0.0.1", "45.0.0.2"]
    assert [b.position for b in parsed.bad] == [2, 4]


def test_timestamps() -> None:
    parsed = FORMATS["ip4set"]([b"$TIMESTAMP 2026:11:20:06:30 +2d\n1.2.3.4\n"])
    assert parsed.made == 1795156200.0 and parsed.expires == parsed.made + 2 * 86400
    parsed = FORMATS["ip4set"]([b"#$TIMESTAMP 20261120 2026-11-21\n"])
    assert (parsed.made, parsed.expires) == (1795132800.0, 1795219200.0)
    for wrong in (b"$TIMESTAMP soon", b"$TIMESTAMP 2026-13-01", b"$TIMESTAMP 0 +1d"):
        assert FORMATS["ip4set"]([wrong]).bad_count == 1


def test_maxrange_is_obeyed_and_never_grows() -> None:
    text = (
        b"10.0.0.0/16\n$MAXRANGE4 /24\n11.0.0.0/23\n11.1.0.0/24\n$MAXRANGE4 65536\n12.0.0.0/16\n" + b"1.2.3.0/23\n" * 9
    )
    parsed = FORMATS["ip4set"]([text])
    assert [str(p) for p in parsed.ranges.prefixes()] == ["10.0.0.0/16", "11.1.0.0/24"]
    assert [b.position for b in parsed.bad][:2] == [3, 6]


def test_combined_datasets_do_not_exclude_from_one_another() -> None:
    text = b"""$NS 1w ns1.example.com
$DATASET ip4set:proxy proxies @
:7
10.0.0.1
10.0.0.2 :8
$DATASET ip4trie @
10.0.0.3
!10.0.0.1
10.0.0.2
$DATASET dnset:x @
example.com
$DATASET ip6trie:x @
2001:db8::/32
"""
    parsed = FORMATS["combined"]([text])
    assert {code: [str(p) for p in held.prefixes()] for code, held in parsed.codes.items()} == {
        "127.0.0.2": ["10.0.0.2/31", "2001:db8::/32"],
        "127.0.0.7": ["10.0.0.1"],
        "127.0.0.8": ["10.0.0.2"],
    }
    assert parsed.bad == ()


def test_more_different_codes_than_anybody_has_are_bad_lines() -> None:
    lines = [f"10.0.{n >> 8}.{n & 255} :127.{n >> 8}.{n & 255}.1:" for n in range(400)]
    parsed = FORMATS["ip4set"](["\n".join(lines).encode()])
    assert len(parsed.codes) == 256 and parsed.bad_count == 144


ZONE = """$ORIGIN bl.example.
@ 3600 IN SOA ns.example. host.example. 7 1 1 1 1
@ IN NS ns.example.
7.2.0.192 IN A 127.0.0.3
7.2.0.192 IN A 127.0.0.4
7.2.0.192 IN TXT "listed"
*.113.0.203 IN A 127.0.0.2
*.51.198 IN A 127.0.0.2
9.100.51.198 IN A 127.0.0.5
8.113.0.203 IN TXT "exists without an A record: the wildcard does not reach it"
www IN A 192.0.2.1
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2 IN A 127.0.0.2
*.9.b.d.0.1.0.0.2 IN A 127.0.0.2
"""


def test_a_zone_lists_what_a_name_server_would_answer() -> None:
    parsed = FORMATS["zone"]([ZONE.encode()])
    assert parsed.bad == ()
    codes = {code: [str(p) for p in held.prefixes()] for code, held in parsed.codes.items()}
    assert codes["127.0.0.3"] == codes["127.0.0.4"] == ["192.0.2.7"]
    assert codes["127.0.0.5"] == ["198.51.100.9"]
    listed = parsed.codes["127.0.0.2"]
    for address, answer in (
        ("203.0.113.9", True), ("203.0.113.8", False), ("198.51.7.7", True), ("198.51.100.9", False),
        # 100.51.198 exists, if only as a part of a name: no wildcard above it reaches what is below (RFC 4592).
        ("198.51.100.10", False), ("2001:db8::1", True), ("2001:db8::2", False), ("2001:db9::5", True),
    ):  # fmt: skip
        assert listed.contains(Prefix.parse(address)) is answer, address


def test_a_response_policy_zone_lists_its_address_triggers() -> None:
    text = """$ORIGIN rpz.example.
@ 3600 IN SOA ns.example. host.example. 7 1 1 1 1
24.0.2.0.192.rpz-client-ip CNAME .
32.7.2.0.192.rpz-client-ip CNAME rpz-passthru.
48.zz.1.db8.2001.rpz-ip CNAME rpz-drop.
128.5.zz.2.db8.2001.rpz-ip A 192.0.2.99
32.1.2.0.203.rpz-nsip CNAME .
bad.example CNAME .
33.1.2.3.4.rpz-ip CNAME .
"""
    parsed = FORMATS["rpz"]([text.encode()])
    expected = PrefixSet(map(Prefix.parse, ["192.0.2.0/24", "2001:db8:1::/48", "2001:db8:2::5"])).minus(
        PrefixSet([Prefix.parse("192.0.2.7")])
    )
    assert parsed.ranges.prefix_set() == expected and parsed.bad == ()


def test_a_zone_that_is_none_is_a_bad_line_and_reads_no_other_file() -> None:
    for text in ("not a zone", "$INCLUDE /etc/passwd\n", "$GENERATE 1-4000000000 $ A 127.0.0.2\n", "@ IN A 1.2.3\n"):
        parsed = FORMATS["zone"]([text.encode()])
        assert parsed.count == 0 and parsed.bad_count == 1, text
