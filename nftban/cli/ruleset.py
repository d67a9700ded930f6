"""nftban ruleset: nftban's table as text for nft(8), as these settings make it."""

from __future__ import annotations

import typer

from nftban.cli.output import write, write_json
from nftban.cli.reach import AsJson, Config, settings


def ruleset(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Print the include snippet for nftables.conf: the table, its sets and rules."""
    from nftban.kernel.layout import Layout, Scope, ruleset_text

    loaded = settings(context, config).settings
    layout = Layout(loaded.kernel.table, tuple(Scope(name, ports) for name, ports in loaded.scopes.items()))
    text = ruleset_text(layout)
    if as_json:
        write_json({"table": layout.table, "sets": [s.name for s in layout.sets], "nft": text})
    else:
        write(text)
