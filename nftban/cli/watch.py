"""nftban watch: events and bans as they happen.

Asks the daemon for what came behind the last event seen, and waits for it there.  With --json, one JSON object a line.
Guarantees: while the daemon is stopped and started again, or reads its settings anew, it waits and goes on where it
was: nothing is missed and nothing comes twice.  Ends with 69 where no daemon runs when it begins.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import typer

from nftban.cli.output import show, write
from nftban.cli.reach import AsJson, Config, settings
from nftban.control import client
from nftban.errors import NoDaemonError, TryAgainError

WAIT = 10.0
PAUSE = 0.1
"""Seconds after an answer that had events: in a storm they come by the hundred, not one by one."""
AWAY = 1.0
"""Seconds between two attempts at a daemon that is away."""


def watch(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Print events and bans as they happen, until Ctrl-C."""
    loaded = settings(context, config)
    last: int | None = None
    away = False
    while True:
        # A daemon that has just come back is heard at once, also where it has no news.
        wait = 0.0 if last is None or away else WAIT
        try:
            result = client.call(loaded.socket_path, "events", {"after": last, "wait": wait})
        except (NoDaemonError, TryAgainError):
            if last is None:
                raise
            if not away:
                _say("the daemon is away; waiting for it")
            away = True
            time.sleep(AWAY)
            continue
        if away:
            _say("the daemon answers again")
        away, last = False, result["last"]
        if result["events"]:
            _print(result["events"], as_json)
            time.sleep(PAUSE)


def _print(events: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        write("".join(json.dumps(event, allow_nan=False) + "\n" for event in events))
    else:
        from nftban.report.watch import lines

        show(lines(events, time.time()))


def _say(words: str) -> None:
    print(f"nftban: {words}", file=sys.stderr, flush=True)
