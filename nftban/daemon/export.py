"""The bans as text for nft(8), for a boot without nftban or another machine.

Takes the layout and what its sets should hold; gives one file for `nft -f`: the table as `nftban ruleset` prints it,
then the elements.  Guarantees: loading it needs nothing of ours, loses no ban that is there, and may be repeated.
Limits: an element's timeout is what is left of it now; loaded later, it begins anew then.  nft changes no timeout of
an element that is there already.  List feeds are left out: their copies are kept elsewhere.
Source: nft(8), "SETS" and "ELEMENTS".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from nftban.kernel import Desired
from nftban.kernel.layout import Kind, Layout, ruleset_text
from nftban.prefixes import BITS, Prefix
from nftban.records import Element

PER_STATEMENT = 1000


def nft_text(layout: Layout, desired: Desired, now: float) -> str:
    """desired: elements by set; now: epoch seconds.  What is over is left out."""
    parts = [ruleset_text(layout)]
    for spec in layout.sets:
        if spec.kind in (Kind.PORTS, Kind.FEED):
            continue
        written = list(_written(desired.get(spec.name, ()), spec.family, now))
        for at in range(0, len(written), PER_STATEMENT):
            elements = ",\n".join(written[at : at + PER_STATEMENT])
            parts.append(f"add element inet {layout.table} {spec.name} {{\n{elements}\n}}\n")
    return "\n".join(parts)


def _written(elements: Iterable[Element], family: int, now: float) -> Iterator[str]:
    for element in elements:
        if element.until is not None and element.until <= now:
            continue
        first, last = (str(Prefix(family, n, BITS[family])) for n in (element.first, element.last))
        place = first if first == last else f"{first}-{last}"
        yield place if element.until is None else f"{place} timeout {math.ceil(element.until - now)}s"
