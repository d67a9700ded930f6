"""Is a host name one that a network gives to everybody in it?

Takes a name, the address it belongs to, and words (rules/names.toml); gives a NameKind.  Points are added up: the
whole address in the name 3, its last two numbers 2; a word of access networks 2, two of them 3; a word of servers
takes 2 away.  From 3 on the name is GENERIC.  The address is found in decimal in any order, padded to three digits,
in hexadecimal either way round and as one number; of IPv6 the whole or its interface's half.  Names under a cloud
provider's domain are CLOUD.  Words inside the registered domain say nothing: it is a company's name.
Guarantees: any text gives an answer, in time linear in its length.
Does not: ask DNS, read files.  How often it is wrong: tests/unit/verify/test_generic.py measures it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from nftban.prefixes import Prefix
from nftban.records import NameKind
from nftban.verify.organisation import organisation

ENOUGH = 3

_NUMBER = re.compile(r"[0-9]+")
_LETTERS = re.compile(r"[a-z]+")
_HEX_GROUPS = re.compile(r"[0-9a-f]{1,4}(?:-{1,2}[0-9a-f]{1,4}){2,7}")


@dataclass(frozen=True, slots=True)
class NameWords:
    """access, fixed: expressions that a word must match as a whole; cloud: domains, small letters."""

    access: re.Pattern[str]
    fixed: re.Pattern[str]
    cloud: tuple[str, ...]


NO_WORDS = NameWords(re.compile(r"(?!)"), re.compile(r"(?!)"), ())
"""Without words only an address in the name tells."""


def parse_words(text: str) -> NameWords:
    """The lists of rules/names.toml; raises ValueError that says what is wrong."""
    tree = tomllib.loads(text)
    wanted = ("access", "fixed", "cloud")
    if sorted(tree) != sorted(wanted):
        raise ValueError(f"it must have the lists {', '.join(wanted)} and nothing else")
    for name in wanted:
        if not isinstance(tree[name], list) or not all(isinstance(word, str) and word for word in tree[name]):
            raise ValueError(f"{name} must be a list of words")
    return NameWords(_pattern(tree["access"]), _pattern(tree["fixed"]), tuple(d.lower() for d in tree["cloud"]))


def name_kind(name: str, address: Prefix, words: NameWords) -> NameKind:
    """What kind of name this is for that address (a single one)."""
    name = name.lower().removesuffix(".")
    if any(name == domain or name.endswith(f".{domain}") for domain in words.cloud):
        return NameKind.CLOUD
    host = name.removesuffix(organisation(name))
    found = _LETTERS.findall(host)
    access = sum(words.access.fullmatch(word) is not None for word in dict.fromkeys(found))
    fixed = any(words.fixed.fullmatch(word) for word in found)
    points = _embedded(host, address) + min(access, 2) + (access > 0) - 2 * fixed
    return NameKind.GENERIC if points >= ENOUGH else NameKind.NAMED


def kind_of(names: Iterable[str], address: Prefix, words: NameWords) -> NameKind | None:
    """Of several names: one that somebody chose makes the address NAMED; None where there is no name."""
    kinds = [name_kind(name, address, words) for name in names]
    return NameKind.NAMED if NameKind.NAMED in kinds else next(iter(kinds), None)


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    wild = {"*": "[a-z]*", "?": "[a-z]"}
    return re.compile("|".join("".join(wild.get(c) or re.escape(c) for c in word.lower()) for word in words))


def _embedded(host: str, address: Prefix) -> int:
    """Points for the address in the name: 3 whole, 2 its last two numbers, 0."""
    if address.family == 6:
        return 3 * _holds_ipv6(host, address)
    packed = address.packed
    texts = [_NUMBER.findall(host), [packed.hex(), packed[::-1].hex(), _padded(packed), _padded(packed[::-1])]]
    numbers = [int(text[-10:]) for text in texts[0]]
    if any(text in host for text in texts[1]) or address.first in numbers:
        return 3
    octets = sorted(packed)
    if any(sorted(numbers[i : i + 4]) == octets for i in range(len(numbers) - 3)):
        return 3
    last = (packed[2], packed[3])
    pairs = list(pairwise(numbers))
    return 2 if last in pairs or last[::-1] in pairs else 0


def _padded(octets: bytes) -> str:
    return "".join(f"{octet:03d}" for octet in octets)


def _holds_ipv6(host: str, address: Prefix) -> bool:
    whole = address.packed.hex()
    plain = re.sub("[.-]", "", host)
    if whole in plain or whole[::-1] in plain or (whole[16:].strip("0") and whole[16:] in plain):
        return True
    for groups in _HEX_GROUPS.findall(host):
        try:
            if Prefix.parse(groups.replace("-", ":")) == address:
                return True
        except ValueError:
            continue
    return False
