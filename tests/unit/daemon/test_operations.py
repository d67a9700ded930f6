"""What the command line can ask for: each operation's effect, and that no argument makes one fail without words."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from nftban.errors import UsageError
from nftban.prefixes import Prefix
from nftban.records import Delta
from tests.unit.daemon.stage import JAIL, Stage, on_stage

QUIET = "[dnsbl]\nenabled = false\nreverse = false\n[allow]\nprefixes = ['203.0.113.99']\n" + JAIL

STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    10**400,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    "",
    " ",
    "x" * 100_000,
    "no",
    "203.0.113.7\0",
    "\x1b[2J",
    "203.0.113.7/33",
    "203.0.113.7-203.0.113.1",
    "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "0.0.0.0/0",
    "fe80::1%eth0",
    "\udcff",
    [],
    [[]],
    [[["203.0.113.7"]]],
    [None],
    [203],
    ["203.0.113.7", None],
    ["", "\0", "x" * 10_000],
    {},
    {"203.0.113.7": 1},
)
ARGUMENTS = {
    "ping": [],
    "ban": ["prefixes", "seconds", "permanent", "scope", "reason", "client"],
    "unban": ["prefixes", "all"],
    "query": ["address"],
    "list": [],
    "why": ["address"],
    "check": ["address", "helo"],
    "status": [],
    "verify": [],
    "export": [],
    "zones": [],
    "test_zones": ["zones"],
    "allow": [],
    "allow_add": ["entries", "reason"],
    "allow_remove": ["entries"],
    "events": ["after", "wait", "limit"],
    "history": ["address", "since", "jail", "before"],
    "metrics": [],
    "notify_test": [],
    "feed_list": [],
    "feed_sync": ["names", "accept"],
}
GOOD: dict[str, dict[str, Any]] = {
    "ban": {"prefixes": ["203.0.113.7"]},
    "unban": {"prefixes": ["203.0.113.7"]},
    "query": {"address": "203.0.113.7"},
    "why": {"address": "203.0.113.7"},
    "check": {"address": "203.0.113.7"},
    "allow_add": {"entries": ["198.51.100.77"]},
    "allow_remove": {"entries": ["198.51.100.77"]},
}


def test_every_argument_of_every_type_is_done_or_refused_in_words(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        assert set(ARGUMENTS) == set(stage.operations._by_name)
        for op, names in ARGUMENTS.items():
            for name, value in itertools.product(names, STRANGE):
                try:
                    result = await stage.operations.call(op, {**GOOD.get(op, {}), name: value})
                except UsageError as e:
                    assert len(str(e)) < 300 or value == "x" * 100_000, (op, name, str(e)[:300])
                else:
                    json.dumps(result, allow_nan=False)
            for args in ({"self": 1}, {"no such": 1}, {"op": "ping"}):
                with pytest.raises(UsageError):
                    await stage.operations.call(op, {**GOOD.get(op, {}), **args})
        for op in ("", "PING", "__init__", "call", "_explained", "ban "):
            with pytest.raises(UsageError, match="there is no operation"):
                await stage.operations.call(op, {})
        for op in GOOD:
            with pytest.raises(UsageError):
                await stage.operations.call(op, {})
        bans = (await stage.call("list"))["bans"]
        assert {b["prefix"] for b in bans} <= {"203.0.113.7"}, "nothing that was refused was done"

    on_stage(tmp_path, QUIET, play)


@pytest.mark.parametrize(
    ("args", "what"),
    [
        ({"permanent": "no"}, "permanent must be true or false"),
        ({"permanent": 0}, "permanent must be true or false"),
        ({"seconds": 0}, "not a duration"),
        ({"seconds": True}, "not a duration"),
        ({"seconds": "60"}, "not a duration"),
        ({"seconds": math.nan}, "not a duration"),
        ({"seconds": 101 * 31556952}, "not a duration"),
        ({"seconds": 0, "permanent": True}, "not a duration"),
        ({"scope": "ssh"}, "there is no scope"),
        ({"scope": ["mail"]}, "there is no scope"),
        ({"reason": 5}, "reason must be text"),
        ({"client": 5}, "client must be text"),
        ({"client": False}, "client must be text"),
        ({"prefixes": "203.0.113.7"}, "prefixes must be a list"),
        ({"prefixes": []}, "prefixes must be a list"),
    ],
)
def test_a_wrong_argument_bans_nobody(tmp_path: Path, args: dict[str, Any], what: str) -> None:
    async def play(stage: Stage) -> None:
        with pytest.raises(UsageError, match=what):
            await stage.call("ban", **{"prefixes": ["203.0.113.7"], **args})
        assert await stage.call("list") == {"bans": []}

    on_stage(tmp_path, QUIET, play)


def test_unban_all_wants_a_plain_yes(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.place("203.0.113.7")
        wrongs: list[Any] = ["false", "no", 0, 1, None, []]
        for wrong in wrongs:
            with pytest.raises(UsageError, match="all must be true or false"):
                await stage.call("unban", all=wrong)
        assert await stage.banned("203.0.113.7")
        assert len((await stage.call("unban", all=True))["unbanned"]) == 1
        assert not await stage.banned("203.0.113.7")

    on_stage(tmp_path, QUIET, play)


def test_unban_all_lifts_bans_inside_bans_and_of_every_scope(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        for prefix, scope in [
            ("203.0.112.0/22", "all"),
            ("203.0.113.0/24", "all"),
            ("203.0.113.0/24", "smtp"),
            ("203.0.113.7", "mail"),
            ("2001:db8::/64", "all"),
            ("2001:db8::7", "all"),
        ]:
            stage.place(prefix, None, scope)
        await stage.offend("203.0.114.1", 2)
        done = await stage.call("unban", all=True)
        assert len(done["unbanned"]) == 6
        assert done["not_banned"] == []
        assert await stage.call("list") == {"bans": []}
        assert [e for e in stage.house.kernel.present(stage.now) if not e.set.startswith("allow")] == []
        assert (await stage.call("unban", all=True))["unbanned"] == []

    on_stage(tmp_path, QUIET, play)


def test_many_bans_are_lifted_in_time(tmp_path: Path) -> None:
    """The daemon does nothing else meanwhile."""

    async def play(stage: Stage) -> None:
        for n in range(3000):
            stage.place(f"198.18.{n >> 8}.{n & 255}")
        done = await stage.call("unban", all=True)
        assert len(done["unbanned"]) == 3000

    on_stage(tmp_path, QUIET, play)


def test_ban_says_of_each_prefix_what_became_of_it(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        done = await stage.call(
            "ban",
            prefixes=["203.0.113.7", "203.0.113.7", "203.0.113.0/24", "127.0.0.1", "10.0.0.0/8", "x", "2001:DB8::/64"],
            seconds=60,
            reason="spam \x1b[31m",
        )
        assert [(b["prefix"], b["until"] - stage.now, b["origin"], b["reason"]) for b in done["banned"]] == [
            ("203.0.113.7", 60, "manual", "spam \x1b[31m"),
            ("2001:db8::/64", 60, "manual", "spam \x1b[31m"),
        ]
        refused = {r["prefix"]: r["reason"] for r in done["refused"]}
        assert set(refused) == {"203.0.113.0/24", "127.0.0.1", "10.0.0.0/8", "x"}
        assert "covers 203.0.113.99, protected: the allow list" in refused["203.0.113.0/24"]
        assert "wider than /16" in refused["10.0.0.0/8"]

    on_stage(tmp_path, QUIET, play)


def test_the_caller_does_not_lock_himself_out(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        for client in ("203.0.113.50", "203.0.113.50 40022 198.51.100.1 22"):
            done = await stage.call("ban", prefixes=["203.0.113.48/28", "203.0.113.77"], client=client)
            assert [b["prefix"] for b in done["banned"]] == ["203.0.113.77"]
            assert "the command comes from there" in done["refused"][0]["reason"]

    on_stage(tmp_path, QUIET, play)


def test_the_length_of_a_ban_and_the_last_word(tmp_path: Path) -> None:
    """A ban in force is replaced by the next one of the same prefix and scope, be it shorter."""

    async def play(stage: Stage) -> None:
        lengths: list[tuple[dict[str, Any], float | None]] = [
            ({}, 3600),
            ({"seconds": 60}, 60),
            ({"permanent": True}, None),
            ({"seconds": 60, "permanent": True}, None),
            ({"seconds": 0.5}, 0.5),
            ({"seconds": 86400}, 86400),
        ]
        for args, left in lengths:
            (ban,) = (await stage.call("ban", prefixes=["203.0.113.7"], **args))["banned"]
            assert (ban["until"] and ban["until"] - stage.now) == left
            (entry,) = (await stage.call("query", address="203.0.113.7"))["entries"]
            assert entry["until"] == ban["until"]
        assert len((await stage.call("list"))["bans"]) == 1

    on_stage(tmp_path, QUIET, play)


def test_unban_of_a_part_and_of_a_whole(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await stage.call("ban", prefixes=["198.18.4.0/22"], seconds=600)
        await stage.call("ban", prefixes=["198.18.5.7"], seconds=6000)
        done = await stage.call("unban", prefixes=["198.18.5.7"])
        assert [b["prefix"] for b in done["unbanned"]] == ["198.18.5.7", "198.18.5.7"]
        assert done["split"][0]["prefix"] == "198.18.4.0/22" and len(done["split"][0]["into"]) == 10
        assert not await stage.banned("198.18.5.7")
        for near in ("198.18.5.6", "198.18.5.8", "198.18.4.0", "198.18.7.255"):
            (entry,) = (await stage.call("query", address=near))["entries"]
            assert entry["until"] == stage.now + 600, near
        assert not stage.drift()
        done = await stage.call("unban", prefixes=["198.18.4.0/22", "198.18.4.0/22", "198.18.9.9"])
        assert len(done["unbanned"]) == 10
        assert [m["prefix"] for m in done["not_banned"]] == ["198.18.9.9"]
        assert await stage.call("list") == {"bans": []}

    on_stage(tmp_path, QUIET, play)


def test_unban_of_one_address_of_a_counted_network_forgives_the_network(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        for n in range(6):
            stage.lone_dot(f"2001:db8:7::{n:x}")
        await stage.pipeline.settle()
        assert await stage.banned("2001:db8:7::ffff")
        done = await stage.call("unban", prefixes=["2001:db8:7::3"])
        assert ([b["prefix"] for b in done["unbanned"]], done["split"]) == (["2001:db8:7::/64"], [])
        assert not await stage.banned("2001:db8:7::ffff")
        await stage.offend("2001:db8:7::1", 5)
        assert not await stage.banned("2001:db8:7::1")

    on_stage(tmp_path, QUIET, play)


def test_query_why_and_list_agree_with_the_kernel(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.place("203.0.112.0/23", 600, "smtp")
        stage.place("203.0.113.7", 60)
        query = await stage.call("query", address="203.0.113.7")
        assert {(e["set"], e["prefix"], e["scope"]) for e in query["entries"]} == {
            ("ban4_all", "203.0.113.7", "all"),
            ("ban4range_smtp", "203.0.112.0/23", "smtp"),
        }
        assert {e["ban"]["prefix"] for e in query["entries"]} == {"203.0.113.7", "203.0.112.0/23"}
        assert [b["in_kernel"] for b in (await stage.call("list"))["bans"]] == [True, True]
        element = stage.assembly.layout.place(Prefix.parse("203.0.113.7"), "all")
        stage.house.kernel.apply(Delta(delete=(element,)), stage.now)
        listed = {b["prefix"]: b["in_kernel"] for b in (await stage.call("list"))["bans"]}
        assert listed == {"203.0.113.7": False, "203.0.112.0/23": True}
        why = await stage.call("why", address="203.0.113.7")
        assert [e["scope"] for e in why["kernel"]] == ["smtp"]
        await stage.daemon.reconcile()
        protected = await stage.call("query", address="203.0.113.99")
        assert (protected["banned"], protected["protected"] is not None) == (False, True)

    on_stage(tmp_path, QUIET, play)


def test_why_of_somebody_nobody_knows(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        why = await stage.call("why", address="203.0.113.7")
        assert why["note"].startswith("nothing is known")
        assert (why["banned"], why["bans"], why["watched"], why["kernel"]) == (False, [], [], [])

    on_stage(tmp_path, QUIET, play)


def test_check_of_a_helo_name(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.dns.add_reverse("203.0.113.7", "p-203-0-113-7.dyn.isp.example")
        stage.dns.add_name("bank.example", "TXT", '"v=spf1 -all"')
        check = await stage.call("check", address="203.0.113.7", helo="bank.example")
        assert (check["helo"]["forward"], check["spf"]["result"]) == (False, "fail")
        assert [(part["points"], part["reason"]) for part in check["names"]] == [
            (1, "PTR p-203-0-113-7.dyn.isp.example is a name that its network gives to everybody"),
            (1, "HELO bank.example does not lead to the address"),
            (1, "SPF of HELO bank.example forbids the address: -all of bank.example"),
        ]
        assert check["points"] == {"all": 0, "smtp": 3}
        assert (await stage.call("check", address="203.0.113.7"))["helo"] is None

    on_stage(tmp_path, JAIL, play)


def test_zones_are_listed_and_tested(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        stage.dns.add_zone("bl.spamcop.net")
        stage.dns.add_zone("zen.spamhaus.org").remove("127.0.0.2")
        told = await stage.call("zones")
        assert [(z["zone"], z["state"]) for z in told["zones"]] == [
            ("bl.spamcop.net", "untested"),
            ("zen.spamhaus.org", "untested"),
        ]
        known = {name: one for one in told["known"] for name in (*one["names"], *one["keyed"])}
        assert known["list.dnswl.org"]["points"] == [-4]
        assert "shut down" in known["sorbs.net"]["refused"]
        assert "zen.spamhaus.org" not in known
        tested = await stage.call("test_zones", zones=["bl.spamcop.net"])
        assert [(z["zone"], z["state"], z["usable"]) for z in tested["zones"]] == [("bl.spamcop.net", "ok", True)]
        assert stage.dns.count("zen.spamhaus.org") == 0
        assert [z["state"] for z in (await stage.call("test_zones"))["zones"]] == ["ok", "dead"]
        with pytest.raises(UsageError, match="is not asked"):
            await stage.call("test_zones", zones=["bl.example.org"])

    on_stage(tmp_path, f'[dnsbl]\nzones = ["bl.spamcop.net", "zen.spamhaus.org"]\n{JAIL}', play)


def test_check_asks_now(tmp_path: Path) -> None:
    settings = "[dnsbl]\nzones = ['zen.spamhaus.org=127.0.0.[2..9]*4', 'zen.spamhaus.org=127.0.0.10*2']\n" + JAIL

    async def play(stage: Stage) -> None:
        stage.dns.add_zone("zen.spamhaus.org", {"203.0.113.7": ["127.0.0.4", "127.0.0.10"]})
        check = await stage.call("check", address="203.0.113.7")
        # No name besides: policy evidence counts three at most.
        assert check["points"] == {"all": 4, "smtp": 7}
        assert check["listings"][0]["codes"] == ["127.0.0.4", "127.0.0.10"]
        for wide in ("203.0.113.0/24", "2001:db8::/48"):
            with pytest.raises(UsageError, match="not a single address"):
                await stage.call("check", address=wide)
        assert (await stage.call("check", address="2001:db8::/64"))["address"] == "2001:db8::/64"
        assert (await stage.call("check", address="127.0.0.1"))["listings"][0]["answer"] == "unknown"

    on_stage(tmp_path, settings, play)


def test_status_tells_of_every_part(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        await stage.offend("203.0.113.7", 6)
        await stage.offend("203.0.113.8", 2)
        status = await stage.call("status")
        json.dumps(status, allow_nan=False)
        assert (status["bans"], status["observe"], status["kernel"]["intact"]) == (1, True, True)
        assert status["kernel"]["elements"]["ban4_mail"] == 1
        (jail,) = status["jails"]
        assert (jail["name"], jail["offences"], jail["suspects"], jail["bans"]) == ("postfix", 8, 1, 1)
        assert status["events"][0]["kind"] == "ban"
        stage.house.kernel.remove()
        status = await stage.call("status")
        assert status["kernel"]["drift"] == ["there is no table inet nftban"]
        await stage.daemon.reconcile()
        assert stage.events("drift") != []
        assert (await stage.call("status"))["kernel"]["intact"]

    on_stage(tmp_path, QUIET, play)
