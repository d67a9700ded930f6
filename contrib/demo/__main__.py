"""`python -m demo`: bad clients are counted, verified, banned and dropped, in a private network, in half a minute.

Exit status: 0 if every observation of scene.Checks was made, 1 if not (the reason is printed), 77 where the kernel
allows no private network.  On a terminal it draws (picture.py), otherwise it prints lines (chronicle.py).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from demo import cast
from demo.chronicle import Chronicle
from demo.isolation import isolated
from demo.network import Network
from demo.picture import Screen, mark, save_picture
from demo.scene import Scene
from demo.story import DemoError, Story
from nftban.errors import EXIT_NO, EXIT_OK, PermissionNeededError


def demonstrate(picture: io.TextIOBase | None) -> int:
    """The whole, inside the private world; picture: where the final one goes, as SVG."""
    console = Console(highlight=False)
    story = Story(Network(address for client in cast.EVERYBODY for address in client.addresses))
    audience = Screen(story.scene, console) if _may_draw(console) else Chronicle(story.scene)
    try:
        with audience:
            asyncio.run(story.run(audience))
    except DemoError as e:
        print(f"the demonstration failed: {e}", file=sys.stderr)
        return EXIT_NO
    if picture is not None:
        save_picture(story.scene, picture)
        picture.close()
    return _verdict(story.scene, console)


def _may_draw(console: Console) -> bool:
    # Not console.is_terminal, which FORCE_COLOR makes true for a pipe.
    return sys.stdout.isatty() and not console.is_dumb_terminal and console.width >= 80 and console.height >= 24


def _verdict(scene: Scene, console: Console) -> int:
    """The last lines and the exit status."""
    console.print()
    for check in scene.checks.all:
        console.print(Text.assemble(mark(check.outcome), f" {check.title}: {check.seen}"), soft_wrap=True)
    missed = [check.title for check in scene.checks.all if not check.outcome]
    if missed:
        print(f"the demonstration failed; not observed: {'; '.join(missed)}", file=sys.stderr)
        return EXIT_NO
    console.print(f"\nAll of it was observed in {time.time() - scene.started:.0f} s, and nothing is left behind.")
    return EXIT_OK


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description="nftban at work, in a private network of this machine")
    parser.add_argument("--record", type=Path, metavar="FILE.svg", help="save the final picture")
    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Opened here: inside, /run and /var/log are not those that the caller means.
    picture = arguments.record.open("w", encoding="utf-8") if arguments.record else None
    try:
        return isolated(lambda: demonstrate(picture))
    except PermissionNeededError as e:
        print(f"{e}; {e.advice}", file=sys.stderr)
        return e.exit_code


if __name__ == "__main__":
    sys.exit(main())
