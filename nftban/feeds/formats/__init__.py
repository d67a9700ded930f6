"""The formats by name: to add one, write a module with a function (chunks -> Parsed) and name it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from nftban.feeds.formats import drop, dshield, netset, rbldnsd
from nftban.feeds.formats.parsed import BadLine, Parsed

Format = Callable[[Iterable[bytes]], Parsed]


def _dnsbl(chunks: Iterable[bytes]) -> Parsed:
    # dnspython is imported by those who need it.
    from nftban.feeds.formats.zone import parse_dnsbl

    return parse_dnsbl(chunks)


def _rpz(chunks: Iterable[bytes]) -> Parsed:
    from nftban.feeds.formats.zone import parse_rpz

    return parse_rpz(chunks)


FORMATS: dict[str, Format] = {
    "netset": netset.parse,
    "drop": drop.parse,
    "dshield": dshield.parse,
    "ip4set": partial(rbldnsd.parse, kind="ip4set"),
    "ip4tset": partial(rbldnsd.parse, kind="ip4tset"),
    "ip4trie": partial(rbldnsd.parse, kind="ip4trie"),
    "ip6tset": partial(rbldnsd.parse, kind="ip6tset"),
    "ip6trie": partial(rbldnsd.parse, kind="ip6trie"),
    "combined": partial(rbldnsd.parse, kind="combined"),
    "zone": _dnsbl,
    "rpz": _rpz,
}

__all__ = ["FORMATS", "BadLine", "Format", "Parsed"]
