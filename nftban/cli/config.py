"""nftban config check, show, schema: the settings.

`check` finds every fault of every file and ends with 78 if there is one; `show` prints the settings in force as TOML
that can be read again; `schema` prints their JSON schema, for editors.
"""

from __future__ import annotations

from dataclasses import replace

import typer

from nftban.cli.output import write, write_json
from nftban.cli.reach import AsJson, Config, config_file, settings
from nftban.errors import EXIT_CONFIG, ConfigError

app = typer.Typer(help="Check and show the settings.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Check settings, filters and zones; tell every fault with file and line."""
    from nftban.daemon.assemble import checked

    try:
        assembly = checked(config_file(context, config))
    except ConfigError as e:
        if not as_json:
            raise
        faults = [{"file": f.file, "line": f.line, "what": f.what, "advice": f.advice} for f in e.faults]
        write_json({"ok": False, "faults": faults})
        raise typer.Exit(EXIT_CONFIG) from None
    files = [str(file) for file in assembly.loaded.files]
    if as_json:
        write_json({"ok": True, "files": files, "faults": []})
    else:
        from nftban.report.text import counted, shown

        write(f"no fault in {', '.join(map(shown, files))} ({counted(len(assembly.jails), 'jail')})\n")


@app.command()
def show(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Print the settings in force as TOML, each with the place it was set at, account keys and secret URLs left out."""
    from nftban.daemon.delivery import masked
    from nftban.report.settings import plain, toml
    from nftban.verify.keys import without_key

    loaded = settings(context, config)
    zones = tuple(map(without_key, loaded.settings.dnsbl.zones))
    dnsbl = loaded.settings.dnsbl.model_copy(update={"zones": zones})
    notify = loaded.settings.notify.model_copy(update={"urls": tuple(map(masked, loaded.settings.notify.urls))})
    loaded = replace(loaded, settings=loaded.settings.model_copy(update={"dnsbl": dnsbl, "notify": notify}))
    if as_json:
        write_json(plain(loaded.settings))
    else:
        write(toml(loaded))


@app.command()
def schema() -> None:
    """Print the JSON schema of nftban.toml."""
    from nftban.report.settings import json_schema

    write_json(json_schema())
