"""Suspect + evidence + history -> verdict.

Takes what a jail counted, what DNS said, what the store remembers, the jail's rules and `now`; gives a `Verdict`
whose parts add up to its score, so that an admin can redo it by hand.
Guarantees: no ban without an offence; UNKNOWN answers add nothing and clear nothing; evidence about dynamic ranges
and names (policy evidence: PBL, reverse DNS, HELO, SPF) counts only while every offence came in on port 25, at most
`policy_limit` together and never so much that one offence would be enough; a recent successful login spares whatever
the score; a known mailer (on an allow list, its name leads back, on no other list) is not cut off from port 25 before
`mailer_factor` times the threshold.
No I/O, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nftban.config.words import in_words
from nftban.records import (
    Action,
    Answer,
    Evidence,
    History,
    Listing,
    NameKind,
    Part,
    Service,
    SpfResult,
    Suspect,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class NamePoints:
    """What a client's names count on port 25: no PTR, a PTR that does not lead back, one that its network gives to
    everybody, a HELO that cannot be true or leads elsewhere, a HELO whose SPF forbids the address."""

    no_name: int
    unconfirmed: int
    generic: int
    helo: int
    spf: int


@dataclass(frozen=True, slots=True)
class Rules:
    """One jail's settings as the judgement needs them (durations in seconds, bantime None: permanent).

    smtp: a ban of this jail cuts off port 25.
    """

    jail: str
    scope: str
    maxretry: int
    findtime: float
    bantime: float | None
    bantime_max: float
    bantime_factor: float
    spare_login: float
    policy_limit: int
    names: NamePoints
    mailer_factor: int
    smtp: bool


def judge(suspect: Suspect, evidence: Evidence | None, history: History, rules: Rules, now: float) -> Verdict:
    """The verdict on a suspect; evidence None where DNS was not asked."""
    offences = _offence_parts(suspect, rules)
    proof, cap = _evidence_parts(suspect, evidence, rules)
    parts = (*offences, *proof, *cap)
    score = sum(p.points for p in parts)
    voucher = _voucher(evidence) if rules.smtp and rules.mailer_factor > 1 else ""
    patient = rules.maxretry * (rules.mailer_factor if voucher else 1)
    mailer = voucher if evidence and not any(_is_against(e) for e in evidence.listings) else ""
    threshold = patient if mailer else rules.maxretry

    def verdict(action: Action, rule: str) -> Verdict:
        return Verdict(action, suspect.prefix, suspect.jail, rules.scope, score, threshold, parts, rule)

    if history.login is not None and now - history.login < rules.spare_login:
        ago = in_words(now - history.login)
        return verdict(Action.SPARE, f"a successful login {ago} ago spares this address")
    if score < threshold or not suspect.offences:
        why = f": a known mailer ({mailer}) may do {rules.mailer_factor} times as much" if mailer else ""
        return verdict(Action.WATCH, f"{score} of {threshold} points{why}")
    # Feathers in the other scale (an allow list's negative points) stay: only what speaks against it is taken away,
    # and with it the cap.
    without = sum(p.points for p in offences) + sum(p.points for p in proof if p.points < 0)
    return replace(
        verdict(Action.BAN, f"{score} points reach the {threshold} at which jail {suspect.jail} bans"),
        duration=ban_length(history.bans, rules),
        needs_listing=without < patient,
    )


def ban_length(earlier: int, rules: Rules) -> float | None:
    """Seconds of the next ban after so many earlier ones; None: permanent."""
    if rules.bantime is None:
        return None
    # 2 ** 64 times anything is over every maximum; the exponent is kept where floats can follow.
    return max(rules.bantime, min(rules.bantime * rules.bantime_factor ** min(earlier, 64), rules.bantime_max))


def _voucher(evidence: Evidence | None) -> str:
    """The allow list that knows the address as a mailer whose name leads back to it; empty where none does."""
    if evidence is None or not evidence.reverse.confirmed:
        return ""
    return next((e.zone for e in evidence.listings if e.answer is Answer.LISTED and e.points < 0), "")


def _is_against(listing: Listing) -> bool:
    return listing.answer is Answer.LISTED and listing.points > 0


def _offence_parts(suspect: Suspect, rules: Rules) -> tuple[Part, ...]:
    weights: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for o in suspect.offences:
        weights[o.filter, o.rule] += o.weight
        counts[o.filter, o.rule] += 1
    window = in_words(rules.findtime)
    return tuple(
        Part(weights[key], f"{n} offence{'s' if n != 1 else ''} in {window}: {key[0]}, rule {key[1]}")
        for key, n in counts.items()
    )


def _evidence_parts(
    suspect: Suspect, evidence: Evidence | None, rules: Rules
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """What DNS adds, and what of it the limit on policy evidence takes back (no part or one)."""
    if evidence is None:
        return (), ()
    listed = tuple(
        Part(e.points, _listing_words(e)) for e in evidence.listings if e.answer is Answer.LISTED and e.points
    )
    policy = [
        Part(e.policy_points, _listing_words(e))
        for e in evidence.listings
        if e.answer is Answer.LISTED and e.policy_points
    ]
    policy += [p for p in name_parts(evidence, rules.names) if p.points]
    if not policy:
        return listed, ()
    if any(o.service is not Service.SMTP for o in suspect.offences):
        words = "(not counted: not all offences came in on port 25)"
        return (*listed, *(Part(0, f"{p.reason} {words}") for p in policy)), ()
    limit = min(rules.policy_limit, max(rules.maxretry - 2, 0))
    over = sum(p.points for p in policy) - limit
    cap = Part(-over, f"evidence about ranges and names counts at most {limit}")
    return (*listed, *policy), (cap,) if over > 0 else ()


def name_parts(evidence: Evidence, points: NamePoints) -> Iterator[Part]:
    """What speaks against the client's names (reverse DNS, HELO, SPF), before any limit; a part may have 0 points."""
    reverse, helo, spf = evidence.reverse, evidence.helo, evidence.spf
    if reverse.has_name is False:
        yield Part(points.no_name, "no PTR record")
    elif reverse.has_name and reverse.confirmed is False:
        yield Part(points.unconfirmed, f"PTR {reverse.names[0]} does not lead back to the address")
    if reverse.kind is NameKind.GENERIC:
        yield Part(points.generic, f"PTR {reverse.names[0]} is a name that its network gives to everybody")
    # Whose name it is said that this address may use it.
    allowed = spf is not None and spf.result is SpfResult.PASS
    if helo is not None and helo.fault:
        yield Part(points.helo, f"HELO {helo.name} is {helo.fault}")
    elif helo is not None and helo.forward is False and not helo.same_organisation and not allowed:
        yield Part(points.helo, f"HELO {helo.name} does not lead to the address")
    if spf is not None and spf.result is SpfResult.FAIL:
        yield Part(points.spf, f"SPF of HELO {spf.domain} forbids the address: {spf.reason}")


def _listing_words(listing: Listing) -> str:
    where = listing.zone + (f" ({', '.join(listing.codes)})" if listing.codes else "")
    return f"listed by {where}" + (f": {listing.reason}" if listing.reason else "")
