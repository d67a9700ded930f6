"""The allow list: entries of the settings and by command, names that lead here and there, and what follows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nftban.daemon.allowlist import MOST_ADDRESSES, RESOLVE_EVERY, AllowList, canonical
from nftban.errors import UsageError
from nftban.prefixes import Prefix
from nftban.store.sqlite import Store
from tests.unit.daemon.stage import JAIL, Stage, on_stage

QUIET = "[dnsbl]\nenabled = false\nreverse = false\n"
NOWHERE = "no-such-host.invalid"
"""RFC 6761 6.4: never resolves."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state.db")
    yield made
    made.close()


def allowed(made: AllowList) -> list[str]:
    return [str(p.prefix) for p in made.protections()]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("Home.Example.ORG.", "home.example.org"),
        ("localhost", "localhost"),
        ("_x.example", "_x.example"),
    ],
)
def test_what_an_entry_may_be(text: str, kept: str) -> None:
    assert canonical(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..b", "-x.example", "192.0.2.300", "192.0.2.1/33", "1.2.3", "12345", "a b", "a\n", "x;y"),
        *("\udcff.example", "0.0.0.0/0", "::/0", "x" * 64, ("x" * 60 + ".") * 5),
    ],
)
def test_what_no_entry_is(text: str) -> None:
    with pytest.raises(UsageError):
        canonical(text)


def test_entries_outlast_a_restart_and_the_settings_keep_theirs(store: Store) -> None:
    settings = [Prefix.parse("192.0.2.0/24")]
    made = AllowList(store, settings, ())
    assert made.add("203.0.113.7", "the office", 100.0)
    assert not made.add("203.0.113.7", "", 100.0) and not made.add("192.0.2.0/24", "", 100.0)
    again = AllowList(store, settings, ())
    assert [(e.entry, e.since, e.reason) for e in again.entries()] == [
        ("192.0.2.0/24", 0.0, ""),
        ("203.0.113.7", 100.0, "the office"),
    ]
    assert allowed(again) == ["192.0.2.0/24", "203.0.113.7"]
    with pytest.raises(UsageError, match="stands in the settings"):
        again.remove("192.0.2.0/24")
    assert again.remove("203.0.113.7") and not again.remove("203.0.113.7")
    assert allowed(AllowList(store, settings, ())) == ["192.0.2.0/24"]


def test_where_a_name_led_last_stays_allowed_while_it_cannot_be_resolved(store: Store) -> None:
    made = AllowList(store, (), ["localhost", NOWHERE])
    assert allowed(made) == []
    assert asyncio.run(made.resolve(1000.0))
    assert "127.0.0.1" in allowed(made)
    assert not asyncio.run(made.resolve(1000.0 + RESOLVE_EVERY)), "it still leads there"
    assert list(made.failures) == [NOWHERE]
    # It cannot be resolved any more, and the daemon starts anew: as if the name had been the one that is nowhere.
    kept = store.state("allow")
    store.set_state("allow", {**kept, "addresses": {NOWHERE: ["198.51.100.7"]}})
    again = AllowList(store, (), [NOWHERE])
    assert not asyncio.run(again.resolve(5000.0))
    assert allowed(again) == ["198.51.100.7"]
    assert next(again.protections()).why == f"the allow list ({NOWHERE})"


def test_a_name_allows_addresses_never_networks_and_not_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its DNS may be somebody else's."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"198.51.100.{n}", 0)) for n in range(200)]

    async def resolve() -> None:
        loop = asyncio.get_running_loop()

        async def getaddrinfo(*_: object, **__: object) -> object:
            return answers

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        made = AllowList(store, (), ["many.example"])
        await made.resolve(0.0)
        assert len(allowed(made)) == MOST_ADDRESSES
        assert all(p.prefix.is_single for p in made.protections())

    asyncio.run(resolve())


def test_an_allowed_address_is_let_in_and_cannot_be_banned(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.place("203.0.113.7")
        stage.place("198.51.100.0/24")
        assert await stage.banned("203.0.113.7")
        result = await stage.call("allow_add", entries=["203.0.113.7", "198.51.100.9", "1.2.3"])
        assert result["added"] == ["203.0.113.7", "198.51.100.9"]
        assert [r["entry"] for r in result["refused"]] == ["1.2.3"]
        again = await stage.call("allow_add", entries=["203.0.113.7"])
        assert again["added"] == [] and "already" in again["refused"][0]["reason"]
        assert not await stage.banned("203.0.113.7") and not await stage.banned("198.51.100.9")
        refused = (await stage.call("ban", prefixes=["203.0.113.0/24"]))["refused"]
        assert "protected: the allow list" in refused[0]["reason"]
        await stage.offend("203.0.113.7", 20)
        assert not await stage.banned("203.0.113.7")
        listed = (await stage.call("allow"))["entries"]
        assert [(e["entry"], e["addresses"]) for e in listed] == [(a, [a]) for a in ("203.0.113.7", "198.51.100.9")]
        assert (await stage.call("allow_remove", entries=["203.0.113.7", "x"]))["removed"] == ["203.0.113.7"]
        await stage.offend("203.0.113.7", 20)
        assert await stage.banned("203.0.113.7")

    on_stage(tmp_path, QUIET + JAIL, play)
