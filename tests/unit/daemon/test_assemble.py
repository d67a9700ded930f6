"""From settings to parts: what is taken from where, and every fault of everything at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.daemon.assemble import Assembly, checked
from nftban.errors import ConfigError
from nftban.prefixes import Prefix
from nftban.records import LogLine, Offence

NOW = 1_795_514_400.0
JAIL = '[jail.mail]\nfilter = "postfix"\nlogpath = "/var/log/mail.log"\n'


def assembled(folder: Path, toml: str, **files: str) -> Assembly:
    write(folder, toml, **files)
    return checked(folder / "nftban.toml")


def write(folder: Path, toml: str, **files: str) -> None:
    """files: their names with `_` for a dot."""
    (folder / "nftban.toml").write_text(toml)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def faults(folder: Path, toml: str, **files: str) -> list[tuple[str, int, str]]:
    write(folder, toml, **files)
    with pytest.raises(ConfigError) as caught:
        checked(folder / "nftban.toml")
    return [(Path(f.file).name, f.line, f.what) for f in caught.value.faults]


def test_a_jail_has_its_own_values_where_it_has_some_and_the_defaults_else(tmp_path: Path) -> None:
    made = assembled(
        tmp_path,
        "[defaults]\nmaxretry = 4\nbantime = '10m'\nverify_at = 3\ncount6 = 48\n"
        + JAIL
        + "maxretry = 9\nspare_login = 0\n"
        + '[jail.other]\nfilter = "sshd"\nlogpath = ["a", "b*"]\nbantime = "permanent"\nverify_at = 1\n',
    )
    mail, other = made.jails
    assert (mail.rules.maxretry, mail.rules.bantime, mail.rules.spare_login, mail.verify_at) == (9, 600, 0, 3)
    assert (other.rules.maxretry, other.rules.bantime, other.verify_at, other.logpaths) == (4, None, 1, ("a", "b*"))
    assert mail.windows.counted(Prefix.parse("2001:db8::1")) == Prefix.parse("2001:db8::/48")


def test_ports_become_scopes(tmp_path: Path) -> None:
    ports = {
        "named": '"smtp"',
        "all": '"all"',
        "same": '["submission", 25]',
        "words": '"smtp,submission"',
        "every": '"1:65535"',
        "new": "[2525]",
        "one": "25",
        "many": str(list(range(3000, 3040, 2))),
    }
    jails = "".join(f'[jail.{n}]\nfilter = "sshd"\nlogpath = "x"\nport = {p}\n' for n, p in ports.items())
    made = assembled(tmp_path, "[scopes]\nsmtp = [25]\nboth = [25, 587]\n" + jails)
    scopes = {jail.name: jail.rules.scope for jail in made.jails}
    assert scopes == {
        "named": "smtp",
        "all": "all",
        "same": "both",
        "words": "both",
        "every": "all",
        "new": "ports-2525",
        "one": "smtp",
        "many": "ports-3000-e969fc2f",
    }
    assert {s.name for s in made.layout.scopes} == {"all", "smtp", "both", "ports-2525", "ports-3000-e969fc2f"}
    assert {s.name: s.ports for s in made.layout.scopes}["ports-2525"] == (2525,)


def test_a_scopes_made_name_is_the_same_whatever_else_is_configured(tmp_path: Path) -> None:
    """Bans in the store are for a scope by its name."""
    jail = JAIL + f"port = {list(range(3000, 3040, 2))}\n"
    (alone,) = assembled(tmp_path, jail).jails
    more = '[scopes]\nsmtp = [25]\n[jail.first]\nfilter = "sshd"\nlogpath = "x"\nport = "1:9"\n' + jail
    assert assembled(tmp_path, more).jails[1].rules.scope == alone.rules.scope


LOCAL = """[DEFAULT]
bantime = 5m
ignoreip = 127.0.0.1/8, 203.0.113.0/28
           host.example
[sshd]
enabled = true
port = ssh
logpath = /var/log/auth.log
          /var/log/auth2.log
maxretry = 3
bantime = -1
[mail]
enabled = true
filter = sshd
logpath = /never
[off]
enabled = false
filter = no-such-filter
"""


def test_fail2bans_jails_stand_beside_ours_and_ours_win(tmp_path: Path) -> None:
    made = assembled(tmp_path, JAIL, jail_local=LOCAL.replace("           host.example\n", ""))
    assert [(j.name, j.filter, j.logpaths) for j in made.jails] == [
        ("mail", "postfix", ("/var/log/mail.log",)),
        ("sshd", "sshd", ("/var/log/auth.log", "/var/log/auth2.log")),
    ]
    sshd = made.jails[1]
    assert (sshd.rules.maxretry, sshd.rules.bantime, sshd.rules.findtime) == (3, None, 600)
    assert sshd.ignore.contains(Prefix.parse("203.0.113.15")) and not sshd.ignore.contains(Prefix.parse("203.0.113.16"))


def test_jail_local_comes_after_the_drop_ins_and_local_after_conf(tmp_path: Path) -> None:
    write(tmp_path, "", jail_local="[sshd]\nmaxretry = 3\n")
    (tmp_path / "jail.d").mkdir()
    text = "[sshd]\nenabled = true\nlogpath = /b\nmaxretry = 1\nfindtime = 1\nbantime = 1\n"
    (tmp_path / "jail.d" / "b.conf").write_text(text)
    (tmp_path / "jail.d" / "a.local").write_text("[sshd]\nmaxretry = 2\nfindtime = 2\n")
    made = checked(tmp_path / "nftban.toml")
    rules = made.jails[0].rules
    assert (rules.maxretry, rules.findtime, rules.bantime) == (3, 2, 1)


def test_every_fault_of_every_file_has_its_place(tmp_path: Path) -> None:
    toml = (
        '[dns]\nservers = ["127.0.0.1", "not a server"]\n'
        '[dnsbl]\nzones = ["zen.spamhaus.org*4", "zen.spamhaus.org=9.0.0.1", "dnsbl.sorbs.net"]\n'
        '[jail.a]\nfilter = "no-such-filter"\nlogpath = "x"\n'
        '[jail.b]\nfilter = "postfix"\nlogpath = []\nport = "no-such-port"\n'
        "[defaults]\nmaxretry = 0\n"
    )
    found = faults(tmp_path, toml, jail_local=LOCAL + "[bad]\nenabled = true\nfilter = neither\nlogpath = x\n")
    places = {(file, line) for file, line, _ in found}
    assert places >= {("nftban.toml", n) for n in (2, 4, 6, 10, 11, 13)}, found
    assert any(file == "jail.local" and "host.example" in what for file, _, what in found)
    assert any(file == "jail.local" and "neither" in what for file, _, what in found)
    assert not any("off" in what for _, _, what in found), "a jail that is off says nothing"


def test_a_filter_of_the_admins_masks_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "rules" / "filters"
    own.mkdir(parents=True)
    (own / "postfix.conf").write_text("[Definition]\nfailregex = ^ my own <HOST>$\n")
    made = assembled(tmp_path, JAIL)
    offence = made.jails[0].match(LogLine("x", "2026-11-24T10:00:00Z my own 203.0.113.7"), NOW)
    assert isinstance(offence, Offence) and offence.prefix == Prefix.parse("203.0.113.7")


def test_sessions_are_told_apart_by_log(tmp_path: Path) -> None:
    """The same process number in two logs is two sessions; in one log it is one."""
    jail = assembled(tmp_path, JAIL).jails[0]
    line = "2026-11-24T10:00:00Z mail postfix/smtpd[7]: warning: non-SMTP command from unknown[203.0.113.7]: ."
    found = [jail.match(LogLine(log, line), NOW) for log in ("a.log", "a.log", "b.log", "b.log")]
    assert [f is not None for f in found] == [True, False, True, False]


@pytest.mark.parametrize(
    ("servers", "zones", "noted"),
    [
        ('["127.0.0.1"]', ["zen.spamhaus.org"], False),
        ('["8.8.8.8"]', [], True),
        ('["127.0.0.1", "1.1.1.1"]', [], True),
        ('["[2620:fe::fe]:53"]', [], True),
    ],
)
def test_public_resolvers_are_not_asked_about_open_zones(
    tmp_path: Path, servers: str, zones: list[str], noted: bool
) -> None:
    made = assembled(tmp_path, f'[dns]\nservers = {servers}\n[dnsbl]\nzones = ["zen.spamhaus.org*4"]\n')
    assert [z.display for z in made.zones] == zones
    assert (made.dns_note is not None) == noted


def test_a_zone_with_a_key_may_be_asked_through_any_resolver_and_its_key_is_shown_nowhere(tmp_path: Path) -> None:
    key = "abcdefghijklmnopqrstuvwxyz"
    made = assembled(
        tmp_path,
        f'[dns]\nservers = ["8.8.8.8"]\n[dnsbl]\nzones = ["{key}.zen.dq.spamhaus.net*4", "bl.spamcop.net"]\n',
    )
    assert [z.display for z in made.zones] == ["zen.dq.spamhaus.net"]
    line = f"blocked using {key.upper()}.zen.dq.spamhaus.net; see https://x/{key}.ZEN.dq.spamhaus.net"
    assert made.masked(line) == "blocked using zen.dq.spamhaus.net; see https://x/zen.dq.spamhaus.net"
    assert key not in repr(made.zones)


def test_resolvers_are_protected_by_address(tmp_path: Path) -> None:
    made = assembled(tmp_path, '[dns]\nservers = ["192.0.2.53:5353", "[2001:db8::53]:53", "fe80::53%lo"]\n')
    assert [str(p) for p in made.resolver_prefixes] == ["192.0.2.53", "2001:db8::53", "fe80::53"]


def test_dnsbl_off_asks_no_zone(tmp_path: Path) -> None:
    made = assembled(tmp_path, '[dnsbl]\nenabled = false\nzones = ["zen.spamhaus.org"]\n')
    assert (made.zones, made.dns_note) == ((), None)
