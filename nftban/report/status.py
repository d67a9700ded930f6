"""How the daemon is: `nftban status`.

Takes the result of the operation `status` and the time; gives what rich prints: sources, jails, DNSBLs, kernel, jobs,
events.  What is wrong stands out in red or yellow, and nothing else does.
A command that looked itself, without a daemon, knows no sources, jails, jobs and counters: they are left out.
Guarantees: paths, errors and event texts are escaped.  Does not: ask anybody anything.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.config.words import in_words
from nftban.report.feeds import in_use
from nftban.report.text import ago, clock, columns, counted, heading, indented, number, ports, shown, size, when

EVENTS_SHOWN = 10

Json = dict[str, Any]


def status(result: Json, now: float, running: bool) -> Group:
    """running: whether a daemon gave the result, or the command looked itself."""
    parts: list[RenderableType] = [_headline(result, now, running)]
    parts.append(Text(f"settings: {', '.join(map(shown, result['config']))}", style="dim"))
    for title, rows, table in (
        ("Sources", result.get("sources"), _sources),
        ("Jails", result.get("jails"), _jails),
        ("DNSBLs", result["zones"], zone_table),
        ("Feeds", result.get("feeds"), in_use),
    ):
        if rows:
            parts += [heading(title), indented(table(rows, now))]
    parts += _dns(result["dns"])
    parts += [*_kernel(result["kernel"]), *_healing(result.get("healing"), now)]
    parts += _notify(result.get("notify"))
    if result.get("jobs"):
        parts += [heading("Jobs"), indented(_jobs(result["jobs"], now))]
    if result["events"]:
        parts += [heading("Last events"), indented(_events(result["events"], now))]
    if result.get("counters"):
        counters = ", ".join(f"{shown(name)} {number(count)}" for name, count in result["counters"].items())
        parts += [heading("Counters"), indented(Text(counters))]
    return Group(*parts)


def _headline(result: Json, now: float, running: bool) -> Text:
    line = Text.assemble((f"nftban {shown(result['version'])}", "bold"))
    if running:
        line.append(f", process {result['pid']}, ").append("runs", style="bold green")
        line.append(f" since {when(result['started'])} ({in_words(now - result['started'])})")
    else:
        line.append(", ").append("no daemon runs", style="bold red")
        line.append("; bans in the kernel stand and time out")
    if result.get("observe"):
        line.append("  it only observes: nothing is written to the kernel", style="yellow")
    return line


def _sources(sources: list[Json], now: float) -> RenderableType:
    table = columns("", "", "", "", "")
    for source in sources:
        odd = [f"{number(source[key])} {word}" for key, word in _ODD_LINES if source.get(key)]
        state = Text("missing", style="yellow") if not source["exists"] else Text(ago(source["last_line"], now))
        if source.get("alert"):
            odd.append(shown(source["alert"]))
        if source.get("error"):
            odd.append(shown(source["error"]))
        told = (counted(source["lines"], "line"), size(source["bytes"]), Text(", ".join(odd), style="yellow"))
        table.add_row(shown(source["path"]), state, *told)
    return table


_ODD_LINES = (("oversized", "too long"), ("undecodable", "not UTF-8"))


def _jails(jails: list[Json], _now: float) -> RenderableType:
    table = columns("", "dim", "", "")
    for jail in jails:
        rule = f"{counted(jail['maxretry'], 'point')} in {in_words(jail['findtime'])} → {in_words(jail['bantime'])}"
        if jail["filter"] != jail["name"]:
            rule += f"\nfilter {shown(jail['filter'])}"
        seen = f"{counted(jail['offences'], 'offence')}, {counted(jail['suspects'], 'suspect')}, "
        told = Text.assemble(seen, (counted(jail["bans"], "ban"), "bold" if jail["bans"] else ""))
        if jail.get("stopped"):
            told.append(f"\nstopped: more than {number(jail['storm'])} bans a minute", style="bold red")
        table.add_row(shown(jail["name"]), ports(jail["scope"]), rule, told)
    return table


_ZONE_STYLE = {"ok": "green", "untested": "dim", "degraded": "yellow"}


def zone_table(zones: list[Json], now: float) -> RenderableType:
    """Why a zone is as it is, is told where it is not well; else when that was last tested."""
    table = columns("", "", "", "")
    for zone in zones:
        state = shown(zone["state"])
        asked = f"{number(zone['queries_today'])} of {number(zone['budget'])} today"
        note = f"tested {ago(zone['tested'], now)}" if zone.get("tested") else "not tested yet"
        if state != "ok" and zone.get("why"):
            note = shown(zone["why"]) + (f", since {clock(zone['since'], now)}" if zone.get("since") else "")
        table.add_row(shown(zone["zone"]), Text(state, style=_ZONE_STYLE.get(state, "bold red")), asked, note)
    return table


def _dns(dns: Json) -> list[RenderableType]:
    servers = ", ".join(map(shown, dns["servers"])) or "none"
    note = [indented(Text(shown(dns["note"]), style="yellow"))] if dns.get("note") else []
    return [heading("Resolvers", servers), *note]


def _kernel(kernel: Json) -> list[RenderableType]:
    state = ("intact", "green") if kernel["intact"] else ("not as it should be", "bold red")
    line = Text.assemble(("Kernel", "bold"), f"  table inet {shown(kernel['table'])}: ", state)
    drift = [indented(Text(shown(words), style="red")) for words in kernel.get("drift") or ()]
    held = ", ".join(f"{shown(name)} {number(n)}" for name, n in kernel["elements"].items() if n)
    return [line, *drift, indented(Text(held or "no entries"))]


def _healing(healing: Json | None, now: float) -> list[RenderableType]:
    """What others did to the table; nothing where they did nothing."""
    if not healing or not healing["drift_found"]:
        return []
    kinds = ", ".join(f"{shown(kind)} {number(n)}" for kind, n in healing["by_kind"].items())
    found, mended = counted(healing["drift_found"], "time"), number(healing["drift_healed"])
    words = f"changed by others {found}, mended {mended}, last {ago(healing['last'], now)} ({kinds})"
    lines = [indented(Text(words, style="yellow"))]
    if healing["resting"]:
        lines.append(indented(Text("changed again and again: mended every minute only", style="bold red")))
    return [*lines]


def _notify(notify: Json | None) -> list[RenderableType]:
    """How many notices arrived; nothing where nobody is to be told."""
    if not notify:
        return []
    counts = ", ".join(
        f"{number(notify[key])} {key}" for key in ("sent", "failed", "dropped", "waiting") if notify[key]
    )
    lines: list[RenderableType] = [heading("Notifications", counts or "none yet")]
    failing = (Text(f"{shown(receiver)} does not work", style="bold red") for receiver in notify["failing"])
    return [*lines, *map(indented, failing)]


def _jobs(jobs: list[Json], now: float) -> RenderableType:
    table = columns("", "", "", "yellow")
    for job in jobs:
        following = "not planned" if job["next"] is None else f"next in {in_words(max(0.0, job['next'] - now))}"
        wrong = [f"missed {number(job['missed'])}"] if job["missed"] else []
        wrong += [shown(job["last_error"])] if job["last_error"] else []
        table.add_row(shown(job["id"]), following, f"last {ago(job['last'], now)}", ", ".join(wrong))
    return table


def _events(events: list[Json], now: float) -> RenderableType:
    table = columns("dim", "cyan", "")
    for event in sorted(events, key=lambda event: float(event["time"]))[-EVENTS_SHOWN:]:
        table.add_row(clock(event["time"], now), shown(event["kind"]), shown(event["text"]))
    return table
