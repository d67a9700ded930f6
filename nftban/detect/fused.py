"""prefregex and one failregex as a single expression.

Takes the two; gives one that, searched in a line's content, matches exactly where the failregex matches what the
prefregex left, with the groups of both and `content`; or None where that cannot be had.
Exact, because: the prefregex begins with `^` and ends with `<F-CONTENT>.+</F-CONTENT>$`, so its first way to match
(held in an atomic group) fixes where the content begins, and the content ends where the line does; the failregex
begins with `^`, which is that place; nothing in it looks back over it.
Does not: hold for texts with a line break in them.
Source: the tree of Python's own re._parser.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable
from typing import Any

_parser: Any = importlib.import_module("re._parser")

_CONTENT = "(?P<content>.+)$"
_BY_NUMBER = re.compile(r"\\[1-9]|\(\?\(\d")
_BEHIND = "\x01"
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


def fused(prefix: re.Pattern[str], rule: re.Pattern[str]) -> re.Pattern[str] | None:
    """Both as one expression; None where it would not be exact."""
    head = head_of(prefix)
    if head is None or not goes_on(rule) or set(prefix.groupindex) & set(rule.groupindex):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(head + rule.pattern.removeprefix("^"))


def head_of(prefix: re.Pattern[str]) -> str | None:
    """What a prefregex is before a rule that `goes_on` and that has other groups; None where it cannot be."""
    if prefix.flags != re.UNICODE or _BY_NUMBER.search(prefix.pattern):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not _cuts(_parser.parse(prefix.pattern), prefix.pattern):
            return None
    return f"(?>{prefix.pattern.removesuffix(_CONTENT)}(?=.))(?P<content>)"


def goes_on(rule: re.Pattern[str]) -> bool:
    """Whether an expression matches at its beginning only and looks at nothing before it, so that without its `^` it
    is the same behind something else."""
    if rule.flags != re.UNICODE or _BY_NUMBER.search(rule.pattern):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _follows(rule.pattern)


def placed(pattern: re.Pattern[str]) -> re.Pattern[str] | None:
    """The expression for `match(text, position)` where it was for `search(text[position:])`; None where that would not
    be the same: it must begin with `^`, and look at nothing before it."""
    head = "(?>^" if pattern.pattern.startswith("(?>^") else "^"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if pattern.flags != re.UNICODE or not _follows(pattern.pattern.replace(head, "^" + head[:-1], 1)):
            return None
        return re.compile(pattern.pattern.replace(head, head[:-1], 1))


def _cuts(tree: Any, text: str) -> bool:
    """Does this begin at the line's beginning and take all that it leaves as content?"""
    if len(tree) < 3 or not text.endswith(_CONTENT):
        return False
    (first, what), (content, group), (last, end) = tree[0], tree[-2], tree[-1]
    if (str(first), str(what), str(last), str(end)) != ("AT", "AT_BEGINNING", "AT", "AT_END"):
        return False
    return str(content) == "SUBPATTERN" and [str(op) for op, _ in group[3]] == ["MAX_REPEAT"]


def _follows(text: str) -> bool:
    """Does this match at its `^` only, and look at nothing before it?"""
    tree = _parser.parse(text + _BEHIND)
    # The parser writes `^a|^b` as `^(?:a|b)`: only where what was put behind is the last item, there is no `|`.
    if not text.startswith("^") or str(tree[0][1]) != "AT_BEGINNING" or tree[-1][1] != ord(_BEHIND):
        return False
    return _looks_ahead_only(tree[1:], 0)


def _looks_ahead_only(items: Iterable[Any], taken: int) -> bool:
    """taken: characters that are matched at least before these."""
    for op, argument in items:
        name = str(op)
        inner: list[Any] = []
        if name == "AT":
            if str(argument).startswith("AT_BEGINNING") or (str(argument) != "AT_END" and taken < 1):
                return False
        elif name in ("ASSERT", "ASSERT_NOT"):
            direction, looked_at = argument
            if direction < 0 and looked_at.getwidth()[1] > taken:
                return False
            inner = [looked_at] if direction > 0 else []
        elif name == "SUBPATTERN":
            inner = [argument[3]]
        elif name == "ATOMIC_GROUP":
            inner = [argument]
        elif name in _REPEATS:
            inner = [argument[2]]
        elif name == "BRANCH":
            inner = argument[1]
        elif name == "GROUPREF_EXISTS":
            inner = [branch for branch in argument[1:] if branch is not None]
        if not all(_looks_ahead_only(each, taken) for each in inner):
            return False
        taken += _least(name, argument)
    return True


def _least(name: str, argument: Any) -> int:
    """How many characters an item takes at least."""
    if name in ("LITERAL", "NOT_LITERAL", "IN", "ANY", "CATEGORY", "RANGE"):
        return 1
    if name == "SUBPATTERN":
        return int(argument[3].getwidth()[0])
    if name == "ATOMIC_GROUP":
        return int(argument.getwidth()[0])
    if name in _REPEATS:
        return int(argument[0] * argument[2].getwidth()[0])
    if name == "BRANCH":
        return int(min(branch.getwidth()[0] for branch in argument[1]))
    return 0
