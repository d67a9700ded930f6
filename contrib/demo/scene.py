"""Everything that is on show, as plain records: what the picture draws and the chronicle tells.

Filled by story.py from what really happened; drawn by picture.py, told by chronicle.py.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from demo import cast
from demo.ledger import Account

KEPT_LINES = 60


@dataclass(frozen=True, slots=True)
class Logged:
    """A line that the mail server logged.  time: epoch seconds."""

    time: float
    program: str
    message: str
    line: str


@dataclass(frozen=True, slots=True)
class Knock:
    """A connection attempt to the mail server; banner: its first line, None where nothing came back."""

    time: float
    client: str
    port: int
    banner: str | None


@dataclass(slots=True)
class Check:
    """Something this run must observe.  outcome: None as long as it is open; seen: what was observed, in words."""

    title: str
    short: str
    outcome: bool | None = None
    seen: str = ""

    def settle(self, outcome: bool, seen: str) -> None:
        self.outcome, self.seen = outcome, seen


@dataclass(slots=True)
class Checks:
    """The observations that decide the exit status, in the order in which they are made."""

    dropped: Check = field(default_factory=lambda: Check("a banned address is dropped", "dropped"))
    passed: Check = field(default_factory=lambda: Check("a clean one is greeted meanwhile", "clean passes"))
    expired: Check = field(default_factory=lambda: Check("a ban ends: it is greeted again", "ban ends"))
    repeated: Check = field(default_factory=lambda: Check("it comes back: banned longer", "back: longer"))
    spared: Check = field(default_factory=lambda: Check("a good mailer is never banned", "good mailer spared"))

    @property
    def all(self) -> tuple[Check, ...]:
        return self.dropped, self.passed, self.expired, self.repeated, self.spared


@dataclass(slots=True)
class Scene:
    """started: epoch seconds; stream: log lines and connection attempts, newest last; accounts: of those who offend,
    in order of appearance; now: what is going on, for the audience; settings: the text of the only settings
    that differ from the shipped ones."""

    started: float
    settings: str = ""
    now: str = ""
    stream: deque[Logged | Knock] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    accounts: dict[str, Account] = field(
        default_factory=lambda: {c.addresses[0]: Account(c.addresses[0]) for c in cast.SUSPECTS}
    )
    checks: Checks = field(default_factory=Checks)

    def offence(self, logged: Logged) -> bool:
        """Has the daemon counted this line?"""
        return any(logged.line in account.lines for account in self.accounts.values())
