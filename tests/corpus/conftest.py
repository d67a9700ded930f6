"""Debian's fail2ban package: its filters, its annotated log lines and its own Python library, unpacked beside the
tests' cache and never installed.  Tests that need it are skipped where it cannot be had."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# fail2ban's own tests run in this zone, at this time (2005-08-14 12:00 CEST).
ZONE = "CET-01CEST-02,M3.5.0,M10.5.0"


@pytest.fixture(scope="session")
def package(request: pytest.FixtureRequest) -> Path:
    """The directory that stands for `/` in the unpacked package."""
    cache = request.config.cache
    assert cache is not None
    place = Path(cache.mkdir("fail2ban"))
    root = place / "root"
    if (root / "etc/fail2ban/filter.d").is_dir():
        return root
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("no apt-get and dpkg-deb here: fail2ban's package cannot be had")
    fetched = subprocess.run(
        ["apt-get", "download", "fail2ban"], cwd=place, capture_output=True, text=True, check=False
    )
    archives = sorted(place.glob("fail2ban_*.deb"))
    if not archives:
        pytest.skip(f"fail2ban's package cannot be had: {fetched.stderr.strip()[-200:]}")
    half = place / "half"
    shutil.rmtree(half, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", archives[-1], half], check=True)
    # Two of the package's test filters include files by where they lay in the source; versions differ in where.
    for under in ("usr", "usr/lib/python3/dist-packages"):
        (half / under / "config").symlink_to(half.parent / "root/etc/fail2ban")
    half.rename(root)
    return root


@pytest.fixture
def their_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
