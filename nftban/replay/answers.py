"""What DNS said of addresses, for a replay: from the store, or asked now where that is wanted.

Takes suspects as a Decider has them; gives the Evidence that was recorded with a ban of the address (of several, the
one nearest in time), or None; notes of whom nothing is recorded.  `ask` asks DNS about those, within half of each
zone's daily budget.
Guarantees: without `ask` no packet leaves the machine; what is held against somebody is what was answered, and when
is told.  A store that is not there or not for this user is no error.
Does not: write to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from nftban.config.load import Loaded
from nftban.errors import NftbanError
from nftban.prefixes import Prefix
from nftban.records import Evidence, Suspect
from nftban.store.sqlite import Store
from nftban.verify.verify import Told, Verifier

AT_ONCE = 50
RECORDED = 100
"""Bans of an address that are looked at."""


class Recorded:
    """The answers of one replay, for all its settings."""

    def __init__(self, loaded: Loaded, note: Callable[[str], None]) -> None:
        """note: is told why the store cannot be read."""
        self.used: dict[Prefix, Evidence] = {}
        self.unknown: dict[Prefix, Told] = {}
        self.asked = 0
        self._recorded: dict[Prefix, list[Evidence]] = {}
        self._store: Store | None = None
        try:
            if loaded.state_path.is_file():
                self._store = Store(loaded.state_path)
        except (OSError, NftbanError) as e:
            note(f"no recorded answers: {e}")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def about(self, suspect: Suspect, told: Told, now: float) -> Evidence | None:
        """As the daemon would have it now: its answers count as given at this moment."""
        address = suspect.offences[-1].prefix
        found = self._recorded.get(address)
        if found is None:
            found = self._recorded[address] = self._looked_up(address)
        if not found:
            self.unknown[address] = told
            return None
        nearest = min(found, key=lambda evidence: abs(evidence.reverse.asked - now))
        self.used[address] = nearest
        return replace(
            nearest,
            listings=tuple(replace(e, asked=now) for e in nearest.listings),
            reverse=replace(nearest.reverse, asked=now),
        )

    def _looked_up(self, address: Prefix) -> list[Evidence]:
        if self._store is None:
            return []
        found = []
        for stored in self._store.bans_covering(address, RECORDED):
            evidence = self._store.detail(stored.id).evidence
            if evidence is not None and evidence.prefix == address:
                found.append(evidence)
        return found

    async def ask(self, verifier: Verifier, now: float, told: Callable[[int, int], None]) -> None:
        """Asks about those of whom nothing is recorded; told: how many of how many are done."""
        if self._store is not None:
            verifier.restore(self._store.state("verifier") or {}, now)
        await verifier.test_zones(now)  # a zone that is dead or lists everybody is not believed
        limit = asyncio.Semaphore(AT_ONCE)
        wanted = dict(self.unknown)

        async def one(address: Prefix, about: Told) -> None:
            async with limit:
                self._recorded[address] = [await verifier.evidence(address, now, about, modest=True)]
            self.asked += 1
            told(self.asked, len(wanted))

        await asyncio.gather(*(one(address, about) for address, about in wanted.items()))
        self.unknown.clear()
