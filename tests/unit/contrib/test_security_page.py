"""The threat model points at tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_line_names_a_test_that_is_there() -> None:
    table = (ROOT / "docs/security.md").read_text().partition("## What holds")[2].partition("## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    for row in rows:
        words = re.findall(r"`([^`]+)`", row.rstrip(" |").rpartition("|")[2])
        assert words and words[0].endswith(".py"), row
        text = ""
        for word in words:
            if word.endswith(".py"):
                files = list((ROOT / "tests").glob(word))
                assert files, word
                text = "".join(file.read_text() for file in files)
            else:
                assert f"def {word}(" in text, f"{word} is not there"
