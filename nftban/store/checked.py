"""What came of asking again about a live ban that stayed: when, and in words.

Takes the store, a ban's id, the time and words; gives them back for `why`.  Only the last time is kept, beside what
explains the ban; what is judged by, the evidence of its beginning, is left as it was.
"""

from __future__ import annotations

from nftban.store.sqlite import Store

_NOTE = "UPDATE ban SET detail = json_set(detail, '$.checked', json_object('time', ?, 'words', ?)) WHERE id = ?"
_LAST = "SELECT json_extract(detail, '$.checked.time'), json_extract(detail, '$.checked.words') FROM ban WHERE id = ?"


def note_check(store: Store, ban_id: int, now: float, words: str) -> None:
    store._one(_NOTE, (now, words, ban_id))


def last_check(store: Store, ban_id: int) -> tuple[float, str] | None:
    """The time (epoch seconds) and the words; None where nobody has asked again."""
    row = store._one(_LAST, (ban_id,))
    return (float(row[0]), str(row[1])) if row and row[0] is not None else None
