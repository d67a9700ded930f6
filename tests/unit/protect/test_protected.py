"""What must never be banned: the test is on the final prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nftban.prefixes import Prefix, PrefixSet
from nftban.protect.protected import ALWAYS, Protected, Protection

P = Prefix.parse
OWN = Protection(P("192.0.2.1"), "an address of this machine")
OFFICE = Protection(P("198.51.100.0/24"), "the allow list")
OWN6 = Protection(P("2001:db8::1"), "an address of this machine")
PROTECTED = Protected([OWN, OFFICE, OWN6], 16, 32)


@pytest.mark.parametrize("text", ["192.0.2.2", "192.0.2.128/25", "203.0.113.0/24", "2001:db8:1::/64", "2001:db8::2"])
def test_others_may_be_banned(text: str) -> None:
    assert PROTECTED.objection(P(text)) is None
    assert PROTECTED.reason(P(text)) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("192.0.2.1", "192.0.2.1 is protected: an address of this machine"),
        ("::ffff:192.0.2.1", "192.0.2.1 is protected: an address of this machine"),
        ("192.0.2.0/31", "192.0.2.0/31 covers 192.0.2.1, protected: an address of this machine"),
        ("192.0.0.0/16", "192.0.0.0/16 covers 192.0.2.1, protected: an address of this machine"),
        ("198.51.100.0/24", "198.51.100.0/24 is protected: the allow list"),
        ("198.51.100.9", "198.51.100.9 lies in 198.51.100.0/24, protected: the allow list"),
        ("198.51.0.0/16", "198.51.0.0/16 covers 198.51.100.0/24, protected: the allow list"),
        ("2001:db8::/64", "2001:db8::/64 covers 2001:db8::1, protected: an address of this machine"),
        ("2001:db8::/32", "2001:db8::/32 covers 2001:db8::1, protected: an address of this machine"),
        ("127.0.0.53", "127.0.0.53 lies in 127.0.0.0/8, protected: loopback"),
        ("::1", "::1 is protected: loopback"),
        ("::", ":: is protected: the unspecified address"),
        ("0.1.2.3", "0.1.2.3 lies in 0.0.0.0/8, protected: this network"),
        ("169.254.169.254", "169.254.169.254 lies in 169.254.0.0/16, protected: link-local"),
        ("255.255.255.255", "255.255.255.255 lies in 224.0.0.0/3, protected: multicast and reserved"),
        ("fe80::1", "fe80::1 lies in fe80::/10, protected: link-local; neighbour discovery needs it"),
        ("ff02::1", "ff02::1 lies in ff00::/8, protected: multicast"),
    ],
)
def test_the_objection_names_what_and_why(text: str, words: str) -> None:
    assert PROTECTED.objection(P(text)) == words


@pytest.mark.parametrize(("text", "widest"), [("203.0.0.0/15", 16), ("0.0.0.0/0", 16), ("2a00::/31", 32), ("::/0", 32)])
def test_what_is_too_wide_is_objected_to_whatever_it_covers(text: str, widest: int) -> None:
    assert PROTECTED.objection(P(text)) == f"{P(text)} is wider than /{widest}, the widest that may be banned"
    assert PROTECTED.objection(P("203.0.0.0/16")) is None
    assert PROTECTED.objection(P("2a00::/32")) is None


def test_the_widest_is_a_setting_per_family() -> None:
    loose = Protected([], 8, 16)
    assert loose.objection(P("203.0.0.0/8")) is None
    assert loose.objection(P("2a00::/16")) is None
    assert loose.objection(P("202.0.0.0/7")) is not None
    assert loose.objection(P("2a00::/15")) is not None


def test_the_allow_set_holds_all_of_it() -> None:
    for p in (*ALWAYS, OWN, OFFICE, OWN6):
        assert PROTECTED.allow.contains(p.prefix)
    assert PROTECTED.allow == PrefixSet(p.prefix for p in (*ALWAYS, OWN, OFFICE, OWN6))


lengths4, lengths6 = st.integers(16, 32), st.integers(32, 128)
addresses4 = st.integers(0, (1 << 32) - 1) | st.sampled_from([P(t).first for t in ("192.0.2.1", "198.51.100.0")])
addresses6 = st.integers(0, (1 << 128) - 1) | st.sampled_from([P("2001:db8::1").first, 1, 0xFE80 << 112])
prefixes = st.builds(Prefix, st.just(4), addresses4, lengths4) | st.builds(Prefix, st.just(6), addresses6, lengths6)


@given(prefixes, prefixes)
def test_an_objection_comes_iff_a_protected_address_would_be_covered(ban: Prefix, guarded: Prefix) -> None:
    protected = Protected([Protection(guarded, "w")], 16, 32)
    meets = any(p.prefix.overlaps(ban) for p in (*ALWAYS, Protection(guarded, "w")))
    too_wide = ban.length < (16 if ban.family == 4 else 32)
    assert (protected.objection(ban) is not None) == (meets or too_wide)
    assert (protected.reason(ban) is not None) == meets == protected.allow.overlaps(ban)
