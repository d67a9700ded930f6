"""What the tests of DNSBL verification share: the shipped data files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.verify.providers import load_providers
from nftban.verify.zones import Provider

RULES = Path(__file__).parents[3] / "rules" / "dnsbl"


@pytest.fixture(scope="session")
def providers() -> tuple[Provider, ...]:
    found, faults = load_providers([RULES])
    assert not faults
    return found
