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
from dataclasses import dataclass
from typing import Any

from nftban import __version__
from nftban.config.load import Loaded
from nftban.daemon.assemble import Assembly, assemble
from nftban.daemon.bans import Bans
from nftban.daemon.lockout import Lockout
from nftban.daemon.pipeline import Judged, Pipeline
from nftban.errors import UsageError
from nftban.kernel import Found, Kernel
from nftban.kernel.netlink import NetlinkKernel
from nftban.plain import to_plain
from nftban.prefixes import Prefix, parse_range
from nftban.protect import host
from nftban.records import Answer, Ban, Element, Evidence, Offence, Origin
from nftban.store.sqlite import Store, StoredBan
from nftban.verify.verify import Verifier, ZoneStatus

Json = dict[str, Any]

NAMED = 1000
"""Differences of a kind that `verify` names; it counts all."""

HOW_TO_WRITE = "write 192.0.2.7, 2001:db8::/64 or 192.0.2.5-192.0.2.20"


@dataclass(slots=True)
class House:
    """Everything an operation may need.  pipeline and status are None without a daemon."""

    loaded: Loaded
    assembly: Assembly
    store: Store
    kernel: Kernel
    bans: Bans
    lockout: Lockout
    verifier: Verifier
    clock: Callable[[], float]
    pipeline: Pipeline | None = None
    status: Callable[[], Json] | None = None


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
        wanted, reason = _texts(prefixes, "prefixes"), _text(reason, "reason")
        length = _positive(seconds, house.loaded.settings.defaults.bantime)
        if _truth(permanent, "permanent"):
            length = None
        _known_scope(house, scope)
        caller = None if client is None else host.ssh_connection(_text(client, "client"))
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
                        banned.append(_ban(stored))
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
        if _truth(all, "all"):
            for stored in house.bans:
                self._lift(stored, now)
                unbanned.append(_ban(stored))
            return {"unbanned": unbanned, "not_banned": missing, "split": split}
        for text in _texts(prefixes, "prefixes"):
            try:
                pieces = parse_range(text)
            except ValueError as e:
                missing.append({"prefix": text, "reason": str(e), "advice": HOW_TO_WRITE})
                continue
            found = False
            for prefix in pieces:
                for stored in _overlapping(house, prefix):
                    found = True
                    ban = stored.ban
                    if ban.origin is Origin.LOG or prefix.contains(ban.prefix):
                        self._lift(stored, now)
                        unbanned.append(_ban(stored))
                    else:
                        into = house.bans.split(stored, prefix, now)
                        unbanned.append({**_ban(stored), "prefix": str(prefix)})
                        split.append({**_ban(stored), "into": [str(s.ban.prefix) for s in into]})
                if house.pipeline is not None:
                    house.pipeline.forget(prefix)
            if not found:
                missing.append({"prefix": text, "reason": f"{text} is not banned", "advice": ""})
        return {"unbanned": unbanned, "not_banned": missing, "split": split}

    async def query(self, address: str) -> Json:
        """Is it banned, by which entries?"""
        house = self._house
        prefix = _prefix(address)
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
        missing = {(e.set, e.first) for e in house.bans.difference(now).add}
        rows = []
        for stored in house.bans:
            if stored.ban.holds(now):
                element = house.assembly.layout.place(stored.ban.prefix, stored.ban.scope)
                # Ranges are cut and joined in the kernel: there it is asked about the ban's own addresses.
                interval = house.assembly.layout.address_sets[element.set].interval
                there = self._in_kernel(stored.ban) if interval else (element.set, element.first) not in missing
                rows.append({**_ban(stored), "in_kernel": there})
        return {"bans": rows}

    async def why(self, address: str) -> Json:
        """Everything known about an address: bans with all that led to them, what is held against it now."""
        house = self._house
        prefix = _prefix(address)
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
            "watched": [_watched(house, j) for j in judged],
            "kernel": entries,
            "note": note,
        }

    async def check(self, address: str) -> Json:
        """Asks the DNSBLs and reverse DNS about an address now."""
        house = self._house
        prefix = _prefix(address)
        if not prefix.is_single and not (prefix.family == 6 and prefix.length >= 64):
            raise UsageError(f"{prefix} is not a single address", "DNSBLs list addresses; name one of them")
        evidence = await house.verifier.evidence(prefix, house.clock())
        listed = [e for e in evidence.listings if e.answer is Answer.LISTED]
        every = sum(e.points for e in listed)
        policy = sum(e.policy_points for e in listed) + self._reverse_points(evidence)
        limit = house.loaded.settings.dnsbl.policy_limit
        return {
            "address": str(prefix),
            **_evidence(evidence),
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
            "zones": [_zone(z) for z in house.verifier.status(now)],
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
        found = {"missing": delta.add, "unwanted": delta.delete, "wrong_expiry": delta.refresh}
        return {
            "equal": not frame and not delta,
            "elements": len(house.bans.desired(now)),
            "frame": frame,
            "counts": {kind: len(elements) for kind, elements in found.items()},
            **{
                kind: [_compared(house, e, now if kind == "wrong_expiry" else None) for e in elements[:NAMED]]
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
        return [_entry(house, f, covering) for f in house.kernel.find(prefix, now)]

    def _explained(self, stored: StoredBan) -> Json:
        ban = self._house.store.detail(stored.id)
        verdict, evidence = ban.verdict, ban.evidence
        return {
            **_ban(stored),
            "rule": verdict.rule if verdict else "",
            "parts": to_plain(verdict.parts) if verdict else [],
            "duration": None if ban.until is None else ban.until - ban.since,
            "needs_listing": stored.needs_listing,
            **(_evidence(evidence) if evidence else {"listings": [], "reverse": None}),
            "offences": [_offence(self._house, o) for o in ban.offences],
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


# Arguments


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be text, not {value!r:.80}")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        # Bytes of a command line that are no UTF-8 come as these; the store takes none.
        raise UsageError(f"{name} is not valid UTF-8: {value!r:.80}")
    return value


def _truth(value: object, name: str) -> bool:
    # Not bool(value): "no" and "false" would be true.
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, not {value!r:.80}")
    return value


def _texts(value: object, name: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise UsageError(f"{name} must be a list of addresses or prefixes, at least one")
    return list(dict.fromkeys(value))


def _prefix(address: object) -> Prefix:
    try:
        return Prefix.parse(_text(address, "address"))
    except ValueError as e:
        raise UsageError(str(e), "write 192.0.2.7 or 2001:db8::7") from None


def _positive(seconds: object, otherwise: float | None) -> float | None:
    if seconds is None:
        return otherwise
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 100 * 31556952:
        raise UsageError(f"{seconds!r:.80} is not a duration", "give seconds, more than 0 and at most 100 years")
    return float(seconds)


def _known_scope(house: House, scope: object) -> None:
    names = [s.name for s in house.assembly.layout.scopes]
    if scope not in names:
        raise UsageError(f"there is no scope {scope!r:.80}", f"there are: {', '.join(names)}")


def _overlapping(house: House, prefix: Prefix) -> list[StoredBan]:
    """The live bans that cover the prefix or lie in it."""
    inside = [s for s in house.bans if prefix.contains(s.ban.prefix) and s.ban.prefix != prefix]
    return [*house.bans.covering(prefix), *inside]


# Results


def _ban(stored: StoredBan) -> Json:
    ban = stored.ban
    return {
        "prefix": str(ban.prefix),
        "scope": ban.scope,
        "since": ban.since,
        "until": ban.until,
        "origin": ban.origin.value,
        "jail": ban.jail,
        "reason": ban.reason,
        "score": stored.score,
        "threshold": stored.threshold,
    }


def _zone(status: ZoneStatus) -> Json:
    return {
        "zone": status.zone,
        "notation": status.notation,
        "state": str(status.state),
        "why": status.why,
        "since": status.since,
        "usable": status.usable,
        "queries_today": status.queries,
        "budget": status.budget,
        "tested": status.tested,
    }


def _entry(house: House, found: Found, covering: list[StoredBan]) -> Json:
    prefixes = [str(p) for p in house.assembly.layout.prefixes(found.element)]
    own = [s for s in covering if s.ban.scope == found.scope]
    return {
        "set": found.element.set,
        "prefix": ", ".join(prefixes),
        "scope": found.scope,
        "until": found.element.until,
        "packets": found.packets,
        "bytes": found.bytes,
        "ban": _ban(own[-1]) if own else None,
    }


def _compared(house: House, element: Element, now: float | None) -> Json:
    """An element in which intent and kernel differ; now: given where the kernel's own end of it is wanted."""
    layout = house.assembly.layout
    prefixes = list(layout.prefixes(element))
    last = Prefix(prefixes[0].family, element.last, prefixes[0].bits)
    row = {
        "set": element.set,
        "prefix": str(prefixes[0]) if len(prefixes) == 1 else f"{prefixes[0].address}-{last.address}",
        "scope": layout.address_sets[element.set].scope,
        "until": element.until,
    }
    if now is not None:
        there = [f.element.until for f in house.kernel.find(prefixes[0], now) if f.element == element]
        row["kernel_until"] = there[0] if there else None
    return row


def _offence(house: House, offence: Offence) -> Json:
    masked = house.assembly.masked
    return {
        "time": offence.time,
        "filter": offence.filter,
        "rule": offence.rule,
        "weight": offence.weight,
        "service": offence.service.value,
        "facts": {name: masked(text) for name, text in offence.facts},
        "source": offence.source,
        "line": masked(offence.line),
    }


def _evidence(evidence: Evidence) -> Json:
    return {"listings": to_plain(evidence.listings), "reverse": to_plain(evidence.reverse)}


def _watched(house: House, judged: Judged) -> Json:
    verdict, evidence = judged.verdict, judged.evidence
    return {
        "jail": verdict.jail,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "rule": verdict.rule,
        "parts": to_plain(verdict.parts),
        "offences": [_offence(house, o) for o in judged.suspect.offences],
        **(_evidence(evidence) if evidence else {"listings": [], "reverse": None}),
    }
