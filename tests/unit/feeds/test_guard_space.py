"""More of the internet than one list may cover."""

from __future__ import annotations

from collections.abc import Callable

from nftban.feeds.guards import Refusal
from nftban.ranges import Ranges

Judged = Callable[..., Ranges | Refusal]


def ok(found: Ranges | Refusal) -> Ranges:
    assert isinstance(found, Ranges), found
    return found


def test_too_much_is_refused(judged: Judged) -> None:
    # 400 times a /16 are 0.61 % of IPv4.
    text = "".join(f"{45 + n // 256}.{n % 256}.0.0/16\n" for n in range(400))
    found = judged(text)
    assert isinstance(found, Refusal) and found.guard == "space" and "0.61%" in found.why
    assert ok(judged(text, share=0.02))


def test_too_much_of_ipv6_is_refused(judged: Judged) -> None:
    text = "".join(f"2a00:{n:x}::/32\n" for n in range(2000))
    found = judged(text, share=1e-6)
    assert isinstance(found, Refusal) and found.guard == "space" and "IPv6" in found.why
    assert ok(judged(text))


def test_bogons_do_not_count(judged: Judged) -> None:
    assert ok(judged("10.0.0.0/8\n224.0.0.0/3\n45.0.0.0/24\n"))
