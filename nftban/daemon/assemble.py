"""From settings to the parts that run: jails with compiled filters, the kernel layout, zones, resolver.

Takes loaded settings; reads the data they name: filters, jail.local files, rules/dnsbl.  Gives an `Assembly`, or
raises ConfigError with every fault of all of them.
Guarantees: nothing is started, asked or written; what cannot work is a fault here, not a surprise later.  Jails in
fail2ban's files (jail.local and jail.d/*.conf, *.local beside nftban.toml) are taken as they are, after those of
nftban.toml; a jail of the same name in nftban.toml wins.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from nftban.config.load import Loaded, UnfinishedConfigError, in_order, load, shipped_rules
from nftban.config.schema import Dnsbl, Jail
from nftban.config.words import port_list
from nftban.daemon.delivery import url_faults
from nftban.detect import filterfile, jailfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Logged, Matcher
from nftban.detect.windows import Windows
from nftban.errors import ConfigError, Fault, UsageError
from nftban.judge import NamePoints, Rules
from nftban.kernel.layout import ALL, FeedSets, Layout, Log, Scope
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Login, LogLine, Offence
from nftban.sources.journal import is_journal
from nftban.sources.journal import spec as journal_spec
from nftban.verify import servers as dns_servers
from nftban.verify.generic import NO_WORDS, NameWords, parse_words
from nftban.verify.health import Health, Transition
from nftban.verify.keys import hider
from nftban.verify.providers import load_providers
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.servers import Server
from nftban.verify.verify import Verifier
from nftban.verify.zones import Provider, Zone, configured_zones

if TYPE_CHECKING:
    from nftban.daemon.feeds import FeedInUse

FAIL2BAN_FILTERS = Path("/etc/fail2ban/filter.d")
SMTP_PORT = 25


@dataclass(slots=True)
class JailSetup:
    """A jail ready to run.  rules: for the judgement; verify_at: points from which DNS is asked; ignore: whose
    offences it does not count; storm: bans a minute beyond which it makes none; offences: counted since the start;
    report: takes what filters note."""

    name: str
    filter: str
    rules: Rules
    verify_at: int
    dnsbl: bool
    logpaths: tuple[str, ...]
    ignore: PrefixSet
    compiled: Filter
    windows: Windows
    storm: int | None = None
    offences: int = 0
    bans: int = 0
    matchers: dict[str, Matcher] = field(default_factory=dict)
    report: Callable[[str], None] = lambda _: None
    hide: Callable[[str], str] = str

    def match(self, line: LogLine, now: float, rules: tuple[int, ...] | None = None) -> Offence | Login | Logged | None:
        """What the jail's filter makes of a line; sessions are told apart by log, so each log has its matcher.

        rules: those of the filter, from 0, that can match it, where that is known.
        """
        text = self.hide(line.text)  # before anything keeps it: the mail server logs whole zone names
        if text is not line.text:
            line, rules = replace(line, text=text), None  # which rules can match was said of the other text
        matcher = self.matchers.get(line.source)
        if matcher is None:
            matcher = self.matchers[line.source] = self.matcher()
        return matcher.match(line, now, rules)

    def matcher(self) -> Matcher:
        """One for a log."""
        return Matcher(self.compiled, report=self.report)

    def inherit(self, before: JailSetup) -> None:
        """Goes on with what a jail of this name has counted, and with sessions under way, where both count alike."""
        self.offences, self.bans = before.offences, before.bans
        self.windows.inherit(before.windows)
        if self.compiled == before.compiled:
            self.matchers = before.matchers


@dataclass(frozen=True, slots=True)
class Assembly:
    """All parts.  dns_note: why DNSBLs are not asked although they are configured, None where they are; masked:
    takes account keys out of a text."""

    loaded: Loaded
    layout: Layout
    jails: tuple[JailSetup, ...]
    zones: tuple[Zone, ...]
    servers: tuple[Server, ...]
    dns_note: str | None
    words: NameWords
    providers: tuple[Provider, ...]
    masked: Callable[[str], str] = str
    feeds: tuple[FeedInUse, ...] = ()

    @property
    def resolver_prefixes(self) -> tuple[Prefix, ...]:
        """The resolvers' addresses: banning one would blind us."""
        return tuple(Prefix.parse(s.host.partition("%")[0]) for s in self.servers)

    def verifier(self, changed: Callable[[Transition], None] = lambda _: None) -> Verifier:
        """A verifier on these zones; must be called inside an event loop."""
        settings = self.loaded.settings
        resolver = Resolver(
            [str(s) for s in self.servers],
            timeout=settings.dns.deadline,
            cache_file=self.loaded.state_path.with_name("dns-cache.json"),
            hidden={zone.name: zone.display for zone in self.zones if zone.keyed},
        )
        return Verifier(
            self.zones,
            resolver,
            Health(self.zones, settings.dnsbl.test_every),
            Quota(self.zones, settings.dnsbl.daily_budget),
            reverse=settings.dnsbl.reverse,
            deadline=settings.dns.deadline,
            skip=PrefixSet(settings.allow.prefixes),
            words=self.words,
            own_names=(socket.gethostname(), *settings.dnsbl.own_names),
            changed=changed,
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A jail somebody configured.  fault: makes a Fault at the place where its setting `key` was written."""

    name: str
    jail: Jail
    ignore: PrefixSet
    fault: Callable[..., Fault]


def filter_directories(loaded: Loaded) -> tuple[Path, ...]:
    """Where filters are looked for, the first wins: the admin's own, the shipped, fail2ban's."""
    own = loaded.folder
    return (own / "rules" / "filters", own / "filter.d", shipped_rules() / "filters", FAIL2BAN_FILTERS)


def checked(config: Path | None) -> Assembly:
    """Loads and assembles; raises ConfigError with the faults of both, so that one look shows them all."""
    try:
        loaded = load(config)
    except UnfinishedConfigError as e:
        try:
            assemble(e.rest)
        except ConfigError as more:
            raise ConfigError(in_order((*e.faults, *more.faults))) from None
        raise
    return assemble(loaded)


def assemble(loaded: Loaded) -> Assembly:
    """Puts everything together; raises ConfigError with every fault."""
    settings = loaded.settings
    faults: list[Fault] = []
    scopes = {ALL: (), **settings.scopes}
    jails: list[JailSetup] = []
    directories = filter_directories(loaded)
    for wanted in (*_toml_jails(loaded), *_fail2ban_jails(loaded, faults)):
        setup = _jail(loaded, wanted, scopes, directories)
        if isinstance(setup, JailSetup):
            jails.append(setup)
        else:
            faults += setup
    feeds: tuple[FeedInUse, ...] = ()
    if settings.feed:
        # numpy comes with them, which a daemon without feeds and with few bans never needs.
        from nftban.daemon.feeds import feeds_in_use

        feeds, bad_feeds = feeds_in_use(loaded, scopes)
        faults += bad_feeds
    layout = Layout()
    try:
        kernel = settings.kernel
        for name in kernel.reject:
            if name not in scopes:
                advice = f"name one of: {', '.join(scopes)}"
                faults.append(loaded.fault(("kernel", "reject"), f"kernel.reject: no scope {name!r}", advice))
        layout = Layout(
            kernel.table,
            tuple(Scope(n, ports) for n, ports in scopes.items()),
            tuple(name for name in kernel.reject if name in scopes),
            Log(kernel.log, kernel.log_rate) if kernel.log else None,
            kernel.ingress,
            tuple(FeedSets(use.feed.name, use.scope) for use in feeds if use.enforce),
        )
    except UsageError as e:
        faults.append(loaded.fault(("scopes",), f"scopes: {e}", e.advice))
    servers = _servers(loaded, faults)
    providers, bad_data = load_providers([loaded.folder / "rules" / "dnsbl", shipped_rules() / "dnsbl"])
    zones: tuple[Zone, ...] = ()
    if settings.dnsbl.enabled:
        faults += bad_data
        zones = _zones(loaded, providers, faults)
        faults += _idle_feeds(loaded, feeds, zones)
    words = _name_words(loaded, faults)
    for number, what, advice in url_faults(settings.notify.urls):
        faults.append(loaded.fault(("notify", "urls", number), f"notify.urls: {what}", advice))
    if faults:
        raise ConfigError(in_order(faults))
    hide = hider(zones, providers)
    for jail in jails:
        jail.hide = hide
    zones, note = _askable(zones, servers, {use.feed.zone for use in feeds})
    return Assembly(loaded, layout, tuple(jails), zones, servers, note, words, providers, hide, feeds)


def name_points(dnsbl: Dnsbl) -> NamePoints:
    """What each kind of evidence from names counts."""
    return NamePoints(
        dnsbl.no_name_points, dnsbl.unconfirmed_points, dnsbl.generic_points, dnsbl.helo_points, dnsbl.spf_points
    )


def _rules(loaded: Loaded, name: str, jail: Jail, scope: str, scopes: dict[str, tuple[int, ...]]) -> Rules:
    """The jail's values where it has its own, else the defaults."""
    defaults, dnsbl = loaded.settings.defaults, loaded.settings.dnsbl

    def own(key: str) -> object:
        return getattr(jail if key in jail.model_fields_set else defaults, key)

    return Rules(
        jail=name,
        scope=scope,
        policy_limit=dnsbl.policy_limit,
        names=name_points(dnsbl),
        mailer_factor=dnsbl.mailer_factor,
        smtp=scope == ALL or SMTP_PORT in scopes[scope],
        **{  # type: ignore[arg-type]  # the schema checked each
            key: own(key) for key in ("maxretry", "findtime", "bantime", "bantime_max", "bantime_factor", "spare_login")
        },
    )


def _toml_jails(loaded: Loaded) -> Iterator[_Wanted]:
    for name, jail in loaded.settings.jail.items():
        if jail.enabled:

            def fault(key: str, what: str, advice: str = "", *, jail_name: str = name) -> Fault:
                return loaded.fault(("jail", jail_name, key), f"jail.{jail_name}.{key}: {what}", advice)

            yield _Wanted(name, jail, PrefixSet(jail.ignore), fault)


def _fail2ban_jails(loaded: Loaded, faults: list[Fault]) -> Iterator[_Wanted]:
    """Enabled jails of jail.local and jail.d, in fail2ban's words, as ours."""
    folder = loaded.folder
    drop_ins = [p for ending in ("conf", "local") for p in sorted((folder / "jail.d").glob(f"*.{ending}"))]
    entries, bad = jailfile.load(
        [p for p in (*drop_ins, folder / "jail.local") if p.is_file()], [FAIL2BAN_FILTERS.parent]
    )
    faults += bad
    for entry in entries:
        if not entry.enabled or entry.name in loaded.settings.jail:
            continue

        def fault(key: str, what: str, advice: str = "", *, entry: jailfile.JailEntry = entry) -> Fault:
            return Fault(entry.file, entry.line, f"jail [{entry.name}], {key}: {what}", advice)

        given = {
            "maxretry": entry.maxretry,
            "findtime": entry.findtime,
            # fail2ban's -1 is a word of its own: whoever wrote it meant it.
            "bantime": "permanent" if entry.bantime is not None and entry.bantime < 0 else entry.bantime,
        }
        jail = Jail.model_validate(
            {
                "filter": entry.filter,
                "logpath": entry.logpath,
                "journalmatch": entry.journalmatch if entry.logpath[0].startswith("journal") else (),
                "port": "all" if entry.port in ("", "all", "any", "0:65535") else entry.port,
                **{key: value for key, value in given.items() if value is not None},
            }
        )
        ignored = []
        for text in entry.ignoreip:
            try:
                ignored.append(Prefix.parse(text))
            except ValueError:
                faults.append(
                    fault("ignoreip", f"{text!r} is not an address", "host names are not looked up: write addresses")
                )
        yield _Wanted(entry.name, jail, PrefixSet(ignored), fault)


def _jail(
    loaded: Loaded, wanted: _Wanted, scopes: dict[str, tuple[int, ...]], directories: tuple[Path, ...]
) -> JailSetup | list[Fault]:
    name, jail = wanted.name, wanted.jail
    at = wanted.fault("filter", "")
    found = filterfile.load(jail.filter, directories, file=at.file, line=at.line)
    faults = list(found) if isinstance(found, tuple) else []
    scope = ALL
    try:
        scope = _scope(jail.port, scopes)
    except ValueError as e:
        faults.append(wanted.fault("port", str(e), f'write one of {", ".join(scopes)}, or ports: "smtp,submission"'))
    logpaths = _logpaths(wanted, () if isinstance(found, tuple) else found.journalmatch, faults)
    if isinstance(found, tuple) or faults:
        return faults
    rules = _rules(loaded, name, jail, scope, scopes)
    defaults = loaded.settings.defaults
    return JailSetup(
        name,
        jail.filter,
        rules,
        jail.verify_at if jail.verify_at is not None else defaults.verify_at,
        jail.dnsbl,
        logpaths,
        wanted.ignore,
        found,
        # A known mailer is banned at more points than others: so many offences have to be held.
        Windows(
            name,
            rules.findtime,
            rules.maxretry,
            kept=max(20, rules.maxretry * ((rules.mailer_factor if rules.smtp else 1) + 1)),
            count4=defaults.count4,
            count6=defaults.count6,
            prefixes=defaults.offenders,
        ),
        jail.storm if "storm" in jail.model_fields_set else defaults.storm,
    )


def _logpaths(wanted: _Wanted, filter_matches: tuple[str, ...], faults: list[Fault]) -> tuple[str, ...]:
    """The jail's log paths; one that names the journal with what is read of it."""
    jail = wanted.jail
    if not jail.logpath:
        faults.append(wanted.fault("logpath", "names no file"))
    journals = [path for path in jail.logpath if is_journal(path)]
    if jail.journalmatch and not journals:
        faults.append(wanted.fault("journalmatch", "logpath does not name the journal", 'write logpath = "journal"'))
    matches = jail.journalmatch or filter_matches
    if journals and not matches and not faults:
        what = f"the filter {jail.filter} does not say what it reads of the journal"
        faults.append(wanted.fault("logpath", what, 'write for example journalmatch = "_SYSTEMD_UNIT=ssh.service"'))
    paths = []
    for path in jail.logpath:
        try:
            paths.append(journal_spec(path, matches) if path in journals else path)
        except ValueError as e:
            faults.append(wanted.fault("journalmatch" if jail.journalmatch else "logpath", str(e)))
    return tuple(paths)


def _scope(port: object, scopes: dict[str, tuple[int, ...]]) -> str:
    """The scope that `port` names; ports without a name get a scope of their own, added to `scopes`."""
    if isinstance(port, str) and port in scopes:
        return port
    ports = port_list(port)
    if ports == tuple(range(1, 65536)):
        return ALL
    for name, known in scopes.items():
        if known == ports:
            return name
    name = f"ports-{'-'.join(map(str, ports))}"
    if len(name) > 32:
        # Made of nothing but the ports: bans in the store name their scope, and it must be the same after a restart.
        name = f"ports-{ports[0]}-{crc32(repr(ports).encode()):08x}"
    scopes[name] = ports
    return name


def _servers(loaded: Loaded, faults: list[Fault]) -> tuple[Server, ...]:
    servers = []
    for i, text in enumerate(loaded.settings.dns.servers):
        try:
            servers.append(dns_servers.parse_server(text))
        except ValueError as e:
            faults.append(loaded.fault(("dns", "servers", i), f"dns.servers: {e}"))
    return tuple(dict.fromkeys(servers)) or dns_servers.system_servers()


def _zones(loaded: Loaded, providers: tuple[Provider, ...], faults: list[Fault]) -> tuple[Zone, ...]:
    zones, bad_zones = configured_zones(loaded.settings.dnsbl.zones, providers)
    faults += [loaded.fault(("dnsbl", "zones", z.entry), f"dnsbl.zones: {z.what}", z.advice) for z in bad_zones]
    return zones


def _name_words(loaded: Loaded, faults: list[Fault]) -> NameWords:
    own = loaded.folder / "rules" / "names.toml"
    path = own if own.is_file() else shipped_rules() / "names.toml"
    try:
        return parse_words(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        faults.append(Fault(str(path), 0, f"cannot be used: {e}", "write the lists access, fixed and cloud"))
        return NO_WORDS


def _idle_feeds(loaded: Loaded, feeds: Iterable[FeedInUse], zones: Iterable[Zone]) -> list[Fault]:
    """Feeds that are in use for a zone only, which nobody asks."""
    asked = {zone.display for zone in zones}
    idle = [u.feed for u in feeds if u.feed.zone and u.feed.zone not in asked and not (u.enforce or u.points)]
    advice = "add the zone to dnsbl.zones, or write enforce = true, or points = 2"
    what = "feed.{}: it answers for {}, which is not in dnsbl.zones, and is used for nothing else"
    return [loaded.fault(("feed", feed.name), what.format(feed.name, feed.zone), advice) for feed in idle]


def _askable(
    zones: tuple[Zone, ...], servers: tuple[Server, ...], here: Collection[str]
) -> tuple[tuple[Zone, ...], str | None]:
    """The zones that may be asked through these resolvers; here: those whose data are on this machine.  Operators
    answer questions through big public resolvers with an error or, worse, with "not listed" for everybody."""
    asked = [(s, b) for s in servers for b in (s, *dns_servers.forwarded_to(s))]
    named = [(s, b, name) for s, b in asked if (name := dns_servers.public_resolver(str(b)))]
    public = [f"{b} ({name}){'' if b == s else f', which {s} asks,'}" for s, b, name in named]
    open_zones = [z for z in zones if not (z.keyed or z.display in here)]
    if not public or not open_zones:
        return zones, None
    note = (
        f"DNSBLs are not asked: {', '.join(public)} is a public resolver, which they refuse or answer wrongly. "
        "Run a resolver of your own (apt install unbound) and set dns.servers to it, or use a zone with an account key."
    )
    return tuple(z for z in zones if z not in open_zones), note
