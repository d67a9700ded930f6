"""From settings to feeds in use, and from feeds to what the kernel is to hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.config.load import Loaded, load
from nftban.daemon.assemble import checked
from nftban.daemon.feeds import feed_elements, feeds_in_use
from nftban.errors import ConfigError
from nftban.kernel.layout import FeedSets
from nftban.prefixes import Prefix, PrefixSet
from nftban.ranges import Ranges

SCOPES = ("all", "mail")


def loaded(folder: Path, text: str) -> Loaded:
    (folder / "rules" / "feeds").mkdir(parents=True, exist_ok=True)
    (folder / "rules" / "feeds" / "own.toml").write_text(
        '[[feed]]\nname = "own"\nformat = "ip4set"\nfile = "/srv/zone"\nzone = "bl.example"\nscope = "mail"\n'
    )
    (folder / "nftban.toml").write_text(text)
    return load(folder / "nftban.toml")


def test_what_is_in_use_and_for_what(tmp_path: Path) -> None:
    text = "[feed.cins]\nenforce = true\nport = 'mail'\n[feed.greensnow]\npoints = 2\n[feed.fullbogons4]\n[feed.own]\n"
    text += "[feed.dshield]\nenabled = false\nenforce = true\n"
    used, faults = feeds_in_use(loaded(tmp_path, text), SCOPES)
    assert faults == ()
    assert [(u.feed.name, u.enforce, u.scope, u.points) for u in used] == [
        ("cins", True, "mail", 0),
        ("greensnow", False, "all", 2),
        ("fullbogons4", False, "all", 0),
        ("own", False, "mail", 0),
    ]


def test_nothing_is_used_by_itself(tmp_path: Path) -> None:
    assert feeds_in_use(loaded(tmp_path, ""), SCOPES) == ((), ())


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[feed.none]\nenforce = true", "no such feed"),
        ("[feed.cins]", "used for nothing"),
        ("[feed.fullbogons4]\nenforce = true", "cleans the other feeds"),
        ("[feed.cins]\nenforce = true\nport = 'http'", "no scope 'http'"),
    ],
)
def test_a_table_that_makes_no_sense_is_a_fault_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    used, (fault,) = feeds_in_use(loaded(tmp_path, text), SCOPES)
    assert used == () and what in fault.what and fault.line > 0 and fault.file.endswith("nftban.toml")


def test_what_must_stay_reachable_is_cut_out() -> None:
    ranges = Ranges.of(PrefixSet(map(Prefix.parse, ("45.0.0.0/24", "2a00:1::/32"))))
    protected = PrefixSet(map(Prefix.parse, ("45.0.0.7", "2a00:1:0:5::/64", "45.0.9.1")))
    held = feed_elements(FeedSets("own", "all"), ranges, protected, 5.0)
    assert [(e.first & 255, e.last & 255, e.until) for e in held["feed4_own"]] == [(0, 6, 5.0), (8, 255, 5.0)]
    assert len(held["feed6_own"]) == 2


def test_enforced_feeds_have_kernel_sets_and_faults_are_told_with_all_others(tmp_path: Path) -> None:
    (tmp_path / "nftban.toml").write_text("[feed.cins]\nenforce = true\n[feed.greensnow]\npoints = 2\n")
    assembly = checked(tmp_path / "nftban.toml")
    assert assembly.layout.feeds == (FeedSets("cins", "all"),)
    assert [use.feed.name for use in assembly.feeds] == ["cins", "greensnow"]
    (tmp_path / "nftban.toml").write_text("[feed.none]\nenforce = true\n[kernel]\nreject = 'none'\n")
    with pytest.raises(ConfigError) as raised:
        checked(tmp_path / "nftban.toml")
    assert [fault.line for fault in raised.value.faults] == [1, 4]


def test_a_feed_for_a_zone_that_nobody_asks_is_a_fault(tmp_path: Path) -> None:
    scopes = "[feed.own]\n[scopes]\nmail = [25]\n"
    loaded(tmp_path, scopes)
    with pytest.raises(ConfigError) as raised:
        checked(tmp_path / "nftban.toml")
    assert [(f.line, "bl.example" in f.what) for f in raised.value.faults] == [(1, True)]
    for more in ("points = 1\n", '[dnsbl]\nzones = ["bl.example"]\n', "[dnsbl]\nenabled = false\n"):
        (tmp_path / "nftban.toml").write_text(scopes.replace("]\n", f"]\n{more}", 1))
        assert [use.feed.name for use in checked(tmp_path / "nftban.toml").feeds] == ["own"]


def test_a_zone_whose_data_are_here_is_kept_though_the_resolver_is_a_public_one(tmp_path: Path) -> None:
    dns = '[dns]\nservers = ["8.8.8.8"]\n[dnsbl]\nzones = ["bl.example", "bl.example.org"]\n'
    loaded(tmp_path, f"[feed.own]\n[scopes]\nmail = [25]\n{dns}")
    assembly = checked(tmp_path / "nftban.toml")
    assert [zone.display for zone in assembly.zones] == ["bl.example"]
    assert assembly.dns_note is not None
