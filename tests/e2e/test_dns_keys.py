"""An account key is in the settings and in DNS queries, and nowhere else: everything that is written is searched."""

from __future__ import annotations

import json
import time
from pathlib import Path

from lab.dns import Dns
from lab.faults import Fault, FaultyResolver
from lab.namespaces import Namespaces
from lab.nftban import Nftban, eventually

from nftban.control.client import call

KEY, SERVERS = "k3yabcdefghijklmnopqrstuvw", "k3yzyxwvutsrqponmlkjihgfedc"
"""Ours, and one that only the mail server asks with."""
SHOWN = "zen.dq.spamhaus.net"
ZONE, THEIRS, UNKNOWN = f"{KEY}.{SHOWN}", f"{SERVERS}.authbl.dq.spamhaus.net", f"{KEY}.lists.example.org"
LISTED, OTHER, LOGGED, REFUSED = "203.0.113.5", "203.0.113.6", "203.0.113.7", "203.0.113.8"
BY_HAND = "203.0.113.99"


def keys_in(data: bytes | str) -> bool:
    raw = data if isinstance(data, bytes) else data.encode()
    return b"k3y" in raw.lower()


def test_keys_are_nowhere(machines: Namespaces, folder: Path) -> None:
    mail = folder / "mail.log"
    mail.touch()

    def write(*lines: str) -> None:
        with mail.open("a") as log:
            log.writelines(f"{time.strftime('%b %e %H:%M:%S')} mail postfix/{line}\n" for line in lines)

    def offend(address: str, first: int) -> None:
        write(*(f"smtpd[{n}]: warning: non-SMTP command from unknown[{address}]: ." for n in range(first, first + 2)))

    listed = {address: ["127.0.0.4"] for address in (LISTED, OTHER)}
    settings = (
        f'[dnsbl]\nzones = ["{ZONE}=127.0.0.[2..9]*4", "{UNKNOWN}*1"]\ntest_every = 1\n[reverify]\nevery = 1\n'
        f'[jail.postfix]\nlogpath = "{mail}"\n[jail.sshd]\nenabled = false\n[kernel]\nlog = "nftban"\n'
    )
    with (
        Dns(machines.server, folder / "dns", {ZONE: listed, UNKNOWN: {}}, {}) as good,
        FaultyResolver(machines.server, good.resolver) as resolver,
        Nftban(
            machines.server,
            folder / "nftban",
            f'[dns]\nservers = ["{resolver.server}"]\ndeadline = 1\n{settings}',
        ) as nftban,
    ):
        socket = folder / "nftban" / "run" / "control.sock"
        answers: list[str] = []

        def ask(op: str, **args: object) -> None:
            answers.append(json.dumps(call(socket, op, dict(args))))

        offend(LISTED, 10)
        nftban.await_ban(LISTED)
        # What the mail server's own lines say of it, in every form.
        write(
            f"dnsblog[1]: addr {LOGGED} listed by domain {ZONE} as 127.0.0.4",
            f"dnsblog[2]: addr {LOGGED} listed by domain {THEIRS.upper()} as 127.0.0.20",
            *(
                f"smtpd[{n}]: NOQUEUE: reject: RCPT from unknown[{REFUSED}]: 554 5.7.1 Service unavailable; Client "
                f"host [{REFUSED}] blocked using {zone}; https://{zone}/q; from=<a@b.example> to=<c@d.example> "
                f"proto=ESMTP helo=<{zone}>"
                for n, zone in enumerate((ZONE, THEIRS, UNKNOWN) * 2, 20)
            ),
        )
        offend(LOGGED, 30)
        nftban.await_ban(LOGGED)
        nftban.await_ban(REFUSED)
        for number, fault in enumerate(
            (Fault.SERVFAIL, Fault.REFUSED, Fault.GARBAGE, Fault.SILENT, None, Fault.PARKED)
        ):
            if fault is None:
                resolver.recover(ZONE)
                resolver.answer(ZONE, "127.255.255.254")
            else:
                resolver.behave(ZONE, fault)
            offend(f"203.0.113.{100 + number}", 100 + 10 * number)
            ask("check", address=f"203.0.113.{120 + number}", helo="mail.example.org")
        nftban.log.wait_for(rf"{SHOWN} is (?:blocked|lists the world) now")
        resolver.behave(UNKNOWN, Fault.LISTS_WORLD)
        nftban.log.wait_for("lists.example.org is lists the world now")
        eventually(
            lambda: "203.0.113.105" in json.dumps(nftban.json("why", "203.0.113.105")["watched"]), "it is watched"
        )
        for address in (LISTED, OTHER, LOGGED, REFUSED, *(f"203.0.113.{n}" for n in range(100, 106))):
            ask("why", address=address)
            ask("query", address=address)
        for op in ("status", "list", "verify", "ping"):
            ask(op)
        ask("unban", prefixes=[REFUSED])
        nftban.cli("ban", BY_HAND, "--reason", "by hand", check=True)
        shown = [
            nftban.cli(*words).stdout + nftban.cli(*words).stderr
            for words in (
                *(("why", address) for address in (LISTED, LOGGED, REFUSED)),
                *(("status",), ("list",), ("config", "show"), ("config", "show", "--json"), ("config", "check")),
                *(("check", "203.0.113.130", "--json"), ("verify",)),
            )
        ]
        ruleset = machines.server.run(["nft", "list", "ruleset"]).stdout
    assert SHOWN in "".join(answers) and SHOWN in "".join(shown) and BY_HAND in ruleset, "something was looked at"
    for what, text in (("an answer", answers), ("a command's output", shown), ("the ruleset", [ruleset])):
        for one in text:
            assert not keys_in(one), f"{what}: {one}"
    assert KEY in "".join(resolver.asked), "asked with it"
    written = [path for path in (folder / "nftban").rglob("*") if path.is_file() and path.name != "test.toml"]
    assert {"state.db", "dns-cache.json", "daemon.log"} <= {path.name for path in written}
    leaks = {path.name: _around(path.read_bytes()) for path in written if keys_in(path.read_bytes())}
    assert not leaks


def _around(data: bytes) -> str:
    at = data.lower().index(b"k3y")
    return repr(data[max(0, at - 100) : at + 100])
