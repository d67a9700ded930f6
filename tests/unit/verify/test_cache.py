"""What DNS said, over time and over a restart."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from demo.dnsbl_server import DnsblServer, Mode

from nftban.verify import cache
from nftban.verify.cache import Cache
from nftban.verify.outcomes import Failed, Missing, Outcome, Records
from nftban.verify.resolver import Resolver

KEY = "abcdefghijklmnopqrstuvwxyz"
ZONE, KEYED = "bl.example.net", f"{KEY}.zen.dq.spamhaus.net"
LISTED, CLEAR = f"7.2.0.192.{ZONE}", f"8.2.0.192.{ZONE}"
HIDDEN = {KEYED: "zen.dq.spamhaus.net"}
NOW, EPOCH = 1000.0, 1_790_000_000.0


def test_ttls_count_down_and_the_oldest_go_first() -> None:
    kept = Cache(2)
    kept.put(("a", "A"), Records(("127.0.0.2",), 100), NOW)
    kept.put(("b", "A"), Missing(100, True), NOW)
    assert kept.get(("a", "A"), NOW + 40) == Records(("127.0.0.2",), 60)
    assert kept.get(("b", "A"), NOW + 40) == Missing(60, True)
    assert kept.get(("a", "PTR"), NOW) is None
    kept.put(("c", "A"), Failed("SERVFAIL", 30), NOW)
    assert kept.get(("a", "A"), NOW) is None and len(kept) == 2
    assert kept.get(("c", "A"), NOW + 30) is None


def test_rows_hold_everything_but_failures_and_keys() -> None:
    kept = Cache(10)
    kept.put((f"7.2.0.192.{KEYED}", "A"), Records(("127.0.0.4",), 300), NOW)
    kept.put((CLEAR, "A"), Missing(300), NOW)
    kept.put((LISTED, "A"), Failed("timeout"), NOW)
    rows = kept.rows(NOW + 100, EPOCH, HIDDEN)
    assert rows == [
        ["7.2.0.192.zen.dq.spamhaus.net", "A", EPOCH + 200, ["127.0.0.4"]],
        [CLEAR, "A", EPOCH + 200, False],
    ]
    again = Cache(10)
    again.take(json.loads(json.dumps(rows)), 5.0, EPOCH + 50, HIDDEN)
    assert again.get((f"7.2.0.192.{KEYED}", "A"), 5.0) == Records(("127.0.0.4",), 150)
    assert again.get((CLEAR, "A"), 5.0) == Missing(150, False)
    again.forget(KEYED)
    assert len(again) == 1


@pytest.mark.parametrize(
    "row",
    [
        [],
        "x",
        [1, "A", EPOCH, False],
        [LISTED, "A", None, False],
        [LISTED, "SOA", EPOCH + 50, False],
        [LISTED, "A", int(EPOCH) + 50, []],
        [LISTED, "A", int(EPOCH) + 50, ["listed"]],
        [LISTED, "A", int(EPOCH) + 50, ["127.0.0.2", 4]],
        [LISTED, "AAAA", int(EPOCH) + 50, ["127.0.0.2"]],
        [LISTED, ["A"], int(EPOCH) + 50, False],
        [LISTED, "A", int(EPOCH), False],
        [LISTED, "A", int(EPOCH) + 50, None],
    ],
)
def test_rows_that_make_no_sense_are_passed_over(row: Any) -> None:
    kept = Cache(10)
    kept.take([row, [CLEAR, "A", int(EPOCH) + 9, False]], NOW, EPOCH, {})
    assert len(kept) == 1


def test_a_clock_that_was_wrong_keeps_nothing_for_longer_than_its_kind_may() -> None:
    kept = Cache(10)
    far = int(EPOCH) + 10**9
    kept.take([[LISTED, "A", far, ["127.0.0.2"]], [CLEAR, "A", far, False]], NOW, EPOCH, {})
    assert kept.get((LISTED, "A"), NOW) == Records(("127.0.0.2",), 86400)
    assert kept.get((CLEAR, "A"), NOW) == Missing(3600)


def test_a_restart_asks_nobody_again(tmp_path: Path) -> None:
    file = tmp_path / "dns-cache.json"

    async def run() -> None:
        data = {ZONE: {"192.0.2.7": ["127.0.0.4"]}, KEYED: {"192.0.2.7": ["127.0.0.3"]}}
        async with DnsblServer(data) as server:

            async def ask() -> list[Outcome]:
                async with Resolver([server.address], cache_file=file, hidden=HIDDEN) as resolver:
                    names = (LISTED, CLEAR, f"7.2.0.192.{KEYED}")
                    return [await resolver.lookup(name, "A") for name in names]

            first = await ask()
            assert server.count() == 3
            server.behave("", Mode.SERVFAIL)
            second = await ask()
            assert server.count() == 3
            assert [type(outcome) for outcome in second] == [Records, Missing, Records] == [type(o) for o in first]
            assert KEY not in file.read_text() and "zen.dq.spamhaus.net" in file.read_text()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert [path.name for path in tmp_path.iterdir()] == [file.name]

    asyncio.run(run())


def test_what_another_resolver_said_is_not_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "dns-cache.json"

    async def run() -> None:
        async with DnsblServer({ZONE: {}}) as wrong, DnsblServer({ZONE: {"192.0.2.7": ["127.0.0.4"]}}) as right:
            for server, answer in ((wrong, Missing), (right, Records)):
                async with Resolver([server.address], cache_file=file) as resolver:
                    assert isinstance(await resolver.lookup(LISTED, "A"), answer)

    asyncio.run(run())


@pytest.mark.parametrize("text", ["", "[]", "{", '{"servers": 1}', '{"servers": ["192.0.2.1"], "kept": 3}', "[" * 9999])
def test_a_damaged_file_is_an_empty_cache(tmp_path: Path, text: str) -> None:
    file = tmp_path / "dns-cache.json"
    file.write_text(text)
    assert cache.read(file, ["192.0.2.1"]) == []
    file.write_bytes(b"\xff\xfe")
    assert cache.read(file, ["192.0.2.1"]) == []


def test_a_file_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    cache.write(tmp_path / "missing" / "dns-cache.json", [], [])
    (tmp_path / "taken").mkdir()
    cache.write(tmp_path / "taken", [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_resolver_that_was_asked_nothing_leaves_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "dns-cache.json"
    cache.write(file, ["192.0.2.1"], [[CLEAR, "A", 1, False]])
    before = file.read_bytes()

    async def run() -> None:
        async with Resolver(["192.0.2.1"], cache_file=file):
            pass

    asyncio.run(run())
    assert file.read_bytes() == before
