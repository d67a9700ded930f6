"""SPF policies as written: `v=spf1 a mx include:example.org -all` taken apart.

Takes the strings of TXT records; gives the one that is a policy (RFC 7208 4.5), its terms, and macro-strings expanded
(RFC 7208 7).  A fault anywhere in a policy is a `BadPolicy`: nothing of it may be evaluated (RFC 7208 4.6).
Guarantees: a `Mechanism`'s names and lengths follow the grammar of RFC 7208 12; an expanded name has at most 253
characters, shortened from the left at a dot.
Does not: ask DNS, evaluate, follow `exp=` (its grammar is checked; the text is for a reply that nftban never sends).
Source: RFC 7208.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from nftban.prefixes import Prefix

LONGEST_NAME = 253

_VERSION = re.compile(r"v=spf1(?: |\Z)", re.IGNORECASE)
# How the resolver writes what is not ASCII; a policy has nothing like it in its own right.
_NOT_ASCII = re.compile(r"\\x[0-9a-f]{2}|[^\x20-\x7e]")
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)\Z")
_MECHANISM = re.compile(r"([+?~-]?)([A-Za-z0-9]+)(.*)\Z")
_LENGTHS = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z")
_MACRO = re.compile(r"%(?:([%_-])|\{([A-Za-z])([0-9]*)([rR]?)([.+,/_=-]*)\})")
_LITERALS = re.compile(r"[\x21-\x24\x26-\x7e]*\Z")
_TOP_LABEL = re.compile(r"\.(?=[A-Za-z0-9-]*[A-Za-z-])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?\Z")
_ENDS_IN_MACRO = re.compile(r"%\{[^}]*\}\Z")
_LETTERS = "slodiphv"
_ESCAPED = {"%": "%", "_": " ", "-": "%20"}


class BadPolicy(Exception):
    """A policy that breaks the grammar: SPF's permerror."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One directive.  qualifier: "+", "-", "~" or "?"; name: small letters; target: its domain-spec, "" where it has
    none; network: of ip4 and ip6; lengths: prefix lengths for IPv4 and IPv6 of a and mx; text: as written."""

    qualifier: str
    name: str
    text: str
    target: str = ""
    network: Prefix | None = None
    lengths: tuple[int, int] = (32, 128)


@dataclass(frozen=True, slots=True)
class Policy:
    """redirect: the domain-spec to go on with where no mechanism matches, "" where there is none."""

    mechanisms: tuple[Mechanism, ...]
    redirect: str = ""


def policy_text(texts: Iterable[str]) -> str | None:
    """The one text that is a policy, None where there is none; BadPolicy where there are several."""
    found = [text for text in texts if _VERSION.match(text)]
    if len(found) > 1:
        raise BadPolicy("several SPF policies")
    return found[0] if found else None


def parse_policy(text: str) -> Policy:
    """The terms of a policy, all of them checked; BadPolicy where one of them is faulty."""
    if _NOT_ASCII.search(text):
        raise BadPolicy("not ASCII")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for term in text[len("v=spf1") :].split():
        modifier = _MODIFIER.match(term)
        if modifier is None:
            mechanisms.append(_mechanism(term))
            continue
        name, value = modifier.group(1).lower(), modifier.group(2)
        if name in ("redirect", "exp"):
            if name in modifiers:
                raise BadPolicy(f"{name}= twice")
            modifiers[name] = _domain_spec(value, term)
        else:
            _macro_string(value, term, _LETTERS + "crt")
    return Policy(tuple(mechanisms), modifiers.get("redirect", ""))


def _mechanism(term: str) -> Mechanism:
    parts = _MECHANISM.match(term)
    if parts is None:
        raise BadPolicy(f"{term!r} is no term")
    qualifier, name, rest = parts.group(1) or "+", parts.group(2).lower(), parts.group(3)
    colon, value = rest[:1] == ":", rest[1:]
    if name == "all" and not rest:
        return Mechanism(qualifier, name, term)
    if name in ("ip4", "ip6") and colon:
        return Mechanism(qualifier, name, term, network=_network(name, value, term))
    if name in ("include", "exists") and colon:
        return Mechanism(qualifier, name, term, _domain_spec(value, term))
    if name == "ptr" and (colon or not rest):
        return Mechanism(qualifier, name, term, _domain_spec(value, term) if colon else "")
    if name in ("a", "mx") and rest[:1] in ("", ":", "/"):
        matched = _LENGTHS.match(value if colon else rest)
        target, four, six = matched.groups() if matched else (value, None, None)
        lengths = (32 if four is None else int(four), 128 if six is None else int(six))
        if lengths[0] > 32 or lengths[1] > 128 or (target and not colon):
            raise BadPolicy(f"{term!r} has a wrong prefix length")
        return Mechanism(qualifier, name, term, _domain_spec(target, term) if colon else "", None, lengths)
    raise BadPolicy(f"{term!r} is no term")


def _network(name: str, value: str, term: str) -> Prefix:
    if (":" in value) != (name == "ip6"):
        raise BadPolicy(f"{term!r} has no address")
    try:
        return Prefix.parse(value)
    except ValueError:
        raise BadPolicy(f"{term!r} has no address") from None


def _domain_spec(value: str, term: str) -> str:
    """Checked: a macro-string that ends in a top label or a macro."""
    _macro_string(value, term, _LETTERS)
    if not (_TOP_LABEL.search(value) or _ENDS_IN_MACRO.search(value)):
        raise BadPolicy(f"{term!r} names no domain")
    return value


def _macro_string(value: str, term: str, letters: str) -> None:
    at = 0
    for macro in _MACRO.finditer(value):
        if not _LITERALS.match(value[at : macro.start()]):
            break
        letter, digits = macro.group(2), macro.group(3)
        if letter is not None and (letter.lower() not in letters or (digits and not int(digits[-3:]))):
            break
        at = macro.end()
    else:
        if _LITERALS.match(value[at:]):
            return
    raise BadPolicy(f"{term!r} has a faulty macro")


def uses_macro(spec: str, letter: str) -> bool:
    return any((macro.group(2) or "").lower() == letter for macro in _MACRO.finditer(spec))


def expanded(spec: str, values: Mapping[str, str]) -> str:
    """The macro-string with its macros' values; values: by small letter.  At most 253 characters."""

    def value(macro: re.Match[str]) -> str:
        if macro.group(1):
            return _ESCAPED[macro.group(1)]
        letter, digits, reverse, delimiters = macro.group(2, 3, 4, 5)
        text = values[letter.lower()]
        parts = re.split("[" + re.escape(delimiters or ".") + "]", text)
        if reverse:
            parts.reverse()
        if digits:
            parts = parts[-min(int(digits[-3:]), 128) :]
        joined = ".".join(parts)
        return quote(joined, safe="") if letter.isupper() else joined

    name = _MACRO.sub(value, spec).removesuffix(".")
    while len(name) > LONGEST_NAME and "." in name:
        name = name.partition(".")[2]
    return name


def is_domain(name: str) -> bool:
    """Can the name be asked about: at least two labels of 1 to 63 characters, at most 253 together?"""
    labels = name.removesuffix(".").split(".")
    return len(labels) > 1 and len(name) <= LONGEST_NAME + 1 and all(0 < len(label) <= 63 for label in labels)
