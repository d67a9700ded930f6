"""What DNS says now about an address: `nftban check`.

Takes the result of the operation `check` and the time; gives what rich prints.
Guarantees: names and reasons from DNS are escaped.  Does not: ask anybody anything.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.report.text import columns, heading, indented, shown
from nftban.report.why import helo, listings, reverse


def check(result: dict[str, Any], now: float) -> Group:
    points = result["points"]
    parts: list[RenderableType] = [Text(shown(result["address"]), style="bold")]
    if result["listings"]:
        parts += [heading("DNSBLs"), indented(listings(result["listings"], now))]
    if result["reverse"]:
        parts += [heading("Reverse DNS"), indented(reverse(result["reverse"], now))]
    if result["helo"]:
        parts += [heading("HELO"), indented(helo(result["helo"], result["spf"], now))]
    total = columns("bold cyan", "")
    total.columns[0].justify = "right"
    total.add_row(f"{points['all']:+d}", "on every port")
    total.add_row(f"{points['smtp']:+d}", "on port 25, where dynamic ranges and names count too")
    for part in result["names"]:
        total.add_row("", f"of these {part['points']:+d}: {shown(part['reason'])}", style="dim")
    parts += [heading("Points as evidence"), indented(total)]
    if result.get("note"):
        parts.append(Text(shown(result["note"]), style="yellow"))
    return Group(*parts)
