"""nftban why, check, status: what nftban knows and how it is.

`why` tells what was decided about an address and from what; `check` asks DNS now; `status` tells how the daemon is
and ends with 69 where none runs (what can be seen without it is shown).
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from nftban.cli.output import show, write_json
from nftban.cli.reach import Address, AsJson, Config, directly, operate, settings
from nftban.control import client
from nftban.errors import EXIT_NO_DAEMON, NoDaemonError


def why(context: typer.Context, address: Address, config: Config = None, as_json: AsJson = False) -> None:
    """Tell why an address is banned or not: log lines, DNSBL answers, score, history."""
    result = operate(settings(context, config), "why", {"address": address})
    if as_json:
        write_json(result)
    else:
        from nftban.report import why as report

        show(report.why(result, time.time()))


def check(
    context: typer.Context,
    address: Address,
    helo: Annotated[str, typer.Option(metavar="NAME", help="The name it gives itself: check that and its SPF.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ask the DNSBLs and reverse DNS about an address now."""
    result = operate(settings(context, config), "check", {"address": address, **({"helo": helo} if helo else {})})
    if as_json:
        write_json(result)
    else:
        from nftban.report import check as report

        show(report.check(result, time.time()))


def status(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Show the daemon's sources, jails, DNSBLs, kernel sets and jobs. Exit code 69: no daemon runs."""
    loaded = settings(context, config)
    try:
        result, running = client.call(loaded.socket_path, "status", {}), True
    except NoDaemonError:
        result, running = directly(loaded, "status", {}), False
    if as_json:
        write_json(result)
    else:
        from nftban.report import status as report

        show(report.status(result, time.time(), running))
    if not running:
        raise typer.Exit(EXIT_NO_DAEMON)
