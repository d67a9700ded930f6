"""nftban filter test: what a filter finds in a log.

Takes a filter's name with its parameters as a jail has it, or the path of a filter file, and a log or `-` for
standard input.  Ends with 1 where no line is an offence.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from nftban.cli.output import show, write
from nftban.cli.reach import AsJson, Config, settings
from nftban.errors import EXIT_NO, ConfigError, UsageError

if TYPE_CHECKING:
    from nftban.detect.brief import Brief
    from nftban.detect.filterfile import Filter
    from nftban.detect.matcher import Matcher
    from nftban.detect.scan import Record
    from nftban.prefixes import Prefix
    from nftban.sources.chunks import Chunk

CHUNK = 256 * 1024

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
    from nftban.detect.budget import WATCH
    from nftban.detect.matcher import Matcher
    from nftban.records import Offence
    from nftban.report.found import found_json, summary

    WATCH.start()
    matcher = Matcher(_filter(context, config, filter), report=lambda text: typer.echo(text, err=True))
    by_rule: Counter[int] = Counter()
    by_prefix: Counter[Prefix] = Counter()
    if as_json:
        written = 0
        for number, found in results(matcher, chunks(log), time.time()):
            by_rule[0] += isinstance(found, Offence)
            for between in range(written + 1, number):
                write(json.dumps(found_json(between, None)) + "\n", flush=False)
            write(json.dumps(found_json(number, found)) + "\n", flush=False)
            written = number
        for rest in range(written + 1, matcher.counts.lines + 1):
            write(json.dumps(found_json(rest, None)) + "\n", flush=False)
    else:
        for _, _, kind, prefix, _, rule in briefs(matcher, chunks(log), time.time()):
            if kind is Offence:
                by_rule[rule] += 1
                by_prefix[prefix] += 1
        by_number = Counter({str(rule): count for rule, count in by_rule.items()})
        by_address = Counter({str(prefix): count for prefix, count in by_prefix.items()})
        show(summary(matcher.filter, matcher.counts, by_number, by_address))
    if not by_rule.total():
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


def results(matcher: Matcher, chunks: Iterable[Chunk], now: float) -> Iterator[tuple[int, Record]]:
    """The lines that are something, each with its number; afterwards matcher.counts.lines is how many there were."""
    from nftban.detect.scan import Scan

    scan = Scan([matcher])
    before = 0
    for chunk in chunks:
        at, number = 0, before + 1
        for _, start, record in scan.records(chunk, now):
            number += chunk.data.count(b"\n", at, start)
            at = start
            yield number, record
        before = number + chunk.data.count(b"\n", at) - 1
    matcher.counts.lines = before


def briefs(matcher: Matcher, chunks: Iterable[Chunk], now: float) -> Iterator[Brief]:
    """The same in short; where a line begins is told within its chunk."""
    from nftban.detect.scan import Scan

    scan = Scan([matcher])
    before = 0
    for chunk in chunks:
        yield from scan.briefs(chunk, now)
        before += chunk.lines
    matcher.counts.lines = before


def chunks(log: str) -> Iterator[Chunk]:
    try:
        if log == "-":
            yield from _read(sys.stdin.buffer, log)
        else:
            with Path(log).open("rb") as file:
                yield from _read(file, log)
    except OSError as e:
        raise UsageError(
            f"{log} cannot be read: {e.strerror or e}", "name a log file, or - for standard input"
        ) from None


def _read(file: BinaryIO, name: str) -> Iterator[Chunk]:
    from nftban.sources.chunks import Begun, Chunk, is_utf8

    begun = Begun()
    read1 = getattr(file, "read1", file.read)  # of a pipe, what is there
    while data := read1(CHUNK):
        whole, cut = begun.lines(data)
        if whole:
            yield Chunk(name, whole, is_utf8(whole), cut=cut)
    if begun.size:
        last = begun.rest + b"\n"
        yield Chunk(name, last, is_utf8(last), cut=begun.cut)
