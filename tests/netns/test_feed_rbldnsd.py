"""rbldnsd's zone files mean what rbldnsd itself makes of them: random files, every address asked."""

from __future__ import annotations

import ipaddress
import random
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nftban.feeds.formats import FORMATS
from nftban.feeds.lookup import records
from nftban.prefixes import Prefix

pytestmark = pytest.mark.skipif(not shutil.which("rbldnsd"), reason="needs rbldnsd")

PORT = 5300
FILES = 12
CODES = ["", "", " :3", " :4:text $", ":3:x", " :127.0.1.9:y", " free text", " # c", ";c", " :5 :z", " :0:", " :999"]
OTHERS = ["", "# c", ";x", ":3", ":127.0.0.7:text", "::", " :4:x", "$TTL 60", "10.0.0.256", "10.0.0.1x", "1::4::5", "/"]
# What the short forms are short for; RANGES are an ip4set's only.
SHORT = {"10.0": "10.0.0.0/16", "10.1.0": "10.1.0.0/24", "10.0/16": "10.0.0.0/16", "10.0.1/24": "10.0.1.0/24"}
RANGES = ["10.1.0.5/24", "10.0.0.3-7", "10.0-1", "10.0.1.7-10.1.0.3", "10.0.0-10"]


def entry4(chance: random.Random, kind: str) -> str:
    address = f"10.{chance.choice([0, 1])}.{chance.choice([0, 1])}.{chance.randint(0, 31)}"
    if kind == "ip4tset" or chance.random() < 0.5:
        return address
    network = str(ipaddress.ip_network(f"{address}/{chance.randint(15, 32)}", strict=False))
    return chance.choice([network, network, chance.choice([*SHORT, *(RANGES if kind == "ip4set" else [])])])


def entry6(chance: random.Random, kind: str) -> str:
    address = ipaddress.IPv6Address((0x2001 << 112) + (chance.randint(0, 2) << 64) + chance.randint(0, 15))
    if kind == "ip6tset":
        return chance.choice(["2001:0:0:1", "2001:0:0:2", "2001:0:0", "2001:0:0:2/64", str(address)])
    network = str(ipaddress.ip_network(f"{address}/{chance.randint(56, 128)}", strict=False))
    return chance.choice([str(address), network, network, "2001:0:0:2", "2001:0", "2001:0:0:1::/60", f"{address}/64"])


def zone_file(chance: random.Random, kind: str) -> str:
    lines: list[str] = []
    seen: set[str] = set()
    while len(lines) < 25:
        if chance.random() < 0.2:
            lines.append(chance.choice(OTHERS))
            continue
        entry = entry4(chance, kind) if kind.startswith("ip4") else entry6(chance, kind)
        if kind == "ip6tset" and chance.random() < 0.3:
            entry = f"!2001:0:0:{chance.randint(1, 2)}::{chance.randint(0, 9)}"
        elif kind != "ip4tset" and chance.random() < 0.2:
            entry = "!" + entry
        # Of the same prefix twice rbldnsd's tries take the first, with a warning; levels.py says why that is not done.
        named = SHORT.get(entry.lstrip("!"), entry.lstrip("!"))
        if "trie" in kind and (named.count(".") == 3 or "::" in named):
            named = str(ipaddress.ip_network(named, strict=False))
        if "trie" in kind and named in seen:
            continue
        seen.add(named)
        # Behind an IPv6 address a colon might belong to it.
        lines.append(entry + (chance.choice(CODES) if kind.startswith("ip4") else chance.choice(CODES[:4])))
    return "\n".join(lines) + chance.choice(["", "\n"])


@contextmanager
def serving(kind: str, path: Path) -> Iterator[None]:
    words = ["rbldnsd", "-n", "-f", "-c", "0", "-w", str(path.parent), "-b", f"127.0.0.1/{PORT}"]
    words.append(f"bl.example:{kind}:{path.name}")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if re.search("rbldnsd version .* started", line):
                break
        yield
    finally:
        process.terminate()
        process.communicate()


def answers(address: str) -> tuple[str, ...]:
    """The A records of the name for the address."""
    name = ipaddress.ip_address(address).reverse_pointer.rsplit(".", 2)[0] + ".bl.example"
    packed = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack(">6H", 1, 0, 1, 0, 0, 0) + packed + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect(("127.0.0.1", PORT))
        asking.send(query)
        reply = asking.recv(4096)
    count, found, at = struct.unpack(">H", reply[6:8])[0], set(), len(query)
    for _ in range(count):
        (length,) = struct.unpack(">H", reply[at + 10 : at + 12])
        found.add(socket.inet_ntoa(reply[at + 12 : at + 12 + length]))
        at += 12 + length
    return tuple(sorted(found))


@pytest.mark.parametrize("kind", ["ip4set", "ip4tset", "ip4trie", "ip6tset", "ip6trie"])
def test_the_same_answers_as_rbldnsd(kind: str, netns: object, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    asked = [f"10.{a}.{b}.{c}" for a in (0, 1) for b in (0, 1, 2) for c in (*range(0, 32, 3), 255)]
    if kind.startswith("ip6"):
        asked = [f"2001:0:0:{word}::{low:x}" for word in (0, 1, 2, 3) for low in range(0, 17, 2)]
    for seed in range(FILES):
        path = tmp_path / "zone"
        path.write_text(zone_file(random.Random(f"{kind} {seed}"), kind))
        codes = FORMATS[kind]([path.read_bytes()]).codes
        with serving(kind, path):
            for address in asked:
                assert records(codes, Prefix.parse(address)) == answers(address), (address, path.read_text())
