"""The arguments of operations, checked: JSON values from whoever may ask.

Takes a value and its name; gives it as the type an operation works with, or raises UsageError in words.  Nothing is
converted that was not meant: "no" is not true, and not false either.
"""

from __future__ import annotations

from nftban.daemon.house import House
from nftban.errors import UsageError
from nftban.prefixes import Prefix


def text_of(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be text, not {value!r:.80}")
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        # Bytes of a command line that are no UTF-8 come as these; the store takes none.
        raise UsageError(f"{name} is not valid UTF-8: {value!r:.80}")
    return value


def truth_of(value: object, name: str) -> bool:
    # Not bool(value): "no" and "false" would be true.
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, not {value!r:.80}")
    return value


def texts_of(value: object, name: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise UsageError(f"{name} must be a list of addresses or prefixes, at least one")
    return list(dict.fromkeys(value))


def prefix_of(address: object) -> Prefix:
    try:
        return Prefix.parse(text_of(address, "address"))
    except ValueError as e:
        raise UsageError(str(e), "write 192.0.2.7 or 2001:db8::7") from None


def length_of(seconds: object, otherwise: float | None) -> float | None:
    if seconds is None:
        return otherwise
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 100 * 31556952:
        raise UsageError(f"{seconds!r:.80} is not a duration", "give seconds, more than 0 and at most 100 years")
    return float(seconds)


def known_scope(house: House, scope: object) -> None:
    names = [s.name for s in house.assembly.layout.scopes]
    if scope not in names:
        raise UsageError(f"there is no scope {scope!r:.80}", f"there are: {', '.join(names)}")


def whole_number(value: object, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name}: {value!r:.80} is not a whole number from {least} to {most}")
    return value
