"""Every annotated line of fail2ban's own test logs means to us what its annotation says.

A log is `tests/files/logs/NAME`.  `# failJSON: {...}` annotates the next line: whether it matches, and the host, time
and user; a line without one must not match.  `# filterOptions:` names the parameters (a list: each line once for each)
of the filter from there on, `# addFILE:` one more log.  One filter instance lives per set of parameters.
What differs, and why, is the table in docs/fail2ban-compatibility.md: an entry must be true.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.records import LogLine, Offence

NOW = 1124013600.0
DOCUMENT = Path(__file__).parents[2] / "docs" / "fail2ban-compatibility.md"
NOTE = re.compile(r"^#+ ?(failJSON|(?:file|filter)Options|addFILE):(.+)$")


@dataclass(frozen=True)
class Case:
    """One line under one set of parameters."""

    name: str
    options: tuple[tuple[str, str], ...]
    place: str
    line: str
    note: dict[str, Any]
    journal: bool

    @property
    def spec(self) -> str:
        parameters = ", ".join(f"{name}={value}" for name, value in self.options)
        return f"{self.name}[{parameters}]" if parameters else self.name


def holds(condition: str | None, name: str, options: dict[str, str]) -> bool:
    """`name=='sshd'`, `opts.get('mode') != 'aggressive'`: the conditions that the annotations use."""
    if not condition:
        return True
    found = re.fullmatch(r"\s*(?:(name)|opts\.get\('([\w.]+)'\))\s*([!=]=)\s*'([^']*)'\s*", condition)
    assert found, condition
    value = name if found[1] else options.get(found[2])
    return (value == found[4]) == (found[3] == "==")


def cases(name: str, logs: Path) -> Iterator[Case]:
    files, common, sets = [name], {}, [{}]  # type: ignore[var-annotated]
    for file in files:
        ignored = False
        lines = enumerate((logs / file).read_text(encoding="utf-8", errors="surrogateescape").split("\n"), 1)
        for number, line in lines:
            note: dict[str, Any] = {}
            annotation = NOTE.match(line)
            if annotation:
                value = json.loads(annotation[2])
                if annotation[1] == "fileOptions":
                    common = value
                    continue
                if annotation[1] == "addFILE":
                    files.append(value)
                    continue
                if annotation[1] == "filterOptions":
                    sets, ignored = [], False
                    for each in value if isinstance(value, list) else [value]:
                        options = {**common, **each}
                        if "test.condition" in options:
                            ignored = not holds(options["test.condition"], name, options)
                        if not ignored:
                            sets.append(options)
                    continue
                note = value
                number, line = next(lines)
            elif line.startswith("#") or not line.strip():
                continue
            if ignored:
                continue
            for options in sets:
                if holds(note.get("constraint"), name, options):
                    journal = options.get("logtype") == "journal"
                    parameters = tuple((k, v) for k, v in options.items() if not k.startswith("test."))
                    text = options.get("test.prefix-line", "") * journal + line.rstrip("\r")
                    yield Case(name, parameters, f"{file}:{number}", text, note, journal)


def told(matcher: Matcher, case: Case) -> dict[str, Any]:
    """What we make of the line, in the words of an annotation.

    A date with a year after NOW is read then: what lies in the future is not believed.
    """
    unresolved = matcher.counts.unresolved
    result = matcher.match(LogLine("log", case.line), max(NOW, moment(case.note) or 0))
    if isinstance(result, Offence):
        facts = dict(result.facts)
        return {"match": True, "host": str(result.prefix), "time": int(result.time), "user": facts.get("user")}
    if matcher.counts.unresolved > unresolved:
        return {"match": True, "host": matcher.counts.last_name}
    return {"match": False}


def moment(note: dict[str, Any]) -> int | None:
    if note.get("time") is None:
        return None
    return int(time.mktime(time.strptime(note["time"].partition(".")[0], "%Y-%m-%dT%H:%M:%S")))


def wanted(case: Case, got: dict[str, Any]) -> dict[str, Any]:
    """The annotation, of those keys that we have."""
    if not case.note.get("match", False):
        return {"match": False}
    out: dict[str, Any] = {"match": True}
    if case.note.get("host") is not None:
        out["host"] = case.note["host"].removeprefix("::ffff:").lower()
    if moment(case.note) is not None and "time" in got:
        out["time"] = moment(case.note)
    if "user" in case.note and "time" in got:
        out["user"] = case.note["user"]
    return out


def filters(package: Path) -> dict[str, tuple[Path, ...]]:
    """Every filter that has a log, and where its file is looked for."""
    tests = their_tests(package)
    logs = tests / "files" / "logs"
    places = (package / "etc/fail2ban/filter.d", tests / "config" / "filter.d")
    return {name: places for name in filterfile.available(places) if (logs / name).is_file()}


def their_tests(package: Path) -> Path:
    found = package / "usr/lib/python3/dist-packages/fail2ban/tests"
    if not (found / "files/logs").is_dir():
        pytest.skip("this version of the package has no annotated logs")
    return found


def differences(package: Path) -> tuple[set[tuple[str, str]], dict[tuple[str, str], str]]:
    """(filter's spec, line) of each that was compared, and of each that is not what its annotation says."""
    compared, out = set(), {}
    logs = their_tests(package) / "files" / "logs"
    for name, places in filters(package).items():
        matchers: dict[str, Matcher] = {}
        for case in cases(name, logs):
            compared.add((case.spec, case.line))
            if case.spec not in matchers:
                loaded = filterfile.load(case.spec, places)
                assert isinstance(loaded, Filter), loaded
                matchers[case.spec] = Matcher(loaded)
            got = told(matchers[case.spec], case)
            want = wanted(case, got)
            if any(got.get(key) != value for key, value in want.items()):
                out[case.spec, case.line] = f"{case.place}: wanted {want}, got {got}"
    return compared, out


def told_differences() -> set[tuple[str, str]]:
    """The table's rows, below the heading that announces it: a filter with parameters, and a line's beginning."""
    text = DOCUMENT.read_text().partition("## Annotated lines that differ")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`|]+)` \| `([^`|]{20,})` \|", text, re.MULTILINE)
    return set(rows)


def test_every_annotated_line_is_right_or_told(package: Path, their_zone: None) -> None:
    compared, found = differences(package)
    assert len(compared) >= 1500
    told = told_differences()
    untold = [
        what for (spec, line), what in found.items() if not any(s == spec and line.startswith(b) for s, b in told)
    ]
    assert not untold, "\n".join(untold)
    there = [(s, b) for s, b in told if any(s == spec and line.startswith(b) for spec, line in compared)]
    untrue = [(s, b) for s, b in there if not any(s == spec and line.startswith(b) for spec, line in found)]
    assert not untrue, untrue


def test_the_comparison_can_fail(package: Path, their_zone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Matcher, "match", lambda *_: None)
    _, found = differences(package)
    assert len(found) > 900
