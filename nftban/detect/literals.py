"""Texts that a line must contain for an expression to match it.

Takes a compiled expression; gives `Requirement`s, each of which holds for every match: one of a few texts occurs in
it, or the requirements of one of several branches hold.  `chosen` picks the requirement that costs least, by what the
caller knows about how often a text occurs.
Guarantees: necessary, never sufficient: whatever the expression matches contains what is required, letter for letter
(of `(?i)x` every case is listed, and those foreign letters that Python's re takes for one).  Texts have three
characters or more, none of them a control character.
Does not: know of lines, dates or filters.
Source: the tree of Python's own re._parser.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

SHORTEST = 3
LONGEST = 40
_VARIANTS = 16  # of one stretch of text, by classes, branches and case
_CLASS = 4  # characters of a class that are spelled out

_parser: Any = importlib.import_module("re._parser")

# Beyond upper and lower case, what re.IGNORECASE takes for the same letter (re._casefix, the ASCII part of it).
_ALIKE = {"i": "\u0130\u0131", "k": "\u212a", "s": "\u017f"}

Texts = tuple[str, ...]
Cost = Callable[[str], float]
Survivors = Callable[[str], tuple[Texts, ...]]
"""What is left of a text in the line if a date may have been cut out of its middle before the expression was tried:
of each tuple one text is in the line."""

_WORD = re.compile(r"\W?\w+|\W")


def whole(text: str) -> tuple[Texts, ...]:
    """Nothing is cut out."""
    return ((text,),)


def words(text: str) -> tuple[Texts, ...]:
    """What is cut out is never followed by a letter or digit: each word, with the sign before it, stays whole."""
    return tuple((part,) for part in _WORD.findall(text) if len(part) >= SHORTEST)


def halves(text: str) -> tuple[Texts, ...]:
    """Wherever it is cut once, one of the two halves stays whole."""
    middle = len(text) // 2
    return ((text[:middle], text[middle:]),) if middle >= SHORTEST else ()


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of `texts` is in every match; or, where there are `branches`, for one of them all its requirements hold."""

    texts: Texts = ()
    branches: tuple[tuple[Requirement, ...], ...] = ()


def requirements(pattern: re.Pattern[str]) -> tuple[Requirement, ...]:
    """All that is known of the expression's matches; empty where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _required(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE), pattern.flags)


def chosen(
    required: Iterable[Requirement], cost: Cost, survivors: Survivors = whole
) -> dict[str, frozenset[str]] | None:
    """The texts of which one is in every line that matches, so that their costs add up to the least, each with the
    whole texts of which it is what is left; None where nothing is required."""
    best: tuple[float, dict[str, frozenset[str]]] | None = None
    for each in required:
        if each.branches:
            alternatives = [chosen(branch, cost, survivors) for branch in each.branches]
        else:
            alternatives = [_cheapest(text, survivors(text), cost) for text in each.texts]
        texts: dict[str, frozenset[str]] = {}
        for those in alternatives:
            for text, wholes in (those or {}).items():
                texts[text] = texts.get(text, frozenset()) | wholes
        if all(alternatives):
            total = sum(map(cost, texts))
            if best is None or total < best[0]:
                best = total, texts
    return best[1] if best else None


def _cheapest(text: str, sets: tuple[Texts, ...], cost: Cost) -> dict[str, frozenset[str]] | None:
    best = min(sets, key=lambda texts: sum(map(cost, texts)), default=None)
    return None if best is None else dict.fromkeys(best, frozenset((text,)))


def _required(items: Iterable[Any], flags: int) -> tuple[Requirement, ...]:
    walk = _Walk()
    walk.sequence(items, flags)
    walk.end_run()
    return tuple(walk.found)


class _Walk:
    """Along a sequence: `run` is every text that the stretch since the last gap may be."""

    def __init__(self) -> None:
        self.found: list[Requirement] = []
        self.run: list[str] = [""]

    def end_run(self) -> None:
        if all(len(text) >= SHORTEST for text in self.run):
            # A text that holds another one is told by that.
            shortest = [t for t in self.run if not any(o != t and o in t for o in self.run)]
            self.found.append(Requirement(tuple(dict.fromkeys(text[-LONGEST:] for text in shortest))))
        self.run = [""]

    def extend(self, texts: list[str]) -> None:
        """The run goes on with one of these."""
        if len(self.run) * len(texts) > _VARIANTS:
            self.end_run()
        self.run = [before + text for before, text in product(self.run, texts)]

    def sequence(self, items: Iterable[Any], flags: int) -> None:
        for op, argument in items:
            texts = _spelled(str(op), argument, flags)
            if texts is not None:
                self.extend(texts)
            else:
                self.item(str(op), argument, flags)

    def item(self, op: str, argument: Any, flags: int) -> None:
        if op == "SUBPATTERN":
            self.sequence(argument[3], (flags | argument[1]) & ~argument[2])
        elif op == "ATOMIC_GROUP":
            self.sequence(argument, flags)
        elif op in ("ASSERT", "ASSERT_NOT", "AT"):
            # What is looked at is in the line too, but beside the run, not in it.
            if op == "ASSERT":
                self.found += _required(argument[1], flags)
        elif op == "BRANCH":
            self.branches(argument[1], flags)
        elif op == "GROUPREF_EXISTS":
            self.branches(argument[1:], flags)
        else:
            self.end_run()
            if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and argument[0] >= 1:
                self.sequence(argument[2], flags)
                self.end_run()

    def branches(self, branches: Iterable[Any], flags: int) -> None:
        self.end_run()
        each = tuple(_required(branch or (), flags) for branch in branches)
        if all(each):
            self.found.append(Requirement(branches=each))


def _spelled(op: str, argument: Any, flags: int) -> list[str] | None:
    """Every text that this item may match, where they are few; None where they are not."""
    if op == "LITERAL":
        return _cases(chr(argument), flags)
    if op == "IN":
        letters = _letters(argument)
        if letters is None:
            return None
        texts = list(dict.fromkeys(case for letter in letters for case in _cases(letter, flags) or (letter,)))
        return None if any(_cases(letter, flags) is None for letter in letters) else texts
    if op == "BRANCH":
        spelled = [_spelled_all(branch, flags) for branch in argument[1]]
        texts = [text for each in spelled if each for text in each]
        return list(dict.fromkeys(texts)) if all(spelled) and len(texts) <= _VARIANTS else None
    if op == "SUBPATTERN":
        return _spelled_all(argument[3], (flags | argument[1]) & ~argument[2])
    return None


def _spelled_all(items: Iterable[Any], flags: int) -> list[str] | None:
    out = [""]
    for op, argument in items:
        texts = _spelled(str(op), argument, flags)
        if texts is None or len(out) * len(texts) > _VARIANTS:
            return None
        out = [before + text for before, text in product(out, texts)]
    return out


def _letters(members: Iterable[Any]) -> list[str] | None:
    out: list[str] = []
    for op, argument in members:
        if str(op) == "LITERAL":
            out.append(chr(argument))
        elif str(op) == "RANGE" and argument[1] - argument[0] < _CLASS:
            out += map(chr, range(argument[0], argument[1] + 1))
        else:
            return None
    return out if len(out) <= _CLASS else None


def _cases(letter: str, flags: int) -> list[str] | None:
    if _is_control(letter):
        return None
    if not flags & re.IGNORECASE:
        return [letter]
    if not letter.isascii():
        return None
    small = letter.lower()
    return list(dict.fromkeys((small, letter.upper(), *_ALIKE.get(small, ""))))


def _is_control(letter: str) -> bool:
    return ord(letter) < 32 or letter == "\x7f" or "\ud800" <= letter <= "\udfff" or letter == "\ufffd"
