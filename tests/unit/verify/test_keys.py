"""Keys in text: they go, and nothing else does."""

from __future__ import annotations

import pytest

from nftban.verify.keys import hider, without_key
from nftban.verify.zones import Provider, configured_zones

KEY, OTHER = "abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba"
DQ = "zen.dq.spamhaus.net"
LINE = "mail postfix/dnsblog[1]: addr 192.0.2.7 listed by domain {} as 127.0.0.4"


@pytest.mark.parametrize("configured", [[], [f"{KEY}.{DQ}*4"], [f"{KEY}.{DQ}*4", f"{KEY}.lists.example.org*2"]])
@pytest.mark.parametrize("key", [KEY, KEY.upper(), OTHER, "0123456789abcdef"])
def test_keys_of_known_operators_go(configured: list[str], key: str, providers: tuple[Provider, ...]) -> None:
    zones, faults = configured_zones(configured, providers)
    assert not faults
    hide = hider(zones, providers)
    assert hide(LINE.format(f"{key}.{DQ}")) == LINE.format(DQ)
    assert key not in hide(f"{key}.{DQ},{key}.{DQ} {key}.{DQ}; 7.2.0.192.{key}.authbl.dq.spamhaus.net")
    assert hide(f"{key}.{DQ.upper()}") in (DQ, DQ.upper())


def test_keys_of_configured_zones_go_where_nobody_knows_the_operator() -> None:
    zones, _ = configured_zones([f"{KEY}.lists.example.org*2"], ())
    hide = hider(zones, ())
    assert hide(LINE.format(f"{KEY}.lists.example.org")) == LINE.format("lists.example.org")
    assert hide(f"{KEY}.other.example.org") == f"{KEY}.other.example.org"
    assert hider((), ())(KEY) == KEY


@pytest.mark.parametrize(
    "text",
    [
        LINE.format(DQ),
        LINE.format("zen.spamhaus.org"),
        f"{KEY}.{DQ}x",
        "from=<a@very-long-host-name-of-a-customer.example.net>",
        "",
        "\\xff\\xfe [x",
    ],
)
def test_other_text_stays(text: str, providers: tuple[Provider, ...]) -> None:
    assert hider((), providers)(text) == text


def test_settings_are_shown_without_keys() -> None:
    entry = f"{KEY}.{DQ}=127.0.0.[2..9]*4, zen.spamhaus.org*4 {KEY}.lists.example.org*-2"
    assert without_key(entry) == f"{DQ}=127.0.0.[2..9]*4, zen.spamhaus.org*4 lists.example.org*-2"
    assert without_key("dnsbl.dronebl.org*2") == "dnsbl.dronebl.org*2"
