"""Any filter file is a Filter or faults, any date pattern patterns or a ValueError, any line a result or nothing.

fail2ban's own filters, where its package can be had, are fed by tests/corpus; here shipped ones and made-up ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nftban.detect import filterfile
from nftban.detect.budget import WATCH
from nftban.detect.datepattern import DatePattern, patterns
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Logged, Matcher
from nftban.detect.timestamps import SEARCHED, Timestamps
from nftban.errors import Fault
from nftban.records import Login, LogLine, Offence

FILTERS = Path(__file__).parents[2] / "rules" / "filters"
NOW = 1795552000.0
DATES = (
    "%Y", "%ExY", "%m", "%Exm", "%d", "%b", "%B", "%a", "%A", "%H", "%k", "%I", "%l", "%p", "%M", "%S", "%f", "%z",
    "%Z", "%Exz", "%ExZ", "%j", "%U", "%W", "%w", "%y", "%c", "%x", "%X", "%%", "%", "%Q", "{DATE}", "{^LN-BEG}",
    "{UNB}", "**", "EPOCH", "{EPOCH}", "LEPOCH", "{LEPOCH}", "TAI64N", "{NONE}", "{DEFAULT}", "^", "$", "(", ")",
    "[", "(?:", "-", ":", " ", "T", "\\", "+", "{3}", "(?P<_sep>[-/])", "(?P=_sep)",
)  # fmt: skip
STAMPS = (
    "2026", "-11-", "24", "Nov", " 24 ", "T", "20:13:28", ":61", "99", "00", ".123456", "+0100", "+99:99", "Z",
    "UTC", " PM", "Tue ", "[", "]", "<", ">", "@400000006a1a34c80d1c1b2c", "@ffffffffffffffffffffffff", "1795551208",
    "9999999999999999", "/", "-", " ", "0", "366", "٣", "audit(", "\t", "\x00",
)  # fmt: skip
stamps = st.lists(st.one_of(st.sampled_from(STAMPS), st.text(max_size=3)), max_size=10).map("".join)
clocks = st.one_of(st.just(NOW), st.floats(0, 4e9))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(DATES), max_size=8).map("".join), stamps, clocks)
@example("%Y-%m-%d", "2026-02-30", NOW)
@example("%U %A %Y", "53 Monday 2026", NOW)
@example("%j %Y", "366 0000", NOW)
def test_any_date_pattern_reads_any_text_or_is_refused(pattern: str, text: str, now: float) -> None:
    try:
        found = patterns(pattern)
    except ValueError:
        return
    assert found and all(isinstance(each, DatePattern) for each in found)
    stamp = Timestamps(found).read(text, now)
    if stamp is not None:
        assert 0 <= stamp.start <= stamp.end <= len(text)


@settings(max_examples=800, deadline=None)
@given(stamps, clocks)
def test_any_text_has_a_date_or_none(text: str, now: float) -> None:
    timestamps = Timestamps()
    first = timestamps.read(text, now)
    assert first == timestamps.read(text, now)  # the cache says the same
    if first is not None:
        assert 0 <= first.start < first.end <= min(len(text), SEARCHED + 20)


TOKENS = (
    "[INCLUDES]\n", "[Definition]\n", "[Init]\n", "[DEFAULT]\n", "[Init?family=inet6]\n", "before = a.conf\n",
    "failregex = ", "ignoreregex = ", "prefregex = ", "datepattern = ", "maxlines = 3\n", "mode = x\n", "<HOST>",
    "<ADDR>", "<SKIPLINES>", "^", "$\n", "\n    ", "<F-USER>", "</F-USER>", "<F-MLFID>", "</F-MLFID>",
    "<F-CONTENT>.+</F-CONTENT>", "<F-NOFAIL>x</F-NOFAIL>", "%(x)s", "%(known/failregex)s", "%(mode)s", "<mode>",
    "<re-<mode>>", "re-x = y\n", "x = ", "%%Y", "(?:", ")", "(a|b)", ".*", "\\S+", "[", "{2}", "#c\n", " ; c\n", "=",
    "word ",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("filters")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(TOKENS), max_size=25).map("".join),
    st.lists(st.one_of(st.text(max_size=20), st.just("word x 192.0.2.7")), max_size=4),
)
@example(
    "[Definition]\nfailregex = ^<F-MLFID>\\S*</F-MLFID> <HOST>$\n    ^<SKIPLINES>x\nmaxlines = 3\n",
    ["", "", "a 192.0.2.7"],
)
def test_any_filter_loads_or_says_why_and_takes_any_line(place: Path, text: str, lines: list[str]) -> None:
    (place / "a.conf").write_text(text)
    loaded = filterfile.load("a", [place])
    if not isinstance(loaded, Filter):
        assert loaded and all(isinstance(fault, Fault) and fault.what for fault in loaded)
        return
    matcher = Matcher(loaded, sessions=5)
    for line in lines:
        found = matcher.match(LogLine("log", line), NOW)
        assert found is None or isinstance(found, Offence | Login | Logged)


ALL = [
    loaded
    for name in filterfile.available([FILTERS])
    if isinstance(loaded := filterfile.load(f"{name}[mode=aggressive]", [FILTERS]), Filter)
    or isinstance(loaded := filterfile.load(name, [FILTERS]), Filter)
]


@pytest.fixture
def watched() -> None:
    assert WATCH.start()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_through_every_shipped_filter(watched: None, data: st.DataObject) -> None:
    raw = data.draw(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
    text = raw.decode("utf-8", "backslashreplace")
    begin = data.draw(st.sampled_from(("", "Nov 24 20:00:00 mx ", "2026-11-24T20:00:00Z mx sshd[1]: ")))
    for filter in ALL:
        found = Matcher(filter).match(LogLine("log", begin + text), NOW, tuple(range(len(filter.rules))))
        assert found is None or isinstance(found, Offence | Login | Logged)
