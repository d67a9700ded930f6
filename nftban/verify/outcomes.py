"""What a DNS question came to: three frozen types, one of which every look-up ends in.

Records: the name has records of the type asked.  Missing: it certainly has none (NXDOMAIN or NODATA, RFC 2308).
Failed: nobody can tell (SERVFAIL, REFUSED, timeout, garbage); it neither lists nor clears anyone.
Guarantees: there is no fourth case and no exception.  Does not: interpret the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RecordType = Literal["A", "AAAA", "PTR", "TXT", "MX"]


@dataclass(frozen=True, slots=True)
class Records:
    """values: addresses, names without the final dot, TXT strings joined, or MX as `PREFERENCE NAME.`, as text with
    unprintable bytes escaped, sorted; ttl: seconds they may be used from now."""

    values: tuple[str, ...]
    ttl: int


@dataclass(frozen=True, slots=True)
class Missing:
    """ttl: seconds this may be believed; name_exists: NODATA (the name has other records), not NXDOMAIN."""

    ttl: int
    name_exists: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """reason: in words, with the server but never the name asked (it may hold an account key); ttl: seconds in
    which asking again is pointless."""

    reason: str
    ttl: int = 30


Outcome = Records | Missing | Failed
