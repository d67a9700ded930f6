"""What a filter found in a log: `nftban filter test`.

Takes the filter and what its matcher made of the lines; gives one JSON value per line, or a summary that rich prints:
how many lines, what each rule caught and where it is written, who offended most.
Guarantees: text from the log is escaped.  Does not: read the log.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Counts, Logged
from nftban.records import Login, Offence
from nftban.report.text import columns, counted, heading, indented, number, shown

OFFENDERS_SHOWN = 10


def found_json(line: int, found: Offence | Login | Logged | None) -> dict[str, Any]:
    """`match` is true for an offence only; a login says so, and what the server logged of a DNSBL is in `listed`."""
    told: dict[str, Any] = {"line": line, "match": isinstance(found, Offence)}
    if found is None:
        return told
    told |= {"host": str(found.prefix), "time": found.time}
    if isinstance(found, Offence):
        told |= {"rule": found.rule, "weight": found.weight, "service": found.service.value}
    if isinstance(found, Login):
        return told | {"login": True, "user": found.user}
    if found.listed:
        told["listed"] = [list(pair) for pair in found.listed]
    return dict(found.facts) | told


def summary(filter: Filter, counts: Counts, by_rule: Counter[str], by_address: Counter[str]) -> Group:
    """by_rule: offences per rule's number; by_address: offences per address."""
    line = Text.assemble((f"{shown(filter.spec)}: ", "bold"), f"{counted(counts.lines, 'line')}, ")
    line.append(counted(counts.offences, "offence"), "bold red" if counts.offences else "")
    line.append(f", {counted(counts.logins, 'login')}")
    for count, words in ((counts.ignored, "excused by ignoreregex"), (counts.unresolved, "matched without an address")):
        if count:
            line.append(f", {number(count)} {words}", "yellow")
    parts: list[RenderableType] = [line]
    if counts.last_name:
        parts.append(Text(f"a host's name is no address and is not looked up: {shown(counts.last_name)}", "yellow"))
    rules = columns("cyan", "", "dim")
    for rule in filter.rules:
        if hits := by_rule[str(rule.number)]:
            rules.add_row(number(hits), f"rule {rule.number}", f"{shown(rule.file)}:{rule.line}")
    if by_rule:
        parts += [heading("Rules that caught something"), indented(rules)]
        offenders = columns("cyan", "")
        for address, hits in by_address.most_common(OFFENDERS_SHOWN):
            offenders.add_row(number(hits), address)
        more = len(by_address) - OFFENDERS_SHOWN
        aside = f"{number(len(by_address))} addresses, the worst {OFFENDERS_SHOWN}" if more > 0 else ""
        parts += [heading("Offenders", aside), indented(offenders)]
    return Group(*parts)
