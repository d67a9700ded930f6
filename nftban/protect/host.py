"""What this machine must not lose: its own addresses, gateways, and whoever is logged in by SSH.

Takes nothing but the running system; gives `Protection`s.
Guarantees: an SSH peer counts only while it holds an established connection and a login: a guesser's open
connection protects nobody.  Logins are seen by what an unprivileged daemon may read (utmp, logind's session
files) and, where it may, the environment of processes (SSH_CONNECTION).  A source of logins that cannot be read is
skipped: each one adds, none takes away; without the table of connections there is no answer, and OSError is raised.
Blocking; call it from a thread.
Sources: rtnetlink(7), utmp(5), sd-login(3), proc_net_tcp, sshd(8) ENVIRONMENT.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyroute2 import IPRoute

from nftban.prefixes import Prefix
from nftban.protect.protected import Protection

_ESTABLISHED = 1
_UTMP = struct.Struct("=hxxi32s4s32s256shhiii16s20x")  # struct utmp of Linux, 384 bytes (bits/types/struct_utmp.h)
_USER_PROCESS = 7


def addresses() -> list[Protection]:
    """Own addresses and gateways of this network namespace."""
    with IPRoute() as rtnetlink:
        own = [message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in rtnetlink.get_addr()]
        gateways = []
        for route in rtnetlink.get_routes():
            for hop in (route, *(route.get_attr("RTA_MULTIPATH") or ())):
                gateways.append(hop.get_attr("RTA_GATEWAY"))
                via = hop.get_attr("RTA_VIA")  # a gateway of the other family
                gateways.append(via.get("addr") if via else None)
    return [
        *(Protection(p, "an address of this machine") for p in _parsed(own)),
        *(Protection(p, "a gateway of this machine") for p in _parsed(gateways)),
    ]


def ssh_peers(ports: Iterable[int]) -> list[Protection]:
    """Clients with a live, logged-in SSH session on one of these local ports."""
    connected = _connected(frozenset(ports))
    if not connected:
        return []
    return [Protection(p, "a live SSH session comes from there") for p in sorted(connected & set(_logged_in()))]


def ssh_connection(value: str) -> Prefix | None:
    """The client's address in SSH_CONNECTION ("address port address port"); None where there is none."""
    return next(_parsed(value.split()[:1]), None)


def _parsed(texts: Iterable[str | None]) -> Iterator[Prefix]:
    for text in texts:
        if text:
            try:
                yield Prefix.parse(text.partition("%")[0])
            except ValueError:
                continue


def _connected(ports: frozenset[int]) -> set[Prefix]:
    """Peers of established TCP connections to these local ports (/proc/net/tcp, tcp6)."""
    peers = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6; anything else must be heard of
        for line in lines:
            local, remote, state = line.split()[1:4]
            if int(state, 16) == _ESTABLISHED and int(local.rpartition(":")[2], 16) in ports:
                peers.add(_hex_address(remote.rpartition(":")[0]))
    return peers


def _hex_address(text: str) -> Prefix:
    """The kernel prints each 32-bit word of the address in the machine's byte order."""
    raw = bytes.fromhex(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return Prefix.from_packed(raw)


def _logged_in() -> Iterator[Prefix]:
    yield from _parsed(_utmp_hosts(Path("/run/utmp")))
    yield from _parsed(_logind_hosts(Path("/run/systemd/sessions")))
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            for variable in process.read_bytes().split(b"\0"):
                if variable.startswith(b"SSH_CONNECTION="):
                    peer = ssh_connection(os.fsdecode(variable.partition(b"=")[2]))
                    if peer is not None:
                        yield peer
        except OSError:
            continue


def _utmp_hosts(path: Path) -> Iterator[str]:
    try:
        records = path.read_bytes()
    except OSError:
        return
    for at in range(0, len(records) - _UTMP.size + 1, _UTMP.size):
        kind, _, _, _, _, host, *_, address = _UTMP.unpack_from(records, at)
        if kind == _USER_PROCESS:
            # The host may be a name, or cut short; the address is of IPv4 where all but its first word is 0.
            yield host.split(b"\0")[0].decode("ascii", "replace")
            yield str(Prefix.from_packed(address if any(address[4:]) else address[:4]))


def _logind_hosts(folder: Path) -> Iterator[str]:
    try:
        files = list(folder.iterdir())
    except OSError:
        return
    for file in files:
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            continue
        yield from (line.partition("=")[2].strip() for line in text.splitlines() if line.startswith("REMOTE_HOST="))
