"""Lists for the guards: `read` reads one as a netset, `judged` says what the guards make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nftban.feeds.formats import FORMATS
from nftban.feeds.guards import BOGONS, CANARIES, Known, Limits, Refusal, examined
from nftban.ranges import Ranges

NOW = 1_800_000_000.0
Judged = Callable[..., Ranges | Refusal]


@pytest.fixture
def judged() -> Judged:
    """Of a text: the ranges, or the refusal.  `format`, `known`, and any of Limits' fields."""

    def judge(text: str, format: str = "netset", known: Known | None = None, **limits: Any) -> Ranges | Refusal:
        parsed = FORMATS[format]([text.encode()])
        return examined(parsed, replace(Limits(), **limits), known, CANARIES, Ranges.of(BOGONS), NOW)

    return judge
