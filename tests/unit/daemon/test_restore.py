"""Restoring without a daemon, and the text for nft(8): on the real kernel, in a network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nftban.prefixes import Prefix
from nftban.records import Ban, Origin
from nftban.store.sqlite import Store
from tests.unit.control.serving import listening

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None, reason="makes a network namespace, and asks nft"
)
PREFIXES = ("203.0.113.7", "198.51.100.0/24", "198.18.0.0/20", "198.18.1.0/28", "2001:db8::/64", "2001:db8:1::/48")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a store with one ban of each kind, and two that are over or of a scope that is no more."""
    file = tmp_path / "nftban.toml"
    file.write_text(
        f'[daemon]\nsocket = "{tmp_path}/control.sock"\nstate = "{tmp_path}/state.db"\n'
        '[allow]\nprefixes = ["192.0.2.0/28"]\n[dns]\nservers = "127.0.0.1:9"\n[dnsbl]\nenabled = false\n'
        "[scopes]\nsmtp = [25]\n"
    )
    store, now = Store(tmp_path / "state.db"), time.time()
    for n, text in enumerate(PREFIXES):
        until = now + 3600 if n % 2 else None
        store.add_ban(Ban(Prefix.parse(text), ("all", "smtp")[n % 2], now, until, Origin.MANUAL))
    store.add_ban(Ban(Prefix.parse("203.0.113.8"), "all", now - 20, now - 10, Origin.MANUAL))
    store.add_ban(Ban(Prefix.parse("203.0.113.9"), "gone", now, now + 3600, Origin.MANUAL))
    store.close()
    return file


def shell(config: Path, *lines: str) -> list[str]:
    """What each line prints, one after the other in a fresh network namespace; N stands for nftban."""
    command = f"{sys.executable} -m nftban -c {config}"
    script = "set -e; " + "; echo @@; ".join(line.replace("N ", f"{command} ") for line in lines)
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("@@\n")


def test_the_kernel_holds_what_the_store_says_and_a_second_time_changes_nothing(config: Path) -> None:
    first, second, verified = shell(config, "N restore --json", "N restore --json", "N verify --json")
    done: dict[str, Any] = json.loads(first)
    assert (done["bans"], done["refused"], done["note"]) == (len(PREFIXES), [], "")
    assert done["changed"] >= len(PREFIXES)
    assert json.loads(second)["changed"] == 0
    assert json.loads(verified)["equal"]


def test_what_nft_loads_is_what_a_restore_makes(config: Path) -> None:
    file = config.with_name("bans.nft")
    listed = "nft --json list table inet nftban"
    restored, loaded = shell(
        config,
        f"N export --nft > {file}; N restore > {os.devnull}; {listed}",
        f"nft delete table inet nftban; nft -f {file}; nft -f {file}; {listed}",
    )

    def elements(text: str) -> dict[str, set[str]]:
        sets = [o["set"] for o in json.loads(text)["nftables"] if "set" in o]
        found: dict[str, set[str]] = {}
        for one in sets:
            found[one["name"]] = set()
            for element in one.get("elem", ()):
                value, timed = element, False
                if isinstance(element, dict) and "elem" in element:
                    value, timed = element["elem"]["val"], "timeout" in element["elem"]
                found[one["name"]].add(json.dumps([value, timed], sort_keys=True))
        return found

    ours, theirs = elements(restored), elements(loaded)
    assert sum(map(len, ours.values())) > len(PREFIXES)
    assert ours == theirs


def test_observing_writes_nothing_to_the_kernel_without_a_daemon_either(config: Path) -> None:
    config.write_text(config.read_text().replace("[daemon]\n", "[daemon]\nobserve = true\n"))
    done, banned, queried, table = shell(
        config, "N restore --json", "N ban 203.0.113.77", "N query 203.0.113.77", "nft list tables"
    )
    assert "observe" in json.loads(done)["note"]
    assert "203.0.113.77" in banned and "203.0.113.77" in queried
    assert table == ""


def test_a_machine_without_a_store_has_nothing_to_restore(config: Path) -> None:
    config.with_name("state.db").unlink()
    done, table = shell(config, "N restore --json", "nft list tables")
    assert json.loads(done)["note"].startswith("there is no store")
    assert (table, config.with_name("state.db").exists()) == ("", False)


def test_where_a_daemon_runs_it_is_left_alone(config: Path) -> None:
    async def call(op: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"version": "1", "pid": 4711}

    with listening(config.with_name("control.sock"), call):
        done, table = shell(config, "N restore --json", "nft list tables")
    assert json.loads(done)["note"] == "the daemon (process 4711) runs and keeps the kernel's sets"
    assert table == ""
