"""A list that was cut off."""

from __future__ import annotations

from collections.abc import Callable

from nftban.feeds.guards import Known, Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


LIST = "".join(f"45.0.0.{n}\n" for n in range(100, 200))


def test_cut_inside_an_address(judged: Judged) -> None:
    found = judged(LIST + "45.0.")
    assert isinstance(found, Refusal) and found.guard == "truncated" and "'45.0.'" in found.why


def test_cut_so_that_another_address_is_left(judged: Judged) -> None:
    # 45.0.1.2 of 45.0.1.200: nothing but the newline that used to be there tells.
    cut = LIST + "45.0.1.2"
    found = judged(cut, known=Known(101, newline=True))
    assert isinstance(found, Refusal) and found.guard == "truncated"
    assert len(ok(judged(cut, known=Known(101, newline=False)))) == 2


def test_whole_lists_stand_with_and_without_a_last_newline(judged: Judged) -> None:
    assert len(ok(judged(LIST))) == len(ok(judged(LIST[:-1]))) == 1
