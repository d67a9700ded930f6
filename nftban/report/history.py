"""Past bans and how they ended: `nftban history`.

Takes rows of the operation `history`, a piece at a time, and the time; gives what rich prints, a line for each.
Guarantees: names and reasons are escaped; a piece of a thousand is quick.  Does not: ask anybody anything.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.config.words import in_words
from nftban.report.text import clock, shown
from nftban.report.why import origin

Json = dict[str, Any]

TITLES = ("ended", "address", "scope", "lasted", "how", "by")
WIDTHS = (16, 18, 6, 6, 9, 8)
"""Columns at least; the pieces of a long list look alike."""


def ended(bans: list[Json], now: float, titles: bool) -> RenderableType:
    """A line per ban, cut at the edge of the screen; titles: with the columns' names above."""
    rows = [_cells(ban, now) for ban in bans]
    # By hand: a rich table of many rows takes its time.
    widths = [max(least, *map(len, column)) for least, *column in zip(WIDTHS, TITLES, *rows, strict=True)]
    text = Text(no_wrap=True, overflow="ellipsis")
    parts = [_joined(TITLES, widths) + "reason"] if titles else []
    text.append("\n".join(parts), "bold")
    for ban, cells in zip(bans, rows, strict=True):
        text.append(("\n" if text else "") + _joined(cells, widths) + shown(ban["reason"]))
    return Group(text)


def _joined(cells: tuple[str, ...], widths: list[int]) -> str:
    return "".join(f"{cell:{width}}  " for cell, width in zip(cells, widths, strict=True))


def _cells(ban: Json, now: float) -> tuple[str, ...]:
    when, how = ban["ended"]["time"], ban["ended"]["how"]
    by = shown(ban["jail"]) or origin(ban)
    lasted = in_words(max(0.0, when - ban["since"]))
    return clock(when, now), shown(ban["prefix"]), shown(ban["scope"]), lasted, shown(how), by
