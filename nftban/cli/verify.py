"""nftban verify: does the kernel hold exactly what is intended?

Asks for the operation of the same name; changes nothing.  Ends with 0 where kernel and intent are equal, else with 1.
"""

from __future__ import annotations

import time

import typer

from nftban.cli.output import show, write_json
from nftban.cli.reach import AsJson, Config, operate, settings
from nftban.errors import EXIT_NO


def verify(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Compare the kernel with the intent, element by element. Exit code 0: equal, 1: not."""
    result = operate(settings(context, config), "verify", {})
    if as_json:
        write_json(result)
    else:
        from nftban.report import verify as report

        show(report.verify(result, time.time()))
    if not result["equal"]:
        raise typer.Exit(EXIT_NO)
