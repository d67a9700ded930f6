"""`python -m bench --quick` runs and prints what it should; how fast anything is, is no test's business."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONTRIB = Path(__file__).parents[2] / "contrib"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs a network namespace of its own")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env={**os.environ, "PYTHONPATH": str(CONTRIB)}, capture_output=True, text=True,
    )  # fmt: skip


def test_quick_runs_every_measurement() -> None:
    ran = bench("--quick", "--json")
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(ran.stdout)
    assert len(rows) >= 14
    assert all(row["ours"] >= 0 and row["figure"] >= 0 for row in rows)
    assert {"nft -f", "nft -j list set", "nft add element"} <= {row["peer_name"] for row in rows}
    (let_through,) = (row for row in rows if row["unit"] == "packets")
    assert let_through["ours"] == 0
    assert let_through["met"]


def test_the_table_names_what_was_chosen() -> None:
    ran = bench("--quick", "restore")
    assert ran.returncode == 0, ran.stderr
    assert "1,000 bans restored" in ran.stdout
    assert "quick" in ran.stdout


def test_an_unknown_measurement_is_a_usage_error() -> None:
    ran = bench("speed")
    assert ran.returncode == 2
    assert "no such measurement: speed" in ran.stderr
