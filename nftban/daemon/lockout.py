"""Keeps the answer to "what must not be banned" fresh.

Takes the settings and the running system; gives a `Protected` no older than asked for.
Guarantees: what the machine showed last stays protected while a later look fails; a failing look is an event, not
silence.  The blocking look at the system runs in a thread.  Does not: decide; protect/protected.py does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from nftban.config.schema import Settings
from nftban.prefixes import Prefix
from nftban.protect import host
from nftban.protect.protected import Protected, Protection

log = logging.getLogger(__name__)

# Addresses change rarely; a session may begin just before its address would be banned.
ADDRESSES_MAX_AGE = 5.0
SESSIONS_MAX_AGE = 1.0


class Lockout:
    """What must not be banned, as of now."""

    def __init__(self, settings: Settings, resolvers: Iterable[Prefix]) -> None:
        self._settings = settings
        self._fixed = [
            *(Protection(p, "the allow list") for p in settings.allow.prefixes),
            *(Protection(p, "a resolver of this machine") for p in resolvers),
        ]
        self._addresses: list[Protection] = []
        self._sessions: list[Protection] = []
        self._addresses_at = self._sessions_at = float("-inf")
        self._lock = asyncio.Lock()
        self.failure: str | None = None

    async def current(self, callers: Iterable[Prefix] = ()) -> Protected:
        """What is protected now; callers: addresses whose users are asking this very moment."""
        async with self._lock:
            clock = asyncio.get_running_loop().time
            if clock() - self._addresses_at > ADDRESSES_MAX_AGE or clock() - self._sessions_at > SESSIONS_MAX_AGE:
                try:
                    await asyncio.to_thread(self._look, clock() - self._addresses_at > ADDRESSES_MAX_AGE)
                except Exception as e:
                    # Whatever failed: what was seen before stays protected, and the admin hears of it.
                    if self.failure is None:
                        log.exception("cannot look up this machine's own addresses; the last known stay protected")
                    self.failure = f"own addresses or SSH sessions cannot be read: {e}"
                else:
                    self.failure = None
                    self._addresses_at = self._sessions_at = clock()
        return self._protected(callers)

    def _protected(self, callers: Iterable[Prefix]) -> Protected:
        asking = [Protection(p, "the command comes from there, by SSH") for p in callers]
        defaults = self._settings.defaults
        return Protected(
            [*self._fixed, *self._addresses, *self._sessions, *asking], defaults.max_prefix4, defaults.max_prefix6
        )

    def _look(self, addresses_too: bool) -> None:
        if addresses_too:
            self._addresses = host.addresses()
        self._sessions = host.ssh_peers(self._settings.kernel.ssh_ports)
