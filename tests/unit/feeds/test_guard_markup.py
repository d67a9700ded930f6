"""A web page instead of a list."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nftban.feeds.guards import Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


PAGE = """<!DOCTYPE html>
<html><body>45.0.0.1
</body></html>
"""


@pytest.mark.parametrize("before", ["", "\n \n", "\ufeff"])
def test_a_page_is_refused_whatever_addresses_are_on_it(judged: Judged, before: str) -> None:
    found = judged(before + PAGE)
    assert isinstance(found, Refusal) and found.guard == "markup"


def test_a_less_than_further_down_is_a_bad_line_only(judged: Judged) -> None:
    assert len(ok(judged("45.0.0.1\n<br>\n45.0.0.3\n"))) == 2
