"""nftban replay: what these settings would have done to logs that are there already.

Takes log files, the settings, and perhaps a second file of settings to compare; prints a summary or JSON, writes a page
for a browser.  On a terminal a bar on standard error says how far it is, how fast, and how long it will still take.
Ends with 0 also where nobody would have been banned: the question was answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nftban.cli.output import show, write_json
from nftban.cli.reach import AsJson, Config, settings
from nftban.errors import NftbanError

if TYPE_CHECKING:
    from nftban.replay.run import Progress

Logs = Annotated[list[Path], typer.Argument(metavar="LOG...", help="Log files; gz, bz2, xz, zst, journal exports too.")]
Against = Annotated[Path | None, typer.Option(metavar="FILE", help="Other settings: tell where they differ.")]
Report = Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with plots.")]
Ask = Annotated[bool, typer.Option("--ask", help="Ask DNS, today, about offenders of whom nothing is recorded.")]


def replay(
    context: typer.Context,
    logs: Logs,
    config: Config = None,
    against: Against = None,
    report: Report = None,
    ask: Ask = False,
    as_json: AsJson = False,
) -> None:
    """Show what the settings would have done to logs: who banned, when, and which good clients hit."""
    from nftban.config.load import load
    from nftban.replay import whole

    wanted = [settings(context, config), *([load(against)] if against is not None else [])]
    with _bar() as (changed, asking):
        result = whole.replay(wanted, logs, ask=ask, changed=changed, asking=asking)
    if report is not None:
        from nftban.report.pages.replay import page

        try:
            report.write_text(page(result), encoding="utf-8")
        except OSError as e:
            raise NftbanError(f"{report} cannot be written: {e.strerror or e}") from None
    if as_json:
        write_json(result)
    else:
        from nftban.report.replay import replay as summary

        show(summary(result))


@contextmanager
def _bar() -> Iterator[tuple[Callable[[Progress], None], Callable[[int, int], None]]]:
    """What is told of progress; nobody, where standard error is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None, lambda _done, _of: None
        return
    shown: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    # Without a thread of its own: other processes are forked from this one.
    with Progress(*shown, console=console, auto_refresh=False, transient=True) as bar:
        reading = bar.add_task("reading", rate="", total=None)

        def changed(progress: Any) -> None:
            _changed(bar, reading, progress)

        def asking(done: int, of: int) -> None:
            bar.update(reading, description=f"asking DNS {done}/{of}", refresh=True)

        yield changed, asking


def _changed(bar: Any, task: Any, progress: Progress) -> None:
    elapsed = bar.tasks[0].elapsed or 0.0
    first_half = progress.bytes <= progress.total / 2
    rate = f"{progress.lines / elapsed:,.0f} lines/s" if elapsed > 0.5 and first_half else ""
    bar.update(
        task,
        description="reading" if first_half else "counting",
        completed=progress.bytes,
        total=progress.total,
        rate=rate,
        refresh=True,
    )
