"""Addresses that no honest list has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nftban.feeds.guards import Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


@pytest.mark.parametrize("entry", ["8.8.8.8", "1.1.1.0/24", "9.9.0.0/16", "2620:fe::/48"])
def test_a_canary_refuses_the_whole_list(judged: Judged, entry: str) -> None:
    found = judged(f"45.0.0.1\n{entry}\n45.0.0.3\n")
    assert isinstance(found, Refusal) and found.guard == "canaries" and "no honest list" in found.why


def test_its_neighbours_are_ordinary_addresses(judged: Judged) -> None:
    assert len(ok(judged("8.8.8.9\n1.1.1.2/31\n2620:fe::a\n"))) == 3


def test_an_exclusion_lets_the_canary_live(judged: Judged) -> None:
    assert ok(judged("8.8.0/24\n!8.8.8.8\n8.8.8.0/24\n", "ip4set"))
