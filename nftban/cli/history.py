"""nftban history: past bans and how they ended, the newest first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from nftban.cli.output import show, write_json
from nftban.cli.reach import AsJson, Config, operate, settings
from nftban.errors import UsageError

LIMIT = 1000


def history(
    context: typer.Context,
    address: Annotated[
        str | None, typer.Argument(metavar="[ADDRESS|PREFIX]", help="Only bans that cover it or lie in it.")
    ] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Ended that long ago at most: 1d, 2h.")] = "",
    jail: Annotated[str | None, typer.Option("--jail", metavar="NAME", help="Only bans that this jail made.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="The most bans; 0: all.")] = LIMIT,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List past bans and how they ended, the newest first."""
    loaded = settings(context, config)
    args = {"address": address, "since": _since(since), "jail": jail}
    bans: list[dict[str, Any]] = []
    count, more = 0, False
    for piece in _pieces(loaded, args):
        kept = piece[: limit - count] if limit else piece
        more = len(kept) < len(piece)
        if as_json:
            bans += kept
        elif kept:
            from nftban.report.history import ended

            show(ended(kept, time.time(), titles=not count))
        count += len(kept)
        if more:
            break
    if as_json:
        write_json({"bans": bans, "more": more})
    elif not count:
        show("no past ban is known" if not (address or since or jail) else "no such past ban is known")
    elif more:
        show(f"and earlier ones: --limit 0 shows all of them, --limit {2 * limit} more")


def _pieces(loaded: Any, args: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    before: list[float] | None = None
    while True:
        result = operate(loaded, "history", {**args, "before": before})
        yield result["bans"]
        before = result["before"]
        if before is None:
            return


def _since(written: str) -> float:
    from nftban.config.words import seconds

    if not written:
        return 0.0
    try:
        return time.time() - seconds(written)
    except ValueError as e:
        raise UsageError(f"--since: {e}") from None
