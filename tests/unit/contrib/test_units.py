"""The systemd units: what systemd itself says of their hardening, and that both are hardened alike."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).resolve().parents[3] / "contrib" / "systemd").glob("*.service"))
# What the daemon needs and a restore at boot does not.
DAEMON_ONLY = {"SupplementaryGroups=adm systemd-journal", "SystemCallFilter=@chown"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_its_exposure_is_low(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= 2.0
    assert done.returncode == 0


def hardening(unit: Path) -> set[str]:
    lines = unit.read_text().partition("# From here on")[2].partition("[Install]")[0].splitlines()[1:]
    return {line for line in lines if line and not line.startswith("#")}


def test_both_are_hardened_alike() -> None:
    daemon, restore = (hardening(unit) for unit in sorted(UNITS, key=lambda unit: "restore" in unit.name))
    families = {"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"}
    assert daemon - restore == DAEMON_ONLY | families
    assert restore - daemon == {"RestrictAddressFamilies=AF_UNIX AF_NETLINK"}
    assert {
        "User=nftban",
        "CapabilityBoundingSet=CAP_NET_ADMIN",
        "AmbientCapabilities=CAP_NET_ADMIN",
    } <= daemon & restore
