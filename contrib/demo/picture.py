"""The demonstration as a picture: the log, who offended and what was judged, the kernel's sets, what has been shown.

Takes a scene; `picture` gives it for a width and height, `Screen` is an audience that shows it live on a terminal, and
`save_picture` writes it as SVG.
Guarantees: fits 80 x 24; a higher terminal gets frames and a second line per client.  Only the terminal's own named
colours are used, so that dark and light ones both read well; with NO_COLOR it reads as well.
"""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime
from types import TracebackType

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.status import Status
from rich.table import Table
from rich.text import Text

from demo import cast
from demo.ledger import Account, Entry, Json, News
from demo.scene import Knock, Logged, Scene

TALL = 38
"""Rows from which there is room for frames and details."""
LOG_ROWS = 9
NARROWEST = 80
"""Columns that the judgements need."""
PICTURE_WIDTH = 100


class Screen:
    """An audience before a terminal."""

    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene = scene
        self._console = console
        self._starting: Status | None = None
        self._step = ""
        self._live = Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Screen:
        self._console.print()
        self._console.print(Text.assemble(("nftban", "bold cyan"), "  a mail server, its clients and their bans,"))
        self._console.print("        in a private network of this machine: nothing outside is touched\n")
        shipped = Text("nftban.toml as shipped; only this differs:", style="dim")
        self._console.print(_frame("Settings", "conf.d/demo.toml", Group(shipped, Text(self._scene.settings.rstrip()))))
        self._console.print()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done(kind is None)
        self._live.stop()

    def step(self, text: str) -> None:
        self._done(True)
        self._step = text
        self._starting = self._console.status(Text(text), spinner="dots")
        self._starting.start()

    def _done(self, well: bool) -> None:
        if self._starting is not None:
            self._starting.stop()
            self._console.print(Text.assemble(mark(well), " ", self._step))
            self._starting = None

    def ready(self) -> None:
        self._done(True)
        self._live.start()

    def happened(self, thing: Logged | Knock | News) -> None:
        """It is in the scene; the next frame shows it."""

    def frame(self) -> None:
        size = self._console.size
        self._live.update(picture(self._scene, size.width, size.height), refresh=True)

    def curtain(self, command: str) -> None:
        self._live.stop()
        self._console.print()
        self._console.print(picture(self._scene, self._console.width, None))
        self._console.print()
        self._console.print(Text.assemble(("$ ", "dim"), (command, "bold")))
        self._console.print()


def save_picture(scene: Scene, file: io.TextIOBase) -> None:
    """The final picture as SVG."""
    console = Console(
        record=True,
        width=PICTURE_WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        highlight=False,
    )
    console.print(picture(scene, PICTURE_WIDTH, None))
    file.write(console.export_svg(title="make demo"))


def picture(scene: Scene, width: int, height: int | None) -> RenderableType:
    """All sections; height None: as high as it wants to be."""
    tall = height is None or height >= TALL
    now = time.time()
    accounts = [a for a in scene.accounts.values() if a.judged is not None]
    entries = sorted((e for a in accounts for e in a.entries), key=lambda entry: entry.since)
    boxed = tall and width >= NARROWEST + 4
    per_account, per_section = 2 if tall else 1, 2 if boxed else 1
    used = 2 + per_section * 3 + per_account * len(accounts) + max(1, len(entries))
    used += per_section + len(scene.checks.all) if tall else 1
    rows = LOG_ROWS if height is None else max(3, height - used)
    section = _frame if boxed else _rule
    columns = _columns(width - (4 if boxed else 0))
    return Group(
        _title(scene, now),
        section("1  What the mail server logs", "● counted as an offence   → connection attempt", _stream(scene, rows)),
        section(
            "2  Who offends, what the DNSBLs say, what follows",
            "points of offences + DNSBLs + host name = score",
            _judgements(accounts, columns, details=tall),
        ),
        section("3  What the kernel drops", "nftables sets; every entry has its timeout", _kernel(entries, now)),
        section("4  Observed", "", _checks(scene)) if tall else _checks_line(scene),
    )


def _frame(title: str, aside: str, body: RenderableType) -> RenderableType:
    return Panel(
        body,
        title=Text(title, style="bold"),
        title_align="left",
        subtitle=Text(aside, style="dim") if aside else None,
        subtitle_align="right",
        box=box.ROUNDED,
        border_style="cyan",
        padding=(0, 1),
    )


def _rule(title: str, aside: str, body: RenderableType) -> RenderableType:  # noqa: ARG001 - as _frame, without room
    return Group(Rule(Text(title, style="bold"), align="left", style="cyan"), body)


def _title(scene: Scene, now: float) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(
        Text("nftban", style="bold cyan"),
        Text(scene.now, style="italic"),
        Text(f"{now - scene.started:.0f} s", style="dim"),
    )
    return line


# 1: the log


def _stream(scene: Scene, rows: int) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    shown = list(scene.stream)[-rows:]
    for thing in shown:
        at = _clock(thing.time)
        if isinstance(thing, Knock):
            banned = thing.banner is None
            text = "SYN, no answer: dropped by the kernel" if banned else str(thing.banner)
            style = "bold magenta" if banned else "bold green"
            table.add_row(at, Text("→", style=style), Text(f"{thing.client} to port {thing.port}: {text}", style=style))
        elif scene.offence(thing):
            message = Text(f"{thing.program}: {thing.message}", style="red")
            table.add_row(at, Text("●", style="bold red"), message)
        else:
            table.add_row(at, "", Text(f"{thing.program}: {thing.message}", style="dim"))
    for _ in range(rows - len(shown)):
        table.add_row("", "", "")
    return table


# 2: the judgements


def _columns(width: int) -> list[tuple[str, int]]:
    """The columns of the judgements, title and width: a sum from left to right."""
    zones = [(label, max(4, len(label))) for label in map(_zone_label, cast.ZONES)]
    roomy = width >= 88
    sums = [("offences", 8) if roomy else ("off", 3), *zones, ("name", 4), ("score", 5), ("", 13 if roomy else 10)]
    return [("client", max(19, width - sum(w for _, w in sums) - len(sums))), *sums]


def _judgements(accounts: list[Account], columns: list[tuple[str, int]], *, details: bool) -> RenderableType:
    # A grid per row, all of the same widths, because a client's second line goes over all columns.
    rows: list[RenderableType] = [_row(columns, [Text(title, style="dim") for title, _ in columns])]
    for account in accounts:
        rows.append(_row(columns, _judgement(account)))
        if details:
            rows.append(Text(f"  {_details(account)}", style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*rows)


def _row(columns: list[tuple[str, int]], cells: list[Text]) -> Table:
    row = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    for place, (_, width) in enumerate(columns):
        outside = place in (0, len(columns) - 1)
        row.add_column(width=width, justify="left" if outside else "right", no_wrap=True, overflow="ellipsis")
    row.add_row(*cells)
    return row


def _zone_label(zone: str) -> str:
    first, second = zone.split(".")[:2]
    return second if first in ("bl", "list") else first


def _judgement(account: Account) -> list[Text]:
    judged = account.judged
    assert judged is not None
    parts = judged["parts"]
    listings = {listing["zone"]: listing for listing in judged["listings"]}
    offences = sum(p["points"] for p in parts if p["reason"].partition(" ")[0].isdigit())
    reached = judged["score"] >= judged["threshold"]
    return [
        Text(account.prefix, style="bold red" if account.banned else "bold"),
        Text(str(offences)),
        *(_listing(listings.get(zone), parts) for zone in cast.ZONES),
        _name(judged["reverse"], parts),
        Text(f"{judged['score']}/{judged['threshold']}", style="bold red" if reached else "bold"),
        _verdict(account, judged),
    ]


def _listing(listing: Json | None, parts: list[Json]) -> Text:
    """What a zone's answer is worth in this sum."""
    if listing is None:
        return Text("")
    if listing["answer"] == "unknown":
        return Text("?", style="yellow")
    if listing["answer"] == "clear":
        return Text("-", style="dim")
    points = sum(p["points"] for p in parts if p["reason"].startswith(f"listed by {listing['zone']} "))
    return Text(
        f"{points:+d}" if points else "0", style="bold red" if points > 0 else "bold green" if points else "bold"
    )


def _name(reverse: Json | None, parts: list[Json]) -> Text:
    if reverse is None:
        return Text("")
    points = sum(p["points"] for p in parts if p["reason"].startswith(("no PTR", "PTR")))
    if points:
        return Text(f"{points:+d}", style="red")
    return Text("ok", style="green") if reverse["confirmed"] else Text("-", style="dim")


def _verdict(account: Account, judged: Json) -> Text:
    if account.banned:
        return Text(f"BANNED {judged['duration']:.0f}s", style="bold red")
    if judged is account.ban:
        return Text("ban over", style="green")
    if "login" in judged["rule"]:
        return Text("spared", style="green")
    return Text("watched", style="yellow")


def _details(account: Account) -> str:
    """Who it is and what tips the scales, in words."""
    judged = account.judged
    assert judged is not None
    words = [next(c.who for c in cast.SUSPECTS if c.addresses[0] == account.address)]
    if account.bans > 1:
        words.append(f"ban {account.bans}, longer")
    if "login" in judged["rule"]:
        words.append("logged in since")
    if not judged["listings"]:
        words.append("DNSBLs not asked yet")
    words += [_said(listing, judged["parts"]) for listing in judged["listings"]]
    return "; ".join(filter(None, words))


def _said(listing: Json, parts: list[Json]) -> str:
    """A zone's answer in words, if it says something."""
    label = _zone_label(listing["zone"])
    if listing["answer"] == "unknown" and "answered" in listing["reason"]:
        return f"{label}'s error counts nothing: it {listing['reason']}"
    if listing["answer"] != "listed":
        return ""
    if any(p["reason"].startswith(f"listed by {listing['zone']} ") and "(not counted" in p["reason"] for p in parts):
        return f"{label}: {listing['reason'].partition(':')[0]}, which counts on port 25 only"
    return f"{label}: {listing['reason']}"


# 3: the kernel


def _kernel(entries: list[Entry], now: float) -> RenderableType:
    if not entries:
        return Text("nothing yet", style="dim")
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right", min_width=6)
    table.add_column(no_wrap=True, justify="right", min_width=17)
    for entry in entries:
        dropped = Text(
            f"{entry.packets} packet{'s' if entry.packets != 1 else ''} dropped",
            style="magenta" if entry.packets else "dim",
        )
        if entry.ended:
            gone = Text("timed out", style="green", no_wrap=True, overflow="ellipsis")
            table.add_row(Text(entry.set, style="dim"), Text(entry.prefix, style="dim"), gone, "", dropped)
        else:
            left = max(0.0, entry.until - now)
            bar = ProgressBar(max(entry.until - entry.since, 0.1), left, complete_style="red", finished_style="red")
            table.add_row(entry.set, Text(entry.prefix, style="bold"), bar, f"{left:.1f} s", dropped)
    return table


# 4: the checks


def mark(outcome: bool | None) -> Text:
    if outcome is None:
        return Text("○", style="dim")
    return Text("✔", style="bold green") if outcome else Text("✘", style="bold red")


def _checks(scene: Scene) -> RenderableType:
    """A line for each observation, with what was seen."""
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
    for check in scene.checks.all:
        table.add_row(mark(check.outcome), Text(check.title, style="dim" if check.outcome is None else ""), check.seen)
    return table


def _checks_line(scene: Scene) -> RenderableType:
    line = Text(no_wrap=True, overflow="ellipsis")
    for check in scene.checks.all:
        line.append_text(mark(check.outcome)).append(f" {check.short}  ", style="dim" if check.outcome is None else "")
    return line


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")
