"""What must never be banned, and the test of a prefix against it.

Takes protected prefixes with their reasons and the widest lengths allowed; answers with the objection in words, or
None.  Guarantees: the test is on the final prefix: a ban that would cover any protected address is objected to,
not only a ban of that address.  No I/O; host.py finds what this machine has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nftban.prefixes import Prefix, PrefixSet


@dataclass(frozen=True, slots=True)
class Protection:
    """One protected prefix and why."""

    prefix: Prefix
    why: str


# Without these the machine loses itself or its link: RFC 1122 3.2.1.3, RFC 4291 2.5.2-2.7, RFC 3927, RFC 5771.
ALWAYS = tuple(
    Protection(Prefix.parse(text), why)
    for text, why in (
        ("127.0.0.0/8", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0/8", "this network"),
        ("::", "the unspecified address"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/10", "link-local; neighbour discovery needs it"),
        ("224.0.0.0/3", "multicast and reserved"),
        ("ff00::/8", "multicast"),
    )
)


class Protected:
    """Everything that must not be banned at one moment."""

    def __init__(self, protections: Iterable[Protection], max_prefix4: int, max_prefix6: int) -> None:
        """max_prefix4, max_prefix6: the widest (shortest) prefix length that may be banned."""
        self._protections = (*ALWAYS, *protections)
        self._all = PrefixSet(p.prefix for p in self._protections)
        self._widest = {4: max_prefix4, 6: max_prefix6}

    @property
    def allow(self) -> PrefixSet:
        """The protected addresses for the kernel's allow sets, which come before every ban."""
        return self._all

    def objection(self, prefix: Prefix) -> str | None:
        """Why this prefix must not be banned, or None."""
        if self.is_wide(prefix.family, prefix.length):
            return f"{prefix} is wider than /{self._widest[prefix.family]}, the widest that may be banned"
        if not self._all.overlaps(prefix):
            return None
        return self.reason(prefix)

    def is_wide(self, family: int, length: int) -> bool:
        """Is a prefix of that length too wide to be banned?"""
        return length < self._widest[family]

    def reason(self, prefix: Prefix) -> str | None:
        """Which protected address the prefix covers or lies in, in words, or None."""
        for p in self._protections:
            if p.prefix.contains(prefix):
                inside = "is" if p.prefix == prefix else f"lies in {p.prefix},"
                return f"{prefix} {inside} protected: {p.why}"
            if p.prefix.overlaps(prefix):
                return f"{prefix} covers {p.prefix}, protected: {p.why}"
        return None
