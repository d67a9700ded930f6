"""The operations on the allow list: `allow`, `allow_add`, `allow_remove`.

Take the house and JSON values; give JSON values (docs/interface.md).  Guarantees: of several entries each is taken or
refused on its own; when an answer comes the kernel lets in what was added, and no ban covers it.
"""

from __future__ import annotations

from nftban.daemon.arguments import text_of, texts_of
from nftban.daemon.house import House, Json
from nftban.errors import UsageError


def listed(house: House) -> Json:
    """Every entry, what it allows now, and why a name could not be resolved."""
    return {
        "entries": [
            {
                "entry": e.entry,
                "addresses": [str(p) for p in house.allow.addresses(e)],
                "since": e.since or None,
                "reason": e.reason,
                "failure": house.allow.failures.get(e.entry),
            }
            for e in house.allow.entries()
        ]
    }


async def add(house: House, entries: list[str], reason: str) -> Json:
    """Lifts the bans that cover an entry, too."""
    added, refused = [], []
    reason = text_of(reason, "reason")
    for text in texts_of(entries, "entries"):
        try:
            is_new = house.allow.add(text, reason, house.clock())
        except UsageError as e:
            refused.append({"entry": text, "reason": str(e), "advice": e.advice})
        else:
            if is_new:
                added.append(text)
            else:
                refused.append({"entry": text, "reason": f"{text} is on the allow list already", "advice": ""})
    if added:
        await house.allow.resolve(house.clock())
        house.lockout.forget()
        await house.reconcile()
    return {"added": added, "refused": refused}


async def remove(house: House, entries: list[str]) -> Json:
    removed, refused = [], []
    for text in texts_of(entries, "entries"):
        try:
            was_there = house.allow.remove(text)
        except UsageError as e:
            refused.append({"entry": text, "reason": str(e), "advice": e.advice})
        else:
            if was_there:
                removed.append(text)
            else:
                refused.append({"entry": text, "reason": f"{text} is not on the allow list", "advice": ""})
    if removed:
        house.lockout.forget()
        await house.reconcile()
    return {"removed": removed, "refused": refused}
