"""The records a datum becomes on its way from a log to the kernel.

    LogLine --detect--> Offence --windows--> Suspect --verify--> Evidence --judge--> Verdict --store--> Ban
    Ban, allow list --plan--> Delta --> kernel sets

All are frozen; each stage has its own type and no stage hands anything back.  Times are seconds since the epoch
(UTC, float), durations seconds; text from outside (logs, DNS) is held as it came, with undecodable bytes
written as \\xNN, and must be treated as hostile wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

from nftban.prefixes import Prefix


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where reading goes on: inode of the file, offset in bytes behind the last line taken, and a fingerprint
    (hex) of the file's beginning that tells a reused inode from the same file."""

    inode: int
    offset: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as a source read it.

    source: path of the log; text: without its newline; cursor: where reading goes on behind it;
    truncated: bytes cut off because the line was over the source's limit.
    """

    source: str
    text: str
    cursor: Cursor | None = None
    truncated: int = 0


class Service(StrEnum):
    """Through which door the client came, as far as the line says.  Evidence about dynamic ranges and reverse
    DNS counts for SMTP (port 25) only, never where customers log in."""

    SMTP = "smtp"
    SUBMISSION = "submission"
    IMAP = "imap"
    SSH = "ssh"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Offence:
    """One countable misdeed.

    filter, rule: which expression matched (rule is its number in the filter, from 1, and some of its words);
    prefix: the offender, a single address; time: from the log line, or when it was read; weight: points, >= 1;
    facts: what else the line gave, by fail2ban's tag names in small letters ("user", "helo", "ptr", "reason", ...);
    listed: zones that the server itself logged for this client: (zone, code) pairs;
    line, source: the evidence itself.
    """

    filter: str
    rule: str
    prefix: Prefix
    time: float
    weight: int = 1
    service: Service = Service.OTHER
    facts: tuple[tuple[str, str], ...] = ()
    listed: tuple[tuple[str, str], ...] = ()
    line: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    """A successful authentication: it spares its address for a while."""

    prefix: Prefix
    time: float
    user: str = ""
    line: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Suspect:
    """What a jail holds against one prefix: the offences inside its window, oldest first."""

    prefix: Prefix
    jail: str
    offences: tuple[Offence, ...]

    @property
    def weight(self) -> int:
        return sum(o.weight for o in self.offences)

    @property
    def first(self) -> float:
        return self.offences[0].time

    @property
    def last(self) -> float:
        return self.offences[-1].time


class Answer(StrEnum):
    """A DNSBL's answer.  UNKNOWN (error, timeout, code without a meaning) neither scores nor clears."""

    LISTED = "listed"
    CLEAR = "clear"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Listing:
    """One zone's answer about one address.

    zone: its public name, never with an account key; codes: the A records that have a meaning, ascending;
    points: what they count on every port; policy_points: what they count on port 25 only (dynamic ranges);
    reason: in words; asked: when; ttl: seconds the answer may be used; logged: taken from the server's own log.
    """

    zone: str
    answer: Answer
    codes: tuple[str, ...] = ()
    points: int = 0
    policy_points: int = 0
    reason: str = ""
    asked: float = 0.0
    ttl: int = 0
    logged: bool = False


class NameKind(StrEnum):
    """What an address's name looks like.  GENERIC: given by the network to everybody in it, as a home connection's
    is; CLOUD: a rented machine's as its provider made it; NAMED: somebody chose it."""

    NAMED = "named"
    GENERIC = "generic"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class ReverseDNS:
    """PTR and forward confirmation.  has_name, confirmed: True, False or None where DNS gave no clear answer;
    kind: of its names, None where it has none; logged: found out by the mail server itself, not asked."""

    names: tuple[str, ...] = ()
    has_name: bool | None = None
    confirmed: bool | None = None
    reason: str = ""
    asked: float = 0.0
    ttl: int = 0
    kind: NameKind | None = None
    logged: bool = False


@dataclass(frozen=True, slots=True)
class Helo:
    """The name a client gave itself.

    fault: why no honest client says it ("no full domain name", "our own name", ...), else empty; forward: does it
    lead to the client's address, same_organisation: is it in the same registered domain as the client's confirmed
    PTR name; both None where that cannot be said.
    """

    name: str
    fault: str = ""
    forward: bool | None = None
    same_organisation: bool | None = None
    reason: str = ""
    asked: float = 0.0
    ttl: int = 0


class SpfResult(StrEnum):
    """RFC 7208 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class Spf:
    """What the owner of `domain` (the HELO name) says of the client's address."""

    result: SpfResult
    domain: str
    reason: str = ""
    asked: float = 0.0
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything DNS said about one address; `complete` is False where the deadline cut the asking short.
    helo, spf: None where no HELO name was known."""

    prefix: Prefix
    listings: tuple[Listing, ...] = ()
    reverse: ReverseDNS = ReverseDNS()
    complete: bool = True
    helo: Helo | None = None
    spf: Spf | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What the store knows of a prefix before this verdict.

    bans: earlier bans of it that count for escalation; login: time of the last successful login, or None.
    """

    bans: int = 0
    login: float | None = None


class Action(StrEnum):
    BAN = "ban"
    WATCH = "watch"
    SPARE = "spare"


@dataclass(frozen=True, slots=True)
class Part:
    """One summand of a score: points and the reason in words."""

    points: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on a suspect: score = sum of the parts' points, ban when score >= threshold.

    rule: the sentence that decided; duration: seconds, None where nothing is banned; needs_listing: without
    what DNS said the score would not have reached the threshold, so a delisting may lift the ban.
    """

    action: Action
    prefix: Prefix
    jail: str
    scope: str
    score: int
    threshold: int
    parts: tuple[Part, ...]
    rule: str
    duration: float | None = None
    needs_listing: bool = False


class Origin(StrEnum):
    LOG = "log"
    MANUAL = "manual"
    FEED = "feed"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Ban:
    """An intent: this prefix, in this scope, from `since` until the absolute `until` (None: permanent)."""

    prefix: Prefix
    scope: str
    since: float
    until: float | None
    origin: Origin
    jail: str = ""
    reason: str = ""
    verdict: Verdict | None = None
    evidence: Evidence | None = None
    offences: tuple[Offence, ...] = ()

    def holds(self, now: float) -> bool:
        return self.until is None or self.until > now


@dataclass(frozen=True, slots=True, order=True)
class Element:
    """One element of a kernel set: addresses first..last (both included; equal in hash sets) of the set named.

    In a set keyed by a fixed prefix length, first and last are the network address.
    until: epoch seconds, None where the element never times out.
    """

    set: str
    first: int
    last: int
    until: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Delta:
    """The difference between desired and present elements.

    refresh: they are there with a wrong expiry; fill: whole hash sets' worth to add, where nothing is there yet.
    """

    add: tuple[Element, ...] = ()
    delete: tuple[Element, ...] = ()
    refresh: tuple[Element, ...] = ()
    fill: tuple[Sequence[Element], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.delete or self.refresh or self.fill)

    def __len__(self) -> int:
        return self.missing + len(self.delete) + len(self.refresh)

    @property
    def missing(self) -> int:
        """How many are to be added."""
        return len(self.add) + sum(map(len, self.fill))

    def added(self) -> Iterator[Element]:
        """Each that is to be added."""
        return chain(self.add, *self.fill)


@dataclass(frozen=True, slots=True)
class Refused:
    """An element the kernel did not take: which, its errno, and in words."""

    element: Element
    errno: int
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something an admin should be able to see later: time, kind ("ban", "zone-blocked", ...), text, and the
    prefix it is about if any."""

    time: float
    kind: str
    text: str
    prefix: Prefix | None = None
