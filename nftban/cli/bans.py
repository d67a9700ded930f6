"""nftban ban, unban, query, list: who is banned.

Each takes addresses or prefixes and asks for the operation of the same name.  `ban` and `unban` end with 1 where
anything asked for was not done, `query` where the address is not banned.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from nftban.cli.output import complain, show, write_json
from nftban.cli.reach import Address, AsJson, Config, operate, settings, ssh_client
from nftban.errors import EXIT_NO, RefusedError, UsageError


def ban(
    context: typer.Context,
    prefixes: Annotated[list[str], typer.Argument(metavar="ADDRESS|PREFIX|RANGE...", help="Whom to ban.")],
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long: 10m, 1h, 2d. Else [defaults] bantime.")
    ] = "",
    permanent: Annotated[bool, typer.Option("--permanent", help="Until unbanned.")] = False,
    scope: Annotated[str, typer.Option("--scope", metavar="NAME", help="Which ports: a name of [scopes].")] = "all",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For `why` and `list`.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ban addresses or prefixes."""
    args = {
        "prefixes": prefixes,
        **_length(length, permanent),
        "scope": scope,
        "reason": reason,
        "client": ssh_client(),
    }
    result = operate(settings(context, config), "ban", args)
    if as_json:
        write_json(result)
    elif result["banned"]:
        from nftban.report.bans import banned

        show(banned(result["banned"]))
    _end(result["refused"], as_json)


def unban(
    context: typer.Context,
    prefixes: Annotated[
        list[str] | None, typer.Argument(metavar="ADDRESS|PREFIX|RANGE...", help="Whose bans to lift.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Lift every ban.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Lift bans."""
    if bool(prefixes) == everybody:
        raise UsageError("unban takes addresses, or --all, and not both", "for example: nftban unban 192.0.2.7")
    result = operate(settings(context, config), "unban", {"prefixes": prefixes or [], "all": everybody})
    if as_json:
        write_json(result)
    elif result["unbanned"]:
        from nftban.report.bans import unbanned

        show(unbanned(result["unbanned"], result["split"]))
    elif everybody:
        show("nobody was banned")
    _end(result["not_banned"], as_json)


def query(context: typer.Context, address: Address, config: Config = None, as_json: AsJson = False) -> None:
    """Is the address banned, by what, until when? Exit code 0: yes, 1: no."""
    result = operate(settings(context, config), "query", {"address": address})
    if as_json:
        write_json(result)
    else:
        from nftban.report import bans

        show(bans.query(result, time.time()))
    if not result["banned"]:
        raise typer.Exit(EXIT_NO)


def list_(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """List the bans that hold now."""
    result = operate(settings(context, config), "list", {})
    if as_json:
        write_json(result)
    else:
        from nftban.report.bans import listed

        show(listed(result, time.time()))


def _length(written: str, permanent: bool) -> dict[str, Any]:
    from nftban.config.words import ban_seconds

    if permanent and written:
        raise UsageError("--for and --permanent exclude each other", "write one of them")
    try:
        length = ban_seconds(written) if written else None
    except ValueError as e:
        raise UsageError(f"--for: {e}") from None
    return {"seconds": length, "permanent": permanent or (bool(written) and length is None)}


def _end(not_done: list[dict[str, Any]], as_json: bool) -> None:
    """Complains about everything that was not done, and ends with 1 if there is any."""
    if not as_json:
        for one in not_done:
            named = one["prefix"] in one["reason"]
            complain(RefusedError(one["reason"] if named else f"{one['prefix']}: {one['reason']}", one["advice"]))
    if not_done:
        raise typer.Exit(EXIT_NO)
