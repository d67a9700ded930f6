"""Filters in fail2ban's format, ready to match.

Takes a filter's name with its parameters as a jail writes it (`postfix[mode=aggressive]`) and the directories that
hold filter files, the admin's first; gives a `Filter`, or every fault found, each with file and line.
The first directory that holds NAME.conf gives it, the first that holds NAME.local overlays it.
Read: [INCLUDES], [DEFAULT], [Definition], [Init]; prefregex, failregex, ignoreregex; mode and all other parameters.
Refused with a fault: maxlines above 1, <SKIPLINES>, a datepattern of its own.  Options that only concern where the
lines come from (journalmatch) are not read here.
Beyond fail2ban's tags our matcher knows <F-ONCE> (counts only where nothing of this session counted yet),
<F-MLFBEGIN> (a session begins), <F-SERVICE>, <F-DNSBL>, <F-CODE> (what the server's own DNSBL look-up gave);
fail2ban takes them for plain data, so such a filter still runs there.
Source: jail.conf(5), FILTERS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nftban.detect import inifile
from nftban.detect.expressions import Unsupported, compiled, screen, wording
from nftban.detect.inifile import Ini, Line, Malformed, Value
from nftban.errors import Fault

_SPEC = re.compile(r"\s*(?P<name>[\w][\w.+-]{0,100})\s*(?P<parameters>(?:\[.*\]\s*)*)$", re.DOTALL)
_PARAMETER = re.compile(
    r"""[\s,\[\]]*(?P<name>[\w./-]+)\s*=\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^,\]\n]*))""", re.DOTALL
)
_TRIVIAL_DATES = ("", "{^LN-BEG}", "{LN-BEG}", "^{LN-BEG}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression: its number in the list (from 1), compiled, where it was written, and some words of it."""

    number: int
    pattern: re.Pattern[str]
    file: str
    line: int
    words: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as matcher.Matcher takes it.

    spec: the name with parameters; file: the NAME.conf; words: any line that a rule matches contains one of them
    (empty: nothing of the kind is known).
    """

    name: str
    spec: str
    file: str
    prefix: Rule | None
    rules: tuple[Rule, ...]
    ignore: tuple[Rule, ...]
    words: tuple[str, ...]


def available(directories: Sequence[Path]) -> dict[str, Path]:
    """Every filter that could be loaded: name to the file that gives it, sorted by name."""
    found: dict[str, Path] = {}
    for directory in directories:
        for file in sorted(directory.glob("*.conf")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def load(spec: str, directories: Sequence[Path], *, file: str = "", line: int = 0) -> Filter | tuple[Fault, ...]:
    """The filter `spec` names; `file` and `line` say where the spec itself was written, for faults about it."""
    origin = Line(spec, file or spec, line)
    try:
        name, parameters = _parsed_spec(spec, origin)
        files = _files(name, directories)
        if not files:
            searched = ", ".join(map(str, directories)) or "no directory"
            advice = f"`{name}.conf` must stand in one of them"
            return (Fault(origin.file, line, f"there is no filter `{name}` in {searched}", advice),)
        ini = inifile.read(files, directories, parameters=parameters, origin=origin)
        return ini if isinstance(ini, tuple) else _built(name, spec, str(files[0]), ini)
    except Malformed as malformed:
        return (malformed.fault,)


def _parsed_spec(spec: str, origin: Line) -> tuple[str, dict[str, str]]:
    found = _SPEC.match(spec)
    parameters: dict[str, str] = {}
    rest = found["parameters"] if found else ""
    position = 0
    while each := _PARAMETER.match(rest, position):
        value = next((v for v in each.group("double", "single") if v is not None), (each["bare"] or "").strip())
        parameters[each["name"]] = value
        position = each.end()
    if found is None or rest[position:].strip("[], \t\n"):
        what = f"{spec!r} is not a filter's name with parameters"
        raise Malformed(Fault(origin.file, origin.number, what, "write it like `postfix[mode=aggressive]`"))
    return found["name"], parameters


def _files(name: str, directories: Sequence[Path]) -> list[Path]:
    out: list[Path] = []
    for ending in (".conf", ".local"):
        out += [path for d in directories if (path := d / (name + ending)).is_file()][:1]
    return out


def _built(name: str, spec: str, file: str, ini: Ini) -> Filter | tuple[Fault, ...]:
    faults: list[Fault] = []

    def expanded(option: str) -> Value:
        try:
            section = "Init" if option in ini.sections.get("Init", {}) else "Definition"
            value = ini.expanded(section, option, tags=("Init", "Definition"))
        except Malformed as malformed:
            faults.append(malformed.fault)
            return ()
        return tuple(each for each in value or () if each.text.strip())

    faults += _unsupported(expanded("maxlines"), expanded("datepattern"))
    prefix = _rules(_joined(expanded("prefregex")), faults)
    failregex = expanded("failregex")
    rules = _rules(failregex, faults)
    ignore = _rules(expanded("ignoreregex"), faults)
    if not failregex and not faults:
        faults.append(Fault(file, 0, "the filter has no failregex", "write `failregex = ...` in [Definition]"))
    if faults:
        return tuple(faults)
    words = screen(rule.pattern for rule in rules)
    return Filter(name, spec, file, prefix[0] if prefix else None, rules, ignore, words)


def _joined(value: Value) -> Value:
    """prefregex is one expression, however many lines it was written in."""
    if not value:
        return ()
    return (Line("\n".join(line.text for line in value), value[0].file, value[0].number),)


def _rules(value: Value, faults: list[Fault]) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for number, line in enumerate(value, 1):
        text = line.text.strip()
        try:
            pattern = compiled(text)
            rules.append(Rule(number, pattern, line.file, line.number, wording(pattern)))
        except Unsupported as error:
            faults.append(Fault(line.file, line.number, str(error), "leave this filter out, or write it line by line"))
        except ValueError as error:
            shown = text if len(text) <= 100 else text[:100] + "..."
            faults.append(Fault(line.file, line.number, f"{error}; in {shown}", "mend the expression"))
    return tuple(rules)


def _unsupported(maxlines: Value, datepattern: Value) -> list[Fault]:
    faults = [
        Fault(
            line.file,
            line.number,
            f"maxlines = {line.text.strip()}: matching over several lines is not supported yet",
            "leave this filter out, or write expressions for single lines",
        )
        for line in maxlines
        if line.text.strip() != "1"
    ]
    faults += [
        Fault(
            line.file,
            line.number,
            f"datepattern {line.text.strip()!r} is not supported yet",
            "leave it out: syslog, ISO 8601 and epoch dates at the start of a line are found without it",
        )
        for line in datepattern
        if line.text.strip() not in _TRIVIAL_DATES
    ]
    return faults
