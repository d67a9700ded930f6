"""What the command line can ask for: the same functions in the daemon, behind its socket, and without one.

Takes an operation's name and its arguments as JSON values; gives its result as JSON values (docs/interface.md lists
both).  Guarantees: arguments are checked before anything happens; of several prefixes each is done or refused on its
own; `ban` never covers what lockout.py protects, nor where the command comes from.
Does not: speak on sockets, print.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from nftban import __version__
from nftban.config.load import Loaded
from nftban.daemon.answers import ban_row, compared_row, entry_row, evidence_rows, offence_row, watched_row, zone_row
from nftban.daemon.arguments import known_scope, length_of, prefix_of, text_of, texts_of, truth_of
from nftban.daemon.assemble import assemble
from nftban.daemon.bans import Bans
from nftban.daemon.house import House, Json
from nftban.daemon.lockout import Lockout
from nftban.errors import UsageError
from nftban.kernel.netlink import NetlinkKernel
from nftban.plain import to_plain
from nftban.prefixes import Prefix, parse_range
from nftban.protect import host
from nftban.records import Answer, Ban, Evidence, Origin
from nftban.store.sqlite import Store, StoredBan

NAMED = 1000
"""Differences of a kind that `verify` names; it counts all."""

HOW_TO_WRITE = "write 192.0.2.7, 2001:db8::/64 or 192.0.2.5-192.0.2.20"


class Operations:
    """The operations by name."""

    def __init__(self, house: House) -> None:
        self._house = house
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
                        split.append({**ban_row(there), "into": [str(s.ban.prefix) for s in into]})
                if house.pipeline is not None:
                    house.pipeline.forget(prefix)
            if not found:
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
        bans = [self._explained(stored) for stored in house.store.bans_covering(prefix)]
        judged = house.pipeline.watched(prefix, now) if house.pipeline is not None else []
        entries = [e for e in self._entries(prefix) if e["scope"]]
        protected = (await house.lockout.current()).reason(prefix)
        login = house.store.login(prefix)
        note = ""
        if house.pipeline is None:
            note = "the daemon does not run: what it counted but did not ban is not known"
        elif not bans and not judged:
            note = "nothing is known about this address: no ban, and no offence in any jail's window"
        return {
            "address": str(prefix),
            "banned": bool(entries) and protected is None,
            "protected": protected,
            "login": {"time": login.time, "user": login.user} if login else None,
            "bans": bans,
            "watched": [watched_row(house, j) for j in judged],
            "kernel": entries,
            "note": note,
        }

    async def check(self, address: str) -> Json:
        """Asks the DNSBLs and reverse DNS about an address now."""
        house = self._house
        prefix = prefix_of(address)
        if not prefix.is_single and not (prefix.family == 6 and prefix.length >= 64):
            raise UsageError(f"{prefix} is not a single address", "DNSBLs list addresses; name one of them")
        evidence = await house.verifier.evidence(prefix, house.clock())
        listed = [e for e in evidence.listings if e.answer is Answer.LISTED]
        every = sum(e.points for e in listed)
        policy = sum(e.policy_points for e in listed) + self._reverse_points(evidence)
        limit = house.loaded.settings.dnsbl.policy_limit
        return {
            "address": str(prefix),
            **evidence_rows(evidence),
            "points": {"all": every, "smtp": every + min(policy, limit)},
            "note": house.assembly.dns_note,
        }

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
        }

    def _lift(self, stored: StoredBan, now: float) -> None:
        self._house.bans.lift(stored.ban.prefix, stored.ban.scope, now, "unbanned")
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

    def _reverse_points(self, evidence: Evidence) -> int:
        dnsbl = self._house.loaded.settings.dnsbl
        if evidence.reverse.has_name is False:
            return dnsbl.no_name_points
        return dnsbl.unconfirmed_points if evidence.reverse.has_name and evidence.reverse.confirmed is False else 0

    def _in_kernel(self, ban: Ban) -> bool:
        found = self._house.kernel.find(ban.prefix, self._house.clock())
        return any(f.scope == ban.scope for f in found)

    def _entries(self, prefix: Prefix) -> list[Json]:
        house = self._house
        now = house.clock()
        covering = house.bans.covering(prefix)
        return [entry_row(house, f, covering) for f in house.kernel.find(prefix, now)]

    def _explained(self, stored: StoredBan) -> Json:
        ban = self._house.store.detail(stored.id)
        verdict, evidence = ban.verdict, ban.evidence
        return {
            **ban_row(stored),
            "rule": verdict.rule if verdict else "",
            "parts": to_plain(verdict.parts) if verdict else [],
            "duration": None if ban.until is None else ban.until - ban.since,
            "needs_listing": stored.needs_listing,
            **(evidence_rows(evidence) if evidence else {"listings": [], "reverse": None}),
            "offences": [offence_row(self._house, o) for o in ban.offences],
            "ended": {"time": stored.ended, "how": stored.how} if stored.ended is not None else None,
        }


@asynccontextmanager
async def direct(loaded: Loaded) -> AsyncIterator[Operations]:
    """The operations on store and kernel themselves, for when no daemon runs."""
    assembly = assemble(loaded)
    store = Store(loaded.state_path)
    try:
        kernel = NetlinkKernel(assembly.layout)
        lockout = Lockout(loaded.settings, assembly.resolver_prefixes)
        bans = Bans(store, kernel, assembly.layout, (await lockout.current()).allow)
        now = time.time()
        bans.load(now)
        verifier = assembly.verifier()
        verifier.restore(store.state("verifier") or {}, now)
        try:
            yield Operations(House(loaded, assembly, store, kernel, bans, lockout, verifier, time.time))
        finally:
            store.set_state("verifier", verifier.export())
            await verifier.close()
    finally:
        store.close()
