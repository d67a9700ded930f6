"""Jails as fail2ban's jail.conf and jail.local write them.

Takes the files in order (later over earlier); gives the jails, each a plain `JailEntry` with what it says of filter,
ports, logs and counts (None or empty where it says nothing), and every fault found with file and line.
`%(x)s`, `%(__name__)s`, [DEFAULT] and [INCLUDES] work as in fail2ban; times take its abbreviations (`1d12h`, `10m`,
`600`, `-1` for ever).  A jail with a fault is not among the jails given; the others are.
A log path may be a pattern and is given as written, without fail2ban's ` tail` and ` head`.
Does not: read actions, ban commands and colours of fail2ban's (bans here have one way), resolve names in ignoreip,
look whether a log exists.
Source: jail.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nftban.config.words import span
from nftban.detect import inifile
from nftban.detect.inifile import Ini, Line, Malformed, Value, text_of
from nftban.errors import Fault

_TRUE = ("1", "on", "true", "yes")
_SYSTEMD = re.compile(r"(?i:systemd)(?:\[.*?\bjournalpath\s*=\s*[\"']?(?P<path>/[^\"',\]]*))?")
_FALSE = ("", "0", "off", "false", "no")


@dataclass(frozen=True, slots=True)
class JailEntry:
    """One jail as written.  findtime, bantime, maxtime: seconds (bantime negative: for ever); increment: a repeated ban
    lasts longer, maxtime at most; other: the OTHERS that an admin set, as written."""

    name: str
    enabled: bool
    filter: str
    port: str
    logpath: tuple[str, ...]
    maxretry: int | None
    findtime: float | None
    bantime: float | None
    ignoreip: tuple[str, ...]
    file: str
    line: int
    increment: bool = False
    maxtime: float | None = None
    other: tuple[tuple[str, str], ...] = ()
    journalmatch: tuple[str, ...] = ()


# What a jail may say besides, and what has an effect in fail2ban.
OTHERS = (
    "action", "banaction", "banaction_allports", "ignorecommand", "usedns", "logencoding",
    "logtimezone", "failregex", "ignoreregex", "prefregex", "datepattern", "maxlines", "bantime.rndtime",
    "bantime.factor", "bantime.formula", "bantime.multipliers", "bantime.overalljails",
)  # fmt: skip


def load(files: Sequence[Path], directories: Sequence[Path] = ()) -> tuple[tuple[JailEntry, ...], tuple[Fault, ...]]:
    """The jails without faults, in the order written, and the faults."""
    try:
        ini = inifile.read(files, directories)
    except Malformed as malformed:
        return (), (malformed.fault,)
    if isinstance(ini, tuple):
        return (), ini
    entries: list[JailEntry] = []
    faults: list[Fault] = []
    for name in ini.sections:
        if name != "DEFAULT" and "?" not in name:
            found = _Section(ini, name).entry()
            if isinstance(found, JailEntry):
                entries.append(found)
            else:
                faults += found
    return tuple(entries), tuple(dict.fromkeys(faults))


def seconds(text: str) -> float:
    """fail2ban's notation of a span of time, which may be negative; raises ValueError."""
    rest = text.strip()
    return -span(rest[1:]) if rest.startswith("-") else span(rest)


class _Section:
    """Reads one jail's options; collects its faults."""

    def __init__(self, ini: Ini, name: str) -> None:
        self._ini, self._name = ini, name
        self._here = ini.lines.get(name, Line("", "", 0))
        self._faults: list[Fault] = []

    def entry(self) -> JailEntry | tuple[Fault, ...]:
        enabled = self._truth("enabled")
        if not enabled and not self._faults:
            # What a jail that is off says may refer to anything; it is named and no more.
            return JailEntry(self._name, False, "", "", (), None, None, None, (), self._here.file, self._here.number)
        entry = JailEntry(
            name=self._name,
            enabled=enabled,
            filter=text_of(self._value("filter")) or self._name,
            port=text_of(self._value("port")),
            logpath=self._logpath(),
            maxretry=self._count("maxretry"),
            findtime=self._seconds("findtime"),
            bantime=self._seconds("bantime"),
            ignoreip=tuple(text_of(self._value("ignoreip")).replace(",", " ").split()),
            file=self._here.file,
            line=self._here.number,
            increment=self._truth("bantime.increment"),
            maxtime=self._seconds("bantime.maxtime"),
            other=self._other(),
            journalmatch=tuple(line.text.strip() for line in self._value("journalmatch") if line.text.strip()),
        )
        return tuple(self._faults) or entry

    def _other(self) -> tuple[tuple[str, str], ...]:
        """What the jail says itself, or [DEFAULT] in a file that is not the package's."""
        out = []
        for name in OTHERS:
            own = self._ini.sections[self._name].get(name)
            option = own or self._ini.written(self._name, name)
            if (
                option is not None
                and text_of(option.value)
                and (own or not option.value[0].file.endswith("/jail.conf"))
            ):
                out.append((name, text_of(option.value)))
        return tuple(out)

    def _value(self, option: str) -> Value:
        try:
            return self._ini.expanded(self._name, option) or ()
        except Malformed as malformed:
            self._faults.append(malformed.fault)
            return ()

    def _fault(self, value: Value, what: str, advice: str) -> None:
        at = value[0] if value else self._here
        self._faults.append(Fault(at.file, at.number, f"jail `{self._name}`: {what}", advice))

    def _truth(self, option: str) -> bool:
        value = self._value(option)
        text = text_of(value).lower()
        if text not in _TRUE + _FALSE:
            self._fault(value, f"{option} = {text!r} is neither true nor false", "write true or false")
        return text in _TRUE

    def _count(self, option: str) -> int | None:
        value = self._value(option)
        text = text_of(value)
        if not text:
            return None
        if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 1_000_000:
            self._fault(value, f"{option} = {text!r} is not a number of offences", "write a number from 1")
            return None
        return int(text)

    def _seconds(self, option: str) -> float | None:
        value = self._value(option)
        text = text_of(value)
        if not text:
            return None
        try:
            span = seconds(text)
        except ValueError as error:
            self._fault(value, f"{option}: {error}", "write 600, 10m, 1h, 1d12h, or -1 for a ban without end")
            return None
        if span <= 0 and option == "findtime":
            self._fault(value, f"findtime = {text!r} is no span", "write 600, 10m or 1h")
        return span

    def _logpath(self) -> tuple[str, ...]:
        value = self._value("logpath")
        paths = tuple(re.sub(r"\s+(?:head|tail)$", "", line.text.strip()) for line in value if line.text.strip())
        backend = _SYSTEMD.match(text_of(self._value("backend")))
        if backend:  # whatever logpath says, as in fail2ban
            return ("journal" + (f":{backend['path']}" if backend["path"] else ""),)
        if not paths and not self._faults:
            self._fault(value, "it is enabled and has no logpath", "write logpath = /var/log/...")
        return paths
