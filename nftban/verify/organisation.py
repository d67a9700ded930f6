"""Whose name is it: the registered domain of a host name, by the Public Suffix List.

Takes a host name; gives its organisational domain as in RFC 7489 3.2 ("mail.a.example.co.uk" -> "example.co.uk").
The list comes with the package publicsuffixlist, is read once, when first needed, and never fetched; suffixes it does
not know are taken for top-level domains.
Guarantees: any text gives an answer.  The only module that knows that package.
"""

from __future__ import annotations

from functools import cache

from publicsuffixlist import PublicSuffixList


def organisation(name: str) -> str:
    """Small letters without the final dot; "" where the name is a public suffix itself or no name."""
    return str(_suffixes().privatesuffix(name.lower().removesuffix(".")) or "")


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
