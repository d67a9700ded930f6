"""The store: what was reported is on disk, one live ban per prefix and scope, and what is past is told rightly."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from nftban.errors import EXIT_NOT_PERMITTED, EXIT_TRY_AGAIN, NftbanError, PermissionNeededError, TryAgainError
from nftban.prefixes import Prefix
from nftban.records import (
    Action,
    Answer,
    Ban,
    Cursor,
    Event,
    Evidence,
    Listing,
    Login,
    Offence,
    Origin,
    Part,
    ReverseDNS,
    Service,
    Verdict,
)
from nftban.store.retention import Limits
from nftban.store.schema import SCHEMA
from nftban.store.sqlite import Store, StoredBan

P = Prefix.parse
ADDRESS = P("192.0.2.7")
HOSTILE = "\x00\x1b[2J'); DROP TABLE ban;-- \u202e \\udcff %s {} \U0001f600"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state.db")
    yield made
    made.close()


def ban(prefix: Prefix = ADDRESS, scope: str = "mail", since: float = 100.0, until: float | None = 200.0) -> Ban:
    return Ban(prefix, scope, since, until, Origin.LOG, "postfix", "6 points")


def explained(prefix: Prefix = ADDRESS) -> Ban:
    verdict = Verdict(
        Action.BAN, prefix, "postfix", "mail", 9, 6, (Part(5, "5 offences"), Part(4, HOSTILE)), "9 points", 3600.0, True
    )
    evidence = Evidence(
        prefix,
        (Listing("zen.example", Answer.LISTED, ("127.0.0.4",), 4, 0, HOSTILE, 99.5, 60),),
        ReverseDNS(has_name=False, confirmed=False),
    )
    offence = Offence("postfix", "3", prefix, 99.0, 1, Service.SMTP, (("helo", HOSTILE),), (), HOSTILE, "/log")
    return replace(ban(prefix), verdict=verdict, evidence=evidence, offences=(offence, offence))


def brief(found: list[StoredBan]) -> list[tuple[str, str, str | None]]:
    return [(str(s.ban.prefix), s.ban.scope, s.how) for s in found]


def test_a_ban_comes_back_whole_and_in_lists_without_its_evidence(store: Store) -> None:
    full = explained()
    placed = store.add_ban(full)
    assert (placed.score, placed.threshold, placed.needs_listing, placed.ended) == (9, 6, True, None)
    assert placed.ban == replace(full, verdict=None, evidence=None, offences=())
    assert store.live_bans(150.0) == [placed]
    assert store.detail(placed.id) == full


def test_a_ban_by_hand_needs_no_verdict(store: Store) -> None:
    by_hand = Ban(P("2001:db8::/64"), "all", 1.0, None, Origin.MANUAL, reason="because")
    placed = store.add_ban(by_hand)
    assert (placed.score, placed.needs_listing) == (None, False)
    assert store.detail(placed.id) == by_hand
    assert store.live_bans(1e12) == [placed]
    with pytest.raises(KeyError):
        store.detail(placed.id + 1)


def test_placing_twice_extends_and_one_is_live(store: Store) -> None:
    first = store.add_ban(ban())
    second = store.add_ban(ban(until=400.0), 150.0)
    assert store.live_bans(160.0) == [second]
    assert brief(store.bans_covering(ADDRESS)) == [("192.0.2.7", "mail", None), ("192.0.2.7", "mail", "extended")]
    assert {s.id: s.ended for s in store.bans_covering(ADDRESS)} == {first.id: 150.0, second.id: None}


def test_another_scope_and_another_length_are_other_bans(store: Store) -> None:
    kept = [store.add_ban(b) for b in (ban(), ban(scope="ssh"), ban(P("192.0.2.0/24")), ban(P("192.0.2.7/31")))]
    assert store.live_bans(150.0) == kept


def test_two_live_bans_of_one_prefix_and_scope_cannot_be(store: Store, tmp_path: Path) -> None:
    """Whatever the code does: the file itself refuses."""
    store.add_ban(ban())
    beside = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    columns = ", ".join(row[1] for row in beside.execute("PRAGMA table_info(ban)") if row[1] != "id")
    copy = f"INSERT INTO ban ({columns}) SELECT {columns} FROM ban"
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        beside.execute(copy)
    store.end_ban(ADDRESS, "mail", 150.0, "unbanned")
    beside.execute(copy)
    beside.close()


def test_a_ban_ends_at_its_second_not_before(store: Store) -> None:
    placed = store.add_ban(ban(until=200.0))
    assert store.live_bans(199.999) == [placed]
    assert store.live_bans(200.0) == []
    assert store.expire(199.999) == 0
    assert store.expire(200.0) == 1
    assert store.expire(200.0) == 0
    (past,) = store.bans_covering(ADDRESS)
    assert (past.ended, past.how) == (200.0, "expired")


def test_a_permanent_ban_never_expires(store: Store) -> None:
    placed = store.add_ban(ban(until=None))
    assert store.expire(1e15) == 0
    assert store.live_bans(1e15) == [placed]


def test_ending_a_ban_ends_exactly_that(store: Store) -> None:
    kept = [store.add_ban(b) for b in (ban(P("192.0.2.0/24")), ban(scope="ssh"), ban(P("192.0.2.8")))]
    store.add_ban(ban())
    assert store.end_ban(ADDRESS, "mail", 150.0, "unbanned")
    assert not store.end_ban(ADDRESS, "mail", 150.0, "unbanned")
    assert not store.end_ban(P("2001:db8::7"), "mail", 150.0, "unbanned")
    assert store.live_bans(150.0) == kept
    (past,) = (s for s in store.bans_covering(ADDRESS) if s.ended is not None)
    assert (past.ended, past.how) == (150.0, "unbanned")


def test_earlier_bans_counts_what_ran_its_course(store: Store) -> None:
    for n, how in enumerate(["expired", "unbanned", "delisted", "expired"]):
        store.add_ban(ban(since=n * 1000.0, until=n * 1000.0 + 100))
        if how == "expired":
            store.expire(n * 1000.0 + 100)
        else:
            store.end_ban(ADDRESS, "mail", n * 1000.0 + 50, how)
    assert store.earlier_bans(ADDRESS, 5000.0) == 2
    store.add_ban(replace(ban(since=5000.0, until=5001.0), origin=Origin.MANUAL))
    store.expire(5001.0)
    store.add_ban(ban(P("192.0.2.0/24"), since=5000.0, until=5001.0))
    store.expire(5001.0)
    store.add_ban(ban(since=6000.0, until=9000.0))
    assert store.earlier_bans(ADDRESS, 8999.0) == 2


def test_an_extended_ban_counts_once(store: Store) -> None:
    store.add_ban(ban(until=200.0))
    store.add_ban(ban(until=300.0), 190.0)
    store.add_ban(ban(until=400.0), 290.0)
    store.expire(400.0)
    assert store.earlier_bans(ADDRESS, 500.0) == 1


def test_a_ban_that_was_over_but_not_yet_noted_has_expired(store: Store) -> None:
    """Between its end and the next `expire` its address may come again: that was a ban of its own."""
    store.add_ban(ban(since=100.0, until=200.0))
    assert [store.earlier_bans(ADDRESS, now) for now in (199.0, 200.0, 202.0)] == [0, 1, 1]
    store.add_ban(ban(since=203.0, until=403.0), 203.0)
    past = store.bans_covering(ADDRESS)[1]
    assert (past.ended, past.how) == (200.0, "expired")
    assert store.earlier_bans(ADDRESS, 203.0) == 1
    assert not store.end_ban(ADDRESS, "mail", 500.0, "unbanned")
    assert store.bans_covering(ADDRESS)[0].how == "expired"
    assert store.earlier_bans(ADDRESS, 500.0) == 2


@pytest.mark.parametrize(
    ("nested", "asked"),
    [
        (["0.0.0.0/0", "192.0.0.0/2", "192.0.2.0/24", "192.0.2.7/32"], "192.0.2.7"),
        (["::/0", "2001:db8::/32", "2001:db8::/64", "2001:db8::7/128"], "2001:db8::7"),
    ],
)
def test_bans_covering_finds_the_wider_the_narrower_and_no_neighbour(
    store: Store, nested: list[str], asked: str
) -> None:
    neighbours = ["192.0.3.0/24", "192.0.2.6", "192.0.2.8", "2001:db8:0:1::/64", "2001:db8::6", "2001:db8::8"]
    for n, text in enumerate([*nested, *neighbours]):
        store.add_ban(ban(P(text), since=float(n)))
    for wide in range(len(nested)):
        found = [str(s.ban.prefix) for s in store.bans_covering(P(nested[wide])) if str(s.ban.prefix) not in neighbours]
        assert found == [str(P(text)) for text in reversed(nested)]
    assert [str(s.ban.prefix) for s in store.bans_covering(P(asked))] == [str(P(text)) for text in reversed(nested)]
    assert len(store.bans_covering(P(nested[0]), limit=2)) == 2


def test_live_bans_are_in_order_of_age(store: Store) -> None:
    placed = [store.add_ban(ban(P(f"192.0.2.{n}"), since=float(since))) for n, since in enumerate([30, 10, 20, 10])]
    assert store.live_bans(40.0) == [placed[1], placed[3], placed[2], placed[0]]


def test_logins_keep_the_latest_even_when_lines_come_late(store: Store) -> None:
    assert store.login(ADDRESS) is None
    for at in (50.0, 90.0, 70.0):
        store.set_login(Login(ADDRESS, at, HOSTILE, f"line {at}", "/log"))
    assert store.login(ADDRESS) == Login(ADDRESS, 90.0, HOSTILE, "line 90.0", "/log")
    assert store.login(P("192.0.2.0/24")) is None


def test_cursors_of_any_inode(store: Store) -> None:
    assert store.cursor("/log") is None
    cursors = [("/log", Cursor(7, 1 << 40, "ab")), (f"/var/{HOSTILE}", Cursor((1 << 64) - 1, 0, ""))]
    store.set_cursors(cursors)
    store.set_cursors([("/log", Cursor(8, 5, "cd"))])
    assert store.cursor("/log") == Cursor(8, 5, "cd")
    assert store.cursor(f"/var/{HOSTILE}") == Cursor((1 << 64) - 1, 0, "")


def test_a_set_of_cursors_is_written_whole_or_not_at_all(store: Store) -> None:
    with pytest.raises(OverflowError):
        store.set_cursors([("/a", Cursor(1, 1, "")), ("/b", Cursor(1, 1 << 70, ""))])
    assert store.cursor("/a") is None
    store.set_cursors([("/a", Cursor(1, 1, ""))])


def test_named_state(store: Store) -> None:
    assert store.state("verifier") is None
    value = {"zones": [{"zone": HOSTILE, "used": 80_000}], "until": None, "x": 1.5}
    store.set_state("verifier", {})
    store.set_state("verifier", value)
    assert store.state("verifier") == value


def test_events_newest_first(store: Store) -> None:
    events = [Event(float(n), "ban", f"{n} {HOSTILE}", ADDRESS if n % 2 else None) for n in range(5)]
    for event in events:
        store.add_event(event)
    assert store.events() == events[::-1]
    assert store.events(2) == [events[4], events[3]]


def test_pruning_forgets_the_past_and_no_live_ban(store: Store) -> None:
    for text, until in (("192.0.2.1", 200.0), ("192.0.2.2", 900.0), ("192.0.2.3", None)):
        store.add_ban(ban(P(text), until=until))
    store.expire(1000.0)
    for at in (100.0, 950.0):
        store.add_event(Event(at, "k", "t"))
        store.set_login(Login(P(f"198.51.100.{int(at) % 256}"), at))
    assert store.prune(1500.0, Limits(seconds=1000.0)) == 3
    assert brief(store.bans_covering(P("192.0.2.0/24"))) == [
        ("192.0.2.3", "mail", None),
        ("192.0.2.2", "mail", "expired"),
    ]
    assert [e.time for e in store.events()] == [950.0]
    assert store.login(P("198.51.100.100")) is None


def test_a_failing_write_leaves_no_half_and_the_store_usable(store: Store) -> None:
    placed = store.add_ban(ban())
    with pytest.raises(UnicodeEncodeError):
        store.add_ban(replace(ban(until=900.0), reason="\udcff"))
    assert store.live_bans(150.0) == [placed]
    store.add_ban(ban(scope="ssh"))
    assert len(store.live_bans(150.0)) == 2


def test_all_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    first = Store(tmp_path / "deep" / "er" / "state.db")
    placed = first.add_ban(explained())
    first.close()
    again = Store(tmp_path / "deep" / "er" / "state.db")
    assert again.live_bans(150.0) == [placed]
    assert again.detail(placed.id) == explained()
    again.close()


def test_odd_file_names_are_file_names(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&x#%20 ü.db"
    made = Store(path)
    made.add_ban(ban())
    made.close()
    assert path.is_file()


def test_a_second_store_sees_what_the_first_wrote(tmp_path: Path, store: Store) -> None:
    other = Store(tmp_path / "state.db")
    placed = store.add_ban(ban())
    assert other.live_bans(150.0) == [placed]
    second = other.add_ban(ban(scope="ssh"))
    assert store.live_bans(150.0) == [placed, second]
    other.close()


# What follows needs other processes.

OPEN = """
import sys
from pathlib import Path
from nftban.store.sqlite import Store
sys.stdin.readline()
for path in sys.argv[1:]:
    Store(Path(path)).close()
"""


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A child with this one's import path, its standard streams as pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_programs_may_make_the_store_at_the_same_moment(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{n}.db") for n in range(30)]
    children = [python(OPEN, *paths) for _ in range(3)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors


BAN_UNTIL_KILLED = """
import sys
from pathlib import Path
from nftban.prefixes import Prefix
from nftban.records import Ban, Origin
from nftban.store.sqlite import Store
store = Store(Path(sys.argv[1]))
for n in range(1 << 24):
    store.add_ban(Ban(Prefix(4, n, 32), "all", 1.0, None, Origin.LOG, reason="x" * 3000))
    print(n, flush=True)
"""


def test_what_add_ban_reported_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    child = python(BAN_UNTIL_KILLED, str(path))
    assert child.stdout is not None
    for _ in range(20):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    # Not by communicate(), which passes over what readline() has read ahead.
    reported = 20 + len(child.stdout.read().splitlines())
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    store = Store(path)
    live = {s.ban.prefix.first for s in store.live_bans(2.0)}
    # The one under way may be there or not; none that was reported is missing.
    assert live in (set(range(reported)), set(range(reported + 1)))
    store.close()
    (word,) = sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone()
    assert word == "ok"


def test_a_lock_held_too_long_is_a_reason_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nftban.store.sqlite._PATIENCE", 0.1)
    path = tmp_path / "state.db"
    beside = sqlite3.connect(path, isolation_level=None)
    beside.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TryAgainError) as raised:
        Store(path)
    assert raised.value.exit_code == EXIT_TRY_AGAIN
    beside.close()
    Store(path).close()


def test_another_writer_at_the_moment_of_making_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself refuses at once to turn WAL on meanwhile, whatever its timeout."""
    path = tmp_path / "state.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    def wait(length: float) -> None:
        waits.append(length)
        if len(waits) == 2:
            other.execute("COMMIT")

    monkeypatch.setattr("nftban.store.sqlite.time.sleep", wait)
    Store(path).close()
    assert len(waits) == 2
    other.close()


def test_the_log_is_written_ahead(store: Store) -> None:
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_store_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Store(path).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(NftbanError, match="written by a newer nftban") as raised:
        Store(path)
    assert "daemon.state" in raised.value.advice
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["junk", "cut short", "header only", "a few bytes"])
def test_a_damaged_store_is_refused_with_the_way_out(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    made = Store(path)
    for n in range(100):
        made.add_ban(ban(Prefix(4, n, 32), until=None))
    made.close()
    whole = path.read_bytes()
    broken = {"junk": b"junk" * 2000, "cut short": whole[: len(whole) // 2], "header only": whole[:100]}
    path.write_bytes(broken.get(damage, whole[:20]))
    with pytest.raises(NftbanError, match="is damaged") as raised:
        Store(path)
    assert f"mv {path} {path}.bad" in raised.value.advice
    # The advice is followed: a new store is made and works, whatever journal the old one left.
    path.rename(f"{path}.bad")
    again = Store(path)
    assert again.live_bans(150.0) == []
    again.add_ban(ban())
    again.close()


def test_a_place_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "state.db"):
        with pytest.raises(PermissionNeededError, match="cannot be opened"):
            Store(path)


AS_NOBODY = """
import os, sys
from pathlib import Path
from nftban.errors import NftbanError
from nftban.store.sqlite import Store
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        Store(Path(path))
    except NftbanError as e:
        print(e.exit_code, e.advice)
    else:
        print("opened")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_who_may_not_write_is_told_so() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "own").mkdir()
        os.chown(folder / "own", 65534, 65534)
        theirs = Store(folder / "state.db")
        theirs.add_ban(ban())
        theirs.close()
        paths = [folder / "state.db", folder / "new.db", folder / "sub" / "new.db", folder / "own" / "state.db"]
        output, errors = python(AS_NOBODY, *map(str, paths)).communicate(timeout=60)
    refused = f"{EXIT_NOT_PERMITTED} run as root or as the user the daemon runs as"
    assert output.splitlines() == [refused, refused, refused, "opened"], errors


def test_after_a_sync_the_file_alone_has_everything(tmp_path: Path) -> None:
    """What a power loss takes is at most the write-ahead log since the last sync."""
    store = Store(tmp_path / "state.db")
    placed = store.add_ban(ban())
    store.sync()
    (tmp_path / "after").mkdir()
    (tmp_path / "after" / "state.db").write_bytes((tmp_path / "state.db").read_bytes())
    store.close()
    assert Store(tmp_path / "after" / "state.db").live_bans(150.0) == [placed]


@pytest.mark.parametrize("version", range(1, SCHEMA))
def test_a_store_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    earlier = sqlite3.connect(tmp_path / "state.db")
    earlier.executescript((Path(__file__).parent / f"schema{version}.sql").read_text())
    earlier.close()
    store, fresh = Store(tmp_path / "state.db"), Store(tmp_path / "fresh.db")
    assert [(s.id, s.ban.prefix, s.ban.scope, s.score) for s in store.live_bans(150.0)] == [(7, ADDRESS, "smtp", 6)]
    assert store.live_ends(150.0) == {("smtp", 4, 32): {ADDRESS.first: 900.0}}
    tables = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    assert store._all(tables) == fresh._all(tables)
    assert store._version() == fresh._version() == SCHEMA
    for opened in (store, fresh):
        opened.close()


def test_the_ends_of_live_bans_are_those_of_the_bans(store: Store) -> None:
    store.add_ban(ban())
    store.add_ban(replace(ban(), prefix=P("2001:db8::/64"), until=None))
    store.add_ban(replace(ban(), prefix=P("198.51.100.9"), until=140.0))
    store.add_ban(replace(ban(), prefix=P("198.51.100.10")))
    store.end_ban(P("198.51.100.10"), "mail", 120.0, "unbanned")
    expected = {
        ("mail", 4, 32): {ADDRESS.first: ban().until},
        ("mail", 6, 64): {P("2001:db8::").first: inf},
    }
    assert store.live_ends(150.0) == expected
    assert store.live_by_jail() == {ban().jail: 3}, "the end of one has not been noted"
    found = store.live_ban(ADDRESS, "mail")
    assert found is not None and found in store.live_bans(150.0)
    assert store.live_ban(ADDRESS, "all") is None and store.live_ban(P("198.51.100.10"), "mail") is None


def test_only_bans_that_dns_may_change_are_verified_again(store: Store) -> None:
    plain = replace(ban(), verdict=None, until=1000.0)
    needing = replace(explained(P("192.0.2.8")), until=1000.0)
    store.add_ban(plain)
    placed = store.add_ban(needing)
    assert placed.needs_listing
    for_ever = store.add_ban(replace(needing, prefix=P("192.0.2.9"), until=None))
    store.add_ban(replace(needing, prefix=P("192.0.2.10"), origin=Origin.MANUAL))
    ending = store.add_ban(replace(plain, prefix=P("192.0.2.11"), until=200.0))
    assert sorted(s.id for s in store.bans_to_verify(150.0, 60.0)) == [placed.id, for_ever.id, ending.id]
