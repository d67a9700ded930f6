"""A zone by AXFR or IXFR (RFC 5936, RFC 1995), with TSIG (RFC 8945) if the feed has a key.

Takes a feed and the master file that the last transfer became; gives the new master file, or None where the serial is
still the same.  With a master file the server is asked for the differences, and may answer with the whole zone.
Raises FetchError.  Blocks, DEADLINE seconds at most: call it in a thread.
Does not: bound the zone's size while it comes (the server is one that the admin named and has an agreement with); what
is written of it is bounded by fetch.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dns.exception
import dns.name
import dns.query
import dns.tsig
import dns.tsigkeyring
import dns.xfr
import dns.zone

from nftban.feeds.definitions import Feed, server_address
from nftban.feeds.fetch import DEADLINE, QUIET, FetchError


def zone_text(feed: Feed, before: bytes) -> bytes | None:
    """The zone as a master file with absolute names."""
    host, port = server_address(feed.server)
    try:
        zone, known = _zone(feed, before)
        query, _ = dns.xfr.make_query(zone, **_key(feed))
        dns.query.inbound_xfr(host, zone, query, port=port, timeout=QUIET, lifetime=DEADLINE)
        if known is not None and zone.get_soa().serial == known:
            return None
        return zone.to_text(relativize=False, want_origin=False).encode()
    except (dns.exception.DNSException, OSError, EOFError, ValueError, LookupError) as e:
        why = str(e)[:200] or type(e).__name__
        raise FetchError(f"{feed.address} from {feed.server}: {why}") from e


def _zone(feed: Feed, before: bytes) -> tuple[dns.zone.Zone, int | None]:
    """The zone as it was, and its serial; an empty one where there is none that can be used."""
    origin = dns.name.from_text(feed.address)
    if before:
        try:
            zone = dns.zone.from_text(before.decode(), origin=origin, relativize=False)
            return zone, zone.get_soa().serial
        except (dns.exception.DNSException, ValueError, LookupError):
            pass
    return dns.zone.Zone(origin, relativize=False), None


def _key(feed: Feed) -> dict[str, Any]:
    """The key in the file that `tsig` names, written as dig(1) -y takes it: [algorithm:]name:secret."""
    if not feed.tsig:
        return {}
    words = Path(feed.tsig).read_text(encoding="ascii").strip().split(":")
    if len(words) not in (2, 3):
        raise ValueError(f"{feed.tsig} does not hold [algorithm:]name:secret")
    *algorithm, name, secret = words
    keyring = dns.tsigkeyring.from_text({name: secret})
    return {
        "keyring": keyring,
        "keyname": dns.name.from_text(name),
        "keyalgorithm": dns.name.from_text(algorithm[0]) if algorithm else dns.tsig.default_algorithm,
    }
