"""Words for the screen: hostile text made harmless, times, durations, numbers.

Takes strings from logs, DNS and the network, epoch seconds and durations; gives text that is safe to show.
Guarantees: what `shown` gives moves no cursor, changes no title or direction of writing and hides nothing: every
character that is not printable comes out as its escape.  rich markup stays literal as long as it is shown through
`Text` or a console without markup, as everything here is.
Does not: print, or know a clock (`now` is given); the zone of times is the process's (TZ).
"""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nftban.config.words import in_words

LONGEST_LINE = 1000
"""Characters of one log line that are shown; --json gives all."""


def shown(text: object, keep: str = "") -> str:
    """The text with everything unprintable escaped (`\\x1b`, `\\u202e`), save the characters of `keep`."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in str(text))


def log_line(text: str) -> str:
    """A log line, escaped; a very long one is cut, and says so."""
    cut = shown(text[:LONGEST_LINE])
    return cut if len(text) <= LONGEST_LINE else f"{cut}… ({number(len(text) - LONGEST_LINE)} more characters)"


def when(time: float) -> str:
    """Local time with its zone: `2026-11-24 21:27:57 CET`."""
    return datetime.fromtimestamp(time, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def clock(time: float, now: float) -> str:
    """Local time without a zone, for columns: `21:27:57` today, else `2026-11-23 21:27`."""
    local = datetime.fromtimestamp(time, UTC).astimezone()
    today = datetime.fromtimestamp(now, UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M")


def ago(time: float | None, now: float) -> str:
    return "never" if time is None else f"{in_words(max(0.0, now - time))} ago"


def left(until: float | None, now: float) -> str:
    """How long a ban still lasts: `59m3s`, `permanent`, `over`."""
    return "over" if until is not None and until <= now else in_words(None if until is None else until - now)


def number(count: int) -> str:
    return f"{count:,}"


def counted(count: int, one: str) -> str:
    """`1 point`, `3 points`."""
    return f"{number(count)} {one}" + ("" if count == 1 else "s")


def size(count: int) -> str:
    """Bytes: `812 B`, `1.2 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def ports(scope: str) -> str:
    return "all ports" if scope == "all" else f"scope {shown(scope)}"


def heading(words: str, aside: str = "") -> Text:
    return Text.assemble((words, "bold"), (f"  {aside}" if aside else "", "dim"))


def columns(*styles: str) -> Table:
    """A table without lines: a column per style, the last one takes what is left of the line and folds."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, show_header=False)
    for style in styles[:-1]:
        table.add_column(style=style, no_wrap=True)
    table.add_column(style=styles[-1], overflow="fold", ratio=1, min_width=16)
    return table


def indented(what: RenderableType, by: int = 2) -> Padding:
    return Padding.indent(what, by)
