"""The manual page names every command and option that there is, and none that there is not."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from nftban.cli.app import app

PAGE = Path(__file__).resolve().parents[3] / "docs" / "man" / "nftban.8"


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield " ".join(path), command


def documented() -> dict[str, str]:
    """Each command's entry in the manual."""
    section = PAGE.read_text().partition(".Ss Commands")[2].partition(".Sh ENVIRONMENT")[0]
    entries = re.split(r"^\.It Cm ", section, flags=re.MULTILINE)[1:]
    return {re.match(r"[a-z0-9 ]+[a-z](?= [A-Z]|$|\n)", entry)[0]: entry for entry in entries}  # type: ignore[index]


def test_every_command_is_in_the_manual_and_no_other() -> None:
    assert list(documented()) == [name for name, _ in commands(get_command(app))]


def test_every_option_is_in_the_manual_and_no_other() -> None:
    shared = {"--config", "--json", "--help", "-c", "-h"}
    entries = documented()
    for name, command in commands(get_command(app)):
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
        written = {f"-{option}" for option in re.findall(r"Fl (-[a-z]+(?:-[a-z]+)*)", entries[name])}
        assert written - shared == options - shared, name
        if name != "config schema":
            assert "--config" in options
            assert ("--json" in options) == (name != "daemon")


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_page_is_well_formed() -> None:
    done = subprocess.run(
        ["groff", "-mdoc", "-ww", "-Tascii", "-P-cbou", str(PAGE)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "NFTBAN(8)" in done.stdout
