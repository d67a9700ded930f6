"""Past bans a piece at a time: all of them, in order, once, whatever is asked for; and what a digest counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from nftban.prefixes import Prefix
from nftban.records import Ban, Event, Origin
from nftban.store import history
from nftban.store.history import PIECE, Past
from nftban.store.sqlite import Store, StoredBan

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state.db")
    yield made
    made.close()


def place(store: Store, prefix: str, since: float, jail: str = "postfix", ended: float | None = None) -> None:
    parsed = Prefix.parse(prefix)
    store.add_ban(Ban(parsed, "mail", since, since + 3600, Origin.LOG if jail else Origin.MANUAL, jail))
    if ended is not None:
        assert store.end_ban(parsed, "mail", ended, "unbanned")


def every(store: Store, past: Past) -> list[StoredBan]:
    found: list[StoredBan] = []
    while True:
        bans, before = history.past_bans(store, past)
        found += bans
        if before is None:
            return found
        past = Past(past.since, past.prefix, past.jail, before)


def texts(bans: list[StoredBan]) -> list[str]:
    return [str(s.ban.prefix) for s in bans]


def test_all_pieces_together_are_all_bans_that_ended_once_and_in_order(store: Store) -> None:
    count = 2 * PIECE + 7
    for n in range(count):
        # Many end at the same moment: the order within it must hold over the pieces.
        place(store, f"198.18.{n >> 8}.{n & 255}", NOW, "rare" if n % 500 == 0 else "postfix", NOW + n // 900)
    place(store, "203.0.113.7", NOW)
    found = every(store, Past())
    assert len(found) == len(set(texts(found))) == count
    ends = [s.ended for s in found]
    assert ends == sorted(ends, key=lambda end: -(end or 0))
    assert texts(every(store, Past(jail="rare"))) == [f"198.18.{n >> 8}.{n & 255}" for n in range(2000, -1, -500)]
    assert len(every(store, Past(since=NOW + 1))) == count - 900
    assert len(every(store, Past(prefix=Prefix.parse("198.18.1.0/24")))) == 256
    assert history.past_bans(store, Past(jail="nobody"))[0] == []


def test_an_address_finds_its_own_bans_and_those_around_it(store: Store) -> None:
    for prefix in ("203.0.113.7", "203.0.113.0/24", "203.0.112.0/22", "203.0.113.8", "0.0.0.0/1", "2001:db8:7::/64"):
        place(store, prefix, NOW, ended=NOW + 10)
    assert set(texts(every(store, Past(prefix=Prefix.parse("203.0.113.7"))))) == {
        "203.0.113.7",
        "203.0.113.0/24",
        "203.0.112.0/22",
    }
    assert texts(every(store, Past(prefix=Prefix.parse("2001:db8:7::9")))) == ["2001:db8:7::/64"]
    assert texts(every(store, Past(prefix=Prefix.parse("2001:db8::/32")))) == ["2001:db8:7::/64"]


def test_one_address_among_many_bans_is_found_by_index(store: Store) -> None:
    """A plan that reads the whole table takes a fifth of a second at 200,000 bans, and the daemon does nothing else."""
    asked: list[str] = []
    with store.reading() as db:
        db.set_trace_callback(asked.append)
    history.past_bans(store, Past(prefix=Prefix.parse("203.0.113.7")))
    history.ban_made(store, Prefix.parse("203.0.113.7"), NOW)
    with store.reading() as db:
        db.set_trace_callback(None)
        for statement in asked:
            plan = " ".join(row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}"))
            assert "SCAN" not in plan and "first" in plan, plan


def test_the_newest_ban_of_a_prefix_that_began_by_then(store: Store) -> None:
    prefix = Prefix.parse("203.0.113.7")
    assert history.ban_made(store, prefix, NOW) is None
    place(store, "203.0.113.7", NOW, ended=NOW + 5)
    place(store, "203.0.113.7", NOW + 100)
    place(store, "203.0.113.0/24", NOW + 1)
    for time, since in ((NOW + 50, NOW), (NOW + 200, NOW + 100)):
        made = history.ban_made(store, prefix, time)
        assert made is not None and made.ban.since == since


def test_events_have_numbers_that_go_on_and_are_heard_even_when_they_cannot_be_written(store: Store) -> None:
    heard: list[Event] = []
    store.listeners.append(heard.append)
    assert history.last_event(store) == 0
    events = [Event(NOW + n, "zone", f"event {n}", Prefix.parse("203.0.113.7") if n else None) for n in range(5)]
    for event in events:
        store.add_event(event)
    assert history.events_after(store, 0, 100) == list(enumerate(events, 1))
    assert history.events_after(store, 3, 1) == [(4, events[3])]
    assert history.last_event(store) == 5
    with store.reading() as db:
        db.execute("DROP TABLE event")
    with pytest.raises(Exception, match="event"):
        store.add_event(events[0])
    assert heard == [*events, events[0]]
    assert store.reported == {"zone": 6}


def test_what_was_made_since_by_jail_and_network(store: Store) -> None:
    place(store, "198.51.100.1", NOW)
    before = history.made_since(store.path, 0, NOW)
    assert (before.bans, before.last) == (1, 1)
    for n in range(3):
        place(store, f"203.0.113.{n}", NOW + 10)
        place(store, f"2001:db8:7:{n}::/64", NOW + 10, "sshd")
    place(store, "203.0.0.0/16", NOW + 10, "")
    place(store, "198.51.100.1", NOW)  # made longer: it began before
    made = history.made_since(store.path, before.last, NOW + 1)
    assert (made.bans, made.last) == (7, 9)
    assert made.jails == {"postfix": 3, "sshd": 3, "": 1}
    assert {str(prefix): n for prefix, n in made.networks.items()} == {
        "203.0.113.0/24": 3,
        "2001:db8:7::/48": 3,
        "203.0.0.0/16": 1,
    }
    # The store was lost and made anew: its numbers begin again.
    assert history.made_since(store.path, 5000, NOW + 1).bans == 7
    with pytest.raises(sqlite3.Error):
        history.made_since(store.path.with_name("none.db"), 0, NOW)
