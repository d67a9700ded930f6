"""How feeds look on a terminal: the list of them, what a sync came to, what has changed in one.

Takes the plain rows of daemon/feeds.py; gives renderables.  All text in them is a server's and is escaped.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.config.words import in_words
from nftban.report.text import ago, columns, counted, heading, indented, number, shown

_RESULT_STYLE = {"updated": "green", "good": "green", "unchanged": "", "refused": "bold red", "failed": "red"}


def feeds(rows: list[dict[str, Any]], now: float) -> RenderableType:
    """Those in use with their age and what is wrong, then the others."""
    others = columns("", "")
    for row in rows:
        if not row["in_use"]:
            others.add_row(row["name"], shown(row["about"]))
    parts: list[RenderableType] = []
    if used := [row for row in rows if row["in_use"]]:
        parts += [heading("in use"), indented(in_use(used, now))]
    if len(used) < len(rows):
        parts += [heading("not in use", "a table [feed.NAME] uses one"), indented(others)]
    return Group(*parts)


def in_use(rows: list[dict[str, Any]], now: float) -> RenderableType:
    """A line for each: what for, how many entries, how old and what is wrong."""
    table = columns("bold", "", "", "")
    for row in rows:
        entries = "no copy yet" if row["entries"] is None else f"{number(row['entries'])} listed"
        table.add_row(row["name"], _use(row), entries, _state(row, now))
    return table


def _use(row: dict[str, Any]) -> str:
    uses = [f"stopped ({row['scope']})"] if row["enforce"] else []
    uses += [counted(row["points"], "point")] if row["points"] else []
    uses += [f"answers for {shown(row['zone'])}"] if row["zone"] else []
    return "cleans the others" if row["clean"] else ", ".join(uses)


def _state(row: dict[str, Any], now: float) -> Text:
    why = row["refused"] or row["failed"]
    if why:
        kind = "refused" if row["refused"] else "failed"
        return Text(f"{kind} {ago(row['tried'], now)}: {shown(why)}", style=_RESULT_STYLE[kind])
    wait = in_words(max(0.0, row["due"] - now))
    return Text(f"confirmed {ago(row['confirmed'], now)}, next in {wait}" if row["confirmed"] else f"next in {wait}")


def outcomes(rows: list[dict[str, Any]]) -> RenderableType:
    """A line for each attempt, and below it the lines of the list that are no entries."""
    table = columns("bold", "", "")
    for row in rows:
        change = f"{number(row['entries'])} entries" + (f", before {number(row['before'])}" if row["before"] else "")
        words = shown(row["why"]) if row["why"] else change
        table.add_row(row["name"], Text(row["result"], style=_RESULT_STYLE[row["result"]]), words)
        for bad in row["bad"][:5]:
            table.add_row("", "", f"line {bad['line']}: {shown(bad['why'])}")
        if row["bad_lines"] > 5:
            table.add_row("", "", f"and {counted(row['bad_lines'] - 5, 'more bad line')}")
    return table


def changes(added: list[str], removed: list[str]) -> RenderableType:
    """What a list would bring and take, as diff(1) marks it."""
    return Group(*(Text(f"-{p}", style="red") for p in removed), *(Text(f"+{p}", style="green") for p in added))
