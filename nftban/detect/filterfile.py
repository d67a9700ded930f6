"""Filters in fail2ban's format, ready to match.

Takes a filter's name with its parameters as a jail writes it (`postfix[mode=aggressive]`) and the directories that
hold filter files, the admin's first; gives a `Filter`, or every fault found, each with file and line.
The first directory that holds NAME.conf gives it, the first that holds NAME.local overlays it.
Read: [INCLUDES], [DEFAULT], [Definition], [Init]; prefregex, failregex, ignoreregex, datepattern, maxlines, usedns,
journalmatch; mode, logtype and all other parameters.
Beyond fail2ban's tags our matcher knows <F-ONCE> (counts only where nothing of this session counted yet),
<F-MLFBEGIN> (a session begins), <F-SERVICE>, <F-DNSBL>, <F-CODE> (what the server's own DNSBL look-up gave);
fail2ban takes them for plain data, so such a filter still runs there.
Source: jail.conf(5), FILTERS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nftban.detect import datepattern, inifile
from nftban.detect.datepattern import DatePattern
from nftban.detect.expressions import compiled, screen, wording
from nftban.detect.inifile import Ini, Line, Malformed, Value, text_of
from nftban.errors import Fault

_SPEC = re.compile(r"\s*(?P<name>[\w][\w.+-]{0,100})\s*(?P<parameters>(?:\[.*\]\s*)*)$", re.DOTALL)
_PARAMETER = re.compile(
    r"""[\s,\[\]]*(?P<name>[\w./-]+)\s*=\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^,\]\n]*))""", re.DOTALL
)
# What a filter may say, all of it of one value with its lines.
OPTIONS = ("prefregex", "failregex", "ignoreregex", "maxlines", "datepattern", "usedns", "journalmatch")
MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression: its number in the list (from 1), compiled, where it was written, and some words of it.

    Equal is what was written in the same place, however it was compiled.
    """

    number: int
    pattern: re.Pattern[str] = field(compare=False)
    file: str
    line: int
    words: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter as matcher.Matcher takes it.

    spec: the name with parameters; file: the NAME.conf; words: any line that a rule matches contains one of them
    (empty: nothing of the kind is known); dates: the formats of the log's dates (empty: all that are known);
    maxlines: over how many lines an expression may reach; journalmatch: what the journal is asked for.
    """

    name: str
    spec: str
    file: str
    prefix: Rule | None
    rules: tuple[Rule, ...]
    ignore: tuple[Rule, ...]
    words: tuple[str, ...]
    dates: tuple[DatePattern, ...] = ()
    maxlines: int = 1
    journalmatch: tuple[str, ...] = ()


def available(directories: Sequence[Path]) -> dict[str, Path]:
    """Every filter that could be loaded: name to the file that gives it, sorted by name."""
    found: dict[str, Path] = {}
    for directory in directories:
        for file in sorted(directory.glob("*.conf")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def load(spec: str, directories: Sequence[Path], *, file: str = "", line: int = 0) -> Filter | tuple[Fault, ...]:
    """The filter `spec` names; `file` and `line` say where the spec itself was written, for faults about it."""
    found = definition(spec, directories, file=file, line=line)
    return found if isinstance(found, tuple) else _built(spec, found)


@dataclass(frozen=True, slots=True)
class Definition:
    """A filter's OPTIONS with everything put in, not yet compiled; those without a value are not there.

    journal: its lines come from the journal (`logtype=journal`), which says when they were written, and have no date.
    """

    name: str
    file: str
    options: dict[str, Value]
    journal: bool = False


def definition(
    spec: str, directories: Sequence[Path], *, file: str = "", line: int = 0
) -> Definition | tuple[Fault, ...]:
    """What the files say in the end, as `load` takes it."""
    origin = Line(spec, file or spec, line)
    try:
        name, parameters = _parsed_spec(spec, origin)
        files = _files(name, directories)
        if not files:
            searched = ", ".join(map(str, directories)) or "no directory"
            advice = f"`{name}.conf` must stand in one of them"
            return (Fault(origin.file, line, f"there is no filter `{name}` in {searched}", advice),)
        ini = inifile.read(files, directories, parameters=parameters, origin=origin)
    except Malformed as malformed:
        return (malformed.fault,)
    journal = parameters.get("logtype") == "journal"
    return ini if isinstance(ini, tuple) else _expanded(name, str(files[0]), ini, journal=journal)


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


def _expanded(name: str, file: str, ini: Ini, *, journal: bool) -> Definition | tuple[Fault, ...]:
    faults: list[Fault] = []
    options: dict[str, Value] = {}
    for option in OPTIONS:
        try:
            section = "Init" if option in ini.sections.get("Init", {}) else "Definition"
            value = ini.expanded(section, option, tags=("Init", "Definition")) or ()
        except Malformed as malformed:
            faults.append(malformed.fault)
            continue
        lines = tuple(each for each in value if each.text.strip())
        if lines:
            options[option] = lines
    return tuple(faults) or Definition(name, file, options, journal)


def _built(spec: str, defined: Definition) -> Filter | tuple[Fault, ...]:
    faults: list[Fault] = []
    value = defined.options.get
    maxlines = _maxlines(value("maxlines", ()), faults)
    names = text_of(value("usedns", ())).lower() != "no"
    several = maxlines > 1
    prefix = _rules(_joined(value("prefregex", ())), faults, names=names)
    rules = _rules(value("failregex", ()), faults, names=names, several=several)
    ignore = _rules(value("ignoreregex", ()), faults, names=names)
    dates = _dates(value("datepattern", ()), faults)
    if defined.journal:
        dates = datepattern.patterns("{NONE}")
    if not value("failregex") and not faults:
        faults.append(Fault(defined.file, 0, "the filter has no failregex", "write `failregex = ...` in [Definition]"))
    if faults:
        return tuple(faults)
    # What an expression over several lines needs may be in any of them.
    words = () if several else screen(rule.pattern for rule in rules)
    journal = tuple(line.text.strip() for line in value("journalmatch", ()))
    return Filter(
        defined.name, spec, defined.file, prefix[0] if prefix else None, rules, ignore, words, dates, maxlines, journal
    )


def _joined(value: Value) -> Value:
    """prefregex is one expression, however many lines it was written in."""
    if not value:
        return ()
    return (Line("\n".join(line.text for line in value), value[0].file, value[0].number),)


def _rules(value: Value, faults: list[Fault], *, names: bool = True, several: bool = False) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for number, line in enumerate(value, 1):
        text = line.text.strip()
        try:
            pattern = compiled(text, names=names, several=several)
            rules.append(Rule(number, pattern, line.file, line.number, wording(pattern)))
        except ValueError as error:
            shown = text if len(text) <= 100 else text[:100] + "..."
            faults.append(Fault(line.file, line.number, f"{error}; in {shown}", "mend the expression"))
    return tuple(rules)


def _maxlines(value: Value, faults: list[Fault]) -> int:
    text = text_of(value) or "1"
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_LINES:
        return int(text)
    at = value[0]
    faults.append(Fault(at.file, at.number, f"maxlines = {text[:40]!r}", f"write a number from 1 to {MAX_LINES}"))
    return 1


def _dates(value: Value, faults: list[Fault]) -> tuple[DatePattern, ...]:
    dates: list[DatePattern] = []
    for line in value:
        try:
            dates += datepattern.patterns(line.text)
        except ValueError as error:
            what = f"datepattern {line.text.strip()[:100]!r}: {error}"
            faults.append(Fault(line.file, line.number, what, "see jail.conf(5), datepattern; write % as %%"))
    return tuple(dict.fromkeys(dates))
