"""Records as JSON and back: equal, or a ValueError."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nftban.plain import from_plain, to_plain
from nftban.prefixes import Prefix
from nftban.records import (
    Action,
    Answer,
    Ban,
    Cursor,
    Delta,
    Element,
    Event,
    Evidence,
    History,
    Listing,
    Login,
    LogLine,
    Offence,
    Origin,
    Part,
    Refused,
    ReverseDNS,
    Service,
    Suspect,
    Verdict,
)

ADDRESS = Prefix.parse("2001:db8::7")
OFFENCE = Offence(
    "postfix",
    "3",
    ADDRESS,
    1764000000.25,
    2,
    Service.SMTP,
    (("helo", 'a"\\\x00\x1b[31m\u202e'), ("user", "")),
    (("zen.example", "127.0.0.4"),),
    "line \\xff",
    "/var/log/mail.log",
)
EVIDENCE = Evidence(
    ADDRESS,
    (Listing("zen.example", Answer.LISTED, ("127.0.0.4", "127.0.0.10"), 4, 2, "XBL", 1.5, 60, True),),
    ReverseDNS(("a.example",), True, None, "forward: timed out", 2.5, 30),
    False,
)
VERDICT = Verdict(
    Action.BAN, ADDRESS, "postfix", "mail", 7, 6, (Part(-4, "feathers"), Part(11, "x")), "7 points", None, True
)
RECORDS = [
    Cursor((1 << 64) - 1, 9, "ab"),
    LogLine("f", "text", Cursor(1, 2, "c"), 3),
    LogLine("f", "text"),
    OFFENCE,
    Login(ADDRESS, 3.0, "u"),
    Suspect(ADDRESS.widened(64), "j", (OFFENCE, OFFENCE)),
    EVIDENCE,
    History(3, None),
    History(0, 5.0),
    VERDICT,
    Ban(ADDRESS, "mail", 1.0, None, Origin.LOG, "j", "r", VERDICT, EVIDENCE, (OFFENCE,)),
    Ban(Prefix.parse("0.0.0.0/0"), "all", 1.0, 2.0, Origin.MANUAL),
    Element("ban4", 1, 2, 3.0),
    Delta((Element("s", 0, (1 << 128) - 1),)),
    Refused(Element("s", 1, 1), 17, "exists"),
    Event(1.0, "ban", "text", None),
    Event(1.0, "ban", "text", ADDRESS),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_survives_json(record: Any) -> None:
    written = json.dumps(to_plain(record))
    restored = from_plain(type(record), json.loads(written))
    assert restored == record
    assert hash(restored) == hash(record)


def test_the_written_form_is_what_people_read() -> None:
    assert to_plain(OFFENCE)["prefix"] == "2001:db8::7"
    assert to_plain(OFFENCE)["service"] == "smtp"
    assert to_plain(OFFENCE)["listed"] == [["zen.example", "127.0.0.4"]]
    assert to_plain({1: (ADDRESS, None)}) == {"1": ["2001:db8::7", None]}


def test_fields_that_an_older_version_did_not_write_get_their_default() -> None:
    old = {"filter": "f", "rule": "1", "prefix": "192.0.2.7", "time": 5}
    assert from_plain(Offence, old) == Offence("f", "1", Prefix.parse("192.0.2.7"), 5.0)


def _with(**changed: Any) -> dict[str, Any]:
    return {**to_plain(OFFENCE), **changed}


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (Offence, None),
        (Offence, []),
        (Offence, "x"),
        (Offence, {}),
        (Offence, _with(more=1)),
        (Offence, _with(prefix="192.0.2")),
        (Offence, _with(prefix=None)),
        (Offence, _with(prefix=["192.0.2.7"])),
        (Offence, _with(time="5")),
        (Offence, _with(time=True)),
        (Offence, _with(time=10**400)),
        (Offence, _with(weight=1.0)),
        (Offence, _with(weight=True)),
        (Offence, _with(service="smpt")),
        (Offence, _with(service=[])),
        (Offence, _with(facts="helo")),
        (Offence, _with(facts=[["helo"]])),
        (Offence, _with(facts=[["helo", "a", "b"]])),
        (Offence, _with(facts=[["helo", 1]])),
        (Offence, _with(line=b"x")),
        (Event, {"time": 1, "kind": "k", "text": "t", "prefix": 5}),
        (ReverseDNS, {"has_name": "yes"}),
        (ReverseDNS, {"has_name": 1}),
        (Verdict, {**to_plain(VERDICT), "parts": [None]}),
        (Verdict, {**to_plain(VERDICT), "parts": {"points": 1}}),
    ],
)
def test_what_does_not_fit_is_a_value_error(kind: type[Any], plain: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(kind, plain)
