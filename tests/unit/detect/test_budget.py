"""Expressions that backtrack for ever end, are suspended loudly, and the others go on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nftban.detect import filterfile
from nftban.detect.budget import TICK, WATCH
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import LINE_LIMIT, SUSPENDED, SUSPENDED_MOST, Matcher
from nftban.records import LogLine, Offence

NOW = 1795552000.0
# Known shapes of expressions that take exponential or high polynomial time, each with a line made for it.
CATASTROPHES = {
    r"^(a+)+b <HOST>": "a" * 60,
    r"^(\w+\s?)*: <HOST>": "word " * 40 + "!",
    r"^([a-z]+)*=(?:\d+) <HOST>": "a" * 50,
    r"^(?:(?:x+x+)+y)+ <HOST>": "x" * 50,
    r"^(.*)\s(.*)\s(.*)\s(.*)\s(.*)= <HOST>": " " * 3000,
    r"^(?:\s*\S*\s*)*; <HOST>": "- " * 60,
    r"^(?:(?!zz).|.)*?! <HOST>": "a" * 50,
    r"(.*?,){11}P <HOST>": "1," * 60,
}


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    assert WATCH.start()
    yield
    WATCH.stop()


def matcher(tmp_path: Path, *expressions: str, said: list[str] | None = None) -> Matcher:
    (tmp_path / "f.conf").write_text("[Definition]\nfailregex = " + "\n            ".join(expressions) + "\n")
    loaded = filterfile.load("f", [tmp_path])
    assert isinstance(loaded, Filter), loaded
    return Matcher(loaded, report=(said if said is not None else []).append)


def found(m: Matcher, line: LogLine, now: float) -> Offence | None:
    """What the rules make of a line, whatever the screen says."""
    result = m.match(line, now, tuple(range(len(m.filter.rules))))
    assert result is None or isinstance(result, Offence)
    return result


def cost(m: Matcher, text: str, now: float = NOW) -> float:
    """CPU seconds."""
    begun = time.process_time()
    found(m, LogLine("log", text), now)
    return time.process_time() - begun


# No engine without backtracking can say that it does not match: it has no lookahead.
STUBBORN = r"^(a+)+(?=b)c <HOST>"
STUBBORN_LINE = "a" * 60 + "c 192.0.2.7"


@pytest.mark.parametrize("expression", CATASTROPHES)
def test_a_catastrophe_ends_and_nothing_is_lost(tmp_path: Path, expression: str) -> None:
    said: list[str] = []
    m = matcher(tmp_path, expression, "from <HOST>$", said=said)
    line = LogLine("log", CATASTROPHES[expression] + " from 192.0.2.7")
    result = found(m, line, NOW)
    assert result is not None and str(result.prefix) == "192.0.2.7"
    assert m.counts.overruns == 1 and not m.suspended and not said
    # From now on it is known beforehand that it cannot match, and costs next to nothing.
    for _ in range(20):
        assert found(m, line, NOW) is not None
    assert m.counts.overruns == 1


def test_what_cannot_be_known_beforehand_is_suspended_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    m = matcher(tmp_path, STUBBORN, "x <HOST>$", "c <HOST>$", said=said)
    result = found(m, LogLine("log", STUBBORN_LINE), NOW)
    assert result is not None and result.rule.startswith("3")
    assert [rule.number for rule in m.suspended] == [1]
    (sentence,) = said
    assert f"f.conf:2 took too long on a line and is suspended for {SUSPENDED:.0f} s" in sentence
    # Suspended, it costs nothing; afterwards it is tried again, and then it rests longer.
    assert found(m, LogLine("log", STUBBORN_LINE), NOW + 1) is not None and m.counts.overruns == 1
    assert found(m, LogLine("log", STUBBORN_LINE), NOW + SUSPENDED) is not None
    assert m.counts.overruns == 2 and list(m.suspended.values()) == [NOW + 3 * SUSPENDED]


def test_a_rule_never_rests_longer_than_an_hour(tmp_path: Path) -> None:
    m = matcher(tmp_path, STUBBORN)
    now = NOW
    for _ in range(8):
        found(m, LogLine("log", STUBBORN_LINE), now)
        (until,) = m.suspended.values()
        assert until - now <= SUSPENDED_MOST
        now = until
    assert now - NOW >= 2 * SUSPENDED_MOST


def test_a_rule_that_overran_still_matches(tmp_path: Path) -> None:
    m = matcher(tmp_path, r"^(a+)+b <HOST>")
    assert found(m, LogLine("log", "a" * 60), NOW) is None and m.counts.overruns == 1
    assert found(m, LogLine("log", "aaab 192.0.2.7"), NOW + 1) is not None


@pytest.mark.parametrize("part", ["prefregex", "ignoreregex"])
def test_prefregex_and_ignoreregex_have_the_same_budget(tmp_path: Path, part: str) -> None:
    (tmp_path / "f.conf").write_text(f"[Definition]\n{part} = ^(a+)+b <F-CONTENT>.*</F-CONTENT>\nfailregex = <HOST>$\n")
    loaded = filterfile.load("f", [tmp_path])
    assert isinstance(loaded, Filter)
    m = Matcher(loaded)
    found(m, LogLine("log", "a" * 60 + " 192.0.2.7"), NOW)
    assert m.counts.overruns == 1


@pytest.mark.parametrize(
    "text", ["a" * (1 << 20), " " * (1 << 20), "x[192.0.2.7" * 95_000, "\x00" * (1 << 20), ":" * (1 << 20)]
)
def test_a_line_of_a_mebibyte_is_cut_and_costs_little(tmp_path: Path, text: str) -> None:
    shipped = Path(__file__).parents[3] / "rules" / "filters"
    for name in ("postfix", "sshd"):
        loaded = filterfile.load(f"{name}[mode=aggressive]", [shipped])
        assert isinstance(loaded, Filter)
        m = Matcher(loaded)
        assert cost(m, f"Nov 24 20:00:00 mx postfix/smtpd[1]: warning: {text}") < 20 * TICK
        assert m.counts.oversized == 1


def test_a_cut_does_not_end_a_line_in_the_middle_of_client_text(tmp_path: Path) -> None:
    m = matcher(tmp_path, "^user .* from <HOST>$")
    forged = f"user {'x' * (LINE_LIMIT - 27)} from 198.51.100.1"
    assert found(m, LogLine("log", forged), NOW) is not None
    assert found(m, LogLine("log", forged + "y" * 1000 + " from 192.0.2.7"), NOW) is None
    assert found(m, LogLine("log", forged, truncated=7), NOW) is None
    assert m.counts.oversized == 2


def test_nothing_can_be_interrupted_outside_the_main_thread() -> None:
    WATCH.stop()
    started: list[bool] = []
    thread = threading.Thread(target=lambda: started.append(WATCH.start()))
    thread.start()
    thread.join()
    assert started == [False]


def test_ticks_that_fall_outside_a_search_raise_nothing() -> None:
    begun = time.process_time()
    while time.process_time() - begun < 4 * TICK:
        pass


def test_a_process_that_was_watched_ends_as_it_wants_to() -> None:
    """Not by the signal: a timer that still runs at the end would have it."""
    code = "from nftban.detect.budget import WATCH; assert WATCH.start(); [str(i) for i in range(1_000_000)]"
    for _ in range(5):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
