"""The Debian package: installed, run, upgraded, rebooted and purged in a Debian of its own, under its own systemd.

`make package-test` runs it; `make test` does not, since it needs Debian's mirror and two minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from debian.__main__ import PYTHON, build
from lab.nftban import eventually

from tests.package.machine import Machine

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]

SUITES = {"3.11": "bookworm", "3.13": "trixie"}
CAP_NET_ADMIN = 1 << 12
# What other programs write meanwhile.
NOT_OURS = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/log",
    "/var/cache",
    "/var/lib/dpkg",
    "/var/lib/systemd/random-seed",
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"))


@pytest.fixture
def machine(package: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("needs root: a container with a systemd of its own")
    python = subprocess.run(
        [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="nftban-machine-") as folder, Machine(Path(folder), SUITES[python]) as made:
        (made.root / "root/nftban.deb").write_bytes(package.read_bytes())
        for log in ("mail.log", "auth.log"):
            made.run("install", "-o", "root", "-g", "adm", "-m", "640", "/dev/null", f"/var/log/{log}")
        yield made


def offend(machine: Machine, address: str, first: int, times: int = 6) -> None:
    date = machine.says("date", "--iso-8601=seconds")
    lines = [
        f"{date} mail postfix/smtpd[{first + n}]: warning: non-SMTP command from unknown[{address}]: .\n"
        for n in range(times)
    ]
    machine.run("tee", "-a", "/var/log/mail.log", given="".join(lines))


def nftban(machine: Machine, *words: str) -> Any:
    return json.loads(machine.run("nftban", *words, "--json", check=False).stdout)


def banned(machine: Machine, address: str) -> bool:
    return bool(nftban(machine, "query", address)["banned"])


def in_kernel(machine: Machine, address: str) -> bool:
    return address in machine.run("nft", "list", "ruleset").stdout


def shown(machine: Machine, unit: str, name: str) -> str:
    return machine.says("systemctl", "show", "--value", f"--property={name}", unit)


@contextmanager
def logged_in(machine: Machine, address: str) -> Iterator[None]:
    """Meanwhile a session of root's from there, through Debian's own sshd."""
    for command in (
        "ip netns add client",
        "ip link add wire type veth peer name wire netns client",
        "ip address add 192.0.2.1/24 dev wire",
        "ip link set wire up",
        "ip route add 203.0.113.0/24 dev wire",
        f"ip -n client address add {address}/32 dev wire",
        "ip -n client link set wire up",
        "ip -n client route add 192.0.2.0/24 dev wire",
        "ssh-keygen -q -t ed25519 -N '' -f /root/key",
        "install -D -m 600 /root/key.pub /root/.ssh/authorized_keys",
    ):
        machine.run("sh", "-c", command)
    shell = ("ssh", "-i", "/root/key", "-o", "StrictHostKeyChecking=no", "root@192.0.2.1", "echo in; exec cat")
    session = machine.popen("ip", "netns", "exec", "client", *shell)
    try:
        assert session.stdout is not None
        assert session.stdout.readline() == "in\n"
        yield
    finally:
        session.kill()
        session.communicate()
        machine.run("ip", "netns", "delete", "client")
        machine.run("rm", "-r", "/root/key", "/root/key.pub", "/root/.ssh")


def test_its_whole_life(machine: Machine) -> None:
    """One story: each step rests on the one before."""
    before = machine.files(NOT_OURS)
    users = machine.says("cat", "/etc/passwd", "/etc/group")

    # Installed: it runs, as a user who can do one thing, and only watches.
    machine.run("dpkg", "--install", "/root/nftban.deb")
    assert machine.says("systemctl", "is-active", "nftban.service") == "active"
    status = nftban(machine, "status")
    assert (status["observe"], [s["error"] for s in status["sources"]]) == (True, [None, None])
    process = machine.says("cat", f"/proc/{shown(machine, 'nftban', 'MainPID')}/status")
    fields = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[kind], 16) == CAP_NET_ADMIN, kind
    assert fields["Uid"].split()[0] == machine.says("id", "-u", "nftban")
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    offend(machine, "203.0.113.7", 100)
    eventually(lambda: banned(machine, "203.0.113.7"), "203.0.113.7 would be banned", 20)
    assert machine.says("nft", "list", "tables") == ""

    # Enforcing, after one word in its settings: the kernel stops the next one.
    machine.run("sed", "-i", "s/^observe = true/observe = false/", "/etc/nftban/nftban.toml")
    machine.run("systemctl", "reload", "nftban")
    eventually(lambda: not nftban(machine, "status")["observe"], "it enforces", 20)
    assert not in_kernel(machine, "203.0.113.7")
    offend(machine, "203.0.113.8", 200)
    eventually(lambda: in_kernel(machine, "203.0.113.8"), "203.0.113.8 is in the kernel", 20)
    assert nftban(machine, "verify")["equal"]

    # Seen without privilege, and with the processes of others out of sight: who is logged in by SSH.
    with logged_in(machine, "203.0.113.9"):
        refused = machine.run("nftban", "ban", "203.0.113.9", check=False)
        assert refused.returncode == 1 and "live SSH session" in refused.stderr
    assert machine.run("nftban", "ban", "203.0.113.10").returncode == 0

    # An upgrade: another process, the same bans, and the settings as the admin left them.
    earlier = shown(machine, "nftban", "MainPID")
    machine.run("dpkg", "--install", "/root/nftban.deb")
    assert shown(machine, "nftban", "MainPID") not in (earlier, "0")
    assert in_kernel(machine, "203.0.113.8")

    # Hung: systemd hears nothing from the loop that reads the logs, and starts it anew.
    machine.run("mkdir", "-p", "/run/systemd/system/nftban.service.d")
    machine.run("tee", "/run/systemd/system/nftban.service.d/test.conf", given="[Service]\nWatchdogSec=2\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "nftban")
    pid = shown(machine, "nftban", "MainPID")
    machine.run("kill", "-STOP", pid)
    eventually(lambda: shown(machine, "nftban", "NRestarts") == "1", "the watchdog started it anew", 30)
    eventually(lambda: machine.run("nftban", "status", check=False).returncode == 0, "it runs again", 30)
    assert shown(machine, "nftban", "MainPID") != pid
    assert in_kernel(machine, "203.0.113.8")

    # A boot: the bans are there before the network is.
    machine.halt()
    machine.boot()
    assert in_kernel(machine, "203.0.113.8")
    assert shown(machine, "nftban-restore", "Result") == "success"
    times = [
        int(shown(machine, "nftban-restore.service", "ExecMainStartTimestampMonotonic")),
        int(shown(machine, "nftban-restore.service", "ExecMainExitTimestampMonotonic")),
        int(shown(machine, "network-pre.target", "ActiveEnterTimestampMonotonic")),
        int(shown(machine, "nftban.service", "ExecMainStartTimestampMonotonic")),
    ]
    assert times == sorted(times) and times[0] > 0

    # For people: the manual, and TAB.
    assert "nftban.8" in machine.says("man", "--where", "nftban")
    script = "/usr/share/bash-completion/completions/nftban"
    tab = f"source {script}; COMP_WORDS=(nftban unb) COMP_CWORD=1; _nftban; echo $COMPREPLY"
    assert machine.says("bash", "-c", tab) == "unban"

    # Purged: no file, no user, no table, no unit.
    machine.run("dpkg", "--purge", "nftban")
    assert machine.files(NOT_OURS) == before
    assert machine.says("cat", "/etc/passwd", "/etc/group") == users
    assert machine.says("nft", "list", "tables") == ""
    assert machine.run("systemctl", "cat", "nftban.service", check=False).returncode == 1
