"""What a command prints: JSON, plain text, or a report; and what it complains about.

Takes results, renderables of nftban.report, errors; writes to standard output and standard error.
Guarantees: with --json nothing but JSON on standard output; colour only on a terminal and not with NO_COLOR; a reader
that goes away (`| head`) ends the command quietly; text that is not ours moves no cursor.  Does not: decide.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from nftban.errors import NftbanError

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPED_WIDTH = 2000
"""Columns where standard output is no terminal: a line stays a line, for grep."""

PIECE = 8192

_FILL = re.compile(r" +((?:\x1b\[0m)?)$", re.MULTILINE)

EXIT_BROKEN_PIPE = 141  # as a shell reports a command that SIGPIPE ended


def write(text: str, flush: bool = True) -> None:
    """To standard output, at once unless more follows."""
    try:
        # In pieces: where standard output is unbuffered, Python takes half a write for a whole one.
        for at in range(0, len(text), PIECE):
            print(text[at : at + PIECE], end="", flush=flush)
    except BrokenPipeError:
        _leave_quietly()


def _leave_quietly() -> NoReturn:
    # Python flushes standard output once more at exit, which must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(EXIT_BROKEN_PIPE)


def write_json(result: Any) -> None:
    """One JSON value, in ASCII."""
    write(json.dumps(result, indent=2, allow_nan=False) + "\n")


def show(report: RenderableType) -> None:
    """A report, in colour if that may be."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    with console.capture() as captured:
        console.print(report)
    # rich fills lines up with spaces, which nobody wants to copy or compare.
    write(_FILL.sub(r"\1", captured.get()))


def complain(error: NftbanError) -> None:
    """What is wrong and what to do, on standard error."""
    from nftban.report.text import shown

    print(f"nftban: {shown(error, keep=chr(10))}", file=sys.stderr)
    if error.advice:
        print(f"  {shown(error.advice, keep=chr(10))}", file=sys.stderr)
