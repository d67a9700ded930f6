"""fail2ban's own jails over a stream of lines, on the log's time.  Runs as a program of Debian's Python.

Takes fail2ban's configuration directory and the names of jails; on standard input a line each: time, port, address,
log, text, with tabs between.  Gives on standard output one JSON object: `prevented`, the numbers of the lines that a
ban kept away, and `bans`: address, ports, begin, end.
What runs is fail2ban's: its jail reader, its commands, its filters with their own date search, its failure and ban
counting.  Only three things are ours: the clock says what the log says, the action notes a ban instead of calling
iptables, and a line whose address is banned on its port is not given to the jails, since it would not have been logged.
A ban holds at once, where the real one takes up to a second.
"""

from __future__ import annotations

import json
import logging
import sys
from importlib import import_module
from typing import Any

PORTS = {
    "ssh": [22], "smtp": [25], "465": [465], "submission": [587], "imap": [143], "imaps": [993], "pop3": [110],
    "pop3s": [995], "sieve": [4190],
}  # fmt: skip
LEFT_OUT = ("addlogpath", "addaction", "action", "addjournalmatch", "logencoding")


class Note:
    """An action that only notes.  held: whom it bans, and since when."""

    banEpoch = 0

    def __init__(self, clock: Any, ports: list[int]) -> None:
        self.clock, self.ports = clock, ports
        self.held: dict[str, float] = {}
        self.bans: list[tuple[str, list[int], float, float]] = []

    def ban(self, info: Any) -> None:
        self.held[str(info["ip"])] = self.clock()

    def unban(self, info: Any) -> None:
        ip = str(info["ip"])
        self.bans.append((ip, self.ports, self.held.pop(ip), self.clock()))

    def close(self) -> None:
        self.bans += [(ip, self.ports, since, self.clock()) for ip, since in self.held.items()]


def main() -> None:
    configuration, *names = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    time = import_module("fail2ban.server.mytime").MyTime
    time.setTime(1.0)
    server, notes = _server(configuration, names, time.time)
    # A jail reads the log whose server it is about.
    jails = {"mail": [n for n in names if n != "sshd"], "auth": ["sshd"]}
    prevented: list[int] = []
    for number, row in enumerate(sys.stdin):
        at, port, address, log, text = row.rstrip("\n").split("\t", 4)
        time.setTime(float(at))
        for name in names:
            server.jail(name).actions._Actions__checkUnBan(1 << 30)
        if any(address in note.held and int(port) in note.ports for note in notes.values()):
            prevented.append(number)
            continue
        for name in jails[log]:
            jail = server.jail(name)
            jail.filter.processLineAndAdd(text)
            if jail.hasFailTickets:
                jail.actions._Actions__checkBan()
    for note in notes.values():
        note.close()
    json.dump({"prevented": prevented, "bans": [b for n in notes.values() for b in n.bans]}, sys.stdout)


class Jails:
    """fail2ban's server with its jails, whose threads do not run."""

    def __init__(self) -> None:
        self.server = import_module("fail2ban.server.server").Server(daemon=False)
        self.command = import_module("fail2ban.server.transmitter").Transmitter(self.server).proceed

    def jail(self, name: str) -> Any:
        return self.server._Server__jails[name]


def _server(configuration: str, names: list[str], clock: Any) -> tuple[Jails, dict[str, Note]]:
    reader = import_module("fail2ban.client.jailsreader").JailsReader(basedir=configuration)
    if not reader.read():
        raise SystemExit(f"{configuration}: no jails")
    reader.getOptions()
    made, ports = Jails(), {}
    for command in reader.convert(allow_no_files=True):
        verb, name = command[0], command[1]
        if name not in names or verb == "start" or verb == "config-error":
            continue
        if verb == "add":
            command = [verb, name, "polling"]
        elif command[2] in LEFT_OUT:
            values = command[-1] if isinstance(command[-1], list) else []
            for value in values:
                if isinstance(value, (list, tuple)) and value[0] == "port":
                    ports[name] = sorted({p for word in value[1].split(",") for p in PORTS[word.strip()]})
            continue
        code, answer = made.command(command)
        if code:
            raise SystemExit(f"fail2ban refuses {command}: {answer}")
    notes = {name: Note(clock, ports[name]) for name in names}
    for name, note in notes.items():
        made.jail(name).actions._actions["note"] = note
    return made, notes


if __name__ == "__main__":
    main()
