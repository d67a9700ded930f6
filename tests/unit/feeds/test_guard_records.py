"""Metadata that give another number of records than there are."""

from __future__ import annotations

from collections.abc import Callable

from nftban.feeds.guards import Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


ROWS = '{"cidr": "45.0.0.0/24", "sblid": "SBL1"}\n{"cidr": "45.1.0.0/24", "sblid": "SBL2"}\n'


def test_another_number_is_refused(judged: Judged) -> None:
    for says in (0, 1, 3, 2000):
        found = judged(ROWS + f'{{"type": "metadata", "records": {says}}}\n', "drop")
        assert isinstance(found, Refusal) and found.guard == "records" and str(says) in found.why


def test_the_right_number_stands_and_so_does_none(judged: Judged) -> None:
    assert len(ok(judged(ROWS + '{"type": "metadata", "records": 2}\n', "drop"))) == 2
    assert len(ok(judged(ROWS, "drop"))) == 2
