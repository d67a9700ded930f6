"""The bans that ended, as the operation `history` gives them: a piece at a time.

Takes an address or prefix, a jail, a time; gives rows, the newest first, and `before`, with which the next piece is
asked for.  A piece may be empty and still have a next one: what one call looks at is bounded, not what it finds.
"""

from __future__ import annotations

from nftban.daemon.answers import ban_row
from nftban.daemon.arguments import prefix_of, text_of
from nftban.daemon.house import House, Json
from nftban.errors import UsageError
from nftban.store.history import Past, past_bans


def history(house: House, address: object, since: object, jail: object, before: object) -> Json:
    """address, jail: only its bans; since: that ended then or later; before: as an earlier answer gave it."""
    past = Past(
        _time(since, "since"),
        None if address is None else prefix_of(address),
        None if jail is None else text_of(jail, "jail"),
        None if before is None else _key(before),
    )
    bans, more = past_bans(house.store, past)
    rows = [{**ban_row(stored), "ended": {"time": stored.ended, "how": stored.how}} for stored in bans]
    return {"bans": rows, "before": None if more is None else list(more)}


def _time(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise UsageError(f"{name}: {value!r:.80} is not a time", "give seconds since the epoch")
    return float(value)


def _key(value: object) -> tuple[float, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(f"before: {value!r:.80} was given by no answer", "give what the answer before had")
    time, number = value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 62:
        raise UsageError(f"before: {value!r:.80} was given by no answer", "give what the answer before had")
    return _time(time, "before"), number
