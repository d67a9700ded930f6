"""CrowdSec over simulated traffic: its own engine and local API, in the mode that reads a past log on the log's time.

Takes a Population and where Debian's package lies unpacked; gives the Outcome.  Parsers and scenarios are those of the
package's postfix, dovecot and sshd collections, the profile is the package's: an alert bans its address for four
hours, on every port.  Its Central API is off, so no list of its community takes part.
Limit: a past log is read as a whole, so lines that a ban would have kept away are read too.  Of an address's alerts
those that began while it was banned are left out, which is what would have become of them.
"""

from __future__ import annotations

import resource
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from itertools import takewhile
from pathlib import Path

from traffic.outcome import ALL_PORTS, Outcome, Span
from traffic.population import Population
from traffic.simulate import simulated

BAN = 4 * 3600.0
HUB = Path("usr/share/crowdsec/hub")
PARTS = {
    "parsers/s00-raw": ("syslog-logs",),
    "parsers/s01-parse": ("postfix-logs", "postscreen-logs", "dovecot-logs", "sshd-logs"),
    "parsers/s02-enrich": ("dateparse-enrich",),
    "scenarios": ("postfix-spam", "dovecot-spam", "ssh-bf", "ssh-slow-bf"),
}
"""What the three collections name, and what they need to read syslog and its dates."""

CONFIG = """
common: {{daemonize: false, log_media: stdout, log_level: error, working_dir: .}}
config_paths:
  config_dir: {0}/etc/
  data_dir: {0}/data/
  simulation_path: {0}/etc/simulation.yaml
  hub_dir: {1}/
  index_path: {1}/.index.json
  notification_dir: {0}/etc/notifications/
  plugin_dir: {0}/etc/plugins/
crowdsec_service: {{acquisition_path: {0}/etc/acquis.yaml, parser_routines: 1}}
cscli: {{output: human}}
db_config:
  {{log_level: error, type: sqlite, db_path: {0}/alerts.db, flush: {{max_items: 10000000, max_age: 36500d}}}}
plugin_config: {{user: nobody, group: nogroup}}
api:
  client: {{credentials_path: {0}/etc/credentials.yaml}}
  server:
    log_level: error
    listen_uri: "127.0.0.1:{2}"
    profiles_path: {0}/etc/profiles.yaml
    console_path: {0}/etc/console.yaml
prometheus: {{enabled: false}}
"""


def run(people: Population, root: Path) -> Outcome:
    """root: what stands for `/`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        set_up(folder, root)
        with (folder / "all.log").open("w", encoding="utf-8") as log:
            log.writelines(f"{line.text}\n" for line in simulated(people))
        configuration = folder / "etc/config.yaml"
        add: list[str | Path] = ["machines", "add", "judge", "--auto", "--force", "-f", folder / "etc/credentials.yaml"]
        call([root / "usr/bin/cscli", "-c", configuration, *add])
        call([root / "usr/bin/crowdsec", "-c", configuration, "-dsn", f"file://{folder}/all.log", "-type", "syslog"])
        spans = list(as_spans(alerts(folder / "alerts.db"), people.end))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Outcome("CrowdSec", _prevented(people, spans), spans, 0, after.ru_utime - before.ru_utime)


def set_up(folder: Path, root: Path) -> None:
    etc = folder / "etc"
    for place, names in PARTS.items():
        (etc / place).mkdir(parents=True)
        for name in names:
            shutil.copy(root / HUB / place / "crowdsecurity" / f"{name}.yaml", etc / place)
    (folder / "data").mkdir()
    shutil.copytree(root / "etc/crowdsec/patterns", etc / "patterns")
    for name in ("profiles.yaml", "simulation.yaml"):
        shutil.copy(root / "etc/crowdsec" / name, etc)
    for name in ("acquis.yaml", "credentials.yaml"):
        (etc / name).touch()
    (etc / "console.yaml").write_text("share_manual_decisions: false\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (etc / "config.yaml").write_text(CONFIG.format(folder, (root / HUB).absolute(), port))


def call(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")


def alerts(database: Path) -> list[tuple[str, float, float]]:
    """Address, begin and end of each alert."""
    with sqlite3.connect(database) as opened:
        rows = opened.execute("SELECT source_value, started_at, stopped_at FROM alerts").fetchall()
    return [(address, seconds(began), seconds(ended)) for address, began, ended in rows]


def seconds(text: str) -> float:
    """The time (UTC) as Go writes it, with a fraction of any length, which datetime does not read."""
    head, _, tail = text.partition(".")
    fraction = "".join(takewhile(str.isdigit, tail))
    return datetime.fromisoformat(f"{head[:19]}+00:00").timestamp() + float(f"0.{fraction or 0}")


def as_spans(alerts: Iterable[tuple[str, float, float]], end: float) -> Iterable[Span]:
    """The bans of alerts (address, begin, end), up to `end`; those that began during a ban are left out."""
    held: dict[str, float] = defaultdict(float)
    for address, began, ended in sorted(alerts, key=lambda alert: alert[2]):
        if began >= held[address]:
            held[address] = ended + BAN
            yield Span(address, ALL_PORTS, ended, min(ended + BAN, end))


def _prevented(people: Population, spans: list[Span]) -> set[int]:
    by_address: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_address[span.prefix].append(span)
    return {
        number
        for number, line in enumerate(simulated(people))
        if any(s.since < line.time < s.until for s in by_address.get(line.address, ()))
    }
