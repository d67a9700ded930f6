"""nftban import postfix: the DNSBLs that Postfix asks, as settings for nftban.

Reads main.cf; prints a file for conf.d.  An account key stands as KEY in what is printed; with --output the file is
written whole, for its owner only.  Ends with 1 where Postfix asks no DNSBL that nftban could ask.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nftban.cli.output import write, write_json
from nftban.cli.reach import AsJson, Config, settings
from nftban.errors import EXIT_NO, UsageError


def postfix(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Postfix's main.cf.")] = Path("/etc/postfix/main.cf"),
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to it, account keys included.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print the DNSBLs that Postfix asks as settings for nftban. Exit code 1: there are none."""
    from nftban.config.load import shipped_rules
    from nftban.verify.postfix import dnsbl_entries, main_cf
    from nftban.verify.providers import load_providers

    try:
        text = file.read_text(encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise UsageError(f"{file} cannot be read: {e.strerror}", "name Postfix's main.cf") from None
    parameters = main_cf(text)
    own = settings(context, config).folder / "rules" / "dnsbl"
    entries, left = dnsbl_entries(parameters, load_providers([own, shipped_rules() / "dnsbl"])[0])
    if as_json:
        write_json(
            {
                "zones": [{"entry": entry.shown, "source": entry.source} for entry in entries],
                "left_out": [{"what": one.what, "why": one.why} for one in left],
            }
        )
        raise typer.Exit(0 if entries else EXIT_NO)
    lines = [f"# The DNSBLs that Postfix asks, from {file}. nftban bans at maxretry points."]
    if threshold := parameters.get("postscreen_dnsbl_threshold"):
        lines.append(f"# postscreen acts at {threshold[:20]}: adapt the points if that is not [defaults] maxretry.")
    lines += [f"# Left out: {one.what}: {one.why}" for one in left]
    width = max((len(entry.text) for entry in entries), default=0)
    lines += ["[dnsbl]", "zones = ["]
    for entry in entries:
        written = f'"{entry.shown if output is None else entry.text}",'
        lines.append(f"  {written:{width + 3}}  # {entry.source}")
    whole = "\n".join([*lines, "]", ""])
    if output is None:
        write(whole)
    else:
        try:
            with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
                out.write(whole)
        except OSError as e:
            raise UsageError(f"{output} cannot be written: {e.strerror}", "name a file that is not there yet") from None
    if not entries:
        raise typer.Exit(EXIT_NO)
