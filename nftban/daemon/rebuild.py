"""The store, whatever became of its file.

Takes its path and the kernel; gives an open store.  One that is damaged is set aside, with the date in its name, and a
new one made: live bans come out of the kernel's own sets, with the time that is left to them; cursors, logins and named
state out of the damaged file, as far as it can be read.
Guarantees: nothing is deleted; a ban that the kernel holds is not lifted because its explanation was lost.
Does not: know who told of it; what explained the bans, and earlier ones, is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nftban.kernel import Kernel
from nftban.kernel.layout import Kind, Layout
from nftban.records import Ban, Origin
from nftban.store.damage import DamagedStoreError, move_aside
from nftban.store.sqlite import Store

REASON = "rebuilt from the kernel's sets, since the store was lost"


def opened(path: Path, now: float) -> tuple[Store, Path | None]:
    """The store, and the new name of a damaged one in whose place it was made."""
    try:
        store = Store(path)
        try:
            store.probe()
        except DamagedStoreError:
            store.close()
            raise
        return store, None
    except DamagedStoreError:
        aside = move_aside(path, now)
        store = Store(path)
        store.salvage(aside)
        return store, aside


def rebuild(store: Store, kernel: Kernel, layout: Layout, now: float) -> int:
    """Writes the bans that the kernel holds into a store that has none; returns how many."""
    return store.add_bans(_bans(kernel, layout, now))


def _bans(kernel: Kernel, layout: Layout, now: float) -> Iterator[Ban]:
    names = {s.name for s in layout.address_sets.values() if s.kind not in (Kind.ALLOW, Kind.FEED)}
    for element in kernel.present(now, names):
        scope = layout.address_sets[element.set].scope
        for prefix in layout.prefixes(element):
            yield Ban(prefix, scope, now, element.until, Origin.LOG, reason=REASON)
