"""What is told at once, what later, what in a digest: on a clock that stands still."""

from __future__ import annotations

import json
from collections import Counter

from nftban.daemon.notices import MOST_EVENTS, QUIET, STARTING, Notice, Notices
from nftban.prefixes import Prefix
from nftban.records import Event
from nftban.store.history import Made

NOW = 1_800_000_000.0
AT_ONCE = ("zone", "storm", "drift")


def notices(digest: float = 3600.0, storm: int = 5, started: float = NOW) -> Notices:
    return Notices(AT_ONCE, digest, storm, started)


def event(kind: str, text: str, now: float = NOW) -> Event:
    return Event(now, kind, text)


def test_the_first_of_a_kind_is_told_at_once_and_the_next_ones_together_after_ten_minutes() -> None:
    told = notices()
    first = told.hear(event("zone", "zen is blocked now"), NOW)
    assert first is not None and (first.kind, first.title, first.count) == ("zone", "zone: zen is blocked now", 1)
    for n in range(30):
        assert told.hear(event("zone", f"bl{n} is dead now"), NOW + 1 + n) is None
    assert told.hear(event("drift", "our table was changed"), NOW + 40) is not None, "another kind waits for nobody"
    assert told.due(NOW + QUIET - 1) == []
    (later,) = told.due(NOW + QUIET)
    assert later.title == "zone: bl29 is dead now (30 such events)"
    assert (later.count, len(later.events), later.body[0]) == (30, MOST_EVENTS, "bl10 is dead now")
    assert told.hear(event("zone", "zen is ok now"), NOW + QUIET + 5) is None, "that was a telling too"
    (last,) = told.due(NOW + 2 * QUIET)
    assert last.title == "zone: zen is ok now"
    assert told.due(NOW + 3 * QUIET) == []
    assert told.hear(event("zone", "bl is dead now"), NOW + 3 * QUIET) is not None


def test_what_nobody_looked_at_in_time_is_told_with_the_next() -> None:
    told = notices()
    assert told.hear(event("zone", "one"), NOW) is not None
    assert told.hear(event("zone", "two"), NOW + 1) is None
    both = told.hear(event("zone", "three"), NOW + QUIET)
    assert both is not None and (both.body, both.count) == (("two", "three"), 2)


def test_a_storm_is_many_bans_within_a_minute() -> None:
    told = notices(storm=5)
    for n in range(20):
        assert told.hear(event("ban", f"ban {n}"), NOW + n * 16) is None, "five take 64 s"
    found = [told.hear(event("ban", f"ban {n}"), NOW + 1000 + n) for n in range(10)]
    (storm,) = [notice for notice in found if notice is not None]
    assert (storm.kind, storm.title) == ("storm", "storm: a storm: 5 bans within 4 s")
    assert found[4] is storm
    (repeated,) = told.due(NOW + 1004 + QUIET)
    assert repeated.count == 1


def test_the_digest_tells_of_bans_networks_and_what_was_not_told() -> None:
    told = notices()
    told.hear(event("zone", "zen is blocked now"), NOW)
    told.hear(event("spared", "203.0.113.7 spared in jail postfix"), NOW + 5)
    told.hear(event("ban", "203.0.113.9 banned"), NOW + 6)
    assert not told.digest_due(NOW + 3599)
    assert told.digest_due(NOW + 3600)
    networks = Counter({Prefix.parse("203.0.113.0/24"): 12, Prefix.parse("2001:db8:7::/48"): 1})
    made = Made(77, 13, Counter({"postfix": 12, "": 1}), networks)
    digest = told.digest(made, NOW + 3600)
    assert digest is not None
    assert digest.title == "13 bans and 2 events in 60 minutes"
    assert digest.body == (
        "jail postfix: 12 bans",
        "by hand: 1 ban",
        "most from: 203.0.113.0/24 12",
        "events: zone 1, spared 1",
        "203.0.113.7 spared in jail postfix",
    )
    assert (told.since, told.last_ban) == (NOW + 3600, 77)
    assert told.digest(Made(77), NOW + 7200) is None, "nothing happened"
    assert (told.since, told.digest_due(NOW + 7200)) == (NOW + 7200, False)


def test_without_a_digest_none_is_due() -> None:
    assert not notices(digest=0).digest_due(NOW + 1e9)


def restarted(told: Notices, now: float) -> Notices:
    new = notices(started=now)
    new.restore(json.loads(json.dumps(told.export())), now)
    return new


def test_a_restart_repeats_nothing() -> None:
    told = notices()
    assert told.hear(event("zone", "zen is blocked now"), NOW) is not None
    assert told.digest(Made(5, 3, Counter(a=3)), NOW + 3600) is not None
    told.hear(event("lifted", "a ban was lifted"), NOW + 3601)
    again = restarted(told, NOW + 4000)
    assert not again.digest_due(NOW + 4010)
    assert again.hear(event("zone", "zen is blocked now"), NOW + 4001) is None, "reported anew because we started"
    assert again.due(NOW + 4001 + QUIET) == []
    assert again.hear(event("zone", "bl is dead now"), NOW + 4002) is not None, "that is news"
    assert again.hear(event("zone", "zen is blocked now"), NOW + 4002 + STARTING + QUIET) is not None
    digest = restarted(told, NOW + 4000).digest(Made(5), NOW + 7200)
    assert digest is not None and digest.body[0] == "events: lifted 1", "what came before the restart is counted"


def test_a_kind_told_just_before_a_restart_is_not_told_at_once_after_it() -> None:
    told = notices()
    told.hear(event("drift", "changed by nft"), NOW)
    again = restarted(told, NOW + 10)
    assert again.hear(event("drift", "changed by ufw"), NOW + 11) is None
    (later,) = again.due(NOW + QUIET)
    assert later.title == "drift: changed by ufw"


def test_a_state_that_makes_no_sense_is_ignored() -> None:
    states: tuple[object, ...] = (
        None,
        [],
        {"since": "x", "told": [], "said": 5, "kinds": None},
        {"since": NOW + 1e6},
        {"since": 0.0},
    )
    for state in states:
        told = notices()
        told.restore(state, NOW)
        assert told.since == NOW, state
        assert told.hear(event("zone", "x"), NOW) is not None


def test_a_clock_that_is_put_back_silences_nobody() -> None:
    told = notices()
    told.hear(event("zone", "one"), NOW)
    assert told.hear(event("zone", "two"), NOW - 5000) is not None
    assert told.digest_due(NOW - 5000)


def test_a_flood_takes_bounded_memory_and_few_notices() -> None:
    told = notices()
    found: list[Notice | None] = []
    for n in range(20_000):
        found.append(told.hear(event("drift", f"drift {n} " + "x" * 100), NOW + n * 0.01))
        found.append(told.hear(event("lifted", f"lifted {n}"), NOW + n * 0.01))
        found.append(told.hear(event("ban", f"ban {n}"), NOW + n * 0.01))
    found += told.due(NOW + 1000)
    assert sum(notice is not None for notice in found) <= 4
    assert len(json.dumps(told.export())) < 100_000


def test_hostile_text_stays_on_its_line() -> None:
    told = notices()
    notice = told.hear(event("zone", "x\r\nBcc: all@example.org\x1b[2J\u202e"), NOW)
    assert notice is not None
    for line in (notice.title, *notice.body):
        assert line.isprintable()
    told.hear(event("spared", "a\nb"), NOW)
    digest = told.digest(Made(), NOW + 3600)
    assert digest is not None and all(line.isprintable() for line in digest.body)
