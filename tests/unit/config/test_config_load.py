"""Files to settings: what merges with what, what cannot be read, and where a setting stands."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nftban.config.load import Loaded, default_config, load, shipped_rules
from nftban.errors import ConfigError, Fault
from nftban.prefixes import Prefix

JAIL = '[jail.postfix]\nfilter = "postfix"\nlogpath = "/var/log/mail.log"\n'


def write(folder: Path, main: str | None, **extra: str) -> Path:
    """nftban.toml and conf.d/NAME.toml files in the folder; gives the path of the first."""
    (folder / "conf.d").mkdir()
    if main is not None:
        (folder / "nftban.toml").write_text(main, "utf-8")
    for name, text in extra.items():
        (folder / "conf.d" / f"{name}.toml").write_text(text, "utf-8")
    return folder / "nftban.toml"


def faults(path: Path) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as raised:
        load(path)
    return raised.value.faults


def test_the_shipped_settings_load() -> None:
    loaded = load(shipped_rules() / "nftban.toml")
    assert set(loaded.settings.jail) == {"postfix", "sshd"}
    assert loaded.settings.jail["postfix"].logpath == ("/var/log/mail.log",)
    assert loaded.settings.defaults.bantime == 3600.0
    assert loaded.settings.scopes["mail"] == (25, 110, 143, 465, 587, 993, 995, 4190)
    assert any(zone.startswith("zen.spamhaus.org=") for zone in loaded.settings.dnsbl.zones)


def test_every_line_of_the_shipped_settings_is_found() -> None:
    file = shipped_rules() / "nftban.toml"
    lines = file.read_text("utf-8").splitlines()
    where = load(file).where
    headers = [n for n, line in enumerate(lines, 1) if line.startswith("[")]
    assert {line for path, (_, line) in where.items() if len(path) == 1 or path[0] == "jail"} >= set(headers)
    assert lines[where["defaults", "bantime"][1] - 1] == 'bantime = "1h"'
    assert "bl.blocklist.de" in lines[where["dnsbl", "zones", 2][1] - 1]


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "")).settings
    assert settings.jail == {}
    assert settings.defaults.maxretry == 6
    assert settings.dnsbl.zones == ()
    assert settings.kernel.ssh_ports == (22,)


def test_later_files_win_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        JAIL + "maxretry = 3\n[dnsbl]\nzones = ['a.example', 'b.example']\nreverse = false\n",
        **{
            "20-second": '[jail.postfix]\nmaxretry = 5\n[dnsbl]\nzones = ["c.example"]\n',
            "10-first": '[jail.postfix]\nmaxretry = 4\nfindtime = "5m"\n',
        },
    )
    (tmp_path / "conf.d" / "90-off.toml.disabled").write_text("[jail.postfix]\nmaxretry = 9\n")
    loaded = load(path)
    jail = loaded.settings.jail["postfix"]
    assert (jail.maxretry, jail.findtime, jail.filter) == (5, 300.0, "postfix")
    assert loaded.settings.dnsbl.zones == ("c.example",)
    assert loaded.settings.dnsbl.reverse is False
    assert [f.name for f in loaded.files] == ["nftban.toml", "10-first.toml", "20-second.toml"]
    assert loaded.where["jail", "postfix", "maxretry"] == (str(tmp_path / "conf.d" / "20-second.toml"), 2)
    assert loaded.where["jail", "postfix", "filter"] == (str(path), 2)


def test_faults_of_all_files_are_told_at_once_each_in_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, JAIL + "maxretry = 0\n", a="[dns]\ndeadlin = 3\n", b='[defaults]\nfindtime = "x"\n')
    found = faults(path)
    assert [(Path(f.file).name, f.line) for f in found] == [("a.toml", 2), ("b.toml", 2), ("nftban.toml", 4)]
    assert found[0].advice == "did you mean deadline?"


def test_a_fault_overridden_by_a_later_file_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, JAIL + "maxretry = 0\n", a="[jail.postfix]\nmaxretry = 2\n")
    assert load(path).settings.jail["postfix"].maxretry == 2


def test_broken_toml_is_told_beside_the_faults_of_the_other_files(tmp_path: Path) -> None:
    found = faults(write(tmp_path, "[dns]\ndeadline = \n", a="[dnsbl]\npolicy_limit = -1\n"))
    assert [(Path(f.file).name, f.line) for f in found] == [("a.toml", 2), ("nftban.toml", 2)]
    assert found[1].what.startswith("is not valid TOML: Invalid value")


def test_nothing_is_called_missing_that_may_stand_in_a_broken_file(tmp_path: Path) -> None:
    (only,) = faults(write(tmp_path, JAIL + "maxretry = \n", a="[jail.postfix]\nfindtime = 60\n"))
    assert only.line == 4
    assert only.what.startswith("is not valid TOML")


def test_a_missing_file_is_one_fault_with_advice(tmp_path: Path) -> None:
    (only,) = faults(tmp_path / "no" / "such.toml")
    assert (only.line, only.what) == (0, "cannot be read: No such file or directory")
    assert "--config" in only.advice
    assert str(only).startswith(f"{tmp_path / 'no' / 'such.toml'}: cannot be read")


def test_a_folder_for_a_file(tmp_path: Path) -> None:
    (only,) = faults(tmp_path)
    assert only.what == "cannot be read: Is a directory"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes(b'[allow]\n# f\xfcr uns\nprefixes = ["192.0.2.1"]\n')
    (only,) = faults(path)
    assert (only.what, only.advice) == ("is not UTF-8 (byte 11)", "save it as UTF-8")


@pytest.mark.parametrize("text", ["\ufeff[dns]\n", "[dns]\n\x00", "[dns]\r[dnsbl]\n", "=\n", "\x1a", "[" * 5000])
def test_what_is_not_toml_is_a_fault_and_no_crash(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "")
    path.write_bytes(text.encode())
    (only,) = faults(path)
    assert "is not valid TOML" in only.what
    assert only.line >= 1


def test_windows_line_ends_change_no_line_number(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    path.write_bytes(b'[allow]\r\nprefixes = [\r\n  "192.0.2.1",\r\n  "x",\r\n]\r\n')
    (only,) = faults(path)
    assert only.line == 4


def test_a_value_replaced_by_another_kind_is_told_where_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path, JAIL, a='[jail]\npostfix = "off"\n')
    (only,) = faults(path)
    assert (Path(only.file).name, only.line) == ("a.toml", 2)


def test_a_fault_found_later_is_placed_by_the_nearest_setting(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, JAIL + '\n[dnsbl]\nzones = [\n  "a.example",\n  "b.example",\n]\n'))
    assert loaded.fault(("jail", "postfix", "filter"), "w").line == 2
    assert loaded.fault(("jail", "postfix", "port"), "w").line == 1
    assert loaded.fault(("dnsbl", "zones", 1), "w").line == 8
    assert loaded.fault(("reverify", "every"), "w", "a") == Fault(str(tmp_path / "nftban.toml"), 0, "w", "a")


def test_paths_come_from_the_settings_or_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one")
    path = write(tmp_path, "")
    assert str(load(path).state_path) == "/var/lib/one/state.db"
    assert str(load(path).socket_path) == "/run/one/control.sock"
    path.write_text('[daemon]\nstate = "/x/s.db"\nsocket = "/x/c.sock"\n')
    assert (str(load(path).state_path), str(load(path).socket_path)) == ("/x/s.db", "/x/c.sock")


AS_USER = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
from pathlib import Path
from nftban.config.load import default_config, load
print(default_config())
loaded = load(Path(sys.argv[1]))
print(loaded.state_path)
print(loaded.socket_path)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_an_ordinary_user_has_files_of_its_own() -> None:
    """Really as another user; what is needed is imported before, since a checkout may be readable by root only."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home, run = Path(folder, "home"), Path(folder, "run")
        own = home / "nftban" / "nftban.toml"
        own.parent.mkdir(parents=True)
        own.write_text("")
        xdg = {"XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home), "XDG_RUNTIME_DIR": str(run)}
        done = subprocess.run(
            [sys.executable, "-c", "import nftban.config.load\n" + AS_USER, str(own)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **xdg},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(own), str(home / "nftban" / "state.db"), str(run / "nftban" / "control.sock")]


def test_without_any_file_of_the_machine_the_shipped_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nftban.config.load.SYSTEM_CONFIG", tmp_path / "none.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_config() == shipped_rules() / "nftban.toml"
    assert isinstance(load(), Loaded)


def test_an_explicit_permanent_is_told_from_a_bantime_left_out(tmp_path: Path) -> None:
    text = JAIL + 'bantime = "permanent"\n' + JAIL.replace("postfix", "other")
    jails = load(write(tmp_path, text)).settings.jail
    assert jails["postfix"].bantime is None
    assert "bantime" in jails["postfix"].model_fields_set
    assert jails["other"].bantime is None
    assert "bantime" not in jails["other"].model_fields_set


def test_the_pasted_forms_of_fail2ban_load(tmp_path: Path) -> None:
    text = (
        '[jail.spam]\nenabled = true\nport = "smtp,ssmtp,submission"\nfilter = "postfix-502"\n'
        'logpath = ["/var/log/mail.log", "/var/log/mail/*.log"]\nmaxretry = 10\nfindtime = 3600\nbantime = "1d12h"\n'
        '[allow]\nprefixes = ["192.0.2.7/24", "::ffff:198.51.100.1"]\n'
    )
    settings = load(write(tmp_path, text)).settings
    assert settings.jail["spam"].port == "smtp,ssmtp,submission"
    assert settings.jail["spam"].bantime == 36 * 3600.0
    assert settings.allow.prefixes == (Prefix.parse("192.0.2.0/24"), Prefix.parse("198.51.100.1"))
