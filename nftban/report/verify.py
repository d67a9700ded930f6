"""Kernel and intent compared: `nftban verify`.

Takes the result of the operation `verify` and the time; gives what rich prints: one line where they are equal, else a
line for each difference.  Guarantees: names are escaped.  Does not: ask anybody anything.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.report.text import clock, counted, heading, indented, number, ports, shown

SHOWN = 20
"""Differences of a kind that are shown; --json gives more."""

Json = dict[str, Any]


def verify(result: Json, now: float) -> RenderableType:
    """Equal or not, and what differs."""
    if result["equal"]:
        whole = f"the kernel holds exactly what is intended: {counted(result['elements'], 'element')}, table and rules"
        return Text.assemble(("equal", "bold green"), f"  {whole}")
    parts: list[RenderableType] = [Text.assemble(("not equal", "bold red"), "  kernel and intent differ")]
    if result["frame"]:
        parts += [heading("Table, chains, sets, rules"), *(indented(Text(shown(words))) for words in result["frame"])]
    for kind, title in (
        ("missing", "Missing in the kernel"),
        ("unwanted", "In the kernel and not intended"),
        ("wrong_expiry", "Ending at another time than intended"),
    ):
        if not (count := result["counts"][kind]):
            continue
        rows = result[kind][:SHOWN]
        parts.append(heading(title, number(count)))
        parts += [indented(Text(_row(row, now))) for row in rows]
        if count > len(rows):
            parts.append(indented(Text(f"and {number(count - len(rows))} more", style="dim")))
    return Group(*parts)


def _row(row: Json, now: float) -> str:
    whose = ports(row["scope"]) if row["scope"] else "allow list"
    ends = f"{_end(row['kernel_until'], now)}, not {_end(row['until'], now)}" if "kernel_until" in row else ""
    return f"{shown(row['prefix'])}  {whose}, set {shown(row['set'])}, {ends or _end(row['until'], now)}"


def _end(until: float | None, now: float) -> str:
    return "without an end" if until is None else f"until {clock(until, now)}"
