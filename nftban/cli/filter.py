"""nftban filter test: what a filter finds in a log.

Takes a filter's name with its parameters as a jail has it, or the path of a filter file, and a log or `-` for
standard input.  Ends with 1 where no line is an offence.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from nftban.cli.output import show, write
from nftban.cli.reach import AsJson, Config, settings
from nftban.errors import EXIT_NO, ConfigError, UsageError

if TYPE_CHECKING:
    from nftban.detect.filterfile import Filter
    from nftban.records import LogLine

app = typer.Typer(help="Try filters.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Try filters."""


@app.command()
def test(
    context: typer.Context,
    filter: Annotated[str, typer.Argument(metavar="FILTER", help="A name as in a jail, or a file.")],
    log: Annotated[str, typer.Argument(metavar="LOG", help="A log file; - is standard input.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what a filter finds in a log. With --json, one object per line of the log."""
    from nftban.detect.matcher import Matcher
    from nftban.records import Offence
    from nftban.report.found import found_json, summary

    matcher = Matcher(_filter(context, config, filter))
    by_rule: Counter[str] = Counter()
    by_address: Counter[str] = Counter()
    now = time.time()
    for number, line in enumerate(_lines(log), 1):
        found = matcher.match(line, now)
        if isinstance(found, Offence):
            by_rule[found.rule.partition(":")[0]] += 1
            by_address[str(found.prefix)] += 1
        if as_json:
            write(json.dumps(found_json(number, found)) + "\n", flush=False)
    if not as_json:
        show(summary(matcher.filter, matcher.counts, by_rule, by_address))
    if not by_rule:
        raise typer.Exit(EXIT_NO)


def _filter(context: typer.Context, config: Path | None, spec: str) -> Filter:
    from nftban.daemon.assemble import filter_directories
    from nftban.detect import filterfile

    directories = filter_directories(settings(context, config))
    if "/" in spec or spec.endswith(".conf"):
        file = Path(spec)
        directories = (file.parent, *directories)
        spec = file.name.removesuffix(".conf")
    loaded = filterfile.load(spec, directories)
    if isinstance(loaded, tuple):
        raise ConfigError(loaded)
    return loaded


def _lines(log: str) -> Iterator[LogLine]:
    try:
        if log == "-":
            yield from _decoded(sys.stdin.buffer, log)
        else:
            with Path(log).open("rb") as file:
                yield from _decoded(file, log)
    except OSError as e:
        raise UsageError(
            f"{log} cannot be read: {e.strerror or e}", "name a log file, or - for standard input"
        ) from None


def _decoded(file: BinaryIO, name: str) -> Iterator[LogLine]:
    """As nftban.sources.file gives them: cut where they are too long, bytes that are not UTF-8 as \\xNN."""
    from nftban.records import LogLine
    from nftban.sources.file import LINE_LIMIT

    while line := file.readline(LINE_LIMIT):
        cut = 0
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(LINE_LIMIT)):
            cut += len(rest.rstrip(b"\n"))
        text = line.rstrip(b"\r\n").lstrip(b"\0").decode("utf-8", "backslashreplace")
        yield LogLine(name, text, truncated=cut)
