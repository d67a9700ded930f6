"""What the kernel should hold for some bans, as a plain list of elements."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from math import inf

from nftban.kernel import plan
from nftban.kernel.layout import Layout
from nftban.prefixes import PrefixSet
from nftban.records import Ban, Element


def ends(bans: Iterable[Ban]) -> dict[tuple[str, int, int], dict[int, float]]:
    """As Bans and the store hold them; of bans on the same prefix and scope the one that ends last counts."""
    found: dict[tuple[str, int, int], dict[int, float]] = {}
    for ban in bans:
        held = found.setdefault((ban.scope, ban.prefix.family, ban.prefix.length), {})
        end = inf if ban.until is None else ban.until
        held[ban.prefix.first] = max(end, held.get(ban.prefix.first, end))
    return found


def desired(bans: Iterable[Ban], allow: PrefixSet, layout: Layout, now: float) -> list[Element]:
    """The elements of what is not over, ascending."""
    holding = ends(ban for ban in bans if ban.holds(now))
    return sorted(chain.from_iterable(plan.desired(holding, allow, layout).values()), key=plan.PLACE)
