"""What must come of the lines written so far: who is banned, and what is held against the others.

Takes offences as they are written, and what else is done; knows nothing of the daemon but its settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FINDTIME = 600.0


@dataclass(frozen=True, slots=True)
class Jail:
    """name, log: as in the settings; maxretry: offences that lead to a ban."""

    name: str
    log: str
    maxretry: int


JAILS = (Jail("mail", "mail.log", 3), Jail("ssh", "auth.log", 4))


@dataclass(slots=True)
class Model:
    """held: by jail and address, the times of the offences that count; banned: by address, the jail that led to it."""

    held: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    banned: dict[str, str] = field(default_factory=dict)

    def offend(self, jail: Jail, address: str, now: float) -> None:
        """One offence was written."""
        if address in self.banned:
            return
        times = self.held.setdefault((jail.name, address), [])
        times.append(now)
        if len(times) >= jail.maxretry:
            self.banned[address] = jail.name
            self.forget(address)

    def forget(self, address: str) -> None:
        for jail in JAILS:
            self.held.pop((jail.name, address), None)

    def unban(self, address: str) -> None:
        del self.banned[address]
        self.forget(address)

    def pass_time(self, now: float) -> None:
        """What is over by now does not count any more; what is from later than now is from now."""
        for key, times in list(self.held.items()):
            left = [min(time, now) for time in times if now - time <= FINDTIME]
            if left:
                self.held[key] = left
            else:
                del self.held[key]

    def counts(self, address: str) -> dict[str, int]:
        """How many offences each jail holds against it."""
        return {jail.name: len(t) for jail in JAILS if (t := self.held.get((jail.name, address)))}
