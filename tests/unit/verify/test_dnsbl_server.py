"""The demonstration's DNS server as a program of its own, and on IPv6."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from pathlib import Path

import pytest
from demo.dnsbl_server import DnsblServer

from nftban.verify.outcomes import Missing, Records
from nftban.verify.resolver import Resolver

NAME = "7.2.0.192.bl.example.net"


def test_the_program_answers_reloads_and_ends(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"zones": {"bl.example.net": {"192.0.2.7": ["127.0.0.4"]}}}))

    async def run() -> None:
        command = (sys.executable, "-m", "demo.dnsbl_server", "--listen", "127.0.0.1:0", str(data))
        contrib = Path(sys.modules["demo.dnsbl_server"].__file__ or "").parents[1]
        program = await asyncio.create_subprocess_exec(*command, cwd=contrib, stdout=asyncio.subprocess.PIPE)
        assert program.stdout is not None

        async def line() -> str:
            assert program.stdout is not None
            return (await program.stdout.readline()).decode().strip()

        assert (await line()).startswith("loaded")
        address = (await line()).removeprefix("listening on ")
        async with Resolver([address]) as resolver:
            assert await resolver.lookup(NAME, "A") == Records(("127.0.0.4",), 300)
            assert await line() == f"A {NAME}"
            data.write_text(json.dumps({"zones": {"bl.example.net": {}}, "reverse": {"192.0.2.7": "mail.example.com"}}))
            program.send_signal(signal.SIGHUP)
            assert (await line()).startswith("loaded")
            assert isinstance(await resolver.lookup(NAME, "A", fresh=True), Missing)
            assert await resolver.lookup("7.2.0.192.in-addr.arpa", "PTR") == Records(("mail.example.com",), 300)
            data.write_text("{")
            program.send_signal(signal.SIGHUP)
            while not (await line()).startswith("not loaded"):
                pass
            assert await resolver.lookup("mail.example.com", "A") == Records(("192.0.2.7",), 300)
        program.send_signal(signal.SIGTERM)
        assert await program.wait() == 0

    asyncio.run(run())


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
def test_over_ipv6() -> None:
    async def run() -> None:
        async with (
            DnsblServer({"bl.example.net": {"192.0.2.7": ["127.0.0.4"]}}, host="::1") as server,
            Resolver([server.address]) as resolver,
        ):
            assert isinstance(await resolver.lookup(NAME, "A"), Records)

    asyncio.run(run())
