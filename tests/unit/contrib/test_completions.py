"""The completions: each shell reads its script, and offers what there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from completions.__main__ import SHELLS, Command, commands

ALL = commands()


def ask(shell: str, script: Path, *words: str) -> set[str]:
    """What the shell offers for the last of these words."""
    if shell == "bash":
        line = f"COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}"
        code = f'source {script}; {line}; _nftban; printf "%s\\n" "${{COMPREPLY[@]}}"'
    else:
        code = f"source {script}; complete --do-complete '{' '.join(words)}'"
    done = subprocess.run([shell, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize("command", ALL, ids=lambda c: c.name or "nftban")
def test_every_command_and_option_is_offered(shell: str, command: Command, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "nftban"
    script.write_text(SHELLS[shell](ALL))
    if command.inner:
        assert {word for word, _ in command.inner} <= ask(shell, script, "nftban", *command.path, "")
    long = {word for word, _, _ in command.options if word.startswith("--")}
    assert long <= ask(shell, script, "nftban", *command.path, "--")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_reads_it_and_offers_what_there_is(tmp_path: Path) -> None:
    script = tmp_path / "_nftban"
    script.write_text(SHELLS["zsh"](ALL))
    # Outside of a completion there is no _describe: this one prints what it is given.
    code = (
        '_describe() { print -l -- "${(@P)argv[-1]}" }; _files() { print files }; '
        f"words=(nftban filter ''); CURRENT=3; source {script}; words=(nftban ban --); CURRENT=3; _nftban"
    )
    done = subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    offered = {line.partition(":")[0] for line in done.stdout.splitlines()}
    by_path = {c.name: c for c in ALL}
    assert offered == {w for w, _ in by_path["filter"].inner} | {w for w, _, _ in by_path["ban"].options}
