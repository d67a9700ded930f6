"""DNSBLs: those that are asked, and those that could be: `nftban zone list` and `nftban zone test`.

Takes the result of the operations `zones` and `test_zones` and the time; gives what rich prints.
Guarantees: names and reasons are escaped.  Does not: ask anybody anything.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.report.status import zone_table
from nftban.report.text import columns, heading, indented, shown

Json = dict[str, Any]


def zones(result: Json, now: float) -> Group:
    """Asked ones with their state and rules, known ones that could be asked, refused ones with the reason."""
    asked = result["zones"]
    parts: list[RenderableType] = [heading("Asked", "" if asked else "none")]
    if asked:
        parts.append(indented(zone_table(asked, now)))
        parts += [indented(Text(shown(zone["notation"]), style="dim")) for zone in asked]
    if result.get("note"):
        parts.append(Text(shown(result["note"]), style="yellow"))
    usable = [known for known in result["known"] if not known["refused"]]
    refused = [known for known in result["known"] if known["refused"]]
    if usable:
        parts += ["", heading("Known, not asked", "write the name into dnsbl.zones"), indented(_known(usable))]
    if refused:
        table = columns("", "yellow")
        for known in refused:
            table.add_row(shown(", ".join(known["names"])), shown(known["refused"]))
        parts += ["", heading("Refused"), indented(table)]
    return Group(*parts)


def _known(known: list[Json]) -> RenderableType:
    table = columns("", "cyan", "")
    for one in known:
        names = [*one["names"], *(f"KEY.{name}" for name in one["keyed"])]
        points = "/".join(f"{p:+d}" for p in one["points"])
        table.add_row(
            "\n".join(map(shown, names)), points, "\n".join(shown(one[k]) for k in ("about", "terms") if one[k])
        )
    return table
