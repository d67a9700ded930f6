"""The allow list in words.

Takes the result of the operation `allow` and the time; gives what rich prints.  Guarantees: names and reasons are
escaped.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.report.text import ago, shown

Json = dict[str, Any]


def listed(result: Json, now: float) -> RenderableType:
    """A line per entry."""
    entries = result["entries"]
    if not entries:
        return Text(
            "nothing is on the allow list; own addresses, gateways, resolvers and SSH sessions are never banned"
        )
    return Group(*(Text(_line(e, now)) for e in entries))


def _line(entry: Json, now: float) -> str:
    words = [shown(entry["entry"])]
    if entry["addresses"] != [entry["entry"]]:
        words.append(f"leads to {', '.join(map(shown, entry['addresses'])) or 'no address yet'}")
    words.append("in the settings" if entry["since"] is None else f"added {ago(entry['since'], now)}")
    if entry["reason"]:
        words.append(shown(entry["reason"]))
    if entry["failure"]:
        words.append(f"cannot be resolved: {shown(entry['failure'])}")
    return "; ".join(words)
