"""Whether a DNSBL zone may be believed: a state machine per zone.

Takes the answers to the zone's test points (RFC 5782 5: 127.0.0.2 must be listed, 127.0.0.1 must not; the same as
IPv4-mapped IPv6 where the zone has IPv6) and every answer seen in use; gives the state with its reason, whether the
zone may be used, when it wants testing, and each `Transition`.

    UNTESTED     never tested with a result: not used
    OK           the last test passed
    DEGRADED     the last test got no answer; used for two hours after the last one that passed
    DEAD         the test entry is not listed: the zone is empty or gone, or the resolver hides it
    BLOCKED      it answered with an error code: not asked at all until the back-off has ended
    LISTS_WORLD  it lists what must not be listed, or answers outside 127.0.0.0/8

Guarantees: only OK and DEGRADED zones are usable.  BLOCKED and LISTS_WORLD come at once from any answer, and no
test lifts them before their back-off has ended; afterwards only a passed test does.  IPv6 addresses are asked only
while the IPv6 points pass; where they do not, the zone goes on for IPv4.
Does not: ask, or read clocks: `now` is epoch seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nftban.records import Answer, Evidence, Listing
from nftban.verify.outcomes import Failed, Missing, Outcome, Records
from nftban.verify.zones import Alarm, AlarmKind, Zone, alarm_in, counts_nothing

GRACE = 7200.0
"""Seconds after a passed test in which a zone whose tests get no answer is still used."""
RETRY = 60.0
"""Seconds between tests that got no answer."""
LISTED_RUN = 20
"""So many addresses in a row all listed: worth a test before its time."""


class State(StrEnum):
    UNTESTED = "untested"
    OK = "ok"
    DEGRADED = "degraded"
    BLOCKED = "blocked"
    DEAD = "dead"
    LISTS_WORLD = "lists the world"


_HELD = (State.BLOCKED, State.LISTS_WORLD)


@dataclass(frozen=True, slots=True)
class PointResult:
    """The answer for one test address (packed): must it be listed, and what came."""

    address: bytes
    must_list: bool
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Status:
    """A zone's state: why, in words; since: when it came into it; good: the last test that passed; due: when it
    wants the next test; families: which addresses it may be asked about; run: listed answers in a row."""

    state: State = State.UNTESTED
    why: str = "not tested yet"
    since: float = 0.0
    good: float | None = None
    due: float = 0.0
    families: tuple[int, ...] = ()
    run: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    """A zone changed its state.  good: its last passed test, so that evidence since then can be taken back."""

    zone: str
    before: State
    after: State
    why: str
    time: float
    good: float | None

    @property
    def is_trip(self) -> bool:
        """Does this make what the zone said lately worthless?"""
        return self.after is State.LISTS_WORLD


def voided(evidence: Evidence, change: Transition) -> Evidence:
    """The evidence without what the zone listed since its last good test, where the change is a trip."""
    if not change.is_trip:
        return evidence

    def void(listing: Listing) -> bool:
        since_good = change.good is None or listing.asked > change.good
        return listing.zone == change.zone and listing.answer is Answer.LISTED and since_good

    return replace(
        evidence,
        listings=tuple(
            Listing(e.zone, Answer.UNKNOWN, reason=f"void: the zone {change.after}", asked=e.asked) if void(e) else e
            for e in evidence.listings
        ),
    )


@dataclass(frozen=True, slots=True)
class _Finding:
    state: State
    why: str
    wait: float
    families: tuple[int, ...] = ()


class Health:
    """The states of all zones, by display name.  test_every: seconds between tests."""

    def __init__(self, zones: Iterable[Zone], test_every: float = 1800.0) -> None:
        self._zones = {zone.display: zone for zone in zones}
        self._status = {name: Status() for name in self._zones}
        self._test_every = test_every

    def status(self, zone: str) -> Status:
        return self._status[zone]

    def usable(self, zone: str, now: float, family: int = 4) -> bool:
        return not self.why_not(zone, now, family)

    def why_not(self, zone: str, now: float, family: int = 4) -> str:
        """Why the zone may not be asked about such an address; empty if it may."""
        status = self._status[zone]
        if status.state not in (State.OK, State.DEGRADED):
            return f"zone is {status.state}: {status.why}"
        if status.state is State.DEGRADED and (status.good is None or now - status.good > GRACE):
            return f"zone is {status.state} for too long: {status.why}"
        if family not in status.families:
            return f"zone does not list its IPv{family} test entry"
        return ""

    def due(self, now: float) -> tuple[str, ...]:
        """Zones that want a test now."""
        return tuple(name for name, status in self._status.items() if status.due <= now)

    def tested(self, zone: str, results: Sequence[PointResult], now: float) -> Transition | None:
        """Take the outcome of a test."""
        finding = _judged(self._zones[zone], results, self._test_every)
        old = self._status[zone]
        if old.state in _HELD:
            if now < old.due and finding.state not in _HELD:
                return None
            if finding.state is State.DEGRADED:  # no answer: what was found stands
                finding = _Finding(old.state, old.why, RETRY)
        elif finding.state is State.DEGRADED and old.state in (State.UNTESTED, State.DEAD):
            finding = _Finding(old.state, finding.why, RETRY)
        elif finding.state is State.DEGRADED:
            finding = replace(finding, families=old.families)
        return self._enter(zone, finding, now)

    def answered(self, zone: str, listing: Listing, alarm: Alarm | None, now: float) -> Transition | None:
        """Take an answer that came in use."""
        old = self._status[zone]
        if alarm is not None:
            state = State.BLOCKED if alarm.kind is AlarmKind.BLOCKED else State.LISTS_WORLD
            return self._enter(zone, _Finding(state, alarm.reason, alarm.backoff), now)
        if listing.answer is Answer.CLEAR:
            self._status[zone] = replace(old, run=0)
        elif listing.answer is Answer.LISTED:
            run = old.run + 1
            early = run >= LISTED_RUN and old.state in (State.OK, State.DEGRADED)
            self._status[zone] = replace(old, run=0, due=min(old.due, now)) if early else replace(old, run=run)
        return None

    def export(self) -> dict[str, dict[str, object]]:
        """The states as JSON values."""
        return {
            name: {"state": s.state.value, "why": s.why, "since": s.since, "good": s.good, "due": s.due}
            for name, s in self._status.items()
            if s.state is not State.UNTESTED
        }

    def restore(self, states: Mapping[str, Mapping[str, object]], now: float) -> None:
        """Take exported states: a restart must not lift a back-off.  Only BLOCKED and LISTS_WORLD whose back-off
        has not ended are taken; everything else is tested afresh, and what makes no sense is ignored."""
        for name, plain in states.items():
            due = plain.get("due")
            held = plain.get("state") in _HELD
            if name not in self._status or not held or not isinstance(due, int | float) or due <= now:
                continue
            since, good = plain.get("since"), plain.get("good")
            self._status[name] = Status(
                State(str(plain["state"])),
                str(plain.get("why", "")),
                float(since) if isinstance(since, int | float) else now,
                float(good) if isinstance(good, int | float) else None,
                float(min(due, now + 86400)),
            )

    def _enter(self, zone: str, finding: _Finding, now: float) -> Transition | None:
        old = self._status[zone]
        good = now if finding.state is State.OK else old.good
        changed = finding.state is not old.state
        due = now + finding.wait
        if old.state in _HELD and finding.state in _HELD:
            due = max(due, old.due)  # a late answer never shortens a back-off
        self._status[zone] = Status(
            finding.state, finding.why, now if changed else old.since, good, due, finding.families
        )
        if not changed:
            return None
        return Transition(zone, old.state, finding.state, finding.why, now, old.good)


def _judged(zone: Zone, results: Sequence[PointResult], test_every: float) -> _Finding:
    """What these test points say on their own."""
    for result in results:
        found = _alarm(zone, result)
        if found:
            return found
    listed = {4: True, 6: True}
    seen = set()
    for result in results:
        family = 4 if len(result.address) == 4 else 6
        if result.must_list:
            seen.add(family)
        if isinstance(result.outcome, Failed):
            if family == 4:
                return _Finding(State.DEGRADED, f"test point: {result.outcome.reason}", RETRY)
            listed[6] = False
        elif isinstance(result.outcome, Missing) and result.must_list:
            listed[family] = False
    if 4 in seen and not listed[4]:
        why = "its test entry 127.0.0.2 is not listed: the zone is empty or gone, or the resolver hides it"
        return _Finding(State.DEAD, why, test_every)
    families = tuple(family for family in (4, 6) if listed[family] and (family == 4 or family in seen))
    why = "test points answered as they must" + ("" if 6 in families else " (IPv4 only)")
    return _Finding(State.OK, why, test_every, families)


def _alarm(zone: Zone, result: PointResult) -> _Finding | None:
    if not isinstance(result.outcome, Records):
        return None
    alarm = alarm_in(zone, result.outcome.values)
    if alarm:
        state = State.BLOCKED if alarm.kind is AlarmKind.BLOCKED else State.LISTS_WORLD
        return _Finding(state, alarm.reason, alarm.backoff)
    if not result.must_list and not counts_nothing(zone, result.outcome.values):
        shown = "127.0.0.1" if len(result.address) == 4 else "::ffff:127.0.0.1"
        return _Finding(State.LISTS_WORLD, f"it lists {shown}, which must never be listed", 4 * 3600.0)
    return None
