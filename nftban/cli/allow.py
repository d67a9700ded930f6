"""nftban allow add, remove, list: who is never banned.

Entries are addresses, prefixes or host names.  `add` and `remove` end with 1 where anything asked for was not done.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from nftban.cli.output import complain, show, write_json
from nftban.cli.reach import AsJson, Config, operate, settings
from nftban.errors import EXIT_NO, RefusedError

app = typer.Typer(no_args_is_help=True, help="Who is never banned: addresses, prefixes, host names.")

Entries = Annotated[list[str], typer.Argument(metavar="ADDRESS|PREFIX|NAME...", help="Whom.")]


@app.command("add")
def add(
    context: typer.Context,
    entries: Entries,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For `allow list`.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Never ban these from now on; a ban that covers one is lifted."""
    result = operate(settings(context, config), "allow_add", {"entries": entries, "reason": reason})
    _tell(result, result["added"], "is never banned from now on", as_json)


@app.command("remove")
def remove(context: typer.Context, entries: Entries, config: Config = None, as_json: AsJson = False) -> None:
    """Take entries off the list that `allow add` has put there."""
    result = operate(settings(context, config), "allow_remove", {"entries": entries})
    _tell(result, result["removed"], "may be banned again", as_json)


@app.command("list")
def list_(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """The entries of the settings and those that were added, and where names lead."""
    result = operate(settings(context, config), "allow", {})
    if as_json:
        write_json(result)
    else:
        from nftban.report.allow import listed

        show(listed(result, time.time()))


def _tell(result: dict[str, Any], done: list[str], words: str, as_json: bool) -> None:
    if as_json:
        write_json(result)
    else:
        from nftban.report.text import shown

        for entry in done:
            show(f"{shown(entry)} {words}")
        for one in result["refused"]:
            named = one["entry"] in one["reason"]
            complain(RefusedError(one["reason"] if named else f"{one['entry']}: {one['reason']}", one["advice"]))
    if result["refused"]:
        raise typer.Exit(EXIT_NO)
