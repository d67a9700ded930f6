"""How a command gets an operation done: by the daemon if one runs, by itself if none does.

Takes the settings' file and the operation; gives the result.  Also home of what every command shares: its options.
Guarantees: a socket that is there but not for us ends the command (exit 77); it never goes around the daemon.
Does not: print.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nftban.control import client
from nftban.errors import NoDaemonError
from nftban.prefixes import Prefix

if TYPE_CHECKING:
    from nftban.config.load import Loaded

Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings to use.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="An IPv4 or IPv6 address.")]


def config_file(context: typer.Context, config: Path | None) -> Path | None:
    """The file of --config, written behind the command or before it."""
    return config or context.find_root().params.get("config")


def settings(context: typer.Context, config: Path | None) -> Loaded:
    """Its settings; raises ConfigError."""
    from nftban.config.load import load

    return load(config_file(context, config))


def operate(loaded: Loaded, op: str, args: dict[str, Any]) -> dict[str, Any]:
    """The operation's result, from the daemon or directly; raises NftbanError."""
    with contextlib.suppress(NoDaemonError):
        return client.call(loaded.socket_path, op, args)
    return directly(loaded, op, args)


def directly(loaded: Loaded, op: str, args: dict[str, Any]) -> dict[str, Any]:
    """The same operation on store and kernel, without a daemon."""
    import asyncio

    from nftban.daemon.operations import direct

    async def once() -> dict[str, Any]:
        async with direct(loaded) as operations:
            return await operations.call(op, args)

    return asyncio.run(once())


def ssh_client() -> str | None:
    """The address from which this shell is used over SSH, or None (sshd sets SSH_CONNECTION, ssh(1))."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    try:
        return str(Prefix.parse(words[0].partition("%")[0])) if words else None
    except ValueError:
        return None
