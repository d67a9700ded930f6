"""The whole of verification against rbldnsd, the server that real DNSBLs run."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nftban.prefixes import Prefix
from nftban.records import Answer, Evidence
from nftban.verify.health import Health, State
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.verify import Verifier
from nftban.verify.zones import Provider, configured_zones

RBLDNSD = shutil.which("rbldnsd", path="/usr/sbin:/usr/bin:/sbin:/bin")
NOW = 1_790_000_000.0
ZONE_FILE = """\
$SOA 3000 ns.invalid. hostmaster.invalid. 0 3600 600 86400 2000
$TTL 1500
:127.0.0.2:Listed, see https://www.example.com/?$
127.0.0.2
198.51.100.7 :4:infected
198.51.100.8 :10:dynamic
"""

pytestmark = pytest.mark.skipif(RBLDNSD is None, reason="rbldnsd is not installed")


@pytest.fixture
def rbldnsd(tmp_path: Path) -> Iterator[str]:
    """A running rbldnsd for zen.spamhaus.org; gives its ADDRESS:PORT."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "zen").write_text(ZONE_FILE)
    command = [str(RBLDNSD), "-n", "-b", f"127.0.0.1/{port}", "-w", str(tmp_path)]
    if os.geteuid() == 0:  # it refuses to run as root and reads its files as this user
        account = pwd.getpwnam("nobody")
        for path in (tmp_path, *tmp_path.parents):
            if path.owner() == "root" and path.is_relative_to("/tmp/pytest-of-root"):
                path.chmod(0o755)
        command += ["-u", f"{account.pw_uid}:{account.pw_gid}"]
    command.append("zen.spamhaus.org:ip4set:zen")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if "started" in line:
            break
    else:
        pytest.fail("rbldnsd did not start")
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait()
    server.stdout.close()


def test_rbldnsd(rbldnsd: str, providers: tuple[Provider, ...]) -> None:
    async def run() -> dict[str, Evidence]:
        zones, _ = configured_zones(
            ["zen.spamhaus.org=127.0.0.[2..9]*4 zen.spamhaus.org=127.0.0.[10..11]*2"], providers
        )
        health = Health(zones)
        async with Resolver([rbldnsd]) as resolver:
            verifier = Verifier(zones, resolver, health, Quota(zones, 1000), reverse=False)
            await verifier.test_zones(NOW)
            assert health.status("zen.spamhaus.org").state is State.OK
            assert health.usable("zen.spamhaus.org", NOW, 6)  # rbldnsd answers IPv4-mapped names from an ip4set
            addresses = ("198.51.100.7", "198.51.100.8", "198.51.100.9", "2001:db8::1")
            return {address: await verifier.evidence(Prefix.parse(address), NOW) for address in addresses}

    found = {address: evidence.listings[0] for address, evidence in asyncio.run(run()).items()}
    infected, dynamic, clean, six = found.values()
    assert (infected.answer, infected.codes, infected.points, infected.ttl) == (Answer.LISTED, ("127.0.0.4",), 4, 1500)
    assert (dynamic.codes, dynamic.points, dynamic.policy_points) == (("127.0.0.10",), 0, 2)
    assert (clean.answer, clean.ttl) == (Answer.CLEAR, 2000)
    assert six.answer is Answer.CLEAR
