"""`python -m completions SHELL`: prints the completions of nftban's command line for bash, zsh or fish.

Takes the commands as typer knows them; gives a script for the shell, which then needs no Python at a press of TAB.
Guarantees: every command and option that there is, with its help where the shell shows that; a test reads each script
in its shell.  Does not: complete addresses; arguments and values are completed as files.
Source: bash(1) "Programmable Completion", zshcompsys(1), complete(1) of fish.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from typer.main import get_command

from nftban.cli.app import app


@dataclass(frozen=True, slots=True)
class Command:
    """path: its words; inner: words that may follow, with help; options: each with help and whether a value follows."""

    path: tuple[str, ...]
    inner: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str, bool], ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)


def commands() -> list[Command]:
    return list(_commands(get_command(app), ()))


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[Command]:
    inner: dict[str, Any] = getattr(command, "commands", {})
    options = [
        (word, parameter.help or "", not parameter.is_flag)
        for parameter in command.params
        if parameter.param_type_name == "option"
        for word in parameter.opts
    ]
    yield Command(
        path,
        tuple((name, other.get_short_help_str(200)) for name, other in inner.items()),
        (*options, ("--help", "Say what the command does and takes.", False)),
    )
    for name, other in inner.items():
        yield from _commands(other, (*path, name))


def _walk(commands: list[Command]) -> str:
    """Shell patterns that lead from the command so far and the next word to the command with it."""
    steps = [
        f"{shlex.quote(' '.join(c.path[:-1]) + ':' + c.path[-1])}) at={shlex.quote(c.name)} ;;" for c in commands[1:]
    ]
    return "\n".join(f"        {step}" for step in steps)


def bash(commands: list[Command]) -> str:
    valued = "|".join(sorted({word for c in commands for word, _, value in c.options if value}))
    offered = [(c.name, [*(word for word, _ in c.inner), *(word for word, *_ in c.options)]) for c in commands]
    offers = "\n".join(f"    {shlex.quote(at)}) words={shlex.quote(' '.join(words))} ;;" for at, words in offered)
    return f"""\
# bash completion of nftban; made by `python -m completions bash`.
_nftban() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} at= words= word
    case ${{COMP_WORDS[COMP_CWORD - 1]}} in {valued}) COMPREPLY=($(compgen -f -- "$cur")); return ;; esac
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        case "$at:$word" in
{_walk(commands)}
        esac
    done
    case $at in
{offers}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "$cur"))
}}
complete -o filenames -F _nftban nftban
"""


def zsh(commands: list[Command]) -> str:
    def listed(pairs: Iterator[tuple[str, str]]) -> str:
        return " ".join(shlex.quote(f"{word}:{text}") for word, text in pairs)

    offers = "\n".join(
        f"    {shlex.quote(c.name)}) found=({listed(iter(c.inner))}) options=("
        f"{listed((word, text) for word, text, _ in c.options)}) ;;"
        for c in commands
    )
    return f"""\
#compdef nftban
# zsh completion of nftban; made by `python -m completions zsh`.
_nftban() {{
    local at= word
    local -a found options
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$at:$word" in
{_walk(commands)}
        esac
    done
    case "$at" in
{offers}
    esac
    if [[ $words[CURRENT] == -* ]]; then
        _describe -o option options
    elif (( $#found )); then
        _describe command found
    else
        _files
    fi
}}
_nftban "$@"
"""


def fish(commands: list[Command]) -> str:
    lines = ["# fish completion of nftban; made by `python -m completions fish`."]
    for c in commands:
        inner = " ".join(word for word, _ in c.inner)
        seen = [f"__fish_seen_subcommand_from {word}" for word in c.path]
        if inner:
            seen.append(f"not __fish_seen_subcommand_from {inner}")
        when = f"-n {shlex.quote('; and '.join(seen))} " if c.path or inner else ""
        lines += [f"complete -c nftban {when}-f -a {word} -d {_fish(text)}" for word, text in c.inner]
        for word, text, value in c.options:
            dashes = "-l" if word.startswith("--") else "-s"
            follows = "-r " if value else ""
            lines.append(f"complete -c nftban {when}{follows}{dashes} {word.lstrip('-')} -d {_fish(text)}")
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: dict[str, Callable[[list[Command]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in SHELLS:
        print(f"usage: python -m completions {'|'.join(SHELLS)}", file=sys.stderr)
        return 2
    print(SHELLS[sys.argv[1]](commands()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
