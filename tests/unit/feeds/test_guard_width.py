"""Entries wider than the feed may have."""

from __future__ import annotations

from collections.abc import Callable

from nftban.feeds.guards import Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


def test_one_wide_entry_refuses_the_list_and_is_named(judged: Judged) -> None:
    found = judged("45.0.0.1\n38.0.0.0/8\n", share=0.5)
    assert isinstance(found, Refusal) and found.guard == "width" and "38.0.0.0/8" in found.why
    found = judged("2001:4000::/31\n", share=0.5)
    assert isinstance(found, Refusal) and found.guard == "width"


def test_the_widest_that_is_allowed_stands(judged: Judged) -> None:
    assert len(ok(judged("45.0.0.0/16\n2001:4000::/32\n"))) == 2
    assert len(ok(judged("38.0.0.0/10\n", widest4=10))) == 1


def test_a_range_is_as_wide_as_its_addresses(judged: Judged) -> None:
    found = judged("45.0.0.0-45.1.0.0\n")
    assert isinstance(found, Refusal) and found.guard == "width"


def test_neighbours_that_merge_are_no_wide_entry(judged: Judged) -> None:
    assert len(ok(judged("45.0.0.0/16\n45.1.0.0/16\n"))) == 1


def test_wide_bogons_are_there_by_design(judged: Judged) -> None:
    found = ok(judged("10.0.0.0/8\n224.0.0.0/3\n127.0.0.0/8\n45.0.0.1\n"))
    assert [str(p) for p in found.prefixes()] == ["45.0.0.1"]


def test_everything_is_refused_although_part_of_it_is_bogons(judged: Judged) -> None:
    for text in ("0.0.0.0/0", "::/0", "192.0.0.0/8"):
        found = judged(text + "\n", share=10)
        assert isinstance(found, Refusal) and found.guard in ("width", "canaries"), text
