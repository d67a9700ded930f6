"""When a feed is fetched, and what becomes of what came.

Takes the feeds in use and the folder of copies; gives, per feed, an Outcome, and in `ranges` the addresses of every
feed whose last good copy is still good.
Guarantees: what a guard refuses changes nothing but the feed's state; a failure neither; a restart restores every feed
from its copy without the network; a copy is examined anew when it is read; a copy not confirmed for `keep` seconds
is let go.  Feeds marked `clean` are read first and taken out of the others.
`next_due` and `good_until` decide and have no clock; `Sync` does what they say, one feed at a time, in the caller's
thread: call it in a thread.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from nftban.feeds.copies import About, Copies, Incoming, State
from nftban.feeds.definitions import Feed
from nftban.feeds.fetch import Fetched, FetchError, Progress, fetch
from nftban.feeds.formats import FORMATS
from nftban.feeds.formats.parsed import BadLine, Parsed
from nftban.feeds.guards import BOGONS, CANARIES, Known, Refusal, examined
from nftban.prefixes import Prefix
from nftban.ranges import Ranges

JITTER = 0.1
"""Up to this part of an interval is waited besides, so that not all the world asks at the full hour."""
FIRST_RETRY = 300.0
MOST_DOUBLINGS = 16


class Result(StrEnum):
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt came to.  why: of a refusal or failure; count: entries of the list that came, 0 where none
    came; before: those of the last good copy; bad: the first of the bad_count lines that are no entries."""

    name: str
    result: Result
    why: str = ""
    count: int = 0
    before: int = 0
    bad_count: int = 0
    bad: tuple[BadLine, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """An outcome, and what came: parsed where anything did, ranges where the guards let it pass."""

    outcome: Outcome
    parsed: Parsed | None = None
    ranges: Ranges | None = None


def _nobody(*_: object) -> None:
    """Whom the progress of a transfer is told if nobody asks."""


def next_due(feed: Feed, state: State, now: float, chance: float) -> float:
    """When to try next, after an attempt that `state` already counts; chance: from 0 to 1."""
    wait = feed.interval
    if state.failures:
        # Soon at first, then more and more seldom, up to the interval.
        wait = min(feed.interval, FIRST_RETRY * 2 ** min(state.failures - 1, MOST_DOUBLINGS))
    return now + wait * (1 + JITTER * chance)


def good_until(feed: Feed, state: State) -> float:
    """Until when the last good copy may be used, in steps of half of `keep`: kernel entries end then, and should not
    have to be written anew each time a server says that nothing has changed."""
    step = feed.keep / 2
    return (state.confirmed // step + 3) * step


class Sync:
    """The feeds in use, their copies, and what the copies hold.

    canaries: the admin's, besides the built-in ones; contact: for the User-Agent.
    """

    def __init__(
        self,
        feeds: Iterable[Feed],
        copies: Copies,
        *,
        canaries: Iterable[Prefix] = (),
        contact: str = "",
        chance: Callable[[], float] = random.random,
    ) -> None:
        ordered = sorted(feeds, key=lambda feed: (not feed.clean, feed.name))
        self.feeds = {feed.name: feed for feed in ordered}
        self.ranges: dict[str, Ranges] = {}
        self.codes: dict[str, dict[str, Ranges]] = {}
        self._copies = copies
        self._canaries = (*CANARIES, *canaries)
        self._contact = contact
        self._chance = chance
        self._special = Ranges.of(BOGONS)

    def restore(self, now: float) -> list[Outcome]:
        """Reads every copy that is still good; gives what could not be used."""
        self._copies.prepare()
        refused = []
        for feed in self.feeds.values():
            about, state = self._copies.about(feed.name), self.state(feed.name)
            if about is None or about.source != feed.address or good_until(feed, state) <= now:
                continue
            try:
                parsed = FORMATS[feed.format](self._copies.chunks(feed.name))
            except OSError as e:
                refused.append(Outcome(feed.name, Result.FAILED, f"its copy cannot be read: {e.strerror}"))
                continue
            found = self._examined(feed, parsed, None, now)
            if isinstance(found, Refusal):
                refused.append(Outcome(feed.name, Result.REFUSED, str(found), parsed.count))
            else:
                self._take(feed, parsed, found)
        return refused

    def state(self, name: str) -> State:
        """What became of the attempts; a state that was lost is taken from the copy."""
        state = self._copies.state(name)
        about = self._copies.about(name) if not state.confirmed else None
        return replace(state, confirmed=about.fetched) if about else state

    def about(self, name: str) -> About | None:
        return self._copies.about(name)

    def until(self, name: str) -> float:
        """Until when the feed's addresses may be used."""
        return good_until(self.feeds[name], self.state(name))

    def due(self, now: float) -> list[str]:
        """The feeds to be fetched now."""
        return [name for name in self.feeds if self._copies.state(name).due <= now]

    def expire(self, now: float) -> list[str]:
        """Lets go what has not been confirmed for too long; gives the names."""
        over = [name for name in self.ranges if self.until(name) <= now]
        for name in over:
            del self.ranges[name]
            self.codes.pop(name, None)
        return over

    def attempt(self, name: str, now: float, *, accept: bool = False, progress: Progress = _nobody) -> Outcome:
        """Fetches one feed; accept: however much it has grown or shrunk.  Raises OSError where the copy cannot be
        written."""
        with self._copies.locked(name):
            feed, state = self.feeds[name], self.state(name)
            incoming = self._copies.incoming(name)
            try:
                look, came = self._looked(feed, incoming, now, accept, progress)
                if look.ranges is not None and look.parsed is not None and came is not None:
                    incoming.keep(_about(feed, came, look.parsed, now))
                    self._take(feed, look.parsed, look.ranges)
            finally:
                incoming.drop()
            outcome = look.outcome
            good = outcome.result in (Result.UPDATED, Result.UNCHANGED)
            state = State(
                confirmed=now if good else state.confirmed,
                tried=now,
                failures=0 if good else state.failures + 1,
                refused=outcome.why if outcome.result is Result.REFUSED else "",
                failed=outcome.why if outcome.result is Result.FAILED else "",
            )
            self._copies.set_state(name, replace(state, due=next_due(feed, state, now, self._chance())))
        return outcome

    def look(self, name: str, now: float, *, accept: bool = False, progress: Progress = _nobody) -> Look:
        """What an attempt would come to, without keeping anything."""
        with self._copies.locked(name):
            incoming = self._copies.incoming(name)
            try:
                return self._looked(self.feeds[name], incoming, now, accept, progress)[0]
            finally:
                incoming.drop()

    def _looked(
        self, feed: Feed, incoming: Incoming, now: float, accept: bool, progress: Progress
    ) -> tuple[Look, Fetched | None]:
        name, about = feed.name, self._copies.about(feed.name)
        before = about.count if about else 0
        # What is not in use, for whatever reason, is asked for anew.
        conditions = about if name in self.ranges else None
        try:
            with incoming.open() as file:
                came = fetch(feed, conditions, file, lambda: self._copies.chunks(name), self._contact, progress)
        except FetchError as e:
            return Look(Outcome(name, Result.FAILED, str(e), before=before)), None
        if came is None or (conditions is not None and came.digest == conditions.digest):
            return Look(Outcome(name, Result.UNCHANGED, count=before, before=before)), None
        parsed = FORMATS[feed.format](incoming.chunks())
        known = Known(about.count, about.newline) if about and about.source == feed.address and not accept else None
        found = self._examined(feed, parsed, known, now)
        facts = (parsed.count, before, parsed.bad_count, parsed.bad)
        if isinstance(found, Refusal):
            return Look(Outcome(name, Result.REFUSED, str(found), *facts), parsed), None
        return Look(Outcome(name, Result.UPDATED, "", *facts), parsed, found), came

    def _examined(self, feed: Feed, parsed: Parsed, known: Known | None, now: float) -> Ranges | Refusal:
        canaries = () if feed.clean else (*self._canaries, *feed.canaries)
        bogons = Ranges() if feed.clean else self._bogons()
        found = examined(parsed, feed.limits, known, canaries, bogons, now)
        if isinstance(found, Refusal) or not feed.family:
            return found
        return Ranges(found.v4) if feed.family == 4 else Ranges(v6=found.v6)

    def _bogons(self) -> Ranges:
        return Ranges.union(
            [self._special, *(self.ranges[n] for n, f in self.feeds.items() if f.clean and n in self.ranges)]
        )

    def _take(self, feed: Feed, parsed: Parsed, found: Ranges) -> None:
        self.ranges[feed.name] = found
        self.codes[feed.name] = dict(parsed.codes)


def _about(feed: Feed, came: Fetched, parsed: Parsed, now: float) -> About:
    return About(feed.address, came.etag, came.modified, now, came.digest, parsed.count, parsed.newline)
