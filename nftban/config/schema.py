"""The settings, checked.

Takes the merged tables of nftban.toml and conf.d/*.toml; gives frozen `Settings`.  pydantic does the checking, so
that every fault is found in one pass; load.py turns its findings into words with file and line.
Guarantees: a `Settings` object has only values the daemon can run with; nothing here reads a file or a clock.
Every field's description is its documentation (`nftban config schema` and docs/configuration.md speak from it).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nftban.config.words import HOST_NAME, ban_seconds, number_or_off, port_list, seconds, seconds_or_none
from nftban.prefixes import Prefix

Seconds = Annotated[float, BeforeValidator(seconds)]
SecondsOrNone = Annotated[float, BeforeValidator(seconds_or_none)]
NumberOrOff = Annotated[int | None, BeforeValidator(number_or_off)]
BanSeconds = Annotated[float | None, BeforeValidator(ban_seconds)]
Ports = Annotated[tuple[int, ...], BeforeValidator(port_list)]

_SCOPE = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_LOG_PREFIX = re.compile(r"[A-Za-z0-9 ._:=/+-]{1,64}\Z")
_DEVICE = re.compile(r"[A-Za-z0-9._@-]{1,15}\Z")

EVENT_KINDS = (
    *(
        "ban",
        "ban-failed",
        "clock",
        "dns",
        "drift",
        "extended",
        "feed",
        "filter",
        "lifted",
        "metrics",
        "notify",
        "reload",
        "source",
    ),
    *("spared", "store", "storm", "unban", "zone"),
)
"""What the daemon reports; tests hold it equal to what it does."""


def _strings(written: object) -> object:
    return (written,) if isinstance(written, str) else written


def _prefix(written: object) -> Prefix:
    if isinstance(written, Prefix):
        return written
    if not isinstance(written, str):
        raise ValueError(f"{written!r} is not an address or prefix; write it as a string")
    return Prefix.parse(written)


def _host_name(written: str) -> str:
    name = written.rstrip(".").lower()
    if not HOST_NAME.fullmatch(name):
        raise ValueError(f"{written!r} is not a host name; addresses and prefixes belong into `prefixes`")
    return name


def _name(written: str) -> str:
    if not _NAME.match(written):
        raise ValueError("a name has letters, digits, _ and -, at most 64")
    return written


def _scope_name(written: str) -> str:
    if written == "all":
        raise ValueError('the scope "all" is built in; give yours another name')
    if not _SCOPE.match(written):
        raise ValueError("a scope's name has small letters, digits, _ and -, begins with a letter, at most 32")
    return written


def _feed_scope(written: str) -> str:
    if written and not _SCOPE.match(written):
        raise ValueError(f'{written!r} is no scope; write "all" or a name from [scopes]')
    return written


def _port_words(written: object) -> object:
    # Said here once: a union would complain in the name of each of its members.
    for word in written if isinstance(written, tuple) else (written,):
        if isinstance(word, bool) or not isinstance(word, str | int):
            raise ValueError(f'{word!r} is neither a scope nor a port; write for example "mail" or [25, "submission"]')
    return written


def _log_prefix(written: str) -> str:
    if written and not _LOG_PREFIX.match(written):
        raise ValueError("a log prefix has letters, digits, spaces and . _ : = / + -, at most 64")
    return written


def _device(written: str) -> str:
    if not _DEVICE.match(written):
        raise ValueError(f"{written!r} cannot name a network device; write for example eth0")
    return written


def _metrics_file(written: str) -> str:
    # node_exporter reads no others.
    if written and not (written.startswith("/") and written.endswith(".prom")):
        raise ValueError(
            f"{written!r} is no full path that ends in .prom; "
            'write for example "/var/lib/prometheus/node-exporter/nftban.prom"'
        )
    return written


def _program(written: tuple[str, ...]) -> tuple[str, ...]:
    if written and not written[0].startswith("/"):
        raise ValueError(f'{written[0]!r} is no full path; write for example ["/usr/local/bin/tell-me"]')
    if any("\0" in word for word in written):
        raise ValueError("an argument holds a zero byte")
    return written


def _kinds(written: tuple[str, ...]) -> tuple[str, ...]:
    for kind in written:
        if kind not in EVENT_KINDS:
            raise ValueError(f"{kind!r} is no kind of event; there are: {', '.join(EVENT_KINDS)}")
    return written


Strings = Annotated[tuple[str, ...], BeforeValidator(_strings)]
LogPrefix = Annotated[str, AfterValidator(_log_prefix)]
Device = Annotated[str, AfterValidator(_device)]
HostName = Annotated[str, AfterValidator(_host_name)]
PrefixText = Annotated[Prefix, BeforeValidator(_prefix)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return given


class Daemon(_Table):
    state: str = Field("", description="the SQLite store; empty: /var/lib/nftban/state.db, or below XDG_STATE_HOME")
    socket: str = Field("", description="the control socket; empty: /run/nftban/control.sock, or in XDG_RUNTIME_DIR")
    observe: bool = Field(
        False, description="decide, but write nothing to the kernel (as `daemon --observe`); bans go into observe.db"
    )
    group: str = Field(
        "", description="a group whose members may use the control socket besides root and the daemon's user"
    )
    metrics: Annotated[str, AfterValidator(_metrics_file)] = Field(
        "",
        description="a file into which metrics are written every 15 seconds, for node_exporter's textfile collector; "
        "its name ends in .prom. Empty: none",
    )


class Kernel(_Table):
    table: str = Field("nftban", pattern=r"^[a-z][a-z0-9_]{0,30}$", description="name of our nftables table (inet)")
    ssh_ports: Ports = Field((22,), description="ports whose live, authenticated sessions are never banned")
    reject: Strings = Field(
        (),
        description='scopes whose banned clients get an answer (TCP reset, else ICMP "administratively prohibited") '
        "instead of none; needs Linux 5.9",
    )
    log: LogPrefix = Field(
        "", description='what the kernel logs stopped packets with, such as "nftban: "; empty: it logs none'
    )
    log_rate: int = Field(10, ge=1, le=100_000, description="the most packets it logs in a minute")
    ingress: Annotated[tuple[Device, ...], BeforeValidator(_strings)] = Field(
        (),
        description="network devices at whose ingress hook packets are stopped too, first of all; needs Linux 5.10",
    )


class Allow(_Table):
    prefixes: tuple[PrefixText, ...] = Field((), description="addresses and prefixes that are never banned")
    names: tuple[HostName, ...] = Field(
        (), description="host names whose addresses are never banned; looked up every five minutes"
    )


class Dns(_Table):
    servers: Strings = Field((), description="resolvers to ask, ADDRESS or ADDRESS:PORT; empty: /etc/resolv.conf")
    deadline: Seconds = Field(4.0, description="a verdict waits no longer than this for answers")


class Dnsbl(_Table):
    enabled: bool = Field(True, description="ask DNSBLs about offenders")
    zones: tuple[str, ...] = Field(
        (), description="zones in Postfix's notation: zone=codes*points (man 5 postconf, postscreen_dnsbl_sites)"
    )
    reverse: bool = Field(True, description="ask for names: PTR and its forward confirmation, HELO and its SPF policy")
    policy_limit: int = Field(
        3,
        ge=0,
        le=1000,
        description="evidence about dynamic ranges and names together counts at most this much (port 25 only), "
        "and never so much that one offence would be enough",
    )
    no_name_points: int = Field(
        1, ge=0, le=1000, description="points for an address without a PTR record (port 25 only)"
    )
    unconfirmed_points: int = Field(
        1, ge=0, le=1000, description="points where no PTR name leads back to the address (port 25 only)"
    )
    generic_points: int = Field(
        1, ge=0, le=1000, description="points for a PTR name that a network gives to everybody (port 25 only)"
    )
    helo_points: int = Field(
        1, ge=0, le=1000, description="points for a HELO name that cannot be true or leads elsewhere (port 25 only)"
    )
    spf_points: int = Field(
        1, ge=0, le=1000, description="points where the HELO name's SPF policy forbids the address (port 25 only)"
    )
    mailer_factor: int = Field(
        3,
        ge=1,
        le=1000,
        description="a known mailer (on an allow list such as list.dnswl.org, on no other, its name leads back) is "
        "cut off from port 25 at this many times maxretry only; 1: like everybody",
    )
    own_names: Strings = Field(
        (), description="names of this machine besides its host name; who says one of them in HELO lies"
    )
    daily_budget: int = Field(80_000, ge=1, le=100_000_000, description="queries a day to one zone; kept over restarts")
    test_every: Seconds = Field(1800.0, description="how often each zone's test points (RFC 5782) are asked")


class Reverify(_Table):
    every: Seconds = Field(900.0, description="how often live bans that rest on a listing are verified again")
    extend_within: Seconds = Field(
        1800.0, description="a ban still listed that ends within this is extended by its length"
    )


class _JailValues(_Table):
    maxretry: int | None = Field(None, ge=1, le=1_000_000, description="points at which an address is banned")
    findtime: Seconds | None = Field(None, description="the window in which points are added up")
    bantime: BanSeconds = Field(None, description='how long the first ban lasts, or "permanent"')
    bantime_max: Seconds | None = Field(None, description="a repeated ban never lasts longer than this")
    bantime_factor: float | None = Field(
        None, ge=1, le=100, description="each repetition lasts this many times longer; 1: always the same"
    )
    verify_at: int | None = Field(None, ge=1, le=1_000_000, description="offences after which DNS is asked")
    spare_login: SecondsOrNone | None = Field(
        None, description="a successful login spares its address for this long; 0: not at all"
    )
    storm: NumberOrOff = Field(None, description='bans a minute beyond which a jail makes no more, or "off"')


class Defaults(_JailValues):
    maxretry: int = Field(6, ge=1, le=1_000_000, description="points at which an address is banned")
    findtime: Seconds = Field(600.0, description="the window in which points are added up")
    bantime: BanSeconds = Field(3600.0, description='how long the first ban lasts, or "permanent"')
    bantime_max: Seconds = Field(604800.0, description="a repeated ban never lasts longer than this")
    bantime_factor: float = Field(
        2.0, ge=1, le=100, description="each repetition lasts this many times longer; 1: always the same"
    )
    verify_at: int = Field(2, ge=1, le=1_000_000, description="offences after which DNS is asked")
    spare_login: SecondsOrNone = Field(
        86400.0, description="a successful login spares its address for this long; 0: not at all"
    )
    storm: NumberOrOff = Field(
        None,
        description="a jail that would ban more addresses within a minute bans nobody until a minute has fewer; "
        '"off": any number',
    )
    max_prefix4: int = Field(16, ge=1, le=32, description="the widest IPv4 prefix that may be banned")
    max_prefix6: int = Field(32, ge=1, le=128, description="the widest IPv6 prefix that may be banned")
    count4: int = Field(32, ge=8, le=32, description="IPv4 offences are counted and banned per prefix of this length")
    count6: int = Field(64, ge=16, le=128, description="IPv6 offences are counted and banned per prefix of this length")
    offenders: int = Field(
        1_000_000,
        ge=1_000,
        le=10_000_000,
        description="prefixes counted at once in each jail, at about 100 bytes; beyond, the longest unseen go",
    )


class Jail(_JailValues):
    enabled: bool = Field(True, description="whether this jail counts and bans")
    filter: str = Field(
        min_length=1, description="name of a filter, with fail2ban's parameters: postfix[mode=aggressive]"
    )
    logpath: Strings = Field(
        description='log files (shell patterns are expanded), "journal", or "journal:/DIRECTORY" with its files'
    )
    journalmatch: Strings = Field(
        (),
        description="what is read of the journal, as in fail2ban: FIELD=value words that must all hold, + between "
        'alternatives; empty: what the filter says. With it alone, logpath is "journal"',
    )
    port: Annotated[str | int | tuple[str | int, ...], BeforeValidator(_port_words)] = Field(
        "all", description='what a ban covers: "all", a name from [scopes], or ports as in fail2ban: "smtp,submission"'
    )
    dnsbl: bool = Field(True, description="whether this jail's suspects are looked up in DNSBLs and reverse DNS")
    ignore: tuple[PrefixText, ...] = Field(
        (), description="addresses and prefixes whose offences this jail does not count"
    )

    @model_validator(mode="before")
    @classmethod
    def _matches_are_of_the_journal(cls, given: Any) -> Any:
        if isinstance(given, dict) and "journalmatch" in given and "logpath" not in given:
            return {**given, "logpath": "journal"}
        return given


class Feeds(_Table):
    cache: str = Field(
        "", description="folder of the last good copies; empty: /var/cache/nftban/feeds, or below XDG_CACHE_HOME"
    )
    contact: str = Field(
        "",
        pattern=r"^[!-~]{0,100}$",
        description="an address by which a list's operator can reach you, for the User-Agent (DShield asks for one)",
    )
    canaries: tuple[PrefixText, ...] = Field(
        (), description="addresses that no honest list has, such as your peers' mail servers: one that has is refused"
    )


class FeedUse(_Table):
    enabled: bool = Field(True, description="whether the feed is fetched and used")
    enforce: bool = Field(False, description="whether its addresses are stopped, whoever they are")
    port: Annotated[str, AfterValidator(_feed_scope)] = Field(
        "", description='what that covers: "all" or a name from [scopes]; empty: as the feed\'s definition says'
    )
    points: int = Field(0, ge=0, le=1000, description="points for an offender who is on it")


class Notify(_Table):
    hook: Annotated[Strings, AfterValidator(_program)] = Field(
        (), description="a program and its arguments, started without a shell; it reads one JSON object"
    )
    urls: Strings = Field(
        (), description="services as apprise writes them: mailto://..., ntfy://... (needs nftban[notify]); kept secret"
    )
    timeout: Seconds = Field(30.0, description="the program is killed when it has not ended after this")
    digest: SecondsOrNone = Field(3600.0, description="how often bans and events are told together; 0: never")
    at_once: Annotated[Strings, AfterValidator(_kinds)] = Field(
        ("ban-failed", "clock", "drift", "feed", "filter", "reload", "source", "store", "storm", "zone"),
        description="kinds of events that are told at once, each at most every ten minutes",
    )
    storm: int = Field(100, ge=2, le=100_000, description="so many bans within a minute are a storm")


class Settings(_Table):
    daemon: Daemon = Daemon()
    kernel: Kernel = Kernel()
    allow: Allow = Allow()
    dns: Dns = Dns()
    dnsbl: Dnsbl = Dnsbl()
    reverify: Reverify = Reverify()
    scopes: dict[Annotated[str, AfterValidator(_scope_name)], Ports] = Field(
        default_factory=dict, description="names for groups of ports"
    )
    defaults: Defaults = Defaults()
    jail: dict[Annotated[str, AfterValidator(_name)], Jail] = Field(
        default_factory=dict, description="one table per jail"
    )
    feeds: Feeds = Feeds()
    notify: Notify = Notify()
    feed: dict[str, FeedUse] = Field(default_factory=dict, description="one table per feed that is used")
