"""Postfix's notation: what it means, and where a faulty entry is wrong."""

from __future__ import annotations

import pytest

from nftban.verify.notation import parse_codes, parse_sites
from nftban.verify.zones import packed_address

KEY = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("text", "zone", "weight", "inside", "outside"),
    [
        ("bl.example.com", "bl.example.com", 1, (), ()),
        ("bl.example.com*2", "bl.example.com", 2, (), ()),
        ("bl.example.com*+2", "bl.example.com", 2, (), ()),
        ("BL.Example.COM.*0", "bl.example.com", 0, (), ()),
        ("bl.example.com=127.0.0.4", "bl.example.com", 1, ("127.0.0.4",), ("127.0.0.5", "127.0.0.3")),
        (
            "zen.spamhaus.org=127.0.0.[2..4;9]*5",
            "zen.spamhaus.org",
            5,
            ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.9"),
            ("127.0.0.1", "127.0.0.5", "127.0.0.8", "127.0.0.10", "127.0.1.2"),
        ),
        (
            "list.dnswl.org=127.0.[2..15].[2..3]*-5",
            "list.dnswl.org",
            -5,
            ("127.0.2.2", "127.0.15.3"),
            ("127.0.1.2", "127.0.16.2", "127.0.2.1"),
        ),
        ("a.b=127.[0..255].[7].[1;3;5..6]*1000", "a.b", 1000, ("127.200.7.6",), ("127.200.7.4",)),
        ("_x.bl-1.example.com", "_x.bl-1.example.com", 1, (), ()),
    ],
)
def test_good_entries(text: str, zone: str, weight: int, inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    (rule,), faults = parse_sites(text)
    assert not faults
    assert (rule.zone, rule.weight) == (zone, weight)
    if rule.pattern is None:
        assert not inside and not outside
    else:
        assert all(rule.pattern.matches(packed_address(code)) for code in inside)
        assert not any(rule.pattern.matches(packed_address(code)) for code in outside)


def test_several_entries_in_one_string_are_separated_by_commas_and_white_space() -> None:
    rules, faults = parse_sites("a.example*3,b.example\n  c.example=127.0.0.2*-1 ,")
    assert not faults
    assert [(r.zone, r.weight, r.position) for r in rules] == [
        ("a.example", 3, 0),
        ("b.example", 1, 12),
        ("c.example", -1, 24),
    ]


@pytest.mark.parametrize(
    ("text", "position", "word"),
    [
        ("=127.0.0.2", 0, "name is missing"),
        ("*3", 0, "name is missing"),
        ("zen", 0, "no dot"),
        ("192.0.2.1", 0, "address"),
        ("a..example", 2, "part 2"),
        ("bl.exämple.com", 3, "part 2"),
        ("-a.example", 0, "part 1"),
        (("a" * 64) + ".example", 0, "part 1"),
        (".".join(["a" * 50] * 4), 0, "longer"),
        ("a.example*", 10, "weight"),
        ("a.example*x", 10, "weight"),
        ("a.example*1.5", 10, "weight"),
        ("a.example*2*3", 10, "weight"),
        ("a.example*1001", 10, "weight"),
        ("a.example=", 10, "number from 0 to 255"),
        ("a.example=127.0.0", 10, "3 fields"),
        ("a.example=127.0.0.2.3", 10, "5 fields"),
        ("a.example=127.0.0.256", 18, "number"),
        ("a.example=10.0.0.2", 10, "begin with 127"),
        ("a.example=127.0.0.[2..4", 18, "not closed"),
        ("a.example=127.0.0.[]", 19, "number"),
        ("a.example=127.0.0.[2;]", 21, "number"),
        ("a.example=127.0.0.[2..]", 22, "number"),
        ("a.example=127.0.0.[4..2]", 19, "descends"),
        ("a.example=127.0.0.[2..4..9]", 22, "number"),
        ("a.example=127.0.0.2x", 19, "'x'"),
        ("a.example=127.0.0.[2]3", 21, "'3'"),
        ("a.example=127.0.0.-2", 18, "missing here"),
        ("a.example=127.0.0.\u0662", 18, "missing here"),  # an Arabic digit
    ],
)
def test_bad_entries(text: str, position: int, word: str) -> None:
    rules, (fault,) = parse_sites(text, entry=7)
    assert not rules
    assert (fault.entry, fault.position) == (7, position), fault.what
    assert word in fault.what
    assert fault.advice


def test_a_comma_inside_brackets_is_explained() -> None:
    _, faults = parse_sites("zen.spamhaus.org=127.0.0.[2,3]*5")
    assert any(";" in fault.advice for fault in faults)


def test_a_faulty_entry_leaves_the_others() -> None:
    rules, faults = parse_sites("good.example*2, bad.example*x, fine.example")
    assert [r.zone for r in rules] == ["good.example", "fine.example"]
    assert len(faults) == 1


def test_neither_rules_nor_faults_show_a_key() -> None:
    keyed = f"{KEY}.zen.dq.spamhaus.net"
    rules, faults = parse_sites(f"{keyed}=127.0.0.2*3 {keyed}=127.0.0.[2 {keyed}*x {keyed}..org")
    assert len(rules) == 1 and len(faults) == 3
    assert KEY not in repr(rules) + str(rules) + repr(faults)


def test_codes_alone() -> None:
    assert parse_codes("127.0.0.[2..4]").matches(packed_address("127.0.0.3"))
    with pytest.raises(ValueError, match=r"descends.*character 10"):
        parse_codes("127.0.0.[9..2]")
