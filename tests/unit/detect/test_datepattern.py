"""fail2ban's date patterns.  Every filter's own are run by tests/corpus; here each tag, word and anchor once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from nftban.detect.datepattern import patterns
from nftban.detect.timestamps import Stamp, Timestamps

NOW = datetime(2026, 11, 24, 20, 15, tzinfo=UTC).timestamp()
THEN = datetime(2026, 11, 24, 20, 13, 28, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(text: str, *written: str, now: float = NOW) -> tuple[float | None, str] | None:
    """The time, and the line without its date."""
    timestamps = Timestamps([each for line in written for each in patterns(line)])
    stamp: Stamp | None = None
    for _ in range(2):  # the second reading comes from the cache
        stamp = timestamps.read(text, now)
    return None if stamp is None else (stamp.time, text[: stamp.start] + text[stamp.end :])


@pytest.mark.parametrize(
    ("text", "expected", "rest"),
    [
        ("Tue Nov 24 20:13:28 2026 [pid 1]", THEN, " [pid 1]"),
        ("Nov 24 2026 20:13:28 x", THEN, " x"),
        ("[Tue Nov 24 20:13:28.125 2026] [error]", THEN + 0.125, "[] [error]"),
        ("2026/11/24 20:13:28 [error] 1#1", THEN, " [error] 1#1"),
        ("2026.11.24 20:13:28 x", THEN, " x"),
        ("2026-11-24 20:13:28 +0100 x", THEN - 3600, " x"),
        ("2026-11-24T20:13:28.5 UTC: x", THEN + 0.5, ": x"),
        ("24/11/2026 20:13:28 x", THEN, " x"),
        ("24-11-26 20:13:28 x", THEN, " x"),
        ("24-Nov-2026 20:13:28.250 x", THEN + 0.25, " x"),
        ("24-Nov-2026 20:13:28 -0230 x", THEN + 9000, " x"),
        ('192.0.2.7 - - [24/Nov/2026:20:13:28 +0000] "GET', THEN, '192.0.2.7 - - [] "GET'),
        ("11/24/2026:20:13:28 x", THEN, " x"),
        ("11-24-2026 20:13:28.5 x", THEN + 0.5, " x"),
        ("<11/24/26@20:13:28> x", THEN, " x"),
        ("261124 20:13:28 x", THEN, " x"),
        ("Nov 24, 2026 8:13:28 PM x", THEN, " x"),
        ("Nov 24, 2026 12:13:28 AM x", THEN - 20 * 3600, " x"),
        ("Nov-24-26 20:13:28 x", THEN, " x"),
        ("20261124T201328 x", THEN, " x"),
        ("CET Nov 24 20:13:28 x", THEN - 3600, " x"),
        ("+00:00 Nov 24 20:13:28 x", THEN, " x"),
        ("@400000006a1a34c80d1c1b2c x", 1780102344.0, " x"),
        ("1795551208.123 4 192.0.2.7", 1795551208.123, " 4 192.0.2.7"),
        ("[1795551208] nsd[1]: x", 1795551208.0, "[] nsd[1]: x"),
        ("type=USER_AUTH msg=audit(1795551208.000:9): x", 1795551208.0, "type=USER_AUTH msg=audit(:9): x"),
        ("20:13:28 x", THEN, " x"),
        ("20:17:28 x", THEN + 240 - 86400, " x"),
        ("x 2026-11-24 20:13:28 and Nov 24 20:13:29 y", THEN, "x  and Nov 24 20:13:29 y"),
        ("Nov 24 20:13:28 2026:db8::1 kernel: x", THEN, " 2026:db8::1 kernel: x"),
    ],
)
def test_known_formats(text: str, expected: float, rest: str) -> None:
    found = read(text)
    assert found is not None
    assert found[0] == pytest.approx(expected, abs=1e-4) and found[1] == rest


@pytest.mark.parametrize(
    ("pattern", "text", "expected", "rest"),
    [
        ("^t=%Y-%m-%dT%H:%M:%S%z", "t=2026-11-24T20:13:28+0000 lvl=eror", THEN, " lvl=eror"),
        (r"^[^\[]*\[({DATE})", "192.0.2.7 - [24/Nov/2026:20:13:28 +0000] x", THEN, "192.0.2.7 - [] x"),
        (r"^<\d+>\d+\s+{DATE}", "<38>1 2026-11-24T20:13:28Z mx sshd", THEN, " mx sshd"),
        ("{^LN-BEG}", "[Nov 24 20:13:28] x", THEN, "[] x"),
        ("{^LN-BEG}Epoch", "[1795551208] x", 1795551208.0, "[] x"),
        ("{^LN-BEG}TAI64N", "@400000006a1a34c80d1c1b2c x", 1780102344.0, " x"),
        ("LEPOCH", "1795551208123 x", 1795551208.123, " x"),
        (r"^ts=\{({EPOCH}\}", "", None, ""),
        ("^ts={LEPOCH}", "ts=1795551208123456 x", 1795551208.123456, " x"),
        ("{NONE}", "Nov 24 20:13:28 x", None, "Nov 24 20:13:28 x"),
        ("%Y, day %j, %H:%M", "x 2026, day 328, 20:13 y", THEN - 28, "x  y"),
        ("%A week %W of %Y %I %p", "Tuesday week 47 of 2026 8 pm", THEN - 13 * 60 - 28, ""),
        ("%c", "Tue Nov 24 20:13:28 2026", THEN, ""),
        ("{UNB}%Y%Exm%Exd%ExH%ExM%ExS", "x20261124201328y", THEN, "xy"),
        ("**%Y%Exm%Exd%ExH%ExM%ExS**", "x20261124201328y", THEN, "xy"),
        ("%d %B %Y %ExH:%ExM:%ExS %Exz", "24 november 2026 20:13:28 UTC+0100", THEN - 3600, ""),
        ("%d.%m.%y %k:%M:%S %%", "24.11.26 20:13:28 %", THEN, ""),
    ],
)
def test_a_pattern(pattern: str, text: str, expected: float | None, rest: str) -> None:
    if not text:
        with pytest.raises(ValueError, match="not a regular expression"):
            patterns(pattern)
        return
    assert read(text, pattern) == (pytest.approx(expected, abs=1e-4) if expected is not None else None, rest)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("{^LN-BEG}", "x Nov 24 20:13:28 y"),
        ("{^LN-BEG}Epoch", "x 1795551208 y"),
        ("^%Y-%m-%d %H:%M:%S", " 2026-11-24 20:13:28"),
        ("%Y-%m-%d %H:%M:%S", "a2026-11-24 20:13:28b"),
        ("%ExY%m%d", "18261124 x"),
        ("%b %d", "Nix 24"),
    ],
)
def test_no_date_for_a_pattern(pattern: str, text: str) -> None:
    assert read(text, pattern) is None


def test_the_first_anchored_pattern_wins_and_of_others_the_leftmost() -> None:
    text = "01/02/2026 10:00:00 x Nov 24 20:13:28"
    assert read(text, "%b %d %H:%M:%S", "^%m/%d/%Y %H:%M:%S") == (
        datetime(2026, 1, 2, 10, tzinfo=UTC).timestamp(),
        " x Nov 24 20:13:28",
    )
    assert read("a " + text, "%b %d %H:%M:%S", "%d/%m/%Y %H:%M:%S") == (
        datetime(2026, 2, 1, 10, tzinfo=UTC).timestamp(),
        "a  x Nov 24 20:13:28",
    )


def test_a_date_outside_of_what_is_cut_is_not_confused_in_the_cache() -> None:
    timestamps = Timestamps(patterns("^(%H:%M:%S) %Y-%m-%d"))
    for day in (23, 24):
        stamp = timestamps.read(f"20:13:28 2026-11-{day} x", NOW)
        assert stamp == (THEN - (24 - day) * 86400, 0, 8), day


def test_a_date_far_behind_is_not_looked_for() -> None:
    assert read("x" * 3000 + " 2026-11-24 20:13:28") is None
