"""nftban daemon: the daemon itself, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from nftban.cli.reach import Config, config_file


def daemon(
    context: typer.Context,
    config: Config = None,
    observe: Annotated[bool, typer.Option("--observe", help="Decide, but write nothing to the kernel.")] = False,
) -> None:
    """Read logs, judge, and keep the kernel's sets. Runs in the foreground."""
    import asyncio
    from functools import partial

    from nftban.daemon.assemble import checked
    from nftban.daemon.main import run

    read = partial(checked, config_file(context, config))
    raise typer.Exit(asyncio.run(run(read(), observe, read)))
