"""nftban ruleset: nftban's table as text for nft(8), as these settings make it; with --install, as an include file.

Ends with 1 where the file is in place but nftables.conf does not load it, or flushes the ruleset after it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nftban.cli.output import write, write_json
from nftban.cli.reach import AsJson, Config, config_file
from nftban.errors import EXIT_NO, PermissionNeededError, TryAgainError, UsageError

if TYPE_CHECKING:
    from nftban.kernel.include import Found
    from nftban.kernel.layout import Layout

DEFAULT_PATH = Path("/etc/nftban/nftban.nft")
# Debian's and its relatives', then Red Hat's: the first that is there.
MAIN = (Path("/etc/nftables.conf"), Path("/etc/sysconfig/nftables.conf"))


def ruleset(
    context: typer.Context,
    path: Annotated[Path | None, typer.Argument(metavar="FILE", help=f"With --install. [{DEFAULT_PATH}]")] = None,
    install: Annotated[bool, typer.Option("--install", help="Write the include file for nftables.conf.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print the include snippet for nftables.conf: the table, its sets and rules."""
    from nftban.daemon.assemble import checked
    from nftban.kernel.layout import ruleset_text

    if path and not install:
        raise UsageError("a FILE goes with --install", f"write: nftban ruleset --install {path}")
    layout = checked(config_file(context, config)).layout
    if install:
        _install(layout, path or DEFAULT_PATH, as_json)
    elif as_json:
        text = ruleset_text(layout)
        write_json({"table": layout.table, "sets": [s.name for s in layout.sets], "nft": text})
    else:
        write(ruleset_text(layout))


def _install(layout: Layout, path: Path, as_json: bool) -> None:
    from nftban.kernel import include
    from nftban.kernel.layout import ruleset_text

    path = path.absolute()
    main = next((file for file in MAIN if file.exists()), MAIN[0])
    try:
        # Without ingress devices: one that is not there yet at boot makes older kernels refuse the whole
        # configuration.  The daemon adds their chain.
        changed = include.write(path, ruleset_text(replace(layout, ingress=())))
        found = include.use(main, path)
    except PermissionError as e:
        raise PermissionNeededError(f"{e.filename}: {e.strerror}", "run as root, or name another FILE") from e
    except OSError as e:
        raise TryAgainError(f"{e.filename or path}: {e.strerror}") from e
    if as_json:
        write_json(
            {
                "path": str(path),
                "changed": changed,
                "configuration": str(main),
                "use": found.use,
                "include": found.include or None,
                "flush": found.flush or None,
                "add": None if found.use is include.Use.LOADED else f'include "{path}"',
            }
        )
    else:
        write(f"{path}: {'written' if changed else 'unchanged'}\n" + _advice(found, main, path))
    if found.use is not include.Use.LOADED:
        raise typer.Exit(EXIT_NO)


def _advice(found: Found, main: Path, path: Path) -> str:
    """What to do with nftables.conf, in words."""
    from nftban.kernel.include import Use

    line = f'    include "{path}"\n'
    if found.use is Use.LOADED:
        return f"{found.include} includes it; nothing to do.\n"
    if found.use is Use.NO_CONFIGURATION:
        return f"There is no {main}. To have the table at boot before the daemon is, load the file there with nft -f.\n"
    if found.use is Use.FLUSHED:
        return f"{found.include} includes it, but {found.flush} flushes the ruleset after it. Move behind that:\n{line}"
    after = f", behind the flush at {found.flush}" if found.flush else ""
    return f"Add at the end of {main}{after}:\n{line}"
