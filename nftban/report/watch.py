"""Events as they happen: `nftban watch`.

Takes the rows of the operation `events` and the time; gives what rich prints, a line for each.
Guarantees: texts are escaped.  Does not: ask anybody anything.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.text import Text

from nftban.report.text import clock, shown

Json = dict[str, Any]

STYLES = {"ban": "bold", "extended": "bold", "unban": "green", "lifted": "green", "spared": "cyan", "reload": "cyan"}
"""Of kinds; what is not here wants an eye."""

WIDTH = 10


def lines(events: list[Json], now: float) -> Group:
    """Time, kind, text."""
    return Group(*(_line(event, now) for event in events))


def _line(event: Json, now: float) -> Text:
    kind = shown(event["kind"])
    return Text.assemble(
        (clock(event["time"], now), "dim"),
        "  ",
        (f"{kind:{WIDTH}}", STYLES.get(kind, "yellow")),
        "  ",
        shown(event["text"]),
    )
