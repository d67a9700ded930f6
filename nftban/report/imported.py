"""fail2ban's jails as nftban.toml.

Takes the jails that jailfile.py read, the faults of those it could not, and a question: what is wrong with a filter's
spec here, if anything.  Gives the text of a nftban.toml that does the same, comments where something has no equivalent.
What cannot be carried over so that it means the same is written disabled, with the reason.
Guarantees: the text can be loaded; no jail bans more than it did.  Does not: read or write files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nftban.config.words import port_list
from nftban.detect.jailfile import JailEntry
from nftban.errors import Fault
from nftban.prefixes import Prefix
from nftban.report.settings import toml_key, toml_value

_ALL_PORTS = ("", "all", "any", "0:65535", "1:65535")
_WHY = {
    "action": "a ban is an entry in a kernel set; what else an action does has no equivalent",
    "banaction": "a ban is an entry in a kernel set",
    "banaction_allports": "a ban is an entry in a kernel set",
    "ignorecommand": "no command is run; put addresses into allow.prefixes",
    "usedns": "host names are never looked up",
    "logencoding": "logs are read as UTF-8, other bytes as \\xNN",
    "logtimezone": "a date without a zone is the machine's",
    "bantime.overalljails": "bans of the same scope count together",
}
_IN_FILTER = ("failregex", "ignoreregex", "prefregex", "datepattern", "maxlines")
_GROWTH = ("bantime.rndtime", "bantime.factor", "bantime.formula", "bantime.multipliers")


def imported(
    entries: Sequence[JailEntry], faults: Iterable[Fault], folder: str, filter_fault: Callable[[JailEntry], str | None]
) -> str:
    """The text; folder: where the jails were read, for the comments."""
    enabled = [entry for entry in entries if entry.enabled]
    always = _ignored_by_all(enabled)
    out = [_comment(f"From the jails in {folder}, as `nftban import fail2ban` reads them.")]
    out += [_comment(f"Not taken over: {fault}") for fault in faults]
    if always:
        out.append(f"[allow]\nprefixes = {toml_value(sorted(map(str, always)))}")
    out += [_jail(entry, always, filter_fault(entry)) for entry in enabled]
    if not enabled:
        out.append(_comment("No jail is enabled there."))
    return "\n\n".join(out) + "\n"


def _comment(text: str) -> str:
    return "\n".join(f"# {_printable(line)}".rstrip() for line in text.split("\n"))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _prefix(text: str) -> Prefix | None:
    try:
        return Prefix.parse(text)
    except ValueError:
        return None


def _ignored_by_all(entries: Sequence[JailEntry]) -> set[Prefix]:
    ignored = [{prefix for text in entry.ignoreip if (prefix := _prefix(text)) is not None} for entry in entries]
    return set.intersection(*ignored) if ignored else set()


def _jail(entry: JailEntry, always: set[Prefix], fault: str | None) -> str:
    notes, reasons = [_other(name, text) for name, text in entry.other], [fault] if fault else []
    ignored: list[str] = []
    for text in entry.ignoreip:
        prefix = _prefix(text)
        if prefix is None:
            notes.append(f"ignoreip {text}: names are not looked up; put its addresses into allow.prefixes")
        elif prefix not in always:
            ignored.append(str(prefix))
    port: str | None = "all" if entry.port in _ALL_PORTS else entry.port
    try:
        port_list(port)
    except ValueError as error:
        if port != "all":
            reasons.append(f"port = {entry.port}: {error}")
            port = None
    values: dict[str, object] = {
        "enabled": not reasons,
        "filter": entry.filter,
        "logpath": list(entry.logpath),
        "journalmatch": list(entry.journalmatch) or None,
        "port": port,
        "maxretry": entry.maxretry,
        "findtime": entry.findtime,
        "bantime": "permanent" if entry.bantime is not None and entry.bantime < 0 else entry.bantime,
        "ignore": ignored or None,
        "bantime_factor": 2 if entry.increment else 1,
        "bantime_max": max(entry.maxtime, entry.bantime or 0) if entry.maxtime else None,
    }
    lines = [_comment(note) for note in notes]
    lines += [_comment(f"Off, because it would not be the same: {reason}") for reason in reasons]
    lines.append(f"[jail.{toml_key(entry.name)}]")
    lines += [f"{name} = {toml_value(_short(value))}" for name, value in values.items() if value is not None]
    return "\n".join(lines)


def _other(name: str, text: str) -> str:
    first, *more = text.split("\n")
    why = _WHY.get(name) or (
        "belongs into the filter's .local file"
        if name in _IN_FILTER
        else "a repeated ban lasts bantime_factor times as long"
    )
    return f"{name} = {first}{' ...' if more else ''}: {why}"


def _short(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
