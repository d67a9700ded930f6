"""SPF: may this address send mail in the name of this domain?  check_host() of RFC 7208.

`check_host` takes an address, a domain, a sender and the HELO name and is a generator: it gives the next `Question`,
is sent its Outcome, and returns a `Finding`; `spf_helo` runs it through a Resolver for the identity postmaster@HELO.
Guarantees: at most 10 terms that ask DNS, at most 2 of them answered with nothing (RFC 7208 4.6.4), at most 10 names
of an MX or PTR answer are followed; so at most 122 questions whatever others publish.  A DNS failure is temperror,
never fail.  Does not: judge, fetch explanations, read clocks.
Passes the official test suite of RFC 7208 (tests/unit/verify/test_spf.py).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from nftban.prefixes import Prefix
from nftban.records import Spf, SpfResult
from nftban.verify.outcomes import Failed, Outcome, Records, RecordType
from nftban.verify.resolver import Resolver
from nftban.verify.reverse import reverse_name
from nftban.verify.spfpolicy import BadPolicy, Mechanism, expanded, is_domain, parse_policy, policy_text, uses_macro

MOST_TERMS = 10
MOST_VOID = 2
MOST_NAMES = 10

_QUALIFIERS = {"+": SpfResult.PASS, "-": SpfResult.FAIL, "~": SpfResult.SOFTFAIL, "?": SpfResult.NEUTRAL}


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    type: RecordType


@dataclass(frozen=True, slots=True)
class Finding:
    """The result, and the term or the fault that led to it."""

    result: SpfResult
    why: str


class _NoAnswer(Exception):
    """DNS failed: SPF's temperror."""


_Asking = Generator[Question, Outcome, Finding]
_Matching = Generator[Question, Outcome, bool]


def check_host(address: Prefix, domain: str, sender: str, helo: str) -> _Asking:
    """address: a single one; sender: LOCAL@DOMAIN, the local part may be missing."""
    return _Check(address, sender, helo).host(domain)


async def spf_helo(helo: str, address: Prefix, resolver: Resolver, now: float) -> Spf:
    """What the HELO name's owner says of the address; now: epoch seconds."""
    check = check_host(address, helo, f"postmaster@{helo}", helo)
    ttl = 3600
    try:
        question = next(check)
        while True:
            outcome = await resolver.lookup(question.name, question.type, minor=True)
            ttl = min(ttl, outcome.ttl)
            question = check.send(outcome)
    except StopIteration as end:
        finding: Finding = end.value
    return Spf(finding.result, helo, finding.why, now, ttl)


class _Check:
    """One run of check_host with its limits, which includes and redirects share."""

    def __init__(self, address: Prefix, sender: str, helo: str) -> None:
        self._address, self._helo = address, helo
        local, _, self._sender_domain = sender.rpartition("@")
        self._local = local or "postmaster"
        self._terms = self._void = 0
        self._names: list[str] | None = None

    def host(self, domain: str) -> _Asking:
        """check_host(): the limits are those of the whole run."""
        domain = domain.removesuffix(".")
        if not is_domain(domain):
            return Finding(SpfResult.NONE, f"{domain!r} is no full domain name")
        outcome = yield Question(domain, "TXT")
        if isinstance(outcome, Failed):
            return Finding(SpfResult.TEMPERROR, outcome.reason)
        try:
            text = policy_text(outcome.values if isinstance(outcome, Records) else ())
            if text is None:
                return Finding(SpfResult.NONE, f"{domain} has no SPF policy")
            policy = parse_policy(text)
            for mechanism in policy.mechanisms:
                if (yield from self._matches(mechanism, domain)):
                    return Finding(_QUALIFIERS[mechanism.qualifier], f"{mechanism.text} of {domain}")
            if policy.redirect:
                return (yield from self._redirected(policy.redirect, domain))
        except BadPolicy as e:
            return Finding(SpfResult.PERMERROR, f"{domain}: {e}")
        except _NoAnswer as e:
            return Finding(SpfResult.TEMPERROR, str(e))
        return Finding(SpfResult.NEUTRAL, f"no term of {domain} fits")

    def _redirected(self, spec: str, domain: str) -> _Asking:
        self._count_term()
        target = yield from self._expanded(spec, domain)
        finding = yield from self.host(target)
        if finding.result is SpfResult.NONE:
            raise BadPolicy(f"redirect to {target}, which has no policy")
        return finding

    def _matches(self, mechanism: Mechanism, domain: str) -> _Matching:
        if mechanism.name == "all":
            return True
        if mechanism.network is not None:
            return mechanism.network.contains(self._address)
        self._count_term()
        target = domain
        if mechanism.target:
            target = yield from self._expanded(mechanism.target, domain)
        match mechanism.name:
            case "include":
                return (yield from self._included(target))
            case "exists":
                return is_domain(target) and bool((yield from self._values(target, "A")))
            case "ptr":
                names = yield from self._validated_names()
                wanted = target.lower()
                return any(name == wanted or name.endswith(f".{wanted}") for name in names)
            case "mx":
                return (yield from self._mx(target, mechanism))
        return (yield from self._a(target, mechanism))

    def _included(self, target: str) -> _Matching:
        finding = yield from self.host(target)
        if finding.result is SpfResult.TEMPERROR:
            raise _NoAnswer(finding.why)
        if finding.result in (SpfResult.PERMERROR, SpfResult.NONE):
            raise BadPolicy(f"include: {finding.why}")
        return finding.result is SpfResult.PASS

    def _a(self, target: str, mechanism: Mechanism) -> _Matching:
        if not is_domain(target):
            return False
        addresses = yield from self._values(target, self._address_type)
        length = mechanism.lengths[0 if self._address.family == 4 else 1]
        return any(Prefix.parse(a).widened(length).contains(self._address) for a in addresses)

    def _mx(self, target: str, mechanism: Mechanism) -> _Matching:
        if not is_domain(target):
            return False
        names = [value.split()[-1] for value in (yield from self._values(target, "MX"))]
        if len(names) > MOST_NAMES:
            raise BadPolicy(f"{target} has more than {MOST_NAMES} MX records")
        for name in names:
            if (yield from self._a(name.removesuffix("."), mechanism)):
                return True
        return False

    def _validated_names(self) -> Generator[Question, Outcome, list[str]]:
        """Names of the address that lead back to it, small letters; none where DNS fails (RFC 7208 5.5)."""
        if self._names is None:
            self._names = yield from self._names_that_lead_back()
        return self._names

    def _names_that_lead_back(self) -> Generator[Question, Outcome, list[str]]:
        outcome = yield Question(reverse_name(self._address), "PTR")
        if not isinstance(outcome, Records):
            if not isinstance(outcome, Failed):
                self._count_void()
            return []
        validated = []
        for name in outcome.values[:MOST_NAMES]:
            if not is_domain(name):
                continue
            forward = yield Question(name, self._address_type)
            if isinstance(forward, Records) and any(Prefix.parse(a) == self._address for a in forward.values):
                validated.append(name.lower())
        return validated

    def _values(self, name: str, rdtype: RecordType) -> Generator[Question, Outcome, tuple[str, ...]]:
        outcome = yield Question(name, rdtype)
        if isinstance(outcome, Failed):
            raise _NoAnswer(outcome.reason)
        if isinstance(outcome, Records):
            return outcome.values
        self._count_void()
        return ()

    def _expanded(self, spec: str, domain: str) -> Generator[Question, Outcome, str]:
        if "%" not in spec:
            return spec.removesuffix(".")
        packed = self._address.packed
        values = {
            "s": f"{self._local}@{self._sender_domain}",
            "l": self._local,
            "o": self._sender_domain,
            "d": domain,
            "i": ".".join(map(str, packed)) if self._address.family == 4 else ".".join(packed.hex()),
            "p": "unknown",
            "v": "in-addr" if self._address.family == 4 else "ip6",
            "h": self._helo,
        }
        if uses_macro(spec, "p"):
            names = yield from self._validated_names()
            # RFC 7208 7.3: the domain itself before its subdomains before others.
            own = [n for n in names if n == domain.lower()]
            below = [n for n in names if n.endswith(f".{domain.lower()}")]
            values["p"] = (own or below or names or ["unknown"])[0]
        return expanded(spec, values)

    @property
    def _address_type(self) -> RecordType:
        return "A" if self._address.family == 4 else "AAAA"

    def _count_term(self) -> None:
        self._terms += 1
        if self._terms > MOST_TERMS:
            raise BadPolicy(f"more than {MOST_TERMS} terms ask DNS")

    def _count_void(self) -> None:
        self._void += 1
        if self._void > MOST_VOID:
            raise BadPolicy(f"more than {MOST_VOID} questions came to nothing")
