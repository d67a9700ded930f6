"""What was counted is on disk with the cursors it belongs to, or neither is; noise does not make the store grow."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nftban.errors import NftbanError
from nftban.prefixes import Prefix
from nftban.records import Ban, Cursor, Event, Login, Offence, Origin, Service
from nftban.store import retention
from nftban.store.damage import DamagedStoreError
from nftban.store.progress import Progress
from nftban.store.retention import Limits
from nftban.store.sqlite import Store

P = Prefix.parse
HOSTILE = "\x00\x1b[2J'); DROP TABLE offence;-- \u202e \\udcff %s {} \U0001f600"


class Given:
    """Gives a progress until it is written."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.times_written = 0

    def collect(self, writing: int) -> Progress:
        return self.progress

    def written(self) -> None:
        self.times_written += 1
        self.progress = Progress(0.0)


def offence(n: int, time: float = 100.0, line: str = "line") -> Offence:
    prefix, facts = Prefix(4, 0xCB007100 + n, 32), (("user", HOSTILE),)
    return Offence("postfix", "3: words", prefix, time, 2, Service.SMTP, facts, (("z", "c"),), line, "/l")


def ban(n: int, since: float = 100.0, until: float | None = 200.0) -> Ban:
    return Ban(Prefix(4, n, 32), "all", since, until, Origin.LOG, "postfix", "6 points")


def counted(*offences: Offence, jail: str = "postfix") -> list[tuple[str, str, Offence]]:
    return [(jail, str(o.prefix), o) for o in offences]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state.db")
    yield made
    made.close()


def test_what_was_counted_comes_back_in_its_order(store: Store) -> None:
    first, second = offence(1, line=HOSTILE), replace(offence(2), facts=(), listed=(), time=90.0)
    store.along = given = Given(Progress(1.0, offences=counted(first, second)))
    store.save()
    assert given.times_written == 1
    assert list(store.offences("postfix")) == [first, second]
    assert list(store.offences("sshd")) == []


def test_a_ban_takes_with_it_what_was_counted_and_how_far_the_log_was_read(store: Store, tmp_path: Path) -> None:
    cursor = Cursor(1 << 63, 77, "ab")
    store.along = Given(Progress(1.0, [("/l", cursor)], offences=counted(offence(1))))
    store.add_ban(ban(9))
    beside = Store(tmp_path / "state.db")
    assert beside.cursor("/l") == cursor and len(list(beside.offences("postfix"))) == 1
    beside.close()


def test_neither_is_written_where_one_cannot_be(store: Store) -> None:
    """The cursor's row is the last of them."""
    bad = Cursor(1, 2, sqlite3.connect)  # type: ignore[arg-type]  # what SQLite cannot take
    store.along = given = Given(Progress(1.0, [("/l", bad)], offences=counted(offence(1))))
    with pytest.raises(NftbanError):
        store.add_ban(ban(9))
    assert given.times_written == 0
    assert (list(store.offences("postfix")), store.live_bans(150.0), store.cursor("/l")) == ([], [], None)


def test_who_begins_anew_has_nothing_left_and_others_do(store: Store) -> None:
    store.along = Given(Progress(1.0, offences=counted(offence(1), offence(1), offence(2))))
    store.save()
    store.along = Given(
        Progress(2.0, forgotten=[("postfix", str(offence(1).prefix))], offences=counted(offence(1, 120.0)))
    )
    store.save()
    assert list(store.offences("postfix")) == [offence(2), offence(1, 120.0)]


def test_of_one_prefix_no_more_is_kept_than_counts(store: Store) -> None:
    full = [("postfix", str(offence(1).prefix), 3)]
    for time in (5.0, 1.0, 2.0, 3.0, 4.0):
        store.along = Given(Progress(1.0, offences=counted(offence(1, time), offence(2, time)), full=full))
        store.save()
    assert sorted(o.time for o in store.offences("postfix") if o.prefix == offence(1).prefix) == [3.0, 4.0, 5.0]
    assert len([o for o in store.offences("postfix") if o.prefix == offence(2).prefix]) == 5


def test_what_a_matcher_remembers_is_replaced_and_removed(store: Store) -> None:
    rows = [("j", "/l", "session", "a", HOSTILE), ("j", "/l", "session", "b", "1"), ("k", "/l", "rest", "", "2")]
    store.along = Given(Progress(1.0, remembered=[*rows]))
    store.save()
    store.along = Given(Progress(1.0, remembered=[("j", "/l", "session", "a", None), ("j", "/l", "session", "b", "3")]))
    store.save()
    assert store.remembered("j") == [("/l", "session", "b", "3")]
    store.along = Given(Progress(1.0, anew=["j"]))
    store.save()
    assert (store.remembered("j"), store.remembered("k")) == ([], [("/l", "rest", "", "2")])


def test_a_row_of_another_version_is_left_out(store: Store) -> None:
    store.along = Given(Progress(1.0, offences=counted(offence(1), offence(2))))
    store.save()
    store._db.execute("UPDATE offence SET detail = '[\"postfix\"]' WHERE id = 1")
    assert list(store.offences("postfix")) == [offence(2)]


def test_lines_are_kept_of_the_newest_only(store: Store) -> None:
    store.along = Given(Progress(1.0, offences=counted(*(offence(n) for n in range(250)))))
    store.save()
    assert store.prune(100.0, Limits(detailed=50)) == 200
    lines = [o.line for o in store.offences("postfix")]
    assert lines == [""] * 200 + ["line"] * 50
    first = next(iter(store.offences("postfix")))
    assert (first.prefix, first.time, first.weight) == (offence(0).prefix, 100.0, 2)
    assert store.prune(100.0, Limits(detailed=50)) == 0


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (Limits(), (600, 500, 600, 400)),
        (Limits(seconds=1000.0), (0, 0, 0, 400)),
        (Limits(ended=50, events=60, logins=70, offences=80), (50, 60, 70, 80)),
    ],
)
def test_noise_goes_by_age_and_by_number(store: Store, limits: Limits, left: tuple[int, ...]) -> None:
    """Piece by piece; live bans stay."""
    now = 10_000.0
    with store._transaction():
        pass
    store.along = Given(Progress(now, offences=counted(*(offence(n, now) for n in range(400)))))
    store.save()
    for n in range(600):
        store.add_ban(ban(n, until=now - 5000.0))
        store.set_login(Login(Prefix(4, n, 32), now - 5000.0))
    for n in range(500):
        store.add_event(Event(now - 5000.0, "k", f"t{n}"))
    live = [store.add_ban(ban(10_000, until=None)), store.add_ban(ban(10_001, until=now + 1))]
    store.expire(now)
    rounds = 0
    while gone := store.prune(now, limits):
        assert gone <= 6 * retention.PIECE
        rounds += 1
    counts = ("SELECT count(*) FROM ban WHERE ended IS NOT NULL", *(f"SELECT count(*) FROM {t}" for t in
              ("event", "login", "offence")))  # fmt: skip
    assert tuple(store._one(text)[0] for text in counts) == left
    assert store.live_bans(now) == live


def test_the_file_shrinks_with_what_is_forgotten(store: Store, tmp_path: Path) -> None:
    for n in range(2000):
        store.add_ban(replace(ban(n, until=150.0), reason="x" * 1000))
    store.expire(1000.0)
    store.sync()
    full = (tmp_path / "state.db").stat().st_size
    assert retention.octets(store._db) > 2_000_000
    while store.prune(1000.0, Limits(octets=500_000)):
        pass
    for _ in range(20):
        store.prune(1000.0, Limits(octets=500_000))
    store.sync()
    assert (tmp_path / "state.db").stat().st_size < 700_000 < full
    assert 0 < store._one("SELECT count(*) FROM ban")[0] < 500, "the newest stay"


def test_offences_that_no_window_holds_go(store: Store) -> None:
    store.along = Given(Progress(1.0, offences=counted(*(offence(n, float(n)) for n in range(100)))))
    store.save()
    store.along = Given(Progress(1.0, offences=counted(*(offence(n, float(n)) for n in range(100)), jail="gone")))
    store.save()
    while store.prune(160.0, findtimes={"postfix": 100.0}):
        pass
    assert [o.time for o in store.offences("postfix")] == [float(n) for n in range(60, 100)]
    assert len(list(store.offences("gone"))) == 100, "nobody says when they are over"
    store.prune(100_000.0, findtimes={"postfix": 100.0})
    assert list(store.offences("gone")) == []


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    page = 4096
    root = {
        name: (number - 1) * page
        for name, number in sqlite3.connect(path).execute("SELECT name, rootpage FROM sqlite_master")
    }
    broken = {
        "junk": b"junk" * 2000,
        "half": whole[: len(whole) // 2],
        "header only": whole[:100],
        "a few bytes": whole[:20],
        "first page": b"\xff" * page + whole[page:],
        "the table of bans": whole[: root["ban"]] + b"\xa5" * page + whole[root["ban"] + page :],
        "the index of ends": whole[: root["ban_end"]] + b"\xa5" * page + whole[root["ban_end"] + page :],
        "the named state": whole[: root["state"]] + b"\xa5" * page + whole[root["state"] + page :],
        "the logins": whole[: root["login"]] + b"\xa5" * page + whole[root["login"] + page :],
    }
    path.write_bytes(broken[how])


DAMAGES = ["junk", "half", "header only", "a few bytes", "first page", "the table of bans", "the index of ends",
           "the named state", "the logins"]  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_noticed_by_opening_or_by_a_look_at_all(tmp_path: Path, how: str) -> None:
    path = tmp_path / "state.db"
    made = Store(path)
    for n in range(300):
        made.add_ban(ban(n, until=None))
        made.set_login(Login(Prefix(4, n, 32), 1.0))
        made.set_state(f"s{n}", "x" * 100)
    made.check()
    made.close()
    damage(path, how)
    with pytest.raises(DamagedStoreError):
        Store(path).check()


def test_one_set_aside_is_kept_and_what_can_be_read_of_it_is_taken(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    for n in range(300):
        store.add_ban(ban(n, until=None))
    cursor = Cursor(5, 6, "f")
    store.set_cursors([("/l", cursor)])
    store.set_state("allow", ["192.0.2.1"])
    store._db.execute("INSERT INTO state VALUES ('broken', '{')")
    store.sync()
    damage(tmp_path / "state.db", "the table of bans")
    with pytest.raises(DamagedStoreError):
        store.check()
    assert store.damaged
    aside = store.set_aside(1_700_000_000.25)
    assert aside.name == "state.db.damaged-20231114T221320.250000Z" and aside.is_file()
    assert store.new
    assert store.live_bans(150.0) == []
    assert (store.cursor("/l"), store.state("allow"), store.state("broken")) == (cursor, ["192.0.2.1"], None)
    store.check()
    store.close()


def test_ends_move_with_the_clock(store: Store) -> None:
    store.add_ban(ban(1, since=50.0, until=1000.0))
    store.add_ban(ban(2, since=100.0, until=1000.0))
    store.add_ban(ban(3, since=100.0, until=None))
    assert store.shift(60.0, 100.0, {"k": 1}) == 2
    moved = [(s.ban.since, s.ban.until) for s in store.live_bans(0.0)]
    assert moved == [(50.0, 1000.0), (160.0, 1060.0), (160.0, None)]
    assert store.state("clock") == {"k": 1}


def test_a_sync_in_another_thread_does_not_hold_up_the_writer(store: Store) -> None:
    import threading

    threads = [threading.Thread(target=store.sync) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(50):
        store.add_ban(ban(n))
    for thread in threads:
        thread.join(10)
    assert len(store.live_bans(150.0)) == 50
