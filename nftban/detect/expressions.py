"""fail2ban's regular expressions as Python's.

Takes one line of failregex, ignoreregex or prefregex; gives the compiled expression, or raises ValueError with the
reason in words.  Rewrites the tags: `<HOST>`, `<ADDR>`, `<IP4>`, `<IP6>`, `<DNS>`, `<CIDR>`, `<SUBNET>`, their
self-closed forms `<F-IP4/>`, `<F-ID/>` ..., and `<F-NAME>...</F-NAME>` into the named group `name`.
Addresses are matched by shape only (bounded, without nested repeats): whether it is one, Prefix.parse says.
`screen` gives strings of which any matching line must contain one, so that most lines need no expression at all.
`<SKIPLINES>`, in expressions over several lines, matches the lines between two others.  The older inner flags
`((?i)x)` are turned into `(?i:x)`, which Python wants.
Source: jail.conf(5), FILTERS; Python's re.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable
from itertools import count
from typing import Any

_IP4 = r"(?:::[fF]{4}:)?(?P<ip4>\d{1,3}+\.\d{1,3}+\.\d{1,3}+\.\d{1,3}+)(?!\d)"
_IP6 = (
    r"(?P<ip6>[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){1,6}"
    r":(?:[0-9a-fA-F]{1,4}|\d{1,3}(?:\.\d{1,3}){3}|(?<=::)))(?:%[\w.-]{1,16})?"
)
_DNS = r"(?P<dns>[\w.^-]{0,254}\w)"
_CIDR = r"(?P<cidr>\d{1,3})"
_ADDR = rf"\[?(?:{_IP4}|{_IP6})\]?"
_TAGS = {
    "HOST": rf"(?:{_ADDR}|{_DNS})",
    "ADDR": _ADDR,
    "IP4": _IP4,
    "IP6": _IP6,
    "DNS": _DNS,
    "CIDR": _CIDR,
    "SUBNET": rf"\[?(?:{_IP4}|{_IP6})(?:/{_CIDR})?\]?",
}
_CLOSED = {"ID": r"(?P<fid>\S+)", "PORT": r"(?P<fport>\w+)"}
_NAMES = {"id": "fid", "port": "fport"}
_TAG = re.compile(r"<(/?)(F-)?([A-Z0-9_-]+)(/?)>")
_INNER_FLAGS = re.compile(r"(?<!\\)\((?:\?:)?\(\?([aiLmsux]+)\)")

# Groups that may hold the offender, in the order they are asked.
ADDRESSES = ("ip4", "ip6", "fid", "host")


def translated(expression: str, *, names: bool = True) -> str:
    """The expression with tags and old-style inner flags rewritten; names: whether `<HOST>` may be a host's name."""
    opened: set[str] = set()
    skips = count()

    def replaced(found: re.Match[str]) -> str:
        closing, custom, name, closed = found.groups()
        if name == "SKIPLINES":
            return rf"\n(?P<skiplines{next(skips)}>(?:(?:.*\n)*?))"
        if name == "HOST" and not names:
            name = "ADDR"
        if not custom:
            return _TAGS.get(name, found[0]) if not (closing or closed) else found[0]
        if closed:
            return _CLOSED.get(name) or _TAGS.get(name) or found[0]
        if closing:
            return ")" if name in opened else found[0]
        opened.add(name)
        group = name.lower().replace("-", "_")
        return f"(?P<{_NAMES.get(group, group)}>"

    return _INNER_FLAGS.sub(r"(?\1:", _TAG.sub(replaced, expression))


def compiled(expression: str, *, names: bool = True, several: bool = False) -> re.Pattern[str]:
    """The expression, ready to search; several: `^` and `$` are each line's.  ValueError says what is wrong with it."""
    text = translated(expression, names=names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(text, re.MULTILINE if several else re.NOFLAG)
    except re.error as error:
        where = f", at {text[error.pos : error.pos + 20]!r}" if error.pos is not None else ""
        raise ValueError(f"not a regular expression: {error.msg}{where}") from None
    except (OverflowError, RecursionError):
        raise ValueError("the regular expression is too large") from None


_parser: Any = importlib.import_module("re._parser")


def literals(pattern: re.Pattern[str]) -> list[tuple[str, ...]]:
    """Every known set of strings of which a match must contain at least one, each of three characters or more."""
    if pattern.flags & re.IGNORECASE:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _usable(_required(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)))


def wording(pattern: re.Pattern[str]) -> str:
    """The longest text that every match contains, to call the expression by; empty where there is none."""
    return max((texts[0].strip(" :<>[](=") for texts in literals(pattern) if len(texts) == 1), key=len, default="")


def screen(patterns: Iterable[re.Pattern[str]]) -> tuple[str, ...]:
    """Few strings of which a line must contain one to match any of the patterns; empty where there are none such."""
    choices = [literals(pattern) for pattern in patterns]
    if not all(choices):
        return ()
    words: list[str] = []
    # Who has the poorest best string chooses first: what it must take often serves the others too.
    for sets in sorted(choices, key=lambda sets: _worth(_best(sets))):
        if not any(all(any(word in text for word in words) for text in each) for each in sets):
            words += _best(sets)
    return tuple(sorted(word for word in set(words) if not any(other != word and other in word for other in words)))


def _best(sets: list[tuple[str, ...]]) -> tuple[str, ...]:
    return max(sets, key=_worth)


def _worth(texts: tuple[str, ...]) -> tuple[int, int]:
    return -len(texts), min(map(len, texts))


def _usable(sets: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    # `[]` is what is left of a cut-out date: it is in the content and not in the line.
    return [texts for texts in sets if min(map(len, texts)) >= 3 and not any("[]" in text for text in texts)]


def _required(parsed: Any) -> list[tuple[str, ...]]:
    """Each tuple: any match contains one of these."""
    out: list[tuple[str, ...]] = []
    run: list[str] = []

    def end_run() -> None:
        if run:
            out.append(("".join(run),))
            run.clear()

    def walk(items: Any) -> None:
        for op, argument in items:
            name = str(op)
            if name == "LITERAL":
                run.append(chr(argument))
            elif name in ("AT", "ASSERT", "ASSERT_NOT"):
                continue
            elif name == "ATOMIC_GROUP":
                walk(argument)
            elif name == "SUBPATTERN" and not argument[1] & re.IGNORECASE:
                walk(argument[3])
            elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
                end_run()
                if argument[0] >= 1:
                    walk(argument[2])
                    end_run()
            elif name == "BRANCH":
                end_run()
                branches = [_usable(_required(branch)) for branch in argument[1]]
                if all(branches):
                    out.append(tuple(dict.fromkeys(text for sets in branches for text in _best(sets))))
            else:
                end_run()

    walk(parsed)
    end_run()
    return out
