"""Beside other firewalls: nothing of theirs is touched by us, nothing of ours by their reload, and bans hold.

ufw and firewalld are the real programs, run on copies of their settings in a network namespace; Docker's rules are
loaded in the shape that its daemon gives them; nftables.conf is loaded by nft(8).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nftban.kernel import include
from nftban.kernel.include import Use
from nftban.kernel.layout import DEFAULT, Layout, Log, ruleset_text
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.plan import difference
from nftban.prefixes import Prefix
from nftban.records import Delta, Element

if TYPE_CHECKING:
    from tests.netns.conftest import NetworkNamespace

BANS = ("192.0.2.7", "198.51.100.0/24", "203.0.112.0/23", "2001:db8::7", "2001:db8:1::/64", "2001:db8:8000::/33")
PATIENCE = 20.0
OPTIONS = replace(DEFAULT, ingress=("server",), log=Log("nftban: "), reject=("smtp",))

# In a mount namespace of its own, on a copy of its settings.
UFW = """
copy=$1; shift
[ -e $copy/ufw ] || { cp -a /etc/ufw $copy/ufw; cp /etc/default/ufw $copy/default; }
mount --bind $copy/ufw /etc/ufw
mount --bind $copy/default /etc/default/ufw
mount -t tmpfs none /run
exec ufw "$@"
"""

# A bus for firewalld alone, from which nothing else can be started.
BUS = """
<busconfig>
  <type>system</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""

DOCKER = """
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""

ADMIN = """#!/usr/sbin/nft -f

flush ruleset

table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        tcp dport { 22, 25 } accept
    }
}
"""

Reload = Callable[[], None]
Firewall = Callable[[Path], AbstractContextManager[Reload]]


def run(*command: str, text: str | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, input=text, env=env, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


@contextmanager
def ufw(folder: Path) -> Iterator[Reload]:
    needs("ufw")

    def ufw(*arguments: str) -> None:
        run("unshare", "--mount", "sh", "-ec", UFW, "ufw", str(folder), *arguments)

    ufw("--force", "enable")
    ufw("allow", "25/tcp")
    yield lambda: ufw("reload")


@contextmanager
def firewalld(folder: Path) -> Iterator[Reload]:
    needs("firewalld", "dbus-daemon")
    shutil.copytree("/etc/firewalld", folder / "settings")
    address = f"unix:path={folder}/bus"
    (folder / "bus.conf").write_text(BUS.format(address=address))
    env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address}
    bus = subprocess.Popen(
        ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={folder}/bus.conf", "--print-address"],
        stdout=subprocess.PIPE,
    )
    with bus:
        assert bus.stdout
        bus.stdout.readline()
        settings = ["--system-config", str(folder / "settings"), "--log-file", str(folder / "log")]
        daemon = subprocess.Popen(["firewalld", "--nofork", "--nopid", *settings], env=env)
        try:
            until = time.monotonic() + PATIENCE
            while subprocess.run(["firewall-cmd", "--state"], env=env, capture_output=True).returncode:
                assert daemon.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, "firewalld does not answer"
            run("firewall-cmd", "--permanent", "--add-service=smtp", env=env)
            run("firewall-cmd", "--reload", env=env)
            yield lambda: void(run("firewall-cmd", "--reload", env=env))
        finally:
            daemon.terminate()
            daemon.wait()
            bus.terminate()


@contextmanager
def docker(folder: Path) -> Iterator[Reload]:
    needs("iptables-nft-restore")
    run("iptables-nft-restore", text=DOCKER)
    yield lambda: void(run("iptables-nft-restore", text=DOCKER) + run("iptables-nft", "-F", "DOCKER-USER"))


@contextmanager
def admin(folder: Path) -> Iterator[Reload]:
    """The admin's own tables, which are flushed and made anew without `flush ruleset`."""
    text = ADMIN.replace("flush ruleset", "table inet filter\nflush table inet filter")
    run("nft", "-f", "-", text=text)
    yield lambda: void(run("nft", "-f", "-", text=text))


def void(_: object) -> None:
    pass


FIREWALLS = [ufw, firewalld, docker, admin]


def theirs() -> str:
    """All that is not ours, as nft lists it, handles too; without counts, which the kernel's own ICMPv6 moves."""
    listed = [next(iter(found.items())) for found in json.loads(run("nft", "-j", "list", "ruleset"))["nftables"]]
    listing = json.dumps([
        (kind, found) for kind, found in listed
        if kind != "metainfo" and found.get("table", found.get("name")) != DEFAULT.table
    ])  # fmt: skip
    return re.sub(r'"packets": \d+, "bytes": \d+', "", listing)


def bans() -> tuple[Element, ...]:
    until = time.time() + 3600
    return tuple(sorted(DEFAULT.place(Prefix.parse(ban), "all", until) for ban in BANS))


@pytest.mark.parametrize("firewall", FIREWALLS)
@pytest.mark.parametrize("layout", [DEFAULT, OPTIONS], ids=["default", "options"])
def test_their_tables_stay_byte_for_byte(
    client: NetworkNamespace, tmp_path: Path, firewall: Firewall, layout: Layout
) -> None:
    with firewall(tmp_path):
        before = theirs()
        assert before != "[]"
        with NetlinkKernel(layout) as kernel:
            for step in (
                kernel.create,
                lambda: kernel.apply(Delta(add=bans()), time.time()),
                lambda: kernel.apply(Delta(refresh=bans()[:2], delete=bans()[2:]), time.time()),
                lambda: run("nft", "add chain inet nftban foreign"),
                kernel.create,
                kernel.drift,
                kernel.remove,
            ):
                step()
                assert theirs() == before


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_their_reload_leaves_ours_whole(client: NetworkNamespace, tmp_path: Path, firewall: Firewall) -> None:
    wanted = bans()
    with firewall(tmp_path) as reload, NetlinkKernel(OPTIONS) as kernel:
        kernel.create()
        assert kernel.apply(Delta(add=wanted), time.time()) == []
        reload()
        assert kernel.drift() == []
        assert kernel.present(time.time()) == list(wanted)


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_a_banned_client_is_stopped_where_they_let_it_in(
    client: NetworkNamespace, tmp_path: Path, firewall: Firewall
) -> None:
    with (
        firewall(tmp_path),
        NetlinkKernel(DEFAULT) as kernel,
        socket.create_server(("192.0.2.1", 25)) as server,
        client,
        socket.socket() as banned,
        socket.socket() as free,
    ):
        kernel.create()
        assert kernel.apply(Delta(add=bans()), time.time()) == []
        server.settimeout(PATIENCE)
        banned.bind(("192.0.2.7", 0))
        banned.setblocking(False)
        banned.connect_ex(server.getsockname())
        free.bind(("192.0.2.8", 0))
        free.settimeout(PATIENCE)
        free.connect(server.getsockname())
        accepted, (address, _) = server.accept()
        accepted.close()
        assert address == "192.0.2.8"
        until = time.monotonic() + PATIENCE
        while not kernel.find(Prefix.parse("192.0.2.7"), time.time())[0].packets:
            assert time.monotonic() < until


def test_a_configuration_that_flushes_the_ruleset_and_includes_ours(client: NetworkNamespace, tmp_path: Path) -> None:
    main, snippet = tmp_path / "nftables.conf", tmp_path / "nftban.nft"
    include.write(snippet, ruleset_text(DEFAULT))
    wanted = bans()
    with NetlinkKernel(DEFAULT) as kernel:
        for text, use in (
            (ADMIN, Use.MISSING),
            (f'include "{snippet}"\n{ADMIN}', Use.FLUSHED),
            (f'{ADMIN}\ninclude "{snippet}"\n', Use.LOADED),
        ):
            main.write_text(text)
            assert include.use(main, snippet).use is use
            kernel.create()
            assert kernel.apply(Delta(refresh=wanted), time.time()) == []
            for _ in range(2):
                run("nft", "-f", str(main))
                # The frame is there at once and whole, or not at all, as `use` says.
                assert kernel.drift() == ([] if use is Use.LOADED else ["there is no table inet nftban"])
                assert "chain input" in run("nft", "list", "table", "inet", "filter")
                # `flush ruleset` takes the elements; the next reconcile brings them back and touches nothing else.
                assert kernel.present(time.time()) == []
                before = theirs()
                kernel.create()
                now = time.time()
                assert kernel.apply(difference(wanted, kernel.present(now), now), now) == []
                assert kernel.present(now) == list(wanted)
                assert theirs() == before


def test_the_include_alone_loses_no_ban_whatever_the_options(client: NetworkNamespace, tmp_path: Path) -> None:
    wanted = bans()
    with NetlinkKernel(OPTIONS) as kernel:
        kernel.create()
        assert kernel.apply(Delta(add=wanted), time.time()) == []
        # What `ruleset --install` writes: without the devices, whose chain the daemon made and keeps.
        snippet = tmp_path / "nftban.nft"
        include.write(snippet, ruleset_text(replace(OPTIONS, ingress=())))
        run("nft", "-f", str(snippet))
        assert kernel.drift() == []
        assert kernel.present(time.time()) == list(wanted)
