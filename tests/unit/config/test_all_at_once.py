"""Faults of every kind, in the settings and in what they name, are told in one pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nftban.config.load import UnfinishedConfigError, load
from nftban.daemon.assemble import checked
from nftban.errors import EXIT_CONFIG, ConfigError

FIVE = """\
[defaults]
maxretry = "six"

[allow]
prefixes = ["192.0.2.300"]

[dnsbl]
zones = ["zen.spamhaus.org=127.0.0.[2..4*5"]

[jail.postfix]
filter = "postfxi"
logpath = "/var/log/mail.log"
prot = "mail"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nftban.toml"
    path.write_text(FIVE)
    return path


def test_five_faults_of_five_kinds(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(file)
    assert [f.line for f in caught.value.faults] == [2, 5, 8, 11, 13]


@pytest.mark.parametrize("command", [("daemon",), ("config", "check")])
def test_the_command_ends_with_78_and_shows_all(file: Path, command: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "nftban", "--config", str(file), *command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == EXIT_CONFIG
    for line in (2, 5, 8, 11, 13):
        assert f"{file}:{line}: " in ended.stderr, ended.stderr
    assert "did you mean port?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_jail_that_lacks_what_it_needs_is_left_out_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "nftban.toml"
    path.write_text('[jail.a]\nfilter = 3\nlogpath = "/x"\n[jail.b]\nfilter = "sshd"\nlogpath = "/x"\n')
    with pytest.raises(UnfinishedConfigError) as caught:
        load(path)
    assert list(caught.value.rest.settings.jail) == ["b"]


def test_nothing_but_faults_ends(tmp_path: Path) -> None:
    path = tmp_path / "nftban.toml"
    path.write_text("daemon = 1\nkernel = 2\njail = 3\nscopes = 4\nx = 5\n")
    with pytest.raises(ConfigError) as caught:
        checked(path)
    assert len(caught.value.faults) == 5
