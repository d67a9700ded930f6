"""nftban metrics: what the daemon counts, as OpenMetrics text; nftban notify test: does a notification arrive?

`notify test` ends with 1 where a receiver failed, or none is named.
"""

from __future__ import annotations

import typer

from nftban.cli.output import complain, show, write, write_json
from nftban.cli.reach import AsJson, Config, operate, settings
from nftban.control import client
from nftban.errors import EXIT_NO, RefusedError

notify = typer.Typer(no_args_is_help=True, help="Notifications: a program of yours, or services by apprise.")


def metrics(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Print what the daemon counts, as OpenMetrics text for Prometheus. Exit code 69: no daemon runs."""
    result = client.call(settings(context, config).socket_path, "metrics", {})
    if as_json:
        write_json(result)
    else:
        write(result["text"])


@notify.command("test")
def test(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Send one notification to every receiver of the settings now."""
    sent = operate(settings(context, config), "notify_test", {})
    if as_json:
        write_json(sent)
    else:
        from nftban.report.text import shown

        for row in sent["sent"]:
            if row["failure"] is None:
                show(f"{shown(row['receiver'])} was told")
            else:
                complain(RefusedError(f"{row['receiver']}: {row['failure']}"))
        if not sent["sent"]:
            complain(RefusedError("nobody is to be told", "write hook or urls into [notify]"))
    if not sent["sent"] or any(row["failure"] is not None for row in sent["sent"]):
        raise typer.Exit(EXIT_NO)
