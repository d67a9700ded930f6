"""Bans in words: what was banned, lifted, found, and the list of all.

Takes the results of the operations `ban`, `unban`, `query`, `list` and the time; gives what rich prints.
Guarantees: reasons and names are escaped.  Does not: ask anybody anything.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.config.words import in_words
from nftban.report.text import clock, counted, left, ports, shown, when
from nftban.report.why import headline, kernel_entries, origin

Json = dict[str, Any]


def banned(bans: list[Json]) -> Group:
    """A line per ban made."""
    return Group(*(_sentence(ban, "is banned") for ban in bans))


def unbanned(bans: list[Json], split: list[Json]) -> Group:
    """A line per ban lifted, and one per wider ban that something was let out of."""
    lifted = [Text(f"{shown(ban['prefix'])} is no longer banned ({ports(ban['scope'])})") for ban in bans]
    rest = [
        Text(f"the rest of {shown(ban['prefix'])} stays banned ({ports(ban['scope'])}), as {len(ban['into'])} prefixes")
        for ban in split
    ]
    return Group(*lifted, *rest)


def _sentence(ban: Json, verb: str) -> Text:
    length = "permanently" if ban["until"] is None else f"until {when(ban['until'])}"
    lasts = "" if ban["until"] is None else f", {in_words(ban['until'] - ban['since'])}"
    return Text(f"{shown(ban['prefix'])} {verb} {length}{lasts} ({ports(ban['scope'])})")


def query(result: Json, now: float) -> Group:
    """Banned or not, by which entries."""
    parts: list[RenderableType] = [headline(result, now)]
    if result["entries"]:
        parts.append(kernel_entries(result["entries"], now))
        reasons = [entry["ban"] for entry in result["entries"] if entry.get("ban")]
        parts += [Text(_by(ban)) for ban in reasons]
        feeds = dict.fromkeys(entry["feed"] for entry in result["entries"] if entry.get("feed"))
        parts += [
            Text(f"by the feed {shown(name)}; to let it in: nftban allow add {shown(result['address'])}")
            for name in feeds
        ]
    return Group(*parts)


def _by(ban: Json) -> str:
    by = f"by jail {shown(ban['jail'])}" if ban["jail"] else f"by {origin(ban)}"
    return by + (f": {shown(ban['reason'])}" if ban["reason"] else "")


def listed(result: Json, now: float) -> RenderableType:
    """A line per live ban, cut at the edge of the screen; one that the kernel lacks is marked."""
    bans = result["bans"]
    if not bans:
        return Text("nobody is banned")
    rows = [_cells(ban, now) for ban in bans]
    titles = ("address", "scope", "until", "left", "by")
    # By hand: a rich table of 50,000 rows takes half a minute.
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        return "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))

    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(line(titles) + "reason", "bold")
    for ban, cells in zip(bans, rows, strict=True):
        text.append("\n" + line(cells))
        if not ban["in_kernel"]:
            text.append("not in the kernel ", "bold red")
        text.append(shown(ban["reason"]))
    text.append("\n" + counted(len(bans), "ban"), "dim")
    return Group(text)  # rich joins a bare Text with its neighbours, and forgets not to wrap it


def _cells(ban: Json, now: float) -> tuple[str, ...]:
    ends = "" if ban["until"] is None else clock(ban["until"], now)
    by = shown(ban["jail"]) or origin(ban)
    return shown(ban["prefix"]), shown(ban["scope"]), ends, left(ban["until"], now), by
