"""What nftban owns in the kernel: one table, its sets, chains and rules.  The only definition of it.

Takes the table's name, the scopes (named groups of TCP ports; the scope "all" has none and means every packet) and
the options: scopes that are rejected instead of dropped, a log of what is stopped, devices to stop it at, list feeds;
gives the sets, chains and rules as records, the same as text for nft(8), and the set that a prefix belongs to.
Guarantees: the base chain stands at prerouting, priority raw (-300), before connection tracking, so that a ban also
stops established connections; allow sets come first and accept, then the bans for all ports, then one jump per scope
with ports.  With devices the same rules also stand at their ingress hook, where a flood costs less; the chain at
prerouting stays, for what comes in elsewhere.  Single addresses, IPv4 /24 and IPv6 /64 live in hash sets (the latter
two through a masked look-up), every other length in interval sets: adding to a hash set costs microseconds at any
size, to an interval set it costs time proportional to its size.
Does not: talk to the kernel, know bans.
Source: nft(8); linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from functools import cached_property

from nftban.errors import UsageError
from nftban.prefixes import BITS, Prefix, range_prefixes
from nftban.records import Element

ALL = "all"
BASE_CHAIN = "prerouting"
PRIORITY_RAW = -300
INGRESS_CHAIN = "ingress"
PRIORITY_INGRESS = -500
# Where a scope's banned packets go if they are logged, or answered.
DROPPED_CHAIN, REJECTED_CHAIN, LOGGED_CHAIN = "dropped", "rejected", "logged"
# nft's default: this many packets may exceed the rate at once.
LOG_BURST = 5
GC_INTERVAL_MS = 60_000

# The most elements of a hash set.  The kernel takes it modulo 65536 as a hint for the first hash table: the largest
# hint (k * 65536 - 1) costs 2 MB a set, 40 MB for the default layout before the first ban, and saves a tenth of the
# time of filling a set with 100,000 elements.  With 1023 an empty set has 32 KB and grows by itself.
HASH_SIZE = 16 * 65536 + 1023

# Networks of this length have a hash set, which is searched with the source address masked to it.
NETWORK_LENGTH = {4: 24, 6: 64}

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
# What a string of nft(8) holds without being read as something else (no quote, no variable, no pattern).
LOG_PREFIX = r"[A-Za-z0-9 ._:=/+-]{1,64}"
DEVICE = r"[A-Za-z0-9._@-]{1,15}"


class Kind(StrEnum):
    """What a set holds: addresses that are let through, single banned addresses, banned networks of
    NETWORK_LENGTH, banned ranges of any other length, the ranges of a list feed, the TCP ports of a scope."""

    ALLOW = "allow"
    ADDRESS = "address"
    NETWORK = "network"
    RANGE = "range"
    FEED = "feed"
    PORTS = "ports"


@dataclass(frozen=True, slots=True)
class SetSpec:
    """One kernel set.  family: 4 or 6, 0 for ports; scope: where what it holds is stopped, "" for the allow sets."""

    name: str
    kind: Kind
    family: int
    scope: str

    @property
    def width(self) -> int:
        """Bytes of a key."""
        return BITS[self.family] // 8 if self.family else 2

    @property
    def key_type(self) -> str:
        """nft's name of the key's data type."""
        return {4: "ipv4_addr", 6: "ipv6_addr", 0: "inet_service"}[self.family]

    @property
    def interval(self) -> bool:
        return self.kind in (Kind.ALLOW, Kind.RANGE, Kind.FEED)

    @property
    def timed(self) -> bool:
        """May its elements time out?"""
        return self.bans or self.kind is Kind.FEED

    @property
    def bans(self) -> bool:
        """Does it hold bans?  Then its elements also count what they stopped."""
        return self.kind in (Kind.ADDRESS, Kind.NETWORK, Kind.RANGE)

    @property
    def feed(self) -> str:
        """Whose ranges it holds; "" where it is no feed's set."""
        return self.name.partition("_")[2] if self.kind is Kind.FEED else ""

    @property
    def size(self) -> int | None:
        """The most elements it may hold; None: no limit (interval sets are not preallocated)."""
        return HASH_SIZE if self.bans and not self.interval else None

    def may_cover(self, prefix: Prefix) -> bool:
        """Can one element of this set cover the whole prefix?"""
        if self.family != prefix.family or self.kind is Kind.PORTS:
            return False
        network = self.kind is Kind.NETWORK and prefix.length >= NETWORK_LENGTH[self.family]
        return self.interval or prefix.is_single or network

    def key(self, prefix: Prefix) -> int:
        """The key that this hash set is searched with for packets from that prefix."""
        return prefix.widened(NETWORK_LENGTH[self.family]).first if self.kind is Kind.NETWORK else prefix.first


class Reject(Enum):
    """How a packet is refused with an answer; nft's words."""

    TCP_RESET = "meta l4proto tcp reject with tcp reset"
    ADMIN_PROHIBITED = "reject with icmpx admin-prohibited"


@dataclass(frozen=True, slots=True)
class Log:
    """The kernel logs packets with `prefix`, at most `rate` a minute (and LOG_BURST at once)."""

    prefix: str
    rate: int = 10


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: in `chain`, a packet whose address (or TCP port) is in `match` (None: every packet) is accepted,
    dropped, rejected or logged, or goes on in the chain named by `verdict`."""

    chain: str
    match: SetSpec | None
    verdict: str | Reject | Log


@dataclass(frozen=True, slots=True)
class Scope:
    """A named group of TCP ports; no ports: every packet, whatever its protocol."""

    name: str
    ports: tuple[int, ...] = ()

    @property
    def chain(self) -> str:
        return f"scope_{self.name}" if self.ports else BASE_CHAIN

    @property
    def sets(self) -> tuple[SetSpec, ...]:
        """The sets that hold this scope's bans, in the order in which they are asked."""
        return tuple(
            SetSpec(f"ban{family}{infix}_{self.name}", kind, family, self.name)
            for family in (4, 6)
            for infix, kind in (
                ("", Kind.ADDRESS),
                (f"net{NETWORK_LENGTH[family]}", Kind.NETWORK),
                ("range", Kind.RANGE),
            )
        )

    @property
    def port_set(self) -> SetSpec:
        return SetSpec(f"ports_{self.name}", Kind.PORTS, 0, self.name)


@dataclass(frozen=True, slots=True)
class FeedSets:
    """A list feed whose addresses are stopped in a scope."""

    name: str
    scope: str = ALL

    @property
    def sets(self) -> tuple[SetSpec, SetSpec]:
        """Its ranges of IPv4 and of IPv6, however they overlap with other feeds': so one can say whose they are."""
        four, six = (SetSpec(f"feed{family}_{self.name}", Kind.FEED, family, self.scope) for family in (4, 6))
        return four, six


_ALLOW_SETS = tuple(SetSpec(f"allow{family}", Kind.ALLOW, family, "") for family in (4, 6))


@dataclass(frozen=True)
class Layout:
    """The table `inet <table>` with these scopes; "all" is put first where it is missing.

    reject: the scopes whose banned clients get an answer (a TCP reset, or an ICMP "administratively prohibited");
    log: how what is stopped is logged, None: not at all; ingress: devices at whose ingress hook it is stopped too;
    feeds: the list feeds that are enforced.
    Raises UsageError for a name that nft(8) would not read, a port or a scope that does not exist.
    """

    table: str = "nftban"
    scopes: tuple[Scope, ...] = field(default_factory=tuple)
    reject: tuple[str, ...] = ()
    log: Log | None = None
    ingress: tuple[str, ...] = ()
    feeds: tuple[FeedSets, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ingress", tuple(sorted(set(self.ingress))))
        names = [scope.name for scope in self.scopes]
        if ALL not in names:
            object.__setattr__(self, "scopes", (Scope(ALL), *self.scopes))
        feeds = [feed.name for feed in self.feeds]
        for name in (self.table, *names, *feeds):
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{name!r} cannot name a table, a scope or a feed",
                    "use a small letter, then up to 31 small letters, digits, '_' or '-'",
                )
        if len(set(names)) < len(names):
            raise UsageError(f"a scope is named twice: {', '.join(names)}")
        if len(set(feeds)) < len(feeds):
            raise UsageError(f"a feed is named twice: {', '.join(feeds)}")
        for scope in self.scopes:
            if scope.name == ALL and scope.ports:
                raise UsageError('the scope "all" has no ports: it covers every packet')
            for port in scope.ports:
                if not 0 < port < 65536:
                    raise UsageError(f"scope {scope.name!r}: there is no TCP port {port}", "ports go from 1 to 65535")
        self._check_options()

    def _check_options(self) -> None:
        scopes = {scope.name for scope in self.scopes}
        for name in self.reject:
            if name not in scopes:
                raise UsageError(f"no scope {name!r} that could be rejected", "name one of [scopes], or all")
        for feed in self.feeds:
            if feed.scope not in scopes:
                raise UsageError(f"feed {feed.name!r}: no scope {feed.scope!r}", "name one of [scopes], or all")
        for device in self.ingress:
            if not re.fullmatch(DEVICE, device, re.ASCII):
                raise UsageError(f"{device!r} cannot name a network device")
        if self.log and not (re.fullmatch(LOG_PREFIX, self.log.prefix, re.ASCII) and self.log.rate > 0):
            raise UsageError(
                "a log prefix has at most 64 letters, digits, spaces and . _ : = / + -, and a rate above 0"
            )

    def on_devices(self, devices: Collection[str]) -> Layout:
        """The same without the ingress devices that are not among these."""
        return replace(self, ingress=tuple(d for d in self.ingress if d in devices))

    @cached_property
    def sets(self) -> tuple[SetSpec, ...]:
        """Every set, in the order in which they are made."""
        ports = [scope.port_set for scope in self.scopes if scope.ports]
        feeds = [s for feed in self.feeds for s in feed.sets]
        return (*_ALLOW_SETS, *(s for scope in self.scopes for s in scope.sets), *feeds, *ports)

    @cached_property
    def address_sets(self) -> dict[str, SetSpec]:
        """The sets of addresses (bans, feeds, allow list) by name; their elements are planned and dumped."""
        return {s.name: s for s in self.sets if s.kind is not Kind.PORTS}

    @cached_property
    def base_chains(self) -> tuple[str, ...]:
        """The chains that the kernel enters by a hook."""
        return (BASE_CHAIN, INGRESS_CHAIN) if self.ingress else (BASE_CHAIN,)

    @cached_property
    def chains(self) -> tuple[str, ...]:
        """The base chains, then those that rules jump to."""
        names = [*self.base_chains, *(scope.chain for scope in self.scopes if scope.ports)]
        for rule in self._outcome_rules:
            if rule.chain not in names:
                names.append(rule.chain)
        return tuple(names)

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule in order: allow list, bans for all ports, bans per scope; in each chain feeds come last."""
        base = [Rule(BASE_CHAIN, allow, "accept") for allow in _ALLOW_SETS]
        rules: list[Rule] = []
        for scope in sorted(self.scopes, key=lambda scope: bool(scope.ports)):
            if scope.ports:
                base.append(Rule(BASE_CHAIN, scope.port_set, scope.chain))
            stopped = [*scope.sets, *(s for feed in self.feeds if feed.scope == scope.name for s in feed.sets)]
            (rules if scope.ports else base).extend(Rule(scope.chain, s, self._outcome(scope)) for s in stopped)
        again = [replace(rule, chain=chain) for chain in self.base_chains[1:] for rule in base]
        return (*base, *again, *rules, *self._outcome_rules)

    def _outcome(self, scope: Scope) -> str:
        """The verdict on a packet that a ban of this scope covers."""
        if scope.name in self.reject:
            return REJECTED_CHAIN
        return DROPPED_CHAIN if self.log else "drop"

    @cached_property
    def _outcome_rules(self) -> tuple[Rule, ...]:
        outcomes = {self._outcome(scope) for scope in self.scopes}
        first = [Rule(LOGGED_CHAIN, None, self.log)] if self.log else []
        rules = list(first)
        answers: dict[str, tuple[str | Reject, ...]] = {DROPPED_CHAIN: ("drop",), REJECTED_CHAIN: tuple(Reject)}
        for chain, verdicts in answers.items():
            if chain in outcomes:
                rules += [Rule(chain, None, v) for v in ((LOGGED_CHAIN, *verdicts) if first else verdicts)]
        return tuple(rules)

    @cached_property
    def _by_scope(self) -> dict[tuple[str, Kind, int], SetSpec]:
        return {(s.scope, s.kind, s.family): s for s in self.sets if s.kind is not Kind.FEED}

    def place(self, prefix: Prefix, scope: str, until: float | None = None) -> Element:
        """The element that bans the prefix in the scope; UsageError where there is no such scope."""
        kind = Kind.RANGE
        if prefix.is_single:
            kind = Kind.ADDRESS
        elif prefix.length == NETWORK_LENGTH[prefix.family]:
            kind = Kind.NETWORK
        spec = self._by_scope.get((scope, kind, prefix.family))
        if spec is None:
            raise UsageError(
                f"there is no scope named {scope!r}", f"there are: {', '.join(s.name for s in self.scopes)}"
            )
        return Element(spec.name, prefix.first, prefix.last if kind is Kind.RANGE else prefix.first, until)

    def prefixes(self, element: Element) -> Iterator[Prefix]:
        """What the element covers, as the fewest prefixes; KeyError where the set is not of this layout."""
        spec = self.address_sets[element.set]
        if spec.kind is Kind.NETWORK:
            yield Prefix(spec.family, element.first, NETWORK_LENGTH[spec.family])
        else:
            yield from range_prefixes(spec.family, element.first, element.last)


DEFAULT = Layout(
    scopes=(
        Scope(ALL),
        Scope("smtp", (25,)),
        Scope("submission", (465, 587)),
        Scope("mail", (25, 110, 143, 465, 587, 993, 995, 4190)),
        Scope("ssh", (22,)),
    )
)


_HEADER = """\
# nftban's table, for nft -f or an include in /etc/nftables.conf.
#
# It holds nothing but the frame: nftban fills the sets and keeps them.  Loading it again loses no ban: sets are
# never flushed, only our own chains and the lists of ports are written anew.  Nothing outside this table is touched.
# To be rid of it: nft delete table inet {table}
#
# allow4 allow6         never dropped here (other tables still decide)
# ban4_S ban6_S         single addresses banned in scope S
# ban4net24_S           IPv4 networks /24; ban6net64_S: IPv6 networks /64
# ban4range_S ban6range_S   prefixes of any other length
# feed4_F feed6_F       what list feed F names
# ports_S               the TCP ports of scope S; the scope "all" has none, it covers every packet

"""


def _set_text(spec: SetSpec) -> str:
    flags = [flag for flag, is_set in (("interval", spec.interval), ("timeout", spec.timed)) if is_set]
    lines = [f"type {spec.key_type}"]
    if spec.size:
        lines.append(f"size {spec.size}")
    if flags:
        lines.append(f"flags {','.join(flags)}")
    if spec.bans:
        lines.append("counter")
    if spec.timed:
        lines.append(f"gc-interval {GC_INTERVAL_MS // 1000}s")
    return f"\tset {spec.name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def _hook_text(layout: Layout, chain: str) -> str:
    if chain not in layout.base_chains:
        return ""
    hook = "prerouting priority raw"
    if chain == INGRESS_CHAIN:
        devices = ", ".join(f'"{device}"' for device in layout.ingress)
        hook = f"ingress devices = {{ {devices} }} priority {PRIORITY_INGRESS}"
    return f"\t\ttype filter hook {hook}; policy accept;\n"


def _verdict_text(verdict: str | Reject | Log) -> str:
    if isinstance(verdict, Reject):
        return verdict.value
    if isinstance(verdict, Log):
        return f'limit rate {verdict.rate}/minute burst {LOG_BURST} packets log prefix "{verdict.prefix}"'
    return verdict if verdict in ("accept", "drop") else f"jump {verdict}"


def _rule_text(rule: Rule) -> str:
    spec = rule.match
    verdict = _verdict_text(rule.verdict)
    if spec is None:
        return verdict
    if spec.kind is Kind.PORTS:
        return f"tcp dport @{spec.name} {verdict}"
    source = "ip saddr" if spec.family == 4 else "ip6 saddr"
    if spec.kind is Kind.NETWORK:
        source += f" & {Prefix(spec.family, network_mask(spec.family), spec.width * 8)}"
    return f"{source} @{spec.name} {verdict}"


def network_mask(family: int) -> int:
    """The mask of NETWORK_LENGTH as a number."""
    host_bits = BITS[family] - NETWORK_LENGTH[family]
    return (1 << BITS[family]) - (1 << host_bits)


def ruleset_text(layout: Layout) -> str:
    """The layout for `nft -f` (nftables 1.0.6 and later), one transaction, safe to load again and again."""
    table = f"inet {layout.table}"
    text = _HEADER.format(table=layout.table) + f"table {table} {{\n"
    text += "\n".join(_set_text(s) for s in layout.sets) + "\n"
    text += "\n".join(f"\tchain {chain} {{\n{_hook_text(layout, chain)}\t}}\n" for chain in layout.chains) + "}\n\n"
    text += "".join(f"flush chain {table} {chain}\n" for chain in layout.chains)
    for scope in layout.scopes:
        if scope.ports:
            ports = ", ".join(map(str, scope.ports))
            text += f"flush set {table} {scope.port_set.name}\n"
            text += f"add element {table} {scope.port_set.name} {{ {ports} }}\n"
    text += f"\ntable {table} {{\n"
    text += "\n".join(
        f"\tchain {chain} {{\n" + "".join(f"\t\t{_rule_text(r)}\n" for r in layout.rules if r.chain == chain) + "\t}\n"
        for chain in layout.chains
    )
    return text + "}\n"
