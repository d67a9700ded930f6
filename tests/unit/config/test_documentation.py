"""What the documents say is what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_configuration_page_is_printed_from_the_schema() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "contrib" / "make" / "configuration.py"], capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / "configuration.md").read_text() == printed, "run `make docs`"
