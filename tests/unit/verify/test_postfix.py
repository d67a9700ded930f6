"""main.cf read as Postfix reads it (held against postconf(1) where that is installed), and its DNSBLs as entries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nftban.verify.postfix import dnsbl_entries, main_cf
from nftban.verify.zones import Provider

KEY = "abcdefghijklmnopqrstuvwxyz"
MAIN_CF = f"""
# postscreen_dnsbl_sites = commented.example.org
dqs = zen.dq.spamhaus.net
postscreen_dnsbl_threshold = 3
postscreen_dnsbl_sites = bl.old.example.org
postscreen_dnsbl_sites =
    {KEY}.$dqs=127.0.0.[2..11]*3, bl.spamcop.net
    # a comment between continued lines
    list.dnswl.org=127.0.[0..255].[1..3]*-2
    dnsbl.sorbs.net*2
    zen.dq.spamhaus.net
no_bots = reject_rbl_client psbl.surriel.com
smtpd_recipient_restrictions = permit_mynetworks,
    permit_dnswl_client list.dnswl.org,
\treject_rbl_client ${{dqs}}=127.0.0.[2..3]  reject_rbl_client bl.unknown.example,
    reject_rbl_client bl.spamcop.net, reject_rhsbl_sender dbl.spamhaus.org
    reject_rbl_client bl.mailspike.net=127.0.0.[10..12], permit_dnswl_client wl.unknown.example
"""


def test_entries(providers: tuple[Provider, ...]) -> None:
    entries, left = dnsbl_entries(main_cf(MAIN_CF), providers)
    assert [(e.text.replace(KEY, "<key>"), e.source) for e in entries] == [
        ("<key>.zen.dq.spamhaus.net=127.0.0.[2..11]*3", "postscreen_dnsbl_sites"),
        ("bl.spamcop.net", "postscreen_dnsbl_sites"),
        ("list.dnswl.org=127.0.[0..255].[1..3]*-2", "postscreen_dnsbl_sites"),
        ("psbl.surriel.com", "reject_rbl_client"),
        ("bl.unknown.example*4", "reject_rbl_client"),
        ("bl.mailspike.net=127.0.0.[10..12]*4", "reject_rbl_client"),
        ("wl.unknown.example*-4", "permit_dnswl_client"),
    ]
    assert [(one.what, one.why) for one in left] == [
        (
            "postscreen_dnsbl_sites dnsbl.sorbs.net",
            "dnsbl.sorbs.net cannot be used: SORBS was shut down in June 2024",
        ),
        ("postscreen_dnsbl_sites zen.dq.spamhaus.net", "zen.dq.spamhaus.net needs an account key"),
        ("reject_rbl_client zen.dq.spamhaus.net", "zen.dq.spamhaus.net needs an account key"),
        ("reject_rhsbl_sender dbl.spamhaus.org", "it is about domains, and nftban bans addresses"),
    ]
    assert not any(KEY in text for e in entries for text in (e.shown, e.source))
    assert not any(KEY in one.what + one.why for one in left)


@pytest.mark.skipif(shutil.which("postconf") is None, reason="Postfix is not installed")
def test_main_cf_is_read_as_postconf_reads_it(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(MAIN_CF)
    (tmp_path / "master.cf").write_text("")
    ours = main_cf(MAIN_CF)
    for name in ("postscreen_dnsbl_sites", "postscreen_dnsbl_threshold", "smtpd_recipient_restrictions"):
        told = subprocess.run(
            ["postconf", "-c", tmp_path, "-xh", name], capture_output=True, text=True, check=True
        ).stdout
        assert ours[name].split() == told.split()


def test_variables_that_stand_for_each_other_end() -> None:
    assert len(main_cf("a = $b$b\nb = $a$a")["a"]) <= 100_000


@given(st.text(max_size=400))
def test_any_text_is_answered(text: str) -> None:
    dnsbl_entries(main_cf(f"postscreen_dnsbl_sites = {text}"), ())
    dnsbl_entries(main_cf(text), ())
