"""The list feeds of a configuration, and what is told of them.

Takes loaded settings; gives the feeds in use with every fault of definitions and [feed.NAME] tables, a `Sync` on their
copies, and plain rows for `nftban feed` and `status`.
Guarantees: no feed is used unless a [feed.NAME] table says for what; a feed that cleans others needs no more than its
table; what must stay reachable is cut out of what the kernel gets, splitting ranges.
Does not: fetch (feeds/sync.py), touch the kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nftban.config.load import Loaded, shipped_rules
from nftban.errors import Fault, UsageError
from nftban.feeds.copies import Copies
from nftban.feeds.definitions import Feed, load_feeds
from nftban.feeds.formats.parsed import BadLine
from nftban.feeds.sync import Outcome, Sync
from nftban.kernel.columns import RangeColumns
from nftban.kernel.layout import FeedSets
from nftban.prefixes import PrefixSet
from nftban.ranges import Ranges


@dataclass(frozen=True, slots=True)
class FeedInUse:
    """enforce: it has kernel sets, in `scope`; points: what it counts against an offender."""

    feed: Feed
    enforce: bool
    scope: str
    points: int


def known_feeds(loaded: Loaded) -> tuple[dict[str, Feed], tuple[Fault, ...]]:
    """Every feed that is defined, the admin's own first."""
    return load_feeds([loaded.folder / "rules" / "feeds", shipped_rules() / "feeds"])


def feeds_in_use(loaded: Loaded, scopes: Collection[str]) -> tuple[tuple[FeedInUse, ...], tuple[Fault, ...]]:
    """The feeds that the settings use; scopes: the names there are."""
    known, bad = known_feeds(loaded)
    faults = list(bad)
    used: list[FeedInUse] = []
    for name, use in loaded.settings.feed.items():
        if not use.enabled:
            continue
        feed = known.get(name)
        scope = use.port or (feed.scope if feed else "all")
        if feed is None:
            faults.append(loaded.fault(("feed", name), f"feed.{name}: there is no such feed", "see: nftban feed list"))
        elif feed.clean and (use.enforce or use.points):
            what = f"feed.{name}: it cleans the other feeds and is used for nothing else"
            faults.append(loaded.fault(("feed", name), what, "leave enforce and points out"))
        elif not (feed.clean or use.enforce or use.points or feed.zone):
            what = f"feed.{name}: it is used for nothing"
            faults.append(loaded.fault(("feed", name), what, "write enforce = true, or points = 2"))
        elif scope not in scopes:
            what = f"feed.{name}.port: no scope {scope!r}"
            faults.append(loaded.fault(("feed", name, "port"), what, f"name one of: {', '.join(scopes)}"))
        else:
            used.append(FeedInUse(feed, use.enforce, scope, use.points))
    return tuple(used), tuple(faults)


def feed_sync(loaded: Loaded, feeds: Collection[Feed], folder: Path | None = None) -> Sync:
    """A `Sync` on these feeds; folder: of the copies, where it is not the settings'."""
    settings = loaded.settings.feeds
    copies = Copies(folder or loaded.feeds_path)
    return Sync(feeds, copies, canaries=settings.canaries, contact=settings.contact)


def feed_elements(sets: FeedSets, ranges: Ranges, protected: PrefixSet, until: float) -> dict[str, RangeColumns]:
    """What the feed's kernel sets are to hold: its addresses but for the protected ones.

    until: Sync.until(), at least two intervals ahead, so that without a daemon the entries leave.
    """
    left = ranges.minus(Ranges.of(protected))
    return {spec.name: RangeColumns(spec.name, left.family(spec.family), until) for spec in sets.sets}


def chosen(sync: Sync, names: Collection[str], known: Collection[str]) -> list[str]:
    """These feeds, in the order in which they are fetched; UsageError for one that is not in use."""
    for name in names:
        if name not in sync.feeds:
            if name in known:
                raise UsageError(f"the feed {name} is not in use", f"write a table [feed.{name}] into the settings")
            raise UsageError(f"there is no feed {name!r}", "nftban feed list names them")
    return [name for name in sync.feeds if name in names]


def feed_row(feed: Feed, use: FeedInUse | None, sync: Sync, now: float) -> dict[str, Any]:
    """One feed as `nftban feed list --json` prints it; use None: it is not in use."""
    state, about = sync.state(feed.name), sync.about(feed.name)
    return {
        "name": feed.name,
        "about": feed.about,
        "terms": feed.terms,
        "address": feed.address,
        "format": feed.format,
        "interval": feed.interval,
        "in_use": use is not None,
        "enforce": bool(use and use.enforce),
        "scope": use.scope if use else feed.scope,
        "points": use.points if use else 0,
        "clean": feed.clean,
        "zone": feed.zone or None,
        "entries": about.count if about else None,
        "fetched": about.fetched if about else None,
        "confirmed": state.confirmed or None,
        "tried": state.tried or None,
        "due": (state.due or now) if use else None,
        "good_until": sync.until(feed.name) if about and feed.name in sync.feeds else None,
        "failures": state.failures,
        "refused": state.refused or None,
        "failed": state.failed or None,
    }


def outcome_row(outcome: Outcome) -> dict[str, Any]:
    """One attempt as `nftban feed sync --json` prints it."""
    return {
        "name": outcome.name,
        "result": outcome.result.value,
        "why": outcome.why or None,
        "entries": outcome.count,
        "before": outcome.before,
        "bad_lines": outcome.bad_count,
        "bad": [bad_row(bad) for bad in outcome.bad],
    }


def bad_row(bad: BadLine) -> dict[str, Any]:
    return {"line": bad.position, "why": bad.why}
