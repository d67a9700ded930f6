"""What is known of addresses for the moment: DNS's answers, and what the mail server's own log told.

Takes Evidence as it comes and what lines tell (DNSBL codes, HELO names, confirmed PTR names); gives the evidence that
may be held against a suspect now, what need not be asked any more, and whether it is time to ask again.
Guarantees: an answer is held for EVIDENCE_AGE seconds at most; that somebody is *not* listed no longer than the zone
itself said (its TTL), while the count alone does not decide; where an answer is missing it is asked for again after
UNKNOWN_AGE.  Memory is bounded.  Does not: ask, judge, read clocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from nftban.prefixes import Prefix
from nftban.records import Answer, Evidence, Listing, Service, Suspect
from nftban.verify.health import Transition, voided
from nftban.verify.verify import Told, Verifier

K = TypeVar("K")
V = TypeVar("V")

MAX_REMEMBERED = 10_000
"""Addresses whose evidence and logged listings are remembered."""

EVIDENCE_AGE = 300.0
UNKNOWN_AGE = 30.0
"""Seconds for which what DNS said about an address holds, and it is not asked about again; fewer where an answer was
missing."""

_MAIL = (Service.SMTP, Service.SUBMISSION)


class Known:
    """verifier: None where nobody is asked; lists: the feeds that hold an address, which cost no question."""

    def __init__(
        self, verifier: Verifier | None, lists: Callable[[Prefix, float], tuple[Listing, ...]] | None = None
    ) -> None:
        self._verifier = verifier
        self._lists = lists
        self._evidence: OrderedDict[Prefix, Evidence] = OrderedDict()
        self._logged: OrderedDict[Prefix, dict[tuple[str, str], float]] = OrderedDict()

    def note(self, address: Prefix, evidence: Evidence) -> None:
        remember(self._evidence, address, evidence)

    def note_logged(
        self, prefix: Prefix, listed: Iterable[tuple[str, str]], now: float, *, recalled: bool = False
    ) -> None:
        """The server's log has these (zone, code) pairs of the address.  recalled: an offence has them with it, which
        may come from a line of the hour before; that makes known ones no younger."""
        codes = dict(self._logged.get(prefix, {}))
        for pair in listed:
            codes[pair] = codes.get(pair, now) if recalled else now
        remember(self._logged, prefix, codes)

    def void(self, change: Transition) -> None:
        """A zone changed its state: what it said while it could not be believed is void."""
        for prefix, evidence in list(self._evidence.items()):
            self._evidence[prefix] = voided(evidence, change)

    def told(self, suspect: Suspect, now: float) -> Told:
        """What the log says of the suspect's last address."""
        address = suspect.offences[-1].prefix
        facts = {
            name: text
            for offence in suspect.offences
            if offence.prefix == address and offence.service in _MAIL
            for name, text in offence.facts
            if name != "helo" or offence.service is Service.SMTP
        }
        return Told(facts.get("helo", ""), facts.get("ptr", ""), tuple(self._fresh(address, now)))

    def is_due(self, suspect: Suspect, maxretry: int, now: float) -> bool:
        """Is the suspect's last address to be asked about?"""
        evidence = self._evidence.get(suspect.offences[-1].prefix)
        if evidence is None:
            return True
        age = now - _asked(evidence)
        certain = evidence.complete and all(e.answer is not Answer.UNKNOWN for e in evidence.listings)
        if age > (EVIDENCE_AGE if certain else UNKNOWN_AGE):
            return True
        if suspect.weight >= maxretry:
            return False
        cleared = [e.ttl for e in evidence.listings if e.answer is Answer.CLEAR]
        return age > min(cleared, default=EVIDENCE_AGE) or (
            evidence.helo is None and bool(self.told(suspect, now).helo)
        )

    def about(self, suspect: Suspect, now: float, dns: bool = True) -> Evidence | None:
        """What was asked, with what the server's own log said where the zone was not asked, and the feeds' word.

        dns: False for a jail that wants no DNSBLs and names; feeds are what it gets all the same.
        """
        evidence = self._told_by_dns(suspect, now) if dns else None
        address = evidence.prefix if evidence else suspect.offences[-1].prefix
        if self._lists is None or not (listed := self._lists(address, now)):
            return evidence
        base = evidence or Evidence(address)
        return replace(base, listings=(*base.listings, *listed))

    def _told_by_dns(self, suspect: Suspect, now: float) -> Evidence | None:
        # Of a network several addresses offend, and not each has been asked about: the last that was speaks for all.
        addresses = dict.fromkeys(o.prefix for o in reversed(suspect.offences))
        address = next((a for a in addresses if self._answered(a, now)), suspect.offences[-1].prefix)
        evidence = self._answered(address, now)
        logged = self._logged_listings(address, now)
        if not logged:
            return evidence
        base = evidence or Evidence(address)
        answered = {e.zone for e in base.listings if e.answer is not Answer.UNKNOWN}
        added = tuple(e for e in logged if e.zone not in answered)
        kept = tuple(e for e in base.listings if e.zone not in {a.zone for a in added})
        return replace(base, listings=(*kept, *added))

    def _answered(self, address: Prefix, now: float) -> Evidence | None:
        """What DNS said about the address, while that may still be held against it."""
        evidence = self._evidence.get(address)
        return evidence if evidence is not None and now - _asked(evidence) <= EVIDENCE_AGE else None

    def _fresh(self, prefix: Prefix, now: float) -> list[tuple[str, str]]:
        return [pair for pair, at in self._logged.get(prefix, {}).items() if now - at <= EVIDENCE_AGE]

    def _logged_listings(self, address: Prefix, now: float) -> tuple[Listing, ...]:
        return self._verifier.logged(self._fresh(address, now), now) if self._verifier is not None else ()


def remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    """Puts it in as the newest; the oldest leaves a full memory."""
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


def _asked(evidence: Evidence) -> float:
    return max([evidence.reverse.asked, *(e.asked for e in evidence.listings)])
