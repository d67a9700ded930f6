"""prefregex and several failregex of a filter as a single expression over bytes.

Takes the prefregex, or none, and rules; gives one expression for `match(data, position, end)` on a line of which the
date is behind, and which of the rules it is that matched: the first that would have, tried one after the other.
Exact, because: each of them matches at the line's beginning only, which fused.py has looked at; of
alternatives Python tries the next where the one before fails; on ASCII without the separators 0x1c to 0x1f, which are
white space in text and not in bytes, an expression that is ASCII itself matches the same in both.
None where that cannot be had: the rules are then to be tried one by one.
Source: Python's re, and the tree of its own re._parser.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from nftban.detect.fused import goes_on, head_of

_parser: Any = importlib.import_module("re._parser")

SEPARATORS = b"\x1c\x1d\x1e\x1f"

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<(?P<name>\w+)>|\(\?P=(?P<same>\w+)\)|\(\?\((?P<asked>\w+)\)", re.DOTALL
)


class Together(NamedTuple):
    """rules: by the match's `lastindex`, which of the rules (from 0) it is, with the number of each group by name;
    always: of each rule, the groups that take something in every match, those of the prefregex with them."""

    pattern: re.Pattern[bytes]
    rules: dict[int, tuple[int, dict[str, int]]]
    always: tuple[frozenset[str], ...]


_Joined = tuple[re.Pattern[bytes], dict[int, tuple[int, dict[str, int]]]]


def together(prefix: re.Pattern[str] | None, rules: Sequence[re.Pattern[str]]) -> Together | None:
    """All as one expression; None where it would not be exact."""
    head, of_head = "", set[str]()
    if prefix is not None:
        whole = head_of(prefix)
        if whole is None or not goes_on(re.compile("^" + whole.replace("(?>^", "(?>", 1))):
            return None
        head, of_head = whole.replace("(?>^", "(?>", 1), set(prefix.groupindex)
    if not rules or not all(goes_on(rule) and not of_head & set(rule.groupindex) for rule in rules):
        return None
    both = always(prefix) if prefix is not None else frozenset()
    found = _joined(head, of_head, rules)
    return None if found is None else Together(*found, tuple(both | always(rule) for rule in rules))


def always(pattern: re.Pattern[str]) -> frozenset[str]:
    """The names of groups that take at least a character in every match."""
    names = {number: name for name, number in pattern.groupindex.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return frozenset(_always(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE), names))


def _always(items: Iterable[Any], names: dict[int, str]) -> Iterator[str]:
    for op, argument in items:
        if str(op) == "SUBPATTERN":
            if argument[0] in names and argument[3].getwidth()[0] > 0:
                yield names[argument[0]]
            yield from _always(argument[3], names)
        elif str(op) == "ATOMIC_GROUP":
            yield from _always(argument, names)


def _joined(head: str, of_head: set[str], rules: Sequence[re.Pattern[str]]) -> _Joined | None:
    """`head(?:first()|second()|...)`: the empty group that ends a rule is the last to be closed where it matches."""
    alternatives = [_numbered(rule.pattern.removeprefix("^"), number) for number, rule in enumerate(rules)]
    text = head + "(?:" + "|".join(f"{each}()" for each in alternatives) + ")"
    if not text.isascii():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pattern = re.compile(text.encode())
            last = re.compile(head).groups
        except re.error:  # it has something that bytes have not
            return None
    found: dict[int, tuple[int, dict[str, int]]] = {}
    for number, rule in enumerate(rules):
        groups = {name: pattern.groupindex.get(name, 0) for name in of_head}
        groups |= {name: pattern.groupindex.get(_name(name, number), 0) for name in rule.groupindex}
        if any(groups[name] != index + last for name, index in rule.groupindex.items()):
            return None
        last += rule.groups + 1
        found[last] = number, groups
    return pattern, found


def _numbered(text: str, number: int) -> str:
    """With names of its own for its groups."""

    def replaced(found: re.Match[str]) -> str:
        name = found["name"] or found["same"] or found["asked"]
        return found[0].replace(name, _name(name, number)) if name else found[0]

    return _TOKEN.sub(replaced, text)


def _name(name: str, number: int) -> str:
    return f"{name}__{number}"
