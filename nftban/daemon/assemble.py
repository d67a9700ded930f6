"""From settings to the parts that run: jails with compiled filters, the kernel layout, zones, resolver.

Takes loaded settings; reads the data they name: filters, jail.local files, rules/dnsbl.  Gives an `Assembly`, or
raises ConfigError with every fault of all of them.
Guarantees: nothing is started, asked or written; what cannot work is a fault here, not a surprise later.  Jails in
fail2ban's files (jail.local and jail.d/*.conf, *.local beside nftban.toml) are taken as they are, after those of
nftban.toml; a jail of the same name in nftban.toml wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from nftban.config.load import Loaded, UnfinishedConfigError, in_order, load, shipped_rules
from nftban.config.schema import Jail
from nftban.config.words import port_list
from nftban.detect import filterfile, jailfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Logged, Matcher
from nftban.detect.windows import Windows
from nftban.errors import ConfigError, Fault, UsageError
from nftban.judge import Rules
from nftban.kernel.layout import ALL, Layout, Log, Scope
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Login, LogLine, Offence
from nftban.verify import servers as dns_servers
from nftban.verify.health import Health, Transition
from nftban.verify.providers import load_providers
from nftban.verify.quota import Quota
from nftban.verify.resolver import Resolver
from nftban.verify.servers import Server
from nftban.verify.verify import Verifier
from nftban.verify.zones import Zone, configured_zones

FAIL2BAN_FILTERS = Path("/etc/fail2ban/filter.d")


@dataclass(slots=True)
class JailSetup:
    """A jail ready to run.  rules: for the judgement; verify_at: points from which DNS is asked; ignore: whose
    offences it does not count; offences: counted since the start."""

    name: str
    filter: str
    rules: Rules
    verify_at: int
    dnsbl: bool
    logpaths: tuple[str, ...]
    ignore: PrefixSet
    compiled: Filter
    windows: Windows
    offences: int = 0
    matchers: dict[str, Matcher] = field(default_factory=dict)

    def match(self, line: LogLine, now: float) -> Offence | Login | Logged | None:
        """What the jail's filter makes of a line; sessions are told apart by log, so each log has its matcher."""
        matcher = self.matchers.get(line.source)
        if matcher is None:
            matcher = self.matchers[line.source] = Matcher(self.compiled, report=self.report)
        return matcher.match(line, now, rules)

    def inherit(self, before: JailSetup) -> None:
        """Goes on with what a jail of this name has counted, and with sessions under way, where both count alike."""
        self.offences = before.offences
        self.windows.inherit(before.windows)
        if self.compiled == before.compiled:
            self.matchers = before.matchers


@dataclass(frozen=True, slots=True)
class Assembly:
    """All parts.  dns_note: why DNSBLs are not asked although they are configured, None where they are."""

    loaded: Loaded
    layout: Layout
    jails: tuple[JailSetup, ...]
    zones: tuple[Zone, ...]
    servers: tuple[Server, ...]
    dns_note: str | None

    @property
    def resolver_prefixes(self) -> tuple[Prefix, ...]:
        """The resolvers' addresses: banning one would blind us."""
        return tuple(Prefix.parse(s.host.partition("%")[0]) for s in self.servers)

    def masked(self, text: str) -> str:
        """A log line without our account keys: the mail server logs whole zone names."""
        for zone in self.zones:
            if zone.keyed:
                text = re.sub(re.escape(zone.name), zone.display, text, flags=re.IGNORECASE)
        return text

    def verifier(self, changed: Callable[[Transition], None] = lambda _: None) -> Verifier:
        """A verifier on these zones; must be called inside an event loop."""
        settings = self.loaded.settings
        resolver = Resolver([str(s) for s in self.servers], timeout=settings.dns.deadline)
        return Verifier(
            self.zones,
            resolver,
            Health(self.zones, settings.dnsbl.test_every),
            Quota(self.zones, settings.dnsbl.daily_budget),
            reverse=settings.dnsbl.reverse,
            deadline=settings.dns.deadline,
            skip=PrefixSet(settings.allow.prefixes),
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
        )
    except UsageError as e:
        faults.append(loaded.fault(("scopes",), f"scopes: {e}", e.advice))
    servers = _servers(loaded, faults)
    zones = _zones(loaded, faults) if settings.dnsbl.enabled else ()
    if faults:
        raise ConfigError(in_order(faults))
    zones, note = _askable(zones, servers)
    return Assembly(loaded, layout, tuple(jails), zones, servers, note)


def _rules(loaded: Loaded, name: str, jail: Jail, scope: str) -> Rules:
    """The jail's values where it has its own, else the defaults."""
    defaults, dnsbl = loaded.settings.defaults, loaded.settings.dnsbl

    def own(key: str) -> object:
        return getattr(jail if key in jail.model_fields_set else defaults, key)

    return Rules(
        jail=name,
        scope=scope,
        policy_limit=dnsbl.policy_limit,
        no_name_points=dnsbl.no_name_points,
        unconfirmed_points=dnsbl.unconfirmed_points,
        **{  # type: ignore[arg-type]  # the schema checked each
            key: own(key) for key in ("maxretry", "findtime", "bantime", "bantime_max", "bantime_factor", "spare_login")
        },
    )


def _toml_jails(loaded: Loaded) -> Iterator[_Wanted]:
    for name, jail in loaded.settings.jail.items():
        if jail.enabled:

            def fault(key: str, what: str, advice: str = "", *, jail_name: str = name) -> Fault:
                return loaded.fault(("jail", jail_name, key), f"jail.{jail_name}.{key}: {what}", advice)

            yield _Wanted(name, jail, PrefixSet(), fault)


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
    if not jail.logpath:
        faults.append(wanted.fault("logpath", "names no file"))
    if isinstance(found, tuple) or faults:
        return faults
    rules = _rules(loaded, name, jail, scope)
    defaults = loaded.settings.defaults
    return JailSetup(
        name,
        jail.filter,
        rules,
        jail.verify_at if jail.verify_at is not None else defaults.verify_at,
        jail.dnsbl,
        jail.logpath,
        wanted.ignore,
        found,
        Windows(name, rules.findtime, rules.maxretry, count4=defaults.count4, count6=defaults.count6),
    )


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


def _zones(loaded: Loaded, faults: list[Fault]) -> tuple[Zone, ...]:
    own = loaded.folder / "rules" / "dnsbl"
    providers, bad_data = load_providers([own, shipped_rules() / "dnsbl"])
    zones, bad_zones = configured_zones(loaded.settings.dnsbl.zones, providers)
    faults += bad_data
    faults += [loaded.fault(("dnsbl", "zones", z.entry), f"dnsbl.zones: {z.what}", z.advice) for z in bad_zones]
    return zones


def _askable(zones: tuple[Zone, ...], servers: tuple[Server, ...]) -> tuple[tuple[Zone, ...], str | None]:
    """The zones that may be asked through these resolvers.  Operators answer questions through big public resolvers
    with an error or, worse, with "not listed" for everybody."""
    public = [f"{s} ({name})" for s in servers if (name := dns_servers.public_resolver(str(s)))]
    open_zones = [z for z in zones if not z.keyed]
    if not public or not open_zones:
        return zones, None
    note = (
        f"DNSBLs are not asked: {', '.join(public)} is a public resolver, which they refuse or answer wrongly. "
        "Run a resolver of your own (apt install unbound) and set dns.servers to it, or use a zone with an account key."
    )
    return tuple(z for z in zones if z.keyed), note
