"""The server's DNS: rbldnsd as the DNSBLs, unbound as the one resolver that everything asks.

Takes DNSBL zones as {zone: {address: [codes]}} and reverse names as {address: name}; gives `Dns`, a resolver on
127.0.0.1:53 of the server's namespace that answers both and NXDOMAIN for all other names.
Every zone carries the test entries of RFC 5782 5 (127.0.0.2 and ::FFFF:7F00:2 listed, 127.0.0.1 not) unless told not
to.  Guarantees: when the constructor or `relist` returns, the new entries are being served; the resolver caches
nothing, so that they are also what the next query gets.
Does not: sign, or forward queries anywhere.
Source: rbldnsd(8), unbound.conf(5), RFC 5782.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.logfile import LogFile
from lab.namespaces import Namespace

Listings = Mapping[str, Sequence[str]]  # address -> codes

RESOLVER = "127.0.0.1"
RBLDNSD_PORT = 5353
TEST_POINTS: dict[str, list[str]] = {"127.0.0.2": ["127.0.0.2"]}  # ip4set answers ::ffff:7f00:2 from it too


class Rbldnsd:
    """A running rbldnsd that serves all the zones; a context manager.

    test_points: add the entries of RFC 5782; without them a zone looks like one that was emptied.  bulk: {zone: lines
    of an ip4set} for more entries than a mapping should hold; they stay through `relist`.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        zones: Mapping[str, Listings],
        *,
        test_points: bool = True,
        bulk: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        folder.mkdir(mode=0o755, exist_ok=True)
        self.zones = {zone: dict(listings) for zone, listings in zones.items()}
        self._folder = folder
        self._test_points = test_points
        self._generation = 1
        self._log = LogFile(folder / "rbldnsd.log")
        self._write()
        datasets = [f"{zone}:{kind}:{zone}.{kind}" for zone in self.zones for kind in ("ip4set", "ip6trie")]
        for zone, lines in (bulk or {}).items():
            (folder / f"{zone}.bulk").write_text("\n".join(lines) + "\n")
            datasets.append(f"{zone}:ip4set:{zone}.bulk")
        self._process = namespace.daemon(
            ["rbldnsd", "-n", "-e", "-c", "0", "-w", folder, "-b", f"{RESOLVER}/{RBLDNSD_PORT}", *datasets],
            self._log.path,
        )
        try:
            self._log.wait_for("rbldnsd version .* started")
        except BaseException:
            self.close()
            raise

    def _write(self) -> None:
        for zone, listings in self.zones.items():
            entries = {**(TEST_POINTS if self._test_points else {}), **listings}
            lines: dict[int, list[str]] = {
                4: [
                    f"$SOA 60 ns.{zone} hostmaster.{zone} {self._generation} 600 300 86400 60",
                    f"$NS 60 ns.{zone}",
                    "$TTL 60",
                ],
                6: [],
            }
            for address, codes in entries.items():
                ip = ipaddress.ip_address(address)
                if ip.version == 6 and len(codes) > 1:
                    raise ValueError(f"{address}: rbldnsd's ip6trie holds one code per address")
                lines[ip.version] += [f"{ip.exploded} :{code}:listed by the lab" for code in codes]
            for version, kind in ((4, "ip4set"), (6, "ip6trie")):
                path = self._folder / f"{zone}.{kind}"
                path.write_text("\n".join(lines[version]) + "\n")
                # rbldnsd takes a file for changed when its modification time (whole seconds, not 0) differs.
                os.utime(path, (self._generation, self._generation))

    def relist(self, zone: str, listings: Listings) -> None:
        """Replace a zone's entries; returns when rbldnsd serves them."""
        self.zones[zone] = dict(listings)
        self._generation += 1
        self._write()
        before = len(self._log.matching("zones reloaded"))
        self._process.send_signal(signal.SIGHUP)
        self._log.wait_for("zones reloaded", count=before + 1)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def __enter__(self) -> Rbldnsd:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Dns:
    """rbldnsd and unbound together, the resolver of the server's namespace; a context manager.

    reverse: {address: name}; the name is given the address back as A or AAAA, so that it is forward-confirmed.
    unconfirmed: {address: name} whose name has no address.  silent: names below which nothing is ever answered, as
    with a dead name server.  An address in none of them has no name: NXDOMAIN.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        zones: Mapping[str, Listings],
        reverse: Mapping[str, str],
        *,
        unconfirmed: Mapping[str, str] | None = None,
        silent: Iterable[str] = (),
        test_points: bool = True,
        bulk: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        folder.mkdir(mode=0o755, exist_ok=True)
        self.resolver = RESOLVER
        with contextlib.ExitStack() as stack:
            self.rbldnsd = stack.enter_context(Rbldnsd(namespace, folder, zones, test_points=test_points, bulk=bulk))
            log = LogFile(folder / "unbound.log")
            conf = folder / "unbound.conf"
            conf.write_text(_unbound_conf(zones, reverse, unconfirmed or {}, silent))
            process = namespace.daemon(["unbound", "-d", "-c", conf], log.path)
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
            log.wait_for("start of service")
            self._stack = stack.pop_all()

    def relist(self, zone: str, listings: Listings) -> None:
        """Replace a DNSBL's entries; returns when they are served."""
        self.rbldnsd.relist(zone, listings)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Dns:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _unbound_conf(
    zones: Iterable[str], reverse: Mapping[str, str], unconfirmed: Mapping[str, str], silent: Iterable[str]
) -> str:
    pointers = [*reverse.items(), *unconfirmed.items()]
    lines = [
        "server:",
        f"interface: {RESOLVER}",
        "port: 53",
        'chroot: ""',
        'username: ""',
        'pidfile: ""',
        "use-syslog: no",
        'module-config: "iterator"',
        "do-not-query-localhost: no",
        "cache-max-ttl: 0",
        "cache-max-negative-ttl: 0",
        "num-threads: 1",
        'local-zone: "." static',  # what is not said below does not exist
        *(f'local-zone: "{zone}." transparent' for zone in zones),
        *(f'local-zone: "{name}." deny' for name in silent),
        *(f'local-data: "{ipaddress.ip_address(a).reverse_pointer}. 60 IN PTR {name}."' for a, name in pointers),
        *(f'local-data: "{name}. 60 IN {"AAAA" if ":" in a else "A"} {a}"' for a, name in reverse.items()),
    ]
    for zone in zones:
        lines += ["stub-zone:", f'name: "{zone}."', f"stub-addr: {RESOLVER}@{RBLDNSD_PORT}", "stub-prime: no"]
    return "\n".join(lines) + "\n"
