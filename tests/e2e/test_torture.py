"""A short piece of `make torture`: the real daemon on the real kernel, each round held against a model."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: private networks, mounts, nftables")
def test_nothing_is_lost_doubled_or_banned_wrongly() -> None:
    argv = [sys.executable, "-m", "torture", "--seconds", "20"]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=110, env={**os.environ, "PYTHONPATH": "contrib"}
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, doubled or wrong" in done.stdout
