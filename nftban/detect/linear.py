"""Whether an expression can match a text at all, answered in time linear in the text.

Takes a compiled expression of Python's; gives a weaker one for RE2, which never backtracks: whatever the first matches
the second matches too, and what the second does not match need not be tried.  What RE2 has not (assertions,
references to groups, counts above a few) is left out or widened; classes are widened to all of Unicode beyond ASCII.
Asked only for expressions that have taken too long once: on ordinary lines Python's engine is ten times faster.
Guarantees: no text raises.  Does not: find groups, or where a match begins.
See docs/decisions/linear-time.md.  Source: RE2's syntax; the tree that Python's own parser makes.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import re2

Possible = Callable[[str], bool]

_COUNTED = 8
_WIDE = r"\x{80}-\x{10ffff}"
# A class of Python's in characters of RE2's: more than it, or in a negated set less than it.
_MORE = {
    "CATEGORY_DIGIT": r"\d" + _WIDE,
    "CATEGORY_SPACE": r"\s\x{b}\x{1c}-\x{1f}" + _WIDE,
    "CATEGORY_WORD": r"\w" + _WIDE,
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_NOT_WORD": r"\W",
}
_LESS = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_DIGIT": r"\x{0}-/:-\x{7f}",
    "CATEGORY_NOT_SPACE": "!-~",
    "CATEGORY_NOT_WORD": r"\x{0}-/:-@\x{5b}-\x{5e}\x{60}\x{7b}-\x{7f}",
}
_PLACES = {"AT_BEGINNING": r"\A", "AT_BEGINNING_STRING": r"\A", "AT_END": "(?m:$)", "AT_END_STRING": r"\z"}

_parser: Any = importlib.import_module("re._parser")


def guard(pattern: re.Pattern[str]) -> Possible | None:
    """Says of a text whether the expression may match it; None where RE2 cannot be asked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
        options = re2.Options()
        options.log_errors = False
        options.case_sensitive = not pattern.flags & re.IGNORECASE
        weaker = re2.compile(_weaker(tree, several=bool(pattern.flags & re.MULTILINE)), options)
    except (re2.error, ValueError, RecursionError):
        return None

    def possible(text: str) -> bool:
        try:
            return weaker.search(text) is not None
        except UnicodeEncodeError:
            return True

    return possible


def _weaker(items: Any, *, several: bool) -> str:
    return "".join(_one(str(op), argument, several=several) for op, argument in items)


def _one(name: str, argument: Any, *, several: bool) -> str:
    def inner(items: Any) -> str:
        return _weaker(items, several=several)

    match name:
        case "LITERAL":
            return _character(argument)
        case "NOT_LITERAL":
            return f"[^{_character(argument)}]"
        case "ANY":
            return "(?s:.)"
        case "IN":
            return _set(argument)
        case "AT":
            return "(?m:^)" if several and str(argument) == "AT_BEGINNING" else _PLACES.get(str(argument), "")
        case "ASSERT" | "ASSERT_NOT":
            return ""
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return f"(?:{inner(argument[2])}){_count(int(argument[0]), int(argument[1]))}"
        case "SUBPATTERN":
            _, added, removed, body = argument
            flag = "i" if added & re.IGNORECASE else "-i" if removed & re.IGNORECASE else ""
            return f"(?{flag}:{inner(body)})"
        case "ATOMIC_GROUP":
            return f"(?:{inner(argument)})"
        case "BRANCH":
            return f"(?:{'|'.join(map(inner, argument[1]))})"
        case "GROUPREF":
            return "(?s:.*)"
        case "GROUPREF_EXISTS":
            return f"(?:{inner(argument[1])}|{inner(argument[2] or ())})"
    raise ValueError(f"nothing is known of {name}")


def _count(low: int, high: int) -> str:
    if high <= _COUNTED:
        return f"{{{low},{high}}}"
    return f"{{{low},}}" if low <= _COUNTED else "+"


def _set(items: Any) -> str:
    negated = str(items[0][0]) == "NEGATE"
    out = "".join(_member(str(op), argument, _LESS if negated else _MORE) for op, argument in items[negated:])
    return f"[{'^' * negated}{out}]"


def _member(name: str, argument: Any, classes: dict[str, str]) -> str:
    match name:
        case "LITERAL":
            return _character(argument)
        case "RANGE":
            return f"{_character(argument[0])}-{_character(argument[1])}"
        case "CATEGORY":
            return classes[str(argument)]
    raise ValueError(f"nothing is known of {name}")


def _character(code: int) -> str:
    return f"\\x{{{code:x}}}"
