"""What the daemon has said about each client so far, and what is new in it.

Takes results of the control operation `why`, one client after the other; gives per client an `Account` to draw and the
`News` since the last time to tell.  Guarantees: nothing is concluded here that the daemon did not say; an entry that
was in the kernel and is no longer stays in the account as ended, with the last it counted.
Does not: ask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class News:
    """kind: "offence", "dns", "verdict" or "kernel"; bad: whether it speaks against the client; text: in words."""

    kind: str
    bad: bool
    text: str


@dataclass(slots=True)
class Entry:
    """One element of a kernel set.  since, until: epoch seconds; packets: dropped so far; ended: it has left."""

    set: str
    prefix: str
    since: float
    until: float
    packets: int
    ended: bool = False


@dataclass(slots=True)
class Account:
    """Everything said about one client."""

    address: str
    result: Json = field(default_factory=dict)
    visited: bool = False
    lines: set[str] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)

    @property
    def ban(self) -> Json | None:
        """The newest ban, live or ended."""
        bans: list[Json] = self.result.get("bans", [])
        return bans[0] if bans else None

    @property
    def banned(self) -> bool:
        return bool(self.result.get("banned"))

    @property
    def bans(self) -> int:
        """How many times it has been banned."""
        return len(self.result.get("bans", []))

    @property
    def judged(self) -> Json | None:
        """The judgement to show: of the live ban, else of what is held against it now, else of the last ban."""
        watched: list[Json] = self.result.get("watched", [])
        return self.ban if self.banned or not watched else watched[0]

    @property
    def prefix(self) -> str:
        """What is banned, or the address."""
        return str(self.ban["prefix"]) if self.ban else self.address

    @property
    def dropped(self) -> int:
        """Packets that the kernel has dropped, all bans together."""
        return sum(entry.packets for entry in self.entries)

    def take(self, result: Json, now: float) -> list[News]:
        """The daemon's present answer to `why`; returns what is new."""
        before = _Told(self)
        self.result = result
        news = self._offences(result)
        after = _Told(self)
        if after.evidence and after.evidence != before.evidence:
            news += [News("dns", True, text) for text in after.evidence]
        if after.verdict and after.standing != before.standing:
            news.append(News("verdict", self.banned, after.verdict))
        return news + self._kernel(result["kernel"], now)

    def _offences(self, result: Json) -> list[News]:
        found = [o for part in (*reversed(result["bans"]), *result["watched"]) for o in part["offences"]]
        news = []
        for offence in found:
            if offence["line"] not in self.lines:
                self.lines.add(offence["line"])
                counted = (
                    f"{self.address}: offence {len(self.lines)}, found by filter {offence['filter']}, {offence['rule']}"
                )
                news.append(News("offence", True, counted))
        return news

    def _kernel(self, present: list[Json], now: float) -> list[News]:
        news = []
        known = {(entry.set, entry.prefix): entry for entry in self.entries if not entry.ended}
        for element in present:
            key = (element["set"], element["prefix"])
            entry = known.pop(key, None)
            if entry is None or abs(entry.until - element["until"]) > 1:
                entry = Entry(*key, now, element["until"], element["packets"])
                self.entries.append(entry)
                news.append(News("kernel", True, f"set {key[0]} has {key[1]}, timeout {element['until'] - now:.0f} s"))
            entry.packets = max(entry.packets, element["packets"])
        for entry in known.values():
            entry.ended = True
            news.append(
                News(
                    "kernel", False, f"set {entry.set}: {entry.prefix} left by itself; dropped {entry.packets} packets"
                )
            )
        return news


class _Told:
    """The parts of an account whose change is news.  standing: what the verdict's words depend on, save the clock."""

    def __init__(self, account: Account) -> None:
        judged = account.judged if account.result else None
        self.evidence: list[str] = []
        self.verdict = ""
        self.standing: tuple[object, ...] = ()
        if judged is None:
            return
        self.evidence = _evidence_in_words(account.address, judged)
        self.standing = (account.banned, account.bans, judged["score"], bool(account.result["login"]))
        score = f"{judged['score']} of {judged['threshold']} points"
        if account.banned:
            self.verdict = f"{account.prefix}: BANNED for {judged['duration']:.0f} s, {score}: {sum_in_words(judged)}"
        elif judged is not account.ban:
            self.verdict = f"{account.address}: {judged['rule']}: {sum_in_words(judged)}"


def _evidence_in_words(address: str, judged: Json) -> list[str]:
    told = []
    for listing in judged["listings"]:
        if listing["answer"] == "listed":
            told.append(f"{address}: {listing['zone']}: LISTED {', '.join(listing['codes'])}, {listing['reason']}")
        elif listing["answer"] == "unknown":
            told.append(f"{address}: {listing['zone']}: no usable answer, counts nothing: {listing['reason']}")
    clear = [listing["zone"] for listing in judged["listings"] if listing["answer"] == "clear"]
    if clear:
        told.append(f"{address}: not listed by {', '.join(clear)}")
    if judged["reverse"]:
        told.append(f"{address}: reverse DNS: {judged['reverse']['reason']}")
    return told


def sum_in_words(judged: Json) -> str:
    """The score's parts, to be redone by hand."""
    return "; ".join(f"{part['points']:+d} {part['reason']}" for part in judged["parts"])
