"""What an admin is told, and when: which events at once, which in the next digest.

Takes each Event as it happens and, from time to time, the time; gives Notices, ready to be sent.
    at once      an event of a kind of `at_once`; then of that kind nothing for QUIET seconds, and after them one
                 notice of all that came meanwhile, with their number
    storm        more than so many bans within a minute are one such event
    digest       every so many seconds: the bans that were made, by jail and network, and the events not told yet;
                 nothing where nothing happened
Guarantees: a flood of events makes a bounded number of notices and takes bounded memory; what was told is not told
again after a restart (`export`, `restore`): neither what is reported anew because the daemon starts, nor the digest.
Does not: send, read clocks (`now` is epoch seconds), count bans (the store does).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from nftban.records import Event
from nftban.store.history import Made

QUIET = 600.0
"""Seconds in which a kind is told at once only once."""

STARTING = 120.0
"""Seconds after a start in which what was told before it is no news."""

MINUTE = 60.0

MOST_EVENTS = 20
"""Events in one notice, the newest; all are counted."""

REMEMBERED = 200
"""Texts remembered over a restart."""

LONGEST = 7 * 86400.0
"""Seconds that a digest goes back at most: notifications may have been off for a year."""

TOP = 5
"""Networks in a digest."""

UNTOLD = frozenset({"ban", "notify"})
"""Kinds that a digest does not name one by one: bans are counted, and that a notice failed is told otherwise."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message.  title: a line; body: lines; events: the newest of them; count: how many there were."""

    time: float
    kind: str
    title: str
    body: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    count: int = 1


@dataclass(slots=True)
class _Held:
    """What came since something of a kind was told, at `told`."""

    told: float
    count: int = 0
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))

    def add(self, event: Event) -> None:
        self.count += 1
        self.events.append(event)


class Notices:
    """at_once: kinds; digest: seconds between two, 0: none; storm: bans a minute; started: epoch seconds."""

    def __init__(self, at_once: Collection[str], digest: float, storm: int, started: float) -> None:
        self._at_once = frozenset(at_once)
        self._every = digest
        self._started = started
        self._held: dict[str, _Held] = {}
        self._bans: deque[float] = deque(maxlen=storm)
        self._said: OrderedDict[str, None] = OrderedDict()
        self._before: frozenset[str] = frozenset()
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._kinds: Counter[str] = Counter()
        self.since = started
        self.last_ban = 0

    def hear(self, event: Event, now: float) -> Notice | None:
        """What is to be told now because of this event."""
        if event.kind == "ban":
            return self._storm(now)
        if event.kind not in UNTOLD:
            self._kinds[event.kind] += 1
        if event.kind not in self._at_once:
            if event.kind not in UNTOLD:
                self._events.append(event)
            return None
        if now - self._started < STARTING and event.text in self._before:
            return None
        return self._at_once_or_later(event, now)

    def due(self, now: float) -> list[Notice]:
        """What was held back for long enough."""
        found = []
        for kind, held in list(self._held.items()):
            if 0 <= now - held.told < QUIET:
                continue
            del self._held[kind]
            if held.count:
                self._held[kind] = _Held(now)
                found.append(self._notice(kind, tuple(held.events), held.count, now))
        return found

    def digest_due(self, now: float) -> bool:
        return self._every > 0 and not 0 <= now - self.since < self._every

    def digest(self, made: Made, now: float) -> Notice | None:
        """The digest of what was since the last one; None where nothing was.  made: the bans since `since`."""
        kinds, events = self._kinds, tuple(self._events)
        self._kinds, self._events = Counter(), deque(maxlen=MOST_EVENTS)
        since, self.since, self.last_ban = self.since, now, made.last
        if not made.bans and not kinds:
            return None
        body = [f"{_by(jail)}: {_counted(count, 'ban')}" for jail, count in made.jails.most_common()]
        crowded = [f"{prefix} {count:,}" for prefix, count in made.networks.most_common(TOP) if count > 1]
        if crowded:
            body.append(f"most from: {', '.join(crowded)}")
        if kinds:
            body.append("events: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common()))
        body += [_line(event.text) for event in events]
        title = f"{_counted(made.bans, 'ban')} and {_counted(kinds.total(), 'event')} in {_span(now - since)}"
        return Notice(now, "digest", title, tuple(body), events, made.bans + kinds.total())

    def export(self) -> dict[str, Any]:
        """What must survive a restart, as JSON values."""
        return {
            "since": self.since,
            "last_ban": self.last_ban,
            "told": {kind: held.told for kind, held in self._held.items()},
            "said": list(self._said),
            "kinds": dict(self._kinds),
        }

    def restore(self, state: object, now: float) -> None:
        """Takes what was exported; what makes no sense is ignored."""
        if not isinstance(state, Mapping):
            return
        since, last, told = state.get("since"), state.get("last_ban"), state.get("told")
        said, kinds = state.get("said"), state.get("kinds")
        if isinstance(since, int | float) and now - LONGEST <= since <= now:
            self.since = float(since)
        if isinstance(last, int):
            self.last_ban = last
        if isinstance(told, Mapping):
            self._held = {str(k): _Held(float(t)) for k, t in told.items() if isinstance(t, int | float) and t <= now}
        if isinstance(said, list):
            self._said = OrderedDict.fromkeys(text for text in said[-REMEMBERED:] if isinstance(text, str))
            self._before = frozenset(self._said)
        if isinstance(kinds, Mapping):
            self._kinds = Counter({str(k): n for k, n in kinds.items() if isinstance(n, int)})

    def _storm(self, now: float) -> Notice | None:
        self._bans.append(now)
        if len(self._bans) < (self._bans.maxlen or 0) or not 0 <= now - self._bans[0] <= MINUTE:
            return None
        text = f"a storm: {len(self._bans):,} bans within {max(1, round(now - self._bans[0]))} s"
        self._bans.clear()
        self._kinds["storm"] += 1
        event = Event(now, "storm", text)
        return self._at_once_or_later(event, now) if "storm" in self._at_once else None

    def _at_once_or_later(self, event: Event, now: float) -> Notice | None:
        held = self._held.get(event.kind)
        if held is not None and 0 <= now - held.told < QUIET:
            held.add(event)
            return None
        events = (*held.events, event) if held is not None else (event,)
        count = 1 if held is None else held.count + 1
        self._held[event.kind] = _Held(now)
        return self._notice(event.kind, events[-MOST_EVENTS:], count, now)

    def _notice(self, kind: str, events: tuple[Event, ...], count: int, now: float) -> Notice:
        for event in events:
            self._said[event.text] = None
            self._said.move_to_end(event.text)
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        title = f"{kind}: {_line(events[-1].text)}" + (f" ({count:,} such events)" if count > 1 else "")
        return Notice(now, kind, title, tuple(_line(event.text) for event in events), events, count)


def _line(text: str) -> str:
    """On one line, and nothing in it that is not seen: parts of it may come from a log or from DNS."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _by(jail: str) -> str:
    return f"jail {jail}" if jail else "by hand"


def _counted(count: int, one: str) -> str:
    return f"{count:,} {one}" + ("" if count == 1 else "s")


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds / 60:.0f} minutes" if seconds < 7000 else f"{seconds / 3600:.0f} hours"
