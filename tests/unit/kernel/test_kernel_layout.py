from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nftban.errors import UsageError
from nftban.kernel.layout import ALL, DEFAULT, NETWORK_LENGTH, FeedSets, Kind, Layout, Log, Reject, Scope, ruleset_text
from nftban.prefixes import Prefix
from nftban.records import Element


def test_the_shipped_snippet_is_the_default_layout() -> None:
    shipped = Path(__file__).parents[3] / "rules" / "nftban.nft"
    assert shipped.read_text() == ruleset_text(DEFAULT)


def test_the_default_scopes() -> None:
    assert {scope.name: scope.ports for scope in DEFAULT.scopes} == {
        "all": (),
        "smtp": (25,),
        "submission": (465, 587),
        "mail": (25, 110, 143, 465, 587, 993, 995, 4190),
        "ssh": (22,),
    }


def test_all_is_always_there_and_first_where_it_was_not_named() -> None:
    assert [scope.name for scope in Layout(scopes=(Scope("ssh", (22,)),)).scopes] == [ALL, "ssh"]
    assert [scope.name for scope in Layout(scopes=(Scope("ssh", (22,)), Scope(ALL))).scopes] == ["ssh", ALL]


def test_rules_allow_first_then_ban_all_then_scopes() -> None:
    rules = Layout(scopes=(Scope("ssh", (22,)), Scope("every"))).rules
    base = [(rule.match.name, rule.verdict) for rule in rules if rule.match and rule.chain == "prerouting"]
    assert [name for name, verdict in base if verdict == "accept"] == ["allow4", "allow6"] == [n for n, _ in base[:2]]
    assert base[-1] == ("ports_ssh", "scope_ssh")
    assert {verdict for _, verdict in base[2:-1]} == {"drop"}
    assert {name.partition("_")[2] for name, _ in base[2:-1]} == {"all", "every"}
    assert {(r.match.scope, r.verdict) for r in rules if r.match and r.chain == "scope_ssh"} == {("ssh", "drop")}


def test_every_set_is_matched_by_exactly_one_rule() -> None:
    assert sorted(rule.match.name for rule in DEFAULT.rules if rule.match) == sorted(spec.name for spec in DEFAULT.sets)


@pytest.mark.parametrize(
    ("text", "name", "last"),
    [
        ("192.0.2.7", "ban4_ssh", "192.0.2.7"),
        ("192.0.2.0/24", "ban4net24_ssh", "192.0.2.0"),
        ("192.0.2.0/25", "ban4range_ssh", "192.0.2.127"),
        ("0.0.0.0/0", "ban4range_ssh", "255.255.255.255"),
        ("::ffff:192.0.2.7", "ban4_ssh", "192.0.2.7"),
        ("2001:db8::7", "ban6_ssh", "2001:db8::7"),
        ("2001:db8::/64", "ban6net64_ssh", "2001:db8::"),
        ("2001:db8::/65", "ban6range_ssh", "2001:db8::7fff:ffff:ffff:ffff"),
    ],
)
def test_place_and_back(text: str, name: str, last: str) -> None:
    prefix = Prefix.parse(text)
    element = DEFAULT.place(prefix, "ssh", 5.0)
    assert element == Element(name, prefix.first, Prefix.parse(last).first)
    assert element.until == 5.0
    assert list(DEFAULT.prefixes(element)) == [prefix]
    assert DEFAULT.address_sets[name].may_cover(prefix)


def test_an_unknown_scope_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="'pop3'") as caught:
        DEFAULT.place(Prefix.parse("192.0.2.7"), "pop3")
    assert "submission" in caught.value.advice


@pytest.mark.parametrize(
    ("table", "scopes"),
    [
        ("nftban; flush ruleset", ()),
        ("", ()),
        ("t", (Scope("smtp }", (25,)),)),
        ("t", (Scope("Smtp", (25,)),)),
        ("t", (Scope("smtp\n", (25,)),)),
        ("t", (Scope("s" * 33, (25,)),)),
        ("t", (Scope("smtp", (0,)),)),
        ("t", (Scope("smtp", (65536,)),)),
        ("t", (Scope("all", (25,)),)),
        ("t", (Scope("smtp", (25,)), Scope("smtp", (26,)))),
    ],
)
def test_what_cannot_be_a_layout_is_refused(table: str, scopes: tuple[Scope, ...]) -> None:
    with pytest.raises(UsageError):
        Layout(table, scopes)


def test_which_set_may_cover_what_and_with_which_key() -> None:
    net24 = next(s for s in DEFAULT.sets if s.name == "ban4net24_all")
    assert net24.kind is Kind.NETWORK
    assert NETWORK_LENGTH[net24.family] == 24
    assert net24.may_cover(Prefix.parse("192.0.2.7"))
    assert net24.may_cover(Prefix.parse("192.0.2.0/24"))
    assert not net24.may_cover(Prefix.parse("192.0.2.0/23"))
    assert not net24.may_cover(Prefix.parse("2001:db8::7"))
    assert net24.key(Prefix.parse("192.0.2.7")) == Prefix.parse("192.0.2.0").first


SSH, SMTP = Scope("ssh", (22,)), Scope("smtp", (25,))


def test_each_scope_has_its_own_outcome() -> None:
    layout = Layout(scopes=(SSH, SMTP), reject=("smtp",), log=Log("x: "))
    verdicts = {rule.match.scope: rule.verdict for rule in layout.rules if rule.match and rule.match.bans}
    assert verdicts == {ALL: "dropped", "ssh": "dropped", "smtp": "rejected"}
    outcomes = [(rule.chain, rule.verdict) for rule in layout.rules if rule.match is None]
    assert outcomes == [
        ("logged", Log("x: ")),
        ("dropped", "logged"),
        ("dropped", "drop"),
        ("rejected", "logged"),
        ("rejected", Reject.TCP_RESET),
        ("rejected", Reject.ADMIN_PROHIBITED),
    ]


def test_no_chain_that_nothing_jumps_to() -> None:
    assert Layout(scopes=(SSH,)).chains == ("prerouting", "scope_ssh")
    assert Layout(reject=(ALL,)).chains == ("prerouting", "rejected")
    assert Layout(reject=(ALL,), log=Log("x")).chains == ("prerouting", "logged", "rejected")


def test_at_ingress_stand_the_same_rules_as_at_prerouting() -> None:
    layout = Layout(scopes=(SSH,), ingress=("eth1", "eth0", "eth1"))
    assert layout.ingress == ("eth0", "eth1")

    def of(chain: str) -> list[object]:
        return [(rule.match, rule.verdict) for rule in layout.rules if rule.chain == chain]

    assert of("ingress") == of("prerouting") == [(r.match, r.verdict) for r in Layout(scopes=(SSH,)).rules[:9]]
    assert layout.on_devices(["eth1", "lo"]).ingress == ("eth1",)
    assert layout.on_devices([]) == Layout(scopes=(SSH,))


@pytest.mark.parametrize(
    "options",
    [
        {"reject": ("smtp",)},
        {"log": Log("")},
        {"log": Log('"; flush ruleset; "')},
        {"log": Log("x" * 65)},
        {"log": Log("x\n")},
        {"log": Log("x", 0)},
        {"ingress": ("eth0/x",)},
        {"ingress": ("",)},
        {"ingress": ("x" * 16,)},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Layout(scopes=(SSH,), **options)


def test_feeds_have_sets_of_their_own_which_come_last_in_their_scope() -> None:
    layout = replace(DEFAULT, feeds=(FeedSets("drop"), FeedSets("bots", "smtp")))
    assert {"feed4_drop", "feed6_drop", "feed4_bots", "feed6_bots"} < set(layout.address_sets)
    smtp = [rule.match.name for rule in layout.rules if rule.chain == "scope_smtp" and rule.match]
    assert smtp[-2:] == ["feed4_bots", "feed6_bots"]
    base = [rule.match.name for rule in layout.rules if rule.chain == "prerouting" and rule.match]
    assert base.index("feed4_drop") > base.index("ban6range_all") and "feed4_bots" not in base
    assert layout.place(Prefix.parse("10.0.0.0/8"), "all").set == "ban4range_all", "bans never go into a feed's set"
    for feeds in ((FeedSets("Drop"),), (FeedSets("x"), FeedSets("x")), (FeedSets("x", "pop3"),), (FeedSets("x;y"),)):
        with pytest.raises(UsageError):
            replace(DEFAULT, feeds=feeds)
