"""fail2ban's `datepattern` as regular expressions.

Takes one pattern as a filter has it (after `%%` became `%`); gives `DatePattern`s in the order in which they are to be
tried, or raises ValueError in words.  Knows strptime's tags, fail2ban's own (`%k %l %ExY %Exy %Exm ... %Exz`), the
words `EPOCH`, `LEPOCH`, `TAI64N`, `{NONE}`, `{DEFAULT}`, `{DATE}` inside a pattern, and the anchors `{^LN-BEG}`,
`{UNB}` and `**`.  Month and day names are English, whatever the locale.
What is cut out of the line is group 1 of the expression; where the pattern has no group of its own, that is all of it
but what an anchor skips.
`DEFAULTS` are the formats looked for where a filter names none, each at the beginning of the line before any
somewhere in it.
Does not: turn a match into a time (timestamps.py).
Source: jail.conf(5), datepattern; strptime(3).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_ABBREVIATION = "[A-Z](?:[A-Z]{2,4})?"
_OFFSET = r"[+-][01]\d(?::?\d{2})?"
_CENTURY = r"(?:199|20\d)\d"


def _either(names: tuple[str, ...], length: int | None = None) -> str:
    return "|".join(name[:length] for name in names)


_TAGS = {
    "a": f"(?P<a>{_either(DAYS, 3)})",
    "A": f"(?P<A>{_either(DAYS)})",
    "b": f"(?P<b>{_either(MONTHS, 3)})",
    "B": f"(?P<B>{_either(MONTHS)})",
    "d": r"(?P<d>[1-2]\d|[0 ]?[1-9]|3[0-1])",
    "f": r"(?P<f>\d{1,9})",
    "H": r"(?P<H>[0-1]?\d|2[0-3])",
    "I": r"(?P<I>1[0-2]|0?[1-9])",
    "j": r"(?P<j>36[0-6]|3[0-5]\d|[1-2]\d\d|0?[1-9]\d|0{0,2}[1-9])",
    "k": r" ?(?P<H>[0-2]?\d)",
    "l": r" ?(?P<I>1?\d)",
    "m": "(?P<m>0?[1-9]|1[0-2])",
    "M": r"(?P<M>[0-5]?\d)",
    "p": "(?P<p>AM|PM)",
    "S": r"(?P<S>[0-5]?\d|6[0-1])",
    "U": r"(?P<U>5[0-3]|[0-4]?\d)",
    "w": "(?P<w>[0-6])",
    "W": r"(?P<W>5[0-3]|[0-4]?\d)",
    "y": r"(?P<y>\d{2})",
    "Y": r"(?P<Y>\d{4})",
    "z": f"(?P<z>Z|UTC|GMT|{_OFFSET})",
    "Z": "(?P<Z>Z|[A-Z]{3,5})",
    "Exd": r"(?P<d>[1-2]\d|0[1-9]|3[0-1])",
    "ExH": r"(?P<H>[0-1]\d|2[0-3])",
    "Exk": r" ?(?P<H>[0-1]?\d|2[0-3])",
    "Exl": r" ?(?P<I>1[0-2]|\d)",
    "Exm": "(?P<m>0[1-9]|1[0-2])",
    "ExM": r"(?P<M>[0-5]\d)",
    "ExS": r"(?P<S>[0-5]\d|6[0-1])",
    "ExY": f"(?P<Y>{_CENTURY})",
    "Exy": r"(?P<y>\d{2})",
    "Exz": f"(?P<z>(?:{_ABBREVIATION})?{_OFFSET}|{_ABBREVIATION})",
    "ExZ": f"(?P<Z>{_ABBREVIATION})",
    "%": "%",
}
# What these mean in the C locale.
_COMPOSED = {"c": "%a %b %d %H:%M:%S %Y", "x": "%m/%d/%y", "X": "%H:%M:%S", "D": "%m/%d/%y", "T": "%H:%M:%S"}
_TAG = re.compile(r"%(Ex[a-zA-Z]|.|$)", re.DOTALL)
_NAMES = re.compile(r"%[aAbBpc]")
_EPOCH = re.compile(r"(?<!\\)\{(L?)EPOCH\}", re.IGNORECASE)
_DATE = re.compile(r"(?<!\\)\{DATE\}", re.IGNORECASE)
_WORD = re.compile(r"(?P<begin>\{\^LN-BEG\}|\^)?(?P<word>L?EPOCH|TAI64N)$", re.IGNORECASE)
_FLAGS = re.compile(r"^\(\?([a-z]+)\)")
_GROUPED = re.compile(r"(?<!\\)\((?!\?)")
# A pattern that says itself where it begins or ends gets no word boundary.
_BOUND_BEGIN = re.compile(r"\(*(?:\(\?\w+\))?(?:\^|\(*\*\*|\((?:\?:)?\^)")
_BOUND_END = re.compile(r"(?<!\\)(?:\$\)?|\\b|\\s|\*\*\)*)$")
_LINE_BEGIN = re.compile(r"(?:\^|\((?:\?:)?\^(?!\|))")
_LINE_END = re.compile(r"(?<![\\|])\$\)?$")
_SECONDS = {"EPOCH": r"\d{10}\b(?:\.\d{1,9})?", "LEPOCH": r"\d{10}(?:\d{3}(?:\.\d{1,6}|\d{3})?)?"}

_DEFAULTS = (
    # 2005-01-23T21:59:59.981746+01:00, 2005/01/23 21:59:59, 2006.12.21 06:43:20
    r"%ExY(?P<_sep>[-/.])%m(?P=_sep)%d(?:T|  ?)%H:%M:%S(?:[.,]%f)?(?:\s*%z)?",
    # Sun Jan 23 21:59:59.011 2005.  (What begins with such a number may also be the host's address.)
    r"(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY(?![:.\d-]))?",
    # Sun Jan 23 2005 21:59:59.011
    r"(?:%a )?%b %d %ExY %k:%M:%S(?:\.%f)?",
    # 23/01/2005 21:59:59, 23-01-05 21:59:59
    r"%d(?P<_sep>[-/])%m(?P=_sep)(?:%ExY|%Exy) %k:%M:%S",
    # 31/Oct/2006:09:22:55 -0000, 26-Jul-2007 15:20:52.252
    r"%d(?P<_sep>[-/])%b(?P=_sep)%ExY[ :]?%H:%M:%S(?:\.%f)?(?: %z)?",
    # 05/20/2008:01:57:39
    r"%m/%d/%ExY:%H:%M:%S",
    # 01-27-2012 16:22:44.252
    r"%m-%d-%ExY %k:%M:%S(?:\.%f)?",
    "EPOCH",
    # 21:59:59
    r"{^LN-BEG}%H:%M:%S",
    # <09/16/08@05:03:30>
    r"^<%m/%d/%Exy@%H:%M:%S>",
    # 130322 11:46:11
    r"%Exy%Exm%Exd  ?%H:%M:%S",
    # Feb 03, 2013 10:02:33 AM
    r"%b %d, %ExY %I:%M:%S %p",
    # Apr-27-13 02:33:06
    r"^%b-%d-%Exy %k:%M:%S",
    # 20050123T215959
    r"%ExY%Exm%Exd(?:T|  ?)%ExH%ExM%ExS(?:[.,]%f)?(?:\s*%z)?",
    # PDT Apr 16 21:05:29
    r"(?:%Z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY(?![:.\d-]))?",
    # +00:00 Jan 23 21:59:59.011 2005
    r"(?:%z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY(?![:.\d-]))?",
    "TAI64N",
)


@dataclass(frozen=True, slots=True)
class DatePattern:
    """regex: to be searched, group 1 is the date; anchored: it matches at the line's beginning or end only;
    kind: "fields" (the groups are strptime's letters), "epoch" (group `epoch`) or "tai64n".  Where group 1 is empty,
    the line has no date and none is looked for."""

    regex: re.Pattern[str]
    anchored: bool
    kind: str


def patterns(text: str) -> tuple[DatePattern, ...]:
    """What one line of `datepattern` means, in order of trial; raises ValueError."""
    text = text.strip()
    word = text.upper()
    if word == "{DEFAULT}":
        return defaults()
    if word == "{^LN-BEG}":
        return tuple(each for each in defaults() if each.anchored)
    if word == "{NONE}":
        return (DatePattern(re.compile("^()"), anchored=True, kind="fields"),)
    if _DATE.search(text):
        # The words EPOCH and TAI64N are no part of what {DATE} stands for.
        parts = _DATE.split(text)
        return tuple(_one(_unbound(each).join(parts)) for each in _DEFAULTS if not _WORD.match(each))
    return (_one(text),)


@cache
def defaults() -> tuple[DatePattern, ...]:
    """The formats looked for where a filter names none."""
    begin = [_one(text if text.startswith(("^", "{")) else "{^LN-BEG}" + text) for text in _DEFAULTS]
    return (*begin, *(_one(text) for text in _DEFAULTS if not text.startswith(("^", "{"))))


def _unbound(text: str) -> str:
    return text.removeprefix("{^LN-BEG}").removeprefix("^")


@cache
def _one(text: str) -> DatePattern:
    found = _WORD.match(text)
    if found:
        return _word(found["word"].upper(), begin=bool(found["begin"]))
    kind = "fields"
    epoch = _EPOCH.search(text)
    if epoch:
        # Here all that matched is cut out, not only the number.
        kind, seconds = "epoch", _SECONDS[epoch[1].upper() + "EPOCH"]
        text = _EPOCH.sub(lambda _: f"(?P<epoch>{seconds})", text, count=1)
        head = "{^LN-BEG}" if text.startswith("{^LN-BEG}") else ""
        text = f"{head}({text.removeprefix(head)})"
    ignore_case = re.IGNORECASE if _NAMES.search(text.replace("%%", "")) else re.NOFLAG
    begin: str | None = "word"
    end = True
    if text.startswith("{UNB}"):
        text, begin, end = text.removeprefix("{UNB}"), None, False
    elif text.startswith("{^LN-BEG}"):
        text, begin = text.removeprefix("{^LN-BEG}"), "line"
    regex, anchored = _bound(_expanded(text).strip(), begin, end)
    return DatePattern(_compiled(regex, ignore_case), anchored, kind)


def _expanded(text: str) -> str:
    def tag(found: re.Match[str]) -> str:
        letter = found[1]
        if letter in _COMPOSED:
            return _expanded(_COMPOSED[letter])
        if letter not in _TAGS:
            raise ValueError(f"`%{letter}` is no tag of a date")
        return _TAGS[letter]

    return _TAG.sub(tag, text)


def _bound(regex: str, begin: str | None, end: bool) -> tuple[str, bool]:
    """The expression with its date in group 1 and a boundary on both sides, and whether it is anchored."""
    flags = _FLAGS.match(regex)
    if flags:
        regex = regex[flags.end() :]
    bound_begin = begin is not None and not _BOUND_BEGIN.match(regex)
    bound_end = end and not _BOUND_END.search(regex)
    if not _GROUPED.search(regex):
        start, stop = regex.startswith("^"), regex.endswith("$") and not regex.endswith("\\$")
        inner = regex[start : len(regex) - stop]
        regex = f"{'^' * start}({inner}){'$' * stop}"
    if bound_begin:
        regex = (r"^(?:\W{0,2})?" if begin == "line" else r"(?=^|\b|\W)") + regex
    if bound_end:
        regex += r"(?=\b|\W|$)"
    anchored = bool(_LINE_BEGIN.match(regex) or _LINE_END.search(regex))
    regex = re.sub(r"^\(*\*\*|(?<!\\)\*\*\)*(?:\(\?=\\b\|\\W\|\$\))?$", lambda m: m[0].replace("**", ""), regex)
    return (flags[0] if flags else "") + regex, anchored


def _compiled(regex: str, flags: re.RegexFlag) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(regex, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None


def _word(word: str, *, begin: bool) -> DatePattern:
    if word == "TAI64N":
        head, tail = (r"^(?:\W{0,2})?", r"(?=\b|\W|$)") if begin else ("", r"(?=\b|\W|$)")
        return DatePattern(re.compile(f"{head}(@[0-9a-f]{{24}}){tail}"), begin, "tai64n")
    number = f"(?P<epoch>{_SECONDS[word]})"
    if begin:
        regex = rf"^(?:\W{{0,2}})?((?P<square>(?<=^\[))?{number})(?(square)(?=\]))(?=\b|\W|$)"
    else:
        # At the beginning, in brackets there, or as the kernel's audit log has it.
        regex = (
            rf"((?:^|(?P<square>(?<=^\[))|(?P<selinux>(?<=\baudit\()))\b{number})"
            r"(?:(?(selinux)(?=:\d+\)))|(?(square)(?=\])))(?=\b|\W|$)"
        )
    return DatePattern(re.compile(regex), begin, "epoch")
