"""fail2ban over simulated traffic, as a program of its own.

Takes a Population and where Debian's package lies unpacked; gives the Outcome.  The jails are those a server with
Postfix, Dovecot and SSH switches on, sshd, postfix, postfix-sasl and dovecot, with the package's values untouched.
`fail2ban_jails` is what runs under Debian's Python.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from traffic.outcome import Outcome, Span
from traffic.population import Population
from traffic.simulate import simulated

PYTHON = Path("/usr/bin/python3")
JAILS = ("sshd", "postfix", "postfix-sasl", "dovecot")


def run(people: Population, root: Path) -> Outcome:
    """root: what stands for `/`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "fail2ban"
        shutil.copytree(root / "etc/fail2ban", settings)
        (settings / "jail.local").write_text("".join(f"[{name}]\nenabled = true\n" for name in JAILS))
        answer = Path(folder) / "answer.json"
        with answer.open("w") as out:
            program = subprocess.Popen(
                [PYTHON, Path(__file__).with_name("fail2ban_jails.py"), settings, *JAILS],
                stdin=subprocess.PIPE,
                stdout=out,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": str(root / "usr/lib/python3/dist-packages"), "TZ": "UTC"},
            )
            assert program.stdin is not None
            with program.stdin as rows:
                for line in simulated(people):
                    rows.write(f"{line.time!r}\t{line.port}\t{line.address}\t{line.log}\t{line.text}\n")
            if program.wait():
                raise RuntimeError(f"fail2ban's jails ended with {program.returncode}")
        found = json.loads(answer.read_text())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spans = [Span(ip, frozenset(ports), since, min(until, people.end)) for ip, ports, since, until in found["bans"]]
    return Outcome("fail2ban", set(found["prevented"]), spans, 0, after.ru_utime - before.ru_utime)
