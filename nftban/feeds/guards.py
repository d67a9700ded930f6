"""What keeps a poisoned list out of the kernel.

Takes a parsed list, the feed's limits, what is known of its last good copy, canaries and bogons; gives the cleaned
ranges, or a Refusal that says which guard spoke and why.
Guarantees: each guard is a function of its own; any of them refuses the whole list, whose last good copy then stays.
Bogons (addresses that nobody has on the internet) never refuse: some lists hold them by design, so they are taken out,
splitting ranges, before width and space are measured.
Does not: subtract this machine's own and allowed addresses, which change while the list does not (daemon/feeds.py).
Source of the bogons: IANA's special-purpose address registries (RFC 6890), RFC 4291 for what is not 2000::/3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nftban.feeds.formats.parsed import WIDE, Parsed
from nftban.prefixes import BITS, Prefix, PrefixSet, range_prefixes
from nftban.ranges import Ranges

DAY = 86400.0
# Bad lines up to this number are reported and left out, whatever their share.
FEW_BAD = 2

BOGONS = PrefixSet(
    Prefix.parse(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/3", "::/3", "4000::/2", "8000::/1", "2001:db8::/32", "3fff::/20"),
    )
)

CANARIES = tuple(
    Prefix.parse(text)
    for text in (
        *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
        *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
        *("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
        *("208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"),
        *("198.41.0.4", "199.9.14.201", "192.33.4.12", "2001:503:ba3e::2:30"),
    )
)
"""Resolvers and root name servers: a list that holds one of them is wrong."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is believed of a feed.

    widest4, widest6: the shortest prefix lengths of an entry; share: of all IPv4 addresses, and of 2000::/3, that it
    may cover; fewest, most: entries; shrink, grow: how many times those of the last good copy, where either has more
    than `floor`; bad: the share of lines that may be no entries.
    """

    widest4: int = 16
    widest6: int = 32
    share: float = 0.005
    fewest: int = 1
    most: int = 5_000_000
    shrink: float = 0.5
    grow: float = 2.0
    floor: int = 100
    bad: float = 0.05

    def __post_init__(self) -> None:
        if self.widest4 > WIDE[4] or self.widest6 > WIDE[6]:
            raise ValueError(f"the widest prefix may be set up to /{WIDE[4]} and /{WIDE[6]}")


@dataclass(frozen=True, slots=True)
class Known:
    """What the last good copy was: its entries, and whether it ended with a newline."""

    count: int
    newline: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """guard: the name of the function below that refused; why: in words."""

    guard: str
    why: str

    def __str__(self) -> str:
        return f"{self.why} ({self.guard})"


def examined(
    parsed: Parsed, limits: Limits, known: Known | None, canaries: Iterable[Prefix], bogons: Ranges, now: float
) -> Ranges | Refusal:
    """The list without bogons, or why it is refused.  known: None where there is no good copy, or where the admin has
    said that this one may differ."""
    cleaned = parsed.ranges.minus(bogons)
    for guard, why in (
        ("markup", markup(parsed)),
        ("bad lines", bad_lines(parsed, limits)),
        ("truncated", truncated(parsed, known)),
        ("records", records(parsed)),
        ("expired", expired(parsed, now)),
        ("count", count(parsed, limits)),
        ("change", change(parsed, limits, known)),
        ("canaries", canary(parsed.ranges, canaries)),
        ("width", width(parsed, limits, bogons)),
        ("space", space(cleaned, limits)),
    ):
        if why:
            return Refusal(guard, why)
    return cleaned


def markup(parsed: Parsed) -> str | None:
    return "it begins with <: a web page, no list" if parsed.markup else None


def bad_lines(parsed: Parsed, limits: Limits) -> str | None:
    """Too many lines that are no entries: another format, or garbage."""
    every = parsed.count + parsed.bad_count
    if parsed.bad_count > FEW_BAD and parsed.bad_count > limits.bad * every:
        first = parsed.bad[0]
        return f"{parsed.bad_count} of {every} lines are no entries; line {first.position}: {first.why}"
    return None


def truncated(parsed: Parsed, known: Known | None) -> str | None:
    """Cut off: in the middle of its last line, or before the newline that it used to end with."""
    if parsed.cut:
        return f"its last line is cut off: {max(parsed.bad, key=lambda b: b.position).why}"
    if known and known.newline and not parsed.newline:
        return "it ends without the newline that the last good copy ended with"
    return None


def records(parsed: Parsed) -> str | None:
    """Its own metadata give another number of entries."""
    if parsed.says is not None and parsed.says != parsed.count:
        return f"its metadata say {parsed.says} records, it has {parsed.count}"
    return None


def expired(parsed: Parsed, now: float) -> str | None:
    if parsed.expires is not None and parsed.expires < now:
        return f"it has expired {(now - parsed.expires) / 3600:.1f} hours ago by its own word"
    if parsed.made is not None and parsed.made > now + DAY:
        return "it was made in the future by its own word"
    return None


def count(parsed: Parsed, limits: Limits) -> str | None:
    if parsed.count < limits.fewest:
        return f"it has {parsed.count} entries; at least {limits.fewest} are expected"
    if parsed.count > limits.most:
        return f"it has {parsed.count} entries; at most {limits.most} are expected"
    return None


def change(parsed: Parsed, limits: Limits, known: Known | None) -> str | None:
    """A sudden growth or shrinkage."""
    if known is None:
        return None
    if parsed.count > limits.grow * max(known.count, limits.floor):
        return f"it has {parsed.count} entries, the last good copy had {known.count}"
    if known.count > limits.floor and parsed.count < limits.shrink * known.count:
        return f"it has {parsed.count} entries, the last good copy had {known.count}"
    return None


def canary(ranges: Ranges, canaries: Iterable[Prefix]) -> str | None:
    """It lists an address that no honest list has."""
    birds = PrefixSet(canaries)
    caught = ranges.common(Ranges.of(birds))
    first = next(caught.prefixes(), None)
    return f"it lists {first}, which no honest list has" if first else None


def width(parsed: Parsed, limits: Limits, bogons: Ranges) -> str | None:
    """An entry wider than the feed may have, bogons aside."""
    for family, widest in ((4, limits.widest4), (6, limits.widest6)):
        for first, last in parsed.wide.family(family).pairs():
            if last - first >= 1 << (BITS[family] - widest):
                entry = Ranges.of(PrefixSet(range_prefixes(family, first, last)))
                if len(entry.minus(bogons)):
                    text = ", ".join(str(p) for p in entry.prefixes())
                    return f"it lists {text[:100]}, wider than /{widest}"
    return None


def space(cleaned: Ranges, limits: Limits) -> str | None:
    """More of the internet than one list may have."""
    for covered, whole, name in ((cleaned.addresses4, 1 << 32, "IPv4"), (cleaned.addresses6, 1 << 125, "IPv6")):
        if covered > limits.share * whole:
            return f"it covers {covered / whole:.2%} of {name}; at most {limits.share:.2%} are allowed"
    return None
