"""nftban feed list, sync, test, diff: lists from elsewhere.

`list` shows what there is and what became of it; `sync` fetches those that are due, or those named; `test` fetches one
feed, in use or not, or reads a file as if it were that feed, and says what the guards think; `diff` shows what the next
list would change.  `sync` and `test` end with 1 where a list was refused or could not be had, `diff` where there is a
difference.  `sync` is done by the daemon if one runs, and the kernel follows at once; all else, and `sync` without one,
works on the copies on disk.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nftban.cli.output import show, write_json
from nftban.cli.reach import AsJson, Config, settings
from nftban.control import client
from nftban.errors import EXIT_NO, ConfigError, NoDaemonError, PermissionNeededError, TryAgainError, UsageError

if TYPE_CHECKING:
    from nftban.config.load import Loaded
    from nftban.daemon.feeds import FeedInUse
    from nftban.feeds.definitions import Feed
    from nftban.feeds.fetch import Progress
    from nftban.feeds.sync import Sync

LONGEST = 3600.0
"""Seconds that the daemon may take for all feeds that are due."""

app = typer.Typer(help="Lists from elsewhere.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A feed's name.")]
Accept = Annotated[bool, typer.Option("--accept", help="However much the list has grown or shrunk.")]


@app.command("list")
def list_(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """List the feeds: in use or not, how old, and what is wrong."""
    from nftban.daemon.feeds import feed_row

    loaded = settings(context, config)
    known, used, sync = _feeds(loaded)
    now = time.time()
    told: dict[str, dict[str, Any]] = {}
    with suppress(NoDaemonError):
        told = {row["name"]: row for row in client.call(loaded.socket_path, "feed_list", {})["feeds"]}
    with _writing():
        rows = [told.get(name) or feed_row(feed, used.get(name), sync, now) for name, feed in sorted(known.items())]
    if as_json:
        write_json({"feeds": rows})
    else:
        from nftban.report.feeds import feeds

        show(feeds(rows, now))


@app.command()
def sync(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="These, due or not.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fetch and examine, but keep nothing.")] = False,
    accept: Accept = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the feeds that are due, or those named."""
    from nftban.daemon.feeds import chosen

    loaded = settings(context, config)
    known, _, syncing = _feeds(loaded)
    if names:
        chosen(syncing, names, known)
    rows = None
    if not dry_run:
        with suppress(NoDaemonError):
            asked = {"names": names or None, "accept": accept}
            rows = client.call(loaded.socket_path, "feed_sync", asked, timeout=LONGEST)["feeds"]
    if rows is None:
        rows = _synchronised(syncing, names, known, dry_run, accept)
    if as_json:
        write_json({"feeds": rows})
    elif rows:
        from nftban.report import feeds

        show(feeds.outcomes(rows))
    else:
        show("no feed is due" if syncing.feeds else "no feed is in use")
    if any(row["result"] in ("refused", "failed") for row in rows):
        raise typer.Exit(EXIT_NO)


def _synchronised(
    syncing: Sync, names: list[str] | None, known: Collection[str], dry_run: bool, accept: bool
) -> list[dict[str, Any]]:
    """The same without a daemon."""
    from nftban.daemon.feeds import chosen, outcome_row

    outcomes = []
    with _writing():
        syncing.restore(time.time())
        for name in chosen(syncing, names, known) if names else syncing.due(time.time()):
            with _progress(name) as progress:
                if dry_run:
                    outcomes.append(syncing.look(name, time.time(), accept=accept, progress=progress).outcome)
                else:
                    outcomes.append(syncing.attempt(name, time.time(), accept=accept, progress=progress))
    return [outcome_row(outcome) for outcome in outcomes]


@app.command()
def test(
    context: typer.Context,
    name: Name,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Read this instead.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Fetch one feed, in use or not, and say what the guards think of it; nothing is kept."""
    from nftban.daemon.feeds import feed_sync, outcome_row
    from nftban.feeds.sync import Result

    loaded = settings(context, config)
    feed = _feed(loaded, name)
    if file:
        feed = replace(feed, source="file", address=str(file.absolute()))
    with tempfile.TemporaryDirectory(prefix="nftban-feed-") as folder, _progress(name) as progress:
        looking = feed_sync(loaded, [feed], Path(folder))
        look = looking.look(name, time.time(), progress=progress)
    row = outcome_row(look.outcome) | {
        "addresses": look.ranges.addresses4 if look.ranges is not None else None,
        "ranges": len(look.ranges) if look.ranges is not None else None,
    }
    if as_json:
        write_json(row)
    else:
        from nftban.report.feeds import outcomes

        show(outcomes([row | {"result": "good" if look.ranges is not None else row["result"]}]))
    if look.outcome.result is not Result.UPDATED:
        raise typer.Exit(EXIT_NO)


@app.command()
def diff(
    context: typer.Context, name: Name, accept: Accept = False, config: Config = None, as_json: AsJson = False
) -> None:
    """Fetch one feed and show what it would change; nothing is kept."""
    from nftban.daemon.feeds import chosen
    from nftban.ranges import Ranges

    known, _, syncing = _feeds(settings(context, config))
    with _writing():
        syncing.restore(time.time())
        chosen(syncing, [name], known)
        with _progress(name) as progress:
            look = syncing.look(name, time.time(), accept=accept, progress=progress)
    if look.outcome.why:
        raise TryAgainError(f"{name}: {look.outcome.why}", "the last good copy stays; --accept takes any growth")
    present = syncing.ranges.get(name, Ranges())
    wanted = look.ranges if look.ranges is not None else present
    added = [str(p) for p in wanted.minus(present).prefixes()]
    removed = [str(p) for p in present.minus(wanted).prefixes()]
    if as_json:
        write_json({"name": name, "added": added, "removed": removed})
    elif added or removed:
        from nftban.report.feeds import changes

        show(changes(added, removed))
    if added or removed:
        raise typer.Exit(EXIT_NO)


def _feeds(loaded: Loaded) -> tuple[dict[str, Feed], dict[str, FeedInUse], Sync]:
    """The feeds that are defined, those in use, and these to be synchronised; raises ConfigError."""
    from nftban.daemon.feeds import feed_sync, feeds_in_use, known_feeds

    known, _ = known_feeds(loaded)
    used, faults = feeds_in_use(loaded, ["all", *loaded.settings.scopes])
    if faults:
        raise ConfigError(faults)
    return known, {use.feed.name: use for use in used}, feed_sync(loaded, [use.feed for use in used])


def _feed(loaded: Loaded, name: str) -> Feed:
    from nftban.daemon.feeds import known_feeds

    known, faults = known_feeds(loaded)
    if name not in known:
        if faults:
            raise ConfigError(faults)
        raise UsageError(f"there is no feed {name!r}", "nftban feed list names them")
    return known[name]


@contextmanager
def _writing() -> Iterator[None]:
    """Says whose fault it is that the copies cannot be read or written."""
    try:
        yield
    except PermissionError as e:
        raise PermissionNeededError(f"{e.filename}: {e.strerror}", "run as root") from e
    except OSError as e:
        raise TryAgainError(f"{e.filename}: {e.strerror}") from e


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar while bytes come, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn(name), BarColumn(), DownloadColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
