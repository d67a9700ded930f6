"""What the command line can ask for: the same functions in the daemon, behind its socket, and without one.

Takes an operation's name and its arguments as JSON values; gives its result as JSON values (docs/interface.md lists
both).  Guarantees: arguments are checked before anything happens; of several prefixes each is done or refused on its
own; `ban` never covers what lockout.py protects, nor where the command comes from.
Does not: speak on sockets, print.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from nftban import __version__
from nftban.config.load import Loaded
from nftban.daemon import allowing
from nftban.daemon.allowlist import AllowList
from nftban.daemon.answers import (
    ban_row,
    compared_row,
    entry_row,
    evidence_rows,
    known_row,
    offence_row,
    watched_row,
    zone_row,
)
from nftban.daemon.arguments import known_scope, length_of, prefix_of, text_of, texts_of, truth_of
from nftban.daemon.assemble import assemble, name_points
from nftban.daemon.bans import Bans
from nftban.daemon.export import nft_text
from nftban.daemon.house import House, Json
from nftban.daemon.lockout import Lockout
from nftban.daemon.outlook import outlook
from nftban.daemon.telling import Telling
from nftban.errors import StoreError, UsageError
from nftban.judge import name_parts
from nftban.kernel import Kernel
from nftban.kernel.memory import MemoryKernel
from nftban.kernel.netlink import NetlinkKernel
from nftban.plain import to_plain
from nftban.prefixes import Prefix, parse_range
from nftban.protect import host
from nftban.records import Answer, Ban, Event, Origin
from nftban.store.checked import last_check
from nftban.store.sqlite import Store, StoredBan
from nftban.verify.verify import Told

NAMED = 1000
"""Differences of a kind that `verify` names; it counts all."""

HOW_TO_WRITE = "write 192.0.2.7, 2001:db8::/64 or 192.0.2.5-192.0.2.20"


class Operations:
    """The operations by name."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._telling = Telling(house)
        self._by_name: dict[str, Callable[..., Awaitable[Json]]] = {
            "ping": self.ping,
            "ban": self.ban,
            "unban": self.unban,
            "query": self.query,
            "list": self.list_bans,
            "why": self.why,
            "check": self.check,
            "status": self.status,
            "verify": self.verify,
            "allow": self.allow,
            "allow_add": self.allow_add,
            "allow_remove": self.allow_remove,
            "export": self.export,
            "zones": self.zones,
            "test_zones": self.test_zones,
            "feed_list": self.feed_list,
            "feed_sync": self.feed_sync,
            **self._telling.by_name,
        }

    async def call(self, op: str, args: Json) -> Json:
        """Does one operation; raises UsageError for an unknown one or arguments it does not take."""
        operation = self._by_name.get(op)
        if operation is None:
            raise UsageError(f"there is no operation {op!r}", f"there are: {', '.join(self._by_name)}")
        try:
            running = operation(**args)
        except TypeError as e:
            raise UsageError(f"operation {op!r}: {str(e).partition('() ')[2] or e}") from None
        return await running

    def release(self) -> None:
        """Whoever only waits for something to happen gets his answer now."""
        self._telling.release()

    async def ping(self) -> Json:
        return {"version": __version__, "pid": os.getpid()}

    async def ban(
        self,
        prefixes: list[str],
        seconds: float | None = None,
        permanent: bool = False,
        scope: str = "all",
        reason: str = "",
        client: str | None = None,
    ) -> Json:
        """Bans prefixes by hand.  seconds None: as long as [defaults] bantime says; permanent needs its own word."""
        house = self._house
        wanted, reason = texts_of(prefixes, "prefixes"), text_of(reason, "reason")
        length = length_of(seconds, house.loaded.settings.defaults.bantime)
        if truth_of(permanent, "permanent"):
            length = None
        known_scope(house, scope)
        caller = None if client is None else host.ssh_connection(text_of(client, "client"))
        protected = await house.lockout.current([] if caller is None else [caller])
        banned, refused = [], []
        for text in wanted:
            try:
                pieces = parse_range(text)
            except ValueError as e:
                refused.append({"prefix": text, "reason": str(e), "advice": HOW_TO_WRITE})
                continue
            for objection in filter(None, map(protected.objection, pieces)):
                # Nothing of a range is banned where a part of it must not be.
                refused.append({"prefix": text, "reason": objection, "advice": ""})
                break
            else:
                for prefix in pieces:
                    now = house.clock()
                    until = None if length is None else now + length
                    faults = house.bans.place(Ban(prefix, scope, now, until, Origin.MANUAL, reason=reason), now)
                    words = [f"the kernel refused it: {f.reason}" for f in faults]
                    refused += [{"prefix": str(prefix), "reason": w, "advice": ""} for w in words]
                    if not faults and (stored := house.bans.get(prefix, scope)) is not None:
                        banned.append(ban_row(stored))
                        self._tell(now, "ban", f"{prefix} banned in scope {scope} by hand", prefix)
        return {"banned": banned, "refused": refused}

    async def unban(self, prefixes: list[str] | None = None, all: bool = False) -> Json:
        """Lifts the bans of these prefixes and of what lies in them, in every scope; or all bans.

        A prefix inside a wider ban is let out of it.  A ban that a log led to goes as a whole: it was made for those
        who are counted together.  Any other goes on for the rest of its addresses.
        """
        house = self._house
        now = house.clock()
        unbanned: list[Json] = []
        missing: list[Json] = []
        split: list[Json] = []
        if truth_of(all, "all"):
            for stored in house.bans.all(now):
                self._lift(stored, now)
                unbanned.append(ban_row(stored))
            return {"unbanned": unbanned, "not_banned": missing, "split": split}
        for text in texts_of(prefixes, "prefixes"):
            try:
                pieces = parse_range(text)
            except ValueError as e:
                missing.append({"prefix": text, "reason": str(e), "advice": HOW_TO_WRITE})
                continue
            found = False
            for prefix in pieces:
                for key in house.bans.overlapping(prefix):
                    if (there := house.bans.get(*key)) is None:
                        continue  # it was lifted with one before it
                    found, ban = True, there.ban
                    if ban.origin is Origin.LOG or prefix.contains(ban.prefix):
                        self._lift(there, now)
                        unbanned.append(ban_row(there))
                    else:
                        into = house.bans.split(there, prefix, now)
                        unbanned.append({**ban_row(there), "prefix": str(prefix)})
                        self._tell(now, "unban", f"{prefix}: let out of the ban of {ban.prefix} by hand", prefix)
                        split.append({**ban_row(there), "into": [str(s.ban.prefix) for s in into]})
                if house.pipeline is not None:
                    house.pipeline.forget(prefix)
            stopped = [said for prefix in pieces for said in self._on_feeds(prefix)]
            missing += stopped
            if not found and not stopped:
                missing.append({"prefix": text, "reason": f"{text} is not banned", "advice": ""})
        return {"unbanned": unbanned, "not_banned": missing, "split": split}

    async def query(self, address: str) -> Json:
        """Is it banned, by which entries?"""
        house = self._house
        prefix = prefix_of(address)
        entries = self._entries(prefix)
        protected = (await house.lockout.current()).reason(prefix)
        return {
            "address": str(prefix),
            "banned": any(e["scope"] for e in entries) and protected is None,
            "entries": [e for e in entries if e["scope"]],
            "protected": protected,
        }

    async def list_bans(self) -> Json:
        """The live bans, and whether the kernel has each."""
        house = self._house
        now = house.clock()
        missing = {(e.set, e.first) for e in house.bans.difference(now).added()}
        rows = []
        for stored in house.bans.all(now):
            element = house.assembly.layout.place(stored.ban.prefix, stored.ban.scope)
            # Ranges are cut and joined in the kernel: there it is asked about the ban's own addresses.
            interval = house.assembly.layout.address_sets[element.set].interval
            there = self._in_kernel(stored.ban) if interval else (element.set, element.first) not in missing
            rows.append({**ban_row(stored), "in_kernel": there})
        return {"bans": rows}

    async def why(self, address: str) -> Json:
        """Everything known about an address: bans with all that led to them, what is held against it now."""
        house = self._house
        prefix = prefix_of(address)
        now = house.clock()
        stored = house.store.bans_covering(prefix)
        bans = [self._explained(each) for each in stored]
        judged = house.pipeline.watched(prefix, now) if house.pipeline is not None else []
        entries = [e for e in self._entries(prefix) if e["scope"]]
        protected = (await house.lockout.current()).reason(prefix)
        login = house.store.login(prefix)
        feeds = house.feeds.holding(prefix) if house.feeds is not None else []
        note = ""
        if house.pipeline is None:
            note = "the daemon does not run: what it counted but did not ban is not known"
        elif not bans and not judged and not feeds:
            note = "nothing is known about this address: no ban, and no offence in any jail's window"
        return {
            "address": str(prefix),
            "banned": bool(entries) and protected is None,
            "protected": protected,
            "login": {"time": login.time, "user": login.user} if login else None,
            "bans": bans,
            "watched": [watched_row(house, j) for j in judged],
            "kernel": entries,
            "feeds": feeds,
            "note": note,
            **outlook(house, prefix, stored, judged, protected, now),
        }

    async def check(self, address: str, helo: str = "") -> Json:
        """Asks the DNSBLs and reverse DNS about an address now; helo: the name it gave itself, to be checked too."""
        house = self._house
        prefix = prefix_of(address)
        if not prefix.is_single and not (prefix.family == 6 and prefix.length >= 64):
            raise UsageError(f"{prefix} is not a single address", "DNSBLs list addresses; name one of them")
        evidence = await house.verifier.evidence(prefix, house.clock(), Told(helo=text_of(helo, "helo")))
        listed = [e for e in evidence.listings if e.answer is Answer.LISTED]
        every = sum(e.points for e in listed)
        dnsbl = house.loaded.settings.dnsbl
        said = [p for p in name_parts(evidence, name_points(dnsbl)) if p.points]
        policy = sum(e.policy_points for e in listed) + sum(p.points for p in said)
        return {
            "address": str(prefix),
            **evidence_rows(evidence),
            "names": to_plain(said),
            "points": {"all": every, "smtp": every + min(policy, dnsbl.policy_limit)},
            "note": house.assembly.dns_note,
        }

    async def zones(self) -> Json:
        """The DNSBLs that are asked, and what is known of others."""
        assembly = self._house.assembly
        asked = {id(zone.provider) for zone in assembly.zones}
        return {
            "zones": [zone_row(z) for z in self._house.verifier.status(self._house.clock())],
            "known": [known_row(p) for p in assembly.providers if id(p) not in asked],
            "note": assembly.dns_note,
        }

    async def test_zones(self, zones: list[str] | None = None) -> Json:
        """Asks the test points of these zones now, of all if none is named."""
        verifier, now = self._house.verifier, self._house.clock()
        known = [zone.display for zone in verifier.zones]
        wanted = known if zones is None else texts_of(zones, "zones")
        for zone in wanted:
            if zone not in known:
                raise UsageError(f"{zone[:100]!r} is not asked", f"dnsbl.zones has: {', '.join(known) or 'none'}")
        await verifier.test_zones(now, every=True, only=wanted)
        rows = [zone_row(z) for z in verifier.status(now) if z.zone in wanted]
        return {"zones": rows, "known": [], "note": self._house.assembly.dns_note}

    async def feed_list(self) -> Json:
        """The feeds in use, as they are now."""
        return {"feeds": self._house.feeds.rows() if self._house.feeds is not None else []}

    async def feed_sync(self, names: list[str] | None = None, accept: bool = False) -> Json:
        """Fetches these feeds, those that are due if none is named; the kernel follows."""
        feeds = self._house.feeds
        wanted = None if names is None else texts_of(names, "names")
        accept = truth_of(accept, "accept")
        if feeds is None:
            raise UsageError("no feed is in use", "write a table [feed.NAME] into the settings, and reload")
        return {"feeds": await feeds.sync(wanted, accept)}

    async def status(self) -> Json:
        """The state of the daemon; without one, of store and kernel."""
        house = self._house
        now = house.clock()
        drift = house.kernel.drift()
        counts = house.kernel.counts()
        # An old kernel tells no numbers; there the sets are listed.
        elements = {n: c if c is not None else len(house.kernel.present(now, {n})) for n, c in counts.items()}
        return {
            "version": __version__,
            "bans": len(house.bans),
            "config": [str(f) for f in house.loaded.files],
            "kernel": {
                "table": house.assembly.layout.table,
                "intact": not drift,
                "drift": drift,
                "elements": {n: c for n, c in elements.items() if c},
            },
            "zones": [zone_row(z) for z in house.verifier.status(now)],
            "dns": {"servers": [str(s) for s in house.assembly.servers], "note": house.assembly.dns_note},
            "events": [{"time": e.time, "kind": e.kind, "text": e.text} for e in house.store.events()],
            **(house.status() if house.status is not None else {}),
            **({"notify": house.notify.status()} if house.notify is not None and house.notify.wanted else {}),
        }

    def _tell(self, now: float, kind: str, text: str, prefix: Prefix) -> None:
        """An event for those who watch."""
        with contextlib.suppress(StoreError):
            self._house.store.add_event(Event(now, kind, text, prefix))

    def _lift(self, stored: StoredBan, now: float) -> None:
        prefix, scope = stored.ban.prefix, stored.ban.scope
        self._house.bans.lift(prefix, scope, now, "unbanned")
        self._tell(now, "unban", f"{prefix}: ban in scope {scope} lifted by hand", prefix)
        if self._house.pipeline is not None:
            self._house.pipeline.forget(stored.ban.prefix)

    async def verify(self) -> Json:
        """Is the kernel as intended: table, chains, sets, rules and every element?  Changes nothing."""
        house = self._house
        now = house.clock()
        frame = house.kernel.drift()
        delta = house.bans.difference(now, exact=True)
        found = {"missing": tuple(delta.added()), "unwanted": delta.delete, "wrong_expiry": delta.refresh}
        return {
            "equal": not frame and not delta,
            "elements": sum(map(len, house.bans.desired().values())),
            "frame": frame,
            "counts": {kind: len(elements) for kind, elements in found.items()},
            **{
                kind: [compared_row(house, e, now if kind == "wrong_expiry" else None) for e in elements[:NAMED]]
                for kind, elements in found.items()
            },
        }

    async def export(self) -> Json:
        """The table and its bans as text for nft(8)."""
        house = self._house
        return {"nft": nft_text(house.assembly.layout, house.bans.desired(), house.clock())}

    async def allow(self) -> Json:
        """The allow list."""
        return allowing.listed(self._house)

    async def allow_add(self, entries: list[str], reason: str = "") -> Json:
        """Never bans these addresses, prefixes or host names from now on."""
        return await allowing.add(self._house, entries, reason)

    async def allow_remove(self, entries: list[str]) -> Json:
        """Takes entries off again that `allow_add` has put on the list."""
        return await allowing.remove(self._house, entries)

    def _on_feeds(self, prefix: Prefix) -> list[Json]:
        """Which feeds stop it, for whoever tried to lift a ban: a feed's entry would come back."""
        entries = self._entries(prefix)
        return [
            {
                "prefix": str(prefix),
                "reason": f"{prefix} is on the feed {entry['feed']} ({entry['prefix']}), and stays stopped",
                "advice": f"nftban allow add {prefix}",
            }
            for entry in entries
            if entry["feed"] and all(e["scope"] for e in entries)
        ]

    def _in_kernel(self, ban: Ban) -> bool:
        found = self._house.kernel.find(ban.prefix, self._house.clock())
        sets = self._house.assembly.layout.address_sets
        return any(f.scope == ban.scope and not sets[f.element.set].feed for f in found)

    def _entries(self, prefix: Prefix) -> list[Json]:
        house = self._house
        now = house.clock()
        covering = house.bans.covering(prefix)
        return [entry_row(house, f, covering) for f in house.kernel.find(prefix, now)]

    def _explained(self, stored: StoredBan) -> Json:
        ban = self._house.store.detail(stored.id)
        verdict, evidence = ban.verdict, ban.evidence
        checked = last_check(self._house.store, stored.id)
        return {
            **ban_row(stored),
            "checked": {"time": checked[0], "words": checked[1]} if checked else None,
            "rule": verdict.rule if verdict else "",
            "parts": to_plain(verdict.parts) if verdict else [],
            "duration": None if ban.until is None else ban.until - ban.since,
            "needs_listing": stored.needs_listing,
            **evidence_rows(evidence),
            "offences": [offence_row(self._house, o) for o in ban.offences],
            "ended": {"time": stored.ended, "how": stored.how} if stored.ended is not None else None,
        }


@asynccontextmanager
async def direct(loaded: Loaded) -> AsyncIterator[Operations]:
    """The operations on store and kernel themselves, for when no daemon runs."""
    assembly = assemble(loaded)
    observe = loaded.settings.daemon.observe
    store = Store(loaded.state_path.with_name("observe.db") if observe else loaded.state_path)
    try:
        kernel: Kernel = MemoryKernel(assembly.layout, time.time) if observe else NetlinkKernel(assembly.layout)
        allow = AllowList(store, loaded.settings.allow.prefixes, loaded.settings.allow.names)
        lockout = Lockout(loaded.settings, assembly.resolver_prefixes, allow)
        bans = Bans(store, kernel, assembly.layout, (await lockout.current()).allow)
        now = time.time()
        bans.load(now)
        if observe:
            bans.reconcile(bans.allow, now)
        verifier = assembly.verifier()
        verifier.restore(store.state("verifier") or {}, now)

        async def reconcile() -> None:
            protected = await lockout.current()
            for prefix, scope in bans.objectionable(protected):
                bans.lift(prefix, scope, time.time(), "protected")
            bans.reconcile(protected.allow, time.time())

        house = House(loaded, assembly, store, kernel, bans, lockout, verifier, time.time, allow, reconcile)
        try:
            yield Operations(house)
        finally:
            store.set_state("verifier", verifier.export())
            await verifier.close()
    finally:
        store.close()
