"""What is remembered of addresses: what a log told, how long answers hold, when it is time to ask again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nftban.daemon.known import EVIDENCE_AGE, MAX_REMEMBERED, UNKNOWN_AGE, Known
from nftban.prefixes import Prefix
from nftban.records import Answer, Evidence, Helo, Listing, Offence, ReverseDNS, Service, Suspect
from nftban.verify.health import State, Transition

NOW = 1_790_000_000.0
A, B = Prefix.parse("2001:db8::1"), Prefix.parse("2001:db8::2")
CLEAR = Listing("zen.example", Answer.CLEAR, asked=NOW, ttl=60)


def offence(prefix: Prefix = A, service: Service = Service.SMTP, **facts: str) -> Offence:
    return Offence("postfix", "1", prefix, NOW, service=service, facts=tuple(facts.items()))


def suspect(*offences: Offence) -> Suspect:
    return Suspect(Prefix.parse("2001:db8::/64"), "postfix", offences or (offence(),))


def evidence(*listings: Listing, asked: float = NOW) -> Evidence:
    return Evidence(A, listings, ReverseDNS(asked=asked))


def test_told_is_what_the_last_address_said_of_itself() -> None:
    known = Known(None)
    said = suspect(
        offence(helo="first.example", ptr="mail.example"),
        offence(helo="last.example"),
        offence(B, helo="b.example"),
        offence(),
    )
    told = known.told(said, NOW)
    assert (told.helo, told.ptr) == ("last.example", "mail.example")


def test_helo_counts_from_port_25_and_names_from_a_mail_server_only() -> None:
    known = Known(None)
    told = known.told(suspect(offence(service=Service.SUBMISSION, helo="pc.example", ptr="dyn.example")), NOW)
    assert (told.helo, told.ptr) == ("", "dyn.example")
    told = known.told(suspect(offence(service=Service.SSH, helo="x.example", ptr="anything.example")), NOW)
    assert (told.helo, told.ptr) == ("", "")


def test_logged_codes_are_told_for_five_minutes_and_an_offence_makes_them_no_younger() -> None:
    known = Known(None)
    pair = ("zen.example", "127.0.0.4")
    known.note_logged(A, [pair], NOW)
    known.note_logged(A, [pair], NOW + 200, recalled=True)
    assert known.told(suspect(), NOW + EVIDENCE_AGE).listed == (pair,)
    assert known.told(suspect(), NOW + EVIDENCE_AGE + 1).listed == ()
    known.note_logged(A, [pair], NOW + 400)
    assert known.told(suspect(), NOW + 600).listed == (pair,)


@pytest.mark.parametrize(
    ("held", "age", "due"),
    [
        (None, 0, True),
        (evidence(CLEAR), 60, False),
        (evidence(CLEAR), 61, True),
        (evidence(replace(CLEAR, ttl=3600)), EVIDENCE_AGE, False),
        (evidence(replace(CLEAR, ttl=3600)), EVIDENCE_AGE + 1, True),
        (evidence(replace(CLEAR, answer=Answer.LISTED)), EVIDENCE_AGE, False),
        (evidence(replace(CLEAR, answer=Answer.UNKNOWN)), UNKNOWN_AGE, False),
        (evidence(replace(CLEAR, answer=Answer.UNKNOWN)), UNKNOWN_AGE + 1, True),
        (replace(evidence(), complete=False), UNKNOWN_AGE + 1, True),
    ],
)
def test_when_it_is_asked_again(held: Evidence | None, age: float, due: bool) -> None:
    known = Known(None)
    if held is not None:
        known.note(A, held)
    assert known.is_due(suspect(), 6, NOW + age) is due


def test_where_the_count_decides_nobody_waits_for_a_newer_answer() -> None:
    known = Known(None)
    known.note(A, evidence(CLEAR))
    assert known.is_due(suspect(*[offence()] * 5), 6, NOW + 61)
    assert not known.is_due(suspect(*[offence()] * 6), 6, NOW + 61)


def test_a_first_helo_name_is_worth_asking_and_another_is_not() -> None:
    known = Known(None)
    known.note(A, evidence())
    assert not known.is_due(suspect(), 6, NOW)
    assert known.is_due(suspect(offence(helo="a.example")), 6, NOW)
    known.note(A, replace(evidence(), helo=Helo("a.example")))
    assert not known.is_due(suspect(offence(helo="b.example")), 6, NOW)


def test_evidence_is_forgotten_after_five_minutes_and_void_after_a_trip() -> None:
    known = Known(None)
    known.note(A, evidence(replace(CLEAR, answer=Answer.LISTED, points=4)))
    assert known.about(suspect(), NOW + EVIDENCE_AGE) is not None
    assert known.about(suspect(), NOW + EVIDENCE_AGE + 1) is None
    known.void(Transition("zen.example", State.OK, State.LISTS_WORLD, "", NOW + 1, None))
    found = known.about(suspect(), NOW + 1)
    assert found is not None
    assert [e.answer for e in found.listings] == [Answer.UNKNOWN]


def test_of_a_network_the_last_address_that_was_asked_about_speaks() -> None:
    known = Known(None)
    known.note(A, evidence(CLEAR))
    found = known.about(suspect(offence(A), offence(B)), NOW)
    assert found is not None and found.prefix == A


def test_memory_is_bounded() -> None:
    known = Known(None)
    for n in range(MAX_REMEMBERED + 5):
        known.note(Prefix(4, n, 32), evidence())
    assert len(known._evidence) == MAX_REMEMBERED
