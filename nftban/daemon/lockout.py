"""Keeps the answer to "what must not be banned" fresh.

Takes the settings and the running system; gives a `Protected` as of the call.
Guarantees: nothing is banned before the first look succeeded; what the machine showed last stays protected while a
later look fails, and `failure` says so.  The look at addresses and sessions takes milliseconds and runs in a thread;
where nobody from a prefix is connected by SSH at this moment, that is known at once, and nobody there can be logged in.
Does not: decide; protect/protected.py does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from nftban.config.schema import Settings
from nftban.daemon.allowlist import AllowList
from nftban.errors import TryAgainError
from nftban.prefixes import Prefix
from nftban.protect import host
from nftban.protect.changes import AddressChanges
from nftban.protect.connections import Connections
from nftban.protect.protected import Protected, Protection

log = logging.getLogger(__name__)

ADDRESSES_MAX_AGE = 5.0
"""Seconds.  Sessions have none: one may have begun just before its address would be banned, so `current` looks at them
for every ban; bans that wait at the same time share one look."""


class Lockout:
    """What must not be banned, as of now."""

    def __init__(self, settings: Settings, resolvers: Iterable[Prefix], allow: AllowList) -> None:
        self._settings = settings
        self._allow = allow
        self._resolvers = [Protection(p, "a resolver of this machine") for p in resolvers]
        self._addresses: list[Protection] = []
        self._sessions: list[Protection] = []
        self._addresses_at = self._looked_at = float("-inf")
        self._lock = asyncio.Lock()
        self._forgotten = 0
        self._looking: asyncio.Task[object] | None = None
        self._connections: Connections | None = None
        self._last: Protected | None = None
        self._changes: AddressChanges | None = None
        self.failure: str | None = None

    async def current(self, callers: Iterable[Prefix] = ()) -> Protected:
        """What is protected now; callers: addresses whose users are asking this very moment."""
        clock = asyncio.get_running_loop().time
        asked = clock()
        async with self._lock:
            if self._looked_at < asked:
                began, forgotten = clock(), self._forgotten
                addresses_too = began - self._addresses_at > ADDRESSES_MAX_AGE / 2
                try:
                    await asyncio.to_thread(self._look, addresses_too)
                except Exception as e:
                    if self._looked_at == float("-inf"):
                        raise TryAgainError(
                            f"this machine's own addresses cannot be read: {e}",
                            "nothing is banned before they are known, so that nobody is locked out",
                        ) from e
                    # Whatever failed: what was seen before stays protected, and the admin hears of it.
                    if self.failure is None:
                        log.exception("cannot look up this machine's own addresses; the last known stay protected")
                    self.failure = f"own addresses or SSH sessions cannot be read: {e}"
                else:
                    self.failure = None
                    self._looked_at = began
                    if addresses_too and forgotten == self._forgotten:
                        self._addresses_at = began
                self._last = None
        return self._protected(callers)

    def at_once(self, prefix: Prefix) -> Protected | None:
        """What is protected now as far as this prefix goes, without waiting; None where `current` has to be asked:
        somebody from there is connected by SSH and may have logged in, or the addresses were not looked at lately."""
        if asyncio.get_running_loop().time() - self._addresses_at > ADDRESSES_MAX_AGE:
            return None
        try:
            if self._connections is None:
                self._connections = Connections()
            if self._connections.reach(prefix, self._settings.kernel.ssh_ports):
                return None
        except OSError:
            # After a failure an answer to it might still come.
            self.close()
            return None
        if self._last is None:
            self._last = self._protected(())
        return self._last

    def look_soon(self) -> None:
        """Begins a look if the last one at the addresses grows old: somebody may have to be banned soon."""
        old = asyncio.get_running_loop().time() - self._addresses_at > ADDRESSES_MAX_AGE / 2
        if old and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_quietly())

    def follow(self, changed: Callable[[], None]) -> None:
        """Hears of every change of this machine's addresses and routes from now on; calls `changed` for it."""

        def hear(changes: AddressChanges) -> None:
            if changes.heard():
                self.forget()
                changed()

        self._changes = AddressChanges()
        asyncio.get_running_loop().add_reader(self._changes.fileno(), hear, self._changes)

    def forget(self) -> None:
        """What was known of addresses, or of the allow list, no longer holds: the next ban needs a look."""
        self._addresses_at = float("-inf")
        self._forgotten += 1
        self._last = None

    def close(self) -> None:
        if self._changes is not None:
            asyncio.get_running_loop().remove_reader(self._changes.fileno())
            self._changes.close()
            self._changes = None
        if self._connections is not None:
            self._connections.close()
            self._connections = None

    async def _look_quietly(self) -> None:
        with contextlib.suppress(TryAgainError):  # whoever is to ban looks again, and says so
            await self.current()

    def _protected(self, callers: Iterable[Prefix]) -> Protected:
        asking = [Protection(p, "the command comes from there, by SSH") for p in callers]
        defaults = self._settings.defaults
        return Protected(
            [*self._allow.protections(), *self._resolvers, *self._addresses, *self._sessions, *asking],
            defaults.max_prefix4,
            defaults.max_prefix6,
        )

    def _look(self, addresses_too: bool) -> None:
        if addresses_too:
            self._addresses = host.addresses()
        self._sessions = host.ssh_peers(self._settings.kernel.ssh_ports)
