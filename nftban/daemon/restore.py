"""The store's bans into the kernel without a daemon: at boot, before there is a network.

Takes the settings; gives how many bans hold and what had to be put into the kernel.  nftban-restore.service runs it
after nftables.service, whose start flushes the ruleset, and before network-pre.target.
Guarantees: the kernel holds what a daemon with these settings would begin with; nothing is asked of the network and no
log is read; with [daemon] observe, or where there is no store yet, nothing is done.
Does not: lift bans that must not be any more.  Allow sets come first in the kernel; the daemon lifts them later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from nftban.config.load import Loaded
from nftban.daemon.allowlist import AllowList
from nftban.daemon.assemble import assemble
from nftban.daemon.bans import Bans
from nftban.daemon.lockout import Lockout
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import PrefixSet
from nftban.records import Refused
from nftban.store.sqlite import Store


@dataclass(frozen=True, slots=True)
class Restored:
    """bans: that hold now; changed: elements that the kernel lacked or had too much; refused: by the kernel; note: why
    nothing was done, or ""."""

    bans: int = 0
    changed: int = 0
    refused: tuple[Refused, ...] = ()
    note: str = ""


async def restore(loaded: Loaded) -> Restored:
    """Makes the kernel hold the live bans and whoever is protected; raises NftbanError where it cannot."""
    if loaded.settings.daemon.observe:
        return Restored(note="[daemon] observe is set: nothing is written to the kernel")
    if not loaded.state_path.exists():
        return Restored(note=f"there is no store {loaded.state_path} yet")
    assembly = assemble(loaded)
    store = Store(loaded.state_path)
    try:
        kernel = NetlinkKernel(assembly.layout)
        bans = Bans(store, kernel, assembly.layout, PrefixSet())
        now = time.time()
        count = bans.load(now)
        allow = AllowList(store, loaded.settings.allow.prefixes, loaded.settings.allow.names)
        protected = await Lockout(loaded.settings, assembly.resolver_prefixes, allow).current()
        delta, refused = bans.reconcile(protected.allow, now)
        return Restored(count, len(delta), tuple(refused))
    finally:
        store.close()
