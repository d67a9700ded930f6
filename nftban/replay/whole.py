"""A replay from beginning to end: settings and paths in, the result of `nftban replay` out.

Takes loaded settings (one, or two to compare), log files, whether DNS may be asked; gives the result as JSON values
(docs/replay.md lists them).
What must not be banned is what the settings say and what no machine bans (loopback, link-local, ...); this machine's
own addresses and sessions are another matter than those of the machine that wrote the logs.
Guarantees: writes nothing; asks DNS only where it may.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nftban.config.load import Loaded
from nftban.daemon.assemble import Assembly, assemble
from nftban.daemon.known import Known
from nftban.errors import UsageError
from nftban.protect.protected import Protected, Protection
from nftban.records import Suspect
from nftban.replay.answers import Recorded
from nftban.replay.decide import Decider
from nftban.replay.figures import Replayed, difference, settings_result, zones_agreement
from nftban.replay.logs import Series, series_of
from nftban.replay.run import Progress, count_traffic, decide, readings
from nftban.verify.verify import Told, Verifier

RESULT = 1
"""Version of the result's form."""

Json = dict[str, Any]


def replay(
    settings: Sequence[Loaded],
    paths: Sequence[Path],
    *,
    ask: bool = False,
    now: float | None = None,
    changed: Callable[[Progress], None] = lambda _: None,
    asking: Callable[[int, int], None] = lambda _done, _of: None,
) -> Json:
    """changed, asking: are told of progress.  Raises NftbanError: settings that cannot be used, logs that cannot be
    read."""
    now = time.time() if now is None else now
    began = time.monotonic()
    series = series_of(list(paths), now)
    size = sum(file.size for each in series for file in each.files)
    progress = Progress(2 * size, changed)
    recorded = Recorded(settings[0], progress.note)
    try:
        with asyncio.Runner() as runner:
            return runner.run(_replay(settings, series, recorded, progress, ask, now, began, asking))
    finally:
        recorded.close()


async def _replay(
    settings: Sequence[Loaded],
    series: Sequence[Series],
    recorded: Recorded,
    progress: Progress,
    ask: bool,
    now: float,
    began: float,
    asking: Callable[[int, int], None],
) -> Json:
    assemblies = [assemble(loaded) for loaded in settings]
    if not any(assembly.jails for assembly in assemblies):
        raise UsageError("the settings have no jail", "see nftban config show")
    verifiers = [assembly.verifier() for assembly in assemblies]
    try:
        plan = readings(assemblies, series)
        deciders = _deciders(assemblies, verifiers, recorded)
        times = decide(plan, deciders, progress)
        if ask and recorded.unknown:
            if assemblies[0].dns_note:
                progress.note(assemblies[0].dns_note)
            await recorded.ask(verifiers[0], now, asking)
            # What is known now may ban earlier: all is decided again, in windows that are empty.
            progress.total += progress.total // 2
            lines, progress.lines = progress.lines, 0
            assemblies = [assemble(loaded) for loaded in settings]
            plan = readings(assemblies, series)
            deciders = _deciders(assemblies, verifiers, recorded)
            times = decide(plan, deciders, progress)
            progress.lines = lines
        traffic = count_traffic(plan, deciders, progress)
    finally:
        for verifier in verifiers:
            await verifier.close()
    results = [
        settings_result(Replayed(loaded, assembly.jails, decider, traffic, times.first, times.last))
        for loaded, assembly, decider in zip(settings, assemblies, deciders, strict=True)
    ]
    dates = [file.first for each in series for file in each.files if file.first is not None]
    return {
        "version": RESULT,
        "lines": progress.lines,
        "first": min([*dates, times.first]) if dates else None,
        "last": times.last if times.last >= times.first else max(dates, default=None),
        "seconds": time.monotonic() - began,
        "logs": [
            {
                "name": each.series.name,
                "files": [str(file.path) for file in each.series.files],
                "lines": times.lines.get(each.series.name, 0),
                "named": each.named,
            }
            for each in plan
        ],
        "dns": {
            "recorded": len(recorded.used),
            "asked": recorded.asked,
            "unknown": len(recorded.unknown),
            "zones": zones_agreement(recorded.used.values()),
        },
        "notes": progress.notes,
        "settings": results,
        "difference": difference(*results) if len(results) == 2 else None,
    }


def _deciders(assemblies: Sequence[Assembly], verifiers: Sequence[Verifier], recorded: Recorded) -> list[Decider]:
    return [
        Decider(
            assembly.jails,
            {scope.name: scope.ports for scope in assembly.layout.scopes},
            _protected(assembly),
            Known(verifier if asks else None),
            recorded.about if asks else _nothing,
        )
        for assembly, verifier in zip(assemblies, verifiers, strict=True)
        for asks in [bool(assembly.zones) or assembly.loaded.settings.dnsbl.reverse]
    ]


def _nothing(_suspect: Suspect, _told: Told, _now: float) -> None:
    """Of settings that ask nobody."""


def _protected(assembly: Assembly) -> Protected:
    settings = assembly.loaded.settings
    listed = [Protection(prefix, "on the allow list") for prefix in settings.allow.prefixes]
    resolvers = [Protection(prefix, "a resolver") for prefix in assembly.resolver_prefixes]
    return Protected([*listed, *resolvers], settings.defaults.max_prefix4, settings.defaults.max_prefix6)
