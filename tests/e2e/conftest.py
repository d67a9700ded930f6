"""The lab as fixtures, each test with machines of its own (a second to start, nothing left behind).

`machines` are the two namespaces, `syslog`, `dns`, `postfix` and `sshd` the servers in one of them with ordinary
settings.  A test that needs other settings starts the server itself; every one is a context manager.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.dns import Dns
from lab.namespaces import Namespaces
from lab.postfix import Postfix
from lab.sshd import Sshd
from lab.syslog import Syslog

ZONES = ("zen.spamhaus.org", "bl.blocklist.de", "bl.spamcop.net", "psbl.surriel.com", "list.dnswl.org")
REVERSE = {f"203.0.113.{n}": f"mx{n}.example.org" for n in range(200, 210)}  # all other addresses have no name


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' own users may enter, which pytest's tmp_path is not."""
    path = Path(tempfile.mkdtemp(prefix="nftban-lab-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def machines(folder: Path) -> Iterator[Namespaces]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network, mount and PID namespaces with real servers")
    with Namespaces(folder) as namespaces:
        yield namespaces


@pytest.fixture
def syslog(machines: Namespaces, folder: Path) -> Iterator[Syslog]:
    with Syslog(machines.server, folder / "syslog") as running:
        yield running


@pytest.fixture
def dns(machines: Namespaces, folder: Path) -> Iterator[Dns]:
    """The shipped zones, empty but for their test points; `dns.relist` fills them."""
    with Dns(machines.server, folder / "dns", {zone: {} for zone in ZONES}, REVERSE) as running:
        yield running


@pytest.fixture
def postfix(machines: Namespaces, folder: Path, dns: Dns) -> Iterator[Postfix]:
    with Postfix(machines.server, folder / "postfix") as running:
        yield running


@pytest.fixture
def sshd(machines: Namespaces, folder: Path, syslog: Syslog, dns: Dns) -> Iterator[Sshd]:
    with Sshd(machines.server, folder / "sshd", syslog) as running:
        yield running
