"""Feeds of a running daemon, by the clock: evidence, answers for a zone, lists that go bad or are gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nftban.errors import UsageError
from nftban.prefixes import Prefix
from nftban.records import Answer
from tests.unit.daemon.stage import JAIL, Stage, on_stage

LISTED, CLEAR = "45.0.0.7", "45.200.0.7"
HOUR = 3600.0
USE = "enforce = true\n"


def playing(
    folder: Path,
    play: Callable[[Stage, Path], Awaitable[None]],
    use: str = USE,
    more: str = "",
    kind: str = "netset",
    cache: str = "cache",
) -> None:
    """A daemon with the feed `own`, a file beside its settings, which is kept for three hours without a word."""
    path = folder / "list"
    path.write_text(f"{LISTED}\n45.1.0.0/24\n2a00:1::/48\n")
    feed = f'[[feed]]\nname = "own"\nformat = "{kind}"\nfile = "{path}"\ninterval = "1h"\nkeep = "4h"\n'
    feed += 'about = "bad ones"\n'
    files = {
        "nftban.toml": f'[feeds]\ncache = "{folder}/{cache}"\n[feed.own]\n{use}{JAIL}{more}',
        "rules/feeds/own.toml": feed + ('zone = "bl.example"\n' if kind == "ip4set" else ""),
    }

    async def on(stage: Stage) -> None:
        assert stage.house.feeds is not None
        await stage.house.feeds.start()
        await play(stage, path)

    on_stage(folder, files, on)


async def run(stage: Stage) -> None:
    assert stage.house.feeds is not None
    await stage.house.feeds.run()


def test_enforced_named_and_not_to_be_lifted(tmp_path: Path) -> None:
    async def play(stage: Stage, _: Path) -> None:
        await run(stage)
        told = await stage.call("query", address=LISTED)
        (entry,) = told["entries"]
        assert told["banned"] and (entry["feed"], entry["ban"], entry["packets"]) == ("own", None, None)
        assert (await stage.call("why", address=LISTED))["feeds"] == ["own"]
        assert not await stage.banned(CLEAR)
        # A ban of its own beside it is named as such, and lifting it does not let the address in.
        stage.place(LISTED)
        by = {entry["feed"]: entry["ban"] for entry in (await stage.call("query", address=LISTED))["entries"]}
        assert by["own"] is None and by[None]["prefix"] == LISTED
        answer = await stage.call("unban", prefixes=[LISTED])
        assert len(answer["unbanned"]) == 1
        (left,) = answer["not_banned"]
        assert "feed own" in left["reason"] and left["advice"] == f"nftban allow add {LISTED}"
        await stage.call("allow_add", entries=[LISTED])
        assert not await stage.banned(LISTED)
        assert [e["feed"] for e in (await stage.call("query", address=LISTED))["entries"]] == []
        assert await stage.banned("45.1.0.9")
        await stage.call("allow_remove", entries=[LISTED])
        assert await stage.banned(LISTED)
        (row,) = (await stage.call("status"))["feeds"]
        assert (row["name"], row["entries"], row["refused"], row["confirmed"]) == ("own", 3, None, stage.now)

    playing(tmp_path, play)


def test_points_of_a_feed_are_a_part_of_the_score(tmp_path: Path) -> None:
    """Also in a jail that asks no DNS; and UNKNOWN feeds, those without a copy, are silent."""

    async def play(stage: Stage, _: Path) -> None:
        await stage.offend(LISTED)
        (watched,) = (await stage.call("why", address=LISTED))["watched"]
        assert [p["points"] for p in watched["parts"]] == [1]
        await run(stage)
        (watched,) = (await stage.call("why", address=LISTED))["watched"]
        assert {p["reason"]: p["points"] for p in watched["parts"]}["listed by feed own: bad ones"] == 2
        assert not await stage.banned(LISTED)
        await stage.offend(LISTED, 2)
        assert await stage.banned(LISTED)
        (ban,) = (await stage.call("why", address=LISTED))["bans"]
        assert ban["needs_listing"] and ban["score"] == 5
        await stage.offend(CLEAR, 3)
        assert not await stage.banned(CLEAR)

    playing(tmp_path, play, use="points = 2\n", more="dnsbl = false\nmaxretry = 5\n")


def test_a_zone_whose_data_are_here_is_not_asked(tmp_path: Path) -> None:
    async def play(stage: Stage, path: Path) -> None:
        path.write_text(f"127.0.0.2\n{LISTED} :127.0.0.2:bad\n")
        await run(stage)
        verifier = stage.house.verifier
        for address, answer in ((LISTED, Answer.LISTED), (CLEAR, Answer.CLEAR)):
            evidence = await verifier.evidence(Prefix.parse(address), stage.now)
            (listing,) = evidence.listings
            assert (listing.zone, listing.answer) == ("bl.example", answer)
        assert not [query for query in stage.dns.log if "bl.example" in str(query)]
        (zone,) = (await stage.call("zones"))["zones"]
        assert (zone["state"], zone["queries_today"]) == ("ok", 0)

    playing(tmp_path, play, use="enabled = true\n", more='[dnsbl]\nzones = ["bl.example=127.0.0.2*3"]\n', kind="ip4set")


def test_a_list_that_turns_bad_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    async def play(stage: Stage, path: Path) -> None:
        await run(stage)
        for poison, why in (
            ("<html>\n", "web page"),
            ("45.0.0.0/8\n", "wider than"),
            (f"{LISTED}\n8.8.8.8\n", "8.8.8.8"),
        ):
            path.write_text(poison)
            for _ in range(3):
                stage.wait(HOUR * 1.1)
                await run(stage)
                assert await stage.banned(LISTED) and not await stage.banned("8.8.8.8")
            assert why in stage.events("feed")[0]
            path.write_text(f"{LISTED}\n45.2.0.0/24\n")
            stage.wait(HOUR * 1.1)
            await run(stage)
            assert "well again" in stage.events("feed")[0]
            assert await stage.banned("45.2.0.9") and not await stage.banned("45.1.0.9")
        assert len(stage.events("feed")) == 6

    playing(tmp_path, play)


def test_a_server_that_is_gone_and_a_list_that_is_let_go(tmp_path: Path) -> None:
    """Until `keep` is over everything stays; then the list leaves, and comes back with its server."""

    async def play(stage: Stage, path: Path) -> None:
        await run(stage)
        text = path.read_text()
        path.unlink()
        for _ in range(4 * 4):
            stage.wait(HOUR / 4)
            await run(stage)
            assert await stage.banned(LISTED)
        assert len(stage.events("feed")) == 1 and "No such file" in stage.events("feed")[0]
        while await stage.banned(LISTED):
            stage.wait(HOUR / 4)
            await run(stage)
        assert "let go" in stage.events("feed")[0]
        assert not stage.house.bans.difference(stage.now)
        path.write_text(text)
        stage.wait(HOUR * 1.1)
        await run(stage)
        assert await stage.banned(LISTED)

    playing(tmp_path, play)


def test_ends_move_on_as_the_list_is_confirmed(tmp_path: Path) -> None:
    async def play(stage: Stage, _: Path) -> None:
        ends = set()
        for _round in range(8):
            await run(stage)
            (entry,) = (await stage.call("query", address=LISTED))["entries"]
            assert entry["until"] > stage.now + 2 * HOUR
            assert not stage.house.bans.difference(stage.now, exact=True)
            ends.add(entry["until"])
            stage.wait(HOUR * 1.1)
        assert len(ends) > 2

    playing(tmp_path, play)


def test_a_command_reaches_the_running_daemon(tmp_path: Path) -> None:
    async def play(stage: Stage, path: Path) -> None:
        assert (await stage.call("feed_list"))["feeds"][0]["entries"] is None
        (row,) = (await stage.call("feed_sync"))["feeds"]
        assert (row["result"], row["entries"]) == ("updated", 3)
        assert await stage.banned(LISTED), "no job has run"
        assert (await stage.call("feed_sync"))["feeds"] == []
        path.write_text("45.3.0.1\n")
        (row,) = (await stage.call("feed_sync", names=["own"], accept=True))["feeds"]
        assert row["result"] == "updated"
        assert await stage.banned("45.3.0.1") and not await stage.banned(LISTED)
        with pytest.raises(UsageError):
            await stage.call("feed_sync", names=["other"])

    playing(tmp_path, play)


def test_a_restart_needs_no_list_but_its_copy(tmp_path: Path) -> None:
    async def first(stage: Stage, path: Path) -> None:
        await run(stage)

    async def second(stage: Stage, path: Path) -> None:
        path.unlink()
        await run(stage)
        assert await stage.banned(LISTED)

    playing(tmp_path, first)
    playing(tmp_path, second)


def test_a_folder_that_cannot_be_used_keeps_nobody_from_starting(tmp_path: Path) -> None:
    async def play(stage: Stage, _: Path) -> None:
        await run(stage)
        assert len(stage.events("feed")) == 2 and "Not a directory" in stage.events("feed")[1]
        assert not await stage.banned(LISTED)
        (tmp_path / "cache").unlink()
        stage.wait(HOUR)
        await run(stage)
        assert await stage.banned(LISTED)

    (tmp_path / "cache").write_text("a file")
    playing(tmp_path, play, cache="cache/feeds")


def test_a_copy_that_cannot_be_written_is_no_reason_to_ask_every_minute(tmp_path: Path) -> None:
    async def play(stage: Stage, _: Path) -> None:
        obstacle = tmp_path / "cache" / ".own.copy.new"
        obstacle.mkdir()
        await run(stage)
        assert "Is a directory" in stage.events("feed")[0]
        obstacle.rmdir()
        await run(stage)
        assert not await stage.banned(LISTED)
        stage.wait(HOUR)
        await run(stage)
        assert await stage.banned(LISTED)
        assert "well again" in stage.events("feed")[0]

    playing(tmp_path, play)


def test_a_ban_that_a_feed_decided_is_lifted_when_the_feed_lets_go_of_the_address(tmp_path: Path) -> None:
    async def play(stage: Stage, path: Path) -> None:
        await run(stage)
        await stage.offend(LISTED, 3)
        await stage.daemon.reverify()
        assert await stage.banned(LISTED), "it is still listed"
        text = path.read_text()
        path.unlink()
        for _ in range(10):
            stage.wait(HOUR)
            await run(stage)
        await stage.daemon.reverify()
        assert await stage.banned(LISTED), "without a list nobody knows"
        path.write_text(text.replace(f"{LISTED}\n", ""))
        stage.wait(HOUR * 1.1)
        await run(stage)
        await stage.daemon.reverify()
        assert not await stage.banned(LISTED)
        assert "no longer listed" in stage.events("lifted")[0]

    playing(tmp_path, play, use="points = 2\n", more='maxretry = 5\nbantime = "3d"\n')
