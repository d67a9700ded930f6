"""What settings would have done to some logs: `nftban replay`.

Takes the result of a replay (docs/replay.md); gives what rich prints: how much was read, the bans with the worst first,
what they would have stopped, the good clients they would have hit; for two settings, where they differ.
Guarantees: text from logs is escaped; what stands in no list for want of room is counted.  Does not: read logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.config.words import in_words
from nftban.report.text import columns, counted, heading, indented, number, ports, shown, when

BANS_SHOWN = 15
GOOD_SHOWN = 15
DIFFERENT_SHOWN = 8

Json = dict[str, Any]


def replay(result: Json) -> Group:
    parts: list[RenderableType] = [*_read(result)]
    several = len(result["settings"]) > 1
    for letter, settings in zip("AB", result["settings"], strict=False):
        parts.append("")
        parts += _settings(settings, letter if several else "")
    if result["difference"] is not None:
        parts.append("")
        parts += _difference(result["difference"])
    for note in result["notes"]:
        parts.append(Text(shown(note), style="yellow"))
    return Group(*parts)


def _read(result: Json) -> Iterator[RenderableType]:
    seconds = result["seconds"]
    rate = f", {number(round(result['lines'] / seconds))} a second" if seconds >= 1 else ""
    line = Text.assemble((counted(result["lines"], "line"), "bold"), f" read in {seconds:.1f} s{rate}")
    yield line
    if result["first"] is not None and result["last"] is not None:
        length = in_words(max(0.0, round(result["last"] - result["first"])))
        yield Text(f"from {when(result['first'])} to {when(result['last'])}, {length}", style="dim")
    for log in result["logs"]:
        files = f", {counted(len(log['files']), 'file')}" if len(log["files"]) > 1 else ""
        told = "" if log["named"] else "; no jail names it: all jails read it"
        yield Text(f"  {shown(log['name'])}: {counted(log['lines'], 'line')}{files}{told}", style="dim")
    yield Text(_dns(result["dns"]), style="dim")


def _dns(dns: Json) -> str:
    parts = [f"{number(dns['recorded'])} from the store"] if dns["recorded"] > dns["asked"] else []
    if dns["asked"]:
        parts = [f"{number(dns['recorded'])} known, of which {number(dns['asked'])} were asked for now"]
    if dns["unknown"]:
        parts.append(f"{counted(dns['unknown'], 'offender')} of whom nothing is recorded (--ask asks, today)")
    return f"answers of DNS: {'; '.join(parts) or 'none needed'}"


def _settings(found: Json, letter: str) -> Iterator[RenderableType]:
    bans, good = found["bans"], found["good"]
    addresses = len({ban["prefix"] for ban in bans})
    name = f"{letter}  " if letter else ""
    yield heading(f"{name}{shown(', '.join(found['config']))}")
    line = Text.assemble((counted(len(bans), "ban"), "bold red" if bans else ""))
    line.append(f" of {number(addresses)} of {counted(found['offenders'], 'offender')}")
    line.append(f"; {number(found['offences'])} offences, of which they stop {number(found['stopped'])}")
    line.append(f"{_percent(found['stopped'], found['offences'])}")
    yield indented(line)
    if bans:
        share = _percent(found["lines_stopped"], found["lines"])
        lines = f"{number(found['lines_stopped'])} of their {number(found['lines'])} lines{share}"
        yield indented(Text(f"{lines} name them while they are banned"))
    yield indented(_jails(found["jails"]))
    yield from _good(good)
    if found["spared"]:
        yield indented(Text(f"{counted(len(found['spared']), 'offender')} spared by a successful login", style="green"))
    for row in found["refused"][:DIFFERENT_SHOWN]:
        yield indented(Text(f"never banned: {shown(row['reason'])}", style="green"))
    if bans:
        yield from _bans(bans)


def _percent(part: int, whole: int) -> str:
    return f" ({part / whole:.0%})" if whole else ""


def _jails(jails: list[Json]) -> RenderableType:
    table = columns("", "cyan", "", "dim")
    for jail in jails:
        words = f"{counted(jail['offences'], 'offence')}, {counted(jail['bans'], 'ban')}"
        table.add_row(shown(jail["jail"]), words, f"at {jail['maxretry']}", f"within {in_words(jail['findtime'])}")
    return table


def _good(good: list[Json]) -> Iterator[RenderableType]:
    if not good:
        yield indented(Text("no good client would have been banned", style="green"))
        return
    hurt = sum(row["logins_stopped"] + row["mails_stopped"] > 0 for row in good)
    words = f"{counted(len(good), 'good client')} would have been banned"
    yield indented(Text.assemble((words, "bold yellow"), f", {number(hurt)} of them while they logged in or sent mail"))
    table = columns("yellow", "", "red", "dim")
    for row in good[:GOOD_SHOWN]:
        did = ", ".join(counted(row[key], word) for key, word in (("logins", "login"), ("mails", "mail")) if row[key])
        lost = row["logins_stopped"] + row["mails_stopped"]
        users = " ".join(shown(user) for user in row["users"])
        about = f"{', '.join(map(shown, row['jails']))}, {counted(row['offences'], 'offence')}  {users}"
        table.add_row(row["prefix"], did, f"{number(lost)} stopped" if lost else "", about)
    yield indented(table, 4)
    if len(good) > GOOD_SHOWN:
        yield indented(Text(f"… {number(len(good) - GOOD_SHOWN)} more: --json has all", style="dim"), 4)


def _bans(bans: list[Json]) -> Iterator[RenderableType]:
    worst = sorted(bans, key=lambda ban: (-ban["lines_stopped"], ban["since"]))[:BANS_SHOWN]
    aside = f"the {BANS_SHOWN} that stop most of {number(len(bans))}" if len(bans) > BANS_SHOWN else ""
    yield indented(heading("Bans", aside))
    table = columns("red", "dim", "", "cyan", "")
    for ban in worst:
        score = f"{ban['score']}/{ban['threshold']}"
        stopped = f"{number(ban['lines_stopped'])} of {counted(ban['lines'], 'line')}"
        length = "permanently" if ban["until"] is None else f"for {in_words(ban['until'] - ban['since'])}"
        rule = f"{length}, {ports(ban['scope'])}; {shown(ban['jail'])}, rule {shown(ban['rule'])}"
        table.add_row(ban["prefix"], when(ban["since"]), score, stopped, rule)
    yield indented(table, 4)


def _difference(found: Json) -> Iterator[RenderableType]:
    yield heading("From A to B", f"{number(found['both'])} banned by both")
    for key, words, style in (
        ("only_first", "banned by A only", "green"),
        ("only_second", "banned by B only", "red"),
    ):
        rows = found[key]
        yield indented(Text(f"{number(len(rows))} {words}", style=style if rows else "dim"))
        table = columns(style, "dim", "")
        for ban in rows[:DIFFERENT_SHOWN]:
            table.add_row(ban["prefix"], when(ban["since"]), f"{shown(ban['jail'])}: {shown(ban['reason'])}")
        if rows:
            yield indented(table, 4)
        if len(rows) > DIFFERENT_SHOWN:
            yield indented(Text(f"… {number(len(rows) - DIFFERENT_SHOWN)} more: --json has all", style="dim"), 4)
    for key, words in (("earlier", "earlier"), ("later", "later")):
        rows = found[key]
        middle = sorted(abs(row["second"] - row["first"]) for row in rows)
        aside = f", in the middle by {in_words(round(middle[len(middle) // 2], 1))}" if middle else ""
        yield indented(Text(f"{number(len(rows))} {words} by B{aside}", style="" if rows else "dim"))
    for key, words in (("good_only_first", "A only"), ("good_only_second", "B only")):
        if found[key]:
            named = ", ".join(found[key][:DIFFERENT_SHOWN])
            more = f" and {number(len(found[key]) - DIFFERENT_SHOWN)} more" if len(found[key]) > DIFFERENT_SHOWN else ""
            line = f"{counted(len(found[key]), 'good client')} hit by {words}: {named}{more}"
            yield indented(Text(line, style="yellow"))
