"""nftban filter test on real filters and lines as servers write them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from nftban.cli.app import main

LOG = (
    b"Nov 24 20:41:47 mail postfix/smtpd[169]: connect from unknown[203.0.113.1]\n"
    b"Nov 24 20:41:47 mail postfix/smtpd[169]: warning: non-SMTP command from unknown[203.0.113.1]: \x1b]\xff [b]\n"
    b"\0\0" + b"x" * 200_000 + b"\n"
    b"Nov 24 20:41:51 mail postfix/smtpd[170]: connect from unknown[203.0.113.5]\n"
    b"Nov 24 20:41:51 mail postfix/smtpd[170]: too many errors after CONNECT from unknown[203.0.113.5]"
)
SEED = """\
[INCLUDES]
before = common.conf

[Definition]
failregex = reject: RCPT from (.*)\\[<HOST>\\]: 502 5.5.2
            reject: RCPT from (.*)\\[<HOST>\\]: 500 5.5.2
ignoreregex =
"""


@pytest.fixture
def log(tmp_path: Path) -> str:
    file = tmp_path / "mail.log"
    file.write_bytes(LOG)
    return str(file)


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "nftban.toml"
    file.write_text("")
    return str(file)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_one_object_per_line_of_the_log(log: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "-c", config, "filter", "test", "postfix", log, "--json")
    assert (code, err) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    assert [one["line"] for one in told] == [1, 2, 3, 4, 5]
    assert [one["match"] for one in told] == [False, True, False, False, True]
    assert told[1]["host"] == "203.0.113.1"
    assert isinstance(told[1]["time"], float)
    assert told[1]["rule"]
    assert told[4]["host"] == "203.0.113.5"


def test_the_summary(log: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "-c", config, "filter", "test", "postfix", log)
    assert (code, err) == (0, "")
    assert "postfix: 5 lines, 2 offences, 0 logins" in out
    assert "postfix.conf:" in out
    assert "  1  203.0.113.1\n" in out


def test_standard_input(config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOG)))
    code, out, _ = run(capsys, "-c", config, "filter", "test", "postfix", "-")
    assert code == 0
    assert "5 lines, 2 offences" in out


def test_a_filter_file_as_people_paste_it(
    tmp_path: Path, log: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine" / "dot.conf"
    file.parent.mkdir()
    file.write_text(SEED)
    code, out, _ = run(capsys, "-c", config, "filter", "test", str(file), log)
    assert (code, "5 lines, 0 offences" in out) == (1, True)
    (tmp_path / "other.log").write_text(
        "Nov 24 20:41:47 mail postfix/smtpd[1]: NOQUEUE: reject: RCPT from a.example[203.0.113.8]: 502 5.5.2 no\n"
    )
    code, out, _ = run(capsys, "-c", config, "filter", "test", str(file), str(tmp_path / "other.log"), "--json")
    assert code == 0
    assert json.loads(out)["host"] == "203.0.113.8"


def test_a_filter_that_is_not_there(log: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "-c", config, "filter", "test", "no-such-filter", log)
    assert (code, out) == (78, "")
    assert "no-such-filter" in err


def test_a_log_that_is_not_there(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "-c", config, "filter", "test", "postfix", "/nowhere/mail.log")
    assert (code, out) == (2, "")
    assert "/nowhere/mail.log cannot be read: No such file or directory" in err
