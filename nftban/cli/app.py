"""The command line: `nftban COMMAND`.

Takes the process's arguments; ends it with the exit codes of errors.py.  Here commands get their names and errors
their last stop.  What is slow to import (pydantic, rich, DNS, netlink) is imported by the command that needs it.
Guarantees: an expected error is a sentence with advice on standard error, never a traceback.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from nftban import __version__
from nftban.cli import (
    allow,
    bans,
    config,
    daemon,
    explain,
    feed,
    filter,
    history,
    importing,
    importing_postfix,
    metrics,
    replay,
    restore,
    ruleset,
    verify,
    watch,
    zone,
)
from nftban.cli.output import complain, write
from nftban.cli.reach import Config
from nftban.errors import NftbanError

EXIT_INTERRUPTED = 130  # 128 + SIGINT

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        write(f"nftban {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    config: Config = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Bans that live in kernel nftables sets and can be explained."""


app.command()(daemon.daemon)
app.command()(explain.status)
app.command()(bans.ban)
app.command()(bans.unban)
app.command()(bans.query)
app.command()(explain.why)
app.command()(explain.check)
app.command("list")(bans.list_)
app.command()(history.history)
app.command()(watch.watch)
app.command()(metrics.metrics)
app.command()(replay.replay)
app.command()(ruleset.ruleset)
app.command()(verify.verify)
app.command()(restore.restore)
app.command()(restore.export)
app.add_typer(allow.app, name="allow")
app.add_typer(filter.app, name="filter")
app.add_typer(feed.app, name="feed")
app.add_typer(zone.app, name="zone")
app.add_typer(metrics.notify, name="notify")
app.add_typer(config.app, name="config")
importing.app.command()(importing_postfix.postfix)
app.add_typer(importing.app, name="import")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command (of the process's arguments if none are given) and ends with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, prog_name="nftban")
    except NftbanError as e:
        complain(e)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)
