"""The allow list: who is never banned because the admin says so.

Takes the settings' entries and those added by `nftban allow`, which are kept in the store; gives them as `Protection`s.
An entry is an address, a prefix or a host name; names are resolved by the system (getaddrinfo(3), in a thread) every
RESOLVE_EVERY seconds.
Guarantees: what a name led to last stays allowed while it cannot be resolved, also over a restart; whoever controls a
name's DNS can allow addresses, never more than MOST_ADDRESSES at once and never a network.
Does not: lift bans (the callers do), resolve names before it is asked to.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nftban.config.words import HOST_NAME
from nftban.errors import UsageError
from nftban.prefixes import Prefix
from nftban.protect.protected import Protection
from nftban.store.sqlite import Store

log = logging.getLogger(__name__)

RESOLVE_EVERY = 300.0
MOST_ADDRESSES = 32
STATE = "allow"
"""The store's name for what it keeps of this list."""


@dataclass(frozen=True, slots=True)
class Entry:
    """entry: prefix or host name as text; since: when it was added, 0.0 where the settings have it; reason: the
    admin's words."""

    entry: str
    since: float = 0.0
    reason: str = ""


def canonical(text: str) -> str:
    """An entry as it is kept; UsageError where it is no address, prefix or host name, or would allow everybody."""
    try:
        prefix = Prefix.parse(text)
    except ValueError:
        if not HOST_NAME.fullmatch(text.rstrip(".")):
            raise UsageError(
                f"{text!r} is not an address, a prefix or a host name",
                "write 192.0.2.7, 192.0.2.0/24 or home.example.org",
            ) from None
        return text.rstrip(".").lower()
    if prefix.length == 0:
        raise UsageError(f"{prefix} is everybody: nothing could be banned any more", "allow a narrower prefix")
    return str(prefix)


class AllowList:
    """prefixes, names: the settings'."""

    def __init__(self, store: Store, prefixes: Iterable[Prefix], names: Iterable[str]) -> None:
        self._store = store
        self._settings = [Entry(e) for e in dict.fromkeys((*map(str, prefixes), *map(canonical, names)))]
        kept = store.state(STATE) or {}
        self._added = {e["entry"]: Entry(**e) for e in kept.get("added", ())}
        self._addresses: dict[str, list[str]] = kept.get("addresses", {})
        self._resolved: dict[str, float] = {}
        self.failures: dict[str, str] = {}

    def entries(self) -> list[Entry]:
        """The settings' entries, then those that were added, oldest first."""
        return [*self._settings, *self._added.values()]

    def addresses(self, entry: Entry) -> list[Prefix]:
        """What an entry allows now: itself, or where its name led last."""
        if (prefix := _prefix(entry.entry)) is not None:
            return [prefix]
        return [Prefix.parse(text) for text in self._addresses.get(entry.entry, ())]

    def protections(self) -> Iterator[Protection]:
        for entry in self.entries():
            why = "the allow list" + (f" ({entry.entry})" if _prefix(entry.entry) is None else "")
            yield from (Protection(prefix, why) for prefix in self.addresses(entry))

    def add(self, text: str, reason: str, now: float) -> bool:
        """False where it is there already; raises UsageError, StoreError."""
        entry = Entry(canonical(text), now, reason)
        if any(e.entry == entry.entry for e in self.entries()):
            return False
        self._added[entry.entry] = entry
        self._save()
        return True

    def remove(self, text: str) -> bool:
        """False where it is not there; UsageError also for an entry of the settings, which only they can lose."""
        entry = canonical(text)
        if any(e.entry == entry for e in self._settings):
            raise UsageError(f"{entry} stands in the settings", "take it out of [allow] there, and reload")
        if self._added.pop(entry, None) is None:
            return False
        self._save()
        return True

    async def resolve(self, now: float) -> bool:
        """Asks for the names whose turn it is; says whether one leads elsewhere now."""
        names = [e.entry for e in self.entries() if _prefix(e.entry) is None]
        due = [n for n in names if now - self._resolved.get(n, float("-inf")) >= RESOLVE_EVERY]
        found = await asyncio.gather(*(self._resolve(name, now) for name in due))
        if any(found):
            self._save()
        return any(found)

    async def _resolve(self, name: str, now: float) -> bool:
        self._resolved[name] = now
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            if name not in self.failures:
                log.warning("the allow list's %s cannot be resolved (%s); where it led before stays allowed", name, e)
            self.failures[name] = str(e)
            return False
        self.failures.pop(name, None)
        texts = sorted({str(Prefix.parse(str(address[0]).partition("%")[0])) for *_, address in answers})[
            :MOST_ADDRESSES
        ]
        changed = texts != self._addresses.get(name)
        self._addresses[name] = texts
        return changed

    def _save(self) -> None:
        names = {e.entry for e in self.entries()}
        added = [{"entry": e.entry, "since": e.since, "reason": e.reason} for e in self._added.values()]
        addresses = {name: texts for name, texts in self._addresses.items() if name in names}
        state: dict[str, Any] = {"added": added, "addresses": addresses}
        self._store.set_state(STATE, state)


def _prefix(text: str) -> Prefix | None:
    try:
        return Prefix.parse(text)
    except ValueError:
        return None
