"""The last lines of a log, for expressions that reach over several.

Takes lines one by one, their dates cut out; gives the text an expression is matched against, and after a match keeps
what did not belong to it: the lines before and after, and those that <SKIPLINES> passed over.
Guarantees: at most `maxlines` lines are held, each without a newline of its own.
Source: jail.conf(5), maxlines.
"""

from __future__ import annotations

import re


class Lines:
    """The buffer of one log."""

    __slots__ = ("_maxlines", "held")

    def __init__(self, maxlines: int) -> None:
        self._maxlines = maxlines
        self.held: list[str] = []

    def add(self, content: str) -> str:
        """The text of all lines held, each ended by a newline."""
        self.held = [*self.held, content][-self._maxlines :]
        return _text(self.held)

    def replace(self, content: str) -> None:
        """Holds this and nothing else: what prefregex left of all lines."""
        self.held = [content]

    def take(self, found: re.Match[str]) -> str:
        """Drops the lines of a match in what `add` gave or `replace` took, and returns their text."""
        text = found.string
        first = text.count("\n", 0, text.rfind("\n", 0, found.start() + 1) + 1)
        end = text.find("\n", max(found.end() - 1, 0))
        last = text.count("\n", 0, end + 1) if end >= 0 else len(self.held)
        skipped = [line for name in found.re.groupindex if name.startswith("skiplines") for line in _lines(found[name])]
        matched: list[str] = []
        passed: list[str] = []
        for line in self.held[first:last]:
            if skipped and line == skipped[0]:
                passed.append(skipped.pop(0))
            else:
                matched.append(line)
        self.held = self.held[:first] + passed + self.held[last:]
        return _text(matched)


def _lines(text: str | None) -> list[str]:
    return text.split("\n")[:-1] if text else []


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
