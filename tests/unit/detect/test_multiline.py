"""Expressions over several lines.  fail2ban's own such filters are run by tests/corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.records import LogLine, Offence

NOW = 1795552000.0


def told(tmp_path: Path, definition: str, *lines: str) -> list[str]:
    (tmp_path / "f.conf").write_text("[Definition]\n" + definition)
    loaded = filterfile.load("f", [tmp_path])
    assert isinstance(loaded, Filter), loaded
    m = Matcher(loaded)
    found = [m.match(LogLine("log", f"{int(NOW) - 100 + n} {line}"), NOW) for n, line in enumerate(lines)]
    return [str(f.prefix) if isinstance(f, Offence) else "-" for f in found]


PAIR = "failregex = ^ conn=(?P<c>\\d+) from <HOST>$<SKIPLINES>^ conn=(?P=c) denied$\nmaxlines = {}\n"


@pytest.mark.parametrize(
    ("maxlines", "lines", "expected"),
    [
        (5, ["conn=1 from 192.0.2.1", "conn=1 denied"], ["-", "192.0.2.1"]),
        (5, ["conn=1 from 192.0.2.1", "other", "conn=2 from 192.0.2.2", "conn=1 denied", "conn=2 denied"],
         ["-", "-", "-", "192.0.2.1", "192.0.2.2"]),
        (2, ["conn=1 from 192.0.2.1", "other", "conn=1 denied"], ["-", "-", "-"]),
        (5, ["conn=1 from 192.0.2.1", "conn=1 denied", "conn=1 denied"], ["-", "192.0.2.1", "-"]),
        (5, ["conn=1 from 192.0.2.1", "conn=2 denied"], ["-", "-"]),
        (3, ["conn=1 from 192.0.2.1", "conn=1 from 192.0.2.1", "conn=1 denied"], ["-", "-", "192.0.2.1"]),
    ],
)  # fmt: skip
def test_lines_wait_for_each_other(tmp_path: Path, maxlines: int, lines: list[str], expected: list[str]) -> None:
    assert told(tmp_path, PAIR.format(maxlines), *lines) == expected


def test_what_matched_is_used_up_and_ignoreregex_sees_only_that(tmp_path: Path) -> None:
    definition = PAIR.format(5) + "ignoreregex = from 192\\.0\\.2\\.9\\s\n"
    lines = ["conn=9 from 192.0.2.9", "conn=1 from 192.0.2.1", "conn=1 denied", "conn=9 denied", "conn=9 denied"]
    assert told(tmp_path, definition, *lines) == ["-", "-", "192.0.2.1", "-", "-"]


def test_a_line_without_a_date_is_of_the_time_of_the_last(tmp_path: Path) -> None:
    (tmp_path / "f.conf").write_text(
        "[Definition]\nfailregex = ^ begin$<SKIPLINES>^~ bad <HOST>$\nmaxlines = 2\n"
        "datepattern = {^LN-BEG}Epoch\n  ^~()**\n"
    )
    loaded = filterfile.load("f", [tmp_path])
    assert isinstance(loaded, Filter), loaded
    for now, expected in ((NOW, NOW - 7), (NOW + 3600, NOW + 3600)):
        m = Matcher(loaded)
        assert m.match(LogLine("log", f"{int(NOW) - 7} begin"), now) is None
        found = m.match(LogLine("log", "~ bad 192.0.2.1"), now)
        assert isinstance(found, Offence) and found.time == expected
