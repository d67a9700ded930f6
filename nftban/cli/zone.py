"""nftban zone list, zone test: the DNSBLs that are asked, those that could be, and whether they may be believed.

`test` asks the test points (RFC 5782) of the zones named, or of all, now; it ends with 1 where one of them may not be
used.  A zone that refused to answer is not asked before its back-off has ended.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from nftban.cli.output import show, write_json
from nftban.cli.reach import AsJson, Config, operate, settings
from nftban.errors import EXIT_NO

app = typer.Typer(help="Show and test DNSBLs.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Show and test DNSBLs."""


@app.command("list")
def list_(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """List the DNSBLs that are asked, with state and budget, and the others that are known."""
    _show(operate(settings(context, config), "zones", {}), as_json)


@app.command()
def test(
    context: typer.Context,
    zones: Annotated[list[str] | None, typer.Argument(metavar="[ZONE]...", help="Zones; all if none is named.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ask the zones' test points now. Exit code 1: one of them may not be used."""
    result = operate(settings(context, config), "test_zones", {"zones": zones} if zones else {})
    _show(result, as_json)
    if not all(zone["usable"] for zone in result["zones"]):
        raise typer.Exit(EXIT_NO)


def _show(result: dict[str, object], as_json: bool) -> None:
    if as_json:
        write_json(result)
        return
    from nftban.report import zones as report

    show(report.zones(result, time.time()))
