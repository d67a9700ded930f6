"""Feeds as data: the shipped ones are sound, and every mistake in a file is a fault that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.config.load import shipped_rules
from nftban.feeds.definitions import load_feeds, parse_feeds, server_address

GOOD = 'name = "own"\nfile = "/srv/list"\nformat = "netset"\n'


def test_the_shipped_feeds_are_sound() -> None:
    feeds, faults = load_feeds([shipped_rules() / "feeds"])
    assert not faults
    assert {"spamhaus-drop", "spamhaus-drop6", "blocklist-de-all", "firehol-level1", "emerging-threats"} < set(feeds)
    assert {"feodo", "cins", "dshield", "greensnow", "tor-exits", "fullbogons4", "fullbogons6"} < set(feeds)
    assert all(feed.address.startswith("https://") and feed.about for feed in feeds.values())
    assert [name for name, feed in feeds.items() if feed.clean] == ["fullbogons4", "fullbogons6"]
    assert feeds["spamhaus-drop"].interval >= 86400 and feeds["spamhaus-drop"].limits.widest4 == 10
    assert feeds["feodo"].limits.fewest == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (GOOD.replace("own", "Own"), "a name has small letters"),
        (GOOD.replace("netset", "csv"), "no format 'csv'"),
        (GOOD + 'url = "https://x.example/"', "exactly one of"),
        ('name = "own"\nformat = "netset"', "exactly one of"),
        ('name = "own"\nformat = "netset"\nurl = "http://x.example/"', "https://"),
        ('name = "own"\nformat = "netset"\nurl = "file:///etc/passwd"\ninsecure = true', "https://"),
        ('name = "own"\nformat = "netset"\nfile = "list"', "whole path"),
        ('name = "own"\nformat = "netset"\nrsync = "--rsh=sh"', "names nothing"),
        ('name = "own"\nformat = "zone"\naxfr = "bl.example"', "go together"),
        ('name = "own"\nformat = "zone"\naxfr = "bl.example"\nserver = "ns.example"', "ADDRESS"),
        (GOOD + 'interval = "10s"', "five minutes"),
        (GOOD + 'interval = "5h"\nkeep = "9h"', "two intervals"),
        (GOOD + "family = 5", "family"),
        (GOOD + "widest4 = 25", "widest"),
        (GOOD + "fewest = -1", "fewest"),
        (GOOD + "share = true", "share"),
        (GOOD + "bytes = 0", "bytes"),
        (GOOD + 'canaries = ["8.8.8"]', "8.8.8"),
        (GOOD + "colour = 1", "unknown key 'colour'"),
        (GOOD + 'scope = ["mail"]', "scope"),
    ],
)
def test_a_mistake_is_a_fault_that_names_it(text: str, what: str) -> None:
    feeds, faults = parse_feeds(f"[[feed]]\n{text}\n\n[[feed]]\n{GOOD.replace('own', 'other')}", "own.toml")
    assert [feed.name for feed in feeds] == ["other"]
    assert len(faults) == 1 and what in faults[0].what


@pytest.mark.parametrize("text", ["[feed]\n", "x = 1\n", "[[feed]\n", "feed = [1]\n"])
def test_what_is_no_list_of_feeds_is_a_fault(text: str) -> None:
    feeds, faults = parse_feeds(text, "own.toml")
    assert feeds == () and len(faults) == 1


def test_the_admins_file_masks_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "cins.toml").write_text("[[feed]]\n" + GOOD)
    feeds, faults = load_feeds([tmp_path, shipped_rules() / "feeds"])
    assert "own" in feeds and "cins" not in feeds and not faults
    (tmp_path / "mine.toml").write_text("[[feed]]\n" + GOOD.replace("own", "tor-exits"))
    feeds, faults = load_feeds([tmp_path, shipped_rules() / "feeds"])
    assert feeds["tor-exits"].address == "/srv/list" and len(faults) == 1 and "another feed" in faults[0].what


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_a_server_is_an_address_and_perhaps_a_port(text: str, address: tuple[str, int]) -> None:
    assert server_address(text) == address
