"""From settings to feeds in use, and from feeds to what the kernel is to hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.config.load import Loaded, load
from nftban.daemon.assemble import checked
from nftban.daemon.feeds import feed_changes, feed_elements, feeds_in_use
from nftban.errors import ConfigError
from nftban.kernel.layout import FeedSets
from nftban.prefixes import Prefix, PrefixSet
from nftban.ranges import Ranges

SCOPES = ("all", "mail")
prefix = st.one_of(
    st.builds(Prefix, st.just(4), st.integers(0, 400), st.integers(24, 32)),
    st.builds(Prefix, st.just(6), st.integers(0, 400).map(lambda n: (0x2A00 << 112) + n), st.integers(120, 128)),
)
listed = st.lists(prefix, max_size=20).map(lambda prefixes: Ranges.of(PrefixSet(prefixes)))


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


@given(listed, listed)
@settings(max_examples=200, deadline=None)
def test_present_and_changes_make_wanted(present: Ranges, wanted: Ranges) -> None:
    sets = FeedSets("own", "all")
    old, new = (feed_elements(sets, ranges, PrefixSet(), 5.0) for ranges in (present, wanted))
    delta = feed_changes(old, new)
    before, after = ({e for columns in side.values() for e in columns} for side in (old, new))
    assert before - set(delta.delete) | set(delta.add) == after
    assert not set(delta.add) & before and set(delta.delete) <= before
    assert not feed_changes(new, new)


def test_enforced_feeds_have_kernel_sets_and_faults_are_told_with_all_others(tmp_path: Path) -> None:
    (tmp_path / "nftban.toml").write_text("[feed.cins]\nenforce = true\n[feed.greensnow]\npoints = 2\n")
    assembly = checked(tmp_path / "nftban.toml")
    assert assembly.layout.feeds == (FeedSets("cins", "all"),)
    assert [use.feed.name for use in assembly.feeds] == ["cins", "greensnow"]
    (tmp_path / "nftban.toml").write_text("[feed.none]\nenforce = true\n[kernel]\nreject = 'none'\n")
    with pytest.raises(ConfigError) as raised:
        checked(tmp_path / "nftban.toml")
    assert [fault.line for fault in raised.value.faults] == [1, 4]
