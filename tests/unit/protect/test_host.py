"""What this machine shows of itself: addresses, gateways, and the clients of a real sshd, in a private namespace.

The look at SSH sessions is taken in a child inside the namespace, as root (who may read the environment of every
process) or as nobody (who may read utmp and logind's files only), like a daemon without privileges.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.namespaces import Namespace

from nftban.prefixes import Prefix
from nftban.protect import host

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")

SERVER, SERVER6 = "192.0.2.1", "2001:db8::1"
ADMIN, ADMIN6, GUESSER = "198.51.100.7", "2001:db8:1::7", "203.0.113.66"
# The first look imports what the second needs: a checkout may be readable by root only.
LOOK = """
import os, sys
from nftban.protect import host
host.ssh_peers(map(int, sys.argv[2:]))
if sys.argv[1] == "nobody":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for p in host.ssh_peers(map(int, sys.argv[2:])):
    print(p.prefix, p.why, sep="|")
"""


@pytest.fixture
def machine() -> Iterator[Namespace]:
    made = Namespace("host")
    made.run(["mount", "-t", "tmpfs", "-o", "mode=755", "test-run", "/run"])
    made.run(["ip", "link", "set", "lo", "up"])
    yield made
    made.close()


def batch(machine: Namespace, *commands: str) -> None:
    machine.run(["ip", "-batch", "-"], input="\n".join(commands) + "\n")


def seen(machine: Namespace) -> dict[str, set[str]]:
    """{reason: addresses} of what host.addresses() finds in the machine's network."""
    found: dict[str, set[str]] = {}
    for protection in machine.call(host.addresses):
        found.setdefault(protection.why, set()).add(str(protection.prefix))
    return found


def test_own_addresses_and_gateways_of_both_families(machine: Namespace) -> None:
    batch(
        machine,
        "link add eth0 type veth peer name eth1",
        "link set eth0 up",
        "link set eth1 up",
        "address add 192.0.2.2/24 dev eth0",
        "address add 2001:db8::2/64 dev eth0 nodad",
        "address add 203.0.113.1 peer 203.0.113.2 dev eth0",
        "route add default via 192.0.2.1",
        "route add default via fe80::99 dev eth0",
    )
    found = seen(machine)
    own = found["an address of this machine"]
    assert {"127.0.0.1", "::1", "192.0.2.2", "2001:db8::2", "203.0.113.1"} <= own
    assert {a for a in own if not a.startswith("fe80::")} == {
        "127.0.0.1",
        "::1",
        "192.0.2.2",
        "2001:db8::2",
        "203.0.113.1",
    }
    assert found["a gateway of this machine"] == {"192.0.2.1", "fe80::99"}


def test_gateways_of_every_kind_of_route(machine: Namespace) -> None:
    batch(
        machine,
        "link add eth0 type veth peer name eth1",
        "link set eth0 up",
        "link set eth1 up",
        "address add 192.0.2.2/24 dev eth0",
        "address add 2001:db8::2/64 dev eth0 nodad",
        "route add 198.51.100.0/25 nexthop via 192.0.2.11 nexthop via inet6 2001:db8::12 dev eth0",
        "route add 198.51.100.128/25 via inet6 2001:db8::13 dev eth0",
        "route add 2001:db8:5::/48 nexthop via 2001:db8::14 nexthop via 2001:db8::15",
        "nexthop add id 5 via 192.0.2.16 dev eth0",
        "route add 203.0.113.0/24 nhid 5",
        "route add table 77 default via 192.0.2.17",
        "route add blackhole 100.64.0.0/10",
    )
    assert seen(machine)["a gateway of this machine"] == {
        "192.0.2.11",
        "2001:db8::12",
        "2001:db8::13",
        "2001:db8::14",
        "2001:db8::15",
        "192.0.2.16",
        "192.0.2.17",
    }


def test_a_machine_with_nothing_but_loopback(machine: Namespace) -> None:
    assert seen(machine) == {"an address of this machine": {"127.0.0.1", "::1"}}


# SSH


class Sshd:
    """A real sshd in the machine for root with one key; `session` logs in and stays."""

    def __init__(self, machine: Namespace, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        machine.run(["mkdir", "-m", "755", "/run/sshd"])
        batch(machine, *(f"address add {a} dev lo" for a in (SERVER, SERVER6, ADMIN, ADMIN6, GUESSER)))
        for name in ("host_key", "user_key"):
            machine.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name])
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        self.conf = folder / "sshd_config"
        self.conf.write_text(
            f"HostKey {folder}/host_key\nPidFile none\nAuthorizedKeysFile {folder}/authorized_keys\n"
            "PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPort 22\nPort 2222\n"
        )
        self._daemon: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._daemon = self.machine.popen(["/usr/sbin/sshd", "-D", "-e", "-f", self.conf], stderr=subprocess.PIPE)
        assert self._daemon.stderr is not None
        told = []
        for line in self._daemon.stderr:
            told.append(line)
            if len([t for t in told if t.startswith("Server listening on")]) == 4:
                return
        raise RuntimeError("".join(told))

    @contextlib.contextmanager
    def session(self, source: str, *options: str, server: str = SERVER, port: int = 22) -> Iterator[None]:
        """Logged in meanwhile; over, with the connection closed, when the block ends."""
        client = self.machine.popen(
            [
                *("ssh", "-F", "none", "-i", self.folder / "user_key", "-b", source, "-p", str(port)),
                *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"),
                *("-o", "ControlMaster=no", "-q", *options, f"root@{server}", "echo logged in; exec cat"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdin is not None and client.stdout is not None
        try:
            assert client.stdout.readline().strip() == "logged in"
            yield
        finally:
            client.stdin.close()
            client.terminate()
            client.wait(10)
            client.stdout.close()

    @contextlib.contextmanager
    def guesser(self, source: str, port: int = 22) -> Iterator[None]:
        """Connected and greeted, not logged in."""
        with self.machine.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
            s.settimeout(10)
            s.bind((source, 0))
            s.connect((SERVER, port))
            s.sendall(b"SSH-2.0-guesser\r\n")
            assert s.recv(8) == b"SSH-2.0-"
            yield

    def peers(self, *ports: int, user: str = "root") -> list[str]:
        """What ssh_peers() says in there."""
        done = self.machine.run(
            [sys.executable, "-c", LOOK, user, *map(str, ports or (22,))],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        lines = [line.split("|") for line in done.stdout.splitlines()]
        assert all(why == "a live SSH session comes from there" for _, why in lines)
        return [address for address, _ in lines]

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(10)
            assert self._daemon.stderr is not None
            self._daemon.stderr.close()


@pytest.fixture
def sshd(machine: Namespace, tmp_path: Path) -> Iterator[Sshd]:
    made = Sshd(machine, tmp_path)
    yield made
    made.close()


def test_who_is_logged_in_is_a_peer_and_who_only_knocks_is_not(sshd: Sshd) -> None:
    sshd.start()
    assert sshd.peers() == []
    with sshd.guesser(GUESSER):
        assert sshd.peers() == []
        with sshd.session(ADMIN), sshd.session(ADMIN6, server=SERVER6):
            assert sshd.peers() == [ADMIN, ADMIN6]
            connected = sshd.machine.call(lambda: host._connected(frozenset({22})))
            assert {str(p) for p in connected} == {ADMIN, ADMIN6, GUESSER}
        assert sshd.peers() == []
        # An address that was logged in and now only knocks is no longer protected.
        with sshd.guesser(ADMIN):
            assert sshd.peers() == []


def test_only_the_named_ports_count(sshd: Sshd) -> None:
    sshd.start()
    with sshd.session(ADMIN, port=2222):
        assert sshd.peers(22) == []
        assert sshd.peers(2222) == sshd.peers(22, 2222) == [ADMIN]


def test_a_session_that_outlives_its_listener_still_counts(sshd: Sshd) -> None:
    """As while sshd is restarted or updated."""
    sshd.start()
    with sshd.session(ADMIN):
        sshd.close()
        sshd._daemon = None
        assert sshd.peers() == [ADMIN]


def test_a_claim_without_a_connection_protects_nobody(sshd: Sshd) -> None:
    sshd.start()
    claims = {**os.environ, "SSH_CONNECTION": f"{ADMIN} 50000 {SERVER} 22"}
    liar = sshd.machine.popen(["sh", "-c", "echo up; exec cat"], env=claims, stdin=-1, stdout=-1)
    assert liar.stdin is not None and liar.stdout is not None
    assert liar.stdout.readline() == "up\n"
    with sshd.guesser(GUESSER):
        assert sshd.peers() == []
    liar.stdin.close()
    liar.wait(10)
    liar.stdout.close()


def test_a_socket_of_both_families_shows_ipv4_clients_as_ipv4(sshd: Sshd) -> None:
    """As with systemd's ssh.socket: the kernel lists the peer as ::ffff:198.51.100.7, in tcp6."""
    with sshd.machine.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 22))
        listener.listen()
        listener.settimeout(10)
        session = sshd.session(ADMIN)
        # ssh starts in __enter__, which waits for its login: the connection is taken by another thread meanwhile.
        served: list[subprocess.Popen[str]] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                inetd: list[str | Path] = ["/usr/sbin/sshd", "-i", "-f", sshd.conf]
                served.append(sshd.machine.popen(inetd, stdin=connection, stdout=connection, stderr=-3))

        thread = threading.Thread(target=serve)
        thread.start()
        with session:
            thread.join()
            table = sshd.machine.run(["cat", "/proc/net/tcp6"]).stdout
            assert "0000000000000000FFFF0000" in table
            assert sshd.peers() == [ADMIN]
        served[0].wait(10)


def test_without_privileges_utmp_tells(sshd: Sshd) -> None:
    """sshd notes a session with a terminal in utmp, with its address: a host name there would say nothing."""
    sshd.start()
    sshd.machine.run(["install", "-m", "644", "/dev/null", "/run/utmp"])
    with sshd.session(ADMIN, "-tt"), sshd.session(ADMIN6, "-tt", server=SERVER6), sshd.guesser(GUESSER):
        assert sshd.peers(user="nobody") == [ADMIN, ADMIN6]
    assert sshd.peers(user="nobody") == []


def test_without_privileges_and_with_names_in_utmp_the_address_field_tells(sshd: Sshd) -> None:
    hosts = sshd.folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{ADMIN} a-host-name.example.net\n")
    sshd.machine.run(["mount", "--bind", hosts, "/etc/hosts"])
    sshd.conf.write_text("UseDNS yes\n" + sshd.conf.read_text())
    sshd.start()
    sshd.machine.run(["install", "-m", "644", "/dev/null", "/run/utmp"])
    with sshd.session(ADMIN, "-tt"):
        assert b"a-host-name.example.net" in sshd.machine.run(["cat", "/run/utmp"]).stdout.encode()
        assert sshd.peers(user="nobody") == [ADMIN]


def test_without_privileges_and_without_utmp_logind_tells(sshd: Sshd) -> None:
    sshd.start()
    sshd.machine.run(["mkdir", "-p", "/run/systemd/sessions"])
    with sshd.session(ADMIN), sshd.guesser(GUESSER):
        assert sshd.peers(user="nobody") == []
        text = f"# This is private data. Do not parse.\nUID=0\nSTATE=active\nREMOTE=1\nREMOTE_HOST={ADMIN}\nTYPE=tty\n"
        sshd.machine.run(["tee", "/run/systemd/sessions/5"], input=text)
        sshd.machine.run(["tee", "/run/systemd/sessions/6.ref"], input="")
        assert sshd.peers(user="nobody") == [ADMIN]


# utmp and SSH_CONNECTION by themselves

RECORD = (
    "[{kind}] [01234] [ts/0] [root    ] [pts/0       ] [{host:20}] [{address:15}] [2026-01-02T03:04:05,000000+00:00]\n"
)


def utmp_file(folder: Path, *records: tuple[int, str, str]) -> Path:
    """A utmp file written by utmpdump(1) from (type, host, address)."""
    if shutil.which("utmpdump") is None:
        pytest.skip("needs utmpdump, which Debian 13 has no more")
    text = "".join(RECORD.format(kind=kind, host=name, address=address) for kind, name, address in records)
    file = folder / "utmp"
    file.write_bytes(subprocess.run(["utmpdump", "-r"], input=text.encode(), check=True, capture_output=True).stdout)
    return file


def test_utmp_tells_user_sessions_only(tmp_path: Path) -> None:
    file = utmp_file(
        tmp_path,
        (2, "6.1.0-kernel", "0.0.0.0"),
        (7, "198.51.100.7", "0.0.0.0"),
        (7, "a.example.net", "203.0.113.9"),
        (8, "203.0.113.10", "203.0.113.10"),
        (7, "2001:db8::5", "2001:db8::5"),
        (6, "203.0.113.11", "0.0.0.0"),
    )
    assert file.stat().st_size == 6 * host._UTMP.size
    found = set(host._parsed(host._utmp_hosts(file)))
    assert found - {Prefix.parse("0.0.0.0")} == {
        Prefix.parse(a) for a in ("198.51.100.7", "203.0.113.9", "2001:db8::5")
    }


def test_a_utmp_cut_short_or_full_of_junk_is_survived(tmp_path: Path) -> None:
    file = utmp_file(tmp_path, (7, "198.51.100.7", "198.51.100.7"), (7, "198.51.100.8", "198.51.100.8"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert set(host._parsed(host._utmp_hosts(file))) == {Prefix.parse("198.51.100.7")}
    record = whole[: host._UTMP.size]
    file.write_bytes(record.replace(b"198.51.100.7", b"\xff\x00%eth0/32\x1b[") + b"\xff" * 1000)
    assert set(host._parsed(host._utmp_hosts(file))) == {Prefix.parse("198.51.100.7")}
    assert list(host._utmp_hosts(tmp_path / "none")) == []
    assert list(host._logind_hosts(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("198.51.100.7 50000 192.0.2.1 22", "198.51.100.7"),
        ("2001:db8::7 50000 2001:db8::1 22", "2001:db8::7"),
        ("fe80::7%eth0 50000 fe80::1%eth0 22", "fe80::7"),
        ("::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", "198.51.100.7"),
    ],
)
def test_ssh_connection_begins_with_the_client(value: str, address: str) -> None:
    assert host.ssh_connection(value) == Prefix.parse(address)


@pytest.mark.parametrize(
    "value", ["", " ", "UNKNOWN 65535 UNKNOWN 65535", "\x00", "\udcff 1 2 3", "192.0.2 1 2 3", "%"]
)
def test_ssh_connection_without_an_address(value: str) -> None:
    assert host.ssh_connection(value) is None
