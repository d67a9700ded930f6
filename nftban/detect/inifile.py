"""fail2ban's dialect of INI files, read with every line's origin kept.

Takes the files of one configuration in order (`NAME.conf`, then `NAME.local`); gives an `Ini` whose options are
looked up raw or expanded.  Follows `[INCLUDES] before` and `after`, looked up beside the including file first and
then in the directories given; a missing include is a fault unless it is a `.local`.
Expands `%(x)s`, `%(section/x)s`, `%(known/x)s` (what x was before this file set it) and, where asked, `<x>` and
`<section/x>`, innermost first.  A value is a tuple of lines and each keeps file and number, through includes,
continuations and interpolation, so that a fault can be shown where it stands.
Guarantees: ends on any input (included files and substitutions are counted).  Does not: convert types, know what
an option means.  Conditional sections (`[Init?family=inet6]`) are read under their full name.
Source: Python's configparser, jail.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nftban.errors import Fault

_SUBSTITUTIONS = 4000
_SIZE = 1 << 20
_DEPTH = 30
_FILES = 40

_SECTION = re.compile(r"\[(?P<name>[^\]]+)\]\s*$")
_OPTION = re.compile(r"(?P<name>[^=:\s][^=:]*?)\s*[=:]\s*(?P<value>.*)$")
_INLINE_COMMENT = re.compile(r"(?:^|\s);.*$")
_INTERPOLATION = re.compile(r"%(?:%|\((?P<name>[^()\s]{1,200})\)s)")
_ENCLOSING = re.compile(r"(?<!\?P)<([\w./-]{1,100})$")
_ENCLOSED = re.compile(r"([\w./-]{0,100})>")
_TAG = re.compile(r"(?<!\?P)<(?P<name>[\w./-]{1,200})>")


class Malformed(Exception):
    """Inside the readers of this package only: a fault on its way to the function that returns it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a value and where it was written."""

    text: str
    file: str
    number: int


Value = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """A value, its section, and that section as it stood before this file (for `%(known/x)s`)."""

    value: Value
    section: str
    earlier: Mapping[str, Option] = field(repr=False)


def text_of(value: Value) -> str:
    """The value as configparser would give it."""
    return "\n".join(line.text for line in value).strip()


class Ini:
    """The merged sections.  `parameters` (a filter's `[mode=aggressive]`) go before everything written in files."""

    def __init__(self, parameters: Mapping[str, str] | None = None, origin: Line | None = None) -> None:
        self.sections: dict[str, dict[str, Option]] = {}
        self.lines: dict[str, Line] = {}
        where = origin or Line("", "", 0)
        self._parameters = {
            name: Option((Line(text, where.file, where.number),), "", {}) for name, text in (parameters or {}).items()
        }

    def option(self, section: str, name: str) -> Option | None:
        """The option that `name` means inside a section: parameter, own option, the [DEFAULT]."""
        if name in self._parameters:
            return self._parameters[name]
        return self.written(section, name)

    def written(self, section: str, name: str) -> Option | None:
        for where in (section, "DEFAULT"):
            found = self.sections.get(where, {}).get(name)
            if found is not None:
                return found
        return None

    def tagged(self, sections: Sequence[str], name: str) -> Option | None:
        """The option that `<name>` means: parameter, the first section's that has its own, the [DEFAULT]."""
        own = (self.sections.get(where, {}).get(name) for where in sections)
        return self._parameters.get(name) or next(filter(None, own), None) or self.written("DEFAULT", name)

    def expanded(self, section: str, name: str, *, tags: Sequence[str] = ()) -> Value | None:
        """The value with all `%(x)s` put in, and `<x>` too where `tags` names the sections they are looked up in.

        None where there is no such option.  Raises Malformed on a missing or endless reference.
        """
        option = self.option(section, name)
        return None if option is None else _Expansion(self, section, name, tags).of(option)


class _Expansion:
    """The expansion of one option; counts its substitutions so that references in a circle end."""

    def __init__(self, ini: Ini, section: str, name: str, tags: Sequence[str]) -> None:
        self._ini, self._section, self._name, self._tags = ini, section, name, tags
        self._left = _SUBSTITUTIONS

    def of(self, option: Option) -> Value:
        lines = self._interpolated(option, 0)
        if not self._tags:
            return tuple(lines)
        done: list[Line] = []
        waiting = lines[::-1]
        while waiting:
            line = waiting.pop()
            for found in _TAG.finditer(line.text):
                inner = self._tagged(found["name"])
                if inner is not None:
                    self._count(line)
                    self._check_enclosing(line, found, inner)
                    waiting.extend(reversed(_spliced(line, found.start(), inner, found.end())))
                    break
            else:
                done.append(line)
        return tuple(done)

    def _check_enclosing(self, line: Line, found: re.Match[str], inner: Sequence[Line]) -> None:
        """`<re-<mode>>` asks for an option by another's value: one that is not there is a mistake in that value."""
        before = _ENCLOSING.search(line.text[: found.start()])
        after = _ENCLOSED.match(line.text, found.end())
        if before and after and len(inner) == 1:
            name = f"{before[1]}{inner[0].text}{after[1]}"
            if self._tagged(name) is None:
                what = f"`{found['name']}` is {inner[0].text!r}, but there is no `{name}`"
                advice = f"give `{found['name']}` one of the values that the filter's header names"
                raise Malformed(Fault(inner[0].file, inner[0].number, what, advice))

    def _count(self, line: Line) -> None:
        self._left -= 1
        if self._left < 0 or len(line.text) > _SIZE:
            raise Malformed(
                Fault(line.file, line.number, f"`{self._name}` is defined by itself, in a circle", "break the circle")
            )

    def _interpolated(self, option: Option, depth: int) -> list[Line]:
        if depth > _DEPTH:
            self._left = 0
            self._count(option.value[0])
        out: list[Line] = []
        for line in option.value:
            # From the right, so that positions to the left stay true while lines are put in.
            parts = [line]
            for found in reversed(list(_INTERPOLATION.finditer(line.text))):
                self._count(line)
                if found["name"] is None:
                    inner = [Line("%", line.file, line.number)]
                else:
                    inner = self._interpolated(self._referred(found["name"], option, line), depth + 1)
                parts[:1] = _spliced(parts[0], found.start(), inner, found.end())
            out += parts
        return out

    def _referred(self, name: str, inside: Option, line: Line) -> Option:
        key = name.lower()
        if key == "__name__":
            return Option((Line(self._section, line.file, line.number),), "", {})
        section, slash, rest = key.rpartition("/")
        found: Option | None
        if slash and section == "known":
            found = inside.earlier.get(rest) or self._ini.sections.get("DEFAULT", {}).get(rest)
        elif slash:
            found = self._ini.written(_cased(name.rpartition("/")[0]), rest)
        else:
            found = self._ini.option(self._section, key) or self._ini.option(inside.section, key)
        if found is None:
            raise Malformed(
                Fault(
                    line.file,
                    line.number,
                    f"`{self._name}` refers to `%({name})s`, which nothing defines",
                    f"define `{rest or key}` in [{self._section}] or [DEFAULT], or include the file that does",
                )
            )
        return found

    def _tagged(self, name: str) -> list[Line] | None:
        section, slash, rest = name.rpartition("/")
        found: Option | None = None
        if slash and section == "known":
            found = next(filter(None, (self._ini.written(where, rest.lower()) for where in self._tags)), None)
        elif slash:
            section = _cased(section)
            found = self._ini.written(section, rest.lower()) if rest and section in self._ini.sections else None
        elif name == name.upper() and name.lower() != name:
            return None  # <HOST>, <F-USER>: tags of the expressions, never options
        else:
            found = self._ini.tagged(self._tags, name)
        return None if found is None else self._interpolated(found, 0)


def _cased(section: str) -> str:
    return "DEFAULT" if section.lower() == "default" else section


def _spliced(line: Line, start: int, inner: Sequence[Line], end: int) -> list[Line]:
    """The line with text[start:end] replaced by the inner lines.

    A line that is nothing but the reference takes the inner line's origin: that is where it can be mended.
    """
    before, after = line.text[:start], line.text[end:]
    texts = [part.text for part in inner] or [""]
    texts[0] = before + texts[0]
    texts[-1] += after
    origins = [*inner] or [line]
    out = [Line(text, o.file, o.number) for text, o in zip(texts, origins, strict=True)]
    if before.strip():
        out[0] = Line(texts[0], line.file, line.number)
    if after.strip():
        out[-1] = Line(texts[-1], line.file, line.number)
    return out


def read(
    files: Sequence[Path],
    directories: Sequence[Path] = (),
    *,
    parameters: Mapping[str, str] | None = None,
    origin: Line | None = None,
) -> Ini | tuple[Fault, ...]:
    """Reads and merges the files, later over earlier; every fault found, or the Ini."""
    ini = Ini(parameters, origin)
    faults: list[Fault] = []
    order: list[Path] = []
    for file in files:
        _include(file, directories, (), order, faults)
    for file in order:
        _merge(ini, _parsed(file, []))
    return tuple(dict.fromkeys(faults)) if faults else ini


Sections = dict[str, dict[str, Value]]


def _include(
    file: Path, directories: Sequence[Path], seen: tuple[Path, ...], order: list[Path], faults: list[Fault]
) -> None:
    """Puts the file and what it includes into the order in which they are merged."""
    if len(order) >= _FILES:
        raise Malformed(Fault(str(file), 0, f"more than {_FILES} files are included", "include fewer"))
    sections = _parsed(file, faults)
    includes = sections.get("INCLUDES", {})
    seen = (*seen, file)
    for where in ("before", "after"):
        if where == "after":
            order.append(file)
        for line in includes.get(where, ()):
            name = line.text.strip()
            if not name:
                continue
            found = _find(name, file.parent, directories)
            if found is None and not name.endswith(".local"):
                searched = ", ".join(map(str, (file.parent, *directories)))
                faults.append(Fault(line.file, line.number, f"the included file {name} is not in {searched}"))
            for each in found or ():
                if each not in seen:
                    _include(each, directories, seen, order, faults)


def _find(name: str, beside: Path, directories: Sequence[Path]) -> tuple[Path, ...] | None:
    """The included file, and its .local beside it."""
    for directory in (beside, *directories):
        file = directory / name
        if file.is_file():
            local = file.with_suffix(".local")
            return (file, local) if local != file and local.is_file() else (file,)
    return None


def _parsed(file: Path, faults: list[Fault]) -> Sections:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        faults.append(Fault(str(file), 0, f"cannot be read: {error.strerror}"))
        return {}
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        faults.append(Fault(str(file), number, "is not UTF-8 text", "save the file as UTF-8"))
        return {}
    return parse(text, str(file), faults)


def parse(text: str, file: str, faults: list[Fault]) -> Sections:
    """The sections of one file's text; faults are appended."""
    sections: Sections = {}
    section: dict[str, Value] | None = None
    name = ""
    indent = 0
    for number, raw in enumerate(text.split("\n"), 1):
        bare = raw.strip()
        if not bare or bare[0] in "#;":
            continue
        line = Line(_INLINE_COMMENT.sub("", bare).rstrip(), file, number)
        depth = len(raw) - len(raw.lstrip())
        if section is not None and name and depth > indent:
            section[name] += (line,)
            continue
        indent = depth
        header = _SECTION.match(line.text)
        option = _OPTION.match(line.text)
        if header:
            section, name = sections.setdefault(header["name"], {}), ""
        elif option is None:
            faults.append(
                Fault(file, number, f"{bare[:60]!r} is neither [section] nor `name = value`", "indent a continuation")
            )
        elif section is None:
            faults.append(Fault(file, number, "an option stands before the first [section]", "write [Definition]"))
        else:
            name = option["name"].lower()
            if name in section:
                advice = "one `name =`, further lines indented below it"
                faults.append(Fault(file, number, f"`{name}` is set twice in this section", advice))
            section[name] = (Line(option["value"], file, number),)
    return sections


def _merge(ini: Ini, sections: Sections) -> None:
    for name, options in sections.items():
        if name == "INCLUDES":
            continue
        earlier = dict(ini.sections.get(name, {}))
        merged = ini.sections.setdefault(name, {})
        merged.update({key: Option(value, name, earlier) for key, value in options.items()})
        first = next(iter(options.values()), None)
        if first:
            ini.lines[name] = first[0]
