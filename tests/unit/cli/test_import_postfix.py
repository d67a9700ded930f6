"""nftban import postfix: what it prints is settings that nftban loads, and no account key is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nftban.cli.app import main
from nftban.daemon.assemble import checked

KEY = "abcdefghijklmnopqrstuvwxyz"
MAIN_CF = f"""postscreen_dnsbl_threshold = 3
postscreen_dnsbl_sites = {KEY}.zen.dq.spamhaus.net=127.0.0.[2..11]*3 dnsbl.sorbs.net
smtpd_client_restrictions = reject_rbl_client bl.spamcop.net
"""


@pytest.fixture
def main_cf(tmp_path: Path) -> Path:
    (tmp_path / "nftban.toml").write_text("")
    (tmp_path / "main.cf").write_text(MAIN_CF)
    return tmp_path / "main.cf"


def run(main_cf: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["import", "postfix", str(main_cf), "--config", str(main_cf.with_name("nftban.toml")), *arguments])
    return int(ended.value.code or 0)


def test_what_is_written_loads(main_cf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = main_cf.with_name("conf.d") / "postfix.toml"
    written.parent.mkdir()
    assert run(main_cf, "--output", str(written)) == 0
    assert capsys.readouterr().out == ""
    assert written.stat().st_mode & 0o777 == 0o600
    zones = checked(main_cf.with_name("nftban.toml")).zones
    assert [zone.notation for zone in zones] == ["zen.dq.spamhaus.net=127.0.0.[2..11]*3", "bl.spamcop.net"]
    assert zones[0].keyed
    assert run(main_cf, "--output", str(written)) == 2, "no file of anybody's is overwritten"


def test_what_is_printed_has_no_key(main_cf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main_cf) == 0
    out = capsys.readouterr().out
    assert KEY not in out
    assert '"KEY.zen.dq.spamhaus.net=127.0.0.[2..11]*3",' in out
    assert "# Left out: postscreen_dnsbl_sites dnsbl.sorbs.net: dnsbl.sorbs.net cannot be used: SORBS was shut" in out
    assert "# postscreen acts at 3:" in out
    assert run(main_cf, "--json") == 0
    assert [zone["entry"] for zone in json.loads(capsys.readouterr().out)["zones"]] == [
        "KEY.zen.dq.spamhaus.net=127.0.0.[2..11]*3",
        "bl.spamcop.net",
    ]


def test_without_any_dnsbl_it_says_no(main_cf: Path) -> None:
    main_cf.write_text("myhostname = mx.example.com\n")
    assert run(main_cf) == 1
    assert run(main_cf.with_name("missing")) == 2
