"""The name a mail client gives itself: can it be true?

Takes the HELO or EHLO name from a log line; gives a `Helo`, judged (`judged`, pure) from its form, its A and AAAA
records, and the client's reverse DNS.  A form that no honest client on the internet uses is a fault: no full domain
name (RFC 5321 4.1.1.1), an address without brackets, the literal of another address, our own name, a name of a domain
that exists inside networks only.
Guarantees: any text gives an answer; a DNS failure is None, never False.  RFC 5321 4.1.4 forbids refusing mail for a
name that does not fit, and many honest servers have one: it is weak evidence (judge.py).
Does not: ask where the form already tells, read clocks.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from nftban.prefixes import Prefix
from nftban.records import Helo, ReverseDNS
from nftban.verify.organisation import organisation
from nftban.verify.outcomes import Failed, Outcome, Records

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_INSIDE = frozenset(("local", "localdomain", "localhost", "lan", "home", "internal", "intranet", "corp", "private"))
FORM_TTL = 3600


def helo_fault(name: str, address: Prefix, own_names: Collection[str]) -> str:
    """Why no honest client says this, "" where one may.  own_names: small letters."""
    if name.startswith("["):
        return _literal_fault(name, address)
    plain = name.lower().removesuffix(".")
    if plain in own_names:
        return "our own name"
    if _parsed(plain) is not None:
        return "an address without brackets"
    labels = plain.split(".")
    if len(plain) > 253 or len(labels) < 2 or labels[-1].isdigit() or not all(map(_LABEL.match, labels)):
        return "no full domain name"
    return "a name for inside a network" if labels[-1] in _INSIDE else ""


def judged(
    name: str, address: Prefix, own_names: Collection[str], forward: tuple[Outcome, Outcome] | None,
    reverse: ReverseDNS, now: float,
) -> Helo:  # fmt: skip
    """What these outcomes (A, AAAA; None where not asked) say of the name; now: epoch seconds."""
    fault = helo_fault(name, address, own_names)
    if fault:
        return Helo(name, fault, reason=fault, asked=now, ttl=FORM_TTL)
    if name.startswith("["):
        return Helo(name, "", True, reason="its own address", asked=now, ttl=FORM_TTL)
    same = None
    if reverse.confirmed and (own := organisation(name)):
        same = any(organisation(ptr) == own for ptr in reverse.names)
    if forward is None:
        return Helo(name, "", None, same, "not asked", now)
    leads, ttl = _leads_to(address, forward), min(outcome.ttl for outcome in forward)
    if leads is None:
        reasons = [outcome.reason for outcome in forward if isinstance(outcome, Failed)]
        return Helo(name, "", None, same, f"forward: {'; '.join(reasons)}", now, ttl)
    return Helo(name, "", leads, same, f"{'leads' if leads else 'does not lead'} to the address", now, ttl)


def _leads_to(address: Prefix, forward: tuple[Outcome, Outcome]) -> bool | None:
    values = [value for outcome in forward if isinstance(outcome, Records) for value in outcome.values]
    if any(Prefix.parse(value) == address for value in values):
        return True
    return None if any(isinstance(outcome, Failed) for outcome in forward) else False


def _literal_fault(name: str, address: Prefix) -> str:
    inside = name[1:-1] if name.endswith("]") else ""
    literal = _parsed(inside[5:] if inside.lower().startswith("ipv6:") else inside)
    if literal is None:
        return "an address literal that is none"
    return "" if literal == address else "the literal of another address"


def _parsed(text: str) -> Prefix | None:
    try:
        return Prefix.parse(text) if "/" not in text else None
    except ValueError:
        return None
