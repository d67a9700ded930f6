"""The states of a zone, on a clock of the test's own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nftban.prefixes import Prefix
from nftban.records import Answer, Evidence, Listing
from nftban.verify.health import GRACE, LISTED_RUN, RETRY, Health, PointResult, State, Transition, voided
from nftban.verify.outcomes import Failed, Missing, Outcome, Records
from nftban.verify.zones import Provider, Zone, alarm_in, configured_zones, packed_address

T = 1_790_000_000.0
NAME = "zen.spamhaus.org"
HIT = Records(("127.0.0.2",), 60)
NO = Missing(60)
SILENT = Failed("no answer from 192.0.2.53 within 3 s")


@pytest.fixture
def zone(providers: tuple[Provider, ...]) -> Zone:
    (found,), _ = configured_zones([f"{NAME}*4"], providers)
    return found


def points(
    listed: Outcome = HIT, clear: Outcome = NO, listed6: Outcome = HIT, clear6: Outcome = NO
) -> list[PointResult]:
    return [
        PointResult(packed_address("127.0.0.2"), True, listed),
        PointResult(packed_address("127.0.0.1"), False, clear),
        PointResult(packed_address("::ffff:127.0.0.2"), True, listed6),
        PointResult(packed_address("::ffff:127.0.0.1"), False, clear6),
    ]


def answer(health: Health, zone: Zone, now: float, *codes: str) -> Transition | None:
    listing = Listing(NAME, Answer.LISTED if codes else Answer.CLEAR)
    return health.answered(NAME, listing, alarm_in(zone, codes), now)


def test_an_untested_zone_is_due_and_not_used(zone: Zone) -> None:
    health = Health([zone])
    assert health.due(T) == (NAME,)
    assert not health.usable(NAME, T)
    assert "untested" in health.why_not(NAME, T)


def test_a_passed_test_makes_it_usable_until_the_next_is_due(zone: Zone) -> None:
    health = Health([zone], test_every=1800)
    change = health.tested(NAME, points(), T)
    assert change is not None and (change.before, change.after) == (State.UNTESTED, State.OK)
    assert health.usable(NAME, T) and health.usable(NAME, T, 6)
    assert (health.due(T + 1799), health.due(T + 1800)) == ((), (NAME,))
    assert health.tested(NAME, points(), T + 1800) is None
    assert (health.status(NAME).since, health.status(NAME).good) == (T, T + 1800)


@pytest.mark.parametrize(
    ("results", "state", "word"),
    [
        (points(listed=NO), State.DEAD, "127.0.0.2 is not listed"),
        (points(clear=HIT), State.LISTS_WORLD, "127.0.0.1"),
        (points(clear6=HIT), State.LISTS_WORLD, "::ffff:127.0.0.1"),
        (points(clear=Records(("198.51.100.80",), 60)), State.LISTS_WORLD, "198.51.100.80"),
        (points(listed=Records(("198.51.100.80",), 60)), State.LISTS_WORLD, "198.51.100.80"),
        (points(listed=Records(("127.255.255.254",), 60)), State.BLOCKED, "resolver"),
        (points(clear=Records(("127.255.255.255",), 60), listed=NO), State.BLOCKED, "too many queries"),
    ],
)
def test_failed_tests(zone: Zone, results: list[PointResult], state: State, word: str) -> None:
    health = Health([zone])
    health.tested(NAME, points(), T)
    change = health.tested(NAME, results, T + 1800)
    assert change is not None and (change.before, change.after, change.good) == (State.OK, state, T)
    assert word in change.why
    assert not health.usable(NAME, T + 1800)
    assert health.status(NAME).since == T + 1800


def test_silence_degrades_and_the_grace_ends(zone: Zone) -> None:
    health = Health([zone])
    health.tested(NAME, points(), T)
    change = health.tested(NAME, points(listed=SILENT), T + 1800)
    assert change is not None and change.after is State.DEGRADED
    assert health.due(T + 1800 + RETRY) == (NAME,)
    assert health.usable(NAME, T + GRACE) and health.usable(NAME, T + GRACE, 6)
    assert not health.usable(NAME, T + GRACE + 1)
    back = health.tested(NAME, points(), T + GRACE + 2)
    assert back is not None and back.after is State.OK
    assert health.usable(NAME, T + GRACE + 2)


def test_silence_before_any_result_leaves_it_untested(zone: Zone) -> None:
    health = Health([zone])
    assert health.tested(NAME, points(listed=SILENT, clear=SILENT), T) is None
    assert health.status(NAME).state is State.UNTESTED and "no answer" in health.status(NAME).why
    assert not health.usable(NAME, T) and health.due(T + RETRY) == (NAME,)


def test_ipv6_is_used_only_while_its_points_pass(zone: Zone) -> None:
    for results in (points(listed6=NO), points(listed6=SILENT), points(clear6=SILENT)):
        health = Health([zone])
        change = health.tested(NAME, results, T)
        assert change is not None and change.after is State.OK
        assert health.usable(NAME, T, 4) and not health.usable(NAME, T, 6)
        assert "IPv6" in health.why_not(NAME, T, 6)


def test_an_ipv4_zone_is_not_asked_about_ipv6(zone: Zone) -> None:
    health = Health([zone])
    health.tested(NAME, points()[:2], T)
    assert health.usable(NAME, T, 4) and not health.usable(NAME, T, 6)


@pytest.mark.parametrize(
    ("code", "backoff", "state"),
    [
        ("127.255.255.254", 3600.0, State.BLOCKED),
        ("127.255.255.255", 4 * 3600.0, State.BLOCKED),
        ("198.51.100.80", 4 * 3600.0, State.LISTS_WORLD),
    ],
)
def test_a_bad_answer_in_use_stops_the_zone_at_once_for_its_backoff(
    zone: Zone, code: str, backoff: float, state: State
) -> None:
    health = Health([zone])
    health.tested(NAME, points(), T)
    change = answer(health, zone, T + 10, code)
    assert change is not None and (change.after, change.good) == (state, T)
    assert not health.usable(NAME, T + 10)
    end = T + 10 + backoff
    assert (health.due(end - 1), health.due(end)) == ((), (NAME,))
    assert health.tested(NAME, points(), end - 1) is None
    assert health.status(NAME).state is state
    assert not health.usable(NAME, end + 1), "the end of the back-off alone lifts nothing"
    assert health.tested(NAME, points(listed=SILENT), end) is None
    assert health.status(NAME).state is state
    back = health.tested(NAME, points(), end + 60)
    assert back is not None and back.after is State.OK


def test_a_late_answer_never_shortens_a_backoff(zone: Zone) -> None:
    health = Health([zone])
    answer(health, zone, T, "127.255.255.255")
    assert answer(health, zone, T + 5, "127.255.255.254") is None
    health.tested(NAME, points(listed=Records(("127.255.255.254",), 60)), T + 6)
    assert health.due(T + 4 * 3600 - 1) == ()
    assert answer(health, zone, T + 7) is None  # a late good answer changes nothing
    assert health.status(NAME).state is State.BLOCKED


def test_a_long_run_of_listings_brings_the_test_forward(zone: Zone) -> None:
    health = Health([zone])
    health.tested(NAME, points(), T)
    for _ in range(LISTED_RUN - 1):
        answer(health, zone, T + 1, "127.0.0.4")
    answer(health, zone, T + 1)  # one clear answer: the run begins again
    for _ in range(LISTED_RUN - 1):
        answer(health, zone, T + 2, "127.0.0.4")
    assert health.due(T + 2) == ()
    answer(health, zone, T + 2, "127.0.0.4")
    assert health.due(T + 2) == (NAME,)
    assert health.usable(NAME, T + 2)


def test_a_restart_lifts_no_backoff_and_keeps_nothing_else(zone: Zone) -> None:
    health = Health([zone])
    answer(health, zone, T, "127.255.255.255")
    states = json.loads(json.dumps(health.export()))
    again = Health([zone])
    again.restore(states, T + 60)
    assert again.status(NAME).state is State.BLOCKED and "too many queries" in again.status(NAME).why
    assert again.due(T + 60) == ()
    over = Health([zone])
    over.restore(states, T + 5 * 3600)
    assert over.status(NAME).state is State.UNTESTED
    fine = Health([zone])
    fine.tested(NAME, points(), T)
    over.restore(fine.export(), T)
    assert over.status(NAME).state is State.UNTESTED
    over.restore({"other.example": states[NAME], NAME: {"state": "blocked", "due": "soon"}}, T)
    assert over.status(NAME).state is State.UNTESTED


def test_a_white_answer_for_127_0_0_1_is_no_listing_of_the_world(providers: tuple[Provider, ...]) -> None:
    (zone,), _ = configured_zones(["hostkarma.junkemailfilter.com=127.0.0.2*2"], providers)
    health = Health([zone])
    health.tested(zone.display, points(clear=Records(("127.0.0.1",), 60))[:2], T)
    assert health.status(zone.display).state is State.OK


def test_dnswl_test_entry_passes(providers: tuple[Provider, ...]) -> None:
    (zone,), _ = configured_zones(["list.dnswl.org=127.0.[2..20].[2..3]*-4"], providers)
    health = Health([zone])
    health.tested(zone.display, points(listed=Records(("127.0.10.0",), 60))[:2], T)
    assert health.status(zone.display).state is State.OK


def test_what_a_zone_listed_since_its_last_good_test_is_void() -> None:
    def told(asked: float) -> Evidence:
        other = Listing("bl.example", Answer.LISTED, ("127.0.0.2",), 2, asked=asked)
        clear = Listing("zen.example", Answer.CLEAR, asked=asked)
        return Evidence(Prefix.parse("192.0.2.7"), (replace(other, zone="zen.example"), other, clear))

    trip = Transition("zen.example", State.OK, State.LISTS_WORLD, "it lists 127.0.0.1", 200.0, good=100.0)
    assert [e.answer for e in voided(told(101.0), trip).listings] == [Answer.UNKNOWN, Answer.LISTED, Answer.CLEAR]
    assert voided(told(101.0), trip).listings[0].points == 0
    assert voided(told(99.0), trip) == told(99.0)
    assert voided(told(99.0), replace(trip, good=None)) != told(99.0), "it never passed one"
    for state in (State.BLOCKED, State.DEAD, State.DEGRADED, State.OK):
        assert voided(told(101.0), replace(trip, after=state)) == told(101.0)
