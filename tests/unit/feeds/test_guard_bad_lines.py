"""Lines that are no entries."""

from __future__ import annotations

from collections.abc import Callable

from nftban.feeds.guards import Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


def test_a_list_in_another_format_is_refused_with_the_first_line(judged: Judged) -> None:
    found = judged("date,address\n" + "2026-11-01,45.0.0.1\n" * 40 + "45.0.0.1\n")
    assert isinstance(found, Refusal) and found.guard == "bad lines" and "line 1" in found.why


def test_a_few_typing_errors_are_left_out(judged: Judged) -> None:
    assert [str(p) for p in ok(judged("45.0.0.1\nx\n45.0.0.256\n45.0.0.3\n")).prefixes()] == ["45.0.0.1", "45.0.0.3"]


def test_up_to_a_twentieth_is_left_out(judged: Judged) -> None:
    good = "45.0.0.1\n" * 95
    assert ok(judged("x\n" * 5 + good))
    assert isinstance(judged("x\n" * 6 + good), Refusal)
