"""The judgement, by hand: what adds up, what bans, what spares, how long, and what rests on a listing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.judge import NamePoints, Rules, ban_length, judge
from nftban.prefixes import Prefix
from nftban.records import (
    Action,
    Answer,
    Evidence,
    Helo,
    History,
    Listing,
    NameKind,
    Offence,
    ReverseDNS,
    Service,
    Spf,
    SpfResult,
    Suspect,
)

NOW = 1_764_000_000.0
ADDRESS = Prefix.parse("192.0.2.7")
RULES = Rules(
    jail="postfix",
    scope="mail",
    maxretry=6,
    findtime=600.0,
    bantime=3600.0,
    bantime_max=604800.0,
    bantime_factor=2.0,
    spare_login=3600.0,
    policy_limit=3,
    names=NamePoints(1, 1, 1, 1, 1),
    mailer_factor=3,
    smtp=True,
)
NO_NAME = ReverseDNS(has_name=False, confirmed=False)
UNCONFIRMED = ReverseDNS(names=("a.example",), has_name=True, confirmed=False)


def suspect(count: int, service: Service = Service.SMTP, *, rule: str = "1", weight: int = 1) -> Suspect:
    offences = tuple(Offence("postfix", rule, ADDRESS, NOW - 9 + i, weight, service) for i in range(count))
    return Suspect(ADDRESS, "postfix", offences)


def listed(points: int = 0, policy: int = 0, zone: str = "zen.example") -> Listing:
    return Listing(zone, Answer.LISTED, ("127.0.0.4",), points, policy, "XBL")


def evidence(*listings: Listing, reverse: ReverseDNS | None = None) -> Evidence:
    return Evidence(ADDRESS, listings, reverse or ReverseDNS())


def test_offences_alone_ban_at_maxretry_and_not_before() -> None:
    below = judge(suspect(5), None, History(), RULES, NOW)
    assert (below.action, below.score, below.duration) == (Action.WATCH, 5, None)
    assert below.rule == "5 of 6 points"
    at = judge(suspect(6), None, History(), RULES, NOW)
    assert (at.action, at.score, at.threshold, at.duration) == (Action.BAN, 6, 6, 3600.0)
    assert (at.prefix, at.jail, at.scope, at.needs_listing) == (ADDRESS, "postfix", "mail", False)
    assert at.rule == "6 points reach the 6 at which jail postfix bans"


def test_offences_are_summed_by_rule_with_their_weights() -> None:
    mixed = Suspect(ADDRESS, "postfix", suspect(2, rule="a").offences + suspect(1, rule="b", weight=3).offences)
    verdict = judge(mixed, None, History(), RULES, NOW)
    assert [(p.points, p.reason) for p in verdict.parts] == [
        (2, "2 offences in 10m: postfix, rule a"),
        (3, "1 offence in 10m: postfix, rule b"),
    ]


def test_no_listing_bans_without_an_offence() -> None:
    verdict = judge(Suspect(ADDRESS, "postfix", ()), evidence(listed(100)), History(), RULES, NOW)
    assert (verdict.action, verdict.score) == (Action.WATCH, 100)


def test_a_listing_counts_on_every_port() -> None:
    for service in Service:
        verdict = judge(suspect(2, service), evidence(listed(4)), History(), RULES, NOW)
        assert (verdict.action, verdict.score, verdict.needs_listing) == (Action.BAN, 6, True)
    assert verdict.parts[-1].reason == "listed by zen.example (127.0.0.4): XBL"


@pytest.mark.parametrize("answer", [Answer.UNKNOWN, Answer.CLEAR])
def test_what_is_not_listed_adds_nothing_whatever_points_it_carries(answer: Answer) -> None:
    told = evidence(replace(listed(50, 50), answer=answer), replace(listed(-50, zone="wl.example"), answer=answer))
    with_it = judge(suspect(5), told, History(), RULES, NOW)
    assert with_it == judge(suspect(5), None, History(), RULES, NOW)
    assert judge(suspect(6), told, History(), RULES, NOW).action is Action.BAN


def test_unknown_reverse_dns_adds_nothing() -> None:
    for reverse in (ReverseDNS(), ReverseDNS(names=("a.example",), has_name=True, confirmed=None)):
        assert judge(suspect(5), evidence(reverse=reverse), History(), RULES, NOW).score == 5
    good = ReverseDNS(names=("a.example",), has_name=True, confirmed=True)
    assert judge(suspect(5), evidence(reverse=good), History(), RULES, NOW).score == 5


def test_policy_evidence_counts_while_all_offences_came_in_on_port_25() -> None:
    told = evidence(listed(policy=2), reverse=NO_NAME)
    verdict = judge(suspect(3), told, History(), RULES, NOW)
    assert (verdict.action, verdict.score) == (Action.BAN, 6)
    assert [p.points for p in verdict.parts] == [3, 2, 1]
    assert verdict.parts[-1].reason == "no PTR record"


@pytest.mark.parametrize("service", [s for s in Service if s is not Service.SMTP])
def test_one_offence_elsewhere_silences_all_policy_evidence_and_says_so(service: Service) -> None:
    told = evidence(listed(policy=2), reverse=UNCONFIRMED)
    mixed = Suspect(ADDRESS, "postfix", suspect(4).offences + suspect(1, service).offences)
    verdict = judge(mixed, told, History(), RULES, NOW)
    assert (verdict.action, verdict.score) == (Action.WATCH, 5)
    silenced = verdict.parts[-2:]
    assert [p.points for p in silenced] == [0, 0]
    assert all("not all offences came in on port 25" in p.reason for p in silenced)


def test_a_zone_with_both_kinds_of_points_counts_each_in_its_place() -> None:
    told = evidence(listed(points=4, policy=2))
    assert judge(suspect(1), told, History(), RULES, NOW).score == 7
    assert judge(suspect(1, Service.SSH), told, History(), RULES, NOW).score == 5


def test_policy_evidence_is_capped_together_and_the_cap_is_a_part() -> None:
    told = evidence(listed(policy=2), listed(policy=2, zone="b.example"), reverse=NO_NAME)
    verdict = judge(suspect(1), told, History(), RULES, NOW)
    assert verdict.score == 1 + 3
    assert (verdict.parts[-1].points, verdict.parts[-1].reason) == (
        -2,
        "evidence about ranges and names counts at most 3",
    )
    none = judge(suspect(1), told, History(), replace(RULES, policy_limit=0), NOW)
    assert none.score == 1


def test_an_unconfirmed_name_is_named() -> None:
    verdict = judge(suspect(1), evidence(reverse=UNCONFIRMED), History(), RULES, NOW)
    assert (verdict.score, verdict.parts[-1].reason) == (2, "PTR a.example does not lead back to the address")
    off = replace(RULES, names=NamePoints(0, 0, 0, 0, 0))
    assert len(judge(suspect(1), evidence(reverse=UNCONFIRMED), History(), off, NOW).parts) == 1
    assert len(judge(suspect(1), evidence(reverse=NO_NAME), History(), off, NOW).parts) == 1


def test_an_allow_listing_takes_points_away_and_is_shown() -> None:
    feathers = listed(-4, zone="list.dnswl.example")
    verdict = judge(suspect(7), evidence(feathers), History(), RULES, NOW)
    assert (verdict.action, verdict.score) == (Action.WATCH, 3)
    assert verdict.parts[-1].points == -4
    assert judge(suspect(10), evidence(feathers), History(), RULES, NOW).action is Action.BAN


@pytest.mark.parametrize(
    ("count", "told", "needs"),
    [
        (6, evidence(), False),
        (6, evidence(listed(4)), False),
        (5, evidence(listed(4)), True),
        (2, evidence(listed(4)), True),
        (5, evidence(listed(1), listed(2, zone="b.example")), True),
        (6, evidence(listed(4), listed(-4, zone="wl.example")), True),
        (10, evidence(listed(4), listed(-4, zone="wl.example")), False),
        (9, evidence(listed(4), listed(-4, zone="wl.example")), True),
        (5, evidence(listed(policy=2)), True),
        (6, evidence(listed(policy=2)), False),
        # A cap takes back points that without the listings would not be there: it is no feather.
        (6, evidence(listed(policy=3), listed(policy=3, zone="b.example")), False),
        (6, evidence(listed(policy=9), reverse=NO_NAME), False),
        (5, evidence(listed(policy=9), reverse=NO_NAME), True),
        (6, evidence(listed(4), listed(policy=9, zone="b.example")), False),
        (6, evidence(listed(4), listed(policy=-2, zone="b.example")), True),
        (6, evidence(listed(policy=9), listed(-1, zone="wl.example")), True),
    ],
)
def test_a_ban_needs_its_listing_iff_offences_and_feathers_alone_do_not_reach(
    count: int, told: Evidence, needs: bool
) -> None:
    verdict = judge(suspect(count), told, History(), RULES, NOW)
    assert (verdict.action, verdict.needs_listing) == (Action.BAN, needs)


def test_a_recent_login_spares_whatever_the_score() -> None:
    verdict = judge(suspect(50), evidence(listed(100)), History(0, NOW - 90), RULES, NOW)
    assert (verdict.action, verdict.score, verdict.duration) == (Action.SPARE, 150, None)
    assert verdict.rule == "a successful login 1m30s ago spares this address"
    assert judge(suspect(50), None, History(0, NOW - 3599), RULES, NOW).action is Action.SPARE
    assert judge(suspect(50), None, History(0, NOW - 3600), RULES, NOW).action is Action.BAN


def test_each_repetition_lasts_longer_until_the_maximum() -> None:
    lengths = [ban_length(n, RULES) for n in range(10)]
    assert lengths[:4] == [3600.0, 7200.0, 14400.0, 28800.0]
    assert lengths[8:] == [604800.0, 604800.0]
    assert judge(suspect(6), None, History(2), RULES, NOW).duration == 14400.0


def test_the_length_stays_a_number_after_any_history() -> None:
    for factor in (1.0, 2.0, 100.0):
        wild = replace(RULES, bantime=100 * 31556952.0, bantime_max=100 * 31556952.0, bantime_factor=factor)
        assert ban_length(10**9, wild) == 100 * 31556952.0
    assert ban_length(10**9, RULES) == RULES.bantime_max
    assert ban_length(10**9, replace(RULES, bantime_factor=1.0)) == 3600.0


def test_a_maximum_below_the_bantime_shortens_no_ban() -> None:
    assert ban_length(0, replace(RULES, bantime_max=60.0)) == 3600.0
    assert ban_length(9, replace(RULES, bantime_max=60.0)) == 3600.0


def test_permanent_is_permanent_from_the_first_ban() -> None:
    for_ever = replace(RULES, bantime=None)
    assert ban_length(0, for_ever) is None
    assert ban_length(7, for_ever) is None
    verdict = judge(suspect(6), None, History(), for_ever, NOW)
    assert (verdict.action, verdict.duration) == (Action.BAN, None)


points = st.integers(-20, 20)
listings = st.builds(
    Listing,
    zone=st.sampled_from(["a.example", "b.example", "c.example"]),
    answer=st.sampled_from(Answer),
    codes=st.just(("127.0.0.2",)),
    points=points,
    policy_points=points,
)
reverses = st.sampled_from([ReverseDNS(), NO_NAME, UNCONFIRMED, replace(UNCONFIRMED, confirmed=None)])
suspects = st.lists(
    st.builds(
        Offence,
        filter=st.sampled_from(["f", "g"]),
        rule=st.sampled_from(["1", "2"]),
        prefix=st.just(ADDRESS),
        time=st.just(NOW),
        weight=st.integers(1, 5),
        service=st.sampled_from([Service.SMTP, Service.SMTP, Service.SMTP, Service.SSH]),
    ),
    max_size=8,
).map(lambda offences: Suspect(ADDRESS, "postfix", tuple(offences)))
some_evidence = st.none() | st.builds(evidence, listings, listings, listings, reverse=reverses)
some_rules = st.builds(
    replace,
    st.just(RULES),
    maxretry=st.integers(1, 12),
    policy_limit=st.integers(0, 6),
    names=st.builds(NamePoints, *[st.integers(0, 4)] * 5),
    mailer_factor=st.integers(1, 4),
    smtp=st.booleans(),
)


@given(suspects, some_evidence, some_rules, st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_parts_add_up_and_the_action_follows_from_the_sum(
    who: Suspect, told: Evidence | None, rules: Rules, logged_in: bool
) -> None:
    verdict = judge(who, told, History(0, NOW if logged_in else None), rules, NOW)
    assert sum(p.points for p in verdict.parts) == verdict.score
    reaches = verdict.score >= verdict.threshold and bool(who.offences)
    assert verdict.threshold in (rules.maxretry, rules.maxretry * rules.mailer_factor)
    expected = Action.SPARE if logged_in else Action.BAN if reaches else Action.WATCH
    assert verdict.action is expected
    assert (verdict.duration is not None) == (expected is Action.BAN)
    if told is None:
        assert verdict.score == who.weight
        assert not verdict.needs_listing


def _without_what_speaks_against(told: Evidence) -> Evidence:
    kept = (replace(e, points=min(0, e.points), policy_points=min(0, e.policy_points)) for e in told.listings)
    # Whether it lists or not, a zone that says nothing against somebody stands beside those that vouch for him.
    return Evidence(told.prefix, tuple(kept), replace(told.reverse, has_name=None, kind=None))


@given(suspects, some_evidence, some_rules)
@settings(max_examples=400, deadline=None)
def test_needs_listing_means_a_second_judgement_without_it_would_not_ban(
    who: Suspect, told: Evidence | None, rules: Rules
) -> None:
    verdict = judge(who, told, History(), rules, NOW)
    if verdict.action is Action.BAN and told is not None:
        again = judge(who, _without_what_speaks_against(told), History(), rules, NOW)
        assert verdict.needs_listing == (again.action is not Action.BAN)


@given(suspects, some_evidence, some_rules)
@settings(max_examples=200, deadline=None)
def test_policy_evidence_never_adds_more_than_its_limit(who: Suspect, told: Evidence | None, rules: Rules) -> None:
    if told is None:
        return
    without = Evidence(told.prefix, tuple(replace(e, policy_points=0) for e in told.listings), ReverseDNS())
    full, less = (judge(who, e, History(), rules, NOW).score for e in (told, without))
    assert full - less <= rules.policy_limit
    if any(o.service is not Service.SMTP for o in who.offences):
        assert full == less


@pytest.mark.parametrize("maxretry", range(1, 8))
def test_policy_evidence_never_makes_one_offence_enough(maxretry: int) -> None:
    """Whatever limit an admin sets: ranges and names alone must not ban at the first offence."""
    rules = replace(RULES, maxretry=maxretry, policy_limit=1000, names=NamePoints(500, 1, 1, 1, 1))
    verdict = judge(suspect(1), evidence(listed(policy=900), reverse=NO_NAME), History(), rules, NOW)
    assert (verdict.action is Action.BAN) == (maxretry == 1)


KNOWN = ReverseDNS(names=("mail.company.example",), has_name=True, confirmed=True, kind=NameKind.NAMED)
VOUCHED = evidence(listed(-4, zone="list.dnswl.org"), reverse=KNOWN)


def test_a_known_mailer_is_not_cut_off_by_counting_alone() -> None:
    rule = "17 of 18 points: a known mailer (list.dnswl.org) may do 3 times as much"
    patient = judge(suspect(21), VOUCHED, History(), RULES, NOW)
    assert (patient.action, patient.score, patient.threshold, patient.rule) == (Action.WATCH, 17, 18, rule)
    enough = judge(suspect(22), VOUCHED, History(), RULES, NOW)
    assert (enough.action, enough.score, enough.threshold, enough.needs_listing) == (Action.BAN, 18, 18, False)


@pytest.mark.parametrize(
    ("told", "rules"),
    [
        (evidence(listed(-4), reverse=UNCONFIRMED), RULES),  # anybody can have a PTR record that says anything
        (evidence(listed(-4), reverse=replace(KNOWN, confirmed=None)), RULES),
        (evidence(reverse=KNOWN), RULES),  # a name that leads back is not enough
        (evidence(replace(listed(-4), answer=Answer.UNKNOWN), reverse=KNOWN), RULES),
        (evidence(listed(-4), listed(4, zone="zen.example"), reverse=KNOWN), RULES),  # not the count alone
        (VOUCHED, replace(RULES, smtp=False)),  # an SSH jail cuts nobody's mail off
        (VOUCHED, replace(RULES, mailer_factor=1)),
    ],
)
def test_who_is_no_known_mailer_is_banned_at_maxretry(told: Evidence, rules: Rules) -> None:
    verdict = judge(suspect(12), told, History(), rules, NOW)
    assert (verdict.action, verdict.threshold) == (Action.BAN, 6)


def test_a_mailers_ban_that_a_listing_decided_is_lifted_with_it() -> None:
    """Without the listing it is a known mailer again, to whom another threshold applies."""
    listed_too = replace(VOUCHED, listings=(*VOUCHED.listings, listed(4, zone="zen.example")))
    assert judge(suspect(10), listed_too, History(), RULES, NOW).needs_listing
    assert judge(suspect(10), VOUCHED, History(), RULES, NOW).action is Action.WATCH


def test_names_count_on_port_25() -> None:
    generic = replace(UNCONFIRMED, kind=NameKind.GENERIC)
    told = replace(
        evidence(reverse=generic),
        helo=Helo("x.example", forward=False),
        spf=Spf(SpfResult.FAIL, "x.example", "-all of x.example"),
    )
    verdict = judge(suspect(2), told, History(), RULES, NOW)
    assert [(p.points, p.reason) for p in verdict.parts[1:]] == [
        (1, "PTR a.example does not lead back to the address"),
        (1, "PTR a.example is a name that its network gives to everybody"),
        (1, "HELO x.example does not lead to the address"),
        (1, "SPF of HELO x.example forbids the address: -all of x.example"),
        (-1, "evidence about ranges and names counts at most 3"),
    ]
    assert judge(suspect(2, Service.SUBMISSION), told, History(), RULES, NOW).score == 2


@pytest.mark.parametrize(
    ("said", "spf", "points"),
    [
        (Helo("x.example", forward=True), None, 0),
        (Helo("x.example", forward=None), None, 0),
        (Helo("x.example", forward=False), None, 1),
        (Helo("x.example", forward=False, same_organisation=False), None, 1),
        (Helo("x.example", forward=False, same_organisation=True), None, 0),
        (Helo("x.example", forward=False), SpfResult.PASS, 0),
        (Helo("x.example", forward=False), SpfResult.SOFTFAIL, 1),
        (Helo("x.example", forward=False), SpfResult.TEMPERROR, 1),
        (Helo("x.example", forward=False), SpfResult.FAIL, 2),
        (Helo("x.example", forward=True), SpfResult.FAIL, 1),
        (Helo("localhost", "no full domain name"), None, 1),
        (Helo("me.example", "our own name"), SpfResult.PASS, 1),
    ],
)
def test_helo_and_spf(said: Helo, spf: SpfResult | None, points: int) -> None:
    told = replace(evidence(), helo=said, spf=Spf(spf, said.name) if spf else None)
    assert judge(suspect(2), told, History(), RULES, NOW).score == 2 + points
