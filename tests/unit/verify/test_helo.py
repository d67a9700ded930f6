"""HELO names: which no honest client says, where they lead, whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nftban.prefixes import Prefix
from nftban.records import ReverseDNS
from nftban.verify.helo import helo_fault, judged
from nftban.verify.organisation import organisation
from nftban.verify.outcomes import Failed, Missing, Outcome, Records

NOW = 1_790_000_000.0
V4, V6 = Prefix.parse("203.0.113.25"), Prefix.parse("2001:db8::25")
OWN = ("mx.our.example",)
NAMED = ReverseDNS(("mail.company.co.uk",), True, True)
NONE = Missing(60)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("mail.company.example", ""),
        ("mail.company.example.", ""),
        ("mail_1.company.example", ""),
        ("xn--mnchen-3ya.example", ""),
        ("[203.0.113.25]", ""),
        ("[198.51.100.1]", "the literal of another address"),
        ("[IPv6:2001:db8::25]", "the literal of another address"),
        ("[203.0.113.25", "an address literal that is none"),
        ("[]", "an address literal that is none"),
        ("[203.0.113.0/24]", "an address literal that is none"),
        ("203.0.113.25", "an address without brackets"),
        ("2001:db8::25", "an address without brackets"),
        ("MX.our.EXAMPLE.", "our own name"),
        ("localhost", "no full domain name"),
        ("user", "no full domain name"),
        ("", "no full domain name"),
        ("a..example", "no full domain name"),
        ("-a.example", "no full domain name"),
        ("a b.example", "no full domain name"),
        ("1.2.3", "no full domain name"),
        ("x" * 64 + ".example", "no full domain name"),
        ("a." * 130 + "example", "no full domain name"),
        ("localhost.localdomain", "a name for inside a network"),
        ("pc.fritz.lan", "a name for inside a network"),
    ],
)
def test_forms(name: str, fault: str) -> None:
    assert helo_fault(name, V4, OWN) == fault


def test_an_ipv6_literal() -> None:
    assert helo_fault("[ipv6:2001:db8:0:0::25]", V6, OWN) == ""
    assert judged("[IPv6:2001:db8::25]", V6, OWN, None, NAMED, NOW).forward is True


@pytest.mark.parametrize(
    ("a", "aaaa", "forward"),
    [
        (Records(("203.0.113.25",), 60), NONE, True),
        (Records(("198.51.100.1", "203.0.113.25"), 60), Failed("timeout"), True),
        (NONE, Records(("::ffff:203.0.113.25",), 60), True),
        (Records(("198.51.100.1",), 60), NONE, False),
        (NONE, NONE, False),
        (Records(("198.51.100.1",), 60), Failed("timeout"), None),
        (Failed("SERVFAIL"), NONE, None),
    ],
)
def test_where_it_leads(a: Outcome, aaaa: Outcome, forward: bool | None) -> None:
    said = judged("mx.company.co.uk", V4, OWN, (a, aaaa), NAMED, NOW)
    assert (said.fault, said.forward, said.same_organisation) == ("", forward, True)


@pytest.mark.parametrize(
    ("reverse", "same"),
    [
        (NAMED, False),
        (ReverseDNS(("a.other.co.uk", "mail.company.co.uk"), True, True), True),
        (ReverseDNS(("a.other.co.uk",), True, False), None),  # not its name, so nothing follows from it
        (ReverseDNS(("a.other.co.uk",), True, None), None),
        (ReverseDNS(has_name=False), None),
    ],
)
def test_whose_it_is(reverse: ReverseDNS, same: bool | None) -> None:
    assert judged("mx.other.co.uk", V4, OWN, (NONE, NONE), reverse, NOW).same_organisation is same


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("mail.company.example", "company.example"),
        ("Mail.Company.CO.UK.", "company.co.uk"),
        ("co.uk", ""),
        ("a.b.c.ck", "b.c.ck"),
        ("www.ck", "www.ck"),
        ("x.github.io", "x.github.io"),
        ("", ""),
    ],
)
def test_registered_domains(name: str, owner: str) -> None:
    assert organisation(name) == owner


@given(st.text(max_size=300), st.sampled_from([V4, V6]))
def test_any_text_is_answered(name: str, address: Prefix) -> None:
    said = judged(name, address, OWN, (NONE, NONE), NAMED, NOW)
    assert bool(said.fault) == (said.forward is None)
