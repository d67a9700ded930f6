"""Suspect + evidence + history -> verdict.

Takes what a jail counted, what DNS said, what the store remembers, the jail's rules and `now`; gives a `Verdict`
whose parts add up to its score, so that an admin can redo it by hand.
Guarantees: no ban without an offence; UNKNOWN answers add nothing and clear nothing; evidence about dynamic ranges
and reverse DNS (policy evidence) counts only while every offence came in on port 25, at most `policy_limit` together
and never so much that one offence would be enough; a recent successful login spares whatever the score.
No I/O, no clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nftban.config.words import in_words
from nftban.records import Action, Answer, Evidence, History, Listing, Part, Service, Suspect, Verdict


@dataclass(frozen=True, slots=True)
class Rules:
    """One jail's settings as the judgement needs them (durations in seconds, bantime None: permanent)."""

    jail: str
    scope: str
    maxretry: int
    findtime: float
    bantime: float | None
    bantime_max: float
    bantime_factor: float
    spare_login: float
    policy_limit: int
    no_name_points: int
    unconfirmed_points: int


def judge(suspect: Suspect, evidence: Evidence | None, history: History, rules: Rules, now: float) -> Verdict:
    """The verdict on a suspect; evidence None where DNS was not asked."""
    offences = _offence_parts(suspect, rules)
    proof, cap = _evidence_parts(suspect, evidence, rules)
    parts = (*offences, *proof, *cap)
    score = sum(p.points for p in parts)
    if history.login is not None and now - history.login < rules.spare_login:
        ago = in_words(now - history.login)
        return _verdict(Action.SPARE, suspect, rules, score, parts, f"a successful login {ago} ago spares this address")
    if score < rules.maxretry or not suspect.offences:
        return _verdict(Action.WATCH, suspect, rules, score, parts, f"{score} of {rules.maxretry} points")
    # Feathers in the other scale (an allow list's negative points) stay: only what speaks against it is taken away,
    # and with it the cap.
    without = sum(p.points for p in offences) + sum(p.points for p in proof if p.points < 0)
    return Verdict(
        Action.BAN,
        suspect.prefix,
        suspect.jail,
        rules.scope,
        score,
        rules.maxretry,
        parts,
        f"{score} points reach the {rules.maxretry} at which jail {suspect.jail} bans",
        ban_length(history.bans, rules),
        without < rules.maxretry,
    )


def ban_length(earlier: int, rules: Rules) -> float | None:
    """Seconds of the next ban after so many earlier ones; None: permanent."""
    if rules.bantime is None:
        return None
    # 2 ** 64 times anything is over every maximum; the exponent is kept where floats can follow.
    return max(rules.bantime, min(rules.bantime * rules.bantime_factor ** min(earlier, 64), rules.bantime_max))


def _verdict(action: Action, suspect: Suspect, rules: Rules, score: int, parts: tuple[Part, ...], rule: str) -> Verdict:
    return Verdict(action, suspect.prefix, suspect.jail, rules.scope, score, rules.maxretry, parts, rule)


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
    reverse = evidence.reverse
    if reverse.has_name is False and rules.no_name_points:
        policy.append(Part(rules.no_name_points, "no PTR record"))
    elif reverse.has_name and reverse.confirmed is False and rules.unconfirmed_points:
        policy.append(Part(rules.unconfirmed_points, f"PTR {reverse.names[0]} does not lead back to the address"))
    if not policy:
        return listed, ()
    if any(o.service is not Service.SMTP for o in suspect.offences):
        words = "(not counted: not all offences came in on port 25)"
        return (*listed, *(Part(0, f"{p.reason} {words}") for p in policy)), ()
    limit = min(rules.policy_limit, max(rules.maxretry - 2, 0))
    over = sum(p.points for p in policy) - limit
    cap = Part(-over, f"evidence about ranges and names counts at most {limit}")
    return (*listed, *policy), (cap,) if over > 0 else ()


def _listing_words(listing: Listing) -> str:
    where = f"{listing.zone} ({', '.join(listing.codes)})"
    return f"listed by {where}" + (f": {listing.reason}" if listing.reason else "")
