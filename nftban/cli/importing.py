"""nftban import fail2ban: another program's jails as nftban.toml.

Takes the directory of fail2ban's settings; prints the settings of ours that do the same.  Ends with 1 where a jail
could not be taken over or had to be switched off; what and why stands in the comments.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nftban.cli.output import write, write_json
from nftban.cli.reach import AsJson, Config, settings
from nftban.errors import EXIT_NO, UsageError

if TYPE_CHECKING:
    from nftban.detect.jailfile import JailEntry

app = typer.Typer(help="Take over other programs' settings.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Take over other programs' settings."""


@app.command()
def fail2ban(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Its settings.")] = Path("/etc/fail2ban"),
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print fail2ban's enabled jails as nftban.toml."""
    from nftban.daemon.assemble import filter_directories
    from nftban.detect import filterfile, jailfile
    from nftban.report.imported import imported

    # fail2ban's own order, later over earlier.
    files = [directory / "jail.conf", *sorted((directory / "jail.d").glob("*.conf")), directory / "jail.local"]
    files = [file for file in (*files, *sorted((directory / "jail.d").glob("*.local"))) if file.is_file()]
    if not files:
        raise UsageError(f"{directory} holds no jail.conf, jail.local or jail.d", "name fail2ban's directory")
    entries, faults = jailfile.load(files, [directory])
    filters = (*filter_directories(settings(context, config)), directory / "filter.d")
    off = bool(faults)

    def filter_fault(entry: JailEntry) -> str | None:
        nonlocal off
        found = filterfile.load(entry.filter, filters, file=entry.file, line=entry.line)
        if not isinstance(found, tuple):
            return None
        off = True
        return f"filter = {entry.filter}: {found[0]}"

    text = imported(entries, faults, str(directory), filter_fault)
    complete = not (off or "\nenabled = false\n" in text)
    if as_json:
        write_json({"toml": text, "complete": complete})
    else:
        write(text)
    if not complete:
        raise typer.Exit(EXIT_NO)
