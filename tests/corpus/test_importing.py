"""`nftban import fail2ban` on Debian's own jail.conf: what it prints can be loaded and means the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nftban.config.load import load
from nftban.daemon.assemble import assemble
from nftban.detect import jailfile
from nftban.kernel.layout import ALL
from nftban.prefixes import Prefix


def imported(directory: Path, tmp_path: Path) -> tuple[int, str, dict[str, Any]]:
    """The exit code, the text, and the text as TOML."""
    (tmp_path / "none.toml").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "nftban", "import", "fail2ban", directory, "--config", tmp_path / "none.toml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    return done.returncode, done.stdout, tomllib.loads(done.stdout)


@pytest.fixture
def fail2ban(package: Path, tmp_path: Path) -> Path:
    """A copy of its settings, with none of an admin's."""
    shutil.copytree(package / "etc/fail2ban", tmp_path / "fail2ban")
    shutil.rmtree(tmp_path / "fail2ban/jail.d")
    return tmp_path / "fail2ban"


def test_every_jail_of_jail_conf(fail2ban: Path, tmp_path: Path) -> None:
    (fail2ban / "jail.local").write_text("[DEFAULT]\nenabled = true\n")
    _, text, tables = imported(fail2ban, tmp_path)
    entries, _ = jailfile.load([fail2ban / "jail.conf", fail2ban / "jail.local"], [fail2ban])
    jails = tables["jail"]
    assert set(jails) == {entry.name for entry in entries} and len(jails) > 60
    off = {name for name, jail in jails.items() if not jail["enabled"]}
    assert len(off) < len(jails) / 5, off
    for name in off:
        assert "Off, because it would not be the same: " in text.partition(f"[jail.{name}]")[0].rpartition("\n\n")[2]
    for entry in entries:
        jail = jails[entry.name]
        assert jail["filter"] == entry.filter and tuple(jail["logpath"]) == entry.logpath
        assert (jail["maxretry"], jail["findtime"], jail["bantime"]) == (entry.maxretry, entry.findtime, entry.bantime)
        assert jail["bantime_factor"] == 1
    # And it runs: filters beside it, as an admin would copy them.
    place = tmp_path / "nftban"
    place.mkdir()
    shutil.copytree(fail2ban / "filter.d", place / "filter.d")
    (place / "nftban.toml").write_text(text)
    assembly = assemble(load(place / "nftban.toml"))
    assert {setup.name for setup in assembly.jails} == set(jails) - off
    scopes = {scope.name: scope.ports for scope in assembly.layout.scopes}
    ssh = next(setup for setup in assembly.jails if setup.name == "sshd")
    assert scopes[ssh.rules.scope] == (22,)
    assert next(setup for setup in assembly.jails if setup.name == "recidive").rules.scope == ALL


def test_what_an_admin_set(fail2ban: Path, tmp_path: Path) -> None:
    (fail2ban / "jail.local").write_text(
        """\
[DEFAULT]
bantime.increment = true
bantime.maxtime = 2w
ignoreip = 127.0.0.1/8 ::1 host.example.org
action = %(action_mwl)s
[sshd]
enabled = true
port = 2222
bantime = -1
[postfix]
enabled = true
mode = aggressive
ignoreip = 127.0.0.1/8 192.0.2.0/24
[exim]
enabled = true
port = smtp,no-such-port
[strange]
enabled = true
filter = no-such-filter
logpath = /var/log/a "quoted" \\name.log
[broken]
enabled = true
maxretry = many
"""
    )
    code, text, tables = imported(fail2ban, tmp_path)
    assert code == 1
    assert tables["allow"] == {"prefixes": ["127.0.0.0/8"]}
    assert set(tables["jail"]) == {"sshd", "postfix", "exim", "strange"}
    sshd, postfix = tables["jail"]["sshd"], tables["jail"]["postfix"]
    assert (sshd["enabled"], sshd["port"], sshd["bantime"], sshd["ignore"]) == (True, "2222", "permanent", ["::1"])
    assert (postfix["filter"], postfix["ignore"]) == ("postfix[mode=aggressive]", ["192.0.2.0/24"])
    assert (postfix["bantime_factor"], postfix["bantime_max"]) == (2, 14 * 86400)
    assert not tables["jail"]["exim"]["enabled"] and not tables["jail"]["strange"]["enabled"]
    assert tables["jail"]["strange"]["logpath"] == ['/var/log/a "quoted" \\name.log']
    for comment in (
        "ignoreip host.example.org: names are not looked up",
        "action = %(action_mwl)s: a ban is an entry in a kernel set",
        "no TCP service is named 'no-such-port'",
        "there is no filter `no-such-filter`",
        "jail `broken`: maxretry = 'many' is not a number",
    ):
        assert comment in text, comment
    (tmp_path / "nftban.toml").write_text(text)
    loaded = load(tmp_path / "nftban.toml")
    assert loaded.settings.jail["sshd"].bantime is None
    ignored = {setup.name: setup.ignore for setup in assemble(loaded).jails}
    bot = Prefix.parse("192.0.2.7")
    assert ignored["postfix"].contains(bot) and not ignored["sshd"].contains(bot)


def test_nothing_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nftban", "import", "fail2ban", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "holds no jail.conf" in done.stderr
    assert json.dumps(done.stdout) == '""'
