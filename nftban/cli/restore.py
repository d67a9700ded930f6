"""nftban restore, export: the bans that the store holds, for a kernel that does not have them yet.

`restore` puts them there itself, where no daemon does; `export --nft` prints them for nft(8).  `restore` ends with 1
where the kernel refused an element.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from nftban.cli.output import complain, write, write_json
from nftban.cli.reach import AsJson, Config, operate, settings
from nftban.errors import EXIT_NO, NoDaemonError, RefusedError, UsageError


def restore(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Put the store's bans into the kernel, as at boot; a running daemon has done that."""
    from nftban.control import client

    loaded = settings(context, config)
    with contextlib.suppress(NoDaemonError):
        daemon = client.call(loaded.socket_path, "ping", {})
        note = f"the daemon (process {daemon['pid']}) runs and keeps the kernel's sets"
        write_json({"bans": None, "changed": 0, "refused": [], "note": note}) if as_json else write(f"{note}\n")
        return

    import asyncio

    from nftban.daemon.restore import restore as restored

    done = asyncio.run(restored(loaded))
    refused = [{"set": r.element.set, "reason": r.reason} for r in done.refused]
    if as_json:
        write_json({"bans": done.bans, "changed": done.changed, "refused": refused, "note": done.note})
    else:
        write(f"{done.note or f'{done.bans} bans hold; {done.changed} elements of the kernel changed'}\n")
        for one in refused:
            complain(RefusedError(f"the kernel refused an element of {one['set']}: {one['reason']}"))
    if refused:
        raise typer.Exit(EXIT_NO)


def export(
    context: typer.Context,
    nft: Annotated[bool, typer.Option("--nft", help="As text for nft -f.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print the table with the bans that hold now, for nft -f."""
    if not nft:
        raise UsageError("export needs to know for whom", "write: nftban export --nft")
    result = operate(settings(context, config), "export", {})
    write_json(result) if as_json else write(result["nft"], flush=False)
